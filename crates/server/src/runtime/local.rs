//! The member as one connection thread uses it: propose, read, wait.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::TrySendError;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use prost::Message;
use retcd_node::{Input, Inspection, RejectReason};
use retcd_proto::etcdserverpb::alarm_request::AlarmAction;
use retcd_proto::etcdserverpb::{
    AlarmRequest, AlarmType, InternalRaftRequest, LeaseCheckpoint, LeaseCheckpointRequest,
    Request as V2Request, RequestHeader, TxnRequest,
};
use retcd_proto::raftpb::{ConfChange, ConfChangeType};
use retcd_state::Time;
use retcd_state::machine::Reply;
use retcd_state::membership::{ConfChangeContext, Member as ClusterMember};
use retcd_state::quota;
use tokio::sync::mpsc::UnboundedReceiver;

use super::clock::unix_ms;
use super::ids::RequestIds;
use super::mailbox::{Mail, Outcome};
use super::member::Member;
use super::progress::Urgency;
use super::room::Promised;
use super::waiting::{Confirmed, Inspections, Proposals, Reads};
use super::watches::{StartPoint, Watches};
use crate::auth::{Credentials, Identity};
use crate::config::gates::Gate;
use crate::grpc::status::{self, Status};
use crate::metrics::{Operation, RequestKind};
use crate::peer::Client;

/// How often overdue waits are looked for.
const SWEEP: Duration = Duration::from_millis(100);

/// Everything that belongs to one connection thread; lives as long as the thread.
pub struct Local {
    /// What all threads share.
    pub member: Arc<Member>,
    /// The watches of this thread.
    pub watches: Watches,
    /// Asks other members, from this thread.
    pub client: Client,
    ids: RequestIds,
    /// Counters of the API version that the last client had: most clients have the same.
    last_version: RefCell<(String, [Option<IntCounter>; 2])>,
    proposals: Proposals,
    reads: Reads,
    /// Questions whether this member leads.
    elections: Reads,
    inspections: Inspections,
}

impl Local {
    /// The state of connection thread `thread`.
    pub fn new(member: Arc<Member>, thread: u8, start: StartPoint) -> Rc<Local> {
        let ids = RequestIds::new(member.id, thread, unix_ms());
        let (proposals, reads, elections, inspections) = Default::default();
        let counts = Arc::clone(&member.watch_counts[usize::from(thread)]);
        let watches = Watches::new(start, counts);
        let client = Client::new(member.dialer.clone(), member.limits.request_timeout);
        Rc::new(Local {
            member,
            client,
            watches,
            ids,
            last_version: RefCell::default(),
            proposals,
            reads,
            elections,
            inspections,
        })
    }

    /// A fresh id, also good as the id of a lease.
    pub fn next_id(&self) -> u64 {
        self.ids.next()
    }

    /// Puts `request` through the log in nobody's name and returns what the machine made of it.
    ///
    /// # Errors
    /// etcd's status when the request is too large, the member overloaded or without a leader, the
    /// machine refuses, or there is no answer in time.
    pub async fn propose(&self, request: InternalRaftRequest) -> Result<Reply, Status> {
        self.propose_measured(None, request).await
    }

    /// As [`Local::propose`], for what this member does on its own and not everybody may.
    ///
    /// # Errors
    /// As [`Local::propose`].
    pub async fn propose_as_root(&self, request: InternalRaftRequest) -> Result<Reply, Status> {
        self.propose_measured(self.root(), request).await
    }

    async fn propose_measured(
        &self,
        identity: Option<Identity>,
        request: InternalRaftRequest,
    ) -> Result<Reply, Status> {
        let (operation, started) = (Operation::of(&request), Instant::now());
        let result = self.propose_by(identity, request).await;
        self.observe(operation, started, result.is_ok());
        told(result)
    }

    async fn propose_by(
        &self,
        identity: Option<Identity>,
        mut request: InternalRaftRequest,
    ) -> Result<Outcome, Status> {
        let id = self.begin_proposal(self.urgency_of(&request))?;
        request.header = Some(request_header(id, identity));
        self.propose_encoded(id, request.encode_to_vec()).await
    }

