//! Starts a proxy: checks, listeners, threads, in the order and with the lines of etcd's.

use std::convert::Infallible;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use retcd_client::{Client, Config, TlsConfig};
use retcd_proto::etcdserverpb::{MemberListRequest, RangeRequest};
use retcd_tls::Identity;
use tokio::sync::{mpsc, watch as latest};
use tokio::time::MissedTickBehavior;

use super::cache::Cache;
use super::leader::{LeaderWatch, leader_watch};
use super::settings::{ListenerTls, Settings};
use super::thread::{Clients, ProxyThread, Shared};
use super::{lease, register, watch};
use crate::accept::{BoundListener, ConnectionLimit, Dispatcher, ListenError, Protocols};
use crate::budget::AnswerBudget;
use crate::config::settings::Tls;
use crate::config::url::{Url, split_host_port};
use crate::http::{ListenerKind, Profiles};
use crate::log::{self, Level, Text};
use crate::metrics::{Detail, Metrics};
use crate::proxy::discovery::Discovery;
use crate::proxy::flags::Values;
use crate::proxy::{Refusal, listen_address};
use crate::runtime::{run_on_thread, serve_connections, spawn_runtime_thread, start_tls_threads};
use crate::systemd;
use crate::tls;
use crate::workers::Workers;

const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Between attempts to reach the cluster at the start.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Threads for connections at the most, as a member has.
const CONNECTION_THREADS_MAX: usize = 16;

/// Serves until the process is ended; returns only if it cannot.
pub(in crate::proxy) fn run(values: &Values) -> Refusal {
    match start(values) {
        Ok(never) => match never {},
        Err(refusal) => refusal,
    }
}

fn start(values: &Values) -> Result<Infallible, Refusal> {
    let settings = Settings::new(values)?;
    if settings.debug {
        let options = log::Options {
            level: Level::Debug,
            ..log::Options::default()
        };
        log::init(&options).map_err(|error| Refusal::stderr(Text(error).0))?;
    }
    if !values.text("experimental-leasing-prefix").is_empty() {
        crate::warn!(
            "--experimental-leasing-prefix has no effect: linearizable reads ask the cluster"
        );
    }
    let workers = Workers::start().map_err(Refusal::stderr)?;
    let profiles = profiles(&settings, &workers);
    let listener_tls = listener_files(&settings)?;
    let tls_settings = tls_settings(&settings.listener, listener_tls.is_some())?;
    let listener = listen(&settings, listener_tls.as_ref(), &tls_settings)?;
    let config = client_config(&settings)?;
    let client = Client::new(config.clone()).map_err(Refusal::stderr)?;
    if settings.waits_for_cluster {
        run_on_thread(wait_for_cluster(client)).map_err(Refusal::stderr)?;
    }
    let own = own_config(&settings, listener_tls.as_ref());
    if let Some(own) = &own {
        Client::new(own.clone()).map_err(Refusal::stderr)?;
        crate::info!("create proxy client"; "grpcProxyAdvertiseClientURL" => &settings.advertise_client_url);
    }
    let metrics_listener = listen_for_metrics(&settings, listener_tls.as_ref(), &tls_settings)?;
    let has_tls = listener_tls.is_some();
    crate::info!("started gRPC proxy"; "address" => &settings.listen_addr);
    systemd::notify_ready();
    if metrics_listener.is_some() {
        crate::info!("gRPC proxy server metrics URL serving");
    }
    let at = fastrand::usize(0..config.endpoints.len());
    let metrics_endpoint = config.endpoints[at].clone();
    let (endpoints, servers) = latest::channel(Arc::new(config));
    let (leader, leader_watch) = leader_watch();
    let shared = Arc::new(Shared {
        profiles,
        settings,
        metrics: Metrics::new(Detail::Basic),
        budget: AnswerBudget::default(),
        cache: Mutex::new(Cache::default()),
        metrics_endpoint,
        own,
        host_name: host_name(),
        leader,
        servers,
    });
    let (joins, asks) = watch::joins();
    let (renewals, asked_renewals) = mpsc::unbounded_channel();
    let streams = Streams {
        shared: Arc::clone(&shared),
        endpoints,
        asks,
        renewals: asked_renewals,
        leader: leader_watch,
    };
    let threads = Threads {
        shared,
        joins,
        renewals,
    };
    let listeners = [Some(listener), metrics_listener];
    let listeners = listeners.into_iter().flatten();
    let served = serve(threads, streams, workers, listeners, has_tls);
    served.map_err(Refusal::stderr)
}

