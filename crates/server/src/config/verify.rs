//! Checks of the settings, in etcd's order and with its messages.

use super::build::Builder;
use super::gates::Gate;
use super::table::{Effect, FLAGS, Flag, Status};
use super::url::Url;
use super::{Config, Refusal};
use crate::log::{self, Format, GoDuration, Level, Output};
use crate::log_record;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is")]
pub(super) enum VerifyError {
    #[error("{0:?} is not a valid flag")]
    Leftover(String),
    #[error("invalid value {value:?} for {name}: {reason}")]
    Variable {
        value: String,
        name: String,
        reason: String,
    },
    /// The configuration file cannot be read, or has a value of a wrong type.
    #[error("{0}")]
    File(String),
    #[error("--{0} and --{1} set the same; use one of them")]
    TwoSpellings(&'static str, &'static str),
    #[error("--{0}={1} asks for what is not part of etcd any more")]
    Retired(&'static str, String),
    #[error("v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"")]
    FallbackProxy,
    #[error("--logger=capnslog is removed in v3.5")]
    LoggerRemoved,
    #[error("unknown logger option {0:?}")]
    Logger(String),
    #[error("multi logoutput for \"default\" is not supported yet")]
    MultipleDefaultOutputs,
    #[error("--log-outputs requires a single file path when --log-rotate-config-json is defined")]
    RotationNeedsOneFile,
    #[error("improperly formatted log rotation config: {0}")]
    RotationSyntax(String),
    #[error("invalid log rotation config: {0}")]
    Rotation(String),
    #[error(
        "running with systemd/journal but other '--log-outputs' values ({0}) are configured with 'default'; override 'default' value with something else"
    )]
    JournalAndOthers(String),
    #[error("unknown log format: {0}, supported values json, console")]
    LogFormat(String),
    #[error("expected IP in URL for binding ({0})")]
    BindName(Url),
    #[error(
        "--initial-advertise-peer-urls {0:?} must be \"host:port\" (unexpected empty host ({1}))"
    )]
    AdvertisePeerHost(String, Url),
    #[error(
        "--advertise-client-urls {0:?} must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host ({1}))"
    )]
    AdvertiseClientHost(String, Url),
    #[error("unexpected clusterState {0:?}")]
    ClusterState(String),
    #[error(
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\""
    )]
    BootstrapConflict,
    #[error("both --discovery-token and --discovery-endpoints must be set")]
    DiscoveryHalf,
    #[error("--discovery-endpoints must not contain empty endpoints")]
    DiscoveryEmptyEndpoint,
    #[error("--heartbeat-interval must be >0 (set to 0ms)")]
    HeartbeatZero,
    #[error("--election-timeout must be >0 (set to 0ms)")]
    ElectionZero,
    #[error(
        "--election-timeout[{election_ms}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat_ms}ms]"
    )]
    ElectionRatio {
        election_ms: usize,
        heartbeat_ms: usize,
    },
    #[error(
        "--election-timeout[{0}ms] is too long, and should be set less than {ELECTION_MS_MAX}ms"
    )]
    ElectionLong(usize),
    #[error("--advertise-client-urls is required when --listen-client-urls is set explicitly")]
    AdvertiseClientUrlsMissing,
    #[error("undefined auto-compaction-mode")]
    CompactionModeEmpty,
    #[error("unknown auto-compaction-mode {0:?}")]
    CompactionMode(String),
    #[error("distributed tracing configurition is not valid: (tracing sampling rate must be {0})")]
    TracingRate(&'static str),
    #[error(
        "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint"
    )]
    CheckpointPersist,
    #[error("--{0} must be >=0 (set to {1})")]
    Negative(&'static str, String),
    #[error("--max-request-bytes must be >={REQUEST_BYTES_MIN} (set to {0})")]
    RequestBytes(usize),
    #[error("--compact-hash-check-time must be >0 (set to {0})")]
    CompactHashCheckTime(GoDuration),
    #[error("unexpected TLS version {0:?} (must be one of: TLS1.2, TLS1.3)")]
    TlsVersion(String),
    #[error("min version ({0}) is greater than max version ({1})")]
    TlsVersions(String, String),
    #[error("cipher suites cannot be configured when only TLS1.3 is enabled")]
    CipherSuites,
}

use VerifyError as E;

const ELECTION_MS_MAX: usize = 50_000;
/// Enough for what a member itself has to propose before it is ready: its name, its addresses, the
/// cluster's version. With less, etcd starts and never serves.
const REQUEST_BYTES_MIN: usize = 1024;

