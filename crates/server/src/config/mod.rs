//! The configuration of a member: read, checked, resolved.
//!
//! ```text
//! argv ──┐                             ┌─ Run(Config)   start a member
//! ETCD_* ┼─ parse ─ verify ─ resolve ──┼─ Print         help, version, a mistake in the grammar of a flag
//! file ──┘                             └─ Fail          anything else that is wrong: a line in the log says what
//! ```
//!
//! A configuration file replaces command line and environment altogether; a flag and its variable together are an error; both
//! as in etcd. Everything that is known about flags stands in [`table`]. Texts, streams and exit codes are etcd's, because scripts
//! match them; a flag whose feature does not exist here yet is refused when it asks for anything but its default, never ignored.
//!
//! [`parse`] is a function of its inputs; what is to be logged on the way is returned as records, since only the result
//! says where the log goes. [`ParseOutcome::settle`] does the printing.
//!
//! Deliberately absent: a reload while running, and any file but the configuration file itself (data directories and certificates are
//! opened by those who use them).

pub mod gates;
pub mod help;
pub mod identity;
pub mod notify;
pub mod start;
pub mod table;
pub mod url;
pub mod value;
pub mod version;

mod args;
mod build;
mod environment;
mod file;
mod resolve;
mod verify;
mod yaml;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::log::{self, GoDuration, Record};
use crate::log_record;
use build::Builder;
use gates::FeatureGates;
use url::Url;
use value::{ClusterState, Fallback, HostNames, Origins, V2Deprecation};
use verify::VerifyError;

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
    /// `name=url,…` at the first start; see [`identity`].
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
    /// Lock memory; refused in this version.
    pub memory_mlock: bool,
    /// Switched features.
    pub feature_gates: FeatureGates,
    /// `periodic` or `revision`; see [`Config::auto_compaction`].
    pub auto_compaction_mode: String,
    /// Hours, revisions or a duration.
    pub auto_compaction_retention: String,
    /// Read and ignored.
    pub v2_deprecation: V2Deprecation,
    /// TLS towards clients; refused in this version.
    pub client_tls: Tls,
    /// TLS between members; refused in this version.
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
    /// Name of a [`log::Level`].
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
    /// Refused in this version.
    pub corrupt_check_time: GoDuration,
    /// Refused in this version.
    pub compact_hash_check_time: GoDuration,
    /// Revisions that a compaction deletes in one go.
    pub compaction_batch_limit: isize,
    /// Pause between two goes of a compaction.
    pub compaction_sleep_interval: GoDuration,
    /// Time between progress notices of watches; at least 100 ms.
    pub watch_progress_notify_interval: GoDuration,
    /// Refused in this version.
    pub downgrade_check_time: GoDuration,
    /// Refused in this version.
    pub bootstrap_defrag_threshold_megabytes: usize,
    /// Learners that the cluster may have.
    pub max_learners: isize,
    /// Do not wait for the disk.
    pub unsafe_no_fsync: bool,
    /// Refused in this version.
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
        for flag in table::FLAGS.iter().filter(|flag| !flag.default.is_empty()) {
            if let table::Effect::Field(field) = flag.effect {
                field(&mut config)
                    .set(flag.default)
                    .expect("a default of the table is valid");
            }
        }
        config
    }
}

/// What a process gives to its configuration.
pub struct Process<'a> {
    /// The command line, program first.
    pub args: &'a [String],
    /// The environment.
    pub env: &'a [(String, String)],
    /// Reads the configuration file.
    pub read_file: &'a dyn Fn(&str) -> io::Result<Vec<u8>>,
    /// The address that this machine uses towards the world, if it has one.
    pub default_host: &'a dyn Fn() -> Option<IpAddr>,
}

/// What is to be done.
#[derive(Debug)]
pub enum ParseOutcome {
    /// Start a member.
    Run {
        /// Its configuration.
        config: Box<Config>,
        /// Where its log goes.
        log: log::Options,
        /// What to log first.
        notes: Vec<Record>,
    },
    /// Print and exit.
    Print {
        /// For standard output.
        stdout: String,
        /// For standard error.
        stderr: String,
        /// 0 for help and version, 2 for a mistake in the grammar of flags.
        exit_code: u8,
    },
    /// Log and exit with 1.
    Fail {
        /// Where the log goes, as far as that is known.
        log: log::Options,
        /// What to log; the last lines say what is wrong.
        notes: Vec<Record>,
    },
}

/// Why there is nothing to start.
enum Refusal {
    /// A mistake in the grammar of flags: the text, then the usage.
    Usage(String),
    /// Texts and an exit code as they are.
    Print {
        stdout: String,
        stderr: String,
        exit_code: u8,
    },
    /// Something logged as `failed to verify flags`.
    Verify(VerifyError),
    /// A line that says it all.
    Fatal(Record),
}

impl From<VerifyError> for Refusal {
    fn from(error: VerifyError) -> Self {
        Refusal::Verify(error)
    }
}

