//! The multi-version keyspace.
//!
//! Every write makes a revision, and until a compaction every revision can be read. What keys hold
//! now is in memory, in a [`KeyIndex`](index): of some keys without the value. Those values, and
//! older records, are read from bucket `key`, where each revision has one row.
//!
//! - [`Keyspace`] is the one writer, [`Reader`] and [`View`] are for everybody else;
//! - [`txn`] executes puts, deletions and transactions;
//! - [`compaction`] forgets old revisions in small steps, [`hash`] sums up what there is;
//! - [`probation`] decides which new values have to be asked for to stay in memory, [`values`] reads
//!   those that did not.
//!
//! Invariant: what a reader sees is a complete revision whose rows are in the backend.

mod compaction;
mod event;
mod hash;
mod history;
mod index;
mod keyspace;
mod kvs;
mod open;
mod pieces;
mod probation;
mod range;
mod reader;
mod record;
mod revision;
mod snapshot;
mod stream;
pub(crate) mod txn;
mod values;

pub(crate) use compaction::CompactError;
pub use compaction::Progress;
pub use event::{Event, EventKind, Prev};
pub use hash::{HashInPieces, KeyspaceHash};
pub(crate) use keyspace::Keyspace;
pub use kvs::Kvs;
pub(crate) use open::Loaded;
pub use pieces::{Begun, RangeInPieces, TxnInPieces};
pub use range::{Interval, Projection, RangeError, RangeReply, StorageError};
pub use reader::{Reader, View};
pub use record::{Attributes, DamagedRecord, Fields, Record};
pub use revision::{Revision, RevisionKey, StoreRevision};
pub use stream::{RangeChunk, RangeStream};
pub use txn::{DeleteReply, OpReply, PutReply, TxnReply, is_read_only, is_serializable};
