//! The part of the log that raft may still ask for; the newest entries of it in memory.
//!
//! Entries arrive here the moment raft hands them out to be written; what is durable is raft's to
//! know (`on_persist_ready`). The oldest entries go when a snapshot covers them, save for a tail
//! that lets slow followers catch up without a snapshot.
//!
//! ```text
//!      compacted_index      first_in_memory        applied              last
//!  gone ──┤ log only: terms ────┤ in memory: entries ──┤ ──────────────── │
//! ```
//! Entries that are applied leave memory when many bytes came behind them: raft then only asks for
//! them to send them to a follower, and can wait until they have been read from the log's files.
//! What raft asked for in vain is in [`LogStore::take_missed`]; who has got the entries lends them
//! ([`LogStore::lend`]) while raft asks again.

use std::cell::RefCell;
use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};
use retcd_storage::wal::Terms;

/// Entries `first_index()..=last_index()` and the term of the one before.
pub struct LogStore {
    // Invariant: entries are contiguous and entries[0].index == first_in_memory().
    entries: VecDeque<Entry>,
    /// The terms of the entries before, up to the compacted one, which the log has. Invariant: they
    /// are applied.
    earlier: Terms,
    /// Entries among the earlier ones that are here for the moment.
    lent: Vec<Entry>,
    /// What raft asked for in vain.
    missed: RefCell<Vec<Missed>>,
    compacted_index: u64,
    compacted_term: u64,
    /// Bytes of data in `entries`.
    bytes: usize,
    hard_state: HardState,
    /// The configuration as of `applied`.
    conf_state: ConfState,
    /// What the machine has; a follower that needs a snapshot gets this.
    applied: u64,
}

/// Entries that raft asked for, to send them, and that are not in memory.
pub struct Missed {
    /// The index of the first.
    pub first: u64,
    /// Of whom raft has to be reminded when they are there.
    pub context: GetEntriesContext,
}

impl LogStore {
    /// A log that starts behind a snapshot at `index` and `term`, with `earlier` entries in its
    /// files and then those given. The earlier ones must be applied.
    pub fn new(
        index: u64,
        term: u64,
        hard_state: HardState,
        conf_state: ConfState,
        earlier: Terms,
        entries: Vec<Entry>,
    ) -> LogStore {
        if let Some(first) = earlier.first() {
            assert_eq!(
                first,
                index + 1,
                "the log must continue the snapshot at {index}"
            );
        }
        let before = index + earlier.len();
        if let Some(first) = entries.first() {
            assert_eq!(
                first.index,
                before + 1,
                "the log must continue the snapshot at {index} and what follows, up to {before}"
            );
        }
        let last = entries.last().map_or(before, |entry| entry.index);
        assert_eq!(
            before + entries.len() as u64,
            last,
            "the last of {} entries behind {before}",
            entries.len()
        );
        assert!(
            hard_state.commit <= last,
            "committed up to {}, with a log up to {last}",
            hard_state.commit
        );
        LogStore {
            bytes: entries.iter().map(|entry| entry.data.len()).sum(),
            entries: entries.into(),
            earlier,
            lent: Vec::new(),
            missed: RefCell::default(),
            compacted_index: index,
            compacted_term: term,
            hard_state,
            conf_state,
            applied: before,
        }
    }

