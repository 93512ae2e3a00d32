//! Loading of certificates, keys, CA bundles and revocation lists.
//!
//! Every error names the file and gives Go's text for the reason, where Go has one.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use retcd_log::go_io_error;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{Error as PemError, PemObject, SectionKind};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::certificate::{Certificate, CertificateError, without_leading_zeros};
use crate::chain::{Authorities, Refusal};

/// Locations of the system's CA bundle, in the order in which Go tries them.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

const NO_CERTIFICATE: &str = "tls: failed to find any PEM data in certificate input";
const NO_KEY: &str = "tls: failed to find any PEM data in key input";
const UNSUPPORTED_KEY: &str =
    "it is damaged, or none of RSA from 2048 bits on, ECDSA on P-256, P-384 or P-521, and Ed25519";
const KEY_FOR_CERTIFICATE: &str = "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched";
const CERTIFICATE_FOR_KEY: &str =
    "tls: found a certificate rather than a key in the PEM for the private key";

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("open {}: {}", path.display(), go_io_error(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// It contains no certificate.
    #[error("{}: {NO_CERTIFICATE}", .0.display())]
    NoCertificate(PathBuf),
    /// It contains a private key instead of a certificate.
    #[error("{}: {KEY_FOR_CERTIFICATE}", .0.display())]
    KeyForCertificate(PathBuf),
    /// It contains a certificate instead of a private key.
    #[error("{}: {CERTIFICATE_FOR_KEY}", .0.display())]
    CertificateForKey(PathBuf),
    /// A certificate in it cannot be parsed.
    #[error("{}: {}", .0.display(), .1)]
    Certificate(PathBuf, CertificateError),
    /// It contains no private key.
    #[error("{}: {NO_KEY}", .0.display())]
    NoKey(PathBuf),
    /// The private key is encrypted, unsupported, or malformed.
    #[error("{}: tls: failed to parse private key: {}", .0.display(), .1)]
    Key(PathBuf, String),
    /// The private key does not belong to the certificate.
    #[error("tls: private key does not match public key (certificate {}, key {})", certificate.display(), key.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// It contains a malformed PEM block.
    #[error("{}: malformed PEM: {}", .0.display(), .1)]
    Pem(PathBuf, String),
    /// It is not a certificate revocation list.
    #[error("{}: x509: malformed crl", .0.display())]
    MalformedRevocationList(PathBuf),
}

impl FileError {
    /// The reason without the path, as Go programs print it.
    pub fn reason(&self) -> String {
        match self {
            FileError::Read { .. } => self.to_string(),
            FileError::NoCertificate(_) => NO_CERTIFICATE.to_owned(),
            FileError::KeyForCertificate(_) => KEY_FOR_CERTIFICATE.to_owned(),
            FileError::CertificateForKey(_) => CERTIFICATE_FOR_KEY.to_owned(),
            FileError::Certificate(_, error) => error.to_string(),
            FileError::NoKey(_) => NO_KEY.to_owned(),
            FileError::Key(_, reason) => format!("tls: failed to parse private key: {reason}"),
            FileError::Mismatch { .. } => "tls: private key does not match public key".to_owned(),
            FileError::Pem(_, reason) => format!("malformed PEM: {reason}"),
            FileError::MalformedRevocationList(_) => "x509: malformed crl".to_owned(),
        }
    }

    /// The file at fault; `None` for a mismatch between two files.
    pub fn path(&self) -> Option<&Path> {
        match self {
            FileError::Read { path, .. }
            | FileError::NoCertificate(path)
            | FileError::KeyForCertificate(path)
            | FileError::CertificateForKey(path)
            | FileError::Certificate(path, _)
            | FileError::NoKey(path)
            | FileError::Key(path, _)
            | FileError::Pem(path, _)
            | FileError::MalformedRevocationList(path) => Some(path),
            FileError::Mismatch { .. } => None,
        }
    }

    /// Whether the file does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, FileError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })
}

fn pem_error(path: &Path, error: &PemError) -> FileError {
    FileError::Pem(path.to_owned(), error.to_string())
}

/// A certificate chain and its private key (Go: `tls.Certificate`).
#[derive(Clone)]
pub struct Identity {
    /// The first certificate of the chain.
    pub leaf: Certificate,
    key: Arc<CertifiedKey>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key must not appear in logs.
        f.debug_struct("Identity")
            .field("common_name", &self.leaf.common_name())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Loads a certificate chain, leaf first, and its private key: RSA, ECDSA or Ed25519, as
    /// PKCS#1, PKCS#8 or SEC1.
    ///
    /// # Errors
    /// A file cannot be read or parsed, or the key does not belong to the certificate.
    pub fn load(certificate: &Path, key: &Path) -> Result<Identity, FileError> {
        let (certificate_pem, key_pem) = (read(certificate)?, read(key)?);
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificate_pem)
            .collect::<Result<_, _>>()
            .map_err(|error| pem_error(certificate, &error))?;
        let leaf = chain
            .first()
            .ok_or_else(|| no_certificate(certificate, &certificate_pem))?;
        let leaf = Certificate::parse(leaf.clone())
            .map_err(|error| FileError::Certificate(certificate.to_owned(), error))?;
        let private = private_key(&key_pem, key)?;
        let signing = signing_key(&private)
            .ok_or_else(|| FileError::Key(key.to_owned(), UNSUPPORTED_KEY.to_owned()))?;
        let own = signing.public_key();
        if own.is_some_and(|own| own.as_ref() != leaf.public_key_info.as_slice()) {
            return Err(FileError::Mismatch {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            });
        }
        Ok(Identity {
            leaf,
            key: Arc::new(CertifiedKey::new(chain, signing)),
        })
    }

    /// The chain and key as rustls uses them.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

fn no_certificate(path: &Path, pem: &[u8]) -> FileError {
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(_) => FileError::KeyForCertificate(path.to_owned()),
        Err(_) => FileError::NoCertificate(path.to_owned()),
    }
}

