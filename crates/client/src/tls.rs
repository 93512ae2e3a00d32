//! TLS configuration and the client side of the handshake.
//!
//! As in etcd's client, the certificate and key are loaded for each handshake, so that renewed ones
//! are used from the next connection on, and the CA certificates when the client is created.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use retcd_tls::{
    AllowedNames, Authorities, FileError, Identity, ServerVerifier, Settings, dial, text,
};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// TLS files and options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// The client certificate and intermediates, a PEM file.
    pub cert: Option<PathBuf>,
    /// The certificate's private key, a PEM file.
    pub key: Option<PathBuf>,
    /// Trusted CA certificates, a PEM file. Default: the system's.
    pub authorities: Option<PathBuf>,
    /// Overrides the host name to verify server certificates against.
    pub server_name: Option<String>,
    /// Accept any server certificate.
    pub skip_verify: bool,
    /// Use TLS for endpoints without a scheme, even if no other option is set.
    pub required: bool,
}

/// Why the TLS configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Only one of certificate and key is given.
    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")]
    HalfPair {
        /// The key's file.
        key: String,
        /// The certificate's file.
        cert: String,
    },
    /// A file cannot be used.
    #[error("{}", .0.reason())]
    File(#[from] FileError),
}

/// A loaded TLS configuration.
#[derive(Clone)]
pub(crate) struct Tls {
    settings: Settings,
    /// `None` accepts any certificate.
    authorities: Option<Arc<Authorities>>,
    /// The files of the certificate and the key.
    identity: Option<(PathBuf, PathBuf)>,
    server_name: Option<String>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(..)")
    }
}

impl TlsConfig {
    /// Whether endpoints without a scheme use TLS.
    pub fn asks_for_tls(&self) -> bool {
        [&self.cert, &self.key, &self.authorities]
            .iter()
            .any(|file| file.is_some())
            || self.server_name.is_some()
            || self.required
            || self.skip_verify
    }
}

impl Tls {
    /// Loads the configured files.
    ///
    /// # Errors
    /// A file cannot be used, or certificate and key do not match.
    pub(crate) fn load(config: &TlsConfig) -> Result<Tls, TlsError> {
        let identity = match (&config.cert, &config.key) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                // Report an unusable pair now.
                Identity::load(cert, key)?;
                Some((cert.clone(), key.clone()))
            }
            (cert, key) => {
                let shown = |path: &Option<PathBuf>| {
                    let path = path.as_ref().map(|path| path.display().to_string());
                    path.unwrap_or_default()
                };
                return Err(TlsError::HalfPair {
                    key: shown(key),
                    cert: shown(cert),
                });
            }
        };
        let authorities = match &config.authorities {
            None => None,
            Some(path) => Some(Authorities::load(path)?),
        };
        let authorities = match config.skip_verify {
            true => None,
            false => Some(Arc::new(
                authorities.unwrap_or_else(Authorities::from_system),
            )),
        };
        Ok(Tls {
            settings: Settings::default(),
            authorities,
            identity,
            server_name: config.server_name.clone(),
        })
    }

    /// Performs the handshake with `host`, a host name or IP address, for gRPC.
    ///
    /// # Errors
    /// The text is that of etcd's client.
    pub(crate) async fn handshake<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connecting = self.handshake_for(b"h2", host, stream);
        connecting.await.map_err(|reason| {
            io::Error::other(format!(
                "transport: authentication handshake failed: {reason}"
            ))
        })
    }

    /// Performs the handshake with `host` for HTTP/1.1.
    ///
    /// # Errors
    /// The text of Go's `crypto/tls`.
    pub(crate) async fn handshake_for_http1<S>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<TlsStream<S>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.handshake_for(b"http/1.1", host, stream).await
    }

    async fn handshake_for<S>(
        &self,
        protocol: &[u8],
        host: &str,
        stream: S,
    ) -> Result<TlsStream<S>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let host = self.server_name.as_deref().unwrap_or(host);
        let name = dial::server_name(host).map_err(|error| error.to_string())?;
        let check = Arc::new(ServerVerifier::new(
            self.authorities.clone(),
            Arc::new(AllowedNames::default()),
            self.settings.algorithms(),
        ));
        let config = self.config(protocol, Arc::clone(&check));
        let config = config.map_err(|error| error.reason())?;
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        connecting
            .await
            .map_err(|error| text::handshake(&error, check.refusal()))
    }

    fn config(
        &self,
        protocol: &[u8],
        verifier: Arc<ServerVerifier>,
    ) -> Result<ClientConfig, FileError> {
        let certificate = match &self.identity {
            None => None,
            Some((cert, key)) => Some(Identity::load(cert, key)?.certified_key()),
        };
        let mut config = dial::client_config(&self.settings, verifier, certificate);
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }
}