    /// Appends entries, replacing those that they overlap.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.compacted_index,
            "{} is compacted ({})",
            first.index,
            self.compacted_index
        );
        assert!(
            first.index > self.applied,
            "{} is applied ({})",
            first.index,
            self.applied
        );
        let keep = (first.index - self.first_in_memory()) as usize;
        assert!(
            keep <= self.entries.len(),
            "gap before {}: the log ends at {}",
            first.index,
            self.last()
        );
        let mut before = match keep.checked_sub(1).map(|last| &self.entries[last]) {
            Some(last) => (last.index, last.term),
            None => self.last_not_in_memory(),
        };
        for entry in entries {
            let next = (entry.index, entry.term);
            assert!(
                next.0 == before.0 + 1 && next.1 >= before.1,
                "entry {next:?} behind {before:?} (index, term)"
            );
            before = next;
        }
        let replaced = self.entries.range(keep..);
        self.bytes -= replaced.map(|entry| entry.data.len()).sum::<usize>();
        self.bytes += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        self.entries.truncate(keep);
        self.entries.extend(entries.iter().cloned());
    }

    /// Starts anew behind a snapshot that a leader sent.
    pub fn install(&mut self, metadata: &SnapshotMetadata) {
        assert!(
            metadata.index > self.applied && metadata.index > self.compacted_index,
            "a snapshot at {} over {}, compacted up to {}",
            metadata.index,
            self.applied,
            self.compacted_index
        );
        self.entries.clear();
        self.earlier = Terms::default();
        self.bytes = 0;
        (self.compacted_index, self.compacted_term) = (metadata.index, metadata.term);
        self.conf_state = metadata.get_conf_state().clone();
    }

    /// The configuration changed at an entry that was applied.
    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// The machine has applied everything up to `index`.
    pub fn set_applied(&mut self, index: u64) {
        let (applied, last) = (self.applied, self.last());
        assert!(
            (applied..=last).contains(&index),
            "applied {index} behind {applied}, with a log up to {last}"
        );
        self.applied = index;
    }

    /// The log starts behind this index.
    pub fn compacted_index(&self) -> u64 {
        self.compacted_index
    }

    /// Forgets entries up to and including `index`, of those that are applied. They will not be
    /// asked for any more.
    pub fn compact(&mut self, index: u64) {
        let index = index.min(self.applied);
        if index <= self.compacted_index {
            return;
        }
        self.leave_to_log(index);
        let term = self.earlier.of(index);
        self.compacted_term = term.expect("the log has what is neither compacted nor in memory");
        self.compacted_index = index;
        self.earlier.forget_to(index);
    }

    /// Leaves the oldest applied entries to the log's files while more than `bytes_max` of data are
    /// in memory.
    pub fn shrink_to_bytes(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && self.first_in_memory() <= self.applied {
            self.leave_to_log(self.first_in_memory());
        }
    }

    /// Forgets everything that is not in memory: the log does not have it any more.
    pub fn compact_to_memory(&mut self) {
        self.compact(self.first_in_memory() - 1);
    }

    /// Leaves the entries up to and including `index`, which are applied, to the log's files.
    fn leave_to_log(&mut self, index: u64) {
        while self.first_in_memory() <= index {
            let entry = self.entries.pop_front();
            let entry = entry.expect("what is applied is in memory or was");
            self.bytes -= entry.data.len();
            self.earlier.push(entry.index, entry.term);
        }
        let (first, bytes) = (self.entries.front(), self.bytes);
        assert!(
            first.is_none_or(|first| first.index == self.first_in_memory()),
            "entries from {} on are in memory, and others",
            self.first_in_memory()
        );
        assert!(first.is_some() || bytes == 0, "{bytes} bytes of no entries");
    }

    /// The index of the first entry in memory, or behind the last one.
    pub fn first_in_memory(&self) -> u64 {
        self.compacted_index + self.earlier.len() + 1
    }

    /// Index and term of the entry before the first one in memory.
    fn last_not_in_memory(&self) -> (u64, u64) {
        let compacted = (self.compacted_index, self.compacted_term);
        self.earlier.last().unwrap_or(compacted)
    }

    /// What raft has asked for in vain since this was last called.
    pub fn take_missed(&mut self) -> Vec<Missed> {
        self.missed.take()
    }

    /// Whether `entries`, which were read from the log's files, are what they were when they were in
    /// memory.
    pub fn is_earlier(&self, entries: &[Entry]) -> bool {
        let mut entries = entries.iter();
        entries.all(|entry| self.earlier.of(entry.index) == Some(entry.term))
    }

    /// Has entries at hand that are not in memory, ascending without gaps, until the next call.
    pub fn lend(&mut self, entries: Vec<Entry>) {
        self.lent = entries;
    }

    fn last(&self) -> u64 {
        self.first_in_memory() - 1 + self.entries.len() as u64
    }
}

/// The first entries of `entries`, one at least, with at most `max_bytes` as raft counts them.
fn limited<'a>(entries: impl Iterator<Item = &'a Entry>, max_bytes: u64) -> Vec<Entry> {
    let mut bytes = 0u64;
    let mut out = Vec::new();
    for entry in entries {
        bytes = bytes.saturating_add(entry.data.len() as u64 + 16);
        if bytes > max_bytes && !out.is_empty() {
            break;
        }
        out.push(entry.clone());
    }
    out
}

