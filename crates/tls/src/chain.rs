//! Verification of certificate chains.
//!
//! webpki does most of it. It is stricter than Go's `crypto/x509` about the form of certificates,
//! and certificates in forms that only Go accepts are in use with etcd: version 1 certificates,
//! which `openssl x509 -req` creates by default; self-signed CA certificates used as server
//! certificates, which `openssl req -x509` and `--auto-tls` create; and the extended key usage
//! "any". If webpki rejects one of these forms, [`PathSearch`] verifies the certificate by Go's
//! rules:
//!
//! - A leaf that is itself trusted needs no issuer.
//! - An issuer's subject is the issuer name of the certificate, and its key made the signature.
//!   From version 3 on it must be marked as a CA, and if it has a key usage, that must include
//!   certificate signing. It must be valid now, and its path length constraint must hold.
//! - If a certificate of the chain has extended key usages, they must include the purpose, or
//!   "any".
//!
//! The search does not evaluate name constraints: chains that have them are left to webpki.
//!
//! In other respects Go is stricter than webpki: it checks the validity, the extended key usages
//! and the path length constraint of trust anchors, and the key usage of every issuer. These checks
//! apply to chains that webpki accepts as well.

use rustls::DistinguishedName;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{
    CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime,
};
use webpki::{EndEntityCert, KeyUsage, RawPublicKeyEntity, VerifiedPath};

use crate::certificate::{Certificate, CertificateError, HostNameError};
use crate::rfc3339::rfc3339;
use crate::signatures::SignatureCache;

/// Signatures verified per path search, a bound on the work that a peer can cause.
const SIGNATURES_MAX: usize = 32;
/// Intermediates considered per path search.
const INTERMEDIATES_MAX: usize = 16;

/// The purpose that a certificate is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Server authentication.
    Server,
    /// Client authentication.
    Client,
}

/// Why a certificate was rejected. Displays the texts of Go and etcd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No chain leads to a trusted certificate.
    #[error("x509: certificate signed by unknown authority")]
    UnknownAuthority,
    /// The certificate is not valid yet.
    #[error(
        "x509: certificate has expired or is not yet valid: current time {} is before {}", rfc3339(*now), rfc3339(*not_before)
    )]
    NotYetValid {
        /// The time of the check, in Unix seconds.
        now: i64,
        /// Start of validity, in Unix seconds.
        not_before: i64,
    },
    /// The certificate has expired.
    #[error(
        "x509: certificate has expired or is not yet valid: current time {} is after {}", rfc3339(*now), rfc3339(*not_after)
    )]
    Expired {
        /// The time of the check, in Unix seconds.
        now: i64,
        /// End of validity, in Unix seconds.
        not_after: i64,
    },
    /// Its extended key usages do not include the purpose.
    #[error("x509: certificate specifies an incompatible key usage")]
    IncompatibleUsage,
    /// It has an unknown extension marked as critical.
    #[error("x509: unhandled critical extension")]
    UnhandledCriticalExtension,
    /// It violates the name constraints of an issuer.
    #[error("x509: a root or intermediate certificate is not authorized to sign for this name")]
    NameConstraints,
    /// The chain violates the path length constraint of an issuer.
    #[error("x509: too many intermediates for path length constraint")]
    TooManyIntermediates,
    /// It is not valid for the server's name.
    #[error(transparent)]
    HostName(HostNameError),
    /// Its serial number (here in hexadecimal) is on the revocation list.
    #[error("transport: certificate serial {0} revoked")]
    Revoked(String),
    /// Its names are not among the allowed ones.
    #[error("client certificate authentication failed")]
    NotAllowed,
    /// It could not be parsed.
    #[error(transparent)]
    Malformed(#[from] CertificateError),
    /// Any other reason; the text is webpki's.
    #[error("x509: {0}")]
    Other(String),
}

/// Trusted certificates (Go: `x509.CertPool`), and a cache of the signatures verified against them.
#[derive(Debug, Default)]
pub struct Authorities {
    certificates: Vec<Certificate>,
    /// One per certificate, in the same order.
    anchors: Vec<TrustAnchor<'static>>,
    subjects: Vec<DistinguishedName>,
    verified: SignatureCache,
}

