//! Byte streams to servers that are not spoken to in gRPC: API version 2 and the pages of members.
//!
//! Endpoints and TLS are those of [`Client`](crate::Client), but HTTP/1.1 is negotiated, and the
//! error texts are those of Go's `net` and `crypto/tls` without gRPC's prefixes.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};

use crate::connector::Target;
use crate::endpoint::Endpoint;
use crate::tls::{Tls, TlsConfig, TlsError};

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Opens connections for HTTP/1.1.
#[derive(Clone, Debug)]
pub struct Dialer {
    tls: Tls,
    /// Whether endpoints without a scheme use TLS.
    encrypts: bool,
}

/// A connection, with or without TLS.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The endpoint cannot be reached: `dial tcp 127.0.0.1:2379: connect: connection refused`.
    #[error("{0}")]
    Unreachable(String),
    /// The TLS handshake failed.
    #[error("{0}")]
    Handshake(String),
}

impl Dialer {
    /// Loads the TLS files.
    ///
    /// # Errors
    /// A file cannot be used, or certificate and key do not match.
    pub fn new(config: &TlsConfig) -> Result<Dialer, TlsError> {
        Ok(Dialer {
            tls: Tls::load(config)?,
            encrypts: config.asks_for_tls(),
        })
    }

    /// Connects to an endpoint of the forms that [`Config`](crate::Config) accepts.
    ///
    /// # Errors
    /// As [`DialError`].
    pub async fn dial(&self, endpoint: &str) -> Result<Box<dyn ByteStream>, DialError> {
        let endpoint = Endpoint::parse(endpoint)
            .map_err(|error| DialError::Unreachable(format!("dial: {error}")))?;
        let encrypted = endpoint.is_encrypted(self.encrypts);
        let socket: Box<dyn ByteStream> =
            match endpoint.target() {
                Target::Tcp(authority) => {
                    let port = if encrypted { HTTPS_PORT } else { HTTP_PORT };
                    Box::new(open(&with_port(authority, port)).await?)
                }
                Target::Unix(path) => {
                    let socket = UnixStream::connect(&path).await;
                    Box::new(socket.map_err(|error| {
                        unreachable("unix", &path.display().to_string(), &error)
                    })?)
                }
            };
        if !encrypted {
            return Ok(socket);
        }
        let connecting = self.tls.handshake_for_http1(endpoint.host(), socket);
        let stream = connecting.await.map_err(DialError::Handshake)?;
        Ok(Box::new(stream))
    }
}

/// What TLS says of an error of an established connection, in Go's words; `None` if it is not TLS's.
pub fn tls_error(error: &std::io::Error) -> Option<String> {
    retcd_tls::text::connection(error)
}

/// Tries the addresses of a host in turn; the last failure counts.
async fn open(authority: &str) -> Result<TcpStream, DialError> {
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let not_found = || DialError::Unreachable(format!("dial tcp: lookup {host}: no such host"));
    let addresses = lookup_host(authority).await.map_err(|_| not_found())?;
    let mut failure = not_found();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(socket) => {
                // Only latency is lost without it.
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Err(error) => failure = unreachable("tcp", &address.to_string(), &error),
        }
    }
    Err(failure)
}

fn unreachable(network: &str, address: &str, error: &io::Error) -> DialError {
    let reason = retcd_log::go_io_error(error);
    DialError::Unreachable(format!("dial {network} {address}: connect: {reason}"))
}

/// `host` or `host:port` with a port.
fn with_port(authority: String, port: u16) -> String {
    let after_host = authority.rfind(']').unwrap_or(0);
    match authority[after_host..].contains(':') {
        true => authority,
        false => format!("{authority}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_optional() {
        let check = |authority: &str, expected: &str| {
            assert_eq!(with_port(authority.to_owned(), 80), expected);
        };
        check("a", "a:80");
        check("a:1", "a:1");
        check("[::1]", "[::1]:80");
        check("[::1]:2", "[::1]:2");
    }
}
