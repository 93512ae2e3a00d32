//! What rustls asks during a handshake: may this certificate in?
//!
//! A check serves one handshake: it keeps why it refused ([`ClientCheck::refusal`]), which rustls has no words for, and
//! which tells the operator what to do. The alert that the other side gets is the nearest to Go's.

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
use crate::files::Revoked;

/// Whom of those who are trusted a server lets in. Empty lists let everybody in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// A certificate must have one of these common names.
    pub allowed_common_names: Vec<String>,
    /// A certificate must be valid for one of these hosts.
    pub allowed_host_names: Vec<String>,
}

impl Rules {
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

/// A server's check of a client's certificate, for one handshake.
#[derive(Debug)]
pub struct ClientCheck {
    authorities: Arc<Authorities>,
    rules: Arc<Rules>,
    revoked: Option<Arc<Revoked>>,
    algorithms: WebPkiSupportedAlgorithms,
    presented: OnceLock<Certificate>,
    refusal: OnceLock<Refusal>,
}

impl ClientCheck {
    /// A check against these.
    pub fn new(
        authorities: Arc<Authorities>,
        rules: Arc<Rules>,
        revoked: Option<Arc<Revoked>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> ClientCheck {
        ClientCheck {
            authorities,
            rules,
            revoked,
            algorithms,
            presented: OnceLock::new(),
            refusal: OnceLock::new(),
        }
    }

    /// Why the certificate was refused, if it was.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.get()
    }

    /// The certificate that the client showed. Whether the client may have it, and has its key, is known when the
    /// handshake has succeeded.
    pub fn presented(&self) -> Option<&Certificate> {
        self.presented.get()
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let leaf = Certificate::parse(leaf.clone())?;
        let leaf = self.presented.get_or_init(|| leaf);
        self.authorities
            .verify(leaf, others, Purpose::Client, now, &self.algorithms)?;
        self.rules.check(leaf)?;
        if let Some(revoked) = &self.revoked {
            revoked.check(leaf)?;
            for other in others {
                revoked.check(&Certificate::parse(other.clone())?)?;
            }
        }
        Ok(())
    }
}

impl ClientCertVerifier for ClientCheck {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities.subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(leaf, others, now)
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

/// A client's check of a server's certificate, for one handshake.
#[derive(Debug)]
pub struct ServerCheck {
    /// None: any certificate will do.
    authorities: Option<Arc<Authorities>>,
    rules: Arc<Rules>,
    algorithms: WebPkiSupportedAlgorithms,
    refusal: OnceLock<Refusal>,
}

impl ServerCheck {
    /// A check against these; without authorities the certificate is not looked at, but for the key's signature.
    pub fn new(
        authorities: Option<Arc<Authorities>>,
        rules: Arc<Rules>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> ServerCheck {
        ServerCheck {
            authorities,
            rules,
            algorithms,
            refusal: OnceLock::new(),
        }
    }

    /// Why the certificate was refused, if it was.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.get()
    }

    fn judge(
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
        self.rules.check(&leaf)
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, others, name, now)
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
    /// Chooses the alert: Go says `unknown certificate authority`, `expired certificate`, and else `bad certificate`; of
    /// a revoked certificate it says nothing at all.
    fn from(refusal: &Refusal) -> Error {
        Error::InvalidCertificate(match refusal {
            Refusal::UnknownAuthority => CertificateError::UnknownIssuer,
            Refusal::Expired { .. } | Refusal::NotYetValid { .. } => CertificateError::Expired,
            Refusal::Revoked(_) => CertificateError::Revoked,
            _ => CertificateError::BadEncoding,
        })
    }
}

/// As rustls does it, but for certificates of version 1, too: the key is all that matters here.
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
    // The scheme does not name the curve in TLS 1.2: only one of the candidates is for this key.
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
