//! What is counted.

use std::time::Duration;

use retcd_state::request::Operation;

use crate::Error;

/// Hears of what a member does, for its metrics. All methods may do nothing.
pub trait Observer: Send + Sync {
    /// A request took so long from here to its result. As in etcd, one that went through the log is
    /// a success whatever the machine made of it.
    fn request(&self, _operation: Operation, _success: bool, _took: Duration) {}
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
