//! A revision of a key, encoded once.
//!
//! A [`Record`] is the protobuf encoding of `mvccpb.KeyValue`, fields in ascending order and zeros
//! left out. These bytes are at the same time the value in the backend's `key` bucket, the body of
//! `kvs` in a range response and of `kv` in a watch event: they are made once, when the write is
//! applied, and shared from then on.

use std::fmt;
use std::sync::Arc;

/// A point in the history of the keyspace: `main` counts write transactions, `sub` the changes in one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The transaction's number; the first write of a store makes revision 2.
    pub main: i64,
    /// The change's number within its transaction, from 0.
    pub sub: i64,
}

/// An encoded `mvccpb.KeyValue`.
#[derive(Clone, PartialEq, Eq)]
pub struct Record(Arc<[u8]>);

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} bytes)", self.0.len())
    }
}
