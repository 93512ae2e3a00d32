//! What every thread of the member shares.

use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use retcd_node::Input;
use retcd_proto::etcdserverpb::{RangeRequest, TxnRequest};
use retcd_state::lease::SharedLessor;
use retcd_state::machine::{SharedAlarms, SharedAuth, SharedMembership};
use retcd_state::mvcc::{
    self, Begun, HashInPieces, KeyspaceHash, RangeError, RangeInPieces, RangeReply, StoreRevision,
    TxnInPieces, TxnReply,
};
use retcd_state::version::Version;
use retcd_state::watch::Origin;
use retcd_storage::backend::Backend;

use super::apply_thread::ToApply;
use super::backend_thread::{NoRoom, ToBackend};
use super::clock::Clock;
use super::leadership::Leadership;
use super::mailbox::Mailboxes;
use super::progress::Progress;
use super::room::Room;
use super::watches::WatchCounts;
use crate::auth::Authenticator;
use crate::config::Config;
use crate::config::gates::Gate;
use crate::gauge::Gauge;
use crate::grpc::budget::AnswerBudget;
use crate::grpc::status::Status;
use crate::metrics::Metrics;
use crate::peer::{Dialer, Transport};
use crate::workers::{Stopped, Workers};

/// The member as seen from a connection: readers, queues and numbers, no decisions.
pub struct Member {
    /// This member's id.
    pub id: u64,
    /// The cluster's id.
    pub cluster_id: u64,
    /// The effective configuration.
    pub config: Arc<Config>,
    /// Limits that requests are checked against.
    pub limits: Limits,
    /// Reads the keyspace.
    pub reader: mvcc::Reader,
    /// The leases.
    pub lessor: SharedLessor,
    /// The alarms.
    pub alarms: SharedAlarms,
    /// Users and roles.
    pub auth: SharedAuth,
    /// Threads for work that would hold up connections.
    pub workers: Workers,
    /// Knows who sends a request.
    pub authenticator: Authenticator,
    /// The members and the cluster's version.
    pub membership: SharedMembership,
    /// The database.
    pub backend: Backend,
    /// The room on the disk.
    pub room: Arc<Room>,
    /// How far the log is.
    pub progress: Progress,
    /// Who leads.
    pub leadership: Leadership,
    /// Time since the start.
    pub clock: Clock,
    /// What Prometheus is told.
    pub metrics: Arc<Metrics>,
    /// Ways to the connection threads.
    pub mailboxes: Mailboxes,
    /// Watches and waiting requests of each connection thread, for the metrics.
    pub watch_counts: Vec<Arc<WatchCounts>>,
    /// Proposals of all threads that wait for their answer.
    pub pending: Gauge,
    /// Memory for answers on their way to clients.
    pub answers: AnswerBudget,
    /// Defragmentations under way.
    pub defragmenting: InFlight,
    /// Whether a database of the leader's is taking the place of ours.
    pub restoring: InFlight,
    /// Held by the one defragmentation that is at work; others wait without a thread.
    pub defragmentation: Arc<tokio::sync::Mutex<()>>,
    pub(super) storage_version: RwLock<Option<Version>>,
    /// When a compaction last finished, in seconds since 1970; 0 before the first.
    pub compacted_at_seconds: AtomicU64,
    /// Opens connections to other members.
    pub dialer: Dialer,
    /// Sends to the other members; there from before any thread runs.
    pub(super) transport: OnceLock<Transport>,
    /// The newest term whose first entry is applied: from its own on a leader knows all that is committed.
    pub(super) begun_term: tokio::sync::watch::Sender<u64>,
    /// The version that all members have agreed to, for those who wait for it.
    pub(super) agreed_version: tokio::sync::watch::Sender<Option<Version>>,
    pub(super) node: SyncSender<Input>,
    pub(super) apply: Sender<ToApply>,
    pub(super) backend_thread: Sender<ToBackend>,
    /// The newest revision whose compaction has finished; physical compactions wait for it.
    pub(super) compacted: tokio::sync::watch::Sender<i64>,
    /// Becomes true when the member stops.
    pub(super) stopping: tokio::sync::watch::Sender<bool>,
    /// Becomes true when the cluster has removed this member.
    pub(super) removed: tokio::sync::watch::Sender<bool>,
}

/// Limits on requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one proposal.
    pub request_bytes_max: usize,
    /// Bytes of one gRPC message from a client.
    pub receive_bytes_max: usize,
    /// Operations per list of a transaction.
    pub txn_ops_max: usize,
    /// Bytes in use from which writes are refused; `None` for no quota.
    pub quota_bytes: Option<u64>,
    /// How long a request may wait for its answer.
    pub request_timeout: Duration,
}

impl Limits {
    /// The limits that `config` sets.
    pub fn of(config: &Config) -> Limits {
        Limits {
            request_bytes_max: config.max_request_bytes,
            receive_bytes_max: config.max_grpc_message_bytes(),
            txn_ops_max: config.max_txn_ops,
            quota_bytes: config.quota_bytes(),
            request_timeout: config.request_timeout(),
        }
    }
}

impl Member {
    /// Who answers, for a header.
    pub fn origin(&self) -> Origin {
        Origin {
            cluster_id: self.cluster_id,
            member_id: self.id,
            raft_term: self.leadership.term(),
        }
    }

    /// Reads a range as of now, and measures that. A long one is read in pieces, where nobody waits for it.
    ///
    /// # Errors
    /// As [`mvcc::Reader::range`]; the member stops.
    pub async fn range(&self, request: &RangeRequest) -> Result<RangeReply, ReadError> {
        let started = Instant::now();
        let reply = self.read_range(request).await;
        self.metrics.mvcc.ranges.inc();
        let took = &self.metrics.server.range;
        took.observe(reply.is_ok(), started.elapsed());
        reply
    }

