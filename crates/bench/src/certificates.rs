//! Certificates for one comparison: a CA, and one certificate shared by servers and clients.
//!
//! P-256 with ECDSA, as most tools generate for etcd today; valid for `127.0.0.1` and `localhost`,
//! for server and client authentication, because members are clients of each other. They are stored
//! in, and removed with, the comparison's directory.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use crate::error::Error;
use crate::tls::Tls;

/// The certificate files.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificates {
    /// Generates them in `directory`.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written, [`Error::Tls`] if no randomness is available.
    pub(crate) fn make(directory: &Path) -> Result<Self, Error> {
        let [ca, certificate, key] = make_pem().map_err(Error::tls("new certificates"))?;
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            write_private(&path, &text)?;
            Ok(path)
        };
        Ok(Self {
            ca: write("ca.pem", ca)?,
            certificate: write("member.pem", certificate)?,
            key: write("member-key.pem", key)?,
        })
    }

    /// The flags of a server that uses them for clients and peers and requires both to present
    /// theirs.
    pub(crate) fn server_args(&self) -> Vec<String> {
        let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
        let side = |prefix: &str| {
            [
                file(&format!("{prefix}cert-file"), &self.certificate),
                file(&format!("{prefix}key-file"), &self.key),
                file(&format!("{prefix}trusted-ca-file"), &self.ca),
                format!("--{prefix}client-cert-auth"),
            ]
        };
        [side(""), side("peer-")].concat()
    }

    /// The TLS configuration of a client that trusts and presents them.
    ///
    /// # Errors
    /// [`Error::Tls`] if a file has become unusable.
    pub(crate) fn client(&self) -> Result<Tls, Error> {
        Tls::from_files(&self.ca, Some((&self.certificate, &self.key)))
    }
}

/// The CA certificate, the shared certificate, and its key.
fn make_pem() -> Result<[String; 3], rcgen::Error> {
    let mut authority = named("retcd-bench authority", Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let mut member = named("retcd-bench", vec!["127.0.0.1".into(), "localhost".into()])?;
    member.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    member.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    let certificate = member.signed_by(&key, &authority)?;
    Ok([authority.pem(), certificate.pem(), key.serialize_pem()])
}

fn named(common_name: &str, names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    Ok(params)
}

fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(Error::io(format!("cannot write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_client_can_use_what_was_made_and_only_the_owner_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let certificates = Certificates::make(directory.path()).unwrap();
        certificates.client().unwrap();
        let mode = certificates.key.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn servers_ask_clients_and_members_for_certificates() {
        let directory = tempfile::tempdir().unwrap();
        let args = Certificates::make(directory.path()).unwrap().server_args();
        for flag in [
            "--cert-file=",
            "--key-file=",
            "--trusted-ca-file=",
            "--client-cert-auth",
            "--peer-cert-file=",
            "--peer-key-file=",
            "--peer-trusted-ca-file=",
            "--peer-client-cert-auth",
        ] {
            assert!(args.iter().any(|arg| arg.starts_with(flag)), "{flag}");
        }
    }
}
