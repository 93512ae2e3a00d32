//! Where the member stands, readable from every thread without a lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use retcd_node::Status;

/// Published by the node thread after every turn.
///
/// Each number is true at some recent moment; readers that need two numbers from the same moment
/// ask the node.
#[derive(Debug, Default)]
pub struct Progress {
    term: AtomicU64,
    leader: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    is_leader: AtomicBool,
    leader_changes: AtomicU64,
}

impl Progress {
    /// Publishes `status` of member `id`.
    pub fn publish(&self, id: u64, status: Status) {
        self.term.store(status.term, Relaxed);
        self.committed.store(status.committed, Relaxed);
        self.applied.store(status.applied, Relaxed);
        if self.leader.swap(status.leader, Relaxed) != status.leader && status.leader != 0 {
            self.leader_changes.fetch_add(1, Relaxed);
        }
        self.is_leader.store(status.leader == id, Relaxed);
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.term.load(Relaxed)
    }

    /// The leader's id; 0 when none is known.
    pub fn leader(&self) -> u64 {
        self.leader.load(Relaxed)
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.is_leader.load(Relaxed)
    }

    /// The newest committed index.
    pub fn committed(&self) -> u64 {
        self.committed.load(Relaxed)
    }

    /// The newest applied index.
    pub fn applied(&self) -> u64 {
        self.applied.load(Relaxed)
    }

    /// How often a leader was seen to take over.
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Relaxed)
    }

    /// Whether the machine is too far behind the log to take on more (etcd's limit).
    pub fn is_overloaded(&self) -> bool {
        const APPLY_LAG_MAX: u64 = 5000;
        self.committed().saturating_sub(self.applied()) > APPLY_LAG_MAX
    }
}
