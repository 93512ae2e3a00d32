//! The settings of a member, one field per flag.

use std::collections::BTreeSet;

use super::gates::FeatureGates;
use super::table::{Effect, FLAGS};
use super::url::Url;
use super::value::{ClusterState, EnableV2, Fallback, HostNames, Origins, V2Deprecation};
use crate::log::GoDuration;

/// The settings of a member. Where a flag's 0 stands for a default, the field has the default.
/// `usize` and `isize` stand for Go's `uint` and `int`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The member's name, by which `initial_cluster` lists it.
    pub name: String,
    /// The data directory; not empty after parsing.
    pub data_dir: String,
    /// A directory for the write-ahead log; empty for the one in `data_dir`.
    pub wal_dir: String,
    /// Applied entries between raft snapshots.
    pub snapshot_count: u64,
    /// Entries kept in the raft log after a snapshot.
    pub snapshot_catchup_entries: u64,
    /// Snapshot files to keep; 0 for all.
    pub max_snapshots: usize,
    /// WAL files to keep; 0 for all.
    pub max_wals: usize,
    /// One tick of raft, in milliseconds; above 0.
    pub heartbeat_interval_ms: usize,
    /// Milliseconds; from 5 heartbeats to 50000.
    pub election_timeout_ms: usize,
    /// Skip most of the first election timeout at start.
    pub initial_election_tick_advance: bool,
    /// Where other members connect.
    pub listen_peer_urls: Vec<Url>,
    /// Where clients connect with gRPC, and with HTTP unless there are `listen_client_http_urls`.
    pub listen_client_urls: Vec<Url>,
    /// Where clients connect with HTTP only.
    pub listen_client_http_urls: Vec<Url>,
    /// Additional listeners for metrics and health checks.
    pub listen_metrics_urls: Vec<Url>,
    /// Peer addresses that other members are given.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// Client addresses that clients are given.
    pub advertise_client_urls: Vec<Url>,
    /// `name=url,…` at the first start.
    pub initial_cluster: String,
    /// `new` or `existing`.
    pub initial_cluster_state: ClusterState,
    /// Part of what the ids of a new cluster are hashes of.
    pub initial_cluster_token: String,
    /// Refuse membership changes that would cost the quorum.
    pub strict_reconfig_check: bool,
    /// Run raft's PreVote.
    pub pre_vote: bool,
    /// Where the members of a new cluster find each other.
    pub discovery: Discovery,
    /// `exit`.
    pub discovery_fallback: Fallback,
    /// A domain whose SRV records name the members.
    pub discovery_srv: String,
    /// Suffix of the SRV service name.
    pub discovery_srv_name: String,
    /// Bytes; negative for no quota, not 0 after parsing.
    pub quota_backend_bytes: i64,
    /// Bytes of values in memory; negative for a share of what there is.
    pub value_cache_bytes: i64,
    /// `map` or `array`; no effect.
    pub backend_bbolt_freelist_type: String,
    /// Longest time between commits of the backend.
    pub backend_batch_interval: GoDuration,
    /// Changes after which the backend commits.
    pub backend_batch_limit: isize,
    /// Operations in each branch of a transaction.
    pub max_txn_ops: usize,
    /// Largest raft proposal, in bytes. gRPC messages may have 512 KiB more.
    pub max_request_bytes: usize,
    /// Streams of one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// No effect.
    pub grpc_keepalive_min_time: GoDuration,
    /// Time between pings to an idle client; 0 or less for none.
    pub grpc_keepalive_interval: GoDuration,
    /// Time for the answer to a ping.
    pub grpc_keepalive_timeout: GoDuration,
    /// Bind with SO_REUSEPORT.
    pub socket_reuse_port: bool,
    /// Bind with SO_REUSEADDR.
    pub socket_reuse_address: bool,
    /// The JSON gateway.
    pub enable_grpc_gateway: bool,
    /// Read timeout of connections between members; at least 5 s.
    pub raft_read_timeout: GoDuration,
    /// Write timeout of connections between members; at least 5 s.
    pub raft_write_timeout: GoDuration,
    /// Keep memory from being swapped out.
    pub memory_mlock: bool,
    /// Feature gates.
    pub feature_gates: FeatureGates,
    /// `periodic` or `revision`; see [`Config::auto_compaction`].
    pub auto_compaction_mode: String,
    /// Hours, revisions or a duration.
    pub auto_compaction_retention: String,
    /// Whether API v2 is served.
    pub enable_v2: EnableV2,
    /// No effect.
    pub v2_deprecation: V2Deprecation,
    /// TLS towards clients; see `crate::tls`.
    pub client_tls: Tls,
    /// TLS between members.
    pub peer_tls: Tls,
    /// Years.
    pub self_signed_cert_validity_years: usize,
    /// Names of TLS cipher suites.
    pub cipher_suites: Vec<String>,
    /// `TLS1.2` or `TLS1.3`.
    pub tls_min_version: String,
    /// `TLS1.2`, `TLS1.3` or empty.
    pub tls_max_version: String,
    /// Origins that browsers may send requests from.
    pub cors: Origins,
    /// Host names that requests without TLS may be addressed to.
    pub host_whitelist: HostNames,
    /// `simple`, empty for no tokens, or `jwt,…`.
    pub auth_token: String,
    /// 4 to 31.
    pub bcrypt_cost: usize,
    /// Seconds that a simple token lives.
    pub auth_token_ttl_seconds: usize,
    /// Profiles over HTTP; see [`Config::profiles_served`].
    pub enable_pprof: bool,
    /// `basic` or `extensive`; other texts mean `basic`. See [`Config::extensive_metrics`].
    pub metrics: String,
    /// `zap`.
    pub logger: String,
    /// `default`, `stderr`, `stdout`, files.
    pub log_outputs: BTreeSet<String>,
    /// Name of a [`crate::log::Level`].
    pub log_level: String,
    /// `json` or `console`; empty is json.
    pub log_format: String,
    /// Rotate the one log file.
    pub enable_log_rotation: bool,
    /// When, and what becomes of old files.
    pub log_rotation_config_json: String,
    /// Slower requests are logged.
    pub warning_unary_request_duration: GoDuration,
    /// Applied requests that take longer are logged.
    pub warning_apply_duration: GoDuration,
    /// Where spans of requests go.
    pub tracing: Tracing,
    /// Time between the leader's comparisons of hashes of all data; 0 for none.
    pub corrupt_check_time: GoDuration,
    /// Time between the leader's comparisons of hashes of compactions; above 0.
    pub compact_hash_check_time: GoDuration,
    /// Revisions that a compaction deletes in one batch.
    pub compaction_batch_limit: isize,
    /// Pause between two batches of a compaction.
    pub compaction_sleep_interval: GoDuration,
    /// Time between progress notices of watches; at least 100 ms.
    pub watch_progress_notify_interval: GoDuration,
    /// Time between the leader's checks whether a downgrade is complete; 0 for never.
    pub downgrade_check_time: GoDuration,
    /// Megabytes that defragmenting must free to be done at start; 0 for never.
    pub bootstrap_defrag_threshold_megabytes: usize,
    /// Learners that a cluster may have.
    pub max_learners: isize,
    /// Skip fsync.
    pub unsafe_no_fsync: bool,
    /// Remove all other members at start.
    pub force_new_cluster: bool,
    /// The configuration file; empty if there is none.
    pub config_file: String,
    /// Print the version and exit.
    pub version: bool,
}

