//! Connects the parts of a member by queues, and starts the threads that own them.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use retcd_member::request_id::first_read_context;
use retcd_member::room::Room;
use retcd_member::snapshot::Snapshots;
use retcd_member::{
    Applier, Committed, FollowedVersion, Handle, Interest, Logger, Mailbox, Mailboxes, Outputs,
    Parts, Shared, Thread, ToLog,
};
use retcd_node::durable::{self, Dirs, Opened};
use retcd_node::{Config as NodeConfig, Node};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::apply::{ApplyDriver, ApplyInbox};
use super::backend_thread::{Committer, ToBackend};
use super::durable_at::DurableAt;
use super::error::StartError;
use super::heartbeats::Heartbeats;
use super::log_thread::LogThread;
use super::node::{NodeDriver, NodeInbox};
use super::peer_thread::{self, PeerThread};
use super::peers::PeerSet;
use super::snapshot_thread::{SnapshotThread, ToSnapshot};
use crate::accept::{Accepted, Dispatcher, Listeners};
use crate::auth::Authenticator;
use crate::clock::{Clock, timestamp, unix_ms};
use crate::config::Config;
use crate::defragment::defragment_at_start;
use crate::metrics::{Method, Metrics};
use crate::peer::{Client, Dialer, HttpPeers};
use crate::recent::Recent;
use crate::server::{Server, ServerThread};
use crate::tracing::{Exporter, Tracer};
use crate::workers::Workers;

/// Connection threads at the most; more processors than this wait for the one log anyway.
const CONNECTION_THREADS_MAX: usize = 16;

/// A member whose threads run.
pub(super) struct Started {
    pub(super) server: Arc<Server>,
    pub(super) node: NodeInbox,
    pub(super) config: Arc<Config>,
    pub(super) clock: Clock,
    pub(super) dialer: Dialer,
    pub(super) workers: Workers,
    pub(super) apply: ApplyInbox,
    pub(super) backend: mpsc::Sender<ToBackend>,
    pub(super) listeners: Listeners,
    /// To the connection threads.
    pub(super) dispatcher: Dispatcher,
    pub(super) connection_threads: Vec<ConnectionThread>,
    pub(super) peer_thread: Option<PeerThread>,
    /// Sends spans, with `--enable-distributed-tracing`.
    pub(super) exporter: Option<Exporter>,
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
    pub(super) mailbox: Mailbox,
}

/// How a member meets others, made before its data is opened.
pub(super) struct Connected {
    pub(super) listeners: Listeners,
    pub(super) dialer: Dialer,
    pub(super) authenticator: Authenticator,
    pub(super) workers: Workers,
    pub(super) metrics: Arc<Metrics>,
}

/// The ways into the threads. The log's ends with its last sender: a part clones those that it
/// uses, and no others.
pub(super) struct Queues {
    pub(super) node: NodeInbox,
    pub(super) log: mpsc::Sender<ToLog>,
    pub(super) apply: ApplyInbox,
    pub(super) snapshot: mpsc::Sender<ToSnapshot>,
    pub(super) backend: mpsc::Sender<ToBackend>,
}

