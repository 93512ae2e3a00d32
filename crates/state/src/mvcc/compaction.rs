//! Forgetting history.
//!
//! A compaction at revision C takes effect at once for readers: older revisions are refused. What
//! nobody can read any more is then removed in small steps between batches of writes: the rows up
//! to C are scanned in order, each is asked in the index whether it is the newest at C of its key,
//! deleted if not, and the key's history is trimmed. Puts that are the newest at C stay, tombstones
//! only exactly at C.
//!
//! `meta` remembers the revision when the compaction is applied (`scheduledCompactRev`) and again
//! with the last step (`finishedCompactRev`); after a restart an unfinished one starts over.
//!
//! A compaction that hashes what it scans is brought to its end even when a later one comes:
//! members compare these hashes. The later one follows it; any other is taken over by the next, as
//! its rows are among that one's.

use retcd_storage::backend::{Bucket, WriteBatch};

use super::hash::Hasher;
use super::record::Stored;
use super::{Keyspace, Revision, StorageError};
use crate::meta;

/// How far the removal of compacted revisions has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is nothing to remove.
    Idle,
    /// There is more to do: call again.
    Stepped {
        /// Rows removed by this step.
        deleted: usize,
    },
    /// A compaction is complete, which is durable after the backend's next commit. Another may
    /// follow.
    Finished {
        /// The compacted revision.
        revision: i64,
        /// Rows removed by this step.
        deleted: usize,
    },
}

/// Why a compaction was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompactError {
    /// The revision has been compacted already.
    Compacted,
    /// The revision has not been written yet.
    FutureRevision,
}

/// A compaction whose rows are being removed.
pub(super) struct Compaction {
    revision: i64,
    /// The first row not scanned yet.
    next: Box<[u8]>,
    hasher: Hasher,
    /// Whether the hash covers everything since the compaction before, which had been complete.
    store_hash: bool,
}

impl Keyspace {
    /// Refuses revisions before `revision` from now on and leaves the rest to
    /// [`Keyspace::compaction_step`].
    pub(crate) fn compact(
        &mut self,
        revision: i64,
        batch: &mut WriteBatch,
    ) -> Result<(), CompactError> {
        if revision <= self.compacted {
            return Err(CompactError::Compacted);
        }
        if revision > self.revision {
            return Err(CompactError::FutureRevision);
        }
        batch.put(
            Bucket::Meta,
            meta::SCHEDULED_COMPACTION,
            Revision::start_of(revision).to_key()[..].into(),
        );
        assert!(
            self.next_compaction.is_none() || self.compaction.is_some(),
            "a compaction follows none"
        );
        // As in etcd: the hash of one that begins before another is complete is not kept.
        let store_hash = self.compaction.is_none();
        let compaction = Some(Compaction::new(revision, self.compacted, store_hash));
        match &self.compaction {
            Some(running) if running.store_hash => self.next_compaction = compaction,
            _ => self.compaction = compaction,
        }
        self.compacted = revision;
        Ok(())
    }

    /// Removes the revisions among the next `limit` rows that the compaction under way made
    /// unreadable.
    ///
    /// Call it between batches: everything applied must be published.
    pub(crate) fn compaction_step(&mut self, limit: usize) -> Result<Progress, StorageError> {
        let Some(mut compaction) = self.compaction.take() else {
            return Ok(Progress::Idle);
        };
        assert!(
            compaction.revision <= self.compacted,
            "rows up to {} are removed, but readers are refused up to {}",
            compaction.revision,
            self.compacted
        );
        self.assert_published();
        let end = Revision::start_of(compaction.revision.saturating_add(1)).to_key();
        let reader = self.shared.backend.reader();
        let mut batch = WriteBatch::default();
        let mut last = None;
        let (mut scanned, mut deleted) = (0, 0);
        for row in reader
            .rows(Bucket::Key, &compaction.next, Some(&end))
            .take(limit.max(1))
        {
            let row = row?;
            let (key, value) = (row.key(), row.value());
            let (revision, tombstone) = Revision::of_row(key)?;
            let stored = Stored::of(value).map_err(|damaged| damaged.at(revision))?;
            let kept = self.trim(stored.fields().key, compaction.revision) == Some(revision);
            if !kept {
                batch.delete(Bucket::Key, key);
                deleted += 1;
            }
            compaction.hasher.add(key, value, revision, tombstone, kept);
            last = Some(row);
            scanned += 1;
        }
        let finished = scanned < limit.max(1);
        let revision = compaction.revision;
        if finished {
            batch.put(
                Bucket::Meta,
                meta::FINISHED_COMPACTION,
                Revision::start_of(revision).to_key()[..].into(),
            );
        }
        self.shared.backend.write(batch);
        if finished {
            if compaction.store_hash {
                self.shared.hashes.lock().store(compaction.hasher.finish());
            }
            self.compaction = self.next_compaction.take();
            return Ok(Progress::Finished { revision, deleted });
        }
        if let Some(last) = last {
            // The smallest key behind `last`.
            compaction.next = [last.key(), b"\0"].concat().into();
        }
        self.compaction = Some(compaction);
        Ok(Progress::Stepped { deleted })
    }

    /// Between two batches readers see all of the index.
    fn assert_published(&self) {
        let state = self.shared.state.read();
        let (applied, published) = (state.applied, state.revision);
        assert_eq!(applied, published, "revision {applied} is not published");
        let compacted = (state.compacted, self.compacted);
        assert_eq!(compacted.0, compacted.1, "a compaction is not published");
    }

    /// Forgets what is unreadable of `key`; the change at or before `compacted` that stays.
    fn trim(&self, key: &[u8], compacted: i64) -> Option<Revision> {
        let mut state = self.shared.state.write();
        let kept = state
            .index
            .get(key)
            .and_then(|entry| entry.kept_at(compacted));
        state.index.trim(key, compacted);
        kept
    }
}

impl Compaction {
    /// A compaction at `revision` after one at `previous` (-1 for none).
    pub(super) fn new(revision: i64, previous: i64, store_hash: bool) -> Compaction {
        Compaction {
            revision,
            next: Box::default(),
            hasher: Hasher::new(revision, previous),
            store_hash,
        }
    }
}