impl Authorities {
    /// Trusts `certificates`.
    ///
    /// # Errors
    /// A certificate cannot be parsed.
    pub fn new<'a>(
        certificates: impl IntoIterator<Item = CertificateDer<'a>>,
    ) -> Result<Authorities, CertificateError> {
        let mut authorities = Authorities::default();
        for der in certificates {
            let certificate = Certificate::parse(der)?;
            if authorities.certificates.contains(&certificate) {
                continue;
            }
            // The path search may use what webpki cannot use as an anchor. A placeholder keeps the
            // indexes of the two vectors equal.
            let anchor = webpki::anchor_from_trusted_cert(certificate.der())
                .map(|anchor| anchor.to_owned())
                .unwrap_or_else(|_| unusable_anchor());
            authorities.anchors.push(anchor);
            authorities
                .subjects
                .push(DistinguishedName::from(certificate.subject.clone()));
            authorities.certificates.push(certificate);
        }
        Ok(authorities)
    }

    /// Whether there is no trusted certificate.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// The trusted certificates.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The subjects of the trusted certificates, for the CA list of a certificate request.
    pub fn subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    /// Verifies that `leaf` may be used for `purpose` at `now`. `others` are the intermediates that
    /// the peer sent, in any order.
    ///
    /// # Errors
    /// It may not.
    pub fn verify(
        &self,
        leaf: &Certificate,
        others: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Refusal> {
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        leaf.check_alone(seconds)?;
        match self.verify_with_webpki(leaf, others, purpose, now, algorithms) {
            Ok(()) => Ok(()),
            Err(error) if is_form_rejected(&error) || self.certificates.contains(leaf) => {
                PathSearch::new(self, others, purpose, seconds, algorithms).run(leaf)
            }
            Err(error) => Err(refusal(&error, seconds)),
        }
    }

    fn verify_with_webpki(
        &self,
        leaf: &Certificate,
        others: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), webpki::Error> {
        let usage = match purpose {
            Purpose::Server => KeyUsage::server_auth(),
            Purpose::Client => KeyUsage::client_auth(),
        };
        let is_allowed = |path: &VerifiedPath<'_>| self.check_path(path, purpose, now);
        let cached = self.verified.wrap(algorithms.all);
        let algorithms: Vec<&dyn SignatureVerificationAlgorithm> =
            cached.iter().map(|one| one as _).collect();
        EndEntityCert::try_from(leaf.der())?
            .verify_for_usage(
                &algorithms,
                &self.anchors,
                others,
                now,
                usage,
                None,
                Some(&is_allowed),
            )
            .map(drop)
    }

    /// The checks that Go makes and webpki does not: the key usage of every issuer, and the
    /// validity, the extended key usages and the path length constraint of the anchor.
    fn check_path(
        &self,
        path: &VerifiedPath<'_>,
        purpose: Purpose,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let mut between = 0;
        for intermediate in path.intermediate_certificates() {
            between += 1;
            let certificate = Certificate::parse(intermediate.der());
            let certificate = certificate.map_err(|_| webpki::Error::BadDer)?;
            if !certificate.is_authority() {
                return Err(webpki::Error::EndEntityUsedAsCa);
            }
        }
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let anchor = path.anchor();
        let mut refusal = webpki::Error::UnknownIssuer;
        // A renewed CA has several certificates with one key.
        for (own, certificate) in self.anchors.iter().zip(&self.certificates) {
            if own.subject != anchor.subject
                || own.subject_public_key_info != anchor.subject_public_key_info
            {
                continue;
            }
            match certificate.check_as_issuer(between, purpose, seconds) {
                Ok(()) => return Ok(()),
                Err(Refusal::TooManyIntermediates) => {
                    refusal = webpki::Error::PathLenConstraintViolated;
                }
                Err(_) => {}
            }
        }
        Err(refusal)
    }
}

/// An anchor that matches no issuer.
fn unusable_anchor() -> TrustAnchor<'static> {
    TrustAnchor {
        subject: Vec::new().into(),
        subject_public_key_info: Vec::new().into(),
        name_constraints: None,
    }
}

/// Whether webpki rejected a certificate for its form, which Go may accept.
fn is_form_rejected(error: &webpki::Error) -> bool {
    matches!(
        error,
        webpki::Error::UnsupportedCertVersion
            | webpki::Error::CaUsedAsEndEntity
            | webpki::Error::RequiredEkuNotFoundContext(_)
            | webpki::Error::InvalidSerialNumber
    )
}

fn refusal(error: &webpki::Error, now: i64) -> Refusal {
    use webpki::Error as E;
    match error {
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => Refusal::UnknownAuthority,
        E::CertExpired { not_after, .. } => Refusal::Expired {
            now,
            not_after: i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX),
        },
        E::CertNotValidYet { not_before, .. } => Refusal::NotYetValid {
            now,
            not_before: i64::try_from(not_before.as_secs()).unwrap_or(i64::MAX),
        },
        E::RequiredEkuNotFoundContext(_) => Refusal::IncompatibleUsage,
        E::UnsupportedCriticalExtension => Refusal::UnhandledCriticalExtension,
        E::NameConstraintViolation => Refusal::NameConstraints,
        E::PathLenConstraintViolated => Refusal::TooManyIntermediates,
        other => Refusal::Other(format!("{other:?}")),
    }
}

impl Certificate {
    /// The checks that do not depend on other certificates.
    fn check_alone(&self, now: i64) -> Result<(), Refusal> {
        if self.has_unknown_critical_extension {
            return Err(Refusal::UnhandledCriticalExtension);
        }
        self.check_validity(now)
    }

    fn check_validity(&self, now: i64) -> Result<(), Refusal> {
        let (not_before, not_after) = (self.not_before, self.not_after);
        if now < not_before {
            Err(Refusal::NotYetValid { now, not_before })
        } else if now > not_after {
            Err(Refusal::Expired { now, not_after })
        } else {
            Ok(())
        }
    }

