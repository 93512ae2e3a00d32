//! Guards which certificates a member accepts. Each case states the answer of Go's `crypto/x509`; a
//! comment marks where webpki alone would answer differently.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod issuer;

use std::time::{Duration, SystemTime};

use issuer::{Authority, Pair, expired, hosts, self_signed, usages};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, NameConstraints};
use retcd_tls::{Authorities, Certificate, Purpose, Refusal, Settings};
use rustls::pki_types::{CertificateDer, UnixTime};

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap(),
    )
}

fn verify_at(
    trusted: &[Vec<u8>],
    leaf: &[u8],
    others: &[Vec<u8>],
    purpose: Purpose,
    now: UnixTime,
) -> Result<(), Refusal> {
    let der = |bytes: &Vec<u8>| CertificateDer::from(bytes.clone());
    let authorities = Authorities::new(trusted.iter().map(der)).unwrap();
    let leaf = Certificate::parse(CertificateDer::from(leaf)).unwrap();
    let others: Vec<_> = others.iter().map(der).collect();
    let algorithms = Settings::default().algorithms();
    authorities.verify(&leaf, &others, purpose, now, &algorithms)
}

fn verify(trusted: &Authority, leaf: &Pair, purpose: Purpose) -> Result<(), Refusal> {
    verify_at(&[trusted.der()], &leaf.der, &[], purpose, now())
}

#[test]
fn issued_certificates_are_valid_for_their_purposes() {
    let ca = Authority::new("ca");
    let other = Authority::new("ca");
    let anything = ca.issue("a", |_| {});
    let server = ca.issue("a", |p| usages(p, true, false));
    let client = ca.issue("a", |p| usages(p, false, true));
    for purpose in [Purpose::Server, Purpose::Client] {
        assert_eq!(verify(&ca, &anything, purpose), Ok(()));
        // Another CA with the same name.
        assert_eq!(
            verify(&other, &anything, purpose),
            Err(Refusal::UnknownAuthority)
        );
    }
    assert_eq!(verify(&ca, &server, Purpose::Server), Ok(()));
    assert_eq!(verify(&ca, &client, Purpose::Client), Ok(()));
    assert_eq!(
        verify(&ca, &server, Purpose::Client),
        Err(Refusal::IncompatibleUsage)
    );
    assert_eq!(
        verify(&ca, &client, Purpose::Server),
        Err(Refusal::IncompatibleUsage)
    );
}

#[test]
fn any_usage_includes_both_purposes() {
    let ca = Authority::new("ca");
    // webpki requires the purpose itself.
    let any = ca.issue("a", |p| {
        p.extended_key_usages.push(ExtendedKeyUsagePurpose::Any);
    });
    assert_eq!(verify(&ca, &any, Purpose::Client), Ok(()));
    assert_eq!(verify(&ca, &any, Purpose::Server), Ok(()));
}

#[test]
fn validity_is_checked_for_leaf_and_ca() {
    let ca = Authority::new("ca");
    let old = ca.issue("a", expired);
    assert!(matches!(
        verify(&ca, &old, Purpose::Client),
        Err(Refusal::Expired { not_after, .. }) if not_after == 1_609_459_200
    ));
    let old = Authority::with("ca", expired);
    // webpki does not check the validity of trust anchors.
    let leaf = old.issue("a", |_| {});
    assert!(verify(&old, &leaf, Purpose::Client).is_err());
    let while_valid = UnixTime::since_unix_epoch(Duration::from_secs(1_600_000_000));
    assert_eq!(
        verify_at(&[old.der()], &leaf.der, &[], Purpose::Client, while_valid),
        Ok(())
    );
    let first = UnixTime::since_unix_epoch(Duration::ZERO);
    assert!(matches!(
        verify_at(&[ca.der()], &leaf.der, &[], Purpose::Client, first),
        Err(Refusal::NotYetValid { .. })
    ));
}

#[test]
fn a_renewed_ca_is_valid_next_to_its_old_certificate() {
    let old = Authority::with("ca", expired);
    let leaf = old.issue("a", |_| {});
    let new = {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, "ca");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.self_signed(old.key()).unwrap()
    };
    let both = [old.der(), new.der().to_vec()];
    assert_eq!(
        verify_at(&both, &leaf.der, &[], Purpose::Client, now()),
        Ok(())
    );
}

#[test]
fn version_1_leaves_of_a_trusted_ca_are_accepted() {
    let ca = Authority::new("ca");
    let other = Authority::new("ca");
    // webpki accepts version 3 only.
    let leaf = ca.issue_version_1("alice");
    assert_eq!(verify(&ca, &leaf, Purpose::Client), Ok(()));
    assert_eq!(verify(&ca, &leaf, Purpose::Server), Ok(()));
    assert_eq!(
        verify(&other, &leaf, Purpose::Client),
        Err(Refusal::UnknownAuthority)
    );
    // Through an intermediate that the peer sent.
    let middle = ca.authority("middle", |_| {});
    let leaf = middle.issue_version_1("alice");
    let trusted = [ca.der()];
    assert_eq!(
        verify_at(&trusted, &leaf.der, &[middle.der()], Purpose::Client, now()),
        Ok(())
    );
    assert_eq!(
        verify_at(&trusted, &leaf.der, &[], Purpose::Client, now()),
        Err(Refusal::UnknownAuthority)
    );
}

#[test]
fn an_altered_version_1_certificate_is_rejected() {
    let ca = Authority::new("ca");
    let mut leaf = ca.issue_version_1("alice").der;
    let at = leaf.windows(5).rposition(|name| name == b"alice").unwrap();
    leaf[at..at + 5].copy_from_slice(b"mally");
    assert_eq!(
        verify_at(&[ca.der()], &leaf, &[], Purpose::Client, now()),
        Err(Refusal::UnknownAuthority)
    );
}

