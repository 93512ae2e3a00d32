//! Proposals and their answers, for one thread.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use retcd_node::{Input, RejectReason};
use retcd_proto::etcdserverpb::alarm_request::AlarmAction;
use retcd_proto::etcdserverpb::{
    AlarmRequest, AlarmType, InternalRaftRequest, Request as V2Request, RequestHeader, TxnRequest,
};
use retcd_proto::raftpb::{ConfChange, ConfChangeType};
use retcd_state::machine::Reply;
use retcd_state::membership::{ConfChangeContext, Member};
use retcd_state::request::Operation;

use crate::Error;
use crate::access::Identity;
use crate::clock::Clock;
use crate::mailbox::Outcome;
use crate::observer::Stages;
use crate::peers::Peers;
use crate::pending::Pending;
use crate::progress::Urgency;
use crate::request_id::{RequestIds, is_of_member};
use crate::shared::Shared;

/// A transaction with more compares and operations than this is worked on by the workers: so many
/// take about a tenth of a millisecond.
pub(crate) const INLINE_OPS_MAX: usize = 1000;

/// Puts requests through the log and waits for what the machine makes of them.
///
/// A request comes boxed: it is a kilobyte and more, which futures would have and move several times.
pub(crate) struct Proposer {
    shared: Arc<Shared>,
    ids: Rc<RequestIds>,
    clock: Rc<dyn Clock>,
    peers: Rc<dyn Peers>,
    pending: Pending<(Outcome, Stages)>,
}

