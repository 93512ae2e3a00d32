//! What a revision changed, as watchers hear of it.

use super::Record;

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
    /// The record before this change, if the key existed.
    pub prev: Option<Record>,
}
