//! The etcd server.
//!
//! - [`config`]: flags, environment, file.
//! - [`runtime`]: threads, queues, sockets; the only room that knows the operating system's clock.
//! - `accept`: from a listening socket to the thread that serves the connection; `tls`: handshakes
//!   and certificates.
//! - `bootstrap`: the first start of a member, which forms a new cluster or joins an existing one.
//! - [`auth`]: who sends a request.
//! - [`grpc`] and [`http`]: what clients see; `router` tells the two apart. `net_http`: HTTP as Go
//!   speaks it. `status`: errors in etcd's codes and texts; `budget`: the memory that answers may
//!   hold.
//! - [`peer`]: traffic between members.
//! - [`metrics`]: what Prometheus sees.

mod accept;
pub mod auth;
mod bootstrap;
mod budget;
mod clock;
pub mod config;
mod defragment;
pub mod grpc;
pub mod http;
pub mod metrics;
mod net_http;
mod observer;
pub mod peer;
mod probe;
mod rlimit;
mod router;
pub mod runtime;
mod server;
mod status;
mod systemd;
mod tls;
pub mod workers;

pub use retcd_log as log;
pub(crate) use retcd_log::{error, fatal, info, log_line, log_record, warn};

/// The version of etcd that this server stands in for.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
