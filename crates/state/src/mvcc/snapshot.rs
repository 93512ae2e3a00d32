//! A consistent state of the keyspace, and walks over it that can be interrupted: when they have
//! taken a while, and where they would have to read the file.

use std::cmp::Ordering;
use std::sync::Arc;

use parking_lot::RwLockReadGuard;
use retcd_proto::etcdserverpb::RangeRequest;

use super::index::{Entry, Held, KeyIndex, Only};
use super::keyspace::{Shared, State};
use super::range::{Filter, Ranging, ReplySize};
use super::record::Attributes;
use super::values::{Asked, Values};
use super::{Interval, Kvs, Prev, RangeError, RangeReply, Record, Revision, StorageError};

/// What may still be done before others have their turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Keys that are looked at in memory.
    keys: usize,
    /// Whether the file may be read.
    reads_file: bool,
}

impl Effort {
    /// For what has to be done at once.
    pub(super) const UNBOUNDED: Effort = Effort {
        keys: usize::MAX,
        reads_file: true,
    };
    /// Some tenths of a millisecond, a few milliseconds if nothing is in the processor's caches,
    /// and more if the disk has to be asked.
    pub(super) const PIECE: Effort = Effort {
        keys: 10_000,
        reads_file: true,
    };
    /// The same for whoever must not wait for a disk.
    pub(super) const IN_MEMORY: Effort = Effort {
        reads_file: false,
        ..Effort::PIECE
    };
    /// What a record from the database costs, in keys.
    const RECORD: usize = 16;
    /// Bytes of it that cost another key: a long one is copied more than once.
    const BYTES_AS_A_KEY: usize = 64;

    #[cfg(test)]
    pub(super) fn of(keys: usize) -> Effort {
        let reads_file = true;
        Effort { keys, reads_file }
    }

    /// No more of it than one piece takes.
    pub(super) fn piece(self) -> Effort {
        Effort {
            keys: self.keys.min(Effort::PIECE.keys),
            ..self
        }
    }

    /// Takes note of what a `piece` of it has spent, of which this is left.
    pub(super) fn spend_piece(&mut self, left: Effort) {
        self.spend(self.piece().keys - left.keys);
    }

    /// Takes note of work that was done.
    pub(super) fn spend(&mut self, keys: usize) {
        // Nobody comes to the end of what is unbounded.
        self.keys = self.keys.saturating_sub(keys);
    }

    /// Whether to go on another time.
    pub(super) fn is_spent(self) -> bool {
        self.keys == 0
    }
}

/// What of a record is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// All of it, now.
    Record,
    /// All of it, in the end: of many values that are not in memory only the first are read.
    Answer,
    /// All but the value, which may be missing.
    Attributes,
}

/// What a step of a walk comes to.
#[derive(PartialEq, Eq)]
enum Step {
    /// The next key.
    Next,
    /// The end of the walk.
    End,
    /// The same key, another time.
    Later,
}

/// How far a walk has come.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Position {
    /// It has not begun.
    #[default]
    Start,
    /// This key is next.
    At(Box<[u8]>),
    /// It is over.
    End,
}

/// Which records of an interval are wanted, and what of each.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// Keys that are looked at, the first ones; all of them are counted.
    pub(super) keys: usize,
    pub(super) need: Need,
    pub(super) filter: Filter,
    /// Whether most of them are left out again: no room is made for all, and no value is read before
    /// it is known to be in the answer.
    pub(super) is_search: bool,
}

/// The records of an interval, as far as they have been gathered.
#[derive(Default)]
pub(super) struct Gathered {
    position: Position,
    /// The records in the order of their keys.
    pub(super) found: Found,
    /// Keys that were looked at.
    pub(super) looked_at: usize,
    /// How many keys there are in all; right at the end of the walk.
    pub(super) count: i64,
}

impl Gathered {
    /// For a part of an answer whose other parts have so many bytes.
    pub(super) fn beside(bytes: usize) -> Gathered {
        let mut gathered = Gathered::default();
        gathered.found.beside_bytes = bytes;
        gathered
    }
}

