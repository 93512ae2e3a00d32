//! Who waits for what on one thread.
//!
//! Everything here belongs to the thread: no locks. A sweep a few times a second ends the waits
//! whose deadline has passed, so that a request needs no timer of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::Error;

type Sender<T> = oneshot::Sender<Result<T, Error>>;

/// Requests that were not answered yet.
pub(crate) struct Pending<T> {
    /// By id: until when, and who.
    waiting: RefCell<BTreeMap<u64, (Duration, Sender<T>)>>,
}

impl<T> Default for Pending<T> {
    fn default() -> Pending<T> {
        Pending {
            waiting: RefCell::default(),
        }
    }
}

impl<T> Pending<T> {
    /// Waits for the answer to `request` until `deadline`.
    pub(crate) fn register(
        &self,
        request: u64,
        deadline: Duration,
    ) -> oneshot::Receiver<Result<T, Error>> {
        let (sender, receiver) = oneshot::channel();
        let before = self
            .waiting
            .borrow_mut()
            .insert(request, (deadline, sender));
        assert!(before.is_none(), "request id {request:x} was used twice");
        receiver
    }

    /// Answers `request`, if someone still waits for it.
    pub(crate) fn answer(&self, request: u64, answer: Result<T, Error>) {
        if let Some((_, sender)) = self.waiting.borrow_mut().remove(&request) {
            // A client that is gone needs no answer.
            let _ = sender.send(answer);
        }
    }

    /// Ends the waits whose deadline has passed.
    pub(crate) fn expire(&self, now: Duration) {
        let mut waiting = self.waiting.borrow_mut();
        for (_, (_, sender)) in waiting.extract_if(.., |_, (deadline, _)| *deadline <= now) {
            let _ = sender.send(Err(Error::TIMED_OUT));
        }
    }
}

/// What a quorum was asked for, and has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The term in which this member leads, if it does.
    pub leads_in: Option<u64>,
}

impl Confirmed {
    /// Whether this member leads.
    pub fn leads(&self) -> bool {
        self.leads_in.is_some()
    }
}

type ReadAnswer = Result<Confirmed, Error>;
type ReadSender = oneshot::Sender<ReadAnswer>;

/// The questions to a quorum of one thread, in batches.
///
/// One answer serves all that came before it was asked for. While one is under way, new questions
/// gather for the next, so that a thread never has more than one in flight.
#[derive(Default)]
pub(crate) struct ReadBatches {
    state: RefCell<ReadState>,
}

struct InFlight {
    read: u64,
    asked_at: Duration,
    deadline: Duration,
    senders: Vec<ReadSender>,
}

#[derive(Default)]
struct ReadState {
    in_flight: Option<InFlight>,
    gathering: Vec<ReadSender>,
    /// When the newest question was asked that this member was told to lead by.
    led_at: Option<Duration>,
}

impl ReadBatches {
    /// Joins those that are asked for next; the flag tells that nothing is in flight, so that
    /// the caller must ask ([`ReadBatches::begin`]).
    pub(crate) fn join(&self) -> (oneshot::Receiver<ReadAnswer>, bool) {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.borrow_mut();
        state.gathering.push(sender);
        (receiver, state.in_flight.is_none())
    }

    /// Puts those that have gathered under way as `read`, now and for `patience`; `false` when
    /// there are none.
    pub(crate) fn begin(&self, read: u64, now: Duration, patience: Duration) -> bool {
        let mut state = self.state.borrow_mut();
        assert!(
            state.in_flight.is_none(),
            "one read index is in flight already"
        );
        if state.gathering.is_empty() {
            return false;
        }
        state.in_flight = Some(InFlight {
            read,
            asked_at: now,
            deadline: now + patience,
            senders: std::mem::take(&mut state.gathering),
        });
        true
    }

    /// Answers those under way as `read`; `true` when others have gathered meanwhile.
    pub(crate) fn finish(&self, read: u64, answer: &ReadAnswer) -> bool {
        let mut state = self.state.borrow_mut();
        if let Some(arrived) = state.in_flight.take_if(|in_flight| in_flight.read == read) {
            if matches!(answer, Ok(confirmed) if confirmed.leads()) {
                state.led_at = Some(arrived.asked_at);
            }
            for sender in arrived.senders {
                let _ = sender.send(answer.clone());
            }
        }
        state.in_flight.is_none() && !state.gathering.is_empty()
    }

    /// The question under way if its deadline has passed.
    pub(crate) fn expired(&self, now: Duration) -> Option<u64> {
        let state = self.state.borrow();
        let expired = state
            .in_flight
            .as_ref()
            .filter(|waiting| waiting.deadline <= now);
        expired.map(|in_flight| in_flight.read)
    }

    /// This member leads now.
    pub(crate) fn led(&self, now: Duration) {
        self.state.borrow_mut().led_at = Some(now);
    }

    /// When this thread last asked, and was told that this member leads.
    pub(crate) fn led_at(&self) -> Option<Duration> {
        self.state.borrow().led_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_that_come_while_one_is_under_way_wait_for_the_next() {
        let reads = ReadBatches::default();
        let leads = Confirmed { leads_in: Some(5) };
        let (now, patience) = (Duration::from_secs(3), Duration::from_secs(1));
        let (mut first, alone) = reads.join();
        assert!(alone && reads.begin(1, now, patience));
        let (mut second, alone) = reads.join();
        assert!(!alone);
        assert_eq!(reads.led_at(), None);
        assert!(
            reads.finish(1, &Ok(leads)),
            "the second read must be sent now"
        );
        assert_eq!(first.try_recv(), Ok(Ok(leads)));
        assert_eq!(reads.led_at(), Some(now), "when it asked, not now");
        assert!(
            second.try_recv().is_err(),
            "the second read came after the first index was asked for"
        );
        let follows = Confirmed { leads_in: None };
        assert!(reads.begin(2, now + patience, patience));
        assert_eq!(reads.expired(now + patience), None);
        assert_eq!(reads.expired(now + 2 * patience), Some(2));
        assert!(!reads.finish(2, &Ok(follows)));
        assert_eq!(second.try_recv(), Ok(Ok(follows)));
        assert_eq!(reads.led_at(), Some(now));
    }

    #[test]
    fn a_proposal_that_is_overdue_times_out_once() {
        let proposals = Pending::<()>::default();
        let mut answer = proposals.register(7, Duration::from_secs(1));
        proposals.expire(Duration::from_millis(999));
        assert!(answer.try_recv().is_err());
        proposals.expire(Duration::from_secs(1));
        assert_eq!(answer.try_recv().unwrap().unwrap_err(), Error::TIMED_OUT);
        assert!(proposals.waiting.borrow().is_empty());
    }
}
