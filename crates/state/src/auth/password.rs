//! What is kept of a password.
//!
//! ```text
//! $2a$10$ + 22 characters: the salt of 16 bytes + 31 characters: bcrypt of 23 bytes
//! ```
//!
//! Since 3.5 the member that takes a request hashes the password, and the log has the hash. Before,
//! the log has the password, and whoever applies the entry hashes it, each member with a salt of
//! its own. Here the salt follows from the entry, because what is applied must not depend on
//! chance: a salt has to be unique, not secret, and so are the entry's index and term. This takes
//! some 50 ms, which is acceptable since it only happens when the log of such a member is replayed.
//!
//! Everything in here but [`decode`] is slow on purpose: never to be called with a lock held, nor
//! where others wait for the thread.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use retcd_proto::etcdserverpb::InternalRaftRequest;
use sha2::{Digest, Sha256};

use super::AuthError;
use crate::meta::AppliedIndex;

/// Two to this power are the rounds of bcrypt for passwords in the log; etcd's default.
const COST: u32 = 10;

/// The costs that bcrypt has.
const COSTS: std::ops::RangeInclusive<u32> = 4..=31;

/// bcrypt looks at no more of a password and the zero byte behind it. etcd takes no longer new
/// ones.
pub const PASSWORD_BYTES_MAX: usize = 72;

/// As lenient as etcd's decoder.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// The bytes of a hash in base64, which are kept for the user. Of nothing that is nothing, so that
/// no password fits.
///
/// # Errors
/// [`AuthError::BadPasswordHash`]
pub fn decode(hash: &str) -> Result<Vec<u8>, AuthError> {
    let digits: Vec<u8> = hash
        .bytes()
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .collect();
    BASE64
        .decode(digits)
        .map_err(|_| AuthError::BadPasswordHash)
}

/// A hash as requests carry it.
pub fn encode(hash: &str) -> String {
    BASE64.encode(hash)
}

/// The request of the entry at `position` with its password hashed, if it is of a member before
/// 3.5.
pub(crate) fn settle(
    position: AppliedIndex,
    request: &InternalRaftRequest,
) -> Cow<'_, InternalRaftRequest> {
    let settled = |name: &str, password: &str, hashed: &str| {
        (hashed.is_empty() && !password.is_empty())
            .then(|| encode(&hash(password.as_bytes(), COST, salt(position, name))))
    };
    let mut request = Cow::Borrowed(request);
    if let Some(add) = &request.auth_user_add
        && let Some(hash) = settled(&add.name, &add.password, &add.hashed_password)
    {
        let add = request.to_mut().auth_user_add.get_or_insert_default();
        add.hashed_password = hash;
    } else if let Some(change) = &request.auth_user_change_password
        && let Some(hash) = settled(&change.name, &change.password, &change.hashed_password)
    {
        let change = &mut request.to_mut().auth_user_change_password;
        change.get_or_insert_default().hashed_password = hash;
    }
    request
}

/// Whether `password` is the one that `stored` was made of. What is stored and is no hash fits
/// nothing.
pub fn verify(password: &[u8], stored: &[u8]) -> bool {
    let Some((cost, salt)) = std::str::from_utf8(stored).ok().and_then(parts) else {
        return false;
    };
    let again = hash(password, cost, salt);
    // The minor version of the format says nothing about hashes of passwords without null
    // characters.
    let (again, stored) = (&again.as_bytes()[4..], &stored[4..]);
    let differences = again
        .iter()
        .zip(stored)
        .fold(0, |all, (a, b)| all | (a ^ b));
    again.len() == stored.len() && differences == 0
}

/// Cost and salt of a hash.
fn parts(stored: &str) -> Option<(u32, [u8; 16])> {
    let rest = stored.strip_prefix("$2")?.get(1..)?.strip_prefix('$')?;
    let (cost, rest) = rest.split_once('$')?;
    let cost = cost.parse().ok().filter(|cost| COSTS.contains(cost))?;
    let salt = bcrypt::BASE_64.decode(rest.get(..22)?).ok()?;
    Some((cost, salt.try_into().ok()?))
}

/// The salt for the password of `user` in the entry at `position`.
fn salt(position: AppliedIndex, user: &str) -> [u8; 16] {
    let digest = Sha256::new()
        .chain_update(b"salt of a password in the log")
        .chain_update(position.index.to_be_bytes())
        .chain_update(position.term.to_be_bytes())
        .chain_update(user)
        .finalize();
    let mut salt = [0; 16];
    salt.copy_from_slice(&digest[..16]);
    salt
}

