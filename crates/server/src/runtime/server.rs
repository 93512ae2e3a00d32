//! Runs a member: serves until there is a reason to stop, then stops it.
//!
//! ```text
//! bind ─▶ open storage ─▶ threads ─▶ elected, published, versions agreed ─▶ accept clients ─▶ signal ─▶ stop
//! ```
//! Peers are accepted from the moment the threads run, clients only when they will be answered: a
//! client that connects earlier waits in the listener's queue. [`start`] is the way up to the
//! threads.

use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use retcd_member::{Mailbox, Shared};
use tokio::sync::mpsc::unbounded_channel;

use super::apply::ApplyInbox;
use super::backend_thread::ToBackend;
use super::connection_thread::{self, Http2Settings};
use super::error::StartError;
use super::local_runtime::{run_on_thread, spawn_runtime_thread};
use super::peer_thread;
use super::signals::{StopSignal, reopen_log_files, stop_signal};
use super::snapshot_thread::ToSnapshot;
use super::spawn::{ConnectionThread, Started, ThreadParts, Threads};
use super::start::{start, texts};
use super::tls_thread;
use crate::accept::{BoundListener, Dispatcher, HandshakePool};
use crate::bootstrap::BootstrapError;
use crate::config::Config;
use crate::http::{Access, HttpContext, Profiles};
use crate::log::Text;
use crate::peer::PeerService;
use crate::probe::LocalProbe;
use crate::router::MemberFront;
use crate::server::ServerThread;
use crate::systemd;
use crate::welcome;

/// Runs a member until a signal ends it; returns the process's exit code.
pub fn run(config: Config) -> ExitCode {
    let config = Arc::new(config);
    match start(Arc::clone(&config)).and_then(Started::serve) {
        Ok(End::Signal(signal)) => {
            signal.raise_again();
            ExitCode::SUCCESS
        }
        // As in etcd: its owner wanted it to end.
        Ok(End::Removed) => ExitCode::SUCCESS,
        Err(error) => {
            if let StartError::Bootstrap(reason) = &error {
                crate::error!("bootstrap failed"; "error" => Text(reason));
            }
            if let StartError::Bootstrap(BootstrapError::Discovery(_)) = &error {
                return token_failed(&config, &error);
            }
            crate::log_line!(Fatal, error.message(); "error" => Text(&error));
            ExitCode::FAILURE
        }
    }
}

/// Nearly always the token has served its purpose already, and the answer tells so.
fn token_failed(config: &Config, error: &StartError) -> ExitCode {
    let endpoints: Vec<String> = config.discovery.endpoints.iter().cloned().collect();
    crate::warn!("failed to bootstrap; discovery token was already used";
        "discovery-token" => &config.discovery.token, "discovery-endpoints" => &endpoints, "error" => Text(error));
    crate::log::emit_last(&crate::log_record!(
        Warn,
        None,
        "do not reuse discovery token; generate a new one to bootstrap a cluster"
    ));
    ExitCode::FAILURE
}

