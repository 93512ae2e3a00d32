//! The keyspace: one writer, any number of readers.
//!
//! The writer changes the index in place, one short lock per change, and publishes the new revision
//! when the changes of its batch are in the backend too. Readers see nothing newer than what is
//! published: a key that has moved on is answered from its history. So no reader ever sees half a
//! transaction, or an older revision whose record the backend does not have yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use retcd_proto::etcdserverpb::RangeRequest;
use retcd_storage::backend::{Backend, Bucket, WriteBatch};

use super::compaction::Compaction;
use super::hash::CompactionHashes;
use super::index::{Hand, KeyIndex, Replaced};
use super::probation::Probation;
use super::record::Attributes;
use super::snapshot::{Found, Snapshot};
use super::values::{Asked, Values};
use super::{
    Event, EventKind, Fields, Interval, Kvs, Prev, RangeError, RangeReply, Reader, Record,
    Revision, StorageError, StoreRevision,
};

/// What writer and readers share.
pub(super) struct Shared {
    pub(super) state: RwLock<State>,
    pub(super) backend: Backend,
    pub(super) hashes: Mutex<CompactionHashes>,
    /// Bytes of values that are to be in memory at most.
    pub(super) value_bytes_max: usize,
}

/// Keys that are looked at for a value to let go while others wait for the index: some tens of
/// microseconds.
const LOOKS: usize = 64;

impl Shared {
    /// Takes note of records that were read from the backend for an answer, as their values are not
    /// in memory, and takes them there: who gets a key will probably do so again, so that its value
    /// may push out others. One that is listed comes to memory the second time, and only where there
    /// is room: a list pushes out nothing. Of a long list these are the first records only.
    ///
    /// Nothing happens while somebody else has the index.
    pub(super) fn show(&self, records: &[Record], asked: Asked) {
        for records in records.chunks(LOOKS) {
            let Some(mut state) = self.state.try_write() else {
                return;
            };
            let State { index, hand, .. } = &mut *state;
            for record in records {
                let bytes = record.value().len();
                match asked {
                    // One value must not push out most others.
                    Asked::Get if bytes <= self.value_bytes_max / 8 => {
                        index.keep(record);
                        index.let_go(self.value_bytes_max, hand, LOOKS);
                    }
                    Asked::Get => {}
                    Asked::List if index.value_bytes() + bytes <= self.value_bytes_max => {
                        index.keep_if_used(record);
                    }
                    Asked::List => {}
                }
            }
        }
    }
}

/// The index and how much of it is published.
///
/// Invariant: `revision <= applied`, and the backend has every change up to `revision`.
pub(super) struct State {
    pub(super) index: KeyIndex,
    /// Where values are let go next.
    pub(super) hand: Hand,
    /// The newest revision in `index`.
    pub(super) applied: i64,
    /// The newest revision that readers see.
    pub(super) revision: i64,
    /// Revisions below are refused to readers; -1 if nothing was compacted yet.
    pub(super) compacted: i64,
    /// The last entry of the log that readers see the effects of.
    pub(super) log_index: u64,
}

/// The writer's side of the keyspace.
pub(crate) struct Keyspace {
    pub(super) shared: Arc<Shared>,
    /// The newest complete revision.
    pub(super) revision: i64,
    /// The revision of the last compaction, -1 before the first.
    pub(super) compacted: i64,
    /// The compaction under way.
    pub(super) compaction: Option<Compaction>,
    /// The one that follows it.
    pub(super) next_compaction: Option<Compaction>,
    /// Values that have to be asked for to stay in memory.
    pub(super) probation: Probation,
}

impl Keyspace {
    /// A reader; it and its clones live independently of the writer.
    pub(crate) fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// The newest revision, published or not.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// The same, for the answer to the entry that is being applied.
    pub(crate) fn store_revision(&self) -> StoreRevision {
        StoreRevision::new(self.revision)
    }

    /// Whether rows wait for [`Keyspace::compaction_step`].
    pub(crate) fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// Starts a transaction whose changes go to `batch`.
    pub(crate) fn begin<'a>(&'a mut self, batch: &'a mut WriteBatch) -> Changes<'a> {
        Changes {
            keyspace: self,
            batch,
            events: Vec::new(),
            origins: None,
        }
    }