/// Records on their way into an answer.
#[derive(Default)]
pub(super) struct Found {
    records: Vec<Record>,
    /// Bytes of those among them that are not shared with the index.
    read_bytes: usize,
    /// The same, when records were left out the last time.
    kept_bytes: usize,
    /// Bytes of what is answered beside them.
    beside_bytes: usize,
    /// Whether some are but attributes, their values to be read.
    lacks_values: bool,
    /// Those that were read because the index has not their values; of many the first.
    shown: Vec<Record>,
    shown_bytes: usize,
}

impl Found {
    /// Bytes that are read for one answer before it is encoded. What is longer is encoded piece by
    /// piece anyway.
    const READ_BYTES_MAX: usize = 1 << 20;
    /// Bytes of what one answer reads that may come back to memory. What reads more is a scan.
    const SHOWN_BYTES_MAX: usize = 1 << 20;
    /// What a record takes beside its bytes.
    const RECORD_BYTES: usize = 64;
    /// Bytes that may be read, beyond twice what was kept, before records are left out again.
    const UNSORTED_BYTES_MAX: usize = 4 << 20;

    /// Whether values that are not in memory are left where they are.
    fn is_full(&self) -> bool {
        self.beside_bytes + self.read_bytes >= Found::READ_BYTES_MAX
    }

    /// Whether so much was read that what follows does not come back to memory.
    fn is_scan(&self) -> bool {
        self.shown_bytes >= Found::SHOWN_BYTES_MAX
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Adds what a key held before it was changed.
    pub(super) fn push(&mut self, prev: Prev) {
        match prev {
            Prev::Absent => {}
            Prev::Record(record) => self.records.push(record),
            Prev::Stored(attributes) => self.push_without_value(attributes.as_record()),
        }
    }

    /// Adds a record whose value is read later.
    fn push_without_value(&mut self, attributes: Record) {
        self.records.push(attributes);
        self.lacks_values = true;
    }

    /// Takes note of a record that was read, whose place among the others it is to take.
    fn measure(&mut self, record: &Record) -> Result<(), RangeError> {
        self.read_bytes += record.as_bytes().len();
        let bytes = self.beside_bytes + self.read_bytes;
        match bytes <= ReplySize::MAX {
            true => Ok(()),
            false => Err(RangeError::ReplyTooLarge(bytes)),
        }
    }

    /// Whether it is time to leave some out, of which `len` are kept.
    pub(super) fn is_heavy_for(&self, len: usize) -> bool {
        let bytes_max = 2 * self.kept_bytes + Found::UNSORTED_BYTES_MAX;
        self.len() > len && (self.len() / 2 > len || self.read_bytes > bytes_max)
    }

    /// Leaves all out but the first `len` in the order of `compare`; there are more.
    pub(super) fn keep_first(
        &mut self,
        len: usize,
        compare: impl FnMut(&Record, &Record) -> Ordering,
    ) {
        self.records.select_nth_unstable_by(len, compare);
        self.truncate(len);
    }

    /// Puts the records in the order of `compare`.
    pub(super) fn sort(&mut self, compare: impl FnMut(&Record, &Record) -> Ordering) {
        self.records.sort_unstable_by(compare);
    }

    /// Leaves out what is behind the first `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        if len >= self.len() {
            return;
        }
        self.records.truncate(len);
        if self.read_bytes > 0 {
            // Nobody knows any more which are shared with the index: at most all were read.
            let kept = self.records.iter().map(|kv| kv.record_len()).sum();
            self.read_bytes = self.read_bytes.min(kept);
        }
        self.kept_bytes = self.read_bytes;
    }

    /// Takes note of a record that was read because the index has not its value.
    fn show(&mut self, record: &Record) {
        if !self.is_scan() {
            self.shown_bytes += record.as_bytes().len() + Found::RECORD_BYTES;
            self.shown.push(record.clone());
        }
    }

    /// Those that the index has without their values, and that were read.
    pub(super) fn take_shown(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.shown)
    }

    /// The answer, with those of the values.
    pub(super) fn into_kvs(self, values: &Values<'_>) -> Kvs {
        let values = self.lacks_values.then(|| Arc::new(values.pin()));
        Kvs::new(self.records, values)
    }
}

