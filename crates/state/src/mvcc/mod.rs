//! The multi-version keyspace.

mod event;
mod record;

pub use event::{Event, EventKind};
pub use record::{DamagedRecord, Fields, Record, Revision};
