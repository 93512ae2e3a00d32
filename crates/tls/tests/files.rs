//! Guards which files are accepted, and that an error names the file and the reason.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod issuer;

use std::path::{Path, PathBuf};

use issuer::{Authority, Pair, traditional};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    PKCS_RSA_SHA256, RsaKeySize,
};
use retcd_tls::{Authorities, Identity, RevocationList};

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Directory {
        Directory(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn load(&self, certificate: &str, key: &str) -> Result<Identity, String> {
        let (certificate, key) = (self.write("crt", certificate), self.write("key", key));
        Identity::load(&certificate, &key).map_err(|error| {
            let directory = self.0.path().display().to_string();
            error.to_string().replace(&directory, "DIR")
        })
    }
}

fn pair(key: KeyPair) -> Pair {
    Authority::new("ca").issue_for(key, "a", |_| {})
}

#[test]
fn keys_load_in_every_algorithm_and_encoding() {
    let directory = Directory::new();
    let curves = [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ECDSA_P521_SHA512,
        &PKCS_ED25519,
    ];
    for algorithm in curves {
        let pair = pair(KeyPair::generate_for(algorithm).unwrap());
        directory
            .load(&pair.pem, &pair.key.serialize_pem())
            .unwrap();
        if *algorithm != PKCS_ED25519 {
            directory.load(&pair.pem, &traditional(&pair.key)).unwrap();
        }
    }
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let rsa = pair(rsa);
    directory.load(&rsa.pem, &rsa.key.serialize_pem()).unwrap();
    let traditional = traditional(&rsa.key);
    assert!(traditional.starts_with("-----BEGIN RSA PRIVATE KEY-----"));
    directory.load(&rsa.pem, &traditional).unwrap();
    // Some tools relabel keys without converting them.
    for label in ["RSA PRIVATE KEY", "EC PRIVATE KEY"] {
        let renamed = rsa.key.serialize_pem().replace("PRIVATE KEY", label);
        directory.load(&rsa.pem, &renamed).unwrap();
    }
}

#[test]
fn files_may_contain_chains_and_other_blocks() {
    let directory = Directory::new();
    let ca = Authority::new("ca");
    let middle = ca.authority("middle", |_| {});
    let leaf = middle.issue("leaf", |_| {});
    let chain = format!("a comment\n{}\n{}", leaf.pem, middle.pem());
    let parameters = issuer::pem("EC PARAMETERS", &[6, 1, 0]);
    let key = format!("{parameters}{}", leaf.key.serialize_pem());
    let identity = directory.load(&chain, &key).unwrap();
    assert_eq!(identity.leaf.common_name(), "leaf");
    assert_eq!(identity.certified_key().cert.len(), 2);
    // Windows line endings.
    let key = leaf.key.serialize_pem().replace('\n', "\r\n");
    directory
        .load(&leaf.pem.replace('\n', "\r\n"), &key)
        .unwrap();
}

#[test]
fn errors_name_the_file_and_the_reason() {
    let directory = Directory::new();
    let (one, other) = (
        pair(KeyPair::generate().unwrap()),
        pair(KeyPair::generate().unwrap()),
    );
    let key = one.key.serialize_pem();
    let check = |certificate: &str, key: &str, text: &str| {
        assert_eq!(directory.load(certificate, key).unwrap_err(), text);
    };
    check(
        &one.pem,
        &other.key.serialize_pem(),
        "tls: private key does not match public key (certificate DIR/crt, key DIR/key)",
    );
    check(
        "",
        &key,
        "DIR/crt: tls: failed to find any PEM data in certificate input",
    );
    check(
        &one.pem,
        "nothing",
        "DIR/key: tls: failed to find any PEM data in key input",
    );
    check(
        &key,
        &key,
        "DIR/crt: tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched",
    );
    check(
        &one.pem,
        &one.pem,
        "DIR/key: tls: found a certificate rather than a key in the PEM for the private key",
    );
    let encrypted = issuer::pem("ENCRYPTED PRIVATE KEY", &[0x30, 0]);
    check(
        &one.pem,
        &encrypted,
        "DIR/key: tls: failed to parse private key: it is encrypted",
    );
    // The older format, as written by `openssl genrsa -traditional -aes128`.
    let headers =
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n";
    let encrypted = issuer::pem("RSA PRIVATE KEY", &[7; 48]);
    let encrypted = encrypted.replace("-----BEGIN RSA PRIVATE KEY-----\n", headers);
    check(
        &one.pem,
        &encrypted,
        "DIR/key: tls: failed to parse private key: it is encrypted",
    );
    let garbage = directory
        .load(&issuer::pem("CERTIFICATE", b"garbage"), &key)
        .unwrap_err();
    assert!(
        garbage.starts_with("DIR/crt: x509: malformed certificate"),
        "{garbage}"
    );
    let garbage = directory
        .load(&one.pem, &issuer::pem("PRIVATE KEY", b"garbage"))
        .unwrap_err();
    assert_eq!(
        garbage,
        "DIR/key: tls: failed to parse private key: it is damaged, or none of RSA from 2048 bits on, ECDSA on P-256, P-384 or P-521, and Ed25519"
    );
    let missing = Identity::load(&directory.path("none"), Path::new("none")).unwrap_err();
    assert!(missing.is_not_found());
    assert_eq!(
        missing.to_string(),
        format!(
            "open {}: no such file or directory",
            directory.path("none").display()
        )
    );
}

#[test]
fn ca_bundles_load() {
    let directory = Directory::new();
    let (one, other) = (Authority::new("one"), Authority::new("other"));
    let bundle = format!("{}{}{}", one.pem(), other.pem(), one.pem());
    let bundle = Authorities::load(&directory.write("ca", bundle)).unwrap();
    assert_eq!(bundle.certificates().len(), 2, "a double counts once");
    assert!(Authorities::load(&directory.write("ca", "")).is_err());
    let damaged = format!("{}{}", one.pem(), issuer::pem("CERTIFICATE", &[1, 2]));
    assert!(Authorities::load(&directory.write("ca", damaged)).is_err());
}

#[test]
fn revocation_lists_load_in_pem_and_der() {
    let directory = Directory::new();
    let ca = Authority::new("ca");
    let (der, pem) = ca.revoke(&[0x1234, 0x80]);
    let with = |serial: u64| {
        let pair = ca.issue("a", |p| p.serial_number = Some(serial.into()));
        let identity = directory
            .load(&pair.pem, &pair.key.serialize_pem())
            .unwrap();
        identity.leaf
    };
    let both = format!("{}{pem}", ca.revoke(&[7]).1);
    for content in [der, pem.into_bytes(), both.into_bytes()] {
        let revoked = RevocationList::load(&directory.write("crl", content)).unwrap();
        let refusal = revoked.check(&with(0x1234)).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "transport: certificate serial 1234 revoked"
        );
        assert!(revoked.check(&with(0x80)).is_err());
        assert_eq!(revoked.check(&with(0x1235)), Ok(()));
    }
    for content in ["", "nothing", "0"] {
        let error = RevocationList::load(&directory.write("crl", content)).unwrap_err();
        assert!(error.to_string().ends_with("crl: x509: malformed crl"));
    }
}
