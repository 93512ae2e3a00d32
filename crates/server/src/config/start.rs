//! The last checks before a member starts, what its settings amount to, and the lines that log them all.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use super::gates::Gate;
use super::literal::parse_duration;
use super::resolve::QUOTA_BYTES_DEFAULT;
use super::settings::Tls;
use super::url::Url;
use super::{Config, member_dir, version};
use crate::auth::{TokenError, TokenOptions};
use crate::log::{ByteSize, GoDuration, Record};
use crate::log_record;

/// Settings that contradict each other; logged at level `fatal` as `discovery failed`, which is what etcd calls every such failure.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is")]
pub enum ConfigError {
    #[error("cannot listen on TLS for {0}: KeyFile and CertFile are not presented")]
    PeerTls(String),
    #[error(
        "TLS key/cert (--cert-file, --key-file) must be provided for client url {0} with HTTPS scheme"
    )]
    ClientTls(Url),
    #[error(
        "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
    )]
    MetricsTls,
    #[error(
        "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {0}"
    )]
    SharedUrl(Url),
    #[error("error parsing CompactionRetention: {0}")]
    CompactionRetention(String),
    #[error(
        "--auto-compaction-retention={0} is no span to keep: use 0 for all history, or at least {RETENTION_MIN} with --auto-compaction-mode=periodic"
    )]
    RetentionTooShort(String),
    #[error(
        "--auto-compaction-retention={0} is no number of revisions: use one with --auto-compaction-mode=revision, or --auto-compaction-mode=periodic for a span of time"
    )]
    RetentionNotRevisions(String),
    #[error(transparent)]
    AuthToken(#[from] TokenError),
}

/// How history is compacted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Not at all.
    Off,
    /// What is older than this.
    Periodic(Duration),
    /// What is further back than this many revisions.
    Revision(u64),
}

/// The shortest span of history that is kept by time. The revision is noted ten times per span, and what is shorter would
/// keep a processor busy with that; etcd takes any span, and ends at one below ten nanoseconds.
const RETENTION_MIN: GoDuration = GoDuration::from_millis(100);

/// Larger databases and requests than these are warned of, as in etcd.
const QUOTA_BYTES_RECOMMENDED_MAX: i64 = 8 << 30;
const REQUEST_BYTES_RECOMMENDED_MAX: usize = 10 << 20;

/// gRPC messages may be this much larger than `max_request_bytes`.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

impl Config {
    /// Checks what a start needs beyond valid settings. Nothing is opened or bound.
    ///
    /// # Errors
    /// What contradicts itself, in etcd's words.
    pub fn check_start(&self) -> Result<(), ConfigError> {
        self.check_listeners()?;
        self.auto_compaction()?;
        TokenOptions::parse(&self.auth_token)?;
        Ok(())
    }

    fn check_listeners(&self) -> Result<(), ConfigError> {
        // A pair of which one half is missing is told when the files are opened.
        let has_certificate =
            |tls: &Tls| tls.auto_tls || !(tls.cert_file.is_empty() && tls.key_file.is_empty());
        let plain_peers = !has_certificate(&self.peer_tls);
        let plain_clients = !has_certificate(&self.client_tls);
        let mut peer_urls = self.listen_peer_urls.iter();
        if let Some(url) = peer_urls.find(|url| url.is_secure() && plain_peers) {
            return Err(ConfigError::PeerTls(url.address()));
        }
        let mut client_urls = self
            .listen_client_urls
            .iter()
            .chain(&self.listen_client_http_urls);
        if let Some(url) = client_urls.find(|url| url.is_secure() && plain_clients) {
            return Err(ConfigError::ClientTls(url.clone()));
        }
        let grpc: BTreeSet<String> = self.listen_client_urls.iter().map(Url::address).collect();
        if let Some(url) = self
            .listen_client_http_urls
            .iter()
            .find(|url| grpc.contains(&url.address()))
        {
            return Err(ConfigError::SharedUrl(url.clone()));
        }
        if plain_clients && self.listen_metrics_urls.iter().any(Url::is_secure) {
            return Err(ConfigError::MetricsTls);
        }
        Ok(())
    }

    /// How history is compacted by itself.
    ///
    /// # Errors
    /// When the retention is neither a number nor a duration, or not one that the mode can keep.
    pub fn auto_compaction(&self) -> Result<AutoCompaction, ConfigError> {
        let retention = u64::try_from(self.compaction_retention()?.0)
            .expect("a retention below zero is refused");
        Ok(match (retention, self.auto_compaction_mode.as_str()) {
            (0, _) => AutoCompaction::Off,
            (revisions, "revision") => AutoCompaction::Revision(revisions),
            (nanos, _) => AutoCompaction::Periodic(Duration::from_nanos(nanos)),
        })
    }

