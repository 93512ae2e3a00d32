//! HashKV: a checksum of the readable history that equals on all members, however far the physical
//! part of their compactions has come.
//!
//! CRC32C over the name of bucket `key` and then key and value of every row up to the revision,
//! except rows that a compaction has made unreadable. Which these are is told by the keep-set: for
//! each key the change that is the newest at the revision. etcd's rule has a quirk: while nothing at
//! all is kept, nothing counts as unreadable (etcd v3.7: `server/storage/mvcc/hash.go`). Since only
//! the end of the walk tells whether anything was kept, both sums are made along the way.

use crc32c::crc32c_append;
use retcd_storage::backend::Bucket;

use super::reader::{Reader, View};
use super::{RangeError, Record, Revision, StorageError, StoreRevision};

/// A checksum of the keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyspaceHash {
    /// CRC32C of the rows.
    pub hash: u32,
    /// The last compaction before the hash was made, -1 for none.
    pub compact_revision: i64,
    /// Rows up to this revision are in the hash.
    pub revision: i64,
}

/// A hash in the making.
#[derive(Clone)]
pub(super) struct Hasher {
    revision: i64,
    compacted: i64,
    /// Over all rows.
    all: u32,
    /// Over the rows that are readable if the keep-set is not empty.
    readable: u32,
    any_kept: bool,
}

impl Hasher {
    /// A hash of the rows up to `revision`, after a compaction at `compacted` (-1 for none).
    pub(super) fn new(revision: i64, compacted: i64) -> Hasher {
        let start = crc32c_append(0, Bucket::Key.name());
        Hasher {
            revision,
            compacted,
            all: start,
            readable: start,
            any_kept: false,
        }
    }

    /// Whether [`Hasher::add`] has to be told if the row at `revision` is in the keep-set.
    fn needs_kept(&self, revision: Revision) -> bool {
        revision.main <= self.compacted || !self.any_kept
    }

    /// Adds a row; rows come in the order of their keys.
    pub(super) fn add(
        &mut self,
        key: &[u8],
        value: &[u8],
        revision: Revision,
        tombstone: bool,
        kept: bool,
    ) {
        if revision.main > self.revision {
            return;
        }
        self.any_kept |= kept;
        // Versions of etcd differ in whether they keep a tombstone exactly at the compaction.
        if tombstone && revision.main == self.compacted {
            return;
        }
        let append = |hash| crc32c_append(crc32c_append(hash, key), value);
        let same_so_far = self.all == self.readable;
        self.all = append(self.all);
        if kept || revision.main > self.compacted {
            self.readable = if same_so_far {
                self.all
            } else {
                append(self.readable)
            };
        }
    }

    pub(super) fn finish(self) -> KeyspaceHash {
        let hash = if self.any_kept {
            self.readable
        } else {
            self.all
        };
        KeyspaceHash {
            hash,
            compact_revision: self.compacted,
            revision: self.revision,
        }
    }
}

/// Hashes kept of compactions.
const HASHES: usize = 10;

/// The hashes that the last compactions made while they scanned, ascending by revision.
#[derive(Default)]
pub(super) struct CompactionHashes(Vec<KeyspaceHash>);

impl CompactionHashes {
    pub(super) fn store(&mut self, hash: KeyspaceHash) {
        let at = self
            .0
            .partition_point(|stored| stored.revision <= hash.revision);
        self.0.insert(at, hash);
        if self.0.len() > HASHES {
            self.0.remove(0);
        }
    }

    fn at(&self, revision: i64) -> Option<KeyspaceHash> {
        self.0
            .iter()
            .find(|hash| hash.revision == revision)
            .copied()
    }
}

impl View {
    /// The sum of the whole database, members' own numbers excepted, and the revision that its rows go up to: more
    /// than the view's if a batch was about to be published when the view was taken.
    pub fn hash(&self) -> Result<(u32, StoreRevision), StorageError> {
        let mut revision = self.revision;
        let next = Revision::start_of(revision + 1).to_key();
        for row in self.backend.range(Bucket::Key, &next, None) {
            let (key, _) = row?;
            let (at, _) =
                Revision::from_key(&key).ok_or(StorageError::NoRevision(key[..].into()))?;
            revision = at.main;
        }
        Ok((self.backend.hash(true)?, StoreRevision::new(revision)))
    }
}

impl Reader {
    /// The hashes of the last compactions, newest first, at most ten: what members compare with each
    /// other. Each is what [`Reader::hash_kv`] answers at its revision.
    ///
    /// A compaction has one if it began when the one before was complete, since this member was started,
    /// and has been completed itself (etcd v3.7: `server/storage/mvcc/kvstore.go`, `compact`).
    pub fn compaction_hashes(&self) -> Vec<KeyspaceHash> {
        let hashes = self.shared().hashes.lock();
        hashes.0.iter().rev().copied().collect()
    }

    /// The hash at `revision`, 0 for the current one, and the revision of the store that it was asked of. At the
    /// revision of a compaction whose hash is kept it is that one, with the compaction before.
    pub fn hash_kv(&self, revision: i64) -> Result<(KeyspaceHash, StoreRevision), RangeError> {
        let view = self.view();
        if let Some(hash) = self.shared().hashes.lock().at(revision) {
            return Ok((hash, view.revision()));
        }
        if revision > view.revision {
            return Err(RangeError::FutureRevision);
        }
        if revision > 0 && revision < view.compacted {
            return Err(RangeError::Compacted);
        }
        let at = if revision == 0 {
            view.revision
        } else {
            revision
        };
        let mut hasher = Hasher::new(at, view.compacted);
        let end = Revision::start_of(at.saturating_add(1).max(0)).to_key();
        for row in view.backend.range(Bucket::Key, &[], Some(&end)) {
            let (key, value) = row.map_err(StorageError::from)?;
            let (row, tombstone) =
                Revision::from_key(&key).ok_or_else(|| StorageError::NoRevision(key[..].into()))?;
            let kept = !tombstone && hasher.needs_kept(row) && {
                let record = Record::from_value(value.clone()).map_err(StorageError::from)?;
                view.index
                    .get(record.key())
                    .and_then(|entry| entry.put_at(at))
                    == Some(row)
            };
            hasher.add(&key, &value, row, tombstone, kept);
        }
        Ok((hasher.finish(), view.revision()))
    }
}
