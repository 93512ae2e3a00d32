//! Certificates for `--auto-tls` and `--peer-auto-tls`, generated at the first start and kept in
//! the data directory.
//!
//! They give encryption without authentication. Files, names, validity and key usage are etcd's.
//! The key is on P-256, with which a handshake costs much less than with etcd's P-521 (existing
//! keys of which are used).

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

use crate::log::{Text, go_io_error};

/// As `--self-signed-cert-validity` counts years.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The files of a certificate and its key.
pub(super) struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Why a certificate cannot be generated.
#[derive(Debug, thiserror::Error)]
pub(super) enum SelfSignedError {
    #[error("selfSignedCertValidity is invalid,it should be greater than 0")]
    Validity,
    #[error("cannot create {}: {}", .0.display(), go_io_error(.1))]
    File(PathBuf, #[source] io::Error),
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// The pair in `directory`. If there is none, one is generated for `hosts`, which are names or IP
/// addresses.
pub(super) fn find_or_generate(
    directory: &Path,
    hosts: &[String],
    years: usize,
) -> Result<Pair, SelfSignedError> {
    if years == 0 {
        crate::warn!("cannot generate cert"; "error" => Text(&SelfSignedError::Validity));
        return Err(SelfSignedError::Validity);
    }
    let directory = std::path::absolute(directory)
        .map_err(|error| SelfSignedError::File(directory.to_owned(), error))?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .map_err(|error| SelfSignedError::File(directory.clone(), error))?;
    let pair = Pair {
        certificate: directory.join("cert.pem"),
        key: directory.join("key.pem"),
    };
    if !(pair.certificate.exists() && pair.key.exists()) {
        generate(&pair, hosts, years)?;
    }
    Ok(pair)
}

fn generate(pair: &Pair, hosts: &[String], years: usize) -> Result<(), SelfSignedError> {
    let not_before = SystemTime::now();
    let validity = YEAR.saturating_mul(u32::try_from(years).unwrap_or(u32::MAX));
    let mut parameters = CertificateParams::default();
    parameters.not_before = not_before.into();
    parameters.not_after = (not_before + validity).into();
    parameters.distinguished_name = DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::OrganizationName, "etcd");
    parameters.subject_alt_names = alternative_names(hosts)?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::CrlSign,
    ];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    crate::warn!("automatically generate certificates"; "validity-years" => years);
    let key = KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    write(&pair.certificate, &certificate.pem(), 0o644)?;
    crate::info!("created cert file"; "path" => &pair.certificate.display().to_string());
    write(&pair.key, &key.serialize_pem(), 0o600)?;
    crate::info!("created key file"; "path" => &pair.key.display().to_string());
    Ok(())
}

fn alternative_names(hosts: &[String]) -> Result<Vec<SanType>, SelfSignedError> {
    let mut names: Vec<SanType> = Vec::new();
    for host in hosts.iter().filter(|host| !host.is_empty()) {
        let name = match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Creates a file atomically, with its permissions from the first byte on.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), SelfSignedError> {
    let failed = |error| SelfSignedError::File(path.to_owned(), error);
    let unfinished = path.with_extension("pem.tmp");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&unfinished)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&unfinished, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use retcd_tls::Identity;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_pair_is_generated_once() {
        let dir = tempfile::tempdir().unwrap();
        let fixtures = dir.path().join("data/fixtures/client");
        let hosts = ["127.0.0.1", "localhost", "127.0.0.1", ""].map(str::to_owned);
        let pair = find_or_generate(&fixtures, &hosts, 2).unwrap();
        let made = Identity::load(&pair.certificate, &pair.key).unwrap();
        assert_eq!(made.leaf.dns_names(), ["localhost"]);
        assert_eq!(
            made.leaf.ip_addresses(),
            ["127.0.0.1".parse::<IpAddr>().unwrap()]
        );
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let left = made.leaf.not_after() - i64::try_from(now.unwrap().as_secs()).unwrap();
        assert!((left - 2 * 365 * 86_400).abs() < 60, "{left}");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&pair.key), 0o600);
        assert_eq!(mode(&fixtures), 0o700);

        let again = find_or_generate(&fixtures, &hosts, 2).unwrap();
        let again = Identity::load(&again.certificate, &again.key).unwrap();
        assert_eq!(again.leaf, made.leaf);
        assert!(matches!(
            find_or_generate(&fixtures, &hosts, 0),
            Err(SelfSignedError::Validity)
        ));
    }
}
