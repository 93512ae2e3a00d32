//! How to reach a cluster.

use std::time::Duration;

use crate::endpoint::EndpointError;
use crate::login::Credentials;
use crate::tls::{TlsConfig, TlsError};

/// How to reach a cluster. The defaults are those of etcd's Go client where it has any.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to connect: `host:port`, `http://host:port`, `https://host:port`, `unix:path` or
    /// `unixs:path`. At least one.
    pub endpoints: Vec<String>,
    /// How long one attempt to connect may take, and how long
    /// [`Client::log_in`](crate::Client::log_in) waits. Two seconds.
    pub dial_timeout: Duration,
    /// A connection that is silent for so long is probed. Two seconds.
    pub keepalive_time: Duration,
    /// A probe that is not answered for so long ends the connection. Six seconds.
    pub keepalive_timeout: Duration,
    /// The largest request, in bytes. 2 MiB.
    pub request_bytes_max: usize,
    /// The largest response, in bytes. 2 GiB - 1.
    pub response_bytes_max: usize,
    /// Whom to trust and what to show. None: endpoints that say `https` or `unixs` are checked with
    /// the system's authorities, all others are not encrypted.
    pub tls: TlsConfig,
    /// Who asks. None: nobody, or whom the client's certificate names.
    pub credentials: Option<Credentials>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            endpoints: Vec::new(),
            dial_timeout: Duration::from_secs(2),
            keepalive_time: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(6),
            request_bytes_max: 2 << 20,
            response_bytes_max: i32::MAX as usize,
            tls: TlsConfig::default(),
            credentials: None,
        }
    }
}

impl Config {
    /// The defaults, and these endpoints.
    pub fn new<T: Into<String>>(endpoints: impl IntoIterator<Item = T>) -> Config {
        Config {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ..Config::default()
        }
    }

    /// The same configuration for one endpoint alone.
    pub fn only(&self, endpoint: &str) -> Config {
        Config {
            endpoints: vec![endpoint.to_owned()],
            ..self.clone()
        }
    }
}

/// A configuration of which no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is nowhere to connect to.
    #[error("etcdclient: no available endpoints")]
    NoEndpoints,
    /// An endpoint that cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// TLS that cannot be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
}
