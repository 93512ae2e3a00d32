//! What all threads of a member share: the state to read, queues, and numbers that were published.
//!
//! Nothing in here decides. The parts of a [`Handle`](crate::Handle) are built from it; each keeps
//! what it needs.

use std::sync::Arc;

use parking_lot::RwLock;
use retcd_node::Input;
use retcd_state::lease::SharedLessor;
use retcd_state::machine::{Machine, SharedAlarms, SharedAuth, SharedMembership};
use retcd_state::mvcc;
use retcd_state::v2;
use retcd_state::version::Version;
use retcd_state::watch::Origin;
use retcd_storage::backend::Backend;
use tokio::sync::{oneshot, watch};

use crate::Error;
use crate::config::Config;
use crate::gauge::Gauge;
use crate::identity::Authenticator;
use crate::leadership::Leadership;
use crate::observer::Observer;
use crate::progress::Progress;
use crate::room::Room;
use crate::workers::Workers;

/// The replicated state, to be read. Cheap to clone; only the machine changes it.
#[derive(Clone)]
pub struct State {
    /// The keyspace.
    pub reader: mvcc::Reader,
    /// The leases.
    pub lessor: SharedLessor,
    /// The alarms.
    pub alarms: SharedAlarms,
    /// Users and roles.
    pub auth: SharedAuth,
    /// The members and the cluster's version.
    pub membership: SharedMembership,
    /// The tree of API v2.
    pub v2: v2::Reader,
}

impl State {
    /// The state of `machine`.
    pub fn of(machine: &Machine) -> State {
        State {
            reader: machine.reader(),
            lessor: machine.lessor(),
            alarms: machine.alarms(),
            auth: machine.auth_store(),
            membership: machine.membership(),
            v2: machine.v2_reader(),
        }
    }
}

/// The node's queue, seen from those who put something into it.
pub struct NodeQueue(Box<dyn Fn(Input) -> Result<(), Error> + Send + Sync>);

impl NodeQueue {
    /// A queue that `send` puts inputs into. It fails with [`Error::Overloaded`] when the queue is
    /// full and with [`Error::Stopped`] when nobody reads it any more.
    pub fn new(send: impl Fn(Input) -> Result<(), Error> + Send + Sync + 'static) -> NodeQueue {
        NodeQueue(Box::new(send))
    }

    /// Puts `input` into the queue.
    ///
    /// # Errors
    /// See [`NodeQueue::new`].
    pub fn send(&self, input: Input) -> Result<(), Error> {
        (self.0)(input)
    }
}

/// There is no room for the database to grow: what was written is not durable in it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for the database to grow")]
pub struct NoRoom;

/// Says when a commit of the database has ended.
pub type Committed = oneshot::Sender<Result<(), NoRoom>>;

/// Has the database committed by whoever owns that.
pub type CommitQueue = Box<dyn Fn(Committed) + Send + Sync>;

/// What all threads of a member share.
pub struct Shared {
    /// This member's id.
    pub id: u64,
    /// The cluster's id.
    pub cluster_id: u64,
    /// How the member is to behave.
    pub config: Config,
    /// The replicated state.
    pub state: State,
    /// The database.
    pub backend: Backend,
    /// The room on its disk.
    pub room: Arc<Room>,
    /// How far the log is.
    pub progress: Progress,
    /// Who leads.
    pub leadership: Leadership,
    /// Knows who sends a request.
    pub authenticator: Arc<dyn Authenticator>,
    /// For work that takes long.
    pub workers: Workers,
    /// Counts.
    pub observer: Arc<dyn Observer>,
    /// Into the node.
    pub node: NodeQueue,
    /// Has the database committed.
    pub commits: CommitQueue,
    /// Proposals that wait for their answer.
    pub proposals_pending: Gauge,
    /// What others wait for.
    pub signals: Signals,
    storage_version: RwLock<Option<Version>>,
}

/// What [`Shared::new`] is told.
pub struct Parts {
    /// This member's id.
    pub id: u64,
    /// The cluster's id.
    pub cluster_id: u64,
    /// How the member is to behave.
    pub config: Config,
    /// The term that the member starts in.
    pub term: u64,
    /// The database.
    pub backend: Backend,
    /// The room on its disk.
    pub room: Arc<Room>,
    /// Knows who sends a request.
    pub authenticator: Arc<dyn Authenticator>,
    /// For work that takes long.
    pub workers: Workers,
    /// Counts.
    pub observer: Arc<dyn Observer>,
    /// Into the node.
    pub node: NodeQueue,
    /// Has the database committed.
    pub commits: CommitQueue,
}

impl Shared {
    /// What the threads of the member share whose machine is `machine`.
    pub fn new(machine: &Machine, parts: Parts) -> Shared {
        let state = State::of(machine);
        let cluster_version = state.membership.read().cluster_version();
        Shared {
            id: parts.id,
            cluster_id: parts.cluster_id,
            config: parts.config,
            progress: Progress::new(machine.applied().index),
            leadership: Leadership::new(parts.term),
            storage_version: machine.storage_version().ok().flatten().into(),
            signals: Signals::new(cluster_version),
            state,
            backend: parts.backend,
            room: parts.room,
            authenticator: parts.authenticator,
            workers: parts.workers,
            observer: parts.observer,
            node: parts.node,
            commits: parts.commits,
            proposals_pending: Gauge::default(),
        }
    }

