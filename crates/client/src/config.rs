//! Client configuration.

use std::time::Duration;

use crate::endpoint::EndpointError;
use crate::login::Credentials;
use crate::tls::{TlsConfig, TlsError};

/// How to reach a cluster. Defaults are those of etcd's Go client, where it has any.
#[derive(Clone, Debug)]
pub struct Config {
    /// `host:port`, `http://host:port`, `https://host:port`, `unix:path` or `unixs:path`. At least
    /// one.
    pub endpoints: Vec<String>,
    /// Timeout of an attempt to connect, and of [`Client::log_in`](crate::Client::log_in); `None`
    /// for none. Default: 2 s.
    pub dial_timeout: Option<Duration>,
    /// A connection that is idle for this long is probed; `None` for never. Default: 2 s.
    pub keepalive_time: Option<Duration>,
    /// A probe without a response within this time closes the connection; `None` for gRPC's own
    /// 20 s. Default: 6 s.
    pub keepalive_timeout: Option<Duration>,
    /// Whether connections without requests are probed as well. Default: no.
    pub keepalive_while_idle: bool,
    /// Maximum size of a request in bytes. Default: 2 MiB.
    pub request_bytes_max: usize,
    /// Maximum size of a response in bytes. Default: 2 GiB - 1.
    pub response_bytes_max: usize,
    /// TLS files and options. By default, `https` and `unixs` endpoints are verified against the
    /// system's CA certificates, and all others are not encrypted.
    pub tls: TlsConfig,
    /// How to authenticate. By default, as the user named by the client certificate, if at all.
    pub credentials: Option<Credentials>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            endpoints: Vec::new(),
            dial_timeout: Some(Duration::from_secs(2)),
            keepalive_time: Some(Duration::from_secs(2)),
            keepalive_timeout: Some(Duration::from_secs(6)),
            keepalive_while_idle: false,
            request_bytes_max: 2 << 20,
            response_bytes_max: i32::MAX as usize,
            tls: TlsConfig::default(),
            credentials: None,
        }
    }
}

impl Config {
    /// The defaults with these endpoints.
    pub fn new<T: Into<String>>(endpoints: impl IntoIterator<Item = T>) -> Config {
        Config {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ..Config::default()
        }
    }

    /// This configuration with a single endpoint.
    pub fn with_endpoint(&self, endpoint: &str) -> Config {
        Config {
            endpoints: vec![endpoint.to_owned()],
            ..self.clone()
        }
    }
}

/// Why a configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no endpoint.
    #[error("etcdclient: no available endpoints")]
    NoEndpoints,
    /// An endpoint is invalid.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The TLS configuration is invalid.
    #[error(transparent)]
    Tls(#[from] TlsError),
}
