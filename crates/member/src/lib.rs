//! What one member does between its network and its state.
//!
//! A library of behaviour, driven from outside. Two kinds of code:
//!
//! - *Steps* are methods of an owner: [`Applier`] (a batch of entries, a received database, a step
//!   of a compaction), [`Logger`] (a turn of the log), [`snapshot`] (a snapshot), [`Outputs`] (what
//!   a node says to those who wait).
//! - *Conversations* are async functions: a request and its answer ([`kv`], [`lease`], [`cluster`],
//!   …), and what a member does on its own ([`Handle::tasks`]). They await channels,
//!   notifications and the [`Clock`], nothing else; other members are asked through [`Peers`].
//!
//! ```text
//!  fronts ──▶ Handle: kv, watch, leases, auth, …  ──▶ Proposer, ReadIndex ──▶ NodeQueue ──▶ Node
//!             (one for each thread)   ▲                                                      │
//!                                     └── mailbox ◀── Outputs ◀──────────────────────────────┤
//!                                     └── mailbox ◀── Applier ◀── entries ◀──────────────────┘
//! ```
//!
//! Nothing here owns a thread, socket, file or runtime: `server::runtime` gives steps a thread each
//! and conversations the threads of connections, `sim` polls all of them from one queue, in the
//! order that its seed dictates. Errors say what happened, in this member's terms; codes and texts
//! are for the fronts.

#![warn(unreachable_pub)]

pub mod access;
mod apply;
pub mod auth;
mod clock;
pub mod cluster;
mod compactor;
pub mod concurrency;
pub mod config;
mod core;
mod corruption;
mod database;
mod error;
mod gauge;
mod handle;
mod identity;
pub mod kv;
mod leadership;
pub mod lease;
mod log;
mod mailbox;
pub mod maintenance;
mod observer;
mod outputs;
pub mod peers;
mod pending;
mod progress;
mod proposer;
mod publish;
mod read_index;
pub mod request_id;
pub mod room;
mod schema;
mod shared;
pub mod snapshot;
mod space;
pub mod tokens;
mod transfer;
pub mod v2;
pub mod versions;
pub mod watch;
mod workers;

pub use apply::{Applier, ApplyFailure, Changes, Report, Restored, Step};
pub use clock::Clock;
pub use config::Config;
pub use corruption::{InitialCheckError, Starting, check_initially};
pub use database::{DatabasePiece, DatabaseStream};
pub use error::Error;
pub use gauge::{Entered, Gauge};
pub use handle::{Handle, Thread};
pub use leadership::Leadership;
pub use log::{Logger, Synced, ToLog, read_log};
pub use mailbox::{Interest, Mail, Mailbox, Mailboxes, Outcome};
pub use observer::{Observer, Stages, Unobserved};
pub use outputs::{NodeWork, Outputs};
pub use peers::Peers;
pub use pending::Confirmed;
pub use progress::{Progress, Urgency};
pub use read_index::ReadIndex;
pub use schema::{Commit, FollowedVersion, Outdated};
pub use shared::{CommitQueue, Committed, NoRoom, NodeQueue, Parts, Shared, Signals, State};
pub use transfer::Transfer;
pub use workers::{Work, Workers};
