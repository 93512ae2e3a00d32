//! One member, without sockets, clock or threads.
//!
//! [`Node`] decides: it orders proposals through raft, tells what to write to the log, what to
//! send, what to apply and when a read may be answered. It never blocks, reads no clock and does no
//! input or output: the owner hands in [`Input`]s with the time, takes [`Output`]s in order, and
//! reports back what became durable ([`Input::Appended`]) and what was applied
//! ([`Input::Applied`]).
//!
//! ```text
//!            Propose, Read                    Append (write, fsync)
//! clients ────────────────▶ ┌──────┐ ────────────────────────────▶ log
//!                           │      │ ◀──────────────────────────── Appended
//!         ReadReady, Leader │      │            Apply, Restore
//!         ◀──────────────── │ Node │ ────────────────────────────▶ machine
//!                           │      │ ◀──────────────────────────── Applied
//!              Messages     │      │            Send
//!  peers ─────────────────▶ └──────┘ ────────────────────────────▶ peers
//! ```
//!
//! What is said to peers at once and what only after the log has acknowledged it is decided in
//! here: a heartbeat, an answer to one, a read and a question before an election never wait for a
//! disk.
//!
//! Raft itself is the crate `raft`; its types stay in here. Messages, entries, hard state and
//! configuration cross this floor's border as etcd's `raftpb` messages, and foreign messages are
//! checked before raft sees them.

pub mod bootstrap;
pub mod durable;
mod event;
mod inspection;
mod log_reads;
mod log_store;
mod message_check;
mod node;
mod proposals;
mod raft_log;
mod raft_types;
mod reads;
mod snapshot_rule;
mod unpersisted;

pub use event::{
    Append, Config, Contradiction, Follower, Input, LeaderInfo, Output, Recovered, RejectReason,
    ReplicationState, Role, Status,
};
pub use inspection::{Inspection, Standing};
pub use node::Node;