/// Flags of one TLS endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the flags")]
pub struct Tls {
    pub cert_file: String,
    pub key_file: String,
    pub client_cert_file: String,
    pub client_key_file: String,
    pub client_cert_auth: bool,
    pub trusted_ca_file: String,
    pub crl_file: String,
    pub auto_tls: bool,
    pub allowed_cns: Vec<String>,
    pub allowed_hostnames: Vec<String>,
    pub skip_client_san_verification: bool,
}

/// Flags of discovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the flags")]
pub struct Discovery {
    pub token: String,
    pub endpoints: BTreeSet<String>,
    pub dial_timeout: GoDuration,
    pub request_timeout: GoDuration,
    pub keepalive_time: GoDuration,
    pub keepalive_timeout: GoDuration,
    pub insecure_transport: bool,
    pub insecure_skip_tls_verify: bool,
    pub cert: String,
    pub key: String,
    pub cacert: String,
    pub user: String,
    pub password: String,
}

/// Flags of distributed tracing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the flags")]
pub struct Tracing {
    pub enabled: bool,
    pub address: String,
    pub service_name: String,
    pub instance_id: String,
    pub sampling_rate_per_million: isize,
}

impl Config {
    /// The defaults of the table of flags, not resolved.
    pub fn from_table() -> Config {
        let mut config = Config::default();
        for flag in FLAGS.iter().filter(|flag| !flag.default.is_empty()) {
            if let Effect::Field(field) = flag.effect {
                field(&mut config)
                    .set(flag.default)
                    .expect("a default of the table is valid");
            }
        }
        config
    }
}