    /// Makes everything applied so far, up to the entry at `log_index`, visible to readers. The
    /// batch that holds it must have been written to the backend.
    pub(crate) fn publish(&mut self, log_index: u64) {
        let mut state = self.shared.state.write();
        assert!(
            state.applied <= self.revision,
            "revision {} is incomplete at {}",
            state.applied,
            self.revision
        );
        assert!(
            state.revision <= self.revision && state.log_index <= log_index,
            "revision {} at entry {} is published over {} at {}",
            self.revision,
            log_index,
            state.revision,
            state.log_index
        );
        assert!(
            state.compacted <= self.compacted && self.compacted <= self.revision,
            "compacted up to {} after {}, at revision {}",
            self.compacted,
            state.compacted,
            self.revision
        );
        state.applied = self.revision;
        state.revision = self.revision;
        state.compacted = self.compacted;
        state.log_index = log_index;
        let is_over = state.index.value_bytes() > self.shared.value_bytes_max;
        drop(state);
        if is_over || self.probation.is_over() {
            self.let_values_go();
        }
    }

    /// Lets values go until those in memory are within their budget. Readers have turns in between.
    ///
    /// Everything applied must be published: what is let go has to be in the backend.
    fn let_values_go(&mut self) {
        let mut more = true;
        while more {
            let mut state = self.shared.state.write();
            let State { index, hand, .. } = &mut *state;
            more = self.probation.end(index, LOOKS)
                || index.let_go(self.shared.value_bytes_max, hand, LOOKS);
        }
    }
}

/// A transaction in the making: the changes of one revision.
pub(crate) struct Changes<'a> {
    keyspace: &'a mut Keyspace,
    batch: &'a mut WriteBatch,
    events: Vec<Event>,
    /// By key, what it held before the transaction: of all keys that `events` name, once one of
    /// them is changed a second time.
    origins: Option<BTreeMap<Box<[u8]>, Prev>>,
}

impl Changes<'_> {
    /// The revision as seen inside the transaction: the new one as soon as something changed.
    pub(crate) fn revision(&self) -> i64 {
        self.keyspace.revision + i64::from(!self.events.is_empty())
    }

    /// The same, for the answer to an operation.
    pub(crate) fn store_revision(&self) -> StoreRevision {
        StoreRevision::new(self.revision())
    }

    /// The current record of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Record>, StorageError> {
        self.read(|snapshot| snapshot.get(key, snapshot.revision))
    }

    /// Answers a range request; at revision 0 it sees the changes made so far.
    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeReply, RangeError> {
        self.read(|snapshot| snapshot.range(request))
    }

    /// Calls `read` with the keyspace as the transaction has left it so far.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Snapshot<'_>) -> T) -> T {
        let shared = &self.keyspace.shared;
        let state = shared.state.read();
        read(&Snapshot {
            index: &state.index,
            applied: self.revision(),
            revision: self.revision(),
            compacted: self.keyspace.compacted,
            values: Values::Newest(shared),
        })
    }

    /// What was found, with the values that the backend has now.
    pub(super) fn kvs(&self, found: Found) -> Kvs {
        found.into_kvs(&Values::Newest(&self.keyspace.shared))
    }

    /// Writes `key`; returns what it replaces.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8], lease: i64) -> Prev {
        let revision = self.next_revision();
        let mut record = None;
        let replaced = self.change(key, revision, |prev| {
            let new = Record::encode(Fields {
                key,
                create_revision: prev.map_or(revision.main, Attributes::create_revision),
                mod_revision: revision.main,
                version: prev.map_or(0, Attributes::version) + 1,
                value,
                lease,
            });
            record.insert(new).clone()
        });
        let record = record.expect("every change makes a record");
        if replaced.prev == Prev::Absent {
            let probation = &mut self.keyspace.probation;
            probation.push(key, revision.main, value.len());
        }
        self.batch
            .put(Bucket::Key, &revision.to_key(), record.to_value());
        let Replaced { prev, mod_revision } = replaced;
        self.tell(EventKind::Put, record, prev.clone(), mod_revision);
        prev
    }

    /// Deletes the keys in `interval`; returns what they held.
    pub(crate) fn delete_range(&mut self, interval: Interval<'_>) -> Vec<Prev> {
        let keys = self.read(|snapshot| snapshot.live_keys(interval));
        let deleted = keys.iter().map(|key| self.delete(key.key()));
        deleted.collect()
    }

    fn delete(&mut self, key: &[u8]) -> Prev {
        let revision = self.next_revision();
        let tombstone = Record::tombstone(key, revision.main);
        let replaced = self.change(key, revision, |_| tombstone.clone());
        self.batch.put(
            Bucket::Key,
            &revision.to_tombstone_key(),
            Record::tombstone(key, 0).to_value(),
        );
        let Replaced { prev, mod_revision } = replaced;
        assert_ne!(prev, Prev::Absent, "only a key that exists is deleted");
        self.tell(EventKind::Delete, tombstone, prev.clone(), mod_revision);
        prev
    }

    /// Adds an event. Its `prev` is what the key held before the whole transaction, as etcd has it,
    /// even where the transaction has changed the key before: `replaced` is what this change of it
    /// has replaced, a record or, with the revision `replaced_at`, a deletion.
    fn tell(&mut self, kind: EventKind, record: Record, replaced: Prev, replaced_at: i64) {
        let is_changed_again = replaced_at == record.mod_revision();
        let prev = if is_changed_again {
            let events = &self.events;
            let origins = self.origins.get_or_insert_with(|| origins(events));
            let origin = origins.get(record.key()).cloned();
            origin.expect("a key that this revision has changed is among its events")
        } else {
            if let Some(origins) = &mut self.origins {
                origins.insert(record.key().into(), replaced.clone());
            }
            replaced
        };
        self.events.push(Event { kind, record, prev });
    }

    fn next_revision(&self) -> Revision {
        Revision {
            main: self.keyspace.revision + 1,
            sub: self.events.len() as i64,
        }
    }

    fn change(
        &self,
        key: &[u8],
        revision: Revision,
        change: impl FnOnce(Option<&Attributes>) -> Record,
    ) -> Replaced {
        let mut state = self.keyspace.shared.state.write();
        assert!(
            state.applied <= revision.main,
            "a change at {} after one at {}",
            revision.main,
            state.applied
        );
        state.applied = revision.main;
        state.index.change(key, revision.sub, change)
    }

    /// Completes the revision, if anything changed: its events, in order.
    pub(crate) fn finish(self) -> Option<(i64, Arc<[Event]>)> {
        if self.events.is_empty() {
            return None;
        }
        self.keyspace.revision += 1;
        let revision = self.keyspace.revision;
        debug_assert!(
            self.events
                .iter()
                .all(|event| event.record.mod_revision() == revision),
            "events of revision {revision}: {:?}",
            self.events
        );
        Some((revision, self.events.into()))
    }
}

