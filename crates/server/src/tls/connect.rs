//! TLS for connections to other members.

use std::fmt;
use std::io;
use std::sync::Arc;

use retcd_tls::{ServerVerifier, dial, text};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::endpoint::{Endpoint, Trust};

/// Makes handshakes on connections to other members.
#[derive(Clone)]
pub(crate) struct Connector {
    endpoint: Arc<Endpoint>,
    /// The name for which certificates must be valid, in place of the host's.
    server_name: Option<String>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector(..)")
    }
}

impl Connector {
    pub(crate) fn new(endpoint: Arc<Endpoint>, server_name: Option<String>) -> Connector {
        Connector {
            endpoint,
            server_name,
        }
    }

    /// Makes the handshake with `host`, a name or an address.
    ///
    /// # Errors
    /// The handshake failed, in Go's words, or the connection did.
    pub(crate) async fn connect<S>(&self, host: &str, socket: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = dial::server_name(self.server_name.as_deref().unwrap_or(host))?;
        let check = Arc::new(self.check());
        let config = Arc::new(self.config(Arc::clone(&check)));
        TlsConnector::from(config)
            .connect(name, socket)
            .await
            .map_err(|error| io::Error::new(error.kind(), text::handshake(&error, check.refusal())))
    }

    fn check(&self) -> ServerVerifier {
        let endpoint = &*self.endpoint;
        let authorities = match &endpoint.trust {
            // Certificates that members make for themselves cannot be verified.
            _ if endpoint.self_signed => None,
            Trust::None => Some(endpoint.system_authorities()),
            trust => trust.current(),
        };
        ServerVerifier::new(
            authorities,
            Arc::clone(&endpoint.rules),
            endpoint.settings.algorithms(),
        )
    }

    fn config(&self, check: Arc<ServerVerifier>) -> ClientConfig {
        let endpoint = &*self.endpoint;
        let identity = endpoint
            .client_identity
            .as_ref()
            .or(endpoint.identity.as_ref());
        let shown = identity.map(|identity| identity.current().certified_key());
        dial::client_config(&endpoint.settings, check, shown)
    }
}