#[test]
fn a_trusted_leaf_needs_no_issuer() {
    let own = self_signed("server", |p| hosts(p, &["localhost"]));
    let other = self_signed("server", |p| hosts(p, &["localhost"]));
    let trusted = [own.der.clone()];
    for purpose in [Purpose::Server, Purpose::Client] {
        assert_eq!(verify_at(&trusted, &own.der, &[], purpose, now()), Ok(()));
        assert_eq!(
            verify_at(&trusted, &other.der, &[], purpose, now()),
            Err(Refusal::UnknownAuthority)
        );
    }
    // As `openssl req -x509` and `--auto-tls` create it; webpki rejects CA certificates as server
    // certificates.
    let authority = self_signed("server", |p| {
        hosts(p, &["localhost"]);
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        usages(p, true, false);
    });
    let trusted = [authority.der.clone()];
    assert_eq!(
        verify_at(&trusted, &authority.der, &[], Purpose::Server, now()),
        Ok(())
    );
    assert_eq!(
        verify_at(&trusted, &authority.der, &[], Purpose::Client, now()),
        Err(Refusal::IncompatibleUsage)
    );
    // Trust in a leaf does not extend to certificates it signs, nor past its expiry.
    let old = self_signed("server", expired);
    assert!(matches!(
        verify_at(
            std::slice::from_ref(&old.der),
            &old.der,
            &[],
            Purpose::Server,
            now()
        ),
        Err(Refusal::Expired { .. })
    ));
}

#[test]
fn a_trusted_ca_certificate_is_valid_as_a_leaf() {
    let ca = Authority::new("ca");
    let member = ca.authority("member", |p| hosts(p, &["localhost"]));
    assert_eq!(
        verify_at(&[ca.der()], &member.der(), &[], Purpose::Server, now()),
        Ok(())
    );
    let stranger = Authority::new("ca").authority("member", |_| {});
    assert_eq!(
        verify_at(&[ca.der()], &stranger.der(), &[], Purpose::Server, now()),
        Err(Refusal::UnknownAuthority)
    );
}

#[test]
fn only_cas_may_issue() {
    let ca = Authority::new("ca");
    let trusted = [ca.der()];
    let good = ca.authority("middle", |_| {});
    for leaf in [good.issue("a", |_| {}), good.issue_version_1("a")] {
        let answer = verify_at(&trusted, &leaf.der, &[good.der()], Purpose::Client, now());
        assert_eq!(answer, Ok(()));
    }
    let refused = [
        ca.authority("middle", |p| p.is_ca = IsCa::ExplicitNoCa),
        ca.authority("middle", |p| p.is_ca = IsCa::NoCa),
        ca.authority("middle", |p| {
            p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        }),
        ca.authority("middle", expired),
        ca.authority("middle", |p| usages(p, true, false)),
    ];
    for (case, middle) in refused.iter().enumerate() {
        for leaf in [middle.issue("a", |_| {}), middle.issue_version_1("a")] {
            let answer = verify_at(&trusted, &leaf.der, &[middle.der()], Purpose::Client, now());
            assert!(answer.is_err(), "case {case}, {} bytes", leaf.der.len());
        }
    }
}

#[test]
fn path_length_and_name_constraints_are_enforced() {
    let ca = Authority::with("ca", |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let middle = ca.authority("middle", |_| {});
    for leaf in [middle.issue("a", |_| {}), middle.issue_version_1("a")] {
        let answer = verify_at(
            &[ca.der()],
            &leaf.der,
            &[middle.der()],
            Purpose::Client,
            now(),
        );
        assert_eq!(answer, Err(Refusal::TooManyIntermediates));
    }
    assert_eq!(
        verify(&ca, &ca.issue_version_1("a"), Purpose::Client),
        Ok(())
    );
    let constrained = Authority::with("ca", |p| {
        p.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("example.com".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    let inside = constrained.issue("a", |p| hosts(p, &["a.example.com"]));
    let outside = constrained.issue("a", |p| hosts(p, &["a.example.org"]));
    assert_eq!(verify(&constrained, &inside, Purpose::Server), Ok(()));
    assert_eq!(
        verify(&constrained, &outside, Purpose::Server),
        Err(Refusal::NameConstraints)
    );
}

#[test]
fn path_search_is_bounded() {
    let ca = Authority::new("ca");
    let stranger = Authority::new("stranger");
    let mut middle = stranger.authority("middle", |_| {});
    let leaf = middle.issue_version_1("a");
    // Many certificates with one name, each of which might have issued any other.
    let mut crowd = vec![middle.der()];
    for _ in 0..40 {
        middle = middle.authority("middle", |_| {});
        crowd.push(middle.der());
    }
    assert_eq!(
        verify_at(&[ca.der()], &leaf.der, &crowd, Purpose::Client, now()),
        Err(Refusal::UnknownAuthority)
    );
}

#[test]
fn unknown_critical_extensions_are_rejected() {
    let ca = Authority::new("ca");
    let with = |critical| {
        ca.issue("a", |p| {
            let mut extension =
                rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999], vec![5, 0]);
            extension.set_criticality(critical);
            p.custom_extensions.push(extension);
        })
    };
    assert_eq!(verify(&ca, &with(false), Purpose::Client), Ok(()));
    assert_eq!(
        verify(&ca, &with(true), Purpose::Client),
        Err(Refusal::UnhandledCriticalExtension)
    );
}
