//! Guards for which hosts a certificate is valid, and Go's texts when it is not.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod issuer;

use issuer::{hosts, self_signed};
use retcd_tls::Certificate;
use rustls::pki_types::CertificateDer;

fn certificate(common_name: &str, names: &[&str]) -> Certificate {
    let pair = self_signed(common_name, |p| hosts(p, names));
    Certificate::parse(CertificateDer::from(pair.der)).unwrap()
}

#[track_caller]
fn valid(names: &[&str], host: &str) {
    assert_eq!(certificate("", names).verify_host_name(host), Ok(()));
}

#[track_caller]
fn invalid(common_name: &str, names: &[&str], host: &str, text: &str) {
    let error = certificate(common_name, names)
        .verify_host_name(host)
        .unwrap_err();
    assert_eq!(error.to_string(), text);
}

#[test]
fn names_and_addresses_match() {
    valid(&["localhost"], "localhost");
    valid(&["LocalHost"], "localhost");
    valid(&["localhost"], "LOCALHOST.");
    valid(&["a.example.com", "b.example.com"], "b.example.com");
    valid(&["*.example.com"], "a.example.com");
    valid(&["my_host"], "my_host");
    valid(&["127.0.0.1"], "127.0.0.1");
    valid(&["::1"], "[::1]");
    valid(&["::1"], "0:0:0:0:0:0:0:1");
    valid(&["127.0.0.1"], "::ffff:127.0.0.1");
}

#[test]
fn mismatches_are_reported_in_gos_words() {
    invalid(
        "",
        &["127.0.0.1"],
        "127.0.0.2",
        "x509: certificate is valid for 127.0.0.1, not 127.0.0.2",
    );
    invalid(
        "",
        &["a", "b"],
        "c",
        "x509: certificate is valid for a, b, not c",
    );
    invalid(
        "",
        &["localhost"],
        "127.0.0.1",
        "x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs",
    );
    invalid(
        "",
        &["127.0.0.1"],
        "localhost",
        "x509: certificate is not valid for any names, but wanted to match localhost",
    );
    invalid(
        "localhost",
        &[],
        "localhost",
        "x509: certificate relies on legacy Common Name field, use SANs instead",
    );
    invalid(
        "other",
        &[],
        "localhost",
        "x509: certificate is not valid for any names, but wanted to match localhost",
    );
    let wildcard = "x509: certificate is valid for *.example.com, not ";
    for host in ["example.com", "a.b.example.com", "*.example.org"] {
        invalid("", &["*.example.com"], host, &format!("{wildcard}{host}"));
    }
    let many: Vec<String> = (0..100).map(|n| format!("host{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    invalid(
        "",
        &many,
        "c",
        "x509: certificate is valid for 100 names, but none matched c",
    );
}
