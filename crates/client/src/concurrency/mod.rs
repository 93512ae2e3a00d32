//! Locks and elections among processes, made of leases and transactions.
//!
//! The keys and the comparisons are those of etcd's Go client (client/v3/concurrency), so that
//! programs in both languages can wait for each other: whoever wants something puts the key
//! `NAME/LEASE` (the lease's id in hexadecimal) with his lease, and has it when no key below
//! `NAME/` is older. What a process holds ends with its session, and the session with the process,
//! at the latest when the lease's time is over.
//!
//! A lock does not protect what has no part in it: a process that stood still for longer than its
//! lease believes in its lock for a moment. Transactions that compare with [`MutexGuard::is_held`]
//! are safe from that.

mod election;
mod mutex;
mod queue;
mod session;

pub use election::{Election, ElectionError, Leadership, Observer};
pub use mutex::{Mutex, MutexGuard};
pub use queue::QueueError;
pub use session::{DEFAULT_TTL_S, Session};