    /// As etcd keeps it: a span of time in both modes, one nanosecond per revision. Never below zero.
    fn compaction_retention(&self) -> Result<GoDuration, ConfigError> {
        const HOUR_NANOS: i64 = 3_600_000_000_000;
        let text = match self.auto_compaction_retention.as_str() {
            "" => "0",
            text => text,
        };
        let number = text.parse::<i64>().ok().filter(|number| *number >= 0);
        match (number, self.auto_compaction_mode.as_str()) {
            (Some(revisions), "revision") => Ok(GoDuration(revisions)),
            (Some(hours), _) => Ok(GoDuration(hours.saturating_mul(HOUR_NANOS))),
            (None, mode) => match parse_duration(text).map_err(ConfigError::CompactionRetention)? {
                GoDuration(0) => Ok(GoDuration(0)),
                _ if mode == "revision" => Err(ConfigError::RetentionNotRevisions(text.to_owned())),
                span if span < RETENTION_MIN => {
                    Err(ConfigError::RetentionTooShort(text.to_owned()))
                }
                span => Ok(span),
            },
        }
    }

    /// The size in bytes at which writes are refused; none for no quota.
    pub fn quota_bytes(&self) -> Option<u64> {
        u64::try_from(self.quota_backend_bytes).ok()
    }

    /// Where connections to other members leave from: the first address that they are told of this member and that they
    /// could see. None leaves it to the operating system, as without the gate SetMemberLocalAddr.
    pub fn member_local_address(&self) -> Option<IpAddr> {
        if !self.feature_gates.enabled(Gate::SetMemberLocalAddr) {
            return None;
        }
        self.initial_advertise_peer_urls
            .iter()
            .filter_map(|url| url.host().parse().ok())
            .find(|address: &IpAddr| !address.is_loopback() && !address.is_unspecified())
    }

    /// Ticks without a leader until an election.
    pub fn election_ticks(&self) -> usize {
        self.election_timeout_ms / self.heartbeat_interval_ms
    }

    /// The time without a leader until an election: whole ticks.
    pub fn election_timeout(&self) -> Duration {
        Duration::from_millis((self.election_ticks() * self.heartbeat_interval_ms) as u64)
    }

