//! What is kept of a password.
//!
//! ```text
//! $2a$10$ + 22 characters: the salt of 16 bytes + 31 characters: bcrypt of 23 bytes
//! ```
//!
//! Since 3.5 the member that takes a request hashes the password, and the log has the hash. Before,
//! the log has the password, and whoever applies the entry hashes it, each member with a salt of its
//! own. Here the salt follows from the entry, because what is applied must not depend on chance: a
//! salt has to be unique, not secret, and so are the entry's index and term. This takes some 50 ms,
//! which is acceptable since it only happens when the log of such a member is replayed.

use base64::Engine;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest, Sha256};

use super::AuthError;
use crate::meta::AppliedIndex;

/// Two to this power are the rounds of bcrypt; etcd's default.
const COST: u32 = 10;

/// bcrypt looks at no more of a password and the zero byte behind it.
const PASSWORD_BYTES_MAX: usize = 72;

/// As lenient as etcd's decoder.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// The hash to be kept for a user: `hash`, in base64, or that of `password` if there is only that.
/// With neither it is empty, so that no password fits.
///
/// # Errors
/// [`AuthError::BadPasswordHash`]
pub(super) fn stored(
    position: AppliedIndex,
    user: &str,
    password: &str,
    hash: &str,
) -> Result<Vec<u8>, AuthError> {
    if hash.is_empty() && !password.is_empty() {
        return Ok(bcrypt(password.as_bytes(), salt(position, user)).into_bytes());
    }
    let digits: Vec<u8> = hash
        .bytes()
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .collect();
    BASE64
        .decode(digits)
        .map_err(|_| AuthError::BadPasswordHash)
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

fn bcrypt(password: &[u8], salt: [u8; 16]) -> String {
    let mut terminated = password.to_vec();
    terminated.push(0);
    terminated.truncate(PASSWORD_BYTES_MAX);
    let hash = bcrypt::bcrypt(COST, salt, &terminated);
    let digits = &bcrypt::BASE_64;
    // The last of the 24 bytes has never been part of the format.
    format!(
        "$2a${COST}${}{}",
        digits.encode(salt),
        digits.encode(&hash[..23])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: AppliedIndex = AppliedIndex { index: 8, term: 2 };

    /// Hashes again with the salt of a hash that etcd made.
    fn check(password: &str, hash: &str) {
        let salt = bcrypt::BASE_64.decode(&hash[7..29]).unwrap();
        let again = bcrypt(password.as_bytes(), salt.try_into().unwrap());
        assert_eq!(again, hash);
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
    fn only_the_first_72_bytes_count() {
        let salt = salt(POSITION, "u");
        let long = [b'x'; 100];
        assert_eq!(bcrypt(&long, salt), bcrypt(&long[..72], salt));
        assert_ne!(bcrypt(&long[..72], salt), bcrypt(&long[..71], salt));
    }

    #[test]
    fn the_salt_follows_from_the_entry() {
        let at = |index, term, user: &str| salt(AppliedIndex { index, term }, user);
        assert_eq!(at(8, 2, "u"), at(8, 2, "u"));
        let others = [at(9, 2, "u"), at(8, 3, "u"), at(2, 8, "u"), at(8, 2, "v")];
        assert!(!others.contains(&at(8, 2, "u")));
        let hash = String::from_utf8(stored(POSITION, "u", "pw", "").unwrap()).unwrap();
        assert_eq!(hash, bcrypt(b"pw", at(8, 2, "u")));
        assert_eq!((&hash[..7], hash.len()), ("$2a$10$", 60));
    }

    #[test]
    fn a_hash_is_taken_as_it_is() {
        let stored = |password, hash| stored(POSITION, "u", password, hash);
        assert_eq!(stored("", "JDJhJDEw"), Ok(b"$2a$10".to_vec()));
        assert_eq!(stored("pw", "JDJh\r\nJDEw\n"), Ok(b"$2a$10".to_vec()));
        assert_eq!(stored("", "JDJhJB=="), Ok(b"$2a$".to_vec()));
        assert_eq!(stored("", ""), Ok(Vec::new()));
        for damaged in ["JDJhJA", "JDJhJA=", "JDJh-DEw", "JDJhJDEw "] {
            assert_eq!(stored("", damaged), Err(AuthError::BadPasswordHash));
        }
    }
}