fn private_key(pem: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        _ if is_encrypted(pem) => FileError::Key(path.to_owned(), "it is encrypted".to_owned()),
        PemError::NoItemsFound if CertificateDer::from_pem_slice(pem).is_ok() => {
            FileError::CertificateForKey(path.to_owned())
        }
        PemError::NoItemsFound => FileError::NoKey(path.to_owned()),
        error => pem_error(path, &error),
    })
}

/// Like Go, tries every encoding whatever the PEM label: some tools write PKCS#8 keys under the
/// labels of the older forms.
fn signing_key(key: &PrivateKeyDer<'_>) -> Option<Arc<dyn SigningKey>> {
    let renamed = PrivatePkcs8KeyDer::from(key.secret_der());
    any_supported_type(key)
        .or_else(|_| any_supported_type(&renamed.into()))
        .ok()
}

/// Whether a key that cannot be parsed is encrypted, in either of OpenSSL's two formats.
fn is_encrypted(pem: &[u8]) -> bool {
    const MARKS: [&[u8]; 2] = [
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----",
        b"Proc-Type: 4,ENCRYPTED",
    ];
    let contains = |mark: &[u8]| pem.windows(mark.len()).any(|window| window == mark);
    MARKS.into_iter().any(contains)
}

impl Authorities {
    /// Loads a CA bundle.
    ///
    /// # Errors
    /// The file cannot be read or parsed, or contains no certificate.
    pub fn load(path: &Path) -> Result<Authorities, FileError> {
        let pem = read(path)?;
        let mut certificates = Vec::new();
        for block in <(SectionKind, Vec<u8>)>::pem_slice_iter(&pem) {
            let (kind, der) = block.map_err(|error| pem_error(path, &error))?;
            // Go parses every PEM block as a certificate, and fails for the others.
            if kind != SectionKind::Certificate {
                let error = CertificateError::not_a_certificate();
                return Err(FileError::Certificate(path.to_owned(), error));
            }
            certificates.push(CertificateDer::from(der));
        }
        if certificates.is_empty() {
            return Err(FileError::NoCertificate(path.to_owned()));
        }
        Authorities::new(certificates)
            .map_err(|error| FileError::Certificate(path.to_owned(), error))
    }

    /// The system's CA certificates: the bundle named by `SSL_CERT_FILE`, or the first one found in
    /// the usual locations. Like Go, ignores what cannot be parsed.
    pub fn from_system() -> Authorities {
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let bundle = match named.filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => std::fs::read(path).ok(),
            None => SYSTEM_BUNDLES
                .iter()
                .find_map(|path| std::fs::read(path).ok()),
        };
        let bundle = bundle.unwrap_or_default();
        let readable = CertificateDer::pem_slice_iter(&bundle)
            .filter_map(Result::ok)
            .filter(|der| Certificate::parse(der.clone()).is_ok());
        Authorities::new(readable).unwrap_or_default()
    }
}

/// The serial numbers of a certificate revocation list.
///
/// As in etcd, a serial number is revoked whatever the issuer, and the list's signature and dates
/// are not checked: the file is trusted as much as the key file is.
#[derive(Debug, Default)]
pub struct RevocationList {
    serials: HashSet<Vec<u8>>,
}

impl RevocationList {
    /// Loads a list in DER, the only form that etcd accepts, or any number of lists in PEM.
    ///
    /// # Errors
    /// The file cannot be read, or is not a revocation list.
    pub fn load(path: &Path) -> Result<RevocationList, FileError> {
        let bytes = read(path)?;
        let malformed = || FileError::MalformedRevocationList(path.to_owned());
        let mut revoked = RevocationList::default();
        if bytes.first() == Some(&0x30) {
            revoked.add(&bytes).ok_or_else(malformed)?;
            return Ok(revoked);
        }
        let mut lists = 0;
        for list in CertificateRevocationListDer::pem_slice_iter(&bytes) {
            let list = list.map_err(|error| pem_error(path, &error))?;
            revoked.add(&list).ok_or_else(malformed)?;
            lists += 1;
        }
        if lists == 0 {
            return Err(malformed());
        }
        Ok(revoked)
    }

    fn add(&mut self, der: &[u8]) -> Option<()> {
        let (rest, list) = CertificateRevocationList::from_der(der).ok()?;
        let serials = list
            .iter_revoked_certificates()
            .map(|revoked| without_leading_zeros(revoked.raw_serial()).to_vec());
        self.serials.extend(serials);
        rest.is_empty().then_some(())
    }

    /// Checks that `certificate` is not on the list.
    ///
    /// # Errors
    /// [`Refusal::Revoked`].
    pub fn check(&self, certificate: &Certificate) -> Result<(), Refusal> {
        if !self.serials.contains(certificate.serial()) {
            return Ok(());
        }
        let digits = certificate.serial().iter();
        Err(Refusal::Revoked(
            digits.map(|byte| format!("{byte:02x}")).collect(),
        ))
    }
}
