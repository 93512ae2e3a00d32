//! `etcd grpc-proxy start`: answers gRPC calls before the members of a cluster.
//!
//! ```text
//! clients ─▶ accept, TLS, connection threads (a member's) ─▶ thread ─┬─ call ─▶ a server
//!                                                                    ├─ watch ─┐
//!                                                                    ├─ lease ─┴▶ thread "streams"
//!                                                                    └─ pages
//! ```
//!
//! Connections are served by the same threads as a member's ([`crate::runtime::Front`] is what
//! differs), and the cluster is reached with crate `client`. Each thread has connections of its own
//! to the servers. Messages are passed on as they came; what is taken apart, and why, stands in
//! `kv`. What clients share is in `cache`, `watch` and `lease`.
//!
//! - `command`, `settings`: flags. `start`: listeners and threads. `register`: the list of proxies.
//! - `thread`: what serves requests. `call`: one call. `message_log`: its
//!   messages in the log. `error`: what failures are told as.
//! - `kv` and `cache`: requests on keys. `watch`: watches. `lease`: keep-alives. `leader`: streams that require one. `members`: the list
//!   of members. `pages`: metrics and health.
//!
//! Deliberately absent: leases on keys (`--experimental-leasing-prefix`): in etcd 3.7.1 they write
//! twice, and reads are right without them.

mod cache;
mod call;
mod command;
mod error;
mod kv;
mod leader;
mod lease;
mod members;
mod message_log;
mod pages;
mod register;
mod settings;
mod start;
mod thread;
mod watch;

pub(super) use command::COMMAND;
pub(super) use start::run;
