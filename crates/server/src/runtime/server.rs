//! Starts a member from its configuration, serves, and stops it.
//!
//! ```text
//! bind ─▶ open storage ─▶ threads ─▶ elected, published, versions agreed ─▶ accept clients ─▶ signal ─▶ stop
//! ```
//! Peers are accepted from the moment the threads run, clients only when they will be answered: a
//! client that connects earlier waits in the listener's queue.

use std::net::IpAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc::{self, TrySendError};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use retcd_member::request_id::first_read_context;
use retcd_member::room::Room;
use retcd_member::snapshot::Snapshots;
use retcd_member::watch::StartPoint;
use retcd_member::{
    Applier, Error, FollowedVersion, Handle, InitialCheckError, Logger, Mail, Mailboxes, NodeQueue,
    Outdated, Outputs, Parts, Shared, Starting, Thread,
};
use retcd_node::durable::{self, Dirs, Opened, StorageError};
use retcd_node::{Config as NodeConfig, Input, Node};
use retcd_state::membership::Member as ClusterMember;
use retcd_storage::disk::OsDisk;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::LocalSet;

use super::apply_thread::{ApplyThread, ToApply};
use super::backend_thread::ToBackend;
use super::backend_thread::{CommitPace, Committer};
use super::connection_thread::{self, Http2Settings};
use super::log_thread::LogThread;
use super::memory::{LockMemoryError, lock_memory};
use super::node_thread::NodeThread;
use super::peer_thread::{self, PeerThread};
use super::peers::PeerSet;
use super::signals::{StopSignal, stop_signal, survive_file_limit};
use super::snapshot_thread::{SnapshotThread, ToSnapshot};
use super::storage;
use super::tls_thread;
use crate::accept::{
    Accepted, BoundListener, ConnectionLimit, Dispatcher, HandshakePool, ListenError, Listeners,
    TooFewDescriptors,
};
use crate::auth::{Authenticator, TokenError, TokenOptions};
use crate::bootstrap::{Bootstrap, BootstrapError, InitialCluster, bootstrap};
use crate::clock::{Clock, unix_ms};
use crate::config::gates::Gate;
use crate::config::{Config, ConfigError, url::Url};
use crate::defragment::defragment_at_start;
use crate::http::{Access, HttpContext};
use crate::log::{self, Text, go_io_error};
use crate::metrics::{Detail, Metrics};
use crate::peer::{Client, Dialer, HttpPeers, PeerService};
use crate::probe::LocalProbe;
use crate::server::{Server, ServerThread};
use crate::systemd;
use crate::tls;
use crate::workers::Workers;

/// Inputs that may wait for the node; a full queue refuses requests.
const NODE_QUEUE_MAX: usize = 16 << 10;
/// Connection threads at the most; more processors than this wait for the one log anyway.
const CONNECTION_THREADS_MAX: usize = 16;