/// The hash of `password` with two to the power of `cost` rounds, 4 to 31.
///
/// # Panics
/// At another cost.
pub fn hash(password: &[u8], cost: u32, salt: [u8; 16]) -> String {
    assert!(COSTS.contains(&cost), "bcrypt has no cost {cost}");
    let mut terminated = password.to_vec();
    terminated.push(0);
    terminated.truncate(PASSWORD_BYTES_MAX);
    let hash = bcrypt::bcrypt(cost, salt, &terminated);
    let digits = &bcrypt::BASE_64;
    // The last of the 24 bytes has never been part of the format.
    format!(
        "$2a${cost:02}${}{}",
        digits.encode(salt),
        digits.encode(&hash[..23])
    )
}

#[cfg(test)]
mod tests {
    use retcd_proto::etcdserverpb::AuthUserAddRequest;

    use super::*;

    const POSITION: AppliedIndex = AppliedIndex { index: 8, term: 2 };

    #[track_caller]
    fn check(password: &str, stored: &str) {
        let (cost, salt) = parts(stored).unwrap();
        assert_eq!(hash(password.as_bytes(), cost, salt), stored);
        assert!(verify(password.as_bytes(), stored.as_bytes()));
        assert!(!verify(&password.as_bytes()[1..], stored.as_bytes()));
    }

    #[test]
    fn hashes_are_etcds() {
        check(
            "alicepw",
            "$2a$10$VYW78VdbF/cI/CMs308a7Od7zcagHLBoJWUCNaMguXywSJnwaaysm",
        );
        check(
            "bob pass with spaces",
            "$2a$10$tK44Sq1yvyh3lTSmVcMAq.qFDvcC8wjj6vBMxro3lE5Vu4nVF3Yaq",
        );
    }

    #[test]
    fn what_is_no_hash_fits_nothing() {
        let stored = hash(b"pw", 4, [7; 16]);
        assert!(verify(b"pw", stored.as_bytes()));
        let other_minor = stored.replace("$2a$", "$2b$");
        assert!(verify(b"pw", other_minor.as_bytes()));
        let damaged = [
            "",
            "pw",
            "$2a$",
            "$2a$04$",
            &stored[..stored.len() - 1],
            &format!("{stored}x"),
            &stored.replace("$04$", "$03$"),
            &stored.replace("$04$", "$32$"),
            &stored.replace("$2a$", "$3a$"),
            "$2a$04$\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
        ];
        for stored in damaged {
            assert!(!verify(b"pw", stored.as_bytes()), "{stored}");
        }
    }

    #[test]
    fn only_the_first_72_bytes_count() {
        let long = [b'x'; 100];
        let hash = |password| hash(password, 4, [1; 16]);
        assert_eq!(hash(&long), hash(&long[..72]));
        assert_ne!(hash(&long[..72]), hash(&long[..71]));
    }

    fn settled(name: &str, password: &str, hashed_password: &str) -> (String, String) {
        let request = InternalRaftRequest {
            auth_user_add: Some(AuthUserAddRequest {
                name: name.into(),
                password: password.into(),
                hashed_password: hashed_password.into(),
                options: None,
            }),
            ..Default::default()
        };
        let add = settle(POSITION, &request).into_owned();
        let add = add.auth_user_add.unwrap();
        (add.password, add.hashed_password)
    }

    #[test]
    fn the_salt_follows_from_the_entry() {
        let at = |index, term, user: &str| salt(AppliedIndex { index, term }, user);
        assert_eq!(at(8, 2, "u"), at(8, 2, "u"));
        let others = [at(9, 2, "u"), at(8, 3, "u"), at(2, 8, "u"), at(8, 2, "v")];
        assert!(!others.contains(&at(8, 2, "u")));
        let stored = decode(&settled("u", "pw", "").1).unwrap();
        assert_eq!(stored, hash(b"pw", 10, at(8, 2, "u")).into_bytes());
        assert_eq!((&stored[..7], stored.len()), (&b"$2a$10$"[..], 60));
    }

    #[test]
    fn a_hash_is_taken_as_it_is() {
        assert_eq!(settled("u", "pw", "JDJh").1, "JDJh");
        assert_eq!(settled("u", "", "").1, "");
        assert_eq!(decode("JDJhJDEw"), Ok(b"$2a$10".to_vec()));
        assert_eq!(decode("JDJh\r\nJDEw\n"), Ok(b"$2a$10".to_vec()));
        assert_eq!(decode("JDJhJB=="), Ok(b"$2a$".to_vec()));
        assert_eq!(decode(""), Ok(Vec::new()));
        assert_eq!(decode(&encode("$2a$10")), Ok(b"$2a$10".to_vec()));
        for damaged in ["JDJhJA", "JDJhJA=", "JDJh-DEw", "JDJhJDEw "] {
            assert_eq!(decode(damaged), Err(AuthError::BadPasswordHash));
        }
    }
}
