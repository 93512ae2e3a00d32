//! Connects the parts of a member by queues, and starts the threads that own them.

use std::rc::Rc;
use std::sync::mpsc::{self, TrySendError};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use retcd_member::request_id::first_read_context;
use retcd_member::room::Room;
use retcd_member::snapshot::Snapshots;
use retcd_member::watch::StartPoint;
use retcd_member::{
    Applier, Error, FollowedVersion, Handle, Logger, Mail, Mailboxes, NodeQueue, Outputs, Parts,
    Shared, Thread,
};
use retcd_node::durable::{self, Dirs, Opened};
use retcd_node::{Config as NodeConfig, Input, Node};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::apply_thread::{ApplyThread, ToApply};
use super::backend_thread::{CommitPace, Committer, ToBackend};
use super::error::StartError;
use super::log_thread::LogThread;
use super::node_thread::NodeThread;
use super::peer_thread::{self, PeerThread};
use super::peers::PeerSet;
use super::snapshot_thread::{SnapshotThread, ToSnapshot};
use crate::accept::{Accepted, Listeners};
use crate::auth::Authenticator;
use crate::clock::{Clock, unix_ms};
use crate::config::Config;
use crate::defragment::defragment_at_start;
use crate::metrics::{Detail, Metrics};
use crate::peer::{Client, Dialer, HttpPeers};
use crate::server::{Server, ServerThread};
use crate::workers::Workers;

/// Inputs that may wait for the node; a full queue refuses requests.
const NODE_QUEUE_MAX: usize = 16 << 10;
/// Connection threads at the most; more processors than this wait for the one log anyway.
const CONNECTION_THREADS_MAX: usize = 16;

/// A member whose threads run.
pub(super) struct Started {
    pub(super) server: Arc<Server>,
    pub(super) config: Arc<Config>,
    pub(super) clock: Clock,
    pub(super) dialer: Dialer,
    pub(super) workers: Workers,
    pub(super) apply: mpsc::Sender<ToApply>,
    pub(super) backend: mpsc::Sender<ToBackend>,
    pub(super) listeners: Listeners,
    pub(super) connection_threads: Vec<ConnectionThread>,
    pub(super) peer_thread: Option<PeerThread>,
    pub(super) threads: Threads,
}

/// The threads that own the member's parts, in the order in which they end.
pub(super) struct Threads {
    pub(super) node: JoinHandle<()>,
    pub(super) apply: JoinHandle<()>,
    pub(super) snapshot: (JoinHandle<()>, mpsc::Sender<ToSnapshot>),
    pub(super) log: JoinHandle<()>,
    pub(super) backend: JoinHandle<()>,
}

/// What a connection thread is given.
pub(super) struct ConnectionThread {
    pub(super) accepted: UnboundedReceiver<Accepted>,
    pub(super) mailbox: UnboundedReceiver<Mail>,
    /// What the database held before anything was applied: the mailbox tells of everything since.
    pub(super) start: StartPoint,
}

/// How a member meets others, made before its data is opened.
pub(super) struct Connected {
    pub(super) listeners: Listeners,
    pub(super) dialer: Dialer,
    pub(super) authenticator: Authenticator,
    pub(super) workers: Workers,
}

