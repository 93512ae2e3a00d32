//! Rebuilding the index from bucket `key`.
//!
//! Each processor scans a part, in the order of revisions. Rows are collected and, whenever there are
//! as many as keys so far, sorted by key and folded into the keys: superseded records are let go
//! along the way, and sorting in bulk is several times faster than inserting into a tree row by row.
//! In the end each processor merges all parts of a stretch of keys, and makes the leaves of it.
//!
//! A start copies keys and keeps no values, for nothing is known of who will ask for which: they
//! come to memory when they are asked for. Only those of a small store are kept, all of them.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use retcd_storage::backend::{self, Backend, Bucket, Installed};

use super::compaction::Compaction;
use super::index::{Entry, Hand, KeyIndex, Leaves};
use super::keyspace::{Shared, State};
use super::probation::{self, Probation};
use super::record::Stored;
use super::{Attributes, Fields, Keyspace, Record, Revision, StorageError};
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
        // Then all of its values have room on probation, and in their budget.
        let database_bytes = reader.committed().size_in_use_bytes();
        let is_small = database_bytes <= probation::bytes_max(value_bytes_max) as u64;
        let parts = read_rows(reader, is_small, jobs)?;
        let revision = parts.iter().map(|part| part.revision).max().unwrap_or(0);
        let index = merge(parts, jobs);
        let probation = match is_small {
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
}

/// Reads all rows, in parts at once, which come in the order of their revisions.
fn read_rows(
    reader: &backend::Reader,
    keeps_values: bool,
    jobs: Jobs,
) -> Result<Vec<Part>, StorageError> {
    // Like etcd, begin at revision 1.
    let first: Box<[u8]> = Revision::start_of(1).to_key()[..].into();
    let cuts = reader.split(Bucket::Key, jobs.at_once)?;
    let cuts = cuts.into_iter().filter(|cut| *cut > first);
    let starts: Vec<Box<[u8]>> = [first.clone()].into_iter().chain(cuts).collect();
    let ends = starts.iter().skip(1).cloned().map(Some).chain([None]);
    let bounds: Vec<_> = starts.iter().cloned().zip(ends).collect();
    let parts = jobs.map(bounds, |(start, end)| {
        Loader::new(keeps_values, jobs).read(reader, &start, end.as_deref())
    });
    parts.into_iter().collect()
}

/// The index of all `parts`.
fn merge(parts: Vec<Part>, jobs: Jobs) -> KeyIndex {
    let parts: Vec<Vec<Entry>> = parts.into_iter().map(|part| part.entries).collect();
    let leaves = jobs.map(by_key(parts, jobs.at_once), |stretch| {
        let merged = stretch
            .into_iter()
            .reduce(|earlier, later| fold(earlier, later.into_iter()));
        Leaves::new(merged.unwrap_or_default())
    });
    KeyIndex::from_leaves(leaves)
}

/// Cuts `parts`, each ascending by key, at the same keys into about `count` stretches of about one
/// size: of each stretch what every part has of it.
fn by_key(mut parts: Vec<Vec<Entry>>, count: usize) -> Vec<Vec<Vec<Entry>>> {
    const SAMPLES: usize = 64;
    let len: usize = parts.iter().map(Vec::len).sum();
    let every = len / (SAMPLES * count) + 1;
    let samples = parts.iter().flat_map(|part| part.iter().step_by(every));
    let mut samples: Vec<&[u8]> = samples.map(Entry::key).collect();
    samples.sort_unstable();
    let cuts = (1..count).filter_map(|cut| samples.get(samples.len() * cut / count));
    let cuts: Vec<Box<[u8]>> = cuts.map(|key| Box::from(*key)).collect();
    let mut stretches: Vec<Vec<Vec<Entry>>> = Vec::new();
    for cut in cuts.iter().rev() {
        let behind = parts.iter_mut().map(|part| {
            let at = part.partition_point(|entry| entry.key() < &**cut);
            part.split_off(at)
        });
        stretches.push(behind.collect());
    }
    stretches.push(parts);
    stretches.reverse();
    stretches
}

/// Puts `rows` on top of `entries`, both ascending by key.
fn fold(mut entries: Vec<Entry>, rows: impl ExactSizeIterator<Item = Entry>) -> Vec<Entry> {
    let mut rows = rows.peekable();
    let is_behind = match (entries.last(), rows.peek()) {
        (Some(last), Some(first)) => last.key() < first.key(),
        _ => true,
    };
    // Keys that name a time or a number are often written in their order.
    let mut folded = match is_behind {
        true => std::mem::take(&mut entries),
        false => Vec::with_capacity(entries.len() + rows.len()),
    };
    let mut entries = entries.into_iter().peekable();
    for row in rows {
        while let Some(entry) = entries.next_if(|entry| entry.key() <= row.key()) {
            folded.push(entry);
        }
        match folded.last_mut() {
            Some(entry) if entry.key() == row.key() => entry.supersede(row),
            _ => folded.push(row),
        }
    }
    folded.extend(entries);
    folded
}

/// Rows on their way to become entries.
struct Loader {
    keeps_values: bool,
    jobs: Jobs,
    /// Rows that nobody has been told of.
    unreported: usize,
    /// Ascending by key.
    entries: Vec<Entry>,
    /// In the order of their revisions.
    rows: Vec<Entry>,
    /// For [`Attributes::encode`].
    bytes: Vec<u8>,
}

