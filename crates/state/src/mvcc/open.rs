//! Rebuilding the index from bucket `key`.
//!
//! Each processor scans a part, in the order of revisions. Rows are collected and, whenever there are as many as keys
//! so far, sorted by key and folded into the keys: superseded records are let go along the way, and
//! sorting in bulk is several times faster than inserting into a tree row by row. Of values only as
//! many are kept as have room in their budget, those of the newest revisions. Large ones are on
//! [`probation`] all together, and kept if all of them have room there.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use retcd_storage::backend::{self, Backend, Bucket, Installed};

use super::compaction::Compaction;
use super::index::{Entry, Hand, KeyIndex};
use super::keyspace::{Shared, State};
use super::probation::{self, Probation, is_large};
use super::{Fields, Keyspace, Record, Revision, StorageError};
use crate::Jobs;
use crate::meta;

/// Rows that are collected at least before they are folded into the keys.
const ROWS_MIN: usize = 64 * 1024;

/// What a database says about the keyspace, read and checked but not in use yet.
pub(crate) struct Loaded {
    index: KeyIndex,
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    /// A compaction that was interrupted, to be done again.
    compaction: Option<Compaction>,
    value_bytes_max: usize,
    probation: Probation,
}

impl Loaded {
    /// Reads bucket `key` and the marks of compactions. At most `value_bytes_max` bytes of values
    /// are to be in memory, now and later.
    pub(crate) fn read(
        reader: &backend::Reader,
        value_bytes_max: usize,
        jobs: Jobs,
    ) -> Result<Loaded, StorageError> {
        let finished = meta::compaction(reader, meta::FINISHED_COMPACTION)?.unwrap_or(-1);
        let scheduled = meta::compaction(reader, meta::SCHEDULED_COMPACTION)?.unwrap_or(-1);
        let part = read_rows(reader, value_bytes_max, jobs)?;
        let (revision, index) = (part.revision, KeyIndex::from_sorted(part.entries));
        let probation = match part.has_large {
            true => Probation::of(&index, value_bytes_max),
            false => Probation::new(value_bytes_max),
        };
        Ok(Loaded {
            index,
            revision: revision.max(1).max(finished).max(scheduled),
            compacted: finished.max(scheduled),
            compaction: (scheduled > finished).then(|| Compaction::new(scheduled, finished, false)),
            value_bytes_max,
            probation,
        })
    }

    /// Whether a compaction has to be done again.
    pub(crate) fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// Calls `visit` with lease and key of every live key that has a lease.
    pub(crate) fn visit_leased(&self, mut visit: impl FnMut(i64, &[u8])) {
        for entry in self.index.live_range(b"", None) {
            match entry.attributes().lease() {
                0 => {}
                lease => visit(lease, entry.key()),
            }
        }
    }

    fn state(self, log_index: u64) -> (State, Option<Compaction>, Probation) {
        let state = State {
            index: self.index,
            hand: Hand::default(),
            applied: self.revision,
            revision: self.revision,
            compacted: self.compacted,
            log_index,
        };
        (state, self.compaction, self.probation)
    }
}

impl Keyspace {
    /// The keyspace that was read from `backend`, which has not changed since the entry at
    /// `log_index`.
    pub(crate) fn new(backend: Backend, loaded: Loaded, log_index: u64) -> Keyspace {
        let value_bytes_max = loaded.value_bytes_max;
        let (state, compaction, probation) = loaded.state(log_index);
        let (revision, compacted) = (state.revision, state.compacted);
        assert!(
            compacted <= revision,
            "compacted up to {compacted}, at revision {revision}"
        );
        let shared = Arc::new(Shared {
            state: RwLock::new(state),
            backend,
            hashes: Mutex::default(),
            value_bytes_max,
        });
        Keyspace {
            shared,
            revision,
            compacted,
            compaction,
            next_compaction: None,
            probation,
        }
    }

