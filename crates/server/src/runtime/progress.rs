//! Where the member stands, readable from every thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use retcd_node::{Follower, Status};

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
    turned_at_ms: AtomicU64,
    followers: Mutex<Vec<Follower>>,
}

impl Progress {
    /// Publishes `status` of member `id` as of `now`.
    pub fn publish(&self, id: u64, status: Status, now: Duration) {
        self.turned_at_ms.store(now.as_millis() as u64, Relaxed);
        self.term.store(status.term, Relaxed);
        self.committed.store(status.committed, Relaxed);
        self.applied.store(status.applied, Relaxed);
        if self.leader.swap(status.leader, Relaxed) != status.leader && status.leader != 0 {
            self.leader_changes.fetch_add(1, Relaxed);
        }
        self.is_leader.store(status.leader == id, Relaxed);
    }

    /// Publishes what a leader knows of the members; nothing, if this one does not lead.
    pub fn publish_followers(&self, followers: Vec<Follower>) {
        *self.followers.lock() = followers;
    }

    /// What a leader knew of the members, itself included, a heartbeat ago or less; empty if this member does not lead.
    pub fn followers(&self) -> Vec<Follower> {
        self.followers.lock().clone()
    }

    /// When the node last looked around, on the member's clock.
    pub fn turned_at(&self) -> Duration {
        Duration::from_millis(self.turned_at_ms.load(Relaxed))
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

    /// Whether the machine is too far behind the log to take on more of this urgency (etcd's limits).
    pub fn is_overloaded(&self, urgency: Urgency) -> bool {
        let lag_max = match urgency {
            Urgency::Ordinary => APPLY_LAG_MAX,
            Urgency::Urgent => 2 * APPLY_LAG_MAX,
        };
        self.committed().saturating_sub(self.applied()) > lag_max
    }
}

/// Entries that may be committed and not yet applied before ordinary requests are refused.
const APPLY_LAG_MAX: u64 = 5000;

/// Who still gets in when the machine is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Nobody before others.
    Ordinary,
    /// What takes load away, such as the end of a lease with its keys.
    Urgent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_urgent_gets_in_where_others_are_refused() {
        let overloaded = |lag: u64| {
            let progress = Progress::default();
            progress.committed.store(100_000 + lag, Relaxed);
            progress.applied.store(100_000, Relaxed);
            [Urgency::Ordinary, Urgency::Urgent].map(|urgency| progress.is_overloaded(urgency))
        };
        assert_eq!(overloaded(0), [false, false]);
        assert_eq!(overloaded(5000), [false, false]);
        assert_eq!(overloaded(5001), [true, false]);
        assert_eq!(overloaded(10_000), [true, false]);
        assert_eq!(overloaded(10_001), [true, true]);
        // The two numbers are read one after the other.
        let progress = Progress::default();
        progress.applied.store(7, Relaxed);
        assert!(!progress.is_overloaded(Urgency::Ordinary));
    }
}
