//! What the flags ask for, checked as far as that is possible without opening anything.

use std::time::Duration;

use retcd_client::TlsConfig;
use retcd_tls::Version;

use crate::config::settings::Tls;
use crate::proxy::Refusal;
use crate::proxy::flags::Values;
use crate::runtime::Http2Settings;

/// The settings of a proxy, most of them named as their flags.
pub(super) struct Settings {
    pub(super) listen_addr: String,
    pub(super) metrics_addr: String,
    pub(super) advertise_client_url: String,
    pub(super) enable_pprof: bool,
    pub(super) endpoints: Vec<String>,
    pub(super) discovery_srv: String,
    pub(super) discovery_srv_name: String,
    pub(super) insecure_discovery: bool,
    /// None for never.
    pub(super) endpoints_auto_sync_interval: Option<Duration>,
    /// None for no pings.
    pub(super) dial_keepalive_time: Option<Duration>,
    pub(super) dial_keepalive_timeout: Option<Duration>,
    pub(super) permit_without_stream: bool,
    pub(super) max_send_bytes: usize,
    pub(super) max_recv_bytes: usize,
    /// Towards servers; none if nothing asks for TLS.
    pub(super) server_tls: Option<TlsConfig>,
    /// Towards clients.
    pub(super) listener: ListenerTls,
    pub(super) http2: Http2Settings,
    pub(super) namespace: String,
    pub(super) registration: Option<Registration>,
    pub(super) logs_messages: bool,
    pub(super) waits_for_cluster: bool,
    pub(super) debug: bool,
}

/// TLS of the listeners.
pub(super) struct ListenerTls {
    /// Its files; none if clients connect without TLS, or if a certificate is to be made.
    pub(super) files: Option<Tls>,
    pub(super) auto: bool,
    pub(super) data_dir: String,
    pub(super) validity_years: usize,
    pub(super) cipher_suites: Vec<String>,
    pub(super) min: Option<Version>,
    pub(super) max: Option<Version>,
    pub(super) crl_file: String,
}

/// `--resolver-prefix` and `--resolver-ttl`.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) prefix: String,
    pub(super) ttl_seconds: i64,
}

impl Settings {
    /// # Errors
    /// Flags contradict each other, or one has no meaning.
    pub(super) fn new(values: &Values) -> Result<Settings, Refusal> {
        let registration = registration(values)?;
        if values.bool("auto-tls") && values.number("self-signed-cert-validity") == 0 {
            return Err(Refusal::stderr(
                "selfSignedCertValidity is invalid,it should be greater than 0",
            ));
        }
        let listener = listener_tls(values)?;
        let keepalive_timeout = values.duration("grpc-keepalive-timeout").std();
        let text = |name: &str| values.text(name).to_owned();
        Ok(Settings {
            listen_addr: text("listen-addr"),
            metrics_addr: text("metrics-addr"),
            advertise_client_url: text("advertise-client-url"),
            enable_pprof: values.bool("enable-pprof"),
            endpoints: values.texts("endpoints").to_vec(),
            discovery_srv: text("discovery-srv"),
            discovery_srv_name: text("discovery-srv-name"),
            insecure_discovery: values.bool("insecure-discovery"),
            endpoints_auto_sync_interval: values.duration("endpoints-auto-sync-interval").limit(),
            dial_keepalive_time: values.duration("dial-keepalive-time").limit(),
            dial_keepalive_timeout: values.duration("dial-keepalive-timeout").limit(),
            permit_without_stream: values.bool("permit-without-stream"),
            max_send_bytes: bytes(values.number("max-send-bytes"), 2 << 20),
            max_recv_bytes: bytes(values.number("max-recv-bytes"), i32::MAX as usize),
            server_tls: server_tls(values),
            listener,
            http2: Http2Settings {
                streams_max: u32::try_from(values.number("max-concurrent-streams"))
                    .expect("the flag is a uint32"),
                keepalive_interval: values
                    .duration("grpc-keepalive-interval")
                    .limit()
                    .filter(|_| !keepalive_timeout.is_zero()),
                keepalive_timeout,
            },
            namespace: text("namespace"),
            registration,
            logs_messages: values.bool("experimental-enable-grpc-logging"),
            waits_for_cluster: values.bool("experimental-serializable-ordering"),
            debug: values.bool("debug"),
        })
    }
}

/// 0 and less stand for the default of etcd's client.
fn bytes(value: i64, default: usize) -> usize {
    usize::try_from(value)
        .ok()
        .filter(|bytes| *bytes > 0)
        .unwrap_or(default)
}

fn registration(values: &Values) -> Result<Option<Registration>, Refusal> {
    let (prefix, ttl) = (
        values.text("resolver-prefix"),
        values.number("resolver-ttl"),
    );
    if !prefix.is_empty() && ttl < 1 {
        return Err(Refusal::stderr(format_args!("invalid resolver-ttl {ttl}")));
    }
    if prefix.is_empty() && ttl > 0 {
        return Err(Refusal::stderr(format_args!(
            "invalid resolver-prefix {prefix:?}"
        )));
    }
    let url = values.text("advertise-client-url");
    if !prefix.is_empty() && url.is_empty() {
        return Err(Refusal::stderr(format_args!(
            "invalid advertise-client-url {url:?}"
        )));
    }
    Ok((!prefix.is_empty()).then(|| Registration {
        prefix: prefix.to_owned(),
        ttl_seconds: ttl,
    }))
}

fn server_tls(values: &Values) -> Option<TlsConfig> {
    let file = |name| match values.text(name) {
        "" => None,
        path => Some(path.into()),
    };
    let tls = TlsConfig {
        cert: file("cert"),
        key: file("key"),
        authorities: file("cacert"),
        skip_verify: values.bool("insecure-skip-tls-verify"),
        ..TlsConfig::default()
    };
    (tls != TlsConfig::default()).then_some(TlsConfig {
        required: true,
        ..tls
    })
}

fn listener_tls(values: &Values) -> Result<ListenerTls, Refusal> {
    let (min_name, max_name) = (
        values.text("tls-min-version"),
        values.text("tls-max-version"),
    );
    let min = version("tls-min-version", min_name)?;
    let max = version("tls-max-version", max_name)?;
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        return Err(Refusal::stderr(format_args!(
            "min version ({min_name}) is greater than max version ({max_name})"
        )));
    }
    let cipher_suites = values.texts("listen-cipher-suites").to_vec();
    if min == Some(Version::Tls13) && !cipher_suites.is_empty() {
        return Err(Refusal::stderr(
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ));
    }
    let text = |name: &str| values.text(name).to_owned();
    let files = Tls {
        cert_file: text("cert-file"),
        key_file: text("key-file"),
        trusted_ca_file: text("trusted-ca-file"),
        ..Tls::default()
    };
    let files = (files != Tls::default()).then_some(files);
    Ok(ListenerTls {
        auto: files.is_none() && values.bool("auto-tls"),
        files,
        data_dir: text("data-dir"),
        validity_years: usize::try_from(values.number("self-signed-cert-validity"))
            .unwrap_or(usize::MAX),
        cipher_suites,
        min,
        max,
        crl_file: text("client-crl-file"),
    })
}

/// None if the name is empty.
fn version(flag: &str, name: &str) -> Result<Option<Version>, Refusal> {
    match (name, Version::from_name(name)) {
        ("", _) => Ok(None),
        (_, Some(version)) => Ok(Some(version)),
        (_, None) => Err(Refusal::stderr(format_args!(
            "{flag} is invalid: unexpected TLS version {name:?} (must be one of: TLS1.2, TLS1.3)"
        ))),
    }
}
