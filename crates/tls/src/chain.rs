//! Whether a certificate leads to a trusted one.
//!
//! webpki decides. It is stricter than Go's `crypto/x509` about the form of certificates, and certificates in forms that only
//! Go takes are in use with etcd: version 1, which `openssl x509 -req` makes unless it is told otherwise; a self-signed
//! authority that is its own server's certificate, which is what `openssl req -x509` and `--auto-tls` make; the usage
//! "any". Where webpki refuses one of these forms, [`Search`] takes a second look with Go's rules:
//!
//! - a leaf that is itself trusted needs no issuer;
//! - an issuer has the name that the certificate gives, and its key made the signature; from version 3 on it says that
//!   it is an authority, and if it says what its key is for, then for signing certificates; it is valid now; no more authorities
//!   follow than it allows;
//! - each certificate of the chain that says what it is for names the purpose, or any.
//!
//! The second look does not read name constraints: a chain with one is left to webpki.
//!
//! In other things Go is the stricter one: a trusted certificate that has expired is trusted no more, a key that is not for signing
//! certificates signs none, and what a trusted certificate says of its purpose and of the length of chains holds. That is asked of
//! the chains that webpki finds, too.

use rustls::DistinguishedName;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{
    CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime,
};
use webpki::{EndEntityCert, KeyUsage, RawPublicKeyEntity, VerifiedPath};

use crate::certificate::{Certificate, CertificateError, HostNameError};
use crate::civil::rfc3339;
use crate::signatures::Verified;

/// Signatures that the second look verifies for one certificate.
const SIGNATURES_MAX: usize = 32;
/// Certificates that it takes from what the other side sent.
const INTERMEDIATES_MAX: usize = 16;

/// What a certificate is to be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To show clients which server this is.
    Server,
    /// To show a server who asks.
    Client,
}

/// Why a certificate is refused; displays Go's and etcd's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It leads to nobody who is trusted.
    #[error("x509: certificate signed by unknown authority")]
    UnknownAuthority,
    /// It is not valid yet.
    #[error(
        "x509: certificate has expired or is not yet valid: current time {} is before {}", rfc3339(*now), rfc3339(*not_before)
    )]
    NotYetValid {
        /// Seconds since 1970.
        now: i64,
        /// Seconds since 1970.
        not_before: i64,
    },
    /// It is not valid any more.
    #[error(
        "x509: certificate has expired or is not yet valid: current time {} is after {}", rfc3339(*now), rfc3339(*not_after)
    )]
    Expired {
        /// Seconds since 1970.
        now: i64,
        /// Seconds since 1970.
        not_after: i64,
    },
    /// It is for something else.
    #[error("x509: certificate specifies an incompatible key usage")]
    IncompatibleUsage,
    /// It says something that must be understood and is not.
    #[error("x509: unhandled critical extension")]
    UnhandledCriticalExtension,
    /// An authority signed a name that it may not sign.
    #[error("x509: a root or intermediate certificate is not authorized to sign for this name")]
    NameConstraints,
    /// More authorities than one of them allows.
    #[error("x509: too many intermediates for path length constraint")]
    TooManyIntermediates,
    /// It is not valid for the server's name.
    #[error(transparent)]
    HostName(HostNameError),
    /// Its serial number, in hexadecimal, is on the list of revoked ones.
    #[error("transport: certificate serial {0} revoked")]
    Revoked(String),
    /// It has none of the allowed names.
    #[error("client certificate authentication failed")]
    NotAllowed,
    /// It cannot be read.
    #[error(transparent)]
    Malformed(#[from] CertificateError),
    /// Anything else; the text is webpki's.
    #[error("x509: {0}")]
    Other(String),
}

/// Certificates that are trusted to vouch for others.
#[derive(Debug, Default)]
pub struct Authorities {
    certificates: Vec<Certificate>,
    /// For each certificate.
    anchors: Vec<TrustAnchor<'static>>,
    subjects: Vec<DistinguishedName>,
    verified: Verified,
}

