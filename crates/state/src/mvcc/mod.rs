//! The multi-version keyspace.

mod record;

pub use record::{Record, Revision};
