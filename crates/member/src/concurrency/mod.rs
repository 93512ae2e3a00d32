//! Locks and elections that this member runs for its clients: with one request a client waits for a
//! lock, and needs no watches of its own.
//!
//! Both are queues of keys, with the names and comparisons of etcd's Go client
//! (client/v3/concurrency), so that a client that builds them from keys and leases itself stands in
//! the same queue: a contender puts the key `NAME/LEASE` (the lease's id in hexadecimal) with its
//! lease, and is first when no key below `NAME/` is older. The revision at which a contender's key
//! was created is larger than that of everybody who was first before: what proves it in later
//! requests.
//!
//! Every step is taken in the client's name: a step that its user may not take is refused, and those
//! before it stay. A lease that this member grants is not kept alive. The key of a client that
//! leaves while it waits is deleted; that of one which was first already stays until the client
//! gives it back or its lease ends.

mod election;
mod lock;
mod queue;

pub use election::{Elected, ElectionError, Elections, Led, Observer};
pub use lock::{Locked, Locks};
pub use queue::QueueError;

/// Seconds that a lease lasts which a member grants for a contender without one, as in etcd.
pub const LEASE_TTL_S: i64 = 60;