pub(super) fn verify(builder: &mut Builder) -> Result<(), Refusal> {
    if let Some(first_error) = builder.take_first_error() {
        return Err(first_error.into());
    }
    if builder.config.discovery_fallback.0 == "proxy" {
        return Err(E::FallbackProxy.into());
    }
    builder.log = log_options(&builder.config)?;
    urls(builder)?;
    let config = &builder.config;
    bootstrap(config)?;
    raft_times(config)?;
    if !config.listen_client_urls.is_empty() && config.advertise_client_urls.is_empty() {
        return Err(E::AdvertiseClientUrlsMissing.into());
    }
    features(builder)?;
    if builder.config.name == "default" {
        builder.note(log_record!(
            Warn,
            None,
            "it isn't recommended to use default name, please set a value for --name. Note that etcd might run into issue when multiple members have the same default name";
            "name" => "default"
        ));
    }
    tls_versions(&builder.config)?;
    deprecated(builder);
    without_effect(builder);
    Ok(())
}

fn log_options(config: &Config) -> Result<log::Options, Refusal> {
    match config.logger.as_str() {
        "zap" => {}
        "capnslog" => return Err(E::LoggerRemoved.into()),
        other => return Err(E::Logger(other.to_owned()).into()),
    }
    let outputs = &config.log_outputs;
    if outputs.len() > 1 && outputs.contains("default") {
        return Err(E::MultipleDefaultOutputs.into());
    }
    let files = outputs
        .iter()
        .filter(|output| !matches!(output.as_str(), "default" | "stderr" | "stdout"))
        .count();
    if config.enable_log_rotation && (files > 1 || (files == 0 && outputs.len() <= 1)) {
        return Err(E::RotationNeedsOneFile.into());
    }
    let rotation = match config.enable_log_rotation {
        true => Some(super::rotation::parse(&config.log_rotation_config_json)?),
        false => None,
    };
    let Some(level) = Level::from_name(&config.log_level) else {
        // etcd panics here.
        let stderr = format!("panic: unrecognized level: {:?}\n", config.log_level);
        return Err(Refusal::Print {
            stdout: String::new(),
            stderr,
            exit_code: 2,
        });
    };
    let format = match config.log_format.as_str() {
        "json" | "" => Format::Json,
        "console" => Format::Console,
        other => return Err(E::LogFormat(other.to_owned()).into()),
    };
    if outputs.len() > 1 && outputs.contains("systemd/journal") {
        let names: Vec<String> = outputs.iter().map(|name| format!("{name:?}")).collect();
        return Err(E::JournalAndOthers(format!("[{}]", names.join(" "))).into());
    }
    Ok(log::Options {
        level,
        format,
        times: log::Times::Micros,
        outputs: outputs.iter().map(|name| output(name)).collect(),
        rotation,
    })
}

fn output(name: &str) -> Output {
    match name {
        "default" | "stderr" => Output::Stderr,
        "stdout" => Output::Stdout,
        "systemd/journal" => Output::Journal,
        path => Output::File(path.into()),
    }
}

fn urls(builder: &mut Builder) -> Result<(), VerifyError> {
    let config = &builder.config;
    for urls in [
        &config.listen_peer_urls,
        &config.listen_client_urls,
        &config.listen_client_http_urls,
    ] {
        check_bind(urls)?;
    }
    if config.listen_client_http_urls.is_empty() {
        builder.note(log_record!(
            Warn,
            None,
            "Running http and grpc server on single port. This is not recommended for production."
        ));
    }
    let config = &builder.config;
    check_bind(&config.listen_metrics_urls)?;
    if let Some(url) = without_host(&config.initial_advertise_peer_urls) {
        return Err(E::AdvertisePeerHost(
            joined(&config.initial_advertise_peer_urls),
            url.clone(),
        ));
    }
    if let Some(url) = without_host(&config.advertise_client_urls) {
        return Err(E::AdvertiseClientHost(
            joined(&config.advertise_client_urls),
            url.clone(),
        ));
    }
    Ok(())
}

/// Listeners bind IP addresses and `localhost`, not other names, which may change.
fn check_bind(urls: &[Url]) -> Result<(), VerifyError> {
    let binds = |url: &Url| {
        url.is_unix() || url.host() == "localhost" || url.host().parse::<std::net::IpAddr>().is_ok()
    };
    urls.iter()
        .find(|url| !binds(url))
        .map_or(Ok(()), |url| Err(E::BindName(url.clone())))
}

fn without_host(urls: &[Url]) -> Option<&Url> {
    urls.iter()
        .find(|url| !url.is_unix() && url.host().is_empty())
}

fn joined(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}

fn bootstrap(config: &Config) -> Result<(), VerifyError> {
    if !matches!(config.initial_cluster_state.0.as_str(), "new" | "existing") {
        return Err(E::ClusterState(config.initial_cluster_state.0.clone()));
    }
    let endpoints = &config.discovery.endpoints;
    let ways = [
        !config.initial_cluster.is_empty(),
        !config.discovery_srv.is_empty(),
        !endpoints.is_empty(),
    ];
    if ways.into_iter().filter(|&way| way).count() > 1 {
        return Err(E::BootstrapConflict);
    }
    if config.discovery.token.is_empty() != endpoints.is_empty() {
        return Err(E::DiscoveryHalf);
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return Err(E::DiscoveryEmptyEndpoint);
    }
    Ok(())
}

