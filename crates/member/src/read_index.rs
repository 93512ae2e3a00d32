//! Questions to a quorum and to the node, for one thread: what is committed by now, and who leads.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use retcd_node::{Input, Inspection, RejectReason};
use retcd_state::Time;
use retcd_state::membership::Member;

use crate::Error;
use crate::clock::Clock;
use crate::pending::{Confirmed, Pending, ReadBatches};
use crate::request_id::RequestIds;
use crate::shared::Shared;

/// Pause between two looks for a leader, as in etcd.
pub(crate) const LEADER_RETRY: Duration = Duration::from_millis(50);

/// Asks a quorum, in batches, and the node.
pub struct ReadIndex {
    shared: Arc<Shared>,
    ids: Rc<RequestIds>,
    clock: Rc<dyn Clock>,
    reads: ReadBatches,
    /// Questions whether this member leads, which wait for no machine.
    leads: ReadBatches,
    inspections: Pending<Inspection>,
}

impl ReadIndex {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        ids: &Rc<RequestIds>,
        clock: &Rc<dyn Clock>,
    ) -> ReadIndex {
        ReadIndex {
            shared: Arc::clone(shared),
            ids: Rc::clone(ids),
            clock: Rc::clone(clock),
            reads: ReadBatches::default(),
            leads: ReadBatches::default(),
            inspections: Pending::default(),
        }
    }

    /// Waits until readers of the keyspace see every write that was acknowledged when this was called.
    /// A member without others need not wait, nor ask: it has applied what was acknowledged.
    ///
    /// That is not enough to look at leases, users or members: what is being applied may be seen
    /// there before it is published, and before an answer can name its revision.
    ///
    /// # Errors
    /// As [`ReadIndex::linearizable`].
    pub async fn keyspace_is_current(&self) -> Result<(), Error> {
        if let Some(alone) = self.shared.leadership.alone()
            && self.shared.progress.applied() >= alone.from
        {
            let now = self.clock.now();
            self.shared.observer.read_confirmed(now, now);
            return Ok(());
        }
        self.linearizable().await.map(drop)
    }

    /// Waits until the machine has applied everything that was committed when this was called;
    /// tells whether this member leads.
    ///
    /// # Errors
    /// There is no leader, or none that answers in time.
    pub async fn linearizable(&self) -> Result<Confirmed, Error> {
        let asked_at = self.clock.now();
        let (answer, nothing_in_flight) = self.reads.join();
        if nothing_in_flight {
            self.begin(&self.reads, asked_at, |read| Input::Read { read });
        }
        let answer = answer.await.unwrap_or(Err(Error::Stopped))?;
        let observer = &self.shared.observer;
        observer.read_confirmed(asked_at, self.clock.now());
        Ok(answer)
    }

    /// Asks a quorum whether this member leads, without waiting for the machine.
    ///
    /// # Errors
    /// As [`ReadIndex::linearizable`].
    pub async fn confirm_leader(&self) -> Result<Confirmed, Error> {
        if let Some(alone) = self.shared.leadership.alone() {
            // The only member is a quorum.
            self.leads.led(self.clock.now());
            return Ok(Confirmed {
                leads_in: Some(alone.term),
            });
        }
        let (answer, nothing_in_flight) = self.leads.join();
        if nothing_in_flight {
            let now = self.clock.now();
            self.begin(&self.leads, now, |read| Input::ConfirmLeader { read });
        }
        answer.await.unwrap_or(Err(Error::Stopped))
    }

    /// Whether this member leads, by the word of a quorum: for what only a leader should begin.
    pub async fn leads(&self) -> bool {
        self.leads_in().await.is_some()
    }

    /// The term in which this member leads, by the word of a quorum: for what must not be done any
    /// more when another one leads. `None` if this member does not lead, or cannot find out.
    pub(crate) async fn leads_in(&self) -> Option<u64> {
        self.confirm_leader().await.ok()?.leads_in
    }

    /// When this thread last asked a quorum and was told that this member leads.
    pub(crate) fn led_at(&self) -> Option<Time> {
        self.reads.led_at().max(self.leads.led_at()).map(Time::new)
    }

    /// Where this member stands now, by its node.
    ///
    /// # Errors
    /// It stops, or is overwhelmed.
    pub async fn inspect(&self) -> Result<Inspection, Error> {
        let request = self.ids.next();
        let deadline = self.clock.now() + self.shared.config.limits.request_timeout;
        let answer = self.inspections.register(request, deadline);
        if let Err(error) = self.shared.node.send(Input::Inspect { request }) {
            self.inspections.answer(request, Err(error));
        }
        answer.await.unwrap_or(Err(Error::Stopped))
    }

    /// The member that leads, as soon as there is one.
    ///
    /// # Errors
    /// There is none until `deadline`; this member stops.
    pub(crate) async fn leader(&self, deadline: Duration) -> Result<Member, Error> {
        loop {
            let leader = self.shared.leadership.leader();
            let found = self.shared.state.membership.read().member(leader).cloned();
            if let Some(leader) = found {
                return Ok(leader);
            }
            if self.shared.signals.is_stopping() {
                return Err(Error::Stopped);
            }
            if self.clock.now() >= deadline {
                return Err(Error::NoLeader);
            }
            self.clock.sleep(LEADER_RETRY).await;
        }
    }

    fn begin(&self, batches: &ReadBatches, now: Duration, input: impl FnOnce(u64) -> Input) {
        let read = self.ids.next();
        let patience = self.shared.config.limits.request_timeout;
        if batches.begin(read, now, patience)
            && let Err(error) = self.shared.node.send(input(read))
        {
            batches.finish(read, &Err(error));
        }
    }

    /// A quorum has answered `read`.
    pub(crate) fn answered(&self, read: u64, answer: &Result<Confirmed, Error>) {
        if self.reads.finish(read, answer) {
            let now = self.clock.now();
            self.begin(&self.reads, now, |read| Input::Read { read });
        }
        if self.leads.finish(read, answer) {
            let now = self.clock.now();
            self.begin(&self.leads, now, |read| Input::ConfirmLeader { read });
        }
    }

    /// `read` has no answer.
    pub(crate) fn rejected(&self, read: u64, reason: RejectReason) {
        self.answered(read, &Err(reason.into()));
    }

    /// The node has answered `request`.
    pub(crate) fn inspected(&self, request: u64, inspection: Inspection) {
        self.inspections.answer(request, Ok(inspection));
    }

    /// Ends the waits whose deadline has passed.
    pub(crate) fn expire(&self, now: Duration) {
        self.inspections.expire(now);
        let expired = [&self.reads, &self.leads].map(|batches| batches.expired(now));
        for read in expired.into_iter().flatten() {
            self.shared.observer.read_index_timed_out();
            self.answered(read, &Err(Error::TIMED_OUT));
        }
    }
}
