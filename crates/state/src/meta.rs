//! Bucket `meta`: how far the log was applied and how far history was compacted.
//!
//! ```text
//! consistent_index       8 bytes, big endian: index of the last applied entry
//! term                   8 bytes, big endian: its term (since 3.5)
//! confState              JSON of raftpb.ConfState (since 3.5), see `membership`
//! scheduledCompactRev    17 bytes, a revision: the last compaction applied
//! finishedCompactRev     17 bytes, a revision: the last compaction whose rows are gone
//! storageVersion         text like 3.6.0 (since 3.6)
//! v2Written              text true: users have written through API v2 (not in etcd)
//! ```

use retcd_storage::backend::{self, BackendError, Bucket, WriteBatch};

use crate::mvcc::{Revision, StorageError};

pub(crate) const CONSISTENT_INDEX: &[u8] = b"consistent_index";
pub(crate) const TERM: &[u8] = b"term";
pub(crate) const CONF_STATE: &[u8] = b"confState";
pub(crate) const SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";
pub(crate) const FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";
pub(crate) const STORAGE_VERSION: &[u8] = b"storageVersion";
/// Whether users have written through API v2 while a member of this program applied it.
pub const V2_WRITTEN: &[u8] = b"v2Written";

/// How far the log was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppliedIndex {
    /// Index of the last applied entry, 0 for none.
    pub index: u64,
    /// Its term; 0 if unknown, in files of etcd before 3.5.
    pub term: u64,
}

/// A value of bucket `meta` that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The value is not what belongs under this name.
    #[error("damaged value of {name} in bucket meta: {value:02x?}")]
    Damaged {
        /// The name of the value.
        name: &'static str,
        /// What is there.
        value: Box<[u8]>,
    },
}

/// Whether users have written through API v2 while a member of this program applied it: there is a
/// store that must not be lost.
pub(crate) fn is_v2_written(reader: &backend::Reader) -> Result<bool, BackendError> {
    Ok(reader.get(Bucket::Meta, V2_WRITTEN)?.is_some())
}

/// Users have written through API v2.
pub(crate) fn put_v2_written(batch: &mut WriteBatch) {
    batch.put(Bucket::Meta, V2_WRITTEN, b"true"[..].into());
}

/// Reads how far the log was applied.
pub fn applied(reader: &backend::Reader) -> Result<AppliedIndex, MetaError> {
    Ok(AppliedIndex {
        index: number(reader, CONSISTENT_INDEX, "consistent_index")?,
        term: number(reader, TERM, "term")?,
    })
}

/// Writes how far the log was applied. As in etcd zeros are never written.
pub(crate) fn put_applied(applied: AppliedIndex, batch: &mut WriteBatch) {
    for (name, number) in [(CONSISTENT_INDEX, applied.index), (TERM, applied.term)] {
        if number != 0 {
            batch.put(Bucket::Meta, name, number.to_be_bytes()[..].into());
        }
    }
}

fn number(reader: &backend::Reader, key: &[u8], name: &'static str) -> Result<u64, MetaError> {
    let Some(value) = reader.get(Bucket::Meta, key)? else {
        return Ok(0);
    };
    let bytes = value[..].try_into().map_err(|_| MetaError::Damaged {
        name,
        value: value[..].into(),
    })?;
    Ok(u64::from_be_bytes(bytes))
}

/// Reads a compaction mark.
pub(crate) fn compaction(
    reader: &backend::Reader,
    key: &[u8],
) -> Result<Option<i64>, StorageError> {
    let Some(value) = reader.get(Bucket::Meta, key)? else {
        return Ok(None);
    };
    match Revision::from_key(&value) {
        Some((revision, false)) => Ok(Some(revision.main)),
        _ => Err(StorageError::BadCompactionMark(value[..].into())),
    }
}