impl Proposer {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        ids: &Rc<RequestIds>,
        clock: &Rc<dyn Clock>,
        peers: &Rc<dyn Peers>,
    ) -> Proposer {
        Proposer {
            shared: Arc::clone(shared),
            ids: Rc::clone(ids),
            clock: Rc::clone(clock),
            peers: Rc::clone(peers),
            pending: Pending::default(),
        }
    }

    /// A fresh id, also good as the id of a lease.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.next()
    }

    /// Puts `request` through the log in nobody's name.
    ///
    /// # Errors
    /// It is too large, the member overloaded or without a leader, the machine refuses, or there is
    /// no answer in time.
    pub(crate) async fn propose(&self, request: Box<InternalRaftRequest>) -> Result<Reply, Error> {
        self.propose_by(None, request).await
    }

    /// The same in the name of who was identified before.
    ///
    /// # Errors
    /// As [`Proposer::propose`].
    pub(crate) async fn propose_by(
        &self,
        identity: Option<Identity>,
        request: Box<InternalRaftRequest>,
    ) -> Result<Reply, Error> {
        self.propose_sized(identity, request, 0, None).await
    }

    /// What this member has decided as the leader of `term`: refused once it no longer is.
    ///
    /// For what follows from a leader's own clock, or from what it has asked others, and would be
    /// wrong if its successor has found something else meanwhile. What is as true or harmless later
    /// (an alarm about data, a compaction) may be sent on like any other request.
    ///
    /// # Errors
    /// As [`Proposer::propose`].
    pub(crate) async fn propose_as_leader(
        &self,
        term: u64,
        identity: Option<Identity>,
        request: Box<InternalRaftRequest>,
    ) -> Result<Reply, Error> {
        self.propose_sized(identity, request, 0, Some(term)).await
    }

    /// A transaction of `ops` compares and operations, nested ones too.
    ///
    /// # Errors
    /// As [`Proposer::propose`].
    pub(crate) async fn propose_txn(
        &self,
        identity: Option<Identity>,
        txn: TxnRequest,
        ops: usize,
    ) -> Result<Reply, Error> {
        let request = InternalRaftRequest {
            txn: Some(txn),
            ..Default::default()
        };
        self.propose_sized(identity, request.into(), ops, None)
            .await
    }

    /// Raises an alarm. Whoever cannot now finds the reason for it again.
    pub(crate) async fn raise_alarm(&self, member_id: u64, alarm: AlarmType) {
        let alarm = AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id,
            alarm: alarm as i32,
        };
        let request = InternalRaftRequest {
            alarm: Some(alarm),
            ..Default::default()
        };
        let _ = self.propose(request.into()).await;
    }

    /// Puts a request of `ops` operations through the log.
    async fn propose_sized(
        &self,
        identity: Option<Identity>,
        mut request: Box<InternalRaftRequest>,
        ops: usize,
        leads_in: Option<u64>,
    ) -> Result<Reply, Error> {
        let (operation, started) = (Operation::of(&request), self.clock.now());
        let result = async {
            let id = self.begin(self.urgency_of(&request))?;
            request.header = Some(request_header(id, identity));
            let data = if ops <= INLINE_OPS_MAX {
                request.encode_to_vec()
            } else {
                let workers = &self.shared.workers;
                workers.run(move || request.encode_to_vec()).await?
            };
            self.submit_encoded(id, data, leads_in).await
        };
        let result = result.await;
        self.observe(operation, started, &result);
        Ok(result??)
    }

    /// Puts a change of the membership through the log; returns the members after it, by id.
    ///
    /// # Errors
    /// As [`Proposer::propose`].
    pub(crate) async fn propose_conf_change(
        &self,
        kind: ConfChangeType,
        member_id: u64,
        context: Option<&ConfChangeContext>,
    ) -> Result<Vec<Member>, Error> {
        let id = self.ids.next();
        let change = ConfChange {
            id: Some(id),
            r#type: Some(kind as i32),
            node_id: Some(member_id),
            context: context.map(|context| context.to_json().into()),
        };
        let request = id;
        let input = Input::ProposeConfChange { request, change };
        match self.submit(id, input).await?? {
            Reply::Members(members) => Ok(members),
            other => unreachable!("a change of the membership was answered with {other:?}"),
        }
    }

    /// Puts a request in the form of etcd up to 3.4 through the log.
    ///
    /// # Errors
    /// As [`Proposer::propose`].
    pub(crate) async fn propose_v2(&self, request: V2Request) -> Result<Reply, Error> {
        self.submit_v2(request, None).await
    }

    /// The same with what this member has decided as the leader of `term`.
    ///
    /// # Errors
    /// As [`Proposer::propose_as_leader`].
    pub(crate) async fn propose_v2_as_leader(
        &self,
        term: u64,
        request: V2Request,
    ) -> Result<Reply, Error> {
        self.submit_v2(request, Some(term)).await
    }

    async fn submit_v2(
        &self,
        mut request: V2Request,
        leads_in: Option<u64>,
    ) -> Result<Reply, Error> {
        let id = self.ids.next();
        request.id = Some(id);
        let data = request.encode_to_vec();
        Ok(self.submit_encoded(id, data, leads_in).await??)
    }

    /// The id of a request that is about to be proposed, unless too much is under way.
    fn begin(&self, urgency: Urgency) -> Result<u64, Error> {
        match self.shared.progress.is_overloaded(urgency) {
            true => Err(Error::Overloaded),
            false => Ok(self.ids.next()),
        }
    }

    /// Leases that cannot end are load that never goes away.
    fn urgency_of(&self, request: &InternalRaftRequest) -> Urgency {
        match request.lease_revoke.is_some() && self.shared.config.priority_requests {
            true => Urgency::Urgent,
            false => Urgency::Ordinary,
        }
    }

    async fn submit_encoded(
        &self,
        id: u64,
        data: Vec<u8>,
        leads_in: Option<u64>,
    ) -> Result<Outcome, Error> {
        if data.len() > self.shared.config.limits.request_bytes_max {
            return Err(Error::RequestTooLarge);
        }
        let input = Input::Propose {
            request: id,
            data: data.into(),
            leads_in,
        };
        self.submit(id, input).await
    }

    /// Hands a proposal to the node and waits for what the machine makes of it.
    async fn submit(&self, id: u64, input: Input) -> Result<Outcome, Error> {
        // Otherwise the reply would not find its way back.
        assert!(
            is_of_member(id, self.shared.id),
            "request {id:x} of member {:x}",
            self.shared.id
        );
        let asked_at = self.clock.now();
        let deadline = asked_at + self.shared.config.limits.request_timeout;
        let answer = self.pending.register(id, deadline);
        self.shared.node.send(input).inspect_err(|error| {
            self.pending.answer(id, Err(error.clone()));
        })?;
        let _pending = self.shared.proposals_pending.enter();
        match answer.await {
            Ok(Err(Error::TimedOut { .. })) => Err(Error::TimedOut {
                cut_off: self.may_be_cut_off(asked_at),
            }),
            Ok(answer) => answer.map(|(outcome, stages)| {
                let observer = &self.shared.observer;
                observer.went_through_log(asked_at, stages, self.clock.now());
                outcome
            }),
            Err(_) => Err(Error::Stopped),
        }
    }

    /// Whether this member, or the one that leads, may have been cut off since `asked_at`.
    fn may_be_cut_off(&self, asked_at: Duration) -> bool {
        let connected = |id| {
            let since = self.peers.connected_since(id);
            since.is_some_and(|since| since < asked_at)
        };
        let leader = self.shared.leadership.leader();
        if leader == self.shared.id {
            let membership = self.shared.state.membership.read();
            let all = membership.members().count();
            let others = membership.members().filter(|other| connected(other.id));
            1 + others.count() < all / 2 + 1
        } else {
            leader != 0 && !connected(leader)
        }
    }

    fn observe(&self, operation: Operation, started: Duration, result: &Result<Outcome, Error>) {
        let took = self.clock.now() - started;
        self.shared
            .observer
            .request(operation, result.is_ok(), took);
    }

    /// The machine has executed `request`, which went this way.
    pub(crate) fn executed(&self, request: u64, outcome: Outcome, stages: Stages) {
        self.pending.answer(request, Ok((outcome, stages)));
    }

    /// `request` did not enter the log.
    pub(crate) fn rejected(&self, request: u64, reason: RejectReason) {
        self.pending.answer(request, Err(reason.into()));
    }

    /// Ends the waits whose deadline has passed.
    pub(crate) fn expire(&self, now: Duration) {
        self.pending.expire(now);
    }
}

/// What a log entry says of itself and of who asked for it.
fn request_header(id: u64, identity: Option<Identity>) -> RequestHeader {
    match identity {
        None => RequestHeader {
            id,
            ..Default::default()
        },
        Some(Identity { user, revision }) => RequestHeader {
            id,
            username: user.to_string(),
            auth_revision: revision,
        },
    }
}
