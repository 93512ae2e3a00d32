//! Starts a member: checks its configuration, binds its listeners, opens its storage.

use std::net::IpAddr;
use std::sync::Arc;

use retcd_member::{InitialCheckError, Starting};
use retcd_node::durable::{self, Dirs, Opened};
use retcd_state::membership::Member as ClusterMember;
use retcd_storage::disk::OsDisk;

use super::error::StartError;
use super::local_runtime::{current_thread_runtime, run_on_thread};
use super::memory::lock_memory;
use super::signals::survive_file_limit;
use super::spawn::{Connected, Started, spawn};
use super::storage;
use crate::accept::{ConnectionLimit, Listeners};
use crate::auth::{Authenticator, TokenOptions};
use crate::bootstrap::{Bootstrap, InitialCluster, bootstrap, discover};
use crate::clock::Clock;
use crate::config::gates::Gate;
use crate::config::{Config, url::Url};
use crate::http::Profiles;
use crate::log::{self, Text};
use crate::metered_disk::MeteredDisk;
use crate::metrics::{Detail, Metrics};
use crate::peer::{Client, Dialer, HttpPeers};
use crate::tls;
use crate::workers::Workers;

/// Starts the member that `config` describes.
pub(super) fn start(config: Arc<Config>) -> Result<Started, StartError> {
    config.check_start()?;
    let tokens = TokenOptions::parse(&config.auth_token)?;
    survive_file_limit()?;
    if config.memory_mlock {
        lock_memory()?;
    }
    if config.profiles_served() {
        Profiles::activate();
    }
    let limit = ConnectionLimit::for_clients()?;
    let clock = Clock::start();
    let workers = Workers::start()?;
    let authenticator = Authenticator::new(&config, &tokens, workers.queue().clone())?;
    let endpoints = tls::open(&config)?;
    let listeners = Listeners::bind(&config, &endpoints, &limit)?;
    let metrics = Arc::new(Metrics::new(match config.extensive_metrics() {
        true => Detail::Extensive,
        false => Detail::Basic,
    }));
    let disk = MeteredDisk {
        disk: Arc::new(OsDisk),
        wal_dir: config.wal_dir(),
        metrics: Arc::clone(&metrics),
        clock,
    };
    let dirs = storage::prepare(Arc::new(disk), &config)?;
    let is_first = !dirs.has_log()?;
    let (config, server_name) = match is_first {
        true => discover(config, &current_thread_runtime()?)?,
        false => {
            if !config.discovery.token.is_empty() {
                crate::warn!("discovery token is ignored since cluster already initialized; valid logs are found";
                    "wal-dir" => &dirs.wal_dir);
            }
            (config, None)
        }
    };
    let connector = tls::Connector::new(endpoints.peer, server_name);
    let dialer = Dialer::new(config.peer_dial_timeout(), workers.clone())
        .with_tls(connector)
        .leaving_from(member_local_address(&config));
    let initial_cluster = match is_first {
        true => Some(InitialCluster::parse(&config.initial_cluster)?),
        false => None,
    };
    log::emit(&config.starting_record(initial_cluster.as_ref().map(ToString::to_string)));
    config.size_records().iter().for_each(log::emit);
    let (opened, remotes) = match is_first {
        true => start_first(&dirs, &config, &dialer)?,
        false => (start_again(&dirs, &config, &dialer, clock)?, Vec::new()),
    };
    let identity = opened.identity;
    crate::info!("starting local member";
        "local-member-id" => &format!("{:x}", identity.member_id), "cluster-id" => &format!("{:x}", identity.cluster_id));
    let connected = Connected {
        listeners,
        dialer,
        authenticator,
        workers,
        metrics,
    };
    let started = spawn(config, clock, dirs, opened, connected)?;
    for remote in remotes
        .iter()
        .filter(|remote| remote.id != identity.member_id)
    {
        let transport = &started.server.transport;
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
fn start_again(
    dirs: &Dirs,
    config: &Config,
    dialer: &Dialer,
    clock: Clock,
) -> Result<Opened, StartError> {
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
        let peers = HttpPeers {
            client: Client::new(dialer.clone(), config.request_timeout()),
            cluster_id: opened.identity.cluster_id,
            transport: None,
            clock,
        };
        check_initially(starting, &peers)?;
    }
    Ok(opened)
}

/// The gate `InitialCorruptCheck`, for a member with data.
///
/// # Errors
/// Its data is not that of the others.
fn check_initially(member: Starting<'_>, peers: &HttpPeers) -> Result<(), StartError> {
    let checked: Result<(), InitialCheckError> =
        run_on_thread(retcd_member::check_initially(member, peers))?;
    checked.map_err(|error| {
        crate::error!("checkInitialHashKV failed"; "error" => Text(&error));
        StartError::Corrupt(error)
    })
}

pub(super) fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}