impl Authorities {
    /// Trusts these.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn new<'a>(
        certificates: impl IntoIterator<Item = CertificateDer<'a>>,
    ) -> Result<Authorities, CertificateError> {
        let mut authorities = Authorities::default();
        for der in certificates {
            let certificate = Certificate::parse(der)?;
            if authorities.certificates.contains(&certificate) {
                continue;
            }
            // What webpki cannot use as an anchor, the second look may; the vectors stay in step.
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

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// The trusted certificates.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Their names, as clients are told whose certificates are welcome.
    pub fn subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    /// Whether `leaf` may be used for `purpose` now; `others` came with it, in any order.
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
        match self.verify_by_webpki(leaf, others, purpose, now, algorithms) {
            Ok(()) => Ok(()),
            Err(error) if is_question_of_form(&error) || self.certificates.contains(leaf) => {
                Search::new(self, others, purpose, seconds, algorithms).run(leaf)
            }
            Err(error) => Err(refusal(&error, seconds)),
        }
    }

    fn verify_by_webpki(
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
        let remembering = self.verified.remembering(algorithms.all);
        let algorithms: Vec<&dyn SignatureVerificationAlgorithm> =
            remembering.iter().map(|one| one as _).collect();
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

    /// What webpki does not ask, and Go does: of those who signed, whether their keys are for that, and of the trusted one also
    /// its time, its purpose, and how many may follow it.
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
        // Several certificates may stand for one key: an authority that was renewed.
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

/// An anchor that is nobody's issuer.
fn unusable_anchor() -> TrustAnchor<'static> {
    TrustAnchor {
        subject: Vec::new().into(),
        subject_public_key_info: Vec::new().into(),
        name_constraints: None,
    }
}

/// Whether webpki did not look further because of the form of a certificate.
fn is_question_of_form(error: &webpki::Error) -> bool {
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
    /// What can be said of a certificate without its issuer.
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

    /// Whether it may sign certificates at all.
    fn is_authority(&self) -> bool {
        let authority = match self.basic_constraints {
            Some(constraints) => constraints.authority,
            None => self.version < 3,
        };
        authority && self.may_sign.unwrap_or(true)
    }

    /// Whether it may stand in a chain above a leaf and `between` authorities.
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

/// The second look at one certificate.
struct Search<'a> {
    trusted: &'a Authorities,
    others: Vec<Certificate>,
    purpose: Purpose,
    now: i64,
    algorithms: &'a WebPkiSupportedAlgorithms,
    signatures_left: usize,
    /// What was wrong with the candidate that came closest.
    refusal: Option<Refusal>,
}

impl<'a> Search<'a> {
    fn new(
        trusted: &'a Authorities,
        others: &[CertificateDer<'_>],
        purpose: Purpose,
        now: i64,
        algorithms: &'a WebPkiSupportedAlgorithms,
    ) -> Search<'a> {
        let others = others.iter().take(INTERMEDIATES_MAX);
        Search {
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
        if self.leads_to_trusted(&mut vec![leaf], &others) {
            Ok(())
        } else {
            Err(self.refusal.unwrap_or(Refusal::UnknownAuthority))
        }
    }

    /// Whether the last of `chain` was signed by a trusted one, directly or through `others`.
    fn leads_to_trusted<'c>(
        &mut self,
        chain: &mut Vec<&'c Certificate>,
        others: &'c [Certificate],
    ) -> bool {
        let trusted = self.trusted;
        if trusted
            .certificates
            .iter()
            .any(|issuer| self.may_follow(chain, issuer))
        {
            return true;
        }
        for issuer in others {
            // A certificate of version 1 says nothing of being an authority: only trust makes it one.
            if issuer.basic_constraints.is_none() || !self.may_follow(chain, issuer) {
                continue;
            }
            chain.push(issuer);
            if self.leads_to_trusted(chain, others) {
                return true;
            }
            chain.pop();
        }
        false
    }

    /// Whether `issuer` signed the last of `chain` and was allowed to.
    fn may_follow(&mut self, chain: &[&Certificate], issuer: &Certificate) -> bool {
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