impl Storage for LogStore {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState {
            hard_state: self.hard_state.clone(),
            conf_state: self.conf_state.clone(),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.compacted_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(
            low <= high && high <= self.last() + 1,
            "{low} to {high} of a log that ends at {}",
            self.last()
        );
        let max_bytes = max_size.into().unwrap_or(u64::MAX);
        let first_in_memory = self.first_in_memory();
        if low >= first_in_memory {
            let offset = |index: u64| (index - first_in_memory) as usize;
            let entries = self.entries.range(offset(low)..offset(high));
            return Ok(limited(entries, max_bytes));
        }
        let lent = self.lent.iter();
        let mut lent = lent.skip_while(|entry| entry.index < low).peekable();
        if lent.peek().is_some_and(|first| first.index == low) {
            let lent = lent.take_while(|entry| entry.index < high);
            return Ok(limited(lent, max_bytes));
        }
        assert!(
            context.can_async(),
            "{low} to {high} are wanted at once, and memory begins at {first_in_memory}"
        );
        self.missed.borrow_mut().push(Missed {
            first: low,
            context,
        });
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.compacted_index {
            return Ok(self.compacted_term);
        }
        if index < self.compacted_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        let term = match index.checked_sub(self.first_in_memory()) {
            Some(offset) => self.entries.get(offset as usize).map(|entry| entry.term),
            None => self.earlier.of(index),
        };
        term.ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.compacted_index + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    /// A snapshot's place only, the machine's: whoever sends it has the database.
    fn snapshot(&self, request_index: u64, _to: u64) -> Result<Snapshot> {
        let index = self.applied;
        if index < self.compacted_index || index < request_index || index == 0 {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, self.term(index)?);
        metadata.set_conf_state(self.conf_state.clone());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            ..Default::default()
        }
    }

    /// A log behind `index` and `term`, all in memory.
    fn log_of(index: u64, term: u64, entries: Vec<Entry>) -> LogStore {
        let (hard_state, conf_state) = Default::default();
        LogStore::new(
            index,
            term,
            hard_state,
            conf_state,
            Terms::default(),
            entries,
        )
    }

    #[test]
    fn overlapping_entries_replace_the_tail() {
        let mut log = log_of(2, 1, vec![entry(3, 1), entry(4, 1)]);
        log.append(&[entry(4, 2), entry(5, 2)]);
        let terms: Vec<u64> = (2..=5).map(|i| log.term(i).unwrap()).collect();
        assert_eq!(terms, [1, 1, 2, 2]);
        assert_eq!(log.last_index().unwrap(), 5);
    }

