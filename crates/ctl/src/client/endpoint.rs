//! Where to connect: `http://host:port`, `host:port` or `unix:path`.

use std::path::{Path, PathBuf};

use tonic::transport::{Channel, Uri};

use super::Config;

/// HTTP/2 windows: lists of many megabytes should not wait for round trips.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// A place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `host:port`.
    Tcp(String),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// An endpoint that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The text is no endpoint.
    #[error("invalid endpoint {0:?}")]
    Invalid(String),
    /// The endpoint asks for TLS.
    #[error("endpoint {0:?} needs TLS, which this version does not support")]
    Tls(String),
}

impl Endpoint {
    /// Reads an endpoint as users write it.
    ///
    /// # Errors
    /// A scheme that is not supported, or a text that is no address.
    pub fn parse(text: &str) -> Result<Endpoint, EndpointError> {
        let invalid = || EndpointError::Invalid(text.to_owned());
        if text.starts_with("https:") || text.starts_with("unixs:") {
            return Err(EndpointError::Tls(text.to_owned()));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Endpoint::Unix(
                Path::new(path.strip_prefix("//").unwrap_or(path)).to_owned(),
            ));
        }
        let authority = text.strip_prefix("http://").unwrap_or(text);
        let authority = authority.split('/').next().unwrap_or_default();
        let uri: Uri = format!("http://{authority}")
            .parse()
            .map_err(|_| invalid())?;
        uri.host()
            .filter(|host| !host.is_empty())
            .ok_or_else(invalid)?;
        Ok(Endpoint::Tcp(authority.to_owned()))
    }

    /// Opens a connection.
    pub(super) async fn connect(
        &self,
        config: &Config,
    ) -> Result<Channel, tonic::transport::Error> {
        let authority = match self {
            Endpoint::Tcp(authority) => authority.as_str(),
            // The name of the host that a socket in the file system stands for.
            Endpoint::Unix(_) => "localhost",
        };
        let builder = Channel::from_shared(format!("http://{authority}"))
            .expect("the authority was checked when the endpoint was parsed")
            .connect_timeout(config.dial_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(config.keepalive_time)
            .keep_alive_timeout(config.keepalive_timeout)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        match self {
            Endpoint::Tcp(_) => builder.connect().await,
            Endpoint::Unix(path) => {
                let path = path.clone();
                builder
                    .connect_with_connector(unix::Connector { path })
                    .await
            }
        }
    }
}

mod unix {
    //! Connections through a socket in the file system.

    use std::future::Future;
    use std::io;
    use std::path::PathBuf;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper_util::rt::TokioIo;
    use tokio::net::UnixStream;
    use tonic::transport::Uri;
    use tower_service::Service;

    #[derive(Clone)]
    pub struct Connector {
        pub path: PathBuf,
    }

    impl Service<Uri> for Connector {
        type Response = TokioIo<UnixStream>;
        type Error = io::Error;
        type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Uri) -> Self::Future {
            let path = self.path.clone();
            Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_endpoints_as_users_write_them() {
        let tcp = |text: &str| Ok(Endpoint::Tcp(text.to_owned()));
        assert_eq!(Endpoint::parse("127.0.0.1:2379"), tcp("127.0.0.1:2379"));
        assert_eq!(Endpoint::parse("http://[::1]:2379"), tcp("[::1]:2379"));
        assert_eq!(
            Endpoint::parse("http://localhost:2379/"),
            tcp("localhost:2379")
        );
        assert_eq!(
            Endpoint::parse("unix:m1.sock:0"),
            Ok(Endpoint::Unix("m1.sock:0".into()))
        );
        assert_eq!(
            Endpoint::parse("unix:///run/etcd.sock"),
            Ok(Endpoint::Unix("/run/etcd.sock".into()))
        );
        assert_eq!(
            Endpoint::parse("https://a:1"),
            Err(EndpointError::Tls("https://a:1".into()))
        );
        assert_eq!(
            Endpoint::parse("unixs:a"),
            Err(EndpointError::Tls("unixs:a".into()))
        );
        assert_eq!(
            Endpoint::parse("a b"),
            Err(EndpointError::Invalid("a b".into()))
        );
        assert_eq!(
            Endpoint::parse(""),
            Err(EndpointError::Invalid(String::new()))
        );
    }
}
