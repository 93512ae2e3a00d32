//! TLS for connections to other members.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use retcd_tls::{ServerCheck, text};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::endpoint::{Endpoint, Trust};

/// Encrypts connections that were dialed.
#[derive(Clone)]
pub struct Connector(Arc<Endpoint>);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector(..)")
    }
}

impl Connector {
    /// For calls in the name of this endpoint.
    pub fn new(endpoint: Arc<Endpoint>) -> Connector {
        Connector(endpoint)
    }

    /// Makes the handshake with the server of this host name or address.
    ///
    /// # Errors
    /// It failed, in Go's words, or the connection did.
    pub async fn connect<S>(&self, host: &str, socket: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match host.parse::<IpAddr>() {
            Ok(address) => ServerName::IpAddress(address.into()),
            Err(_) => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let check = Arc::new(self.check());
        let config = Arc::new(self.config(Arc::clone(&check)));
        TlsConnector::from(config)
            .connect(name, socket)
            .await
            .map_err(|error| io::Error::new(error.kind(), text::handshake(&error, check.refusal())))
    }

    fn check(&self) -> ServerCheck {
        let endpoint = &*self.0;
        let authorities = match &endpoint.trust {
            // Nobody can check a certificate that every member makes for itself.
            _ if endpoint.self_signed => None,
            Trust::Nobody => Some(endpoint.system()),
            trust => trust.current(),
        };
        ServerCheck::new(
            authorities,
            Arc::clone(&endpoint.rules),
            endpoint.settings.algorithms(),
        )
    }

    fn config(&self, check: Arc<ServerCheck>) -> ClientConfig {
        let endpoint = &*self.0;
        let builder = ClientConfig::builder_with_provider(Arc::clone(endpoint.settings.provider()))
            .with_protocol_versions(endpoint.settings.versions())
            .expect("the settings have a suite for each of their versions")
            .dangerous()
            .with_custom_certificate_verifier(check);
        let identity = endpoint
            .client_identity
            .as_ref()
            .or(endpoint.identity.as_ref());
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = identity.current().certified_key();
                builder.with_client_cert_resolver(Arc::new(Always(key)))
            }
        };
        config.resumption = Resumption::disabled();
        config
    }
}

/// Shows the same certificate to everybody who asks for one, as Go's `GetClientCertificate` does: whether its authority is among
/// those that the server names is for the server to say.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let usable = self.0.key.choose_scheme(schemes).is_some();
        usable.then(|| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
