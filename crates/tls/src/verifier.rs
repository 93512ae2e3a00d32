//! The certificate verifiers that rustls calls during a handshake.
//!
//! A verifier serves one handshake: it keeps the reason of a rejection
//! ([`ClientVerifier::refusal`]) for the log, because rustls has no error that carries it. The
//! alert sent to the peer is the closest to Go's.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    SignatureScheme,
};
use webpki::RawPublicKeyEntity;

use crate::certificate::Certificate;
use crate::chain::{Authorities, Purpose, Refusal};
use crate::files::RevocationList;

/// Restricts which clients with a trusted certificate a server accepts. Empty lists accept all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedNames {
    /// The common names of which a certificate must have one.
    pub allowed_common_names: Vec<String>,
    /// The hosts for one of which a certificate must be valid.
    pub allowed_host_names: Vec<String>,
}

impl AllowedNames {
    fn check(&self, certificate: &Certificate) -> Result<(), Refusal> {
        let (names, hosts) = (&self.allowed_common_names, &self.allowed_host_names);
        let allowed = (names.is_empty() && hosts.is_empty())
            || names.iter().any(|name| name == certificate.common_name())
            || hosts
                .iter()
                .any(|host| certificate.verify_host_name(host).is_ok());
        if allowed {
            Ok(())
        } else {
            Err(Refusal::NotAllowed)
        }
    }
}

/// Verifies a client's certificate in one handshake.
#[derive(Debug)]
pub struct ClientVerifier {
    authorities: Arc<Authorities>,
    allowed: Arc<AllowedNames>,
    revoked: Option<Arc<RevocationList>>,
    algorithms: WebPkiSupportedAlgorithms,
    presented: OnceLock<Certificate>,
    refusal: OnceLock<Refusal>,
}

impl ClientVerifier {
    /// Creates the verifier for one handshake.
    pub fn new(
        authorities: Arc<Authorities>,
        allowed: Arc<AllowedNames>,
        revoked: Option<Arc<RevocationList>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> ClientVerifier {
        ClientVerifier {
            authorities,
            allowed,
            revoked,
            algorithms,
            presented: OnceLock::new(),
            refusal: OnceLock::new(),
        }
    }

    /// Why the certificate was rejected, if it was.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.get()
    }

    /// The certificate that the client presented. It is authenticated only once the handshake has
    /// succeeded.
    pub fn presented(&self) -> Option<&Certificate> {
        self.presented.get()
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let leaf = Certificate::parse(leaf.clone())?;
        let leaf = self.presented.get_or_init(|| leaf);
        self.authorities
            .verify(leaf, others, Purpose::Client, now, &self.algorithms)?;
        self.allowed.check(leaf)?;
        if let Some(revoked) = &self.revoked {
            revoked.check(leaf)?;
            for other in others {
                revoked.check(&Certificate::parse(other.clone())?)?;
            }
        }
        Ok(())
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities.subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, others, now)
            .map(|()| ClientCertVerified::assertion())
            .map_err(|refusal| self.refusal.get_or_init(|| refusal).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Verifies a server's certificate in one handshake.
#[derive(Debug)]
pub struct ServerVerifier {
    /// `None` accepts any certificate.
    authorities: Option<Arc<Authorities>>,
    allowed: Arc<AllowedNames>,
    algorithms: WebPkiSupportedAlgorithms,
    refusal: OnceLock<Refusal>,
}

impl ServerVerifier {
    /// Creates the verifier for one handshake. Without `authorities`, only the handshake signature
    /// is verified.
    pub fn new(
        authorities: Option<Arc<Authorities>>,
        allowed: Arc<AllowedNames>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> ServerVerifier {
        ServerVerifier {
            authorities,
            allowed,
            algorithms,
            refusal: OnceLock::new(),
        }
    }

    /// Why the certificate was rejected, if it was.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.get()
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let leaf = Certificate::parse(leaf.clone())?;
        let Some(authorities) = &self.authorities else {
            return Ok(());
        };
        authorities.verify(&leaf, others, Purpose::Server, now, &self.algorithms)?;
        leaf.verify_host_name(&name.to_str())
            .map_err(Refusal::HostName)?;
        self.allowed.check(&leaf)
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, others, name, now)
            .map(|()| ServerCertVerified::assertion())
            .map_err(|refusal| self.refusal.get_or_init(|| refusal).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl From<&Refusal> for Error {
    /// Chooses the alert. Go sends `unknown certificate authority`, `expired certificate`, or
    /// otherwise `bad certificate`; for a revoked certificate it sends none.
    fn from(refusal: &Refusal) -> Error {
        Error::InvalidCertificate(match refusal {
            Refusal::UnknownAuthority => CertificateError::UnknownIssuer,
            Refusal::Expired { .. } | Refusal::NotYetValid { .. } => CertificateError::Expired,
            Refusal::Revoked(_) => CertificateError::Revoked,
            _ => CertificateError::BadEncoding,
        })
    }
}

/// As in rustls, but also for version 1 certificates: only the key matters here.
fn verify_tls12(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let info = public_key_info(certificate)?;
    let info = SubjectPublicKeyInfoDer::from(info);
    let key = RawPublicKeyEntity::try_from(&info)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let (_, candidates) = algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == signed.scheme)
        .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    // In TLS 1.2 the scheme does not determine the curve: only one of the candidates fits the key.
    let valid = candidates.iter().any(|algorithm| {
        key.verify_signature(*algorithm, message, signed.signature())
            .is_ok()
    });
    if valid {
        Ok(HandshakeSignatureValid::assertion())
    } else {
        Err(Error::InvalidCertificate(CertificateError::BadSignature))
    }
}

fn verify_tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let info = public_key_info(certificate)?;
    let info = SubjectPublicKeyInfoDer::from(info);
    verify_tls13_signature_with_raw_key(message, &info, signed, algorithms)
}

fn public_key_info(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, Error> {
    Certificate::parse(certificate.clone())
        .map(|certificate| certificate.public_key_info)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}