/// What each thread of connections gets.
#[derive(Clone)]
struct Threads {
    shared: Arc<Shared>,
    joins: watch::Joins,
    renewals: mpsc::UnboundedSender<lease::Renewal>,
}

/// What the thread of streams gets.
struct Streams {
    shared: Arc<Shared>,
    endpoints: latest::Sender<Arc<Config>>,
    asks: mpsc::UnboundedReceiver<watch::Ask>,
    renewals: mpsc::UnboundedReceiver<lease::Renewal>,
    leader: LeaderWatch,
}

/// Runs the threads.
fn serve(
    threads: Threads,
    streams: Streams,
    workers: Workers,
    listeners: impl Iterator<Item = BoundListener>,
    has_tls: bool,
) -> std::io::Result<Infallible> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    spawn_runtime_thread("streams".to_owned(), move || streams.run())?;
    let mut senders = Vec::new();
    for number in 0..processors.min(CONNECTION_THREADS_MAX) {
        let (sender, accepted) = mpsc::unbounded_channel();
        senders.push(sender);
        let threads = threads.clone();
        let serve = move || async move {
            let http2 = threads.shared.settings.http2;
            let thread = ProxyThread::new(threads.shared, threads.joins, threads.renewals);
            let thread = thread.expect("the configurations were tried at the start");
            serve_connections(Rc::new(thread), accepted, http2).await;
        };
        spawn_runtime_thread(format!("conn-{number}"), serve)?;
    }
    let dispatcher = Dispatcher::new(senders);
    let (never, stopping) = latest::channel(false);
    let tls_processors = if has_tls { processors } else { 0 };
    let (handshakes, _) = start_tls_threads(tls_processors, workers, &stopping)?;
    run_on_thread(async move {
        let accepting = listeners.map(|listener| {
            listener.accept(dispatcher.clone(), handshakes.clone(), stopping.clone())
        });
        futures_util::future::join_all(accepting).await;
    })?;
    drop(never);
    Err(std::io::Error::other("the listener failed"))
}

impl Streams {
    /// Runs what clients share at the servers, and what the proxy does on its own.
    async fn run(self) {
        let Streams {
            shared,
            endpoints,
            asks,
            renewals,
            leader,
        } = self;
        let clients = Clients::new(shared.servers.clone());
        let clients = Rc::new(clients.expect("the configuration was tried at the start"));
        let hub = watch::Hub::new(asks, Arc::clone(&shared), Rc::clone(&clients));
        tokio::task::spawn_local(hub.run());
        tokio::task::spawn_local(lease::run(renewals, Rc::clone(&clients)));
        let settings = &shared.settings;
        let registered = async {
            if let Some(registration) = &settings.registration {
                register::run(&clients, settings, registration, &shared.host_name).await;
            }
        };
        let followed = async {
            if let Some(interval) = settings.endpoints_auto_sync_interval {
                follow_members(&clients, interval, &endpoints).await;
            }
        };
        tokio::join!(registered, followed, leader.run(&clients));
        std::future::pending().await
    }
}

/// `--endpoints-auto-sync-interval`: the endpoints are what the members of the cluster say.
async fn follow_members(
    clients: &Clients,
    interval: Duration,
    endpoints: &latest::Sender<Arc<Config>>,
) {
    let mut interval = tokio::time::interval(interval);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let client = clients.current().with_timeout(DIAL_TIMEOUT);
        let request = MemberListRequest { linearizable: true };
        let members = match client.member_list(request).await {
            Ok(list) => list.members,
            Err(error) => {
                crate::info!("Auto sync endpoints failed."; "error" => Text(error));
                continue;
            }
        };
        let started = members
            .into_iter()
            .filter(|m| !m.name.is_empty() && !m.is_learner);
        let mut urls: Vec<String> = started.flat_map(|member| member.client_ur_ls).collect();
        urls.sort();
        urls.dedup();
        if !urls.is_empty() {
            let changed = endpoints.send_if_modified(|config| {
                let mut known = config.endpoints.clone();
                known.sort();
                if known == urls {
                    return false;
                }
                let config = Arc::make_mut(config);
                config.endpoints = urls;
                true
            });
            if changed {
                crate::info!("endpoints of the cluster have changed"; "endpoints" => &endpoints.borrow().endpoints);
            }
        }
    }
}

