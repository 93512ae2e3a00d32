//! Certificates, keys, authorities and lists of revoked certificates from files.
//!
//! Every error names the file. Where Go has words for a reason, they are used.

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

/// Where systems keep the authorities that they trust, as Go looks for them.
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
        /// What the system says.
        source: io::Error,
    },
    /// There is no certificate in it.
    #[error("{}: {NO_CERTIFICATE}", .0.display())]
    NoCertificate(PathBuf),
    /// There is a private key where a certificate should be.
    #[error("{}: {KEY_FOR_CERTIFICATE}", .0.display())]
    KeyForCertificate(PathBuf),
    /// There is a certificate where a private key should be.
    #[error("{}: {CERTIFICATE_FOR_KEY}", .0.display())]
    CertificateForKey(PathBuf),
    /// A certificate in it cannot be read.
    #[error("{}: {}", .0.display(), .1)]
    Certificate(PathBuf, CertificateError),
    /// There is no private key in it.
    #[error("{}: {NO_KEY}", .0.display())]
    NoKey(PathBuf),
    /// The private key is encrypted, of a kind that is not supported, or damaged.
    #[error("{}: tls: failed to parse private key: {}", .0.display(), .1)]
    Key(PathBuf, String),
    /// Key and certificate are not of one pair.
    #[error("tls: private key does not match public key (certificate {}, key {})", certificate.display(), key.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A block of it is no PEM.
    #[error("{}: malformed PEM: {}", .0.display(), .1)]
    Pem(PathBuf, String),
    /// It is no list of revoked certificates.
    #[error("{}: x509: malformed crl", .0.display())]
    RevocationList(PathBuf),
}

impl FileError {
    /// The reason alone, as Go's programs print it.
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
            FileError::RevocationList(_) => "x509: malformed crl".to_owned(),
        }
    }

    /// The file that it is about; none if it is about how two files go together.
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
            | FileError::RevocationList(path) => Some(path),
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

/// A certificate with the chain that leads to its authority, and its key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate itself.
    pub leaf: Certificate,
    key: Arc<CertifiedKey>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys have no place in messages.
        f.debug_struct("Identity")
            .field("common_name", &self.leaf.common_name())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads a certificate, the leaf first, and its key: RSA, ECDSA or Ed25519, as PKCS#1, PKCS#8 or SEC1.
    ///
    /// # Errors
    /// A file cannot be read, has nothing or something damaged in it, or the two do not belong together.
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

    /// As rustls wants it.
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

/// As in Go, what a key is counts more than what it is called: keys of PKCS#8 go under the names of the older forms, too.
fn signing_key(key: &PrivateKeyDer<'_>) -> Option<Arc<dyn SigningKey>> {
    let renamed = PrivatePkcs8KeyDer::from(key.secret_der());
    any_supported_type(key)
        .or_else(|_| any_supported_type(&renamed.into()))
        .ok()
}

/// Whether a key that cannot be read is encrypted, in one of the two ways that OpenSSL has for it.
fn is_encrypted(pem: &[u8]) -> bool {
    const MARKS: [&[u8]; 2] = [
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----",
        b"Proc-Type: 4,ENCRYPTED",
    ];
    let contains = |mark: &[u8]| pem.windows(mark.len()).any(|window| window == mark);
    MARKS.into_iter().any(contains)
}

impl Authorities {
    /// Reads a bundle of certificates.
    ///
    /// # Errors
    /// The file cannot be read, has no certificate, or something damaged in it.
    pub fn load(path: &Path) -> Result<Authorities, FileError> {
        let pem = read(path)?;
        let mut certificates = Vec::new();
        for block in <(SectionKind, Vec<u8>)>::pem_slice_iter(&pem) {
            let (kind, der) = block.map_err(|error| pem_error(path, &error))?;
            // Go takes every block for a certificate, and stumbles over the others.
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

    /// The authorities that this system trusts: the bundle that `SSL_CERT_FILE` names, or the first that is found where
    /// systems keep it. What cannot be read in it is passed over, as in Go.
    pub fn of_system() -> Authorities {
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

/// The serial numbers of revoked certificates.
///
/// As in etcd a number counts whoever issued it, and the list's signature and dates do not matter: the file is as
/// trustworthy as the key beside it.
#[derive(Debug, Default)]
pub struct Revoked {
    serials: HashSet<Vec<u8>>,
}

impl Revoked {
    /// Reads a list as DER, which is all that etcd takes, or any number of them as PEM.
    ///
    /// # Errors
    /// The file cannot be read, or is no such list.
    pub fn load(path: &Path) -> Result<Revoked, FileError> {
        let bytes = read(path)?;
        let malformed = || FileError::RevocationList(path.to_owned());
        let mut revoked = Revoked::default();
        if bytes.first() == Some(&0x30) {
            revoked.take(&bytes).ok_or_else(malformed)?;
            return Ok(revoked);
        }
        let mut lists = 0;
        for list in CertificateRevocationListDer::pem_slice_iter(&bytes) {
            let list = list.map_err(|error| pem_error(path, &error))?;
            revoked.take(&list).ok_or_else(malformed)?;
            lists += 1;
        }
        if lists == 0 {
            return Err(malformed());
        }
        Ok(revoked)
    }

    fn take(&mut self, der: &[u8]) -> Option<()> {
        let (rest, list) = CertificateRevocationList::from_der(der).ok()?;
        let serials = list
            .iter_revoked_certificates()
            .map(|revoked| without_leading_zeros(revoked.raw_serial()).to_vec());
        self.serials.extend(serials);
        rest.is_empty().then_some(())
    }

    /// Refuses a certificate that is on the list.
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
