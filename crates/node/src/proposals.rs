//! Requests on their way into the log.
//!
//! Those of a turn enter as one batch. While there is no leader, or leadership is being handed
//! over, they wait, so that clients notice an election as a pause and not as errors.

use std::collections::VecDeque;
use std::time::Duration;

use raft::eraftpb::{Entry, EntryType};

use crate::event::RejectReason;

/// Requests that may wait for a leader; as many as etcd's queue of proposals holds, several times.
const WAITING_MAX: usize = 16 << 10;
/// Bytes of one batch: followers forward it as one message.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// A request that is not in the log yet.
struct Proposal {
    request: u64,
    entry: Entry,
    deadline: Duration,
    /// The term in which this member must lead.
    leads_in: Option<u64>,
}

/// Requests in the order in which they came.
#[derive(Default)]
pub struct ProposalQueue {
    waiting: VecDeque<Proposal>,
    /// How many of them are for one term.
    of_a_term: usize,
}

impl ProposalQueue {
    /// Takes in a request.
    ///
    /// # Errors
    /// Too many wait already.
    pub fn push(
        &mut self,
        request: u64,
        entry: Entry,
        deadline: Duration,
        leads_in: Option<u64>,
    ) -> Result<(), RejectReason> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(RejectReason::TooMany);
        }
        let last = self.waiting.back().map_or(deadline, |last| last.deadline);
        assert!(last <= deadline, "deadline {deadline:?} behind {last:?}");
        self.waiting.push_back(Proposal {
            request,
            entry,
            deadline,
            leads_in,
        });
        self.of_a_term += usize::from(leads_in.is_some());
        Ok(())
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next batch: its requests and entries. A change of the membership ends a batch, as raft
    /// takes one at a time; with `hold_conf_changes` it ends before it.
    pub fn next_batch(&mut self, hold_conf_changes: bool) -> (Vec<u64>, Vec<Entry>) {
        let (mut requests, mut entries) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            let conf_change = next.entry.get_entry_type() == EntryType::EntryConfChange;
            bytes += next.entry.data.len();
            let full = bytes > BATCH_BYTES_MAX && !requests.is_empty();
            if full || (conf_change && hold_conf_changes) {
                break;
            }
            let next = self.waiting.pop_front().expect("front() was just seen");
            self.of_a_term -= usize::from(next.leads_in.is_some());
            requests.push(next.request);
            entries.push(next.entry);
            if conf_change {
                break;
            }
        }
        (requests, entries)
    }

    /// Takes out those whose time is over.
    pub fn expired(&mut self, now: Duration) -> Vec<u64> {
        // All wait equally long, so the oldest are in front.
        let mut requests = Vec::new();
        while let Some(proposal) = self.waiting.pop_front_if(|next| next.deadline <= now) {
            self.of_a_term -= usize::from(proposal.leads_in.is_some());
            requests.push(proposal.request);
        }
        requests
    }

    /// Takes out what a leader of another term than `leading` has decided; `None` is for a member
    /// that does not lead.
    pub fn outdated(&mut self, leading: Option<u64>) -> Vec<u64> {
        if self.of_a_term == 0 {
            return Vec::new();
        }
        let is_outdated = |proposal: &Proposal| {
            let term = proposal.leads_in;
            term.is_some() && term != leading
        };
        let outdated = self.waiting.iter().filter(|next| is_outdated(next));
        let requests: Vec<u64> = outdated.map(|next| next.request).collect();
        self.waiting.retain(|next| !is_outdated(next));
        self.of_a_term -= requests.len();
        requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(bytes: usize) -> Entry {
        Entry {
            data: vec![0; bytes].into(),
            ..Entry::default()
        }
    }

    #[test]
    fn a_batch_is_one_request_or_no_larger_than_a_message() {
        let mut queue = ProposalQueue::default();
        let mut next = |bytes: &[usize]| {
            for (request, bytes) in (1..).zip(bytes) {
                let pushed = queue.push(request, proposal(*bytes), Duration::ZERO, None);
                assert_eq!(pushed, Ok(()));
            }
            let batches = std::iter::from_fn(|| {
                let (requests, _) = queue.next_batch(false);
                (!requests.is_empty()).then_some(requests)
            });
            batches.collect::<Vec<_>>()
        };
        const HALF: usize = BATCH_BYTES_MAX / 2;
        assert_eq!(next(&[HALF, HALF, 1, HALF]), [vec![1, 2], vec![3, 4]]);
        assert_eq!(next(&[1, 2 * HALF + 1, 1]), [vec![1], vec![2], vec![3]]);
    }
}
