//! Endpoints: `http://host:port`, `https://host:port`, `host:port`, `unix:path` or `unixs:path`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Channel, Uri};

use crate::config::Config;
use crate::connector::{Connector, Target};
use crate::tls::Tls;

/// HTTP/2 flow control windows, large enough that long lists do not wait for round trips.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// How long gRPC waits for the answer to a probe unless it is told otherwise.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Where a port without a host is, as in Go.
const THIS_MACHINE: &str = "127.0.0.1";

/// An address and whether to use TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    address: Address,
    encryption: Encryption,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    /// `host:port`.
    Tcp(String),
    /// The path of a Unix domain socket.
    Unix(PathBuf),
}

/// Whether the scheme selects TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encryption {
    Always,
    Never,
    /// If TLS is configured.
    IfConfigured,
}

/// Why an endpoint is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is not a valid address.
    #[error("invalid endpoint {0:?}")]
    Invalid(String),
}

impl Endpoint {
    /// Parses an endpoint.
    ///
    /// # Errors
    /// The scheme is not supported, or the address is invalid.
    pub(crate) fn parse(text: &str) -> Result<Endpoint, EndpointError> {
        for (scheme, encryption) in [
            ("unix:", Encryption::IfConfigured),
            ("unixs:", Encryption::Always),
        ] {
            if let Some(path) = text.strip_prefix(scheme) {
                let path = Path::new(path.strip_prefix("//").unwrap_or(path)).to_owned();
                return Ok(Endpoint {
                    address: Address::Unix(path),
                    encryption,
                });
            }
        }
        let (authority, encryption) = match text.split_once("://") {
            None => (text, Encryption::IfConfigured),
            Some((scheme, authority)) => match scheme.to_ascii_lowercase().as_str() {
                "http" => (authority, Encryption::Never),
                "https" => (authority, Encryption::Always),
                _ => return Err(EndpointError::Invalid(text.to_owned())),
            },
        };
        let mut authority = authority.split('/').next().unwrap_or_default().to_owned();
        if authority.starts_with(':') {
            authority.insert_str(0, THIS_MACHINE);
        }
        let uri = format!("http://{authority}").parse::<Uri>().ok();
        let has_host = uri.is_some_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        if !has_host {
            return Err(EndpointError::Invalid(text.to_owned()));
        }
        Ok(Endpoint {
            address: Address::Tcp(authority),
            encryption,
        })
    }

    /// Whether to use TLS, where `configured` tells whether TLS is configured. A scheme may select
    /// it by itself.
    pub(crate) fn is_encrypted(&self, configured: bool) -> bool {
        match self.encryption {
            Encryption::Always => true,
            Encryption::Never => false,
            Encryption::IfConfigured => configured,
        }
    }

    /// The host to verify the server's certificate against. For a Unix domain socket that is the
    /// name of the socket.
    pub(crate) fn host(&self) -> &str {
        let authority = match &self.address {
            Address::Tcp(authority) => authority,
            Address::Unix(path) => path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default(),
        };
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Where to connect to.
    pub(crate) fn target(&self) -> Target {
        match &self.address {
            Address::Tcp(authority) => Target::Tcp(authority.clone()),
            Address::Unix(path) => Target::Unix(path.clone()),
        }
    }

    /// Opens a connection and waits for the server's first bytes.
    ///
    /// # Errors
    /// The text of the failure, as etcd's client reports it.
    pub(crate) async fn connect(
        &self,
        config: &Config,
        tls: Option<&Tls>,
    ) -> Result<Channel, String> {
        let authority = match &self.address {
            Address::Tcp(authority) => authority.as_str(),
            // The `:authority` of requests over a Unix domain socket.
            Address::Unix(_) => "localhost",
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let origin = format!("{scheme}://{authority}");
        let mut builder = Channel::from_shared(format!("http://{authority}"))
            .expect("the authority was checked when the endpoint was parsed")
            .origin(origin.parse().expect("only the scheme differs"))
            .keep_alive_timeout(config.keepalive_timeout.unwrap_or(KEEPALIVE_TIMEOUT))
            .keep_alive_while_idle(config.keepalive_while_idle)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        if let Some(time) = config.keepalive_time {
            builder = builder.http2_keep_alive_interval(time);
        }
        let target = self.target();
        let tls = tls.map(|tls| (tls.clone(), self.host().to_owned()));
        let (connector, first_read) = Connector::new(target, tls);
        let connecting = async {
            let channel = builder.connect_with_connector(connector).await;
            let channel = channel.map_err(|error| root_cause(&error))?;
            first_read.wait().await.map(|()| channel)
        };
        let Some(timeout) = config.dial_timeout else {
            return connecting.await;
        };
        tokio::time::timeout(timeout, connecting)
            .await
            .unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
    }
}

/// The text of the root cause.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, address: Address, encryption: Encryption, host: &str) {
        let endpoint = Endpoint::parse(text).unwrap();
        let expected = Endpoint {
            address,
            encryption,
        };
        assert_eq!(endpoint, expected, "{text}");
        assert_eq!(endpoint.host(), host, "{text}");
    }

    #[test]
    fn parses_endpoints() {
        use Encryption::{Always, IfConfigured, Never};
        let tcp = |authority: &str| Address::Tcp(authority.to_owned());
        let unix = |path: &str| Address::Unix(path.into());
        check(
            "127.0.0.1:2379",
            tcp("127.0.0.1:2379"),
            IfConfigured,
            "127.0.0.1",
        );
        check("http://[::1]:2379", tcp("[::1]:2379"), Never, "::1");
        check(
            "http://localhost:2379/",
            tcp("localhost:2379"),
            Never,
            "localhost",
        );
        check("https://a:1", tcp("a:1"), Always, "a");
        check("HTTPS://a:1", tcp("a:1"), Always, "a");
        check(":1", tcp("127.0.0.1:1"), IfConfigured, "127.0.0.1");
        check("http://:1", tcp("127.0.0.1:1"), Never, "127.0.0.1");
        check("unix:m1.sock:0", unix("m1.sock:0"), IfConfigured, "m1.sock");
        check(
            "unix:///run/etcd.sock",
            unix("/run/etcd.sock"),
            IfConfigured,
            "etcd.sock",
        );
        check(
            "unixs:localhost:1",
            unix("localhost:1"),
            Always,
            "localhost",
        );
        for text in ["a b", "", "ftp://a:1"] {
            assert_eq!(
                Endpoint::parse(text),
                Err(EndpointError::Invalid(text.to_owned()))
            );
        }
    }
}