    /// Who answers, for a header.
    pub fn origin(&self) -> Origin {
        Origin {
            cluster_id: self.cluster_id,
            member_id: self.id,
            raft_term: self.leadership.term(),
        }
    }

    /// The version that all members have agreed to.
    pub fn cluster_version(&self) -> Option<Version> {
        self.state.membership.read().cluster_version()
    }

    /// The version of the database's schema.
    pub fn storage_version(&self) -> Option<Version> {
        *self.storage_version.read()
    }

    pub(crate) fn publish_storage_version(&self, machine: &Machine) {
        *self.storage_version.write() = machine.storage_version().ok().flatten();
    }

    /// Whether this member has no vote.
    pub fn is_learner(&self) -> bool {
        let membership = self.state.membership.read();
        membership
            .member(self.id)
            .is_some_and(|member| member.is_learner)
    }

    /// Makes everything applied so far durable in the database.
    ///
    /// # Errors
    /// [`Error::NO_SPACE`]; the member stops.
    pub(crate) async fn commit_database(&self) -> Result<(), Error> {
        let (done, committed) = oneshot::channel();
        (self.commits)(done);
        let committed = committed.await.map_err(|_| Error::Stopped)?;
        committed.map_err(|NoRoom| Error::NO_SPACE)
    }
}

/// States that can be waited for. Each holds a value, so that whoever waits a moment later sees it,
/// too.
#[derive(Debug)]
pub struct Signals {
    stopping: watch::Sender<bool>,
    ended: watch::Sender<bool>,
    removed: watch::Sender<bool>,
    /// The newest revision whose compaction has finished.
    compacted: watch::Sender<i64>,
    /// The newest term whose first entry is applied: from its own on a leader knows all that is
    /// committed.
    begun_term: watch::Sender<u64>,
    agreed_version: watch::Sender<Option<Version>>,
}

const SENDER_LIVES: &str = "the sender lives as long as `self`";

impl Signals {
    fn new(cluster_version: Option<Version>) -> Signals {
        Signals {
            stopping: watch::Sender::new(false),
            ended: watch::Sender::new(false),
            removed: watch::Sender::new(false),
            compacted: watch::Sender::new(-1),
            begun_term: watch::Sender::new(0),
            agreed_version: watch::Sender::new(cluster_version),
        }
    }

    /// The member stops: it takes no more requests, but still answers those in flight.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Whether the member stops.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Follows whether the member stops.
    pub fn follow_stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Resolves when the member stops.
    pub async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        stopping
            .wait_for(|stopping| *stopping)
            .await
            .expect(SENDER_LIVES);
    }

    /// All requests are answered: nobody needs the node or the other members any more.
    pub fn end(&self) {
        self.ended.send_replace(true);
    }

    /// Whether nobody needs the node any more.
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Follows whether nobody needs the node any more.
    pub fn follow_ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// Resolves when nobody needs the node any more.
    pub async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        ended.wait_for(|ended| *ended).await.expect(SENDER_LIVES);
    }

    /// The cluster has removed this member.
    pub fn remove(&self) {
        self.removed.send_replace(true);
    }

    /// Resolves when the cluster has removed this member.
    pub async fn removed(&self) {
        let mut removed = self.removed.subscribe();
        removed
            .wait_for(|removed| *removed)
            .await
            .expect(SENDER_LIVES);
    }

    /// A compaction has removed all rows up to `revision` that it may.
    pub fn compaction_finished(&self, revision: i64) {
        let before = self.compacted.send_replace(revision);
        assert!(before <= revision, "compacted {revision} after {before}");
    }

    /// Resolves when the compaction at `revision`, or a later one, has finished.
    pub async fn compacted(&self, revision: i64) {
        let mut compacted = self.compacted.subscribe();
        compacted
            .wait_for(|finished| *finished >= revision)
            .await
            .expect(SENDER_LIVES);
    }

    pub(crate) fn term_began(&self, term: u64) {
        let before = self.begun_term.send_replace(term);
        assert!(before <= term, "term {term} began after {before}");
    }

    /// The newest term that has begun, as soon as it is another one than `seen`; at once, if it
    /// began before anybody waited.
    pub(crate) async fn other_term(&self, seen: u64) -> u64 {
        let mut begun = self.begun_term.subscribe();
        *begun
            .wait_for(|term| *term != seen)
            .await
            .expect(SENDER_LIVES)
    }

    pub(crate) fn version_agreed(&self, version: Version) {
        self.agreed_version.send_replace(Some(version));
    }

    /// The version that all members have agreed to, as soon as there is one.
    pub(crate) async fn agreed_version(&self) -> Version {
        let mut agreed = self.agreed_version.subscribe();
        let agreed = agreed.wait_for(Option::is_some).await.expect(SENDER_LIVES);
        agreed.expect("it was waited for")
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;
    use futures_util::future::poll_immediate;

    use super::*;

    /// A start took an interval longer now and then.
    #[test]
    fn a_term_that_began_before_anybody_waited_is_seen() {
        let signals = Signals::new(None);
        signals.term_began(2);
        assert_eq!(signals.other_term(0).now_or_never(), Some(2));
        let mut waiting = pin!(signals.other_term(2));
        assert_eq!(poll_immediate(&mut waiting).now_or_never(), Some(None));
        signals.term_began(3);
        assert_eq!(waiting.now_or_never(), Some(3));
    }
}