    /// Goes on with the keyspace that was read from the file that `installed` has put in place.
    /// Readers see the change as one: views that they hold stay as they are.
    ///
    /// The hashes of compactions stay, for they are of the same history.
    pub(crate) fn restore(&mut self, loaded: Loaded, log_index: u64, installed: Installed<'_>) {
        let (new, compaction, probation) = loaded.state(log_index);
        self.probation = probation;
        (self.revision, self.compacted) = (new.revision, new.compacted);
        (self.compaction, self.next_compaction) = (compaction, None);
        let mut state = self.shared.state.write();
        assert!(
            state.revision <= new.revision && state.log_index < new.log_index,
            "revision {} at entry {} is restored over {} at {}",
            new.revision,
            new.log_index,
            state.revision,
            state.log_index
        );
        installed.publish();
        let old = std::mem::replace(&mut *state, new);
        drop(state);
        // Freeing a large index takes a while: not under the lock.
        drop(old);
    }
}

/// The rows of a stretch of revisions.
struct Part {
    /// Ascending by key.
    entries: Vec<Entry>,
    /// The last revision, 0 if there is none.
    revision: i64,
    /// Whether large values are among those that are kept.
    has_large: bool,
}

/// Reads all rows, in parts at once.
fn read_rows(
    reader: &backend::Reader,
    value_bytes_max: usize,
    jobs: Jobs,
) -> Result<Part, StorageError> {
    // Like etcd, begin at revision 1.
    let first: Box<[u8]> = Revision::start_of(1).to_key()[..].into();
    let cuts = reader.split(Bucket::Key, jobs.at_once)?;
    let cuts = cuts.into_iter().filter(|cut| *cut > first);
    let starts: Vec<Box<[u8]>> = [first.clone()].into_iter().chain(cuts).collect();
    let ends = starts.iter().skip(1).cloned().map(Some).chain([None]);
    let bounds: Vec<_> = starts.iter().cloned().zip(ends).collect();
    let large_bytes_max = probation::bytes_max(value_bytes_max) / bounds.len();
    let value_bytes_max = value_bytes_max / bounds.len();
    let parts = jobs.map(bounds, |(start, end)| {
        Loader::new(value_bytes_max, large_bytes_max, jobs).read(reader, &start, end.as_deref())
    });
    let mut parts: Vec<Part> = parts.into_iter().collect::<Result<_, _>>()?;
    while parts.len() > 1 {
        let mut rest = parts.into_iter();
        let pairs = std::iter::from_fn(|| rest.next().map(|earlier| (earlier, rest.next())));
        parts = jobs.map(pairs.collect(), |(earlier, later)| match later {
            Some(later) => Part {
                entries: fold(earlier.entries, later.entries.into_iter(), |_| ()),
                revision: earlier.revision.max(later.revision),
                has_large: earlier.has_large || later.has_large,
            },
            None => earlier,
        });
    }
    Ok(parts.pop().expect("there is a part at least"))
}

/// Puts `rows` on top of `entries`, both ascending by key; calls `superseded` with what is no
/// longer the newest of its key.
fn fold(
    entries: Vec<Entry>,
    rows: impl ExactSizeIterator<Item = Entry>,
    mut superseded: impl FnMut(&Entry),
) -> Vec<Entry> {
    let mut folded: Vec<Entry> = Vec::with_capacity(entries.len() + rows.len());
    let mut entries = entries.into_iter().peekable();
    for row in rows {
        while let Some(entry) = entries.next_if(|entry| entry.key() <= row.key()) {
            folded.push(entry);
        }
        match folded.last_mut() {
            Some(entry) if entry.key() == row.key() => {
                superseded(entry);
                entry.supersede(row);
            }
            _ => folded.push(row),
        }
    }
    folded.extend(entries);
    folded
}

/// The record for the index of a row.
fn load(record: Record, at: Revision, tombstone: bool) -> Result<Record, StorageError> {
    if tombstone {
        return Ok(Record::tombstone(record.key(), at.main));
    }
    if record.as_bytes().is_empty() {
        // A restore that bumps the revision leaves an empty record at the new one. No request can
        // name its key.
        let fields = Fields {
            key: b"",
            create_revision: at.main,
            mod_revision: at.main,
            version: 1,
            value: b"",
            lease: 0,
        };
        return Ok(Record::encode(fields));
    }
    if record.mod_revision() != at.main || record.is_tombstone() {
        return Err(StorageError::Misplaced(at));
    }
    Ok(record)
}

