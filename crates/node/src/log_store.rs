//! The part of the log that raft may still ask for, in memory.
//!
//! Entries arrive here the moment raft hands them out to be written; what is durable is raft's to
//! know (`on_persist_ready`). The oldest entries go when a snapshot covers them, save for a tail
//! that lets slow followers catch up without a snapshot.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

/// Entries `first_index()..=last_index()` and the term of the one before.
pub struct LogStore {
    // Invariant: entries are contiguous and entries[0].index == compacted_index + 1.
    entries: VecDeque<Entry>,
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

impl LogStore {
    /// A log that starts behind a snapshot at `index` and `term`.
    pub fn new(
        index: u64,
        term: u64,
        hard_state: HardState,
        conf_state: ConfState,
        entries: Vec<Entry>,
    ) -> LogStore {
        if let Some(first) = entries.first() {
            assert_eq!(
                first.index,
                index + 1,
                "the log must continue the snapshot at {index}"
            );
        }
        let last = entries.last().map_or(index, |entry| entry.index);
        assert_eq!(
            index + entries.len() as u64,
            last,
            "the last of {} entries behind {index}",
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
            compacted_index: index,
            compacted_term: term,
            hard_state,
            conf_state,
            applied: index,
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
        let keep = (first.index - self.compacted_index - 1) as usize;
        assert!(
            keep <= self.entries.len(),
            "gap before {}: the log ends at {}",
            first.index,
            self.last()
        );
        assert!(
            first.index > self.applied,
            "{} is applied ({})",
            first.index,
            self.applied
        );
        let mut before = match keep.checked_sub(1).map(|last| &self.entries[last]) {
            Some(last) => (last.index, last.term),
            None => (self.compacted_index, self.compacted_term),
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

    /// Forgets entries up to and including `index`, of those that are applied.
    pub fn compact(&mut self, index: u64) {
        while self.compacted_index < index.min(self.applied) {
            let Some(entry) = self.entries.pop_front() else {
                return;
            };
            self.bytes -= entry.data.len();
            self.compacted_index = entry.index;
            self.compacted_term = entry.term;
        }
        let (first, bytes) = (self.entries.front(), self.bytes);
        assert!(
            first.is_none_or(|first| first.index == self.compacted_index + 1),
            "the log is compacted up to {} and begins elsewhere",
            self.compacted_index
        );
        assert!(first.is_some() || bytes == 0, "{bytes} bytes of no entries");
    }

    /// Forgets the oldest applied entries while more than `bytes_max` of data are held.
    pub fn compact_to_bytes(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && self.compacted_index < self.applied {
            self.compact(self.compacted_index + 1);
        }
    }

    fn last(&self) -> u64 {
        self.compacted_index + self.entries.len() as u64
    }
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
        _context: GetEntriesContext,
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
        let offset = |index: u64| (index - self.compacted_index - 1) as usize;
        let mut bytes = 0u64;
        let mut out = Vec::new();
        for entry in self.entries.range(offset(low)..offset(high)) {
            bytes = bytes.saturating_add(entry.data.len() as u64 + 16);
            if bytes > max_bytes && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.compacted_index {
            return Ok(self.compacted_term);
        }
        if index < self.compacted_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        let offset = (index - self.compacted_index - 1) as usize;
        self.entries
            .get(offset)
            .map(|entry| entry.term)
            .ok_or(Error::Store(StorageError::Unavailable))
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

    #[test]
    fn overlapping_entries_replace_the_tail() {
        let mut log = LogStore::new(
            2,
            1,
            HardState::default(),
            ConfState::default(),
            vec![entry(3, 1), entry(4, 1)],
        );
        log.append(&[entry(4, 2), entry(5, 2)]);
        let terms: Vec<u64> = (2..=5).map(|i| log.term(i).unwrap()).collect();
        assert_eq!(terms, [1, 1, 2, 2]);
        assert_eq!(log.last_index().unwrap(), 5);
    }

    #[test]
    fn the_oldest_applied_entries_go_when_there_are_too_many_bytes() {
        let mut log = LogStore::new(0, 0, HardState::default(), ConfState::default(), vec![]);
        let large = |index| Entry {
            data: vec![0; 100].into(),
            ..entry(index, 1)
        };
        log.append(&[large(1), large(2), large(3), large(4)]);
        log.append(&[large(4), large(5)]);
        log.set_applied(2);
        log.compact_to_bytes(250);
        assert_eq!(log.first_index().unwrap(), 3, "only what is applied");
        log.set_applied(5);
        log.compact_to_bytes(250);
        assert_eq!(log.first_index().unwrap(), 4);
    }

    #[test]
    fn a_snapshot_is_of_what_is_applied_and_replaces_the_log_of_who_gets_it() {
        let mut log = LogStore::new(0, 0, HardState::default(), ConfState::default(), vec![]);
        log.append(&[entry(1, 1), entry(2, 1), entry(3, 2)]);
        assert!(log.snapshot(0, 9).is_err(), "nothing is applied yet");
        log.set_applied(2);
        let metadata = log.snapshot(0, 9).unwrap().take_metadata();
        assert_eq!((metadata.index, metadata.term), (2, 1));
        assert!(log.snapshot(2, 9).is_ok());
        assert!(log.snapshot(3, 9).is_err(), "somebody wants a newer one");

        let mut other = LogStore::new(0, 0, HardState::default(), ConfState::default(), vec![]);
        other.append(&[entry(1, 1)]);
        other.install(&metadata);
        assert_eq!(other.last_index().unwrap(), 2);
        assert_eq!(other.term(2).unwrap(), 1);
        assert!(other.snapshot(0, 9).is_err(), "it is not restored yet");
    }

    #[test]
    fn compacted_entries_are_gone_but_their_last_term_is_known() {
        let mut log = LogStore::new(0, 0, HardState::default(), ConfState::default(), vec![]);
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