fn raft_times(config: &Config) -> Result<(), VerifyError> {
    let (heartbeat_ms, election_ms) = (config.heartbeat_interval_ms, config.election_timeout_ms);
    if heartbeat_ms == 0 {
        return Err(E::HeartbeatZero);
    }
    if election_ms == 0 {
        return Err(E::ElectionZero);
    }
    if heartbeat_ms.saturating_mul(5) > election_ms {
        return Err(E::ElectionRatio {
            election_ms,
            heartbeat_ms,
        });
    }
    if election_ms > ELECTION_MS_MAX {
        return Err(E::ElectionLong(election_ms));
    }
    Ok(())
}

fn features(builder: &mut Builder) -> Result<(), VerifyError> {
    not_below_zero(&mut builder.config)?;
    let config = &builder.config;
    if config.max_request_bytes < REQUEST_BYTES_MIN {
        return Err(E::RequestBytes(config.max_request_bytes));
    }
    match config.auto_compaction_mode.as_str() {
        "periodic" | "revision" => {}
        "" => return Err(E::CompactionModeEmpty),
        other => return Err(E::CompactionMode(other.to_owned())),
    }
    let rate = config.tracing.sampling_rate_per_million;
    match config.tracing.enabled {
        true if rate < 0 => return Err(E::TracingRate("positive")),
        true if rate > 1_000_000 => return Err(E::TracingRate("less than 1000000")),
        // etcd looks at it with tracing only.
        false if rate < 0 => {
            let flag = "distributed-tracing-sampling-rate";
            return Err(E::Negative(flag, rate.to_string()));
        }
        _ => {}
    }
    let checkpoint = config.feature_gates.enabled(Gate::LeaseCheckpoint);
    let persist = config.feature_gates.enabled(Gate::LeaseCheckpointPersist);
    if persist && !checkpoint {
        return Err(E::CheckpointPersist);
    }
    if config.compact_hash_check_time.0 <= 0 {
        return Err(E::CompactHashCheckTime(config.compact_hash_check_time));
    }
    if checkpoint && !persist {
        builder.note(log_record!(
            Warn,
            None,
            "Detected that checkpointing is enabled without persistence. Consider enabling feature gate LeaseCheckpointPersist"
        ));
    }
    Ok(())
}

/// etcd accepts negative numbers here, and then spins, panics or takes them for something else.
fn not_below_zero(config: &mut Config) -> Result<(), VerifyError> {
    for flag in FLAGS.iter().filter(|flag| !flag.signed) {
        if let Effect::Field(field) = flag.effect
            && field(config).is_negative()
        {
            return Err(E::Negative(flag.name, field(config).text()));
        }
    }
    Ok(())
}

fn tls_versions(config: &Config) -> Result<(), VerifyError> {
    // An empty minimum stands for the oldest version, an empty maximum for the newest.
    let number = |name: &String| match name.as_str() {
        "" => Ok(0),
        "TLS1.2" => Ok(2),
        "TLS1.3" => Ok(3),
        _ => Err(E::TlsVersion(name.clone())),
    };
    let (min, max) = (
        number(&config.tls_min_version)?,
        number(&config.tls_max_version)?,
    );
    if max != 0 && min > max {
        return Err(E::TlsVersions(
            config.tls_min_version.clone(),
            config.tls_max_version.clone(),
        ));
    }
    if min == 3 && !config.cipher_suites.is_empty() {
        return Err(E::CipherSuites);
    }
    Ok(())
}

fn deprecated(builder: &mut Builder) {
    if builder.is_given("max-snapshots") {
        builder.note(log_record!(
            Warn,
            None,
            "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."
        ));
    }
    if builder.is_given("v2-deprecation") {
        builder.note(log_record!(
            Warn,
            None,
            "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input."
        ));
    }
}

/// Warns about flags that are set and have no effect.
fn without_effect(builder: &mut Builder) {
    let mut defaults = Config::from_table();
    for flag in FLAGS {
        if let Status::WithoutEffect(reason) = flag.status
            && differs(flag, &mut builder.config, &mut defaults)
        {
            let message = format!("--{} has no effect: {reason}", flag.name);
            builder.note(log_record!(Warn, None, message));
        }
    }
    let metrics = builder.config.metrics.clone();
    if !matches!(metrics.as_str(), "basic" | "extensive") {
        builder.note(log_record!(
            Warn, None, "unknown value of --metrics; 'basic' is used"; "value" => metrics
        ));
    }
}

fn differs(flag: &Flag, given: &mut Config, defaults: &mut Config) -> bool {
    match flag.effect {
        Effect::Field(field) => field(given).text() != field(defaults).text(),
        _ => false,
    }
}