    #[test]
    fn the_oldest_applied_entries_are_left_to_the_log_when_there_are_too_many_bytes() {
        let mut log = log_of(0, 0, vec![]);
        let large = |index| Entry {
            data: vec![0; 100].into(),
            ..entry(index, 1 + index / 3)
        };
        log.append(&[large(1), large(2), large(3), large(4)]);
        log.append(&[large(4), large(5)]);
        log.set_applied(2);
        log.shrink_to_bytes(250);
        assert_eq!(log.first_in_memory(), 3, "only what is applied");
        log.set_applied(5);
        log.shrink_to_bytes(250);
        assert_eq!((log.first_in_memory(), log.bytes), (4, 200));

        // Raft still has all of them, although it has to wait for some.
        assert_eq!(log.first_index().unwrap(), 1);
        let terms: Vec<u64> = (0..=5).map(|index| log.term(index).unwrap()).collect();
        assert_eq!(terms, [0, 1, 1, 2, 2, 2]);
        let ask = |log: &LogStore, low, high, bytes: u64| {
            let entries = log.entries(low, high, bytes, GetEntriesContext::empty(true))?;
            Ok::<_, Error>(
                entries
                    .iter()
                    .map(|entry| entry.index)
                    .collect::<Vec<u64>>(),
            )
        };
        assert_eq!(ask(&log, 4, 6, 1000).unwrap(), [4, 5]);
        let waits = Err(Error::Store(StorageError::LogTemporarilyUnavailable));
        assert_eq!(ask(&log, 2, 6, 1000), waits);
        let missed: Vec<u64> = log
            .take_missed()
            .iter()
            .map(|missed| missed.first)
            .collect();
        assert_eq!(missed, [2]);
        assert!(log.is_earlier(&[large(2), large(3)]));
        assert!(!log.is_earlier(&[entry(3, 1)]) && !log.is_earlier(&[large(4)]));
        log.lend(vec![large(2), large(3)]);
        assert_eq!(ask(&log, 2, 6, 1000).unwrap(), [2, 3]);
        assert_eq!(ask(&log, 2, 6, 150).unwrap(), [2]);
        assert_eq!(ask(&log, 3, 4, 150).unwrap(), [3]);
        log.lend(Vec::new());
        assert_eq!(ask(&log, 2, 6, 1000), waits);

        // What the log does not have is compacted, and so is what a snapshot covers.
        log.compact(2);
        assert_eq!((log.first_index().unwrap(), log.term(2).unwrap()), (3, 1));
        log.compact_to_memory();
        assert_eq!((log.first_index().unwrap(), log.term(3).unwrap()), (4, 2));
        assert!(
            ask(&log, 3, 6, 1000)
                .is_err_and(|error| error == Error::Store(StorageError::Compacted))
        );
        assert_eq!(ask(&log, 4, 6, 1000).unwrap(), [4, 5]);
    }

    #[test]
    fn a_log_may_begin_with_entries_that_are_not_in_memory() {
        let mut earlier = Terms::default();
        earlier.push(3, 1);
        earlier.push(4, 2);
        let (hard_state, conf_state) = Default::default();
        let mut log = LogStore::new(2, 1, hard_state, conf_state, earlier, vec![entry(5, 2)]);
        assert_eq!(
            (log.first_index().unwrap(), log.last_index().unwrap()),
            (3, 5)
        );
        let terms: Vec<u64> = (2..=5).map(|index| log.term(index).unwrap()).collect();
        assert_eq!(terms, [1, 1, 2, 2]);
        log.append(&[entry(5, 3), entry(6, 3)]);
        assert_eq!(log.term(5).unwrap(), 3);
        log.set_applied(6);
        log.compact(5);
        assert_eq!((log.first_index().unwrap(), log.term(5).unwrap()), (6, 3));
    }

    #[test]
    fn a_snapshot_is_of_what_is_applied_and_replaces_the_log_of_who_gets_it() {
        let mut log = log_of(0, 0, vec![]);
        log.append(&[entry(1, 1), entry(2, 1), entry(3, 2)]);
        assert!(log.snapshot(0, 9).is_err(), "nothing is applied yet");
        log.set_applied(2);
        let metadata = log.snapshot(0, 9).unwrap().take_metadata();
        assert_eq!((metadata.index, metadata.term), (2, 1));
        assert!(log.snapshot(2, 9).is_ok());
        assert!(log.snapshot(3, 9).is_err(), "somebody wants a newer one");

        let mut other = log_of(0, 0, vec![]);
        other.append(&[entry(1, 1)]);
        other.install(&metadata);
        assert_eq!(other.last_index().unwrap(), 2);
        assert_eq!(other.term(2).unwrap(), 1);
        assert!(other.snapshot(0, 9).is_err(), "it is not restored yet");
    }

    #[test]
    fn compacted_entries_are_gone_but_their_last_term_is_known() {
        let mut log = log_of(0, 0, vec![]);
        log.append(&[entry(1, 1), entry(2, 1), entry(3, 2)]);
        log.compact(2);
        assert_eq!(log.first_index().unwrap(), 1, "nothing is applied yet");
        log.set_applied(3);
        log.compact(2);
        assert_eq!(log.first_index().unwrap(), 3);
        assert_eq!(log.term(2).unwrap(), 1);
        assert!(matches!(
            log.term(1),
            Err(Error::Store(StorageError::Compacted))
        ));
        let context = GetEntriesContext::empty(false);
        assert!(matches!(
            log.entries(2, 4, None, context),
            Err(Error::Store(StorageError::Compacted))
        ));
    }
}