    /// The id of a request that is about to be proposed, unless too many are under way.
    fn begin_proposal(&self, urgency: Urgency) -> Result<u64, Status> {
        match self.member.progress.is_overloaded(urgency) {
            true => Err(status::TOO_MANY_REQUESTS),
            false => Ok(self.ids.next()),
        }
    }

    async fn propose_encoded(&self, id: u64, data: Vec<u8>) -> Result<Outcome, Status> {
        if data.len() > self.member.limits.request_bytes_max {
            return Err(status::REQUEST_TOO_LARGE);
        }
        let input = Input::Propose {
            request: id,
            data: data.into(),
        };
        self.submit(id, input).await
    }

    /// With the gate PriorityRequest the end of a lease is urgent: leases that cannot end are load that never goes away.
    fn urgency_of(&self, request: &InternalRaftRequest) -> Urgency {
        let gates = &self.member.config.feature_gates;
        match request.lease_revoke.is_some() && gates.enabled(Gate::PriorityRequest) {
            true => Urgency::Urgent,
            false => Urgency::Ordinary,
        }
    }

    /// Puts a change of the membership through the log; returns the members after it, by id.
    ///
    /// # Errors
    /// As [`Local::propose`].
    pub async fn propose_conf_change(
        &self,
        kind: ConfChangeType,
        member_id: u64,
        context: Option<&ConfChangeContext>,
    ) -> Result<Vec<ClusterMember>, Status> {
        let id = self.ids.next();
        let change = ConfChange {
            id: Some(id),
            r#type: Some(kind as i32),
            node_id: Some(member_id),
            context: context.map(|context| context.to_json().into()),
        };
        let request = id;
        let input = Input::ProposeConfChange { request, change };
        match told(self.submit(id, input).await)? {
            Reply::Members(members) => Ok(members),
            other => unreachable!("a change of the membership was answered with {other:?}"),
        }
    }

    /// Puts a request in the form of etcd up to 3.4 through the log.
    ///
    /// # Errors
    /// As [`Local::propose`].
    pub async fn propose_v2(&self, mut request: V2Request) -> Result<(), Status> {
        let id = self.ids.next();
        request.id = Some(id);
        let input = Input::Propose {
            request: id,
            data: request.encode_to_vec().into(),
        };
        told(self.submit(id, input).await).map(drop)
    }

