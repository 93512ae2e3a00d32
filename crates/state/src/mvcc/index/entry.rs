//! A key: what it holds, and what came before.
//!
//! Only here is it known that a record may lack its value: others are shown [`Held`].

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};

use super::sorted::Keyed;
use crate::mvcc::history::History;
use crate::mvcc::record::Attributes;
use crate::mvcc::{Record, Revision};

/// A key: its newest record and what came before.
pub(in crate::mvcc) struct Entry {
    /// The newest one or, with the mark `LET_GO`, all of it but the value. An enum would make entries
    /// a quarter larger; the mark is looked at in this room only.
    record: Record,
    older: History,
    /// The sub revision of `record`, and marks in the upper bits. Readers set the mark `USED`.
    sub: AtomicU32,
}

/// The newest change is a deletion.
const TOMBSTONE: u32 = 1 << 31;
/// The value of the newest record is not in memory.
const LET_GO: u32 = 1 << 30;
/// Somebody asked for the key since the hand came by.
const USED: u32 = 1 << 29;
const SUB: u32 = USED - 1;

/// What a key held at some revision.
pub(in crate::mvcc) enum Held<'a> {
    /// Nothing.
    Absent,
    /// Its newest record.
    Newest(&'a Record),
    /// Its newest record, whose value was let go; the backend has it under this revision.
    LetGo(&'a Attributes, Revision),
    /// The record of this key that the backend has under this revision.
    Past(&'a [u8], Revision),
}

impl Clone for Entry {
    fn clone(&self) -> Entry {
        Entry {
            record: self.record.clone(),
            older: self.older.clone(),
            sub: AtomicU32::new(self.marks()),
        }
    }
}

impl Entry {
    /// A key whose first known change is `record`, the `sub`-th of its revision.
    pub(in crate::mvcc) fn new(record: Record, sub: i64) -> Entry {
        let mark = if record.is_tombstone() { TOMBSTONE } else { 0 };
        Entry::marked(record, sub, mark)
    }

    /// The same of a put whose value is not in memory.
    pub(in crate::mvcc) fn without_value(attributes: &Attributes, sub: i64) -> Entry {
        debug_assert!(!attributes.is_tombstone(), "a deletion has no value");
        Entry::marked(attributes.as_record(), sub, LET_GO)
    }

    fn marked(record: Record, sub: i64, mark: u32) -> Entry {
        let sub = u32::try_from(sub).unwrap_or(u32::MAX);
        assert!(sub <= SUB, "sub revision {sub} does not fit in 29 bits");
        Entry {
            record,
            older: History::default(),
            sub: AtomicU32::new(sub | mark),
        }
    }

    fn marks(&self) -> u32 {
        self.sub.load(Ordering::Relaxed)
    }

    fn is_marked(&self, mark: u32) -> bool {
        self.marks() & mark != 0
    }

    /// Whether somebody asked for the key since the hand came by.
    pub(super) fn is_used(&self) -> bool {
        self.is_marked(USED)
    }

    /// The same, and the hand has come by.
    pub(super) fn take_used(&self) -> bool {
        self.sub.fetch_and(!USED, Ordering::Relaxed) & USED != 0
    }

    /// Marks the key as one whose value somebody asks for.
    pub(in crate::mvcc) fn mark_used(&self) {
        if !self.is_marked(USED) {
            self.sub.fetch_or(USED, Ordering::Relaxed);
        }
    }

    pub(in crate::mvcc) fn key(&self) -> &[u8] {
        self.record.key()
    }

    /// The newest change, without its value.
    pub(in crate::mvcc) fn attributes(&self) -> &Attributes {
        &self.record
    }

    pub(in crate::mvcc) fn is_live(&self) -> bool {
        !self.is_marked(TOMBSTONE)
    }

    /// What the key holds now.
    pub(in crate::mvcc) fn live(&self) -> Held<'_> {
        match self.marks() & (TOMBSTONE | LET_GO) {
            0 => Held::Newest(&self.record),
            LET_GO => Held::LetGo(&self.record, self.revision()),
            _ => Held::Absent,
        }
    }

    /// The revision of the newest change.
    pub(in crate::mvcc) fn revision(&self) -> Revision {
        Revision {
            main: self.attributes().mod_revision(),
            sub: i64::from(self.marks() & SUB),
        }
    }

    /// Bytes of the value, if it is in memory.
    pub(in crate::mvcc) fn value_bytes(&self) -> usize {
        match self.live() {
            Held::Newest(record) => record.value().len(),
            _ => 0,
        }
    }

    /// Lets the value go, of which there is one.
    pub(in crate::mvcc) fn let_go(&mut self) {
        assert!(
            self.value_bytes() > 0,
            "{:?} has no value to let go",
            self.revision()
        );
        self.record = self.record.without_value(self.revision().sub).as_record();
        *self.sub.get_mut() |= LET_GO;
    }

    /// Takes the newest record back into memory.
    pub(super) fn keep(&mut self, record: &Record) {
        let (kept, newest) = (record.mod_revision(), self.revision());
        assert!(
            self.is_marked(LET_GO) && kept == newest.main,
            "the record of {kept} is kept for that of {newest:?}"
        );
        self.record = record.clone();
        let marks = self.sub.get_mut();
        *marks = *marks & !LET_GO | USED;
    }

    /// What the key held at revision `main`.
    pub(in crate::mvcc) fn at(&self, main: i64) -> Held<'_> {
        if self.attributes().mod_revision() <= main {
            return self.live();
        }
        match self.older.newest_at(main) {
            Some((revision, false)) => Held::Past(self.key(), revision),
            Some((_, true)) | None => Held::Absent,
        }
    }

    /// The change that a compaction at `compacted` keeps of those at or before it: the newest one,
    /// if it is a put, or a tombstone exactly at `compacted`.
    pub(in crate::mvcc) fn kept_at(&self, compacted: i64) -> Option<Revision> {
        let (revision, tombstone) = self.newest_at(compacted)?;
        (!tombstone || revision.main == compacted).then_some(revision)
    }

    /// The put that was the newest change at `main`; `None` if there was none or a tombstone.
    pub(in crate::mvcc) fn put_at(&self, main: i64) -> Option<Revision> {
        self.newest_at(main)
            .and_then(|(revision, tombstone)| (!tombstone).then_some(revision))
    }

    fn newest_at(&self, main: i64) -> Option<(Revision, bool)> {
        let newest = self.revision();
        if newest.main <= main {
            Some((newest, !self.is_live()))
        } else {
            self.older.newest_at(main)
        }
    }

    /// Puts `newer`, later changes of the same key, on top of the newest.
    pub(in crate::mvcc) fn supersede(&mut self, newer: Entry) {
        let before = self.revision();
        self.older.push(before, !self.is_live());
        self.older.append(&newer.older);
        let older = std::mem::take(&mut self.older);
        *self = Entry { older, ..newer };
        let after = self.revision();
        assert!(
            before <= after,
            "a key went back from {before:?} to {after:?}"
        );
    }

    /// The same with one change. Who writes over a value has asked for it, as watchers are told what
    /// was there, and will probably do so again. A deletion leaves the mark as it was.
    pub(super) fn change(&mut self, record: Record, sub: i64) {
        let used = match self.is_live() && !record.is_tombstone() {
            true => USED,
            false => self.marks() & USED,
        };
        self.supersede(Entry::new(record, sub));
        *self.sub.get_mut() |= used;
    }

    /// Whether a compaction at `compacted` has something to forget here.
    pub(super) fn has_unreadable(&self, compacted: i64) -> bool {
        !self.older.is_empty() || !self.is_live() && self.attributes().mod_revision() < compacted
    }

    /// Forgets unreadable revisions; `Break` if nothing is left.
    pub(super) fn trim(&mut self, compacted: i64) -> ControlFlow<()> {
        let newest = self.attributes().mod_revision();
        if newest > compacted {
            self.older.trim(compacted);
            return ControlFlow::Continue(());
        }
        self.older = History::default();
        if self.is_live() || newest == compacted {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

impl Keyed for Entry {
    const UNORDERED: usize = 0;

    fn key(&self) -> &[u8] {
        self.record.key()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 32);
    }
}