/// What each key held before the first of `events` that names it. No key is named twice.
fn origins(events: &[Event]) -> BTreeMap<Box<[u8]>, Prev> {
    let origins = events.iter().map(|event| {
        let key: Box<[u8]> = event.record.key().into();
        (key, event.prev.clone())
    });
    origins.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Jobs;
    use crate::mvcc::Loaded;

    /// Else an answer would have a revision in its header that does not hold what it shows.
    #[test]
    fn what_is_not_published_is_not_shown() {
        let backend = Backend::default();
        let loaded = Loaded::read(&backend.reader(), usize::MAX, Jobs::default()).unwrap();
        let mut keyspace = Keyspace::new(backend.clone(), loaded, 0);
        let reader = keyspace.reader();
        let put = |keyspace: &mut Keyspace, keys: &[&[u8]], value: &[u8]| {
            let mut batch = WriteBatch::default();
            let mut changes = keyspace.begin(&mut batch);
            keys.iter().for_each(|key| _ = changes.put(key, value, 0));
            changes.finish();
            batch
        };
        let shown = |request: &RangeRequest| {
            let short = reader.range(request).unwrap();
            assert_eq!(short, reader.view().range(request).unwrap());
            let kvs = short.kvs.iter().flatten();
            let values: Vec<String> = kvs
                .map(|kv| String::from_utf8_lossy(kv.value()).into_owned())
                .collect();
            (short.revision.get(), short.count, values.join(" "))
        };
        let key = RangeRequest {
            key: "a".into(),
            ..RangeRequest::default()
        };
        let all = RangeRequest {
            range_end: "z".into(),
            ..key.clone()
        };
        let number = RangeRequest {
            count_only: true,
            ..all.clone()
        };
        backend.write(put(&mut keyspace, &[b"a"], b"old"));
        keyspace.publish(1);
        let unpublished = put(&mut keyspace, &[b"a", b"b"], b"new");
        assert_eq!(shown(&key), (2, 1, "old".to_owned()));
        assert_eq!(shown(&all), (2, 1, "old".to_owned()));
        assert_eq!(shown(&number), (2, 1, String::new()));
        backend.write(unpublished);
        keyspace.publish(2);
        assert_eq!(shown(&key), (3, 1, "new".to_owned()));
        assert_eq!(shown(&all), (3, 2, "new new".to_owned()));
        assert_eq!(shown(&number), (3, 2, String::new()));
    }
}