/// The other ends of [`Queues`].
struct Inboxes {
    log: mpsc::Receiver<ToLog>,
    snapshot: mpsc::Receiver<ToSnapshot>,
    backend: mpsc::Receiver<ToBackend>,
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
        metrics,
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
    let threads = connection_thread_count();
    let version = FollowedVersion::at_start(machine.membership().read().cluster_version())?;
    let (queues, inboxes) = queues();
    // The last one is the peer thread's.
    let (mailboxes, mut mailbox_receivers) = Mailboxes::new(member_id, threads + 1);
    let peer_mailbox = mailbox_receivers.pop();
    let (dispatcher, connection_threads) = connection_threads(mailbox_receivers);
    let room = Arc::new(Room::new(
        Arc::clone(&dirs.disk),
        [dirs.snap_dir.clone(), dirs.wal_dir.clone()],
    ));
    let parts = Parts {
        id: member_id,
        cluster_id,
        config: config.member()?,
        term: recovered.hard_state.term(),
        backend: backend.clone(),
        room: Arc::clone(&room),
        authenticator: Arc::new(authenticator),
        workers: workers.queue().clone(),
        observer: Arc::clone(&metrics) as _,
        node: queues.node.queue(),
        commits: queues.commits(),
    };
    let member = Arc::new(Shared::new(&machine, parts));
    let made_of = peer_thread::Made {
        dialer: dialer.clone(),
        workers: workers.clone(),
        node: queues.node.queue(),
        metrics: Arc::clone(&metrics),
        urls: config
            .initial_advertise_peer_urls
            .iter()
            .map(ToString::to_string)
            .collect(),
    };
    let (transport, handler, driver) = peer_thread::transport(&member, &dirs, made_of);
    let (tracer, exporter) = Tracer::new(&config, clock, &workers).unzip();
    let server = Arc::new(Server {
        member: Arc::clone(&member),
        config: Arc::clone(&config),
        metrics: Arc::clone(&metrics),
        watch_counts: (0..=threads).map(|_| Arc::default()).collect(),
        answers: Default::default(),
        defragmenting: Default::default(),
        restoring: Default::default(),
        defragmentation: Default::default(),
        compacted_at_seconds: Default::default(),
        started: timestamp(),
        transport: transport.clone(),
        tracer,
        recent: config.requests_recorded().then(|| recent(&config)),
    });
    defragment_at_start(&server);

    let node = NodeDriver {
        node: Node::new(node_config(&config, member_id), recovered, clock.now()),
        outputs: Outputs::new(&member, mailboxes.clone()),
        log: queues.log.clone(),
        apply: queues.apply.clone(),
        peers: transport.clone(),
        clock,
        member: Arc::clone(&member),
        heartbeats: Heartbeats::new(config.heartbeat_interval(), Arc::clone(&metrics)),
        taken: Vec::new(),
    };
    let durable_at = Arc::new(DurableAt::default());
    let applier = Applier::new(machine, &member, mailboxes, version);
    let apply = ApplyDriver {
        step_at: applier.is_compacting().then(Instant::now),
        applier,
        node: queues.node.clone(),
        log: queues.log.clone(),
        snapshots: queues.snapshot.clone(),
        server: Arc::clone(&server),
        clock,
        peers: PeerSet::of(&member, transport),
        dirs: dirs.clone(),
        compaction_pause: config.compaction_sleep_interval.std(),
        durable_at: Arc::clone(&durable_at),
        compacting_since: None,
    };
    let snapshot = SnapshotThread {
        snapshots: Snapshots::new(dirs),
        log: queues.log.clone(),
        node: queues.node.clone(),
        apply: queues.apply.clone(),
        server: Arc::clone(&server),
    };
    let logger = LogThread {
        logger: Logger::new(log, Arc::clone(&room)),
        node: queues.node.clone(),
        apply: queues.apply.clone(),
        snapshots: queues.snapshot.clone(),
        workers: workers.queue().clone(),
        room: Arc::clone(&room),
        metrics: Arc::clone(&metrics),
        durable_at,
        clock,
    };
    let committer = Committer {
        backend,
        room,
        metrics,
        pace: config.commit_pace(),
    };
    let (inbox, apply_inbox) = (queues.node.clone(), queues.apply.clone());
    let threads = Threads {
        node: named("node", move || inbox.run(node))?,
        apply: named("apply", move || apply_inbox.run(apply))?,
        snapshot: (
            named("snapshot", move || snapshot.run(&inboxes.snapshot))?,
            queues.snapshot,
        ),
        log: named("log", move || logger.run(&inboxes.log))?,
        backend: named("backend", move || committer.run(&inboxes.backend))?,
    };
    Ok(Started {
        server,
        node: queues.node,
        config,
        clock,
        dialer,
        workers,
        apply: queues.apply,
        backend: queues.backend,
        listeners,
        dispatcher,
        exporter,
        peer_thread: Some(PeerThread {
            number: connection_threads.len(),
            mailbox: peer_mailbox.expect("there is one mailbox more than connection threads"),
            handler,
            driver,
        }),
        connection_threads,
        threads,
    })
}