    /// Whether it is a CA certificate whose key may sign certificates.
    fn is_authority(&self) -> bool {
        let authority = match self.basic_constraints {
            Some(constraints) => constraints.authority,
            None => self.version < 3,
        };
        authority && self.may_sign.unwrap_or(true)
    }

    /// Checks it as an issuer with `between` intermediates below it.
    fn check_as_issuer(&self, between: usize, purpose: Purpose, now: i64) -> Result<(), Refusal> {
        self.check_alone(now)?;
        let longest = self
            .basic_constraints
            .and_then(|constraints| constraints.path_length);
        if !self.is_authority() {
            Err(Refusal::UnknownAuthority)
        } else if longest.is_some_and(|longest| between > longest as usize) {
            Err(Refusal::TooManyIntermediates)
        } else if !self.is_for(purpose) {
            Err(Refusal::IncompatibleUsage)
        } else {
            Ok(())
        }
    }

    fn is_for(&self, purpose: Purpose) -> bool {
        self.usages.is_none_or(|usages| {
            usages.any
                || match purpose {
                    Purpose::Server => usages.server,
                    Purpose::Client => usages.client,
                }
        })
    }

    fn is_signed_by(&self, issuer: &Certificate, algorithms: &WebPkiSupportedAlgorithms) -> bool {
        let key = SubjectPublicKeyInfoDer::from(issuer.public_key_info.as_slice());
        let Ok(key) = RawPublicKeyEntity::try_from(&key) else {
            return false;
        };
        algorithms
            .all
            .iter()
            .filter(|algorithm| {
                algorithm.signature_alg_id().as_ref() == self.signature_algorithm.as_slice()
            })
            .any(|algorithm| {
                key.verify_signature(*algorithm, &self.signed, &self.signature)
                    .is_ok()
            })
    }
}

/// Path building by Go's rules, for one leaf.
struct PathSearch<'a> {
    trusted: &'a Authorities,
    others: Vec<Certificate>,
    purpose: Purpose,
    now: i64,
    algorithms: &'a WebPkiSupportedAlgorithms,
    signatures_left: usize,
    /// The first rejection of an issuer whose signature was valid.
    refusal: Option<Refusal>,
}

impl<'a> PathSearch<'a> {
    fn new(
        trusted: &'a Authorities,
        others: &[CertificateDer<'_>],
        purpose: Purpose,
        now: i64,
        algorithms: &'a WebPkiSupportedAlgorithms,
    ) -> PathSearch<'a> {
        let others = others.iter().take(INTERMEDIATES_MAX);
        PathSearch {
            trusted,
            others: others
                .filter_map(|der| Certificate::parse(der.clone()).ok())
                .collect(),
            purpose,
            now,
            algorithms,
            signatures_left: SIGNATURES_MAX,
            refusal: None,
        }
    }

    fn run(mut self, leaf: &Certificate) -> Result<(), Refusal> {
        if !leaf.is_for(self.purpose) {
            return Err(Refusal::IncompatibleUsage);
        }
        if self.trusted.certificates.contains(leaf) {
            return Ok(());
        }
        let others = std::mem::take(&mut self.others);
        if self.find_path(&mut vec![leaf], &others) {
            Ok(())
        } else {
            Err(self.refusal.unwrap_or(Refusal::UnknownAuthority))
        }
    }

    /// Whether the last certificate of `chain` was issued by a trusted one, directly or through
    /// `others`.
    fn find_path<'c>(
        &mut self,
        chain: &mut Vec<&'c Certificate>,
        others: &'c [Certificate],
    ) -> bool {
        let trusted = self.trusted;
        if trusted
            .certificates
            .iter()
            .any(|issuer| self.is_issued_by(chain, issuer))
        {
            return true;
        }
        for issuer in others {
            // Version 1 certificates are not marked as a CA: they may issue only if they are
            // trusted.
            if issuer.basic_constraints.is_none() || !self.is_issued_by(chain, issuer) {
                continue;
            }
            chain.push(issuer);
            if self.find_path(chain, others) {
                return true;
            }
            chain.pop();
        }
        false
    }

    /// Whether `issuer` issued the last certificate of `chain` and was allowed to.
    fn is_issued_by(&mut self, chain: &[&Certificate], issuer: &Certificate) -> bool {
        let child = chain.last().expect("a chain begins with its leaf");
        if issuer.subject != child.issuer || chain.contains(&issuer) || self.signatures_left == 0 {
            return false;
        }
        if !issuer.is_authority() || issuer.has_name_constraints {
            return false;
        }
        self.signatures_left -= 1;
        if !child.is_signed_by(issuer, self.algorithms) {
            return false;
        }
        match issuer.check_as_issuer(chain.len() - 1, self.purpose, self.now) {
            Ok(()) => true,
            Err(refusal) => {
                self.refusal.get_or_insert(refusal);
                false
            }
        }
    }
}