/// Reads command line, environment and configuration file.
pub fn parse(process: &Process<'_>) -> ParseOutcome {
    let mut builder = Builder::new();
    match read(process, &mut builder) {
        Ok(()) => {
            builder.note_running(process.args);
            resolve::finish(&mut builder, process.default_host);
            ParseOutcome::Run {
                config: Box::new(builder.config),
                log: builder.log,
                notes: builder.notes,
            }
        }
        Err(Refusal::Usage(mistake)) => ParseOutcome::Print {
            stdout: String::new(),
            stderr: format!("{mistake}\n{}\n", help::usage()),
            exit_code: 2,
        },
        Err(Refusal::Print {
            stdout,
            stderr,
            exit_code,
        }) => ParseOutcome::Print {
            stdout,
            stderr,
            exit_code,
        },
        Err(Refusal::Verify(error)) => {
            builder.note_running(process.args);
            builder.note(
                log_record!(Warn, None, "failed to verify flags"; "error" => log::Text(&error)),
            );
            if matches!(error, VerifyError::AdvertiseClientUrlsMissing) {
                builder.note(log_record!(Warn, None, "advertise client URLs are not set"; "error" => log::Text(&error)));
            }
            ParseOutcome::Fail {
                log: builder.log,
                notes: builder.notes,
            }
        }
        Err(Refusal::Fatal(record)) => {
            builder.note(record);
            ParseOutcome::Fail {
                log: builder.log,
                notes: builder.notes,
            }
        }
    }
}

fn read(process: &Process<'_>, builder: &mut Builder) -> Result<(), Refusal> {
    if let Some(program @ ("gateway" | "grpc-proxy")) = process.args.get(1).map(String::as_str) {
        let stderr = format!("etcd {program} is not supported yet\n");
        return Err(Refusal::Print {
            stdout: String::new(),
            stderr,
            exit_code: 1,
        });
    }
    let leftover = args::apply(process.args.get(1..).unwrap_or_default(), builder)?;
    if let Some(word) = leftover.first() {
        return Err(VerifyError::Leftover(word.clone()).into());
    }
    if builder.config.version {
        return Err(Refusal::Print {
            stdout: version::text(),
            stderr: String::new(),
            exit_code: 0,
        });
    }
    if builder.config.config_file.is_empty() {
        let variable = process
            .env
            .iter()
            .find(|(name, _)| name == "ETCD_CONFIG_FILE");
        builder.config.config_file = variable.map(|(_, path)| path.clone()).unwrap_or_default();
    }
    if builder.config.config_file.is_empty() {
        environment::apply(process.env, builder)?;
        builder.settle_flags();
        verify::verify(builder)?;
    } else {
        let path = builder.config.config_file.clone();
        *builder = Builder::new();
        builder.config.config_file.clone_from(&path);
        file::apply(&path, process.read_file, builder)?;
        verify::verify(builder)?;
        builder.note(log_record!(
            Info,
            None,
            "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided";
            "path" => path
        ));
    }
    Ok(())
}

/// [`parse`] of this process.
pub fn parse_process() -> ParseOutcome {
    let args = match std::env::args_os()
        .map(|arg| arg.into_string())
        .collect::<Result<Vec<_>, _>>()
    {
        Ok(args) => args,
        Err(arg) => {
            let stderr = format!("argument {arg:?} is not UTF-8\n");
            return ParseOutcome::Print {
                stdout: String::new(),
                stderr,
                exit_code: 2,
            };
        }
    };
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    let env: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    parse(&Process {
        args: &args,
        env: &env,
        read_file: &|path| std::fs::read(path),
        default_host: &default_host,
    })
}

impl ParseOutcome {
    /// Prints and logs what there is to print and log, and sets the process's log.
    ///
    /// # Errors
    /// The exit code, when there is no member to start.
    pub fn settle(self) -> Result<Box<Config>, ExitCode> {
        match self {
            ParseOutcome::Run { config, log, notes } => match log::init(&log) {
                Ok(()) => {
                    notes.iter().for_each(log::emit);
                    Ok(config)
                }
                Err(error) => {
                    log::warn!("failed to verify flags"; "error" => log::Text(error));
                    Err(ExitCode::from(1))
                }
            },
            ParseOutcome::Print {
                stdout,
                stderr,
                exit_code,
            } => {
                // Nobody is left to be told when these streams are closed.
                let _ = io::stderr().write_all(stderr.as_bytes());
                let _ = io::stdout().write_all(stdout.as_bytes());
                Err(ExitCode::from(exit_code))
            }
            ParseOutcome::Fail { log, notes } => {
                if let Err(error) = log::init(&log) {
                    log::warn!("failed to verify flags"; "error" => log::Text(error));
                } else {
                    notes.iter().for_each(log::emit);
                }
                Err(ExitCode::from(1))
            }
        }
    }
}

/// The address of the interface with the default route. Connecting a datagram socket picks a source address and sends nothing; the
/// destination is one of those reserved for documentation (RFC 5737).
fn default_host() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

/// An error of the operating system in Go's words: lower case, without the number.
pub(crate) fn go_io_error(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

/// The directory of a member under its data directory.
pub(crate) fn member_dir(data_dir: &str) -> PathBuf {
    PathBuf::from(data_dir).join("member")
}