/// Starts the threads on what was opened.
pub(super) fn spawn(
    config: Arc<Config>,
    clock: Clock,
    dirs: Dirs,
    opened: Opened,
    connected: Connected,
) -> Result<Started, StartError> {
    let Connected {
        listeners,
        dialer,
        authenticator,
        workers,
    } = connected;
    let Opened {
        identity: durable::Identity {
            member_id,
            cluster_id,
        },
        log,
        backend,
        machine,
        recovered,
        notices: _,
    } = opened;
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(CONNECTION_THREADS_MAX);
    let version = FollowedVersion::at_start(machine.membership().read().cluster_version())?;
    let start = StartPoint::of(&machine.reader());
    // The last one is the peer thread's.
    let (mailboxes, mut mailbox_receivers) = Mailboxes::new(member_id, threads + 1);
    let peer_mailbox = mailbox_receivers.pop();
    let (to_node, node_inbox) = mpsc::sync_channel(NODE_QUEUE_MAX);
    let (to_log, log_inbox) = mpsc::channel();
    let (to_apply, apply_inbox) = mpsc::channel();
    let (to_snapshot, snapshot_inbox) = mpsc::channel();
    let (to_backend, backend_inbox) = mpsc::channel();
    let metrics = Arc::new(Metrics::new(match config.extensive_metrics() {
        true => Detail::Extensive,
        false => Detail::Basic,
    }));
    let room = Arc::new(Room::new(
        Arc::clone(&dirs.disk),
        [dirs.snap_dir.clone(), dirs.wal_dir.clone()],
    ));
    let term = recovered.hard_state.term();
    let parts = Parts {
        id: member_id,
        cluster_id,
        config: config.member()?,
        term,
        backend: backend.clone(),
        room: Arc::clone(&room),
        authenticator: Arc::new(authenticator),
        workers: workers.queue().clone(),
        observer: Arc::clone(&metrics) as _,
        node: node_queue(to_node.clone()),
        commits: {
            let to_backend = to_backend.clone();
            Box::new(move |done| drop(to_backend.send(ToBackend::Commit(done))))
        },
    };
    let member = Arc::new(Shared::new(&machine, parts));
    let server = Arc::new(Server {
        member: Arc::clone(&member),
        metrics: Arc::clone(&metrics),
        watch_counts: (0..=threads).map(|_| Arc::default()).collect(),
        answers: Default::default(),
        defragmenting: Default::default(),
        restoring: Default::default(),
        defragmentation: Default::default(),
        compacted_at_seconds: Default::default(),
        transport: OnceLock::new(),
        config: Arc::clone(&config),
    });
    defragment_at_start(&server);
    let made_of = peer_thread::Made {
        dialer: dialer.clone(),
        workers: workers.clone(),
        node: to_node.clone(),
    };
    let (transport, handler, driver) = peer_thread::transport(&server, &dirs, made_of);
    let set = server.transport.set(transport.clone());
    assert!(set.is_ok(), "there is one transport");
    let named = |name: &str| thread::Builder::new().name(name.to_owned());
    let node_thread = NodeThread {
        node: Node::new(node_config(&config, member_id), recovered, clock.now()),
        outputs: Outputs::new(&member, mailboxes.clone(), term),
        log: to_log.clone(),
        apply: to_apply.clone(),
        snapshot: to_snapshot.clone(),
        peers: transport.clone(),
        clock,
        member: Arc::clone(&member),
    };
    let node_thread = named("node").spawn(move || node_thread.run(&node_inbox))?;
    let mut peers = PeerSet::new(member_id, transport);
    peers.follow(&member.state.membership.read());
    let apply_thread = ApplyThread {
        applier: Applier::new(machine, &member, mailboxes, version),
        node: to_node.clone(),
        log: to_log.clone(),
        server: Arc::clone(&server),
        clock,
        peers,
        dirs: dirs.clone(),
        compaction_pause: config.compaction_sleep_interval.std(),
    };
    let apply_thread = named("apply").spawn(move || apply_thread.run(&apply_inbox))?;
    let snapshot_thread = SnapshotThread {
        snapshots: Snapshots::new(dirs, Arc::clone(&member.state.membership)),
        log: to_log,
        node: to_node.clone(),
        apply: to_apply.clone(),
        server: Arc::clone(&server),
    };
    let snapshot_thread = named("snapshot").spawn(move || snapshot_thread.run(&snapshot_inbox))?;
    let log_thread = LogThread {
        logger: Logger::new(log, Arc::clone(&room)),
        node: to_node,
        snapshots: to_snapshot.clone(),
        room: Arc::clone(&room),
        metrics: Arc::clone(&metrics),
    };
    let log_thread = named("log").spawn(move || log_thread.run(&log_inbox))?;
    let committer = Committer {
        backend,
        room,
        metrics,
        pace: CommitPace {
            interval: config.backend_batch_interval.std(),
            changes_max: config.backend_batch_limit.unsigned_abs().max(1),
        },
    };
    let backend_thread = named("backend").spawn(move || committer.run(&backend_inbox))?;
    Ok(Started {
        server,
        config,
        clock,
        dialer,
        workers,
        apply: to_apply,
        backend: to_backend,
        listeners,
        connection_threads: mailbox_receivers
            .into_iter()
            .map(|mailbox| ConnectionThread {
                accepted: unbounded_channel().1,
                mailbox,
                start,
            })
            .collect(),
        peer_thread: Some(PeerThread {
            number: threads,
            mailbox: peer_mailbox.expect("there is one mailbox more than connection threads"),
            start,
            handler,
            driver,
        }),
        threads: Threads {
            node: node_thread,
            apply: apply_thread,
            snapshot: (snapshot_thread, to_snapshot),
            log: log_thread,
            backend: backend_thread,
        },
    })
}

fn node_queue(node: mpsc::SyncSender<Input>) -> NodeQueue {
    NodeQueue::new(move |input| {
        node.try_send(input).map_err(|error| match error {
            TrySendError::Full(_) => Error::Overloaded,
            TrySendError::Disconnected(_) => Error::Stopped,
        })
    })
}

/// What one thread needs to use the member.
#[derive(Clone)]
pub(super) struct ThreadParts {
    pub(super) server: Arc<Server>,
    pub(super) clock: Clock,
    pub(super) dialer: Dialer,
}

impl ThreadParts {
    pub(super) fn build(self, number: u8, start: StartPoint) -> Rc<ServerThread> {
        let ThreadParts {
            server,
            clock,
            dialer,
        } = self;
        let member = &server.member;
        let peers = HttpPeers {
            client: Client::new(dialer, member.config.limits.request_timeout),
            cluster_id: member.cluster_id,
            transport: Some(server.transport().clone()),
            clock,
        };
        let thread = Thread {
            number,
            clock: Rc::new(clock),
            peers: Rc::new(peers),
            start,
            watch_limits: Default::default(),
            watch_counts: Arc::clone(&server.watch_counts[usize::from(number)]),
        };
        let handle = Handle::new(member, thread);
        ServerThread::new(server, handle)
    }
}

fn node_config(config: &Config, id: u64) -> NodeConfig {
    NodeConfig {
        id,
        tick: config.heartbeat_interval(),
        election_ticks: config.election_ticks() as u32,
        pre_vote: config.pre_vote,
        snapshot_count: config.snapshot_count.max(1),
        snapshot_catchup_entries: config.snapshot_catchup_entries,
        proposal_timeout: config.request_timeout(),
        first_read_context: first_read_context(id, unix_ms()),
        seed: id ^ unix_ms(),
    }
}
