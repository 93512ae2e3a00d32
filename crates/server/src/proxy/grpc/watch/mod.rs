//! Watches: many of clients, few of servers.
//!
//! ```text
//!  connection threads                             thread "streams"
//!  stream ── Join, Leave ──────────────────────▶ hub ── add, cancel ──▶ upstream ──▶ a server
//!    ▲  ▲                                         │  ◀── events ───────── (per token)
//!    │  └──────── queue per stream ◀── Delivery ──┘
//!    └─ responses, encoded once for all who get the same
//! ```
//!
//! - [`broadcasts`]: who shares which watch, without streams. [`hub`]: drives it.
//! - [`stream`]: a client's stream: ids, permissions, what of an event a watcher wants.
//! - [`response`]: what is shared, and its encoding.
//!
//! **What a client may rely on** is what a member promises, but for progress on request, which etcd's
//! proxy does not have either. A watcher that asks for no revision begins behind the revision
//! of the header in its created response: the cluster is asked for it, together with the permission.
//!
//! A client that does not read has a bounded queue. Its watchers then fall *behind*: they are given
//! up here, and begin again where they were once the queue is empty.

mod broadcasts;
mod hub;
mod response;
mod stream;

pub(super) use hub::{Ask, Hub, Joins, joins};
pub(super) use stream::serve;
