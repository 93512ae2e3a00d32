//! What raft decided and the log has not acknowledged yet.
//!
//! Raft's decisions are numbered; some need a write, some do not. An acknowledgement covers all
//! decisions up to the next one that still waits for its write, never beyond: a decision without a
//! write that comes behind an unacknowledged one does not make that durable.

use std::collections::VecDeque;
use std::time::Duration;

use raft::eraftpb::{Message, Snapshot};

/// One decision of raft.
pub struct Decision {
    /// Raft's number for it.
    pub number: u64,
    /// Whether it waits for the log.
    pub writes: bool,
    /// When it was handed out.
    pub at: Duration,
    /// What may be said only when it is durable.
    pub messages: Vec<Message>,
    /// A received snapshot, which the machine may take over only when it is durable.
    pub snapshot: Option<Snapshot>,
}

/// Decisions in the order of their numbers; the first one waits for the log.
#[derive(Default)]
pub struct Unpersisted {
    decisions: VecDeque<Decision>,
    /// The number of the newest decision, whether or not it is still in here.
    newest: u64,
}

impl Unpersisted {
    /// Adds the newest decision.
    pub fn push(&mut self, decision: Decision) {
        let (newest, number) = (self.newest, decision.number);
        assert!(newest < number, "decision {number} behind {newest}");
        self.newest = number;
        self.decisions.push_back(decision);
    }

    /// Takes out what is durable when the log has acknowledged `number`.
    pub fn take_through(&mut self, number: u64) -> Vec<Decision> {
        let newest = self.newest;
        assert!(
            number <= newest,
            "the log acknowledges {number}, decided is {newest}"
        );
        let mut taken = Vec::new();
        while let Some(decision) = self
            .decisions
            .pop_front_if(|next| next.number <= number || !next.writes)
        {
            taken.push(decision);
        }
        let waiting = self.decisions.front();
        assert!(
            waiting.is_none_or(|next| next.writes && next.number > number),
            "a decision is kept that {number} covers"
        );
        taken
    }

    /// Whether the log has acknowledged everything.
    pub fn is_empty(&self) -> bool {
        self.decisions.is_empty()
    }

    /// Since when the log owes an acknowledgement.
    pub fn waiting_since(&self) -> Option<Duration> {
        self.decisions.front().map(|decision| decision.at)
    }
}
