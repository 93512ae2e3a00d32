//! The etcd server.
//!
//! - [`runtime`]: the threads, and the queues between them; [`workers`]: a pool for what would
//!   block them.
//! - `accept`: from a listening socket to the thread that serves the connection; `tls`: handshakes
//!   and certificates.
//! - `bootstrap`: the first start of a member, which forms a new cluster or joins an existing one.
//! - `router`: tells gRPC (`grpc`) and the JSON gateway (`gateway`) from other requests of clients
//!   ([`http`]).
//! - [`peer`]: traffic between members.
//! - `probe`: what pages of both listeners tell of this member.
//! - `server`: what everything shares that serves requests.
//! - `auth`: authentication. `status`: etcd's error codes and texts. `budget`: the memory that
//!   answers may hold. `net_http`: HTTP as Go speaks it.
//! - [`metrics`]: what Prometheus sees; `observer`: what the member reports to it; `metered_disk`: how long
//!   the disk takes.
//! - `tracing`: spans of requests, for a collector. `recent`: what calls did lately, for two pages.
//! - `profile`: where time and memory go, and the threads.
//! - `defragment`: defragmentation, on request and at start.
//! - [`config`]: flags, environment, file.
//! - [`proxy`]: what stands before the members of a cluster.
//! - `welcome`: what a person at a terminal is told.
//! - `request_text`: requests in lines of the log.
//! - `clock`, `rlimit`, `systemd`: the operating system.
//!
//! How they work together is in `docs/ARCHITECTURE.md`.
//!
//! Tests are the only other user of this library, and see what is public.

#![warn(unreachable_pub)]

mod accept;
mod allocator;
mod auth;
mod bootstrap;
mod budget;
mod clock;
pub mod config;
mod defragment;
mod gateway;
mod grpc;
pub mod http;
mod metered_disk;
pub mod metrics;
mod net_http;
mod observer;
pub mod peer;
mod probe;
mod profile;
pub mod proxy;
mod recent;
mod request_text;
mod rlimit;
mod router;
pub mod runtime;
mod server;
mod status;
mod systemd;
mod tls;
mod tracing;
mod v2;
mod welcome;
pub mod workers;

pub use retcd_log as log;
pub(crate) use retcd_log::{error, fatal, info, log_line, log_record, warn};

/// The version of etcd that this server stands in for.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
