//! What a revision changed, as watchers hear of it.

use super::{Attributes, Record};

/// Whether a key was written or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The key was written.
    Put,
    /// The key was deleted.
    Delete,
}

/// One change of one key. The order of events within a revision is that of the changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The written record; for a deletion a tombstone with key and mod revision.
    pub record: Record,
    /// What the key held before this change.
    pub prev: Prev,
}

/// What a key held before a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Prev {
    /// Nothing: it did not exist, or that is not asked for, or not known any more.
    #[default]
    Absent,
    /// This record.
    Record(Record),
    /// A record whose value is not in memory. [`View::record_at`](super::View::record_at) has it.
    Stored(Attributes),
}

impl Prev {
    /// The record without its value.
    pub fn attributes(&self) -> Option<&Attributes> {
        match self {
            Prev::Absent => None,
            Prev::Record(record) => Some(record),
            Prev::Stored(attributes) => Some(attributes),
        }
    }

    /// The record, if it is in memory.
    pub fn record(&self) -> Option<&Record> {
        match self {
            Prev::Record(record) => Some(record),
            Prev::Absent | Prev::Stored(_) => None,
        }
    }
}

impl From<Option<Record>> for Prev {
    fn from(record: Option<Record>) -> Prev {
        record.map_or(Prev::Absent, Prev::Record)
    }
}