/// Rows on their way to become entries.
struct Loader {
    jobs: Jobs,
    /// Rows that nobody has been told of.
    unreported: usize,
    /// Ascending by key.
    entries: Vec<Entry>,
    /// In the order of their revisions.
    rows: Vec<Entry>,
    value_bytes_max: usize,
    /// Bytes of the values in memory, superseded ones too.
    value_bytes: usize,
    large_bytes_max: usize,
    /// Those of the large ones among them.
    large_bytes: usize,
    /// Whether there were more than that: none is kept then.
    lets_large_go: bool,
    /// The values of revisions up to this one are the first to go.
    middle: i64,
}

/// What of a value of this length counts as large: all or nothing.
fn large_part(bytes: usize) -> usize {
    if is_large(bytes) { bytes } else { 0 }
}

/// Below this budget a start keeps no values: what keys are asked for comes to memory soon enough.
const VALUE_BYTES_MIN: usize = 16 << 20;

impl Loader {
    fn new(value_bytes_max: usize, large_bytes_max: usize, jobs: Jobs) -> Loader {
        Loader {
            jobs,
            unreported: 0,
            entries: Vec::new(),
            rows: Vec::new(),
            value_bytes_max,
            value_bytes: 0,
            large_bytes_max,
            large_bytes: 0,
            lets_large_go: false,
            middle: 0,
        }
    }

