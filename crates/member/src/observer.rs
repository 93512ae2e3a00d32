//! What is counted.

use std::time::Duration;

use retcd_state::request::Operation;

use crate::Error;

/// When the batch that a request was in was where on its way through the log, by the member's
/// [`Clock`](crate::Clock).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// This member had it on its disk; `None` where nobody noted that.
    pub durable: Option<Duration>,
    /// A quorum had it, and the machine was told.
    pub committed: Duration,
    /// The machine began to execute it.
    pub begun: Duration,
}

/// Hears of what a member does, for its metrics. All methods may do nothing.
pub trait Observer: Send + Sync {
    /// A request took so long from here to its result. As in etcd, one that went through the log is
    /// a success whatever the machine made of it.
    fn request(&self, _operation: Operation, _success: bool, _took: Duration) {}
    /// The request that is being answered was handed to the node at `_asked`, went this way, and was
    /// answered at `_answered`. Called by the future that awaits the answer.
    fn went_through_log(&self, _asked: Duration, _stages: Stages, _answered: Duration) {}
    /// A quorum was asked at `_asked` what is committed, on behalf of the request that is being
    /// answered; at `_answered` the machine had executed it. Called as the one before.
    fn read_confirmed(&self, _asked: Duration, _answered: Duration) {}
    /// A range was read from memory, which took so long.
    fn range(&self, _success: bool, _took: Duration) {}
    /// The keyspace was hashed, which took so long.
    fn hash_kv(&self, _took: Duration) {}
    /// The database was hashed, which took so long.
    fn hash(&self, _took: Duration) {}
    /// So many proposals did not enter the log.
    fn proposals_failed(&self, _count: usize) {}
    /// So many rounds of ReadIndex failed.
    fn read_indexes_failed(&self, _count: usize) {}
    /// A round of ReadIndex timed out.
    fn read_index_timed_out(&self) {}
    /// There is another leader than before.
    fn leader_changed(&self) {}
    /// A lease was granted for so many seconds.
    fn lease_granted(&self, _ttl: i64) {}
    /// A lease was revoked by a client.
    fn lease_revoked(&self) {}
    /// A lease was renewed.
    fn lease_renewed(&self) {}
    /// So many leases ran out and were revoked.
    fn leases_expired(&self, _count: usize) {}
    /// A promotion has ended.
    fn promoted(&self, _result: Result<(), &Error>) {}
    /// A step of a compaction has removed so many rows.
    fn compacted(&self, _deleted: usize) {}
}

/// Counts nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}
