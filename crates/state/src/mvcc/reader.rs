//! Reading the keyspace from any thread, without entering the writer's loop.
//!
//! Short answers are read under a short lock; for long ones a [`View`] is taken, a consistent copy
//! that costs a few pointers, and walked outside.

use std::sync::Arc;

use retcd_proto::etcdserverpb::{RangeRequest, TxnRequest};
use retcd_storage::backend::Bucket;

use super::index::KeyIndex;
use super::keyspace::Shared;
use super::pieces::{Begun, RangeInPieces, ReadOnly, TxnInPieces};
use super::range::Ranging;
use super::snapshot::{Effort, Snapshot};
use super::txn::TxnReply;
use super::values::{Asked, Pinned, Values};
use super::{
    Event, EventKind, Interval, RangeError, RangeReply, Record, Revision, StorageError,
    StoreRevision,
};
use crate::lease::Lessor;

/// Answers of up to this many keys are read under the lock.
const SHORT: usize = 64;

/// A handle for reading; clones share the keyspace.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Reader {
        Reader { shared }
    }

    /// The current revision: for waiting and for metrics. What it is compared with may be older or
    /// newer; answers have the revision of the state that they come from.
    pub fn revision(&self) -> i64 {
        self.shared.state.read().revision
    }

    /// The revision of what `lessor` shows, for the answer to whoever looks at it. It may be about
    /// to be published: an answer waits until it is.
    pub fn revision_of_leases(&self, lessor: &Lessor) -> StoreRevision {
        // What was published since its last change has not concerned it: it would have heard of it
        // first.
        StoreRevision::new(self.revision().max(lessor.revision()))
    }

    /// The revision of the last compaction, -1 before the first; smaller ones are not readable.
    pub fn compacted_revision(&self) -> i64 {
        self.shared.state.read().compacted
    }

    /// Number of keys.
    pub fn keys_total(&self) -> usize {
        self.shared.state.read().index.live()
    }

    /// Answers `request` as of now.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeReply, RangeError> {
        if let Some(reply) = self.range_short(request) {
            return reply;
        }
        self.view().range(request)
    }

    /// Answers `request` as of now, or begins to. Any keys that are looked at are few, or the last
    /// of many.
    pub fn begin_range(
        &self,
        request: &RangeRequest,
    ) -> Result<Begun<RangeReply, RangeInPieces>, RangeError> {
        if let Some(reply) = self.range_short(request) {
            return reply.map(Begun::Done);
        }
        RangeInPieces::begin(self, request)
    }

    /// The answer, if it is a short one: a single key, a count, or a few keys of the present, whose
    /// values are in memory.
    fn range_short(&self, request: &RangeRequest) -> Option<Result<RangeReply, RangeError>> {
        let state = self.shared.state.read();
        let snapshot = Snapshot::published(&state, &self.shared);
        let is_short = match Interval::new(&request.key, &request.range_end) {
            // A read of the backend, or a walk over histories, and maybe a read for each key.
            _ if request.revision > 0 => false,
            Interval::Key(_) => true,
            _ if state.applied > state.revision => false,
            Interval::Range { start, end } => {
                let limited =
                    (1..=SHORT as i64).contains(&request.limit) && !super::range::is_whole(request);
                limited || request.count_only || state.index.count_live(start, end) <= SHORT
            }
        };
        if !is_short {
            return None;
        }
        let mut ranging = match Ranging::begin(request, &snapshot, 0) {
            Ok(ranging) => ranging,
            Err(error) => return Some(Err(error)),
        };
        // Nobody waits for the disk while the index is locked.
        let step = ranging.step(request, &snapshot, &mut { Effort::IN_MEMORY });
        drop(state);
        self.shared.show(&ranging.into_shown(), Asked::by(request));
        step.transpose()
    }

    /// Answers a transaction that has only ranges (see [`is_read_only`](super::is_read_only)), all
    /// of one state.
    pub fn txn(&self, request: &TxnRequest) -> Result<TxnReply, RangeError> {
        self.view().txn(request)
    }

    /// The same, or begins to.
    pub fn begin_txn(
        &self,
        request: Arc<TxnRequest>,
    ) -> Result<Begun<TxnReply, TxnInPieces>, RangeError> {
        TxnInPieces::begin(self.view(), request)
    }

    /// Starts to answer `request` in chunks, as of now; they are read when they are asked for. Its
    /// filters are ignored, unless it is sorted by something else than the key.
    pub fn range_stream(
        &self,
        request: RangeRequest,
        chunk_bytes: usize,
    ) -> Result<super::RangeStream, RangeError> {
        super::RangeStream::new(self.view(), request, chunk_bytes)
    }

    /// Bytes of the values in memory, and how many keys' values are not.
    pub fn values_in_memory(&self) -> (usize, usize) {
        let state = self.shared.state.read();
        (state.index.value_bytes(), state.index.values_let_go())
    }

    /// A consistent view of the present; it stays as it is while writes go on.
    pub fn view(&self) -> View {
        let state = self.shared.state.read();
        assert!(
            state.revision <= state.applied && state.compacted <= state.revision,
            "revision {} of {}, compacted up to {}",
            state.revision,
            state.applied,
            state.compacted
        );
        View {
            index: state.index.clone(),
            applied: state.applied,
            revision: state.revision,
            compacted: state.compacted,
            log_index: state.log_index,
            pinned: Pinned::now(&self.shared),
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// A consistent state of the keyspace. Holding one keeps memory and disk pages from being reused:
/// do not hold it for a slow client.
pub struct View {
    pub(super) index: KeyIndex,
    pub(super) applied: i64,
    pub(super) revision: i64,
    pub(super) compacted: i64,
    log_index: u64,
    pub(super) pinned: Pinned,
}

impl View {
    /// The newest revision in this view.
    pub fn revision(&self) -> StoreRevision {
        StoreRevision::new(self.revision)
    }

    /// The last entry of the log whose effects are in this view.
    pub fn log_index(&self) -> u64 {
        self.log_index
    }

    /// Bytes of the database's file as of this view: of its used part, and of the pages that hold
    /// something. What is not committed yet is in neither.
    pub fn file_bytes(&self) -> (u64, u64) {
        let file = self.pinned.reader.committed();
        (file.size_bytes(), file.size_in_use_bytes())
    }

    /// The last compaction that this view knows of, -1 before the first.
    pub fn compacted_revision(&self) -> i64 {
        self.compacted
    }

    /// Answers `request` from this view.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeReply, RangeError> {
        self.snapshot().range(request)
    }

    /// Answers a transaction that has only ranges from this view.
    pub fn txn(&self, request: &TxnRequest) -> Result<TxnReply, RangeError> {
        let mut reading = ReadOnly::default();
        let reply = reading.step(request, &self.snapshot(), &mut { Effort::UNBOUNDED })?;
        Ok(reply.expect("unbounded effort comes to the end"))
    }

    /// The record that `key` had at `revision`, if it existed then. The revision must be readable
    /// in this view; below the last compaction the answer may be missing.
    pub fn record_at(&self, key: &[u8], revision: i64) -> Result<Option<Record>, StorageError> {
        if revision < self.compacted {
            // It may still be there, but nobody is to see that.
            return Ok(None);
        }
        self.snapshot().get(key, revision.min(self.revision))
    }

    /// The changes of revisions `from..=to` in order, each with its revision. What a compaction has
    /// removed is missing, also as `prev` of a later change.
    pub fn changes(
        &self,
        from: i64,
        to: i64,
    ) -> impl Iterator<Item = Result<(i64, Event), StorageError>> + use<'_> {
        self.rows(from, to).map(|row| {
            let (revision, kind, record) = row?;
            let prev = match self.record_at(record.key(), revision - 1) {
                Err(StorageError::Missing(_)) => None,
                prev => prev?,
            };
            let prev = prev.into();
            Ok((revision, Event { kind, record, prev }))
        })
    }

    /// The changes of revisions `from..=to` in order: revision, kind and record as in an [`Event`].
    pub(crate) fn rows(
        &self,
        from: i64,
        to: i64,
    ) -> impl Iterator<Item = Result<(i64, EventKind, Record), StorageError>> + use<'_> {
        let start = Revision::start_of(from.max(0)).to_key();
        let end = Revision::start_of(to.min(self.revision).saturating_add(1).max(0)).to_key();
        let rows = self.pinned.reader.range(Bucket::Key, &start, Some(&end));
        rows.map(|row| {
            let (key, value) = row?;
            let (at, tombstone) = Revision::of_row(&key)?;
            let record = Record::from_value(value).map_err(|damaged| damaged.at(at))?;
            Ok(match tombstone {
                true => (
                    at.main,
                    EventKind::Delete,
                    Record::tombstone(record.key(), at.main),
                ),
                // A restore that bumps the revision leaves an empty record.
                false if record.mod_revision() != at.main && !record.as_bytes().is_empty() => {
                    return Err(StorageError::Misplaced(at));
                }
                false => (at.main, EventKind::Put, record),
            })
        })
    }

    /// Whether all that `request` asks for is in memory: the past is in the backend, and so are
    /// values that were let go.
    pub(super) fn holds_values_of(&self, request: &RangeRequest) -> bool {
        request.revision <= 0 && self.index.values_let_go() == 0
    }

    pub(super) fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            index: &self.index,
            applied: self.applied,
            revision: self.revision,
            compacted: self.compacted,
            values: Values::Pinned(&self.pinned),
        }
    }
}
