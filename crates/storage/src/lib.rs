//! Durable bytes: everything that survives a restart passes through this floor.
//!
//! - [`disk`]: the one place that touches files.
//! - [`wal`]: the write-ahead log, in etcd's format.
//! - [`bolt`]: a storage engine for bbolt's file format.
//! - [`backend`]: etcd's buckets, kept in a bolt file.
//! - [`snap`]: etcd's `.snap` files.

pub mod backend;
pub mod bolt;
pub mod disk;
pub mod snap;
pub mod wal;