/// Why a member does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The configuration asks for what cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cluster cannot be founded or joined.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// Tokens cannot be as `--auth-token` has them.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// What is stored cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// TLS cannot be had as it is configured.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Clients could not connect.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// Memory cannot be locked.
    #[error(transparent)]
    Memory(#[from] LockMemoryError),
    /// The data differs from the other members'.
    #[error(transparent)]
    Corrupt(#[from] InitialCheckError),
    /// The cluster is too new for this program.
    #[error(transparent)]
    Outdated(#[from] Outdated),
    /// The operating system refused a thread or a signal handler.
    #[error("the operating system refused a thread or a signal handler: {}", go_io_error(.0))]
    System(#[from] std::io::Error),
}

impl StartError {
    /// How etcd begins its last line of the log then; nearly always with the same words, whatever
    /// the reason.
    fn message(&self) -> &'static str {
        match self {
            StartError::Tls(error) => error.message(),
            StartError::System(_) => {
                "cannot make the threads of etcd process; please raise the limit"
            }
            StartError::Descriptors(_) => {
                "file descriptor limit of etcd process is too low; please set higher"
            }
            _ => "discovery failed",
        }
    }
}

/// Runs a member until a signal ends it; returns the process's exit code.
pub fn run(config: Config) -> ExitCode {
    match start(Arc::new(config)).and_then(Started::serve) {
        Ok(End::Signal(signal)) => {
            signal.raise_again();
            ExitCode::SUCCESS
        }
        // As in etcd: its owner wanted it to end.
        Ok(End::Removed) => ExitCode::SUCCESS,
        Err(error) => {
            crate::log_line!(Fatal, error.message(); "error" => Text(&error));
            ExitCode::FAILURE
        }
    }
}

/// Why a member has ended.
enum End {
    /// A signal asked for it.
    Signal(StopSignal),
    /// The cluster has removed it.
    Removed,
}

/// A member whose threads run.
struct Started {
    server: Arc<Server>,
    config: Arc<Config>,
    clock: Clock,
    dialer: Dialer,
    workers: Workers,
    apply: mpsc::Sender<ToApply>,
    backend: mpsc::Sender<ToBackend>,
    listeners: Listeners,
    connection_threads: Vec<ConnectionThread>,
    peer_thread: Option<PeerThread>,
    threads: Threads,
}

/// The threads that own the member's parts, in the order in which they end.
struct Threads {
    node: JoinHandle<()>,
    apply: JoinHandle<()>,
    snapshot: (JoinHandle<()>, mpsc::Sender<ToSnapshot>),
    log: JoinHandle<()>,
    backend: JoinHandle<()>,
}

/// What a connection thread is given.
struct ConnectionThread {
    accepted: UnboundedReceiver<Accepted>,
    mailbox: UnboundedReceiver<Mail>,
    /// What the database held before anything was applied: the mailbox tells of everything since.
    start: StartPoint,
}

fn start(config: Arc<Config>) -> Result<Started, StartError> {
    config.check_start()?;
    TokenOptions::parse(&config.auth_token)?;
    survive_file_limit()?;
    if config.memory_mlock {
        lock_memory()?;
    }
    let limit = ConnectionLimit::for_clients()?;
    let clock = Clock::start();
    let workers = Workers::start()?;
    let authenticator = Authenticator::new(&config, workers.queue().clone())?;
    let endpoints = tls::open(&config)?;
    let listeners = Listeners::bind(&config, &endpoints, &limit)?;
    let connector = tls::Connector::new(endpoints.peer);
    let dialer = Dialer::new(config.peer_dial_timeout(), workers.clone())
        .with_tls(connector)
        .leaving_from(member_local_address(&config));
    let dirs = storage::prepare(Arc::new(OsDisk), &config)?;
    let initial_cluster = match dirs.has_log()? {
        true => None,
        false => Some(InitialCluster::parse(&config.initial_cluster)?),
    };
    log::emit(&config.starting_record(initial_cluster.as_ref().map(ToString::to_string)));
    config.size_records().iter().for_each(log::emit);
    let (opened, remotes) = match initial_cluster.is_some() {
        true => start_first(&dirs, &config, &dialer)?,
        false => (start_again(&dirs, &config, &dialer)?, Vec::new()),
    };
    let identity = opened.identity;
    crate::info!("starting local member";
        "local-member-id" => &format!("{:x}", identity.member_id), "cluster-id" => &format!("{:x}", identity.cluster_id));
    let connected = Connected {
        listeners,
        dialer,
        authenticator,
        workers,
    };
    let started = spawn(config, clock, dirs, opened, connected)?;
    for remote in remotes
        .iter()
        .filter(|remote| remote.id != identity.member_id)
    {
        let transport = started.server.transport();
        transport.add_remote(remote.id, remote.peer_urls());
    }
    Ok(started)
}

/// [`Config::member_local_address`], told as etcd tells it.
fn member_local_address(config: &Config) -> Option<IpAddr> {
    if !config.feature_gates.enabled(Gate::SetMemberLocalAddr) {
        return None;
    }
    let advertised = texts(&config.initial_advertise_peer_urls);
    crate::info!("searching for a suitable member local address in AdvertisePeerURLs"; "advertise-peer-urls" => &advertised);
    let address = config.member_local_address();
    match address {
        Some(address) => {
            crate::info!("setting member local address"; "LocalAddr" => Text(address));
        }
        None => {
            crate::warn!("unable to set a member local address due to lack of suitable local addresses";
                "advertise-peer-urls" => &advertised);
        }
    }
    address
}

/// A member without data; also returns the members of the cluster that it joins.
fn start_first(
    dirs: &Dirs,
    config: &Config,
    dialer: &Dialer,
) -> Result<(Opened, Vec<ClusterMember>), StartError> {
    let runtime = current_thread_runtime()?;
    Ok(match bootstrap(config, dialer, &runtime)? {
        Bootstrap::New(new) => (storage::found(dirs, config, &new)?, Vec::new()),
        Bootstrap::Existing(joined) => {
            let identity = durable::Identity {
                member_id: joined.member_id,
                cluster_id: joined.cluster_id,
            };
            (storage::join(dirs, config, identity)?, joined.members)
        }
    })
}

/// A member with data.
fn start_again(dirs: &Dirs, config: &Config, dialer: &Dialer) -> Result<Opened, StartError> {
    let opened = storage::reopen(dirs, config)?;
    if config.feature_gates.enabled(Gate::InitialCorruptCheck) {
        let id = opened.identity.member_id;
        let membership = opened.machine.membership();
        let others = |member: &&ClusterMember| member.id != id;
        let peers = membership
            .read()
            .members()
            .filter(others)
            .cloned()
            .collect();
        let starting = Starting {
            id,
            reader: &opened.machine.reader(),
            peers,
        };
        check_initially(config, dialer, opened.identity.cluster_id, starting)?;
    }
    Ok(opened)
}

/// The gate `InitialCorruptCheck`, for a member with data.
///
/// # Errors
/// Its data is not that of the others.
fn check_initially(
    config: &Config,
    dialer: &Dialer,
    cluster_id: u64,
    member: Starting<'_>,
) -> Result<(), StartError> {
    let peers = HttpPeers {
        client: Client::new(dialer.clone(), config.request_timeout()),
        cluster_id,
        transport: None,
        clock: Clock::start(),
    };
    let checked: Result<(), InitialCheckError> =
        run_on_thread(retcd_member::check_initially(member, &peers))?;
    checked.map_err(|error| {
        crate::error!("checkInitialHashKV failed"; "error" => Text(&error));
        StartError::Corrupt(error)
    })
}

/// How a member meets others, made before its data is opened.
struct Connected {
    listeners: Listeners,
    dialer: Dialer,
    authenticator: Authenticator,
    workers: Workers,
}

/// Starts the threads on what was opened.
fn spawn(
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
struct ThreadParts {
    server: Arc<Server>,
    clock: Clock,
    dialer: Dialer,
}

impl ThreadParts {
    fn build(self, number: u8, start: StartPoint) -> Rc<ServerThread> {
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

impl Started {
    /// Serves until a signal comes, then stops everything in order.
    fn serve(mut self) -> Result<End, StartError> {
        let keepalive_timeout = self.config.grpc_keepalive_timeout.std();
        let settings = Http2Settings {
            streams_max: self.config.max_concurrent_streams,
            keepalive_interval: Some(self.config.grpc_keepalive_interval.std())
                .filter(|interval| !interval.is_zero() && !keepalive_timeout.is_zero()),
            keepalive_timeout,
        };
        let mut senders = Vec::new();
        for connection_thread in &mut self.connection_threads {
            let (sender, accepted) = unbounded_channel();
            connection_thread.accepted = accepted;
            senders.push(sender);
        }
        let dispatcher = Dispatcher::new(senders);
        let mut connection_threads = std::mem::take(&mut self.connection_threads).into_iter();
        let first = connection_threads
            .next()
            .expect("there is at least one processor");
        let others: Vec<JoinHandle<()>> = (1u8..)
            .zip(connection_threads)
            .map(|(number, parts)| {
                let thread_parts = self.thread_parts();
                thread::Builder::new()
                    .name(format!("conn-{number}"))
                    .spawn(move || {
                        run_on_thread(async move {
                            let thread = thread_parts.build(number, parts.start);
                            serve_connections(thread, parts, settings).await
                        })
                        .expect("a runtime was built on the first thread, too");
                    })
            })
            .collect::<Result<_, _>>()?;
        let stopping = self.server.member.signals.follow_stopping();
        let processors = match self.listeners.any_tls() {
            true => others.len() + 1,
            false => 0,
        };
        let (handshakes, handshaking) =
            tls_thread::start(processors, self.workers.clone(), &stopping)?;
        let peers = self.spawn_peer_thread(&handshakes)?;
        let end = run_on_thread(self.lead(dispatcher, handshakes, first, settings))??;
        for thread in others.into_iter().chain([peers]).chain(handshaking) {
            let _ = thread.join();
        }
        stop_threads(&self.apply, &self.backend, self.threads);
        crate::info!("closed etcd server"; "name" => &self.config.name, "data-dir" => &self.config.data_dir);
        Ok(end)
    }

    fn thread_parts(&self) -> ThreadParts {
        ThreadParts {
            server: Arc::clone(&self.server),
            clock: self.clock,
            dialer: self.dialer.clone(),
        }
    }

    /// Starts to serve the other members.
    fn spawn_peer_thread(
        &mut self,
        handshakes: &HandshakePool,
    ) -> Result<JoinHandle<()>, StartError> {
        let parts = self.peer_thread.take().expect("it is started once");
        let listeners = std::mem::take(&mut self.listeners.peer);
        let thread_parts = self.thread_parts();
        let number = u8::try_from(parts.number).expect("there are few connection threads");
        let handshakes = handshakes.clone();
        let serve = move || {
            run_on_thread(async move {
                let thread = thread_parts.build(number, parts.start);
                spawn_mailbox(&thread, parts.mailbox);
                let (sender, accepted) = unbounded_channel();
                let dispatcher = Dispatcher::new(vec![sender]);
                for bound in listeners {
                    crate::info!("serving peer traffic"; "address" => bound.address());
                    let stopping = thread.server.member.signals.follow_stopping();
                    let accept = bound.accept(dispatcher.clone(), handshakes.clone(), stopping);
                    tokio::task::spawn_local(accept);
                }
                let service = PeerService::new(parts.handler, LocalProbe(Rc::clone(&thread)));
                let member = &thread.server.member;
                peer_thread::serve(member, service, parts.driver, accepted).await;
            })
            .expect("a runtime was built on the first thread, too");
        };
        Ok(thread::Builder::new()
            .name("peer".to_owned())
            .spawn(serve)?)
    }

    /// The first connection thread: also makes the member ready, and stops it.
    async fn lead(
        &mut self,
        dispatcher: Dispatcher,
        handshakes: HandshakePool,
        parts: ConnectionThread,
        settings: Http2Settings,
    ) -> Result<End, StartError> {
        let thread = self.thread_parts().build(0, parts.start);
        let connections =
            tokio::task::spawn_local(serve_connections(Rc::clone(&thread), parts, settings));
        let metrics = std::mem::take(&mut self.listeners.metrics);
        self.accept(metrics, &dispatcher, &handshakes);
        for url in &self.config.listen_metrics_urls {
            crate::info!("serving metrics"; "address" => url.as_str());
        }
        for task in thread.member.early_tasks() {
            tokio::task::spawn_local(task);
        }
        let end = end_of(Arc::clone(&self.server.member));
        tokio::pin!(end);
        let end = tokio::select! {
            end = &mut end => end?,
            () = thread.member.become_ready() => {
                let clients = std::mem::take(&mut self.listeners.client);
                self.accept(clients, &dispatcher, &handshakes);
                self.announce();
                for task in thread.member.tasks() {
                    tokio::task::spawn_local(task);
                }
                end.await?
            }
        };
        match end {
            End::Signal(signal) => {
                crate::info!("received signal; shutting down"; "signal" => signal.name())
            }
            End::Removed => {
                crate::warn!("server error"; "error" => "the member has been permanently removed from the cluster");
                crate::warn!("data-dir used by this member must be removed"; "data-dir" => &self.config.data_dir);
            }
        }
        crate::info!("closing etcd server"; "name" => &self.config.name, "data-dir" => &self.config.data_dir,
            "advertise-peer-urls" => texts(&self.config.initial_advertise_peer_urls),
            "advertise-client-urls" => texts(&self.config.advertise_client_urls));
        if matches!(end, End::Signal(_)) {
            // While clients are still served: they need a leader.
            thread.member.transfer.leave().await;
        }
        self.server.member.signals.stop();
        let _ = connections.await;
        Ok(end)
    }

    fn accept(
        &self,
        listeners: Vec<BoundListener>,
        dispatcher: &Dispatcher,
        handshakes: &HandshakePool,
    ) {
        for bound in listeners {
            let stopping = self.server.member.signals.follow_stopping();
            tokio::task::spawn_local(bound.accept(
                dispatcher.clone(),
                handshakes.clone(),
                stopping,
            ));
        }
    }

    fn announce(&self) {
        crate::info!("ready to serve client requests");
        let traffic = if self.config.listen_client_http_urls.is_empty() {
            "grpc+http"
        } else {
            "grpc"
        };
        let http = self
            .config
            .listen_client_http_urls
            .iter()
            .map(|url| (url, "http"));
        for (url, traffic) in self
            .config
            .listen_client_urls
            .iter()
            .map(|url| (url, traffic))
            .chain(http)
        {
            let line = match url.is_secure() {
                true => "serving client traffic securely",
                false => "serving client traffic insecurely; this is strongly discouraged!",
            };
            crate::info!(line; "traffic" => traffic, "address" => &url.address());
        }
        systemd::notify_ready();
    }
}

/// Ends the threads: the node first, as it feeds the others; what it has handed out is still
/// written, applied and committed.
fn stop_threads(
    apply: &mpsc::Sender<ToApply>,
    backend: &mpsc::Sender<ToBackend>,
    threads: Threads,
) {
    // Each thread ends when it is told to or when nobody can send to it any more. A panic anywhere
    // ends the process at once, so that a join never fails.
    let _ = threads.node.join();
    let _ = apply.send(ToApply::Stop);
    let _ = threads.apply.join();
    let (snapshot, to_snapshot) = threads.snapshot;
    let _ = to_snapshot.send(ToSnapshot::Stop);
    let _ = snapshot.join();
    let _ = threads.log.join();
    let _ = backend.send(ToBackend::Stop);
    let _ = threads.backend.join();
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

/// Runs `future` on a runtime of this thread's own.
pub(super) fn run_on_thread<F: Future>(future: F) -> std::io::Result<F::Output> {
    Ok(LocalSet::new().block_on(&current_thread_runtime()?, future))
}

fn current_thread_runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Everything that runs on one connection thread.
async fn serve_connections(
    thread: Rc<ServerThread>,
    parts: ConnectionThread,
    settings: Http2Settings,
) {
    spawn_mailbox(&thread, parts.mailbox);
    let http = http_context(&thread);
    connection_thread::serve(thread, http, parts.accepted, settings).await;
}

fn spawn_mailbox(thread: &Rc<ServerThread>, mailbox: UnboundedReceiver<Mail>) {
    let member = Rc::clone(&thread.member);
    tokio::task::spawn_local(async move { member.run_mailbox(mailbox).await });
}

fn http_context(thread: &Rc<ServerThread>) -> Rc<HttpContext<LocalProbe>> {
    let config = &thread.server.config;
    Rc::new(HttpContext {
        probe: LocalProbe(Rc::clone(thread)),
        metrics: Arc::clone(&thread.server.metrics),
        access: Access {
            cors: config.cors.0.clone(),
            host_whitelist: config.host_whitelist.0.clone(),
        },
        command_line: std::env::args().collect(),
    })
}

/// Resolves when there is a reason to stop.
async fn end_of(member: Arc<Shared>) -> Result<End, StartError> {
    // The other members still have to learn from this one that its removal is committed.
    const REMOVED_STOP_DELAY: Duration = Duration::from_secs(1);
    let removed = async {
        member.signals.removed().await;
        tokio::time::sleep(REMOVED_STOP_DELAY).await;
    };
    tokio::select! {
        signal = stop_signal() => Ok(End::Signal(signal?)),
        () = removed => Ok(End::Removed),
    }
}
