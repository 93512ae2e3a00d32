//! The etcd server.

pub mod http;
pub mod metrics;
