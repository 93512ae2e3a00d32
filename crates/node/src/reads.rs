//! Linearizable reads: what waits for raft's word, and for the machine.
//!
//! All reads of a turn share one context. Contexts count up from a number that no other member and
//! no earlier life of this member uses, so a late answer cannot be taken for that of a newer read.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Somebody who waits.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    name: u64,
    /// Whether it also waits for the machine.
    applied: bool,
}

impl Read {
    /// Waits for raft's word and the machine.
    pub fn applied(name: u64) -> Read {
        Read {
            name,
            applied: true,
        }
    }

    /// Waits for raft's word alone.
    pub fn at_once(name: u64) -> Read {
        Read {
            name,
            applied: false,
        }
    }
}

/// Reads that wait for raft's word or for the machine.
pub struct ReadQueue {
    waiting: Vec<Read>,
    in_flight: BTreeMap<u64, Vec<Read>>,
    /// Those that do not wait for the machine.
    ready: Vec<u64>,
    /// Read index and reads that wait for the machine to apply it. Invariant: the indexes do not
    /// decrease.
    confirmed: VecDeque<(u64, Vec<u64>)>,
    next_context: u64,
    asked_at: Duration,
}

impl ReadQueue {
    /// No reads; contexts count from `first_context`.
    pub fn new(first_context: u64) -> ReadQueue {
        ReadQueue {
            waiting: Vec::new(),
            in_flight: BTreeMap::new(),
            ready: Vec::new(),
            confirmed: VecDeque::new(),
            next_context: first_context,
            asked_at: Duration::ZERO,
        }
    }

    /// Takes in a read.
    pub fn push(&mut self, read: Read) {
        self.waiting.push(read);
    }

    /// Whether raft has to be asked: reads wait, or raft has been silent for `retry`.
    pub fn must_ask(&self, now: Duration, retry: Duration) -> bool {
        !self.waiting.is_empty() || (!self.in_flight.is_empty() && now >= self.asked_at + retry)
    }

    /// Moves all that wait under a new context, and those in flight for `retry` with them. Answers
    /// to the older contexts hold for nobody then.
    pub fn open_context(&mut self, now: Duration, retry: Duration) -> u64 {
        let mut reads = std::mem::take(&mut self.waiting);
        if now >= self.asked_at + retry {
            reads.extend(std::mem::take(&mut self.in_flight).into_values().flatten());
        }
        let context = self.next_context;
        self.next_context += 1;
        self.asked_at = now;
        let before = self.in_flight.insert(context, reads);
        assert!(before.is_none(), "context {context:x} was used before");
        context
    }

    /// Raft confirmed `index` for `context`. The answer holds for all that were asked before it,
    /// too.
    pub fn confirm(&mut self, context: u64, index: u64) {
        let Some(newer_from) = context.checked_add(1) else {
            return;
        };
        let newer = self.in_flight.split_off(&newer_from);
        let answered = std::mem::replace(&mut self.in_flight, newer);
        let (waiting, ready): (Vec<Read>, Vec<Read>) = answered
            .into_values()
            .flatten()
            .partition(|read| read.applied);
        self.ready.extend(ready.iter().map(|read| read.name));
        if waiting.is_empty() {
            return;
        }
        // A confirmation that was overtaken by a newer one waits for the newer one's index: later,
        // never earlier, than it must.
        let newest = self.confirmed.back().map_or(0, |(index, _)| *index);
        let reads = waiting.iter().map(|read| read.name).collect();
        let index = index.max(newest);
        self.confirmed.push_back((index, reads));
    }

    /// The reads that may be answered, now that the machine has applied `applied`.
    pub fn release(&mut self, applied: u64) -> Vec<u64> {
        let mut released = std::mem::take(&mut self.ready);
        while let Some((_, reads)) = self.confirmed.pop_front_if(|(index, _)| *index <= applied) {
            released.extend(reads);
        }
        released
    }

    /// Takes out what was asked and is not confirmed.
    pub fn take_in_flight(&mut self) -> Vec<u64> {
        let reads = std::mem::take(&mut self.in_flight).into_values().flatten();
        reads.map(|read| read.name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the answer to the second question would be nobody's.
    #[test]
    fn what_is_asked_again_is_asked_for_those_in_flight() {
        let (retry, asked_at) = (Duration::from_millis(500), Duration::from_secs(1));
        let mut reads = ReadQueue::new(7);
        reads.push(Read::applied(1));
        assert!(reads.must_ask(asked_at, retry));
        assert_eq!(reads.open_context(asked_at, retry), 7);
        let early = asked_at + retry - Duration::from_millis(1);
        assert!(!reads.must_ask(early, retry));
        let due = asked_at + retry;
        assert!(reads.must_ask(due, retry));
        assert_eq!(reads.open_context(due, retry), 8);
        // A late answer to the first question is nobody's by then.
        reads.confirm(7, 3);
        assert_eq!(reads.release(3), [0; 0]);
        reads.confirm(8, 3);
        assert_eq!(reads.release(3), [1]);
    }
}