    /// One tick of raft.
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms as u64)
    }

    /// How long connecting to another member may take, as in etcd.
    pub fn peer_dial_timeout(&self) -> Duration {
        Duration::from_secs(1) + self.election_timeout()
    }

    /// How long a request may take altogether: 5 s for queues and disk, and two elections.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout()
    }

    /// The largest gRPC message that is read, in bytes.
    pub fn max_grpc_message_bytes(&self) -> usize {
        self.max_request_bytes.saturating_add(GRPC_OVERHEAD_BYTES)
    }

    /// Whether the costlier metrics are wanted.
    pub fn extensive_metrics(&self) -> bool {
        self.metrics == "extensive"
    }

    /// `member` in the data directory.
    pub fn member_dir(&self) -> PathBuf {
        member_dir(&self.data_dir)
    }

    /// The directory of snapshots and of the backend's file.
    pub fn snap_dir(&self) -> PathBuf {
        self.member_dir().join("snap")
    }

    /// The directory of the write-ahead log.
    pub fn wal_dir(&self) -> PathBuf {
        if self.wal_dir.is_empty() {
            self.member_dir().join("wal")
        } else {
            self.wal_dir.clone().into()
        }
    }

    /// The line `starting an etcd server` with the settings that hold, in etcd's order. `initial_cluster` is that
    /// of a member that has no data yet.
    pub fn starting_record(&self, initial_cluster: Option<String>) -> Record {
        let cpus = available_parallelism().map_or(1, usize::from);
        let retention = self.compaction_retention().unwrap_or_default();
        let endpoints = self
            .discovery
            .endpoints
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(",");
        let initialized = initial_cluster.is_none();
        let token = match initialized {
            true => "",
            false => self.initial_cluster_token.as_str(),
        };
        log_record!(
            Info, None, "starting an etcd server";
            "etcd-version" => crate::VERSION,
            "git-sha" => version::GIT_SHA,
            "go-version" => version::GO_VERSION,
            "go-os" => version::GO_OS,
            "go-arch" => version::go_arch(),
            "max-cpu-set" => cpus,
            "max-cpu-available" => cpus,
            "member-initialized" => initialized,
            "name" => self.name,
            "data-dir" => self.data_dir,
            "wal-dir" => self.wal_dir,
            "wal-dir-dedicated" => self.wal_dir,
            "member-dir" => self.member_dir(),
            "force-new-cluster" => self.force_new_cluster,
            "heartbeat-interval" => self.heartbeat_interval(),
            "election-timeout" => self.election_timeout(),
            "initial-election-tick-advance" => self.initial_election_tick_advance,
            "snapshot-count" => self.snapshot_count,
            "max-wals" => self.max_wals,
            "max-snapshots" => self.max_snapshots,
            "snapshot-catchup-entries" => self.snapshot_catchup_entries,
            "initial-advertise-peer-urls" => self.initial_advertise_peer_urls,
            "listen-peer-urls" => self.listen_peer_urls,
            "advertise-client-urls" => self.advertise_client_urls,
            "listen-client-urls" => self.listen_client_urls,
            "listen-metrics-urls" => self.listen_metrics_urls,
            "local-address" => self.member_local_address().map_or_else(String::new, |address| address.to_string()),
            "cors" => self.cors.0.iter().collect::<Vec<_>>(),
            "host-whitelist" => self.host_whitelist.0.iter().collect::<Vec<_>>(),
            "initial-cluster" => initial_cluster.unwrap_or_default(),
            "initial-cluster-state" => self.initial_cluster_state.0,
            "initial-cluster-token" => token,
            "quota-backend-bytes" => self.quota_backend_bytes,
            "max-request-bytes" => self.max_request_bytes,
            "max-concurrent-streams" => self.max_concurrent_streams,
            "pre-vote" => self.pre_vote,
            "feature-gates" => self.feature_gates.text(),
            "initial-corrupt-check" => self.feature_gates.enabled(Gate::InitialCorruptCheck),
            "corrupt-check-time-interval" => self.corrupt_check_time,
            "compact-check-time-interval" => self.compact_hash_check_time,
            "auto-compaction-mode" => self.auto_compaction_mode,
            "auto-compaction-retention" => retention,
            "auto-compaction-interval" => retention,
            "discovery-token" => self.discovery.token,
            "discovery-endpoints" => endpoints,
            "discovery-dial-timeout" => self.discovery.dial_timeout,
            "discovery-request-timeout" => self.discovery.request_timeout,
            "discovery-keepalive-time" => self.discovery.keepalive_time,
            "discovery-keepalive-timeout" => self.discovery.keepalive_timeout,
            "discovery-insecure-transport" => self.discovery.insecure_transport,
            "discovery-insecure-skip-tls-verify" => self.discovery.insecure_skip_tls_verify,
            "discovery-cert" => self.discovery.cert,
            "discovery-key" => self.discovery.key,
            "discovery-cacert" => self.discovery.cacert,
            "discovery-user" => self.discovery.user.split(':').next().unwrap_or_default(),
            "downgrade-check-interval" => self.downgrade_check_time,
            "max-learners" => self.max_learners,
            "v2-deprecation" => self.v2_deprecation.0
        )
    }

    /// What is to be said of the sizes that are allowed: the quota, and what goes beyond etcd's recommendations.
    pub fn size_records(&self) -> Vec<Record> {
        const NAME: &str = "v3-applier";
        let quota = self.quota_backend_bytes;
        let quota_size = ByteSize(quota.unsigned_abs());
        let mut records = Vec::new();
        if self.max_request_bytes > REQUEST_BYTES_RECOMMENDED_MAX {
            records.push(log_record!(
                Warn, None, "exceeded recommended request limit";
                "max-request-bytes" => self.max_request_bytes,
                "max-request-size" => ByteSize(self.max_request_bytes as u64),
                "recommended-request-bytes" => REQUEST_BYTES_RECOMMENDED_MAX,
                "recommended-request-size" => ByteSize(REQUEST_BYTES_RECOMMENDED_MAX as u64)
            ));
        }
        if quota > QUOTA_BYTES_RECOMMENDED_MAX {
            records.push(log_record!(
                Warn, None, "quota exceeds the maximum value";
                "quota-name" => NAME, "quota-size-bytes" => quota, "quota-size" => quota_size,
                "quota-maximum-size-bytes" => QUOTA_BYTES_RECOMMENDED_MAX,
                "quota-maximum-size" => ByteSize(QUOTA_BYTES_RECOMMENDED_MAX as u64)
            ));
        }
        records.push(match quota {
            ..0 => log_record!(
                Info, None, "disabled backend quota"; "quota-name" => NAME, "quota-size-bytes" => quota
            ),
            QUOTA_BYTES_DEFAULT => log_record!(
                Info, None, "enabled backend quota with default value";
                "quota-name" => NAME, "quota-size-bytes" => quota, "quota-size" => quota_size
            ),
            _ => log_record!(
                Info, None, "enabled backend quota";
                "quota-name" => NAME, "quota-size-bytes" => quota, "quota-size" => quota_size
            ),
        });
        records
    }
}
