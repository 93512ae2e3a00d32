//! The part of the log that raft may still ask for, in memory.
//!
//! Entries arrive here the moment raft hands them out to be written; what is durable is raft's to
//! know (`on_persist_ready`). The oldest entries go when a snapshot covers them, save for a tail that
//! lets slow followers catch up without a snapshot.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

/// Entries `first_index()..=last_index()` and the term of the one before.
pub struct LogStore {
    // Invariant: entries are contiguous and entries[0].index == compacted_index + 1.
    entries: VecDeque<Entry>,
    compacted_index: u64,
    compacted_term: u64,
    hard_state: HardState,
    conf_state: ConfState,
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
        LogStore {
            entries: entries.into(),
            compacted_index: index,
            compacted_term: term,
            hard_state,
            conf_state,
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
        self.entries.truncate(keep);
        self.entries.extend(entries.iter().cloned());
    }

    /// Remembers the configuration, which raft reads when it builds a snapshot.
    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// The configuration as of the last applied change.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// Forgets entries up to and including `index`.
    pub fn compact(&mut self, index: u64) {
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.index <= index)
        {
            let entry = self.entries.pop_front().expect("front() was just seen");
            self.compacted_index = entry.index;
            self.compacted_term = entry.term;
        }
    }

    /// Forgets the oldest entries up to `index` while more than `bytes_max` of data are held.
    pub fn compact_to_bytes(&mut self, index: u64, bytes_max: usize) {
        let mut bytes: usize = self.entries.iter().map(|entry| entry.data.len()).sum();
        while bytes > bytes_max && self.compacted_index < index {
            bytes -= self.entries.front().map_or(0, |entry| entry.data.len());
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
            high <= self.last() + 1,
            "{high} is past the log's end {}",
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

    /// Snapshots for followers come from the state machine; a member without followers has none to give.
    fn snapshot(&self, _request_index: u64, _to: u64) -> Result<Snapshot> {
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
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
    fn compacted_entries_are_gone_but_their_last_term_is_known() {
        let mut log = LogStore::new(0, 0, HardState::default(), ConfState::default(), vec![]);
        log.append(&[entry(1, 1), entry(2, 1), entry(3, 2)]);
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
