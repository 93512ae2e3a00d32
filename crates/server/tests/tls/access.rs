//! Who gets in, and what the others are told.

use std::io::Write;

use rustls::{CipherSuite, ProtocolVersion, SupportedProtocolVersion};

use crate::client::{Client, write};
use crate::issuer::{Authority, Pair, expired, hosts, usages};
use crate::member::Setting;

static TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
static TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

const REJECTED: &str = "rejected connection on client endpoint";

#[test]
fn certificates_decide_who_gets_in() {
    let setting = Setting::new();
    let (ca, port) = (&setting.ca, setting.port());
    let revoked = ca.issue("revoked", |p| p.serial_number = Some(0x00c0_ffee.into()));
    write(setting.dir(), "crl", ca.revoke(&[0x00c0_ffee]).0);
    let member = setting.start(&[&setting.file("client-crl-file", "crl")]);

    setting.client().assert_in(port);
    let only_a_name = ca.issue_version_1("alice");
    Client::of(ca).with(&only_a_name).assert_in(port);
    let for_anything = ca.issue("", |_| {});
    Client::of(ca).with(&for_anything).assert_in(port);

    let refused = |pair: Option<&Pair>, alert: &str, reason: &str| {
        let client = Client::of(ca);
        let client = match pair {
            Some(pair) => client.with(pair),
            None => client,
        };
        client.assert_out(port, alert);
        member.wait_for(&format!(r#""error":"{reason}"#));
    };
    refused(
        None,
        "CertificateRequired",
        "tls: client didn't provide a certificate",
    );
    let stranger = Authority::new("ca").issue("alice", |_| {});
    refused(
        Some(&stranger),
        "UnknownCA",
        "tls: failed to verify certificate: x509: certificate signed by unknown authority",
    );
    let stranger = Authority::new("ca").issue_version_1("alice");
    refused(
        Some(&stranger),
        "UnknownCA",
        "tls: failed to verify certificate: x509: certificate signed by unknown authority",
    );
    refused(
        Some(&ca.issue("alice", expired)),
        "CertificateExpired",
        "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time",
    );
    refused(
        Some(&ca.issue("alice", |p| usages(p, true, false))),
        "BadCertificate",
        "tls: failed to verify certificate: x509: certificate specifies an incompatible key usage",
    );
    refused(
        Some(&revoked),
        "CertificateRevoked",
        "transport: certificate serial c0ffee revoked",
    );
    setting.client().assert_in(port);
    member.wait_for(REJECTED);
}

#[test]
fn a_client_finds_out_who_it_talks_to() {
    let setting = Setting::new();
    let member = setting.start(&[]);
    let stranger = Authority::new("stranger");
    let client = Client::of(&stranger).with(&setting.alice);
    client.assert_out(setting.port(), "InvalidCertificate");
    member.wait_for("remote error: tls: unknown certificate authority");
    let elsewhere = Client {
        host: "example.com",
        ..setting.client()
    };
    elsewhere.assert_out(setting.port(), "NotValidForName");
    member.wait_for(r#""server-name":"example.com","error":"remote error: tls: bad certificate""#);
}

#[test]
fn allowed_host_names_are_the_only_ones() {
    let setting = Setting::new();
    let member = setting.start(&["--client-cert-allowed-hostname=a.example,b.example"]);
    let named = |host| setting.ca.issue("x", |p| hosts(p, &[host]));
    let client = |pair: &Pair| Client::of(&setting.ca).with(pair);
    client(&named("b.example")).assert_in(setting.port());
    client(&named("*.example")).assert_in(setting.port());
    client(&named("c.other")).assert_out(setting.port(), "BadCertificate");
    member
        .wait_for(r#""dns-names":["c.other"],"error":"client certificate authentication failed""#);
}

#[test]
fn what_is_no_tls_gets_no_answer() {
    let setting = Setting::new();
    let member = setting.start(&[]);
    let hellos: [&[u8]; 3] = [
        b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 100],
    ];
    for hello in hellos {
        assert_eq!(member.exchange(hello), b"");
    }
    let line = "tls: first record does not look like a TLS handshake";
    member.wait_for(line);
    // A record that begins well and goes on badly, and one that never ends.
    let mut bad = vec![0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0xff];
    assert_eq!(member.exchange(&bad).first(), Some(&0x15), "an alert");
    // TLS 1.1: version, random, no session, one cipher suite, no compression.
    let mut old = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    old.extend_from_slice(&[7; 32]);
    old.extend_from_slice(&[0, 0, 2, 0, 0x2f, 1, 0]);
    assert_eq!(member.exchange(&old), [0x15, 3, 3, 0, 2, 2, 70]);
    member.wait_for("tls: client offered only unsupported versions");
    bad.truncate(4);
    let mut socket = member.socket();
    socket.write_all(&bad).unwrap();
    drop(socket);
    setting.client().assert_in(setting.port());
}

#[test]
fn tls_to_a_plain_port_fails() {
    let setting = Setting::new();
    let member = setting.place.start(&[]);
    let error = setting.client().get(setting.port(), "/version");
    assert!(error.is_err());
    member.assert_well();
}

#[test]
fn without_an_authority_everybody_gets_in() {
    let setting = Setting::new();
    let member = setting.start_with(setting.flags_without_authority(), &[]);
    Client::of(&setting.ca).assert_in(setting.port());
    let stranger = Authority::new("other").issue("x", |_| {});
    Client::of(&setting.ca)
        .with(&stranger)
        .assert_in(setting.port());
    drop(member);
}

#[test]
fn an_authority_alone_asks_for_certificates() {
    let setting = Setting::new();
    let mut flags = setting.flags_without_authority();
    flags.push(setting.file("trusted-ca-file", "ca.crt"));
    let _member = setting.start_with(flags, &[]);
    setting.client().assert_in(setting.port());
    Client::of(&setting.ca).assert_out(setting.port(), "CertificateRequired");
}

#[test]
fn versions_are_limited_on_both_sides() {
    let setting = Setting::new();
    let old = Client {
        versions: TLS12,
        ..setting.client()
    };
    let new = Client {
        versions: TLS13,
        ..setting.client()
    };
    let member = setting.start(&[]);
    assert_eq!(
        old.assert_in(setting.port()).version,
        ProtocolVersion::TLSv1_2
    );
    assert_eq!(
        new.assert_in(setting.port()).version,
        ProtocolVersion::TLSv1_3
    );
    let refused = Client {
        versions: TLS12,
        ..Client::of(&setting.ca)
    };
    refused.assert_out(setting.port(), "AlertReceived");
    drop(member);
    let member = setting.start(&["--tls-min-version=TLS1.3"]);
    new.assert_in(setting.port());
    old.assert_out(setting.port(), "ProtocolVersion");
    member.wait_for("tls: client offered only unsupported versions");
    drop(member);
    let member = setting.start(&["--tls-max-version=TLS1.2"]);
    old.assert_in(setting.port());
    new.assert_out(setting.port(), "ProtocolVersion");
    drop(member);
}

#[test]
fn cipher_suites_are_limited() {
    let setting = Setting::new();
    let wanted = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305";
    let suites = format!("--cipher-suites={wanted},TLS_RSA_WITH_AES_128_CBC_SHA");
    let member = setting.start(&[&suites]);
    let old = Client {
        versions: TLS12,
        ..setting.client()
    };
    assert_eq!(
        old.assert_in(setting.port()).suite,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
    );
    member.wait_for(r#""cipher-suites":["TLS_RSA_WITH_AES_128_CBC_SHA"]"#);
    drop(member);
    // A certificate that none of the suites can sign with.
    let member = setting.start(&["--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
    old.assert_out(setting.port(), "HandshakeFailure");
    member.wait_for("tls: no cipher suite supported by both client and server");
    setting.client().assert_in(setting.port());
}