/// `--experimental-serializable-ordering`.
async fn wait_for_cluster(client: Client) {
    crate::info!("waiting for linearized read from cluster to recover ordering");
    let request = RangeRequest {
        key: "_".into(),
        keys_only: true,
        ..RangeRequest::default()
    };
    while let Err(error) = client
        .with_timeout(DIAL_TIMEOUT)
        .range(request.clone())
        .await
    {
        crate::warn!("ordering recovery failed, retrying in 1s"; "error" => Text(error));
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// The files for clients' connections; none if these are without TLS.
fn listener_files(settings: &Settings) -> Result<Option<Tls>, Refusal> {
    let listener = &settings.listener;
    if !listener.auto {
        return Ok(listener.files.clone());
    }
    let directory = Path::new(&listener.data_dir).join("fixtures").join("proxy");
    let hosts = split_host_port(&settings.listen_addr).map(|(host, _)| host.to_owned());
    let hosts: Vec<String> = hosts.into_iter().collect();
    let made = tls::make_self_signed(&directory, &hosts, listener.validity_years);
    made.map(Some).map_err(fatal)
}

/// What Go's `log.Fatal` prints.
fn fatal(error: impl std::fmt::Display) -> Refusal {
    let now = jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S");
    Refusal::stderr(format_args!("{now} {error}"))
}

fn tls_settings(listener: &ListenerTls, has_tls: bool) -> Result<retcd_tls::Settings, Refusal> {
    let suites: &[String] = if has_tls {
        &listener.cipher_suites
    } else {
        &[]
    };
    retcd_tls::Settings::new(listener.min, listener.max, suites).map_err(fatal)
}

/// The listener for clients.
fn listen(
    settings: &Settings,
    files: Option<&Tls>,
    tls_settings: &retcd_tls::Settings,
) -> Result<BoundListener, Refusal> {
    if let Some(files) = files {
        crate::info!("gRPC proxy server TLS"; "tls-info" => &tls::describe(files));
    }
    let address = listen_address(&settings.listen_addr).map_err(Refusal::stderr)?;
    let limit = ConnectionLimit::for_clients().map_err(Refusal::stderr)?;
    let protocols = Protocols {
        grpc: true,
        pages: Some(ListenerKind::Client {
            tls: files.is_some(),
        }),
    };
    // etcd finds that the address is taken before it looks at the files.
    let bound = |endpoint| BoundListener::bind(address, protocols, endpoint, limit);
    let endpoint = endpoint(settings, &settings.listen_addr, files, tls_settings);
    let listener = match endpoint {
        Ok(endpoint) => bound(endpoint).map_err(Refusal::stderr)?,
        Err(reason) => {
            bound(None).map_err(Refusal::stderr)?;
            let line = crate::log_record!(Fatal, None, "failed to create TLS listener"; "error" => &reason);
            log::emit_last(&line);
            return Err(Refusal {
                stdout: String::new(),
                stderr: String::new(),
            });
        }
    };
    crate::info!("listening for gRPC proxy client requests"; "address" => &settings.listen_addr);
    Ok(listener)
}

/// What the handshakes of a listener need; none if it has no TLS.
fn endpoint(
    settings: &Settings,
    address: &str,
    files: Option<&Tls>,
    tls_settings: &retcd_tls::Settings,
) -> Result<Option<Arc<tls::Endpoint>>, String> {
    let Some(files) = files else {
        return Ok(None);
    };
    if files.cert_file.is_empty() && files.key_file.is_empty() {
        return Err(format!(
            "cannot listen on TLS for {address}: KeyFile and CertFile are not presented"
        ));
    }
    let files = Tls {
        crl_file: settings.listener.crl_file.clone(),
        ..files.clone()
    };
    let opened = tls::open_for_proxy(&files, tls_settings.clone());
    opened
        .map(|endpoint| Some(Arc::new(endpoint)))
        .map_err(|error| error.reason())
}

/// `--metrics-addr`.
fn listen_for_metrics(
    settings: &Settings,
    files: Option<&Tls>,
    tls_settings: &retcd_tls::Settings,
) -> Result<Option<BoundListener>, Refusal> {
    let text = &settings.metrics_addr;
    if text.is_empty() {
        return Ok(None);
    }
    let unusable = || Refusal {
        stdout: String::new(),
        stderr: format!("cannot parse {text:?}"),
    };
    let url = Url::parse(text).map_err(|_| unusable())?;
    let address = match url.is_unix() {
        true => return Err(unusable()),
        false => listen_address(&url.address()).map_err(Refusal::stderr)?,
    };
    let files = match (url.is_secure(), files) {
        (false, _) => None,
        (true, Some(files)) => Some(files),
        (true, None) => {
            return Err(Refusal::stderr(format_args!(
                "cannot listen on TLS for {}: KeyFile and CertFile are not presented",
                url.address()
            )));
        }
    };
    let endpoint = endpoint(settings, &url.address(), files, tls_settings);
    let endpoint = endpoint.map_err(Refusal::stderr)?;
    let protocols = Protocols {
        grpc: false,
        pages: Some(ListenerKind::Metrics),
    };
    let limit = ConnectionLimit::for_metrics();
    let listener: Result<BoundListener, ListenError> =
        BoundListener::bind(address, protocols, endpoint, limit);
    let listener = listener.map_err(Refusal::stderr)?;
    crate::info!("gRPC proxy listening for metrics"; "address" => url.as_str());
    Ok(Some(listener))
}

/// How the servers are reached.
fn client_config(settings: &Settings) -> Result<Config, Refusal> {
    let tls = settings.server_tls.clone().unwrap_or_default();
    let authorities = tls.authorities.as_ref();
    let discovery = Discovery {
        domain: &settings.discovery_srv,
        service_name: &settings.discovery_srv_name,
        insecure: settings.insecure_discovery,
        authorities: authorities
            .and_then(|path| path.to_str())
            .unwrap_or_default(),
    };
    let discovered = discovery.discover()?;
    let endpoints = match discovered.is_empty() {
        true => settings.endpoints.clone(),
        false => discovered.into_iter().map(|found| found.url).collect(),
    };
    let config = Config {
        dial_timeout: Some(DIAL_TIMEOUT),
        keepalive_time: settings.dial_keepalive_time,
        keepalive_timeout: settings.dial_keepalive_timeout,
        keepalive_while_idle: settings.permit_without_stream,
        request_bytes_max: settings.max_send_bytes,
        response_bytes_max: settings.max_recv_bytes,
        tls,
        ..Config::new(endpoints)
    };
    if let Some(tls) = &settings.server_tls {
        check_common_name(tls)?;
        // Files are loaded here, so that what is wrong with them is told before anything else.
        Client::new(Config {
            endpoints: vec!["127.0.0.1:2379".to_owned()],
            ..config.clone()
        })
        .map_err(Refusal::stderr)?;
        if tls.skip_verify {
            crate::warn!(
                "--insecure-skip-tls-verify was given, this grpc proxy process skips authentication of etcd server TLS certificates. This option should be enabled only for testing purposes."
            );
        }
        let text = |path: &Option<std::path::PathBuf>| {
            path.as_ref()
                .map(|path| path.display().to_string())
                .unwrap_or_default()
        };
        let files = Tls {
            cert_file: text(&tls.cert),
            key_file: text(&tls.key),
            trusted_ca_file: text(&tls.authorities),
            ..Tls::default()
        };
        crate::info!("gRPC proxy client TLS"; "tls-info" => &tls::describe(&files));
    }
    Ok(config)
}

/// A certificate that names a user would make every client of the proxy that user.
fn check_common_name(tls: &TlsConfig) -> Result<(), Refusal> {
    let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else {
        return Ok(());
    };
    let identity = Identity::load(cert, key);
    let identity = identity.map_err(|error| Refusal::stderr(error.reason()))?;
    match identity.leaf.common_name() {
        "" => Ok(()),
        name => Err(Refusal::stderr(format_args!(
            "cert has non empty Common Name ({name}): {}",
            cert.display()
        ))),
    }
}

/// How the proxy reaches itself, as its clients do.
fn own_config(settings: &Settings, files: Option<&Tls>) -> Option<Config> {
    if settings.advertise_client_url.is_empty() {
        return None;
    }
    let tls = files.map(|files| {
        let file = |path: &str| (!path.is_empty()).then(|| path.into());
        TlsConfig {
            cert: file(&files.cert_file),
            key: file(&files.key_file),
            authorities: file(&files.trusted_ca_file),
            // Nobody has signed what was made here.
            skip_verify: settings.listener.auto,
            required: true,
            ..TlsConfig::default()
        }
    });
    Some(Config {
        dial_timeout: Some(DIAL_TIMEOUT),
        tls: tls.unwrap_or_default(),
        ..Config::new([settings.advertise_client_url.clone()])
    })
}

/// Profiles, if they are to be served; `workers` take them.
fn profiles(settings: &Settings, workers: &Workers) -> Option<Profiles> {
    if !settings.enable_pprof {
        return None;
    }
    Profiles::activate();
    Some(Profiles::new(workers.queue().clone()))
}

fn host_name() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}