/// What calls did lately, of the one server that answers on all addresses.
fn recent(config: &Config) -> Recent {
    let urls = &config.listen_client_urls;
    let urls = urls.iter().chain(&config.listen_client_http_urls);
    let urls: Vec<String> = urls.map(ToString::to_string).collect();
    let mut services: Vec<&str> = Method::ALL.iter().map(|method| method.service()).collect();
    services.dedup();
    Recent::new(&urls.join(", "), &services)
}

fn connection_thread_count() -> usize {
    thread::available_parallelism()
        .map_or(1, usize::from)
        .min(CONNECTION_THREADS_MAX)
}

fn connection_threads(mailboxes: Vec<Mailbox>) -> (Dispatcher, Vec<ConnectionThread>) {
    let parts = mailboxes.into_iter().map(|mailbox| {
        let (sender, accepted) = unbounded_channel();
        let thread = ConnectionThread { accepted, mailbox };
        (sender, thread)
    });
    let (senders, threads) = parts.unzip();
    (Dispatcher::new(senders), threads)
}

fn named(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn queues() -> (Queues, Inboxes) {
    let (log, snapshot, backend) = (mpsc::channel(), mpsc::channel(), mpsc::channel());
    let queues = Queues {
        node: NodeInbox::new(),
        log: log.0,
        apply: ApplyInbox::new(),
        snapshot: snapshot.0,
        backend: backend.0,
    };
    let inboxes = Inboxes {
        log: log.1,
        snapshot: snapshot.1,
        backend: backend.1,
    };
    (queues, inboxes)
}

impl Queues {
    /// Commits that somebody waits for.
    fn commits(&self) -> Box<dyn Fn(Committed) + Send + Sync> {
        let backend = self.backend.clone();
        Box::new(move |done| drop(backend.send(ToBackend::Commit(done))))
    }
}

/// What one thread needs to use the member.
#[derive(Clone)]
pub(super) struct ThreadParts {
    pub(super) server: Arc<Server>,
    pub(super) node: NodeInbox,
    pub(super) clock: Clock,
    pub(super) dialer: Dialer,
}

impl ThreadParts {
    /// Called on the thread, in its runtime. `after_turn` follows each turn of the node there.
    pub(super) fn build(
        self,
        number: u8,
        interest: Interest,
        after_turn: impl Fn() + 'static,
    ) -> Rc<ServerThread> {
        let ThreadParts {
            server,
            node,
            clock,
            dialer,
        } = self;
        tokio::task::spawn_local(node.turns_of_this_thread(after_turn));
        let member = &server.member;
        let peers = HttpPeers {
            client: Client::new(dialer, member.config.limits.request_timeout),
            cluster_id: member.cluster_id,
            transport: Some(server.transport.clone()),
            clock,
        };
        let thread = Thread {
            number,
            clock: Rc::new(clock),
            peers: Rc::new(peers),
            interest,
            watch_limits: Default::default(),
            watch_counts: Arc::clone(&server.watch_counts[usize::from(number)]),
        };
        let handle = Handle::new(member, thread);
        ServerThread::new(server, handle)
    }
}

/// Bytes of applied entries that stay in memory for followers that are a little behind. Others are
/// sent what the log has.
const LOG_BYTES_IN_MEMORY: usize = 16 << 20;

fn node_config(config: &Config, id: u64) -> NodeConfig {
    NodeConfig {
        id,
        tick: config.heartbeat_interval(),
        election_ticks: config.election_ticks() as u32,
        pre_vote: config.pre_vote,
        snapshot_count: config.snapshot_count.max(1),
        snapshot_catchup_entries: config.snapshot_catchup_entries,
        log_bytes_in_memory: LOG_BYTES_IN_MEMORY,
        proposal_timeout: config.request_timeout(),
        first_read_context: first_read_context(id, unix_ms()),
        seed: id ^ unix_ms(),
    }
}