impl Loader {
    fn new(keeps_values: bool, jobs: Jobs) -> Loader {
        Loader {
            keeps_values,
            jobs,
            unreported: 0,
            entries: Vec::new(),
            rows: Vec::new(),
            bytes: Vec::new(),
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
        for row in reader.rows(Bucket::Key, start, end) {
            let row = row?;
            let (at, tombstone) = Revision::of_row(row.key())?;
            let entry = self.entry(row.value(), at, tombstone)?;
            self.add(entry);
            revision = at.main;
        }
        self.fold();
        let entries = self.entries;
        Ok(Part { entries, revision })
    }

    /// The entry of a row, with its value or without.
    fn entry(
        &mut self,
        value: &[u8],
        at: Revision,
        tombstone: bool,
    ) -> Result<Entry, StorageError> {
        let row = Stored::of(value).map_err(|damaged| damaged.at(at))?;
        let fields = row.fields();
        let whole = |fields| Ok(Entry::new(Record::encode(fields), at.sub));
        if tombstone {
            return Ok(Entry::new(Record::tombstone(fields.key, at.main), at.sub));
        }
        if fields.is_empty() {
            // A restore that bumps the revision leaves an empty record at the new one. No request
            // can name its key.
            return whole(Fields {
                create_revision: at.main,
                mod_revision: at.main,
                version: 1,
                ..fields
            });
        }
        if fields.mod_revision != at.main || fields.version == 0 {
            return Err(StorageError::Misplaced(at));
        }
        if self.keeps_values || fields.value.is_empty() {
            return whole(fields);
        }
        let attributes = Attributes::encode(fields, row.len(value), at.sub, &mut self.bytes);
        Ok(Entry::without_value(&attributes, at.sub))
    }

    fn add(&mut self, row: Entry) {
        if self.rows.len() >= self.entries.len().max(ROWS_MIN) {
            self.fold();
        }
        self.unreported += 1;
        if self.unreported == ROWS_MIN {
            (self.jobs.progress)(std::mem::take(&mut self.unreported));
        }
        self.rows.push(row);
    }

    /// Puts the rows on top of the entries.
    fn fold(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        let entries = std::mem::take(&mut self.entries);
        self.entries = match rows.is_sorted_by(|a, b| a.key() <= b.key()) {
            true => fold(entries, rows.into_iter()),
            false => fold(entries, sorted_by_key(rows)),
        };
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
    use retcd_storage::backend::WriteBatch;

    use super::*;
    use crate::mvcc::index::Held;

    const MIB: usize = 1 << 20;

    /// A database with `count` values of `len` bytes each, some of which are of the same key.
    fn database(count: usize, len: usize) -> Backend {
        let backend = Backend::default();
        let loaded = Loaded::read(&backend.reader(), usize::MAX, Jobs::default()).unwrap();
        let mut keyspace = Keyspace::new(backend.clone(), loaded, 0);
        for number in 0..count {
            let mut batch = WriteBatch::default();
            let mut changes = keyspace.begin(&mut batch);
            let key = format!("k{}", number * 7919 % count / 2);
            changes.put(key.as_bytes(), &vec![number as u8; len], 0);
            changes.finish();
            backend.write(batch);
            keyspace.publish(number as u64 + 1);
        }
        backend.commit().unwrap();
        backend
    }

    /// Bytes of the values that a start has in memory.
    fn kept(backend: &Backend, value_bytes_max: usize) -> usize {
        let loaded = Loaded::read(&backend.reader(), value_bytes_max, Jobs::default()).unwrap();
        loaded.index.value_bytes()
    }

    #[test]
    fn a_start_keeps_the_values_of_a_small_store_only() {
        for len in [100, 4096] {
            let backend = database(400, len);
            let file_bytes = backend.reader().committed().size_in_use_bytes() as usize;
            assert_eq!(kept(&backend, 4 * file_bytes), 200 * len);
            assert_eq!(kept(&backend, 4 * file_bytes - 4), 0);
            assert_eq!(kept(&backend, 0), 0);
        }
        let large = database(33, MIB);
        assert_eq!(kept(&large, usize::MAX), 0);
    }

    /// However many scan and merge: what there is does not depend on it.
    #[test]
    fn parts_make_the_index_that_one_makes() {
        let backend = database(3000, 10);
        let entries = |at_once| {
            let jobs = Jobs {
                at_once,
                ..Jobs::default()
            };
            let loaded = Loaded::read(&backend.reader(), 0, jobs).unwrap();
            let live = loaded.index.live_range(b"", None);
            let entries = live.map(|entry| {
                let history = entry.at(entry.revision().main - 1);
                let older = match history {
                    Held::Past(_, revision) => Some(revision),
                    _ => None,
                };
                (entry.key().to_vec(), entry.revision(), older)
            });
            (entries.collect::<Vec<_>>(), loaded.index.live())
        };
        let alone = entries(1);
        assert_eq!(alone.1, 1500);
        assert!(alone.0.iter().all(|(_, _, older)| older.is_some()));
        for at_once in [2, 3, 7] {
            assert_eq!(entries(at_once), alone);
        }
    }
}
