//! Distributed locks and elections, based on leases and transactions.
//!
//! Keys and comparisons are those of etcd's Go client (client/v3/concurrency), so that programs in
//! both languages interoperate: a contender puts the key `NAME/LEASE` (the lease id in hexadecimal)
//! with its lease attached, and owns the lock when no key below `NAME/` is older. Whatever a
//! process owns is released with its session, at the latest when the lease expires.
//!
//! A lock cannot protect resources outside of etcd: a process that is suspended for longer than its
//! lease briefly believes that it still owns the lock. Transactions that compare with
//! [`MutexGuard::is_held`] are not affected.

mod election;
mod mutex;
mod queue;
mod session;

pub use election::{Election, ElectionError, Leadership, Observer};
pub use mutex::{Mutex, MutexGuard};
pub use queue::QueueError;
pub use session::{DEFAULT_TTL_S, Session};
