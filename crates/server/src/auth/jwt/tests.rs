//! The keys and tokens in `tests/data/jwt` were made with OpenSSL and with the library that etcd
//! signs with.

use super::*;
use crate::auth::TokenError;

/// When the sample tokens end, in seconds since 1970.
const END: u64 = 4_102_444_800;

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/data/jwt/", $name)) as &[u8]
    };
}

/// For each method a private key and its public one; the secret has no such half.
const KEYS: [(&str, &[u8], &[u8]); 13] = [
    ("HS256", file!("hmac.txt"), b""),
    ("HS384", file!("hmac.txt"), b""),
    ("HS512", file!("hmac.txt"), b""),
    ("RS256", file!("rsa.pem"), file!("rsa-pub.pem")),
    ("RS384", file!("rsa-pkcs1.pem"), file!("rsa-pub-pkcs1.pem")),
    ("RS512", file!("rsa.pem"), file!("rsa-cert.pem")),
    ("PS256", file!("rsa.pem"), file!("rsa-pub.pem")),
    ("PS384", file!("rsa.pem"), file!("rsa-cert.pem")),
    ("PS512", file!("rsa-pkcs1.pem"), file!("rsa-pub.pem")),
    ("ES256", file!("ec256.pem"), file!("ec256-pub.pem")),
    ("ES384", file!("ec384.pem"), file!("ec384-pub.pem")),
    ("ES512", file!("ec521.pem"), file!("ec521-pub.pem")),
    ("EdDSA", file!("ed25519.pem"), file!("ed25519-pub.pem")),
];

fn load(method: &str, public: &[u8], private: &[u8]) -> Result<JsonWebTokens, TokenError> {
    let ttl = GoDuration(END as i64 * 1_000_000_000);
    JsonWebTokens::new(Method::named(method).unwrap(), public, private, ttl)
}

/// Tokens of etcd's library: alice at revision 7.
fn samples() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("../../../tests/data/jwt/tokens.txt").lines();
    lines.map(|line| line.split_once(' ').unwrap())
}

fn alice() -> Identity {
    Identity {
        user: "alice".into(),
        revision: 7,
    }
}

#[test]
fn tokens_of_etcd_are_understood_with_either_key() {
    for ((method, token), (name, private, public)) in samples().zip(KEYS) {
        assert_eq!(method, name);
        let none: &[u8] = b"";
        for (public, private) in [(public, private), (none, private), (public, none)] {
            if public.is_empty() && private.is_empty() {
                continue;
            }
            let tokens = load(method, public, private).unwrap();
            assert_eq!(tokens.user(token, 0), Some(alice()), "{method}");
            // Once more, from memory.
            assert_eq!(tokens.user(token, END * 1000 - 1), Some(alice()));
            assert_eq!(tokens.user(token, END * 1000), None);
        }
    }
}

#[test]
fn tokens_are_signed_as_etcd_signs_them() {
    for ((method, theirs), (_, private, public)) in samples().zip(KEYS) {
        let sign = |tokens: &JsonWebTokens| tokens.sign("alice", 7, 0).map(|sign| sign());
        let ours = sign(&load(method, b"", private).unwrap());
        let ours = ours.flatten().unwrap();
        match &method[..2] {
            // These have chance in them.
            "PS" | "ES" => {
                let part = |token: &str| token.rsplit_once('.').unwrap().0.to_owned();
                assert_eq!(part(&ours), part(theirs));
            }
            _ => assert_eq!(ours, theirs),
        }
        if !public.is_empty() {
            let verifier = load(method, public, b"").unwrap();
            assert!(!verifier.can_sign() && sign(&verifier).is_none());
            assert_eq!(verifier.user(&ours, 0), Some(alice()), "{method}");
        }
    }
}

