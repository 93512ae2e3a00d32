//! The etcd server.

pub mod metrics;
