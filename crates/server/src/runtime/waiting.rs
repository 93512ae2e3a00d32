//! Who waits for what on one connection thread.
//!
//! Everything here belongs to the thread: no locks. A sweep a few times a second ends the waits whose
//! deadline has passed, so that a request needs no timer of its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;

use super::mailbox::Outcome;
use crate::grpc::status::{self, Status};

/// What a waiting request gets: the machine's word, or why there is none.
pub type Answer = Result<Outcome, Status>;

/// Requests that were proposed and not answered yet.
#[derive(Default)]
pub struct Proposals {
    waiting: RefCell<HashMap<u64, (Duration, oneshot::Sender<Answer>)>>,
}

impl Proposals {
    /// Waits for `request` until `deadline`.
    pub fn register(&self, request: u64, deadline: Duration) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        self.waiting
            .borrow_mut()
            .insert(request, (deadline, sender));
        receiver
    }

    /// Answers `request`, if someone still waits for it.
    pub fn answer(&self, request: u64, answer: Answer) {
        if let Some((_, sender)) = self.waiting.borrow_mut().remove(&request) {
            // A client that is gone needs no answer.
            let _ = sender.send(answer);
        }
    }

    /// Ends the waits whose deadline has passed.
    pub fn expire(&self, now: Duration) {
        let mut waiting = self.waiting.borrow_mut();
        for (_, (_, sender)) in waiting.extract_if(|_, (deadline, _)| *deadline <= now) {
            let _ = sender.send(Err(status::TIMEOUT));
        }
    }
}

/// Linearizable reads of one thread.
///
/// One read index serves all reads that came before it was asked for. While one is under way, new
/// reads gather for the next, so that a thread never has more than one in flight.
#[derive(Default)]
pub struct Reads {
    state: RefCell<ReadState>,
}

type ReadSender = oneshot::Sender<Result<(), Status>>;

#[derive(Default)]
struct ReadState {
    in_flight: Option<(u64, Duration, Vec<ReadSender>)>,
    gathering: Vec<ReadSender>,
}

impl Reads {
    /// Joins the reads that are asked for next; the flag tells that nothing is in flight, so that
    /// the caller must ask ([`Reads::depart`]).
    pub fn join(&self) -> (oneshot::Receiver<Result<(), Status>>, bool) {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.borrow_mut();
        state.gathering.push(sender);
        (receiver, state.in_flight.is_none())
    }

    /// Sends the gathered reads on their way under the name `read`; `false` when there are none.
    pub fn depart(&self, read: u64, deadline: Duration) -> bool {
        let mut state = self.state.borrow_mut();
        assert!(
            state.in_flight.is_none(),
            "one read index is in flight already"
        );
        if state.gathering.is_empty() {
            return false;
        }
        let reads = std::mem::take(&mut state.gathering);
        state.in_flight = Some((read, deadline, reads));
        true
    }

    /// Answers the reads under way as `read`; `true` when others have gathered meanwhile.
    pub fn arrive(&self, read: u64, answer: &Result<(), Status>) -> bool {
        let mut state = self.state.borrow_mut();
        if state
            .in_flight
            .as_ref()
            .is_some_and(|(name, ..)| *name == read)
        {
            let (_, _, senders) = state.in_flight.take().expect("it was just seen");
            for sender in senders {
                let _ = sender.send(answer.clone());
            }
        }
        state.in_flight.is_none() && !state.gathering.is_empty()
    }

    /// The read under way if its deadline has passed.
    pub fn expired(&self, now: Duration) -> Option<u64> {
        self.state
            .borrow()
            .in_flight
            .as_ref()
            .filter(|(_, deadline, _)| *deadline <= now)
            .map(|(read, ..)| *read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_that_come_while_one_is_under_way_wait_for_the_next() {
        let reads = Reads::default();
        let (mut first, alone) = reads.join();
        assert!(alone && reads.depart(1, Duration::from_secs(1)));
        let (mut second, alone) = reads.join();
        assert!(!alone);
        assert!(reads.arrive(1, &Ok(())), "the second read must be sent now");
        assert_eq!(first.try_recv(), Ok(Ok(())));
        assert!(
            second.try_recv().is_err(),
            "the second read came after the first index was asked for"
        );
        assert!(reads.depart(2, Duration::from_secs(1)));
        assert!(!reads.arrive(2, &Ok(())));
        assert_eq!(second.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn a_proposal_that_is_overdue_times_out_once() {
        let proposals = Proposals::default();
        let mut answer = proposals.register(7, Duration::from_secs(1));
        proposals.expire(Duration::from_millis(999));
        assert!(answer.try_recv().is_err());
        proposals.expire(Duration::from_secs(1));
        assert_eq!(answer.try_recv().unwrap().unwrap_err(), status::TIMEOUT);
        assert!(proposals.waiting.borrow().is_empty());
    }
}