/// Why a member has ended.
enum End {
    /// A signal asked for it.
    Signal(StopSignal),
    /// The cluster has removed it.
    Removed,
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
        let mut connection_threads = std::mem::take(&mut self.connection_threads).into_iter();
        let first = connection_threads
            .next()
            .expect("there is at least one processor");
        let others: Vec<JoinHandle<()>> = (1u8..)
            .zip(connection_threads)
            .map(|(number, parts)| {
                let thread_parts = self.thread_parts();
                spawn_runtime_thread(format!("conn-{number}"), move || {
                    let thread = thread_parts.build(number, parts.mailbox.interest(), || ());
                    serve_connections(thread, parts, settings)
                })
            })
            .collect::<Result<_, _>>()?;
        let ended = self.server.member.signals.follow_ended();
        let processors = match self.listeners.any_tls() {
            true => others.len() + 1,
            false => 0,
        };
        let (handshakes, handshaking) =
            tls_thread::start(processors, self.workers.clone(), &ended)?;
        let peers = self.spawn_peer_thread(&handshakes)?;
        let exporting = self.spawn_exporter()?;
        let end = run_on_thread(self.lead(handshakes, first, settings))??;
        // Requests in flight still need the node and the other members.
        join(others);
        self.server.member.signals.end();
        join(handshaking.into_iter().chain([peers]).chain(exporting));
        stop_threads(&self.apply, &self.backend, self.threads);
        crate::info!("closed etcd server"; "name" => &self.config.name, "data-dir" => &self.config.data_dir);
        Ok(end)
    }

    fn thread_parts(&self) -> ThreadParts {
        ThreadParts {
            server: Arc::clone(&self.server),
            node: self.node.clone(),
            clock: self.clock,
            dialer: self.dialer.clone(),
        }
    }

    /// Starts to send spans, if there are any.
    fn spawn_exporter(&mut self) -> Result<Option<JoinHandle<()>>, StartError> {
        let Some(exporter) = self.exporter.take() else {
            return Ok(None);
        };
        let mut ended = self.server.member.signals.follow_ended();
        let ended = async move {
            let _ = ended.wait_for(|ended| *ended).await;
        };
        let thread = spawn_runtime_thread("trace".to_owned(), move || exporter.run(ended));
        Ok(Some(thread?))
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
        let apply = self.apply.clone();
        let serve = move || async move {
            // What others have made durable, or know to be committed.
            apply.worked_by_this_thread();
            let work = move || apply.work(true);
            let thread = thread_parts.build(number, parts.mailbox.interest(), work);
            spawn_mailbox(&thread, parts.mailbox);
            let (sender, accepted) = unbounded_channel();
            let dispatcher = Dispatcher::new(vec![sender]);
            for bound in listeners {
                crate::info!("serving peer traffic"; "address" => bound.address());
                let ended = thread.server.member.signals.follow_ended();
                let accept = bound.accept(dispatcher.clone(), handshakes.clone(), ended);
                tokio::task::spawn_local(accept);
            }
            let service = PeerService::new(parts.handler, LocalProbe(Rc::clone(&thread)));
            let member = &thread.server.member;
            peer_thread::serve(member, service, parts.driver, accepted).await;
        };
        Ok(spawn_runtime_thread("peer".to_owned(), serve)?)
    }

    /// The first connection thread: also makes the member ready, and stops it.
    async fn lead(
        &mut self,
        handshakes: HandshakePool,
        parts: ConnectionThread,
        settings: Http2Settings,
    ) -> Result<End, StartError> {
        let thread = self
            .thread_parts()
            .build(0, parts.mailbox.interest(), || ());
        let connections =
            tokio::task::spawn_local(serve_connections(Rc::clone(&thread), parts, settings));
        let metrics = std::mem::take(&mut self.listeners.metrics);
        self.accept(metrics, &handshakes);
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
                self.accept(clients, &handshakes);
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

    fn accept(&self, listeners: Vec<BoundListener>, handshakes: &HandshakePool) {
        for bound in listeners {
            let stopping = self.server.member.signals.follow_stopping();
            let (dispatcher, handshakes) = (self.dispatcher.clone(), handshakes.clone());
            tokio::task::spawn_local(bound.accept(dispatcher, handshakes, stopping));
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
        welcome::greet(&self.config);
        systemd::notify_ready();
    }
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        // A panic anywhere ends the process at once, so that a join never fails.
        let _ = thread.join();
    }
}

/// Ends the threads: the node first, as it feeds the others; what it has handed out is still
/// written, applied and committed.
fn stop_threads(apply: &ApplyInbox, backend: &mpsc::Sender<ToBackend>, threads: Threads) {
    // Each thread ends when it is told to or when nobody can send to it any more.
    join([threads.node]);
    apply.close();
    join([threads.apply]);
    let (snapshot, to_snapshot) = threads.snapshot;
    let _ = to_snapshot.send(ToSnapshot::Stop);
    join([snapshot, threads.log]);
    let _ = backend.send(ToBackend::Stop);
    join([threads.backend]);
}

/// Everything that runs on one connection thread.
async fn serve_connections(
    thread: Rc<ServerThread>,
    parts: ConnectionThread,
    settings: Http2Settings,
) {
    spawn_mailbox(&thread, parts.mailbox);
    let http = http_context(&thread);
    let front = Rc::new(MemberFront { thread, http });
    connection_thread::serve(front, parts.accepted, settings).await;
}

fn spawn_mailbox(thread: &Rc<ServerThread>, mailbox: Mailbox) {
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
        profiles: config
            .profiles_served()
            .then(|| Profiles::new(thread.server.member.workers.clone())),
        recent: thread.server.recent.clone(),
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
        never = reopen_log_files() => match never? {},
    }
}