    /// Reads the rows from `start` to before `end`.
    fn read(
        mut self,
        reader: &backend::Reader,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Part, StorageError> {
        let mut revision = 0;
        for row in reader.range(Bucket::Key, start, end) {
            let (key, value) = row?;
            let (at, tombstone) =
                Revision::from_key(&key).ok_or(StorageError::NoRevision(key[..].into()))?;
            self.add(load(Record::from_value(value)?, at, tombstone)?, at);
            revision = at.main;
        }
        self.fold();
        Ok(Part {
            entries: self.entries,
            revision,
            has_large: self.large_bytes > 0,
        })
    }

    fn add(&mut self, record: Record, at: Revision) {
        if self.rows.len() >= self.entries.len().max(ROWS_MIN) {
            self.fold();
        }
        self.unreported += 1;
        if self.unreported == ROWS_MIN {
            (self.jobs.progress)(std::mem::take(&mut self.unreported));
        }
        let mut row = Entry::new(record, at.sub);
        let bytes = row.value_bytes();
        let is_kept =
            self.value_bytes_max >= VALUE_BYTES_MIN && !(self.lets_large_go && is_large(bytes));
        if bytes > 0 && !is_kept {
            row.let_go();
        } else {
            self.value_bytes += bytes;
            self.large_bytes += large_part(bytes);
        }
        self.rows.push(row);
        if self.large_bytes > self.large_bytes_max {
            self.let_large_go();
        }
        if self.value_bytes <= self.value_bytes_max / 2 {
            self.middle = at.main;
        } else if self.value_bytes > self.value_bytes_max {
            self.let_older_go(at.main);
        }
    }

    /// Leaves at most half of the budget in use, so that this is seldom done.
    fn let_older_go(&mut self, now: i64) {
        self.fold();
        for up_to in [self.middle, now] {
            if self.value_bytes <= self.value_bytes_max / 2 {
                break;
            }
            let older = |entry: &&mut Entry| entry.revision().main <= up_to;
            let older = self.entries.iter_mut().filter(older);
            for entry in older.filter(|entry| entry.value_bytes() > 0) {
                let bytes = entry.value_bytes();
                self.value_bytes -= bytes;
                self.large_bytes -= large_part(bytes);
                entry.let_go();
            }
        }
        self.middle = now;
    }

    /// Lets all large values go, those to come too. Once, as it looks at every key.
    fn let_large_go(&mut self) {
        self.fold();
        self.lets_large_go = true;
        let entries = self.entries.iter_mut();
        for entry in entries.filter(|entry| is_large(entry.value_bytes())) {
            self.value_bytes -= entry.value_bytes();
            entry.let_go();
        }
        self.large_bytes = 0;
    }

    /// Puts the rows on top of the entries.
    fn fold(&mut self) {
        let rows = sorted_by_key(std::mem::take(&mut self.rows));
        let entries = std::mem::take(&mut self.entries);
        self.entries = fold(entries, rows, |entry| {
            let bytes = entry.value_bytes();
            self.value_bytes -= bytes;
            self.large_bytes -= large_part(bytes);
        });
    }
}

/// Sorts by key; rows of one key stay in their order.
///
/// Keys have long prefixes in common and lie all over memory, so that comparing them is slow: the
/// sixteen bytes behind the prefix that is common to all go in front and decide most comparisons.
fn sorted_by_key(rows: Vec<Entry>) -> impl ExactSizeIterator<Item = Entry> {
    let prefix = common_prefix(&rows);
    let mut ranked: Vec<(u128, Entry)> = rows
        .into_iter()
        .map(|row| (rank(&row.key()[prefix..]), row))
        .collect();
    ranked
        .sort_by(|(a_rank, a), (b_rank, b)| a_rank.cmp(b_rank).then_with(|| a.key().cmp(b.key())));
    ranked.into_iter().map(|(_, row)| row)
}

/// Length of the prefix that all keys share.
fn common_prefix(rows: &[Entry]) -> usize {
    let Some(first) = rows.first() else {
        return 0;
    };
    let first = first.key();
    rows.iter().fold(first.len(), |len, row| {
        let shared = first[..len]
            .iter()
            .zip(row.key())
            .take_while(|(a, b)| a == b);
        shared.count()
    })
}

/// The first sixteen bytes as a number that compares like them, missing ones as zeros.
fn rank(key: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let len = key.len().min(16);
    bytes[..len].copy_from_slice(&key[..len]);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A start of a store that is larger than its budget keeps what was written last.
    #[test]
    fn the_newest_values_stay_in_memory() {
        const MIB: usize = 1 << 20;
        let value_bytes_max = VALUE_BYTES_MIN + MIB;
        let value = vec![7; MIB / 2];
        let mut loader = Loader::new(value_bytes_max, usize::MAX, Jobs::default());
        for main in 2..202 {
            // Every fourth key is written again and again.
            let key = match main % 4 {
                0 => b"same".to_vec(),
                _ => format!("k{:03}", 500 - main).into_bytes(),
            };
            let record = Record::encode(Fields {
                key: &key,
                create_revision: main,
                mod_revision: main,
                version: 1,
                value: &value,
                lease: 0,
            });
            loader.add(record, Revision::start_of(main));
            assert!(loader.value_bytes <= value_bytes_max);
        }
        loader.fold();
        let entries = &loader.entries;
        let kept: usize = entries.iter().map(Entry::value_bytes).sum();
        assert_eq!(kept, loader.value_bytes);
        assert!(kept >= value_bytes_max / 4, "{kept} bytes");
        let is_kept = |entry: &&Entry| entry.value_bytes() > 0;
        let oldest_kept = entries.iter().filter(is_kept);
        let oldest_kept = oldest_kept.map(|entry| entry.revision()).min();
        let newest_gone = entries.iter().filter(|entry| !is_kept(entry));
        let newest_gone = newest_gone.map(|entry| entry.revision()).max();
        assert!(newest_gone < oldest_kept, "{newest_gone:?} {oldest_kept:?}");
        assert_eq!(entries.len(), 151);
    }

    /// Either all large values of a part have room on probation, or none is kept: which of them
    /// would be asked for is not known.
    #[test]
    fn large_values_are_kept_if_all_of_them_have_room() {
        let load = |large_bytes_max| {
            let mut loader = Loader::new(usize::MAX, large_bytes_max, Jobs::default());
            for main in 2..102 {
                let len = if main % 2 == 0 { 4096 } else { 100 };
                let record = Record::encode(Fields {
                    // Every tenth one is written over by the next of its kind.
                    key: format!("k{}", main - main % 20 / 18 * 2).as_bytes(),
                    create_revision: main,
                    mod_revision: main,
                    version: 1,
                    value: &vec![7; len],
                    lease: 0,
                });
                loader.add(record, Revision::start_of(main));
            }
            loader.fold();
            let bytes = |large: bool| -> usize {
                let values = loader.entries.iter().map(Entry::value_bytes);
                values.filter(|bytes| is_large(*bytes) == large).sum()
            };
            assert_eq!(bytes(true), loader.large_bytes);
            assert_eq!(bytes(true) + bytes(false), loader.value_bytes);
            (bytes(true), bytes(false))
        };
        let (large, small) = load(usize::MAX);
        assert_eq!((large % 4096, small % 100), (0, 0));
        assert!(large > 40 * 4096 && small > 40 * 100, "{large} and {small}");
        // Superseded ones count until they are gone.
        assert_eq!(load(50 * 4096), (large, small));
        assert_eq!(load(50 * 4096 - 1), (0, small));
    }
}
