//! The etcd server.
//!
//! - [`config`]: flags, environment, file; [`log`]: JSON lines.
//! - [`runtime`]: threads, queues, sockets; the only room that knows the operating system's clock.
//! - [`auth`]: who sends a request.
//! - [`grpc`] and [`http`]: what clients see; `router` tells the two apart.
//! - [`peer`]: traffic between members.
//! - [`metrics`]: what Prometheus sees.

pub mod auth;
pub mod config;
mod gauge;
pub mod grpc;
pub mod http;
pub mod log;
pub mod metrics;
pub mod peer;
mod router;
pub mod runtime;
pub mod tls;
pub mod workers;

/// The version of etcd that this server stands in for.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
