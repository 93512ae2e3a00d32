//! The etcd server.

pub mod config;
pub mod log;
pub mod metrics;
