//! Effective values: the defaults that a zero stands for, the name of the data directory, the
//! addresses to advertise.

use std::net::IpAddr;

use super::build::Builder;
use super::url::Url;
use super::{Config, table};
use crate::log::GoDuration;
use crate::log_record;

// What a zero stands for. etcd has these in several places.
const SNAPSHOT_COUNT_DEFAULT: u64 = 10_000;
const SNAPSHOT_CATCHUP_ENTRIES_DEFAULT: u64 = 5_000;
pub(super) const QUOTA_BYTES_DEFAULT: i64 = 2 * 1024 * 1024 * 1024;
const BACKEND_BATCH_INTERVAL_DEFAULT: GoDuration = GoDuration::from_millis(100);
const BACKEND_BATCH_LIMIT_DEFAULT: isize = 10_000;
const COMPACTION_BATCH_LIMIT_DEFAULT: isize = 1_000;
const COMPACTION_SLEEP_INTERVAL_DEFAULT: GoDuration = GoDuration::from_millis(10);
const WATCH_PROGRESS_INTERVAL_DEFAULT: GoDuration = GoDuration::from_millis(10 * 60 * 1000);
const WATCH_PROGRESS_INTERVAL_MIN: GoDuration = GoDuration::from_millis(100);
const WARNING_UNARY_DEFAULT: GoDuration = GoDuration::from_millis(300);
const RAFT_TIMEOUT_MIN: GoDuration = GoDuration::from_millis(5_000);
const BCRYPT_COSTS: std::ops::RangeInclusive<usize> = 4..=31;
const BCRYPT_COST_DEFAULT: usize = 10;

pub(super) fn finish(builder: &mut Builder, default_host: &dyn Fn() -> Option<IpAddr>) {
    zeros(&mut builder.config);
    raft_timeouts(builder);
    bcrypt_cost(builder);
    addresses(builder, default_host);
    data_dir(builder);
    // The flag is ignored; the log shows the effective value.
    builder.config.v2_deprecation.0 = "write-only".into();
}

fn zeros(config: &mut Config) {
    fn or<T: PartialEq + Default>(value: &mut T, default: T) {
        if *value == T::default() {
            *value = default;
        }
    }
    or(&mut config.snapshot_count, SNAPSHOT_COUNT_DEFAULT);
    or(
        &mut config.snapshot_catchup_entries,
        SNAPSHOT_CATCHUP_ENTRIES_DEFAULT,
    );
    // As grpc-go does.
    or(&mut config.max_concurrent_streams, u32::MAX);
    or(&mut config.quota_backend_bytes, QUOTA_BYTES_DEFAULT);
    or(
        &mut config.backend_batch_interval,
        BACKEND_BATCH_INTERVAL_DEFAULT,
    );
    or(&mut config.backend_batch_limit, BACKEND_BATCH_LIMIT_DEFAULT);
    or(
        &mut config.compaction_batch_limit,
        COMPACTION_BATCH_LIMIT_DEFAULT,
    );
    or(
        &mut config.compaction_sleep_interval,
        COMPACTION_SLEEP_INTERVAL_DEFAULT,
    );
    or(
        &mut config.watch_progress_notify_interval,
        WATCH_PROGRESS_INTERVAL_DEFAULT,
    );
    or(
        &mut config.warning_unary_request_duration,
        WARNING_UNARY_DEFAULT,
    );
    config.watch_progress_notify_interval = config
        .watch_progress_notify_interval
        .max(WATCH_PROGRESS_INTERVAL_MIN);
}

fn raft_timeouts(builder: &mut Builder) {
    let config = &mut builder.config;
    let mut raised = Vec::new();
    for (name, timeout) in [
        ("raft-read-timeout", &mut config.raft_read_timeout),
        ("raft-write-timeout", &mut config.raft_write_timeout),
    ] {
        if *timeout < RAFT_TIMEOUT_MIN {
            *timeout = RAFT_TIMEOUT_MIN;
            raised.push(log_record!(
                Info,
                None,
                format!("{name} increased to minimum value: {RAFT_TIMEOUT_MIN}")
            ));
        }
    }
    builder.notes.extend(raised);
}

fn bcrypt_cost(builder: &mut Builder) {
    let given = builder.config.bcrypt_cost;
    if !BCRYPT_COSTS.contains(&given) {
        builder.config.bcrypt_cost = BCRYPT_COST_DEFAULT;
        builder.note(log_record!(
            Warn, None, "use default bcrypt cost instead of the invalid given cost";
            "min-cost" => BCRYPT_COSTS.start(), "max-cost" => BCRYPT_COSTS.end(),
            "default-cost" => BCRYPT_COST_DEFAULT, "given-cost" => given
        ));
    }
}

/// A member that listens on all addresses and has no address to advertise advertises that of the
/// machine. A member with a name and no `--initial-cluster` is its cluster's only member.
fn addresses(builder: &mut Builder, default_host: &dyn Fn() -> Option<IpAddr>) {
    let config = &mut builder.config;
    let peer = everywhere(
        &config.listen_peer_urls,
        &config.initial_advertise_peer_urls,
        "initial-advertise-peer-urls",
    );
    let client = everywhere(
        &config.listen_client_urls,
        &config.advertise_client_urls,
        "advertise-client-urls",
    );
    let host = if peer.is_some() || client.is_some() {
        default_host()
    } else {
        None
    };
    if let (Some(host), Some(port)) = (host, &peer) {
        config.initial_advertise_peer_urls[0] =
            config.initial_advertise_peer_urls[0].with_authority(&format!("{host}:{port}"));
    }
    if config.name != "default" && config.initial_cluster == default_of("initial-cluster") {
        config.initial_cluster = cluster_of_one(&config.name, &config.initial_advertise_peer_urls);
    }
    if let (Some(host), Some(port)) = (host, &client) {
        config.advertise_client_urls[0] =
            config.advertise_client_urls[0].with_authority(&format!("{host}:{port}"));
    }
    if let Some(host) = host {
        let host = host.to_string();
        builder
            .note(log_record!(Info, None, "detected default host for advertise"; "host" => host));
    }
}

/// The port, if the first listener binds all addresses and the advertised URL is the default.
fn everywhere(listen: &[Url], advertise: &[Url], flag: &str) -> Option<String> {
    let listen = listen.first()?;
    let untold = matches!(advertise, [only] if only.as_str() == default_of(flag));
    (untold && listen.host() == "0.0.0.0").then(|| listen.port().to_owned())
}

fn default_of(flag: &str) -> &'static str {
    table::find(flag).map_or("", |flag| flag.default)
}

fn cluster_of_one(name: &str, urls: &[Url]) -> String {
    let name = if name.is_empty() { "default" } else { name };
    urls.iter()
        .map(|url| format!("{name}={url}"))
        .collect::<Vec<_>>()
        .join(",")
}

fn data_dir(builder: &mut Builder) {
    if builder.config.data_dir.is_empty() {
        builder.config.data_dir = format!("{}.etcd", builder.config.name);
        let dir = builder.config.data_dir.clone();
        builder.note(
            log_record!(Warn, None, "'data-dir' was empty; using default"; "data-dir" => dir),
        );
    }
}