#[test]
fn what_is_not_signed_with_our_method_and_key_is_worth_nothing() {
    let tokens = load("ES256", file!("ec256-pub.pem"), b"").unwrap();
    let samples: HashMap<_, _> = samples().collect();
    let good = samples["ES256"];
    assert!(tokens.user(good, 0).is_some());
    for (method, token) in &samples {
        assert_eq!(tokens.user(token, 0).is_some(), *method == "ES256");
    }
    // A public key taken for a secret.
    let public = load("HS256", b"", file!("ec256-pub.pem")).unwrap();
    let forged = public.sign("root", 7, 0).unwrap()().unwrap();
    assert_eq!(tokens.user(&forged, 0), None);

    let parts: Vec<&str> = good.split('.').collect();
    let none = BASE64.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let root = BASE64.encode(r#"{"revision":7,"username":"root"}"#);
    let damaged = [
        String::new(),
        "..".into(),
        good[1..].into(),
        format!("{good}A"),
        format!("{good}."),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{root}.{}", parts[0], parts[2]),
        format!("{none}.{root}."),
        format!("{none}.{root}.{}", parts[2]),
    ];
    for token in damaged {
        assert_eq!(tokens.user(&token, 0), None, "{token}");
    }
}

#[test]
fn claims_are_read_as_etcds_library_reads_them() {
    let tokens = load("HS256", b"", b"secret").unwrap();
    let user = |claims: &str, now_s: u64| {
        let header = BASE64.encode(r#"{"alg":"HS256"}"#);
        let signed = format!("{header}.{}", BASE64.encode(claims));
        let key = Method::named("HS256").unwrap();
        let (signer, _) = keys::load(key, b"", b"secret").unwrap();
        let signature = signer.unwrap().sign(signed.as_bytes()).unwrap();
        let token = format!("{signed}.{}", BASE64.encode(signature));
        let identity = tokens.user(&token, now_s * 1000)?;
        Some((identity.user.to_string(), identity.revision))
    };
    let u = |revision| Some(("u".to_owned(), revision));
    assert_eq!(user(r#"{"username":"u","revision":7}"#, 0), u(7));
    assert_eq!(user(r#"{"username":"u","revision":7.9,"x":[]}"#, 0), u(7));
    assert_eq!(user(r#"{"username":"u","revision":-1}"#, 0), u(0));
    let bounded = r#"{"username":"u","revision":1,"exp":20.9,"nbf":10}"#;
    assert_eq!(user(bounded, 9), None);
    assert_eq!(user(bounded, 10), u(1));
    assert_eq!(user(bounded, 19), u(1));
    assert_eq!(user(bounded, 20), None);
    assert_eq!(user(r#"{"username":"u","revision":1,"exp":0}"#, 20), u(1));
    for wrong in [
        "",
        "[]",
        r#"{"revision":1}"#,
        r#"{"username":1,"revision":1}"#,
        r#"{"username":"u"}"#,
        r#"{"username":"u","revision":"1"}"#,
        r#"{"username":"u","revision":1,"exp":"20"}"#,
        r#"{"username":"u","revision":1,"nbf":null}"#,
    ] {
        assert_eq!(user(wrong, 0), None, "{wrong}");
    }
}

#[test]
fn keys_must_be_what_the_method_needs() {
    let error = |method: &str, public: &[u8], private: &[u8]| {
        let loaded = load(method, public, private);
        loaded.err().map(|error| error.to_string())
    };
    let other = Some("auth: public and private keys don't match".into());
    let (ec256, rsa) = (file!("ec256.pem"), file!("rsa.pem"));
    let (ec256_pub, rsa_pub) = (file!("ec256-pub.pem"), file!("rsa-pub.pem"));
    assert_eq!(error("RS256", rsa_pub, rsa), None);
    assert_eq!(error("ES256", ec256_pub, file!("ec256-pkcs8.pem")), None);
    let another = {
        use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
        let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let digits = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        format!("-----BEGIN PRIVATE KEY-----\n{digits}\n-----END PRIVATE KEY-----\n")
    };
    assert_eq!(error("RS256", rsa_pub, another.as_bytes()), other);

    let wrong = |kind: &str| Some(format!("key is not a valid {kind}"));
    assert_eq!(error("RS256", b"", ec256), wrong("RSA private key"));
    assert_eq!(error("PS256", ec256_pub, b""), wrong("RSA public key"));
    assert_eq!(error("ES256", b"", rsa), wrong("ECDSA private key"));
    assert_eq!(error("ES384", b"", ec256), wrong("ECDSA private key"));
    assert_eq!(error("ES512", ec256_pub, b""), wrong("ECDSA public key"));
    assert_eq!(error("EdDSA", b"", ec256), wrong("Ed25519 private key"));
    assert_eq!(error("EdDSA", rsa_pub, b""), wrong("Ed25519 public key"));

    let no_pem = "invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key";
    let cut = &rsa[..rsa.len() / 2];
    for file in [&b"x"[..], cut, b"-----BEGIN X-----\n?\n-----END X-----\n"] {
        assert_eq!(error("RS256", b"", file), Some(no_pem.into()));
    }
}

#[test]
fn remembered_tokens_are_bounded() {
    let tokens = load("HS256", b"", b"secret").unwrap();
    for revision in 0..=VERIFIED_MAX as u64 {
        let token = tokens.sign("u", revision, 0).unwrap()().unwrap();
        assert!(tokens.user(&token, 0).is_some());
    }
    assert_eq!(tokens.verified.lock().len(), 1);
}
