//! HashKV: a checksum of the readable history that equals on all members, however far the physical
//! part of their compactions has come.
//!
//! CRC32C over the name of bucket `key` and then key and value of every row up to the revision,
//! except rows that a compaction has made unreadable. Which these are is told by the keep-set: for
//! each key the change that is the newest at the revision. etcd's rule has a quirk: while nothing
//! at all is kept, nothing counts as unreadable (etcd v3.7: `server/storage/mvcc/hash.go`). Since
//! only the end of the walk tells whether anything was kept, both sums are made along the way.

use crc32c::crc32c_append;
use retcd_storage::backend::{self, Bucket};

use super::reader::{Reader, View};
use super::record::Stored;
use super::{RangeError, Revision, StorageError, StoreRevision};

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
        let last = at.checked_sub(1).map_or(-1, |last| self.0[last].revision);
        assert!(
            last < hash.revision && hash.compact_revision < hash.revision,
            "the hash of a compaction at {} after {}, and {last} is kept",
            hash.revision,
            hash.compact_revision
        );
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
    /// The sum of the whole database, members' own numbers excepted, to be made in pieces, and the
    /// revision that its rows go up to: more than the view's if a batch was about to be published
    /// when the view was taken.
    ///
    /// # Errors
    /// The database cannot be read or is damaged.
    pub fn begin_hash(&self) -> Result<(backend::HashInPieces, StoreRevision), StorageError> {
        let mut revision = self.revision;
        let next = Revision::start_of(revision + 1).to_key();
        for row in self.pinned.reader.rows(Bucket::Key, &next, None) {
            let row = row?;
            let (at, _) = Revision::of_row(row.key())?;
            revision = at.main;
        }
        let hash = backend::HashInPieces::new(self.pinned.reader.clone(), true);
        Ok((hash, StoreRevision::new(revision)))
    }
}

impl Reader {
    /// The hashes of the last compactions, newest first, at most ten: what members compare with
    /// each other. Each is what [`Reader::hash_kv`] answers at its revision.
    ///
    /// A compaction has one if it began when the one before was complete, since this member was
    /// started, and has been completed itself (etcd v3.7: `server/storage/mvcc/kvstore.go`,
    /// `compact`).
    pub fn compaction_hashes(&self) -> Vec<KeyspaceHash> {
        let hashes = self.shared().hashes.lock();
        hashes.0.iter().rev().copied().collect()
    }

    /// The hash at `revision`, 0 for the current one, and the revision of the store that it was
    /// asked of. At the revision of a compaction whose hash is kept it is that one, with the
    /// compaction before.
    ///
    /// # Errors
    /// As [`Reader::begin_hash_kv`] and [`HashInPieces::step`].
    pub fn hash_kv(&self, revision: i64) -> Result<(KeyspaceHash, StoreRevision), RangeError> {
        let mut hash = self.begin_hash_kv(revision)?;
        loop {
            if let Some(result) = hash.step() {
                return result;
            }
        }
    }

    /// [`Reader::hash_kv`] for whoever must not be busy for as long as the whole keyspace takes.
    ///
    /// # Errors
    /// The revision is compacted or in the future.
    pub fn begin_hash_kv(&self, revision: i64) -> Result<HashInPieces, RangeError> {
        let view = self.view();
        if let Some(hash) = self.shared().hashes.lock().at(revision) {
            return Ok(HashInPieces(Stage::Known(hash, view.revision())));
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
        let walk = Walk {
            hasher: Hasher::new(at, view.compacted),
            next: Vec::new(),
            end: Revision::start_of(at.saturating_add(1).max(0))
                .to_key()
                .to_vec(),
            at,
            view,
        };
        Ok(HashInPieces(Stage::Walking(Box::new(walk))))
    }
}

/// Bytes of rows that are hashed in one piece: some milliseconds of work.
const PIECE_BYTES: usize = 1 << 20;

/// A hash that is being made of the keyspace as it was when it was begun.
pub struct HashInPieces(Stage);

enum Stage {
    Known(KeyspaceHash, StoreRevision),
    Walking(Box<Walk>),
}

impl HashInPieces {
    /// Does a piece; the hash and the revision at which it was begun when that was the last one.
    ///
    /// # Errors
    /// The database cannot be read or is damaged.
    pub fn step(&mut self) -> Option<Result<(KeyspaceHash, StoreRevision), RangeError>> {
        match &mut self.0 {
            Stage::Known(hash, revision) => Some(Ok((*hash, *revision))),
            Stage::Walking(walk) => match walk.step() {
                Ok(false) => None,
                Ok(true) => Some(Ok((walk.hasher.clone().finish(), walk.view.revision()))),
                Err(error) => Some(Err(error.into())),
            },
        }
    }
}

/// A walk over all rows.
struct Walk {
    view: View,
    at: i64,
    hasher: Hasher,
    /// The key from which it goes on.
    next: Vec<u8>,
    end: Vec<u8>,
}

impl Walk {
    /// Whether it has come to the end.
    fn step(&mut self) -> Result<bool, StorageError> {
        let mut bytes = 0;
        let (view, hasher) = (&self.view, &mut self.hasher);
        for row in view
            .pinned
            .reader
            .rows(Bucket::Key, &self.next, Some(&self.end))
        {
            let row = row?;
            let (key, value) = (row.key(), row.value());
            let (at, tombstone) = Revision::of_row(key)?;
            let kept = !tombstone && hasher.needs_kept(at) && {
                let stored = Stored::of(value).map_err(|damaged| damaged.at(at))?;
                view.index
                    .get(stored.fields().key)
                    .and_then(|entry| entry.put_at(self.at))
                    == Some(at)
            };
            hasher.add(key, value, at, tombstone, kept);
            bytes += key.len() + value.len();
            if bytes >= PIECE_BYTES {
                // The smallest key behind this one.
                self.next = [key, &[0]].concat();
                return Ok(false);
            }
        }
        Ok(true)
    }
}
