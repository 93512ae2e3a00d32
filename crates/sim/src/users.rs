//! Users, passwords and permissions that a run may have.
//!
//! There are a handful of each, so that chance brings them together. The hashes of the passwords
//! are made once with the lowest cost of bcrypt, as comparing them is no more than looking them up:
//! whether a hash fits its password is a matter of other tests.

use std::sync::OnceLock;

use bytes::Bytes;
use fastrand::Rng;
use retcd_member::access;
use retcd_member::v2::Login;
use retcd_proto::authpb::{Permission, permission};
use retcd_state::auth::password;

/// Users besides `root`.
pub const NAMES: [&str; 5] = ["u0", "u1", "u2", "u3", "u4"];
/// Roles besides `root`.
pub const ROLES: [&str; 4] = ["r0", "r1", "r2", "r3"];
/// Passwords of all users.
pub const PASSWORDS: [&str; 3] = ["first", "second", "third"];

/// All keys that there are.
const EVERYTHING: (&str, &str) = ("a", "z");
/// What else permissions are for. Some overlap, some touch, some begin at the same key.
const INTERVALS: [(&str, &str); 11] = [
    ("k", "l"),
    ("k0", ""),
    ("k0", "k3"),
    ("k1", "k4"),
    ("k3", "k6"),
    ("k3", "\0"),
    ("k5", ""),
    ("l", "m"),
    ("l0", "l2"),
    ("l2", "l9"),
    ("\0", "\0"),
];

/// How a request says whom it is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all.
    #[default]
    Nobody,
    /// By a token.
    Token(String),
    /// By the name in a certificate.
    Certificate(&'static str),
    /// By a name and a password, as API v2 has it.
    Password(&'static str, &'static str),
}

impl Credentials {
    /// As API v2 takes them.
    pub fn login(&self) -> Login {
        match self {
            Credentials::Nobody | Credentials::Token(_) => Login::Nobody,
            Credentials::Certificate(name) => Login::Certificate((*name).into()),
            Credentials::Password(user, password) => Login::Password {
                user: (*user).to_owned(),
                password: (*password).to_owned(),
            },
        }
    }

    /// As API v3 takes them.
    pub fn shown(&self) -> access::Credentials {
        access::Credentials {
            token: match self {
                Credentials::Token(token) => Some(token.as_str().into()),
                _ => None,
            },
            certificate: match self {
                Credentials::Certificate(name) => Some((*name).into()),
                _ => None,
            },
        }
    }
}

/// Somebody, with a certificate or nothing.
pub fn any_certificate(rng: &mut Rng) -> Credentials {
    match rng.u8(..8) {
        0 => Credentials::Nobody,
        1 => Credentials::Certificate("root"),
        _ => Credentials::Certificate(any(rng, &NAMES)),
    }
}

/// One of these.
pub fn any(rng: &mut Rng, of: &[&'static str]) -> &'static str {
    of[rng.usize(..of.len())]
}

/// What is drawn for a permission.
pub fn any_permission(rng: &mut Rng) -> Permission {
    use permission::Type::{Read, Readwrite, Write};
    let (key, range_end) = match rng.u8(..3) {
        0 => EVERYTHING,
        _ => INTERVALS[rng.usize(..INTERVALS.len())],
    };
    let kind = [Read, Write, Readwrite, Readwrite][rng.usize(..4)];
    Permission {
        perm_type: kind as i32,
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::from_static(range_end.as_bytes()),
    }
}

/// The hash of a password as requests carry it.
pub fn hash(password: &str) -> &'static str {
    static HASHES: OnceLock<[String; PASSWORDS.len()]> = OnceLock::new();
    let hashes = HASHES.get_or_init(|| {
        PASSWORDS.map(|password| {
            let salt = [password.len() as u8; 16];
            password::encode(&password::hash(password.as_bytes(), 4, salt))
        })
    });
    let number = PASSWORDS.iter().position(|known| *known == password);
    &hashes[number.expect("only these passwords are ever tried")]
}

/// The password of a hash that a request carries; empty for none.
pub fn password_of(hash: &str) -> &'static str {
    let known = PASSWORDS
        .into_iter()
        .find(|password| self::hash(password) == hash);
    known.unwrap_or_default()
}

/// What is kept of a hash that a request carries.
pub fn stored(hash: &str) -> Bytes {
    static STORED: OnceLock<[Bytes; PASSWORDS.len()]> = OnceLock::new();
    let all = STORED.get_or_init(|| {
        PASSWORDS.map(|password| {
            let salt = [password.len() as u8; 16];
            password::hash(password.as_bytes(), 4, salt).into()
        })
    });
    let number = PASSWORDS
        .iter()
        .position(|password| self::hash(password) == hash);
    all[number.expect("requests carry no other hashes")].clone()
}

/// Whether the password is the one that this is kept of.
pub fn fits(password: &str, kept: &[u8]) -> bool {
    stored(hash(password)) == kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_up_is_as_good_as_hashing() {
        for password in PASSWORDS {
            for other in PASSWORDS {
                let kept = stored(hash(other));
                let verified = password::verify(password.as_bytes(), &kept);
                assert_eq!(fits(password, &kept), verified);
                assert_eq!(verified, password == other);
            }
        }
    }
}
