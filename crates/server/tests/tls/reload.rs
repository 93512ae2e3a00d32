//! New files count from the next connection on; useless ones do not count.

use std::fs;
use std::os::unix::fs::symlink;

use crate::client::{Client, write};
use crate::issuer::{Authority, Pair};
use crate::member::{Setting, server};

/// The member shows this certificate.
#[track_caller]
fn assert_shows(setting: &Setting, pair: &Pair) {
    let shown = setting.client().assert_in(setting.port()).certificate;
    assert!(shown == pair.der, "another certificate");
}

#[test]
fn a_new_certificate_is_shown_to_the_next_client() {
    let setting = Setting::new();
    let member = setting.start(&[]);
    assert_shows(&setting, &setting.server);
    for _ in 0..3 {
        let next = server(&setting.ca);
        next.write(setting.dir(), "server");
        assert_shows(&setting, &next);
    }
    member.wait_for("took up changed TLS files");
}

#[test]
fn a_useless_file_changes_nothing_and_is_complained_about_once() {
    let setting = Setting::new();
    let member = setting.start(&[]);
    write(setting.dir(), "server.key", "nothing");
    for _ in 0..3 {
        assert_shows(&setting, &setting.server);
    }
    let complaint = "tls: failed to find any PEM data in key input";
    member.wait_for(complaint);
    assert_eq!(member.log().matches(complaint).count(), 1);
    // Half of a new pair.
    let next = server(&setting.ca);
    write(setting.dir(), "server.crt", &next.pem);
    write(
        setting.dir(),
        "server.key",
        setting.server.key.serialize_pem(),
    );
    assert_shows(&setting, &setting.server);
    member.wait_for("tls: private key does not match public key");
    write(setting.dir(), "server.key", next.key.serialize_pem());
    assert_shows(&setting, &next);
    fs::remove_file(setting.dir().join("ca.crt")).unwrap();
    setting.client().assert_in(setting.port());
    member.wait_for("ca.crt: no such file or directory");
}

#[test]
fn a_new_authority_lets_its_own_in() {
    let setting = Setting::new();
    let _member = setting.start(&[]);
    let next = Authority::new("next");
    let bob = next.issue("bob", |_| {});
    let bob = Client::of(&setting.ca).with(&bob);
    bob.assert_out(setting.port(), "UnknownCA");
    write(
        setting.dir(),
        "ca.crt",
        format!("{}{}", setting.ca.pem(), next.pem()),
    );
    bob.assert_in(setting.port());
    setting.client().assert_in(setting.port());
    next.write(setting.dir(), "ca.crt");
    bob.assert_in(setting.port());
    setting.client().assert_out(setting.port(), "UnknownCA");
}

#[test]
fn a_new_list_of_revoked_certificates_counts() {
    let setting = Setting::new();
    write(setting.dir(), "crl", setting.ca.revoke(&[1]).1);
    let member = setting.start(&[&setting.file("client-crl-file", "crl")]);
    let bob = setting
        .ca
        .issue("bob", |p| p.serial_number = Some(7.into()));
    let bob = Client::of(&setting.ca).with(&bob);
    bob.assert_in(setting.port());
    write(setting.dir(), "crl", setting.ca.revoke(&[1, 7]).0);
    bob.assert_out(setting.port(), "CertificateRevoked");
    write(setting.dir(), "crl", "damaged");
    bob.assert_out(setting.port(), "CertificateRevoked");
    member.wait_for("x509: malformed crl");
    write(setting.dir(), "crl", setting.ca.revoke(&[1]).0);
    bob.assert_in(setting.port());
}

#[test]
fn swapped_links_are_followed_as_kubernetes_swaps_them() {
    let setting = Setting::new();
    let volume = setting.dir().join("volume");
    let next = server(&setting.ca);
    for (version, pair) in [("..1", &setting.server), ("..2", &next)] {
        fs::create_dir_all(volume.join(version)).unwrap();
        pair.write(&volume.join(version), "tls");
    }
    symlink("..1", volume.join("..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{file}"), volume.join(file)).unwrap();
    }
    let files = [
        setting.file("cert-file", "volume/tls.crt"),
        setting.file("key-file", "volume/tls.key"),
    ];
    let _member = setting.start(&[&files[0], &files[1]]);
    assert_shows(&setting, &setting.server);
    symlink("..2", volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    assert_shows(&setting, &next);
}