/// A consistent state of the keyspace.
pub(super) struct Snapshot<'a> {
    pub(super) index: &'a KeyIndex,
    /// The newest revision in `index`, which may be ahead of `revision`.
    pub(super) applied: i64,
    /// The revision that counts as the current one.
    pub(super) revision: i64,
    /// Revisions below are not readable; -1 if nothing was compacted yet.
    pub(super) compacted: i64,
    pub(super) values: Values<'a>,
}

impl<'a> Snapshot<'a> {
    /// What readers may see of the locked state of `shared`.
    pub(super) fn published(
        state: &'a RwLockReadGuard<'_, State>,
        shared: &'a Arc<Shared>,
    ) -> Snapshot<'a> {
        Snapshot {
            index: &state.index,
            applied: state.applied,
            revision: state.revision,
            compacted: state.compacted,
            values: Values::Newest(shared),
        }
    }

    /// The revision to read at for a request that names `revision`.
    pub(super) fn read_revision(&self, revision: i64) -> Result<i64, RangeError> {
        if revision > self.revision {
            return Err(RangeError::FutureRevision);
        }
        let revision = if revision <= 0 {
            self.revision
        } else {
            revision
        };
        if revision < self.compacted {
            Err(RangeError::Compacted)
        } else {
            Ok(revision)
        }
    }

    /// Answers `request`, however long it takes.
    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeReply, RangeError> {
        self.range_beside(request, 0)
    }

    /// The same for a part of an answer whose other parts have so many bytes.
    pub(super) fn range_beside(
        &self,
        request: &RangeRequest,
        bytes: usize,
    ) -> Result<RangeReply, RangeError> {
        let mut ranging = Ranging::begin(request, self, bytes)?;
        let reply = ranging.step(request, self, &mut { Effort::UNBOUNDED })?;
        Ok(reply.expect("unbounded effort comes to the end"))
    }

    /// The record of `key` at revision `at`.
    pub(super) fn get(&self, key: &[u8], at: i64) -> Result<Option<Record>, StorageError> {
        match self.index.get(key).map(|entry| self.held(entry, at)) {
            None | Some(Held::Absent) => Ok(None),
            Some(held) => self.record(held, Need::Record, &mut { Effort::UNBOUNDED }),
        }
    }

    /// The same without its value, at the current revision.
    pub(super) fn attributes(&self, key: &[u8]) -> Option<&'a Attributes> {
        let entry = self.index.get(key).filter(|entry| entry.is_live());
        entry.map(Entry::attributes)
    }

    /// What a key holds at revision `at`.
    fn held<'e>(&self, entry: &'e Entry, at: i64) -> Held<'e> {
        match at >= self.applied {
            true => entry.live(),
            false => entry.at(at),
        }
    }

    /// Calls `visit` for the keys of `interval` that exist at revision `at`, from `position` on,
    /// until it ends the walk, wants to go on later, or `effort` is spent.
    fn walk<E>(
        &self,
        interval: Interval<'_>,
        at: i64,
        position: &mut Position,
        effort: &mut Effort,
        mut visit: impl FnMut(Held<'_>, &mut Effort) -> Result<Step, E>,
    ) -> Result<(), E> {
        let (start, end) = match (&*position, interval) {
            (Position::End, _) => return Ok(()),
            (_, Interval::Key(key)) => {
                effort.spend(1);
                let entry = self.index.get(key).inspect(|entry| entry.mark_used());
                let held = entry.map_or(Held::Absent, |entry| self.held(entry, at));
                let is_absent = matches!(held, Held::Absent);
                if is_absent || visit(held, effort)? != Step::Later {
                    *position = Position::End;
                }
                return Ok(());
            }
            (Position::Start, Interval::Range { start, end }) => (start, end),
            (Position::At(next), Interval::Range { end, .. }) => (&**next, end),
        };
        let mut next = Position::End;
        let only = match at >= self.applied {
            true => Only::Live,
            false => Only::All,
        };
        for entry in self.index.walk(start, end, only) {
            let step = if effort.is_spent() {
                Step::Later
            } else {
                effort.spend(1);
                match self.held(entry, at) {
                    Held::Absent => Step::Next,
                    held => visit(held, effort)?,
                }
            };
            match step {
                Step::Next => {}
                Step::End => break,
                Step::Later => {
                    next = Position::At(entry.key().into());
                    break;
                }
            }
        }
        *position = next;
        Ok(())
    }

    /// Gathers the wanted records of `interval` at revision `at`, and counts how many there are in
    /// all. Whether it has come to the end.
    pub(super) fn gather(
        &self,
        interval: Interval<'_>,
        at: i64,
        wanted: &Wanted,
        gathered: &mut Gathered,
        effort: &mut Effort,
    ) -> Result<bool, RangeError> {
        let Gathered {
            position,
            found,
            looked_at,
            count,
        } = gathered;
        let mut is_counted = false;
        if let Interval::Range { start, end } = interval
            && at >= self.applied
        {
            is_counted = true;
            if *position == Position::Start {
                let live = self.index.count_live(start, end);
                *count = live as i64;
                if !wanted.is_search {
                    found.records.reserve_exact(live.min(wanted.keys));
                }
                if wanted.keys == 0 {
                    *position = Position::End;
                }
            }
        }
        self.walk::<RangeError>(interval, at, position, effort, |held, effort| {
            if *looked_at < wanted.keys {
                if !self.find(held, wanted, found, effort)? {
                    return Ok(Step::Later);
                }
                *looked_at += 1;
            }
            if !is_counted {
                *count += 1;
                return Ok(Step::Next);
            }
            Ok(match *looked_at < wanted.keys {
                true => Step::Next,
                false => Step::End,
            })
        })?;
        Ok(*position == Position::End)
    }

    /// The first `limit` records of `interval` at revision `at`, and whether there are more. Of the
    /// list that it is a page of, the keyspace has been shown `shown_bytes`, and now some more.
    pub(super) fn page(
        &self,
        interval: Interval<'_>,
        at: i64,
        (limit, need): (usize, Need),
        shown_bytes: &mut usize,
    ) -> Result<(Kvs, bool), RangeError> {
        let wanted = Wanted {
            keys: limit,
            need,
            filter: Filter::default(),
            is_search: false,
        };
        let (mut found, mut more) = (Found::default(), false);
        found.shown_bytes = *shown_bytes;
        let (mut position, mut effort) = (Position::Start, Effort::UNBOUNDED);
        self.walk::<RangeError>(interval, at, &mut position, &mut effort, |held, effort| {
            if found.len() == limit {
                more = true;
                return Ok(Step::End);
            }
            self.find(held, &wanted, &mut found, effort)?;
            Ok(Step::Next)
        })?;
        *shown_bytes = found.shown_bytes;
        self.values.show(found.take_shown(), Asked::List);
        Ok((found.into_kvs(&self.values), more))
    }

    /// Adds what a key holds to `found`, if it is wanted; `false` if it is in the file, where `effort`
    /// does not reach.
    fn find(
        &self,
        held: Held<'_>,
        wanted: &Wanted,
        found: &mut Found,
        effort: &mut Effort,
    ) -> Result<bool, RangeError> {
        let Wanted {
            need,
            filter,
            is_search,
            ..
        } = *wanted;
        match held {
            Held::Absent => unreachable!("a walk passes over keys that do not exist"),
            Held::Newest(record) if filter.passes(record) => found.records.push(record.clone()),
            Held::LetGo(attributes, revision) if filter.passes(attributes) => match need {
                Need::Attributes => found.records.push(attributes.as_record()),
                Need::Answer if is_search || found.is_full() || found.is_scan() => {
                    found.push_without_value(attributes.as_record());
                }
                Need::Answer | Need::Record => {
                    let Some(record) = self.read(attributes.key(), revision, effort)? else {
                        return Ok(false);
                    };
                    found.measure(&record)?;
                    // An order of values reads all of them, which says nothing about any.
                    if need == Need::Answer {
                        found.show(&record);
                    }
                    found.records.push(record);
                }
            },
            Held::Newest(_) | Held::LetGo(..) => {}
            // It has to be read for its attributes, and may be once more.
            Held::Past(key, revision) => {
                let Some(record) = self.read(key, revision, effort)? else {
                    return Ok(false);
                };
                let without_value = || record.without_value(revision.sub).as_record();
                match need {
                    _ if !filter.passes(&record) => {}
                    Need::Attributes => found.records.push(without_value()),
                    Need::Answer if found.is_full() => found.push_without_value(without_value()),
                    Need::Answer | Need::Record => {
                        found.measure(&record)?;
                        found.records.push(record);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Reads those of the values that a search has left where they are, until so many were read that
    /// the others are left there; `next` is the record that it has come to. `false` if it is to go on
    /// another time.
    pub(super) fn read_left(
        &self,
        found: &mut Found,
        next: &mut usize,
        effort: &mut Effort,
    ) -> Result<bool, RangeError> {
        while found.lacks_values && !found.is_full() {
            let Some(record) = found.records.get(*next) else {
                found.lacks_values = false;
                break;
            };
            if effort.is_spent() {
                return Ok(false);
            }
            effort.spend(1);
            if let Some(place) = record.place() {
                let Some(record) = self.read(record.key(), place.revision, effort)? else {
                    return Ok(false);
                };
                found.measure(&record)?;
                found.show(&record);
                found.records[*next] = record;
            }
            *next += 1;
        }
        Ok(true)
    }

    /// Whether `holds` is true of the records of `interval` at the current revision, as far as they
    /// are needed, from `position` to where it comes; it goes no further once it is not.
    pub(super) fn all(
        &self,
        interval: Interval<'_>,
        need: Need,
        position: &mut Position,
        effort: &mut Effort,
        mut holds: impl FnMut(&Record) -> bool,
    ) -> Result<bool, StorageError> {
        let mut all = true;
        self.walk::<StorageError>(interval, self.revision, position, effort, |held, effort| {
            all = match held {
                Held::Newest(record) => holds(record),
                other => match self.record(other, need, effort)? {
                    Some(record) => holds(&record),
                    None => return Ok(Step::Later),
                },
            };
            Ok(match all {
                true => Step::Next,
                false => Step::End,
            })
        })?;
        Ok(all)
    }

    /// The record of a key, as far as it is needed; `None` if it is in the file, where `effort` does
    /// not reach.
    fn record(
        &self,
        held: Held<'_>,
        need: Need,
        effort: &mut Effort,
    ) -> Result<Option<Record>, StorageError> {
        let (key, revision) = match held {
            Held::Newest(record) => return Ok(Some(record.clone())),
            Held::LetGo(attributes, _) if need == Need::Attributes => {
                return Ok(Some(attributes.as_record()));
            }
            Held::LetGo(attributes, revision) => (attributes.key(), revision),
            Held::Past(key, revision) => (key, revision),
            Held::Absent => unreachable!("a walk passes over keys that do not exist"),
        };
        self.read(key, revision, effort)
    }

    /// The put of `key` at `revision`; `None` if `effort` does not reach where it is.
    fn read(
        &self,
        key: &[u8],
        revision: Revision,
        effort: &mut Effort,
    ) -> Result<Option<Record>, StorageError> {
        effort.spend(Effort::RECORD);
        let record = match effort.reads_file {
            true => Some(self.values.record(key, revision)?),
            false => self.values.record_in_memory(key, revision)?,
        };
        let bytes = record.as_ref().map_or(0, |record| record.as_bytes().len());
        effort.spend(bytes / Effort::BYTES_AS_A_KEY);
        Ok(record)
    }

    /// The keys of `interval` that exist.
    pub(super) fn live_keys(&self, interval: Interval<'_>) -> Vec<Attributes> {
        let attributes = |entry: &Entry| entry.attributes().clone();
        match interval {
            Interval::Key(key) => {
                let entry = self.index.get(key).filter(|entry| entry.is_live());
                entry.map(attributes).into_iter().collect()
            }
            Interval::Range { start, end } => {
                self.index.live_range(start, end).map(attributes).collect()
            }
        }
    }
}
