//! One member, without sockets, clock or threads.
//!
//! [`Node`] decides: it orders proposals through raft, tells what to write to the log, what to apply
//! and when a read may be answered. It never blocks, reads no clock and does no input or output: the
//! owner hands in [`Input`]s with the time, takes [`Output`]s in order, and reports back what became
//! durable ([`Input::Appended`]) and what was applied ([`Input::Applied`]).
//!
//! ```text
//!            Propose, Read                    Append (write, fsync)
//! clients ────────────────▶ ┌──────┐ ────────────────────────────▶ log
//!                           │ Node │ ◀──────────────────────────── Appended
//!         ReadReady, Leader │      │            Apply
//!         ◀──────────────── └──────┘ ────────────────────────────▶ machine
//!                               ▲                 Applied             │
//!                               └─────────────────────────────────────┘
//! ```
//!
//! Raft itself is the crate `raft`; its types stay in here. Entries, hard state and configuration
//! cross this floor's border as etcd's `raftpb` messages.

pub mod bootstrap;
mod log_store;
mod node;
mod raft_types;

pub use node::{
    Append, Config, Input, LeaderInfo, Node, Output, Recovered, RejectReason, Role, SnapshotPoint,
    Status,
};
