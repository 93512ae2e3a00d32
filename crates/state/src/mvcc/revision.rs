//! Revisions and their keys in the backend.
//!
//! ```text
//! put        8 bytes main, big endian | '_' | 8 bytes sub, big endian
//! tombstone  the same                                                  | 't'
//! ```

use std::cmp::Ordering;
use std::fmt;

use super::StorageError;

/// A point in the history of the keyspace: `main` counts write transactions, `sub` the changes in
/// one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The transaction's number; the first write of a store makes revision 2.
    pub main: i64,
    /// The change's number within its transaction, from 0.
    pub sub: i64,
}

/// The store's revision in the state that an answer shows: what stands in the header of that
/// answer.
///
/// Only what answers can make one, from the state that it answers from; there is none of "now". A
/// client that lists keys and then watches from the revision behind relies on it: the list shows
/// every change up to this revision and none after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreRevision(i64);

impl StoreRevision {
    /// The revision of a state that is at hand.
    pub(crate) fn new(revision: i64) -> StoreRevision {
        StoreRevision(revision)
    }

    /// The number, as it goes over the wire.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl PartialEq<i64> for StoreRevision {
    fn eq(&self, other: &i64) -> bool {
        self.0 == *other
    }
}

impl PartialOrd<i64> for StoreRevision {
    fn partial_cmp(&self, other: &i64) -> Option<Ordering> {
        self.0.partial_cmp(other)
    }
}

impl fmt::Display for StoreRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Length of the key of a put in bytes.
const PUT_LEN: usize = 17;

/// A revision as the key of a put in bucket `key`; also the form of the compaction marks in `meta`.
pub type RevisionKey = [u8; PUT_LEN];

impl Revision {
    /// The first change of transaction `main`.
    pub fn start_of(main: i64) -> Revision {
        Revision { main, sub: 0 }
    }

    /// The key of a put at this revision.
    pub fn to_key(self) -> RevisionKey {
        let mut key = [b'_'; PUT_LEN];
        key[..8].copy_from_slice(&self.main.to_be_bytes());
        key[9..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    /// The key of a tombstone at this revision.
    pub fn to_tombstone_key(self) -> [u8; PUT_LEN + 1] {
        let mut key = [b't'; PUT_LEN + 1];
        key[..PUT_LEN].copy_from_slice(&self.to_key());
        key
    }

    /// Reads a key of bucket `key`: the revision, and whether it is a tombstone's. `None` for
    /// anything that is no such key.
    pub fn from_key(key: &[u8]) -> Option<(Revision, bool)> {
        let (put, tombstone) = match key {
            [put @ .., b't'] if put.len() == PUT_LEN => (put, true),
            put => (put, false),
        };
        let put: &RevisionKey = put.try_into().ok()?;
        let [m0, m1, m2, m3, m4, m5, m6, m7, b'_', sub @ ..] = put else {
            return None;
        };
        let main = i64::from_be_bytes([*m0, *m1, *m2, *m3, *m4, *m5, *m6, *m7]);
        let sub = i64::from_be_bytes(*sub);
        // Nothing makes two billion changes in a transaction; the index counts on it.
        let valid = main >= 0 && (0..i64::from(i32::MAX)).contains(&sub);
        valid.then_some((Revision { main, sub }, tombstone))
    }

    /// The same of a row, whose key must be one.
    pub(super) fn of_row(key: &[u8]) -> Result<(Revision, bool), StorageError> {
        Revision::from_key(key).ok_or_else(|| StorageError::NoRevision(key.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_etcds() {
        let revision = Revision { main: 6, sub: 1 };
        assert_eq!(revision.to_key(), *b"\0\0\0\0\0\0\0\x06_\0\0\0\0\0\0\0\x01");
        assert_eq!(
            revision.to_tombstone_key(),
            *b"\0\0\0\0\0\0\0\x06_\0\0\0\0\0\0\0\x01t"
        );
        assert_eq!(
            Revision::from_key(&revision.to_key()),
            Some((revision, false))
        );
        assert_eq!(
            Revision::from_key(&revision.to_tombstone_key()),
            Some((revision, true))
        );
    }

    #[test]
    fn other_keys_are_refused() {
        let key = Revision { main: 6, sub: 1 }.to_tombstone_key();
        for len in 0..17 {
            assert_eq!(Revision::from_key(&key[..len]), None);
        }
        for (at, byte) in [(0, 0x80), (8, b'-'), (9, 0x80), (13, 0x80), (17, b'x')] {
            let mut key = key;
            key[at] = byte;
            assert_eq!(Revision::from_key(&key), None, "byte {at}");
        }
        assert_eq!(Revision::from_key(&[&key[..], b"t"].concat()), None);
    }
}
