//! TLS: which servers the client accepts, and which certificate it presents.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod harness;

use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Member, Relay, Security, key, put, run};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use retcd_client::{Client, Config, ConfigError, DialError, Dialer, Error, TlsConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = named("authority", Vec::new());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn named(name: &str, hosts: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A directory of certificates.
struct Files(TempDir);

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes `NAME.pem` and `NAME-key.pem`, for servers and clients on the loopback address.
    fn write_pair(&self, name: &str, authority: &Authority) {
        let mut params = named(name, vec!["127.0.0.1".to_owned()]);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, authority).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        let key_path = self.path(&format!("{name}-key.pem"));
        std::fs::write(key_path, key.serialize_pem()).unwrap();
    }
}

/// A member that requires client certificates of its CA, and a client's files.
async fn member(files: &Files, authority: &Authority) -> Member {
    std::fs::write(files.path("ca.pem"), authority.pem()).unwrap();
    files.write_pair("server", authority);
    files.write_pair("client", authority);
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let flags = vec![
        flag("cert-file", &files.path("server.pem")),
        flag("key-file", &files.path("server-key.pem")),
        flag("trusted-ca-file", &files.path("ca.pem")),
        "--client-cert-auth".to_owned(),
    ];
    let tls = tls(files);
    Member::start_with(Security { flags, tls }).await
}

fn tls(files: &Files) -> TlsConfig {
    TlsConfig {
        cert: Some(files.path("client.pem")),
        key: Some(files.path("client-key.pem")),
        authorities: Some(files.path("ca.pem")),
        ..TlsConfig::default()
    }
}

/// The source of a deadline error.
async fn waits_for(client: &Client) -> String {
    let limited = client.with_timeout(Duration::from_secs(1));
    match limited.range(key("k")).await {
        Err(Error::DeadlineExceeded { last: Some(last) }) => last.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_renewed_certificate_is_used_by_new_connections() {
    run(async {
        let files = Files(tempfile::tempdir().unwrap());
        let authority = self::authority();
        let member = member(&files, &authority).await;
        let relay = Relay::start(&member.address, &[]).await;
        let client = member.client_at(&relay.address);
        client.put(put("k", "1")).await.unwrap();
        files.write_pair("client", &self::authority());
        // The existing connection stays usable.
        client.put(put("k", "2")).await.unwrap();
        relay.cut();
        let refused = waits_for(&client).await;
        assert!(refused.contains("tls: "), "{refused}");
        files.write_pair("client", &authority);
        client.put(put("k", "3")).await.unwrap();
    });
}

#[test]
fn a_server_of_another_ca_is_rejected() {
    run(async {
        let files = Files(tempfile::tempdir().unwrap());
        let member = member(&files, &authority()).await;
        // A file of its own, so that the member's remains unchanged.
        let other = files.path("other-ca.pem");
        std::fs::write(&other, authority().pem()).unwrap();
        let client = |skip_verify| {
            let config = Config {
                tls: TlsConfig {
                    authorities: Some(other.clone()),
                    skip_verify,
                    ..tls(&files)
                },
                ..Config::new([member.address.as_str()])
            };
            Client::new(config).unwrap()
        };
        let refused = waits_for(&client(false)).await;
        let reason = "x509: certificate signed by unknown authority";
        assert!(refused.contains(reason), "{refused}");
        let credulous = client(true);
        credulous.put(put("k", "1")).await.unwrap();
    });
}

#[test]
fn http1_is_spoken_with_the_same_certificates() {
    run(async {
        let files = Files(tempfile::tempdir().unwrap());
        let member = member(&files, &authority()).await;
        let endpoint = format!("https://{}", member.address);
        let mut stream = Dialer::new(&tls(&files))
            .unwrap()
            .dial(&endpoint)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let request = b"GET /version HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("\"etcdserver\""), "{answer}");

        let other = files.path("other-ca.pem");
        std::fs::write(&other, authority().pem()).unwrap();
        let config = TlsConfig {
            authorities: Some(other),
            ..tls(&files)
        };
        let refused = Dialer::new(&config).unwrap().dial(&endpoint).await.err();
        let Some(DialError::Handshake(reason)) = refused else {
            panic!("{refused:?}");
        };
        let expected = "tls: failed to verify certificate: x509: certificate signed by unknown";
        assert!(reason.starts_with(expected), "{reason}");

        let dialer = Dialer::new(&tls(&files)).unwrap();
        let refused = dialer.dial("http://127.0.0.1:1").await.err();
        let text = "dial tcp 127.0.0.1:1: connect: connection refused";
        assert_eq!(refused, Some(DialError::Unreachable(text.to_owned())));
    });
}

#[test]
fn a_certificate_requires_its_key() {
    let config = Config {
        tls: TlsConfig {
            key: Some("client-key.pem".into()),
            ..TlsConfig::default()
        },
        ..Config::new(["127.0.0.1:1"])
    };
    let error = Client::new(config).err().unwrap();
    assert!(matches!(error, ConfigError::Tls(_)));
    assert_eq!(
        error.to_string(),
        "KeyFile and CertFile must both be present[key: client-key.pem, cert: ]"
    );
}
