//! The member as one connection thread uses it: propose, read, wait.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::TrySendError;
use std::time::Duration;

use prost::Message;
use retcd_node::{Input, RejectReason};
use retcd_proto::etcdserverpb::{InternalRaftRequest, RequestHeader};
use retcd_state::machine::Reply;
use tokio::sync::mpsc::UnboundedReceiver;

use super::clock::unix_ms;
use super::ids::RequestIds;
use super::mailbox::Mail;
use super::member::Member;
use super::waiting::{Proposals, Reads};
use super::watches::Watches;
use crate::grpc::status::{self, Status};

/// How often overdue waits are looked for.
const SWEEP: Duration = Duration::from_millis(100);

/// Everything that belongs to one connection thread; lives as long as the thread.
pub struct Local {
    /// What all threads share.
    pub member: Arc<Member>,
    /// The watches of this thread.
    pub watches: Watches,
    ids: RequestIds,
    proposals: Proposals,
    reads: Reads,
}

impl Local {
    /// The state of connection thread `thread`.
    pub fn new(member: Arc<Member>, thread: u8) -> Rc<Local> {
        let ids = RequestIds::new(member.id, thread, unix_ms());
        let (proposals, reads) = (Proposals::default(), Reads::default());
        let watches = Watches::new(member.reader.revision(), member.reader.compacted_revision());
        Rc::new(Local { member, watches, ids, proposals, reads })
    }

    /// A fresh id, also good as the id of a lease.
    pub fn next_id(&self) -> u64 {
        self.ids.next()
    }

    /// Puts `request` through the log and returns what the machine made of it.
    ///
    /// # Errors
    /// etcd's status when the request is too large, the member overloaded or without a leader, the
    /// machine refuses, or there is no answer in time.
    pub async fn propose(&self, mut request: InternalRaftRequest) -> Result<Reply, Status> {
        let member = &*self.member;
        if member.progress.is_overloaded() {
            return Err(status::TOO_MANY_REQUESTS);
        }
        let id = self.ids.next();
        request.header = Some(RequestHeader { id, ..Default::default() });
        let data = request.encode_to_vec();
        if data.len() > member.limits.request_bytes_max {
            return Err(status::REQUEST_TOO_LARGE);
        }
        let deadline = member.clock.now() + member.limits.request_timeout;
        let answer = self.proposals.register(id, deadline);
        self.send(Input::Propose { request: id, data: data.into() }).inspect_err(|_| {
            self.proposals.answer(id, Err(status::TOO_MANY_REQUESTS));
        })?;
        match answer.await {
            Ok(Ok(outcome)) => outcome.map_err(|error| Status::from(&error)),
            Ok(Err(status)) => Err(status),
            Err(_) => Err(status::STOPPED),
        }
    }

    /// Waits until the member has applied everything that was committed when this was called.
    ///
    /// # Errors
    /// etcd's status when there is no leader, or none that answers in time.
    pub async fn linearizable(&self) -> Result<(), Status> {
        let (answer, nothing_in_flight) = self.reads.join();
        if nothing_in_flight {
            self.ask_for_reads();
        }
        answer.await.unwrap_or(Err(status::STOPPED))
    }

    /// Requests that wait for their answer.
    pub fn pending(&self) -> usize {
        self.proposals.len()
    }

    fn ask_for_reads(&self) {
        let read = self.ids.next();
        let deadline = self.member.clock.now() + self.member.limits.request_timeout;
        if self.reads.depart(read, deadline)
            && let Err(status) = self.send(Input::Read { read })
        {
            self.reads.arrive(read, &Err(status));
        }
    }

    fn send(&self, input: Input) -> Result<(), Status> {
        self.member.node.try_send(input).map_err(|error| match error {
            TrySendError::Full(_) => status::TOO_MANY_REQUESTS,
            TrySendError::Disconnected(_) => status::STOPPED,
        })
    }

    /// Delivers mail and ends overdue waits, until the member stops.
    pub async fn run_mailbox(self: Rc<Local>, mut mailbox: UnboundedReceiver<Mail>) {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                mail = mailbox.recv() => match mail {
                    Some(mail) => self.deliver(mail),
                    None => return,
                },
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    fn deliver(&self, mail: Mail) {
        match mail {
            Mail::Replies(replies) => {
                for (request, outcome) in replies {
                    self.proposals.answer(request, Ok(outcome));
                }
            }
            Mail::Rejected(requests, reason) => {
                for request in requests {
                    self.proposals.answer(request, Err(reject_status(reason)));
                }
            }
            Mail::ReadsReady(reads) => self.arrive(reads, Ok(())),
            Mail::ReadsRejected(reads, reason) => self.arrive(reads, Err(reject_status(reason))),
            Mail::Published(changes) => self.watches.publish(&changes),
        }
    }

    fn arrive(&self, reads: Vec<u64>, answer: Result<(), Status>) {
        for read in reads {
            if self.reads.arrive(read, &answer) {
                self.ask_for_reads();
            }
        }
    }

    fn sweep(&self) {
        let now = self.member.clock.now();
        self.proposals.expire(now);
        self.watches.handle_timeout(now);
        if let Some(read) = self.reads.expired(now) {
            self.member.metrics.server.slow_read_indexes.inc();
            self.arrive(vec![read], Err(status::TIMEOUT));
        }
    }
}

fn reject_status(reason: RejectReason) -> Status {
    match reason {
        RejectReason::NoLeader => status::NO_LEADER,
        RejectReason::LeaderChanged => status::LEADER_CHANGED,
    }
}
