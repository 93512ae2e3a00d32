//! How far the log is, readable from every thread.

use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};

/// The committed and the applied index as they were last published. They are shown, and push back;
/// who decides by where the member stands asks the node ([`ReadIndex::inspect`]) or a quorum
/// ([`ReadIndex::linearizable`]).
///
/// [`ReadIndex::inspect`]: crate::ReadIndex::inspect
/// [`ReadIndex::linearizable`]: crate::ReadIndex::linearizable
#[derive(Debug, Default)]
pub struct Progress {
    committed: AtomicU64,
    applied: AtomicU64,
}

impl Progress {
    /// The progress of a member that has applied up to `applied`.
    pub fn new(applied: u64) -> Progress {
        Progress {
            committed: applied.into(),
            applied: applied.into(),
        }
    }

    /// The node knows everything up to here to be committed.
    pub fn publish_committed(&self, index: u64) {
        let before = self.committed.swap(index, Relaxed);
        assert!(before <= index, "committed up to {index} after {before}");
    }

    /// The machine has applied everything up to here. To be told before anybody hears of a reply.
    pub fn publish_applied(&self, index: u64) {
        // An acknowledged write must never disappear from what is read.
        let before = self.applied.swap(index, AcqRel);
        assert!(before <= index, "applied up to {index} after {before}");
    }

    /// An index up to which the machine has applied the log, at least that of each entry whose
    /// reply is out.
    pub fn applied(&self) -> u64 {
        self.applied.load(Acquire)
    }

    /// Committed and applied index, as they are shown.
    pub fn shown(&self) -> (u64, u64) {
        let applied = self.applied();
        (self.committed.load(Relaxed).max(applied), applied)
    }

    /// Whether the machine is too far behind the log to take on more of this urgency (etcd's
    /// limits).
    pub fn is_overloaded(&self, urgency: Urgency) -> bool {
        let lag_max = match urgency {
            Urgency::Ordinary => APPLY_LAG_MAX,
            Urgency::Urgent => 2 * APPLY_LAG_MAX,
        };
        let (committed, applied) = self.shown();
        committed - applied > lag_max
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
            let progress = Progress::new(100_000);
            progress.publish_committed(100_000 + lag);
            [Urgency::Ordinary, Urgency::Urgent].map(|urgency| progress.is_overloaded(urgency))
        };
        assert_eq!(overloaded(0), [false, false]);
        assert_eq!(overloaded(5000), [false, false]);
        assert_eq!(overloaded(5001), [true, false]);
        assert_eq!(overloaded(10_000), [true, false]);
        assert_eq!(overloaded(10_001), [true, true]);
        // The two numbers are read one after the other.
        let progress = Progress::new(0);
        progress.publish_applied(7);
        assert!(!progress.is_overloaded(Urgency::Ordinary));
    }
}
