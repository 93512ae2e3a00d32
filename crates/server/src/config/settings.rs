//! The settings of a member, one field per flag.

use std::collections::BTreeSet;

use super::gates::FeatureGates;
use super::table::{Effect, FLAGS};
use super::url::Url;
use super::value::{ClusterState, Fallback, HostNames, Origins, V2Deprecation};
use crate::log::GoDuration;

/// The settings of a member. Values are resolved: where a flag's 0 stands for a default, the default is here. `usize` and
/// `isize` are Go's `uint` and `int`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The member's name; also its entry in `initial_cluster`.
    pub name: String,
    /// Root of the data; never empty after parsing.
    pub data_dir: String,
    /// Directory of the WAL alone; empty for the one under `data_dir`.
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
    /// Whether a starting member skips most of its first election timeout.
    pub initial_election_tick_advance: bool,
    /// Where members connect.
    pub listen_peer_urls: Vec<Url>,
    /// Where clients connect with gRPC, and with HTTP unless there are `listen_client_http_urls`.
    pub listen_client_urls: Vec<Url>,
    /// Where clients connect with HTTP alone.
    pub listen_client_http_urls: Vec<Url>,
    /// More listeners for metrics and health.
    pub listen_metrics_urls: Vec<Url>,
    /// Peer addresses that other members are told.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// Client addresses that clients are told.
    pub advertise_client_urls: Vec<Url>,
    /// `name=url,…` at the first start; see [`crate::bootstrap`].
    pub initial_cluster: String,
    /// `new` or `existing`.
    pub initial_cluster_state: ClusterState,
    /// Text that goes into ids of a new cluster.
    pub initial_cluster_token: String,
    /// Refuse membership changes that would cost the quorum.
    pub strict_reconfig_check: bool,
    /// Run raft's PreVote.
    pub pre_vote: bool,
    /// Discovery of members; refused in this version.
    pub discovery: Discovery,
    /// `exit`.
    pub discovery_fallback: Fallback,
    /// DNS discovery; refused in this version.
    pub discovery_srv: String,
    /// Suffix of the SRV service name.
    pub discovery_srv_name: String,
    /// Bytes; less than 0 for no quota. Never 0 after parsing. See [`Config::quota_bytes`].
    pub quota_backend_bytes: i64,
    /// `map` or `array`, without effect.
    pub backend_bbolt_freelist_type: String,
    /// Longest time between commits of the backend.
    pub backend_batch_interval: GoDuration,
    /// Changes after which the backend commits.
    pub backend_batch_limit: isize,
    /// Operations in each list of a transaction.
    pub max_txn_ops: usize,
    /// Largest raft proposal, in bytes; gRPC takes messages of 512 KiB more.
    pub max_request_bytes: usize,
    /// Streams of one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Faster pings of clients end their connection.
    pub grpc_keepalive_min_time: GoDuration,
    /// Time between pings to a silent client; 0 or less for none.
    pub grpc_keepalive_interval: GoDuration,
    /// How long an answer to a ping may take.
    pub grpc_keepalive_timeout: GoDuration,
    /// Bind with SO_REUSEPORT.
    pub socket_reuse_port: bool,
    /// Bind with SO_REUSEADDR.
    pub socket_reuse_address: bool,
    /// Whether the JSON gateway is wanted.
    pub enable_grpc_gateway: bool,
    /// Read timeout between members; at least 5 s.
    pub raft_read_timeout: GoDuration,
    /// Write timeout between members; at least 5 s.
    pub raft_write_timeout: GoDuration,
    /// Keep memory from being swapped out.
    pub memory_mlock: bool,
    /// Switched features.
    pub feature_gates: FeatureGates,
    /// `periodic` or `revision`; see [`Config::auto_compaction`].
    pub auto_compaction_mode: String,
    /// Hours, revisions or a duration.
    pub auto_compaction_retention: String,
    /// Read and ignored.
    pub v2_deprecation: V2Deprecation,
    /// TLS towards clients; see [`crate::tls`].
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
    /// Origins that browsers may call from.
    pub cors: Origins,
    /// Host names of plain HTTP requests.
    pub host_whitelist: HostNames,
    /// `simple`, empty for no tokens, or `jwt,…`.
    pub auth_token: String,
    /// 4 to 31.
    pub bcrypt_cost: usize,
    /// Seconds that a simple token lives.
    pub auth_token_ttl_seconds: usize,
    /// Profiles over HTTP; refused in this version.
    pub enable_pprof: bool,
    /// `basic` or `extensive`; any other text is basic. See [`Config::extensive_metrics`].
    pub metrics: String,
    /// `zap`.
    pub logger: String,
    /// `default`, `stderr`, `stdout`, files.
    pub log_outputs: BTreeSet<String>,
    /// Name of a [`crate::log::Level`].
    pub log_level: String,
    /// `json` or `console`; empty is json.
    pub log_format: String,
    /// Refused in this version.
    pub enable_log_rotation: bool,
    /// Refused in this version.
    pub log_rotation_config_json: String,
    /// Slower requests are logged.
    pub warning_unary_request_duration: GoDuration,
    /// Slower executions are logged.
    pub warning_apply_duration: GoDuration,
    /// Refused in this version.
    pub tracing: Tracing,
    /// Time between the leader's comparisons of all data with its followers'; 0 for none.
    pub corrupt_check_time: GoDuration,
    /// Time between the leader's comparisons of what compactions summed up; above 0.
    pub compact_hash_check_time: GoDuration,
    /// Revisions that a compaction deletes in one go.
    pub compaction_batch_limit: isize,
    /// Pause between two goes of a compaction.
    pub compaction_sleep_interval: GoDuration,
    /// Time between progress notices of watches; at least 100 ms.
    pub watch_progress_notify_interval: GoDuration,
    /// Time between the leader's looks whether a downgrade is done; 0 for never.
    pub downgrade_check_time: GoDuration,
    /// Megabytes that a defragmentation has to free for one to be made at start; 0 for never.
    pub bootstrap_defrag_threshold_megabytes: usize,
    /// Learners that the cluster may have.
    pub max_learners: isize,
    /// Do not wait for the disk.
    pub unsafe_no_fsync: bool,
    /// Drop all other members at the start.
    pub force_new_cluster: bool,
    /// The file that the configuration is from, if any.
    pub config_file: String,
    /// Whether only the version was asked for.
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
    /// The values of the table, before anything is resolved.
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