    async fn read_range(&self, request: &RangeRequest) -> Result<RangeReply, ReadError> {
        match self.reader.begin_range(request)? {
            Begun::Done(reply) => Ok(reply),
            Begun::Long(pieces) => {
                let step = |pieces: &mut Box<RangeInPieces>| pieces.step();
                Ok(self.workers.run_in_pieces(pieces, step).await??)
            }
        }
    }

    /// Reads what a transaction of nothing but ranges asks for, in the same way.
    ///
    /// # Errors
    /// As [`mvcc::Reader::txn`]; the member stops.
    pub async fn txn(&self, request: Arc<TxnRequest>) -> Result<TxnReply, ReadError> {
        match self.reader.begin_txn(request)? {
            Begun::Done(reply) => Ok(reply),
            Begun::Long(pieces) => {
                let step = |pieces: &mut Box<TxnInPieces>| pieces.step();
                Ok(self.workers.run_in_pieces(pieces, step).await??)
            }
        }
    }

    /// The version that all members have agreed to.
    pub fn cluster_version(&self) -> Option<Version> {
        self.membership.read().cluster_version()
    }

    /// The version of the database's schema.
    pub fn storage_version(&self) -> Option<Version> {
        *self.storage_version.read()
    }

    /// Sends to the other members.
    pub fn transport(&self) -> &Transport {
        self.transport
            .get()
            .expect("it is set before any thread runs")
    }

    /// Whether this member has no vote.
    pub fn is_learner(&self) -> bool {
        self.membership
            .read()
            .member(self.id)
            .is_some_and(|member| member.is_learner)
    }

    /// Resolves when the compaction at `revision`, or a later one, has freed its space.
    pub async fn compaction_finished(&self, revision: i64) {
        let mut compacted = self.compacted.subscribe();
        // An error means that the member stops; the client learns that otherwise.
        let _ = compacted.wait_for(|finished| *finished >= revision).await;
    }

    /// Makes everything applied so far durable in the database.
    ///
    /// # Errors
    /// There is no room for it, or the member stops.
    pub async fn commit_backend(&self) -> Result<(), NoRoom> {
        let (done, committed) = tokio::sync::oneshot::channel();
        let _ = self.backend_thread.send(ToBackend::Commit(done));
        committed.await.unwrap_or(Err(NoRoom))
    }

    /// The same, for a thread that may block.
    ///
    /// # Errors
    /// As [`Member::commit_backend`].
    pub fn commit_backend_blocking(&self) -> Result<(), NoRoom> {
        let (done, committed) = tokio::sync::oneshot::channel();
        let _ = self.backend_thread.send(ToBackend::Commit(done));
        committed.blocking_recv().unwrap_or(Err(NoRoom))
    }

    /// Whether the other voters have a quorum without this member, as far as it is connected to them.
    pub fn others_have_quorum(&self) -> bool {
        let membership = self.membership.read();
        let voters = || membership.members().filter(|member| !member.is_learner);
        let others = voters().filter(|voter| voter.id != self.id);
        let connected = others.filter(|voter| self.transport().active_since(voter.id).is_some());
        connected.count() > voters().count() / 2
    }

    /// The hash of the keyspace at `revision`, 0 for the current one, and the revision of the store that it was asked of.
    ///
    /// # Errors
    /// The revision is compacted or in the future; the database cannot be read; the member stops.
    pub async fn hash_kv(&self, revision: i64) -> Result<(KeyspaceHash, StoreRevision), ReadError> {
        let hash = self.reader.begin_hash_kv(revision)?;
        Ok(self
            .workers
            .run_in_pieces(hash, HashInPieces::step)
            .await??)
    }

    /// Resolves when the member stops.
    pub async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // An error means that the member is gone altogether.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }

    /// Resolves when the cluster has removed this member.
    pub async fn removed(&self) {
        let mut removed = self.removed.subscribe();
        // An error means that the member is gone altogether.
        let _ = removed.wait_for(|removed| *removed).await;
    }

    /// Whether clients that care for it are told to go elsewhere for a while.
    pub fn is_serving(&self) -> bool {
        let stops = self
            .config
            .feature_gates
            .enabled(Gate::StopGRPCServiceOnDefrag);
        !(stops && self.defragmenting.any())
    }

    /// Whether the member stops.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

/// Why there is no answer, or no hash.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The revision is not there, or cannot be read.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The member stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<ReadError> for Status {
    fn from(error: ReadError) -> Status {
        match error {
            ReadError::Range(error) => error.into(),
            ReadError::Stopped(stopped) => stopped.into(),
        }
    }
}

/// Counts operations under way.
#[derive(Clone, Debug)]
pub struct InFlight(tokio::sync::watch::Sender<usize>);

impl Default for InFlight {
    fn default() -> InFlight {
        InFlight(tokio::sync::watch::channel(0).0)
    }
}

impl InFlight {
    /// Counts one more, until the result is dropped.
    pub fn enter(&self) -> InFlightGuard {
        self.0.send_modify(|count| *count += 1);
        InFlightGuard(self.clone())
    }

    /// Whether any is under way.
    pub fn any(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Follows the number of them.
    pub fn follow(&self) -> tokio::sync::watch::Receiver<usize> {
        self.0.subscribe()
    }
}

/// One operation under way.
pub struct InFlightGuard(InFlight);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}
