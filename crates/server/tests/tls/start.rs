//! What a start is refused for, and certificates that a member makes for itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rcgen::{KeyPair, PKCS_ECDSA_P521_SHA512};
use retcd_tls::Identity;

use crate::client::{Client, write};
use crate::issuer::{Authority, hosts, self_signed};
use crate::member::Setting;

#[track_caller]
fn refused(setting: &Setting, flags: &[&str], text: &str) {
    let all = setting.flags();
    let all: Vec<&str> = all
        .iter()
        .map(String::as_str)
        .chain(flags.iter().copied())
        .collect();
    let ended = setting.place.run_to_end(&all);
    ended.assert(1, text);
    assert!(!setting.place.data_dir().join("member").exists());
}

#[test]
fn files_that_cannot_be_used_are_named_at_start() {
    let setting = Setting::new();
    let stranger = setting.ca.issue("stranger", |_| {});
    stranger.write(setting.dir(), "stranger");
    write(setting.dir(), "empty", "");
    let file = |flag, name| setting.file(flag, name);
    refused(
        &setting,
        &[&file("key-file", "stranger.key")],
        "; see --cert-file and --key-file",
    );
    refused(
        &setting,
        &[&file("key-file", "stranger.key")],
        r#""msg":"listener failed","error":"tls: private key does not match public key (certificate "#,
    );
    refused(
        &setting,
        &[&file("key-file", "none")],
        "none: no such file or directory; see --key-file\"",
    );
    refused(
        &setting,
        &[&file("key-file", "server.crt")],
        "server.crt: tls: found a certificate rather than a key in the PEM for the private key; see --cert-file and --key-file\"",
    );
    refused(
        &setting,
        &[
            &file("peer-cert-file", "stranger.crt"),
            &file("peer-key-file", "none"),
        ],
        "none: no such file or directory; see --peer-key-file\"",
    );
    refused(
        &setting,
        &[&file("peer-trusted-ca-file", "none")],
        r#""msg":"discovery failed","error":"open "#,
    );
    refused(
        &setting,
        &[
            "--auto-tls",
            "--self-signed-cert-validity=0",
            "--cert-file=",
            "--key-file=",
        ],
        r#""msg":"failed to get client self-signed certs","error":"selfSignedCertValidity is invalid,it should be greater than 0""#,
    );
    refused(
        &setting,
        &[&file("cert-file", "empty")],
        "empty: tls: failed to find any PEM data in certificate input",
    );
    refused(
        &setting,
        &[&file("trusted-ca-file", "empty")],
        "empty: tls: failed to find any PEM data",
    );
    refused(
        &setting,
        &[&file("client-crl-file", "empty")],
        "empty: x509: malformed crl; see --client-crl-file\"",
    );
    refused(
        &setting,
        &["--key-file="],
        "KeyFile and CertFile must both be present[key: , cert: ",
    );
    refused(
        &setting,
        &["--cert-file=", "--key-file="],
        "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:",
    );
    refused(
        &setting,
        &["--listen-peer-urls=https://127.0.0.1:0"],
        "cannot listen on TLS for 127.0.0.1:0: KeyFile and CertFile are not presented",
    );
    refused(
        &setting,
        &["--cipher-suites=TLS_NOTHING"],
        r#"unexpected TLS cipher suite \"TLS_NOTHING\""#,
    );
    refused(
        &setting,
        &[
            "--peer-cert-allowed-cn=a,b",
            "--peer-cert-allowed-hostname=c",
        ],
        r#"AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\" \"b\"], hostnames=[\"c\"])"#,
    );
}

#[test]
fn plain_listeners_with_certificates_are_warned_about() {
    let setting = Setting::new();
    let url = format!("--listen-client-urls=http://127.0.0.1:{}", setting.port());
    let flags = setting.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain([&*url]).collect();
    let member = setting.place.start(&flags);
    member.wait_for(
        "scheme is http or unix while key and cert files are present; ignoring key and cert files",
    );
    member.wait_for("scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth for this URL");
}

#[test]
fn certificates_are_made_once_and_kept() {
    let setting = Setting::new();
    let urls = setting.flags_without_authority();
    let flags = [
        &urls[0],
        &urls[1],
        "--auto-tls",
        "--self-signed-cert-validity=2",
    ];
    let start = || setting.start_with(flags.map(str::to_owned).to_vec(), &[]);
    let member = start();
    let made = setting.place.data_dir().join("fixtures/client");
    let mode = |path: &str| fs::metadata(made.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("key.pem"), 0o600);
    assert_eq!(mode("."), 0o700);
    let certificate = fs::read(made.join("cert.pem")).unwrap();
    let trusting = Identity::load(&made.join("cert.pem"), &made.join("key.pem")).unwrap();
    member.wait_for("automatically generate certificates");
    drop(member);
    let member = start();
    assert_eq!(fs::read(made.join("cert.pem")).unwrap(), certificate);
    assert!(!member.log().contains("automatically generate certificates"));
    assert_eq!(shown(&setting), trusting.leaf.der().to_vec());
}

/// The certificate that the member shows, whatever it is.
fn shown(setting: &Setting) -> Vec<u8> {
    let nobody = Client::of(&Authority::new("nobody"));
    let mut config = nobody.config();
    let check = retcd_tls::ServerVerifier::new(
        None,
        Default::default(),
        retcd_tls::Settings::default().algorithms(),
    );
    config
        .dangerous()
        .set_certificate_verifier(std::sync::Arc::new(check));
    let name = "127.0.0.1".try_into().unwrap();
    let mut connection = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", setting.port())).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).unwrap();
    }
    connection.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn certificates_that_etcd_made_are_kept() {
    let setting = Setting::new();
    let made = setting.place.data_dir().join("fixtures/client");
    fs::create_dir_all(&made).unwrap();
    // etcd's keys are on this curve.
    let key = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    hosts(&mut parameters, &["127.0.0.1"]);
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&key).unwrap();
    fs::write(made.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(made.join("key.pem"), key.serialize_pem()).unwrap();
    let urls = setting.flags_without_authority();
    let flags = vec![urls[0].clone(), urls[1].clone(), "--auto-tls".to_owned()];
    let _member = setting.start_with(flags, &[]);
    assert_eq!(shown(&setting), certificate.der().to_vec());
}

#[test]
fn given_certificates_count_more_than_made_ones() {
    let setting = Setting::new();
    let member = setting.start(&["--auto-tls"]);
    member.wait_for("ignoring client auto TLS since certs given");
    setting.client().assert_in(setting.port());
    assert!(!setting.place.data_dir().join("fixtures").exists());
    drop(self_signed("", |_| {}));
}