    /// Hands a proposal to the node and waits for what the machine makes of it.
    async fn submit(&self, id: u64, input: Input) -> Result<Outcome, Status> {
        let member = &*self.member;
        let asked_at = Instant::now();
        let deadline = member.clock.now() + member.limits.request_timeout;
        let answer = self.proposals.register(id, deadline);
        self.send(input).inspect_err(|_| {
            self.proposals.answer(id, Err(status::TOO_MANY_REQUESTS));
        })?;
        let _pending = member.pending.enter();
        match answer.await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(status)) if status == status::TIMEOUT => Err(self.why_late(asked_at)),
            Ok(Err(status)) => Err(status),
            Err(_) => Err(status::STOPPED),
        }
    }

    /// What to say about a proposal without an answer: whether this member, or the one that leads, may have been cut off.
    fn why_late(&self, asked_at: Instant) -> Status {
        let member = &*self.member;
        let connected = |id| {
            let since = member.transport().active_since(id);
            since.is_some_and(|since| since < asked_at)
        };
        let leader = member.leadership.leader();
        let cut_off = if leader == member.id {
            let membership = member.membership.read();
            let all = membership.members().count();
            let others = membership.members().filter(|other| connected(other.id));
            1 + others.count() < all / 2 + 1
        } else {
            leader != 0 && !connected(leader)
        };
        match cut_off {
            true => status::TIMEOUT_CONNECTION_LOST,
            false => status::TIMEOUT,
        }
    }

    /// As [`Local::propose`] in the sender's name, and measures the time from here to the answer.
    ///
    /// # Errors
    /// As [`Local::propose`] and [`Local::identify`].
    pub async fn propose_as(
        &self,
        credentials: &Credentials,
        operation: Operation,
        request: InternalRaftRequest,
    ) -> Result<Reply, Status> {
        let identity = self.identify(credentials).await?;
        let started = Instant::now();
        let result = self.propose_by(identity, request).await;
        self.observe(operation, started, result.is_ok());
        told(result)
    }

    /// A transaction with more compares and operations than this is worked on outside of the connection
    /// thread, where nobody waits for it: so many take about a tenth of a millisecond.
    pub const INLINE_OPS_MAX: usize = 1000;

    /// As [`Local::propose_as`], a transaction of `ops` compares and operations, nested ones too, in the
    /// name of a sender who was identified before.
    ///
    /// # Errors
    /// As [`Local::propose`].
    pub async fn propose_txn(
        &self,
        identity: Option<Identity>,
        txn: TxnRequest,
        ops: usize,
    ) -> Result<Reply, Status> {
        let started = Instant::now();
        let proposed = async {
            let id = self.begin_proposal(Urgency::Ordinary)?;
            let request = InternalRaftRequest {
                header: Some(request_header(id, identity)),
                txn: Some(txn),
                ..Default::default()
            };
            let data = if ops <= Self::INLINE_OPS_MAX {
                request.encode_to_vec()
            } else {
                let workers = &self.member.workers;
                workers.run(move || request.encode_to_vec()).await?
            };
            self.propose_encoded(id, data).await
        };
        let result = proposed.await;
        self.observe(Operation::Txn, started, result.is_ok());
        told(result)
    }

    /// Counts a request and what it took since `started`, in `etcd_server_request_duration_seconds`. As in etcd, one that went
    /// through the log is a success whatever the machine made of it; that is told by `etcd_server_apply_duration_seconds`.
    pub fn observe(&self, operation: Operation, started: Instant, success: bool) {
        let requests = &self.member.metrics.server.request;
        requests.observe(operation, success, started.elapsed());
    }

    /// Refuses what does not fit into the quota or on the disk any more, and raises the alarm that says so. The room is
    /// promised to the request until the result is dropped.
    ///
    /// The quota counts bytes in use, not the file's length: what a compaction frees is there again.
    ///
    /// # Errors
    /// `mvcc: database space exceeded`.
    pub async fn check_space(&self, cost: u64) -> Result<Promised<'_>, Status> {
        let member = &*self.member;
        let promised = member.room.promise(cost);
        let pending = member.backend.pending_bytes();
        let fits = member.limits.quota_bytes.is_none_or(|quota_bytes| {
            let in_use = member.backend.size_in_use_bytes() + pending;
            quota::fits(in_use, cost, quota_bytes)
        });
        if fits && (cost == 0 || !member.room.refuses(pending)) {
            return Ok(promised);
        }
        self.raise_no_space().await;
        Err(status::NO_SPACE)
    }

    /// Raises the alarm that ends writes.
    pub(super) async fn raise_no_space(&self) {
        let member = &*self.member;
        let alarm = AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: member.id,
            alarm: AlarmType::Nospace as i32,
        };
        // What is refused is refused whether or not the alarm can be raised.
        let _ = self
            .propose(InternalRaftRequest {
                alarm: Some(alarm),
                ..Default::default()
            })
            .await;
    }

    /// Forgets the remaining time that a checkpoint noted for a lease which has its full time again.
    ///
    /// # Errors
    /// As [`Local::propose`].
    pub async fn clear_lease_checkpoint(&self, id: i64) -> Result<(), Status> {
        let checkpoints = vec![LeaseCheckpoint {
            id,
            remaining_ttl: 0,
        }];
        let lease_checkpoint = Some(LeaseCheckpointRequest { checkpoints });
        self.propose(InternalRaftRequest {
            lease_checkpoint,
            ..Default::default()
        })
        .await
        .map(drop)
    }

    /// Counts a client's request by its API version.
    pub fn count_client_request(&self, kind: RequestKind, version: &str) {
        let mut last = self.last_version.borrow_mut();
        if last.0 != version {
            *last = (version.to_owned(), [None, None]);
        }
        last.1[kind as usize]
            .get_or_insert_with(|| {
                let counters = &self.member.metrics.server.client_requests;
                counters.counter(kind, version)
            })
            .inc();
    }

    /// The interval of periodic watch progress, with a jitter of its own for each stream.
    pub fn progress_interval(&self) -> Duration {
        let interval = self.member.config.watch_progress_notify_interval.std();
        interval + interval.mul_f64((self.next_id() % 1000) as f64 / 10_000.0)
    }

    /// Waits until the member has applied everything that was committed when this was called; tells whether it leads.
    ///
    /// # Errors
    /// etcd's status when there is no leader, or none that answers in time.
    pub async fn linearizable(&self) -> Result<Confirmed, Status> {
        let (answer, nothing_in_flight) = self.reads.join();
        if nothing_in_flight {
            self.ask(&self.reads, |read| Input::Read { read });
        }
        answer.await.unwrap_or(Err(status::STOPPED))
    }

    /// Asks a quorum whether this member leads, without waiting for the machine.
    ///
    /// # Errors
    /// As [`Local::linearizable`].
    pub async fn confirm_leader(&self) -> Result<Confirmed, Status> {
        let (answer, nothing_in_flight) = self.elections.join();
        if nothing_in_flight {
            self.ask(&self.elections, |read| Input::ConfirmLeader { read });
        }
        answer.await.unwrap_or(Err(status::STOPPED))
    }

    /// Where this member stands now, by its node.
    ///
    /// # Errors
    /// It stops, or is overwhelmed.
    pub async fn inspect(&self) -> Result<Inspection, Status> {
        let request = self.ids.next();
        let deadline = self.member.clock.now() + self.member.limits.request_timeout;
        let answer = self.inspections.register(request, deadline);
        if let Err(status) = self.send(Input::Inspect { request }) {
            self.inspections.answer(request, Err(status));
        }
        answer.await.unwrap_or(Err(status::STOPPED))
    }

    /// Whether this member leads, by the word of a quorum: for what only a leader should begin.
    pub async fn leads(&self) -> bool {
        matches!(self.confirm_leader().await, Ok(confirmed) if confirmed.leads)
    }

    /// When this thread last asked a quorum, and was told that this member leads.
    pub fn led_at(&self) -> Option<Time> {
        self.reads
            .led_at()
            .max(self.elections.led_at())
            .map(Time::new)
    }

    fn ask(&self, reads: &Reads, input: impl FnOnce(u64) -> Input) {
        let read = self.ids.next();
        let (now, patience) = (self.member.clock.now(), self.member.limits.request_timeout);
        if reads.depart(read, now, patience)
            && let Err(status) = self.send(input(read))
        {
            reads.arrive(read, &Err(status));
        }
    }

    pub(super) fn send(&self, input: Input) -> Result<(), Status> {
        self.member
            .node
            .try_send(input)
            .map_err(|error| match error {
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
            Mail::ReadsReady(reads, leads) => self.arrive(reads, Ok(Confirmed { leads })),
            Mail::ReadsRejected(reads, reason) => self.arrive(reads, Err(reject_status(reason))),
            Mail::Inspected(request, inspection) => {
                self.inspections.answer(request, Ok(inspection));
            }
            Mail::Compacted(revision) => self.watches.hub().compact(revision),
            Mail::Published(changes) => self.watches.publish(&changes),
            Mail::Restored {
                revision,
                compacted,
            } => self.watches.restore(revision, compacted),
        }
    }

    fn arrive(&self, reads: Vec<u64>, answer: Result<Confirmed, Status>) {
        for read in reads {
            if self.reads.arrive(read, &answer) {
                self.ask(&self.reads, |read| Input::Read { read });
            }
            if self.elections.arrive(read, &answer) {
                self.ask(&self.elections, |read| Input::ConfirmLeader { read });
            }
        }
    }

    fn sweep(&self) {
        let now = self.member.clock.now();
        self.proposals.expire(now);
        self.inspections.expire(now);
        self.watches.handle_timeout(Time::new(now));
        let expired = [&self.reads, &self.elections].map(|reads| reads.expired(now));
        for read in expired.into_iter().flatten() {
            self.member.metrics.server.slow_read_indexes.inc();
            self.arrive(vec![read], Err(status::TIMEOUT));
        }
    }
}

/// What the client is told of a proposal.
fn told(result: Result<Outcome, Status>) -> Result<Reply, Status> {
    result?.map_err(|error| Status::from(&error))
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

fn reject_status(reason: RejectReason) -> Status {
    match reason {
        RejectReason::NoLeader => status::NO_LEADER,
        RejectReason::LeaderChanged => status::LEADER_CHANGED,
        RejectReason::TooMany => status::TOO_MANY_REQUESTS,
    }
}
