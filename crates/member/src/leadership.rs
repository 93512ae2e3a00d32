//! Who leads, as this member last heard.
//!
//! That tells whom to ask and what to show, and can be waited for. It is no ground to decide by:
//! whoever reads that this member leads may read what was true before an election.
//! [`ReadIndex::leads`] asks a quorum, [`ReadIndex::inspect`] the node. The exception is a member
//! without any other, which is a quorum: see [`Leadership::alone`].
//!
//! [`ReadIndex::leads`]: crate::ReadIndex::leads
//! [`ReadIndex::inspect`]: crate::ReadIndex::inspect

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use retcd_node::{LeaderInfo, Role};
use tokio::sync::watch;

/// What the node last told of its leader.
#[derive(Debug)]
pub struct Leadership {
    term: AtomicU64,
    leader: AtomicU64,
    told: watch::Sender<LeaderInfo>,
}

/// A member that leads, and is the only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alone {
    /// In this term.
    pub(crate) term: u64,
    /// See [`LeaderInfo::alone_from`].
    pub(crate) from: u64,
}

impl Leadership {
    /// No leader yet in `term`.
    pub fn new(term: u64) -> Leadership {
        Leadership {
            term: term.into(),
            leader: 0.into(),
            told: watch::Sender::new(LeaderInfo {
                leader: 0,
                term,
                role: Role::Follower,
                transferee: 0,
                alone_from: None,
            }),
        }
    }

    /// Tells, before anything else gets out that the node decided behind it; returns what was told
    /// before.
    pub(crate) fn publish(&self, told: LeaderInfo) -> LeaderInfo {
        let before = self.term.swap(told.term, Relaxed);
        assert!(before <= told.term, "term {} after {before}", told.term);
        self.leader.store(told.leader, Relaxed);
        self.told.send_replace(told)
    }

    /// Set while this member leads and is the only one. Unlike the rest this is a ground to decide by:
    /// it is taken back before another member can lead or acknowledge anything, so that whoever sees
    /// it knows that nobody else has until now.
    pub(crate) fn alone(&self) -> Option<Alone> {
        let LeaderInfo {
            term, alone_from, ..
        } = *self.told.borrow();
        alone_from.map(|from| Alone { term, from })
    }

    /// The term.
    pub fn term(&self) -> u64 {
        self.term.load(Relaxed)
    }

    /// The leader's id; 0 when none is known.
    pub fn leader(&self) -> u64 {
        self.leader.load(Relaxed)
    }

    /// Waits until what is told fulfils `condition`; not at all if it does already.
    pub async fn wait_for(&self, condition: impl FnMut(&LeaderInfo) -> bool) -> LeaderInfo {
        let mut told = self.told.subscribe();
        let told = told.wait_for(condition).await;
        *told.expect("the sender lives as long as `self`")
    }
}
