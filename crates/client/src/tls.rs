//! TLS towards the members: what is configured, and the handshake.
//!
//! Certificate and key are read for each handshake, so that new ones count from the next connection
//! on; authorities when the client is made. That is how etcd's client does it.

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

/// Whom a client trusts, and what it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// File of the client's certificate and those between it and the authority, in PEM.
    pub cert: Option<PathBuf>,
    /// File of its key, in PEM.
    pub key: Option<PathBuf>,
    /// File of trusted authorities, in PEM. None: those of the system.
    pub authorities: Option<PathBuf>,
    /// The name that servers must have instead of the one in the endpoint.
    pub server_name: Option<String>,
    /// Whether any certificate will do.
    pub skip_verify: bool,
    /// Whether endpoints that do not say so are encrypted, though nothing else here asks for it.
    pub required: bool,
}

/// TLS that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate without a key, or a key without a certificate.
    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")]
    HalfPair {
        /// The key's file.
        key: String,
        /// The certificate's file.
        cert: String,
    },
    /// A file that cannot be used.
    #[error("{}", .0.reason())]
    File(#[from] FileError),
}

/// How connections are encrypted.
#[derive(Clone)]
pub(crate) struct Tls {
    settings: Settings,
    /// None: any certificate will do.
    authorities: Option<Arc<Authorities>>,
    /// Files of certificate and key.
    identity: Option<(PathBuf, PathBuf)>,
    server_name: Option<String>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(..)")
    }
}

impl TlsConfig {
    /// Whether endpoints without a scheme are to be encrypted.
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
    /// Reads the files that are configured.
    ///
    /// # Errors
    /// One cannot be used, or they do not fit together.
    pub fn load(config: &TlsConfig) -> Result<Tls, TlsError> {
        let identity = match (&config.cert, &config.key) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                // A pair that cannot be used is to be noticed now.
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

    /// Makes the handshake with the server of this host name or address.
    ///
    /// # Errors
    /// In the words of etcd's client.
    pub async fn handshake<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let host = self.server_name.as_deref().unwrap_or(host);
        let name = dial::server_name(host)?;
        let check = Arc::new(ServerVerifier::new(
            self.authorities.clone(),
            Arc::new(AllowedNames::default()),
            self.settings.algorithms(),
        ));
        let config = Arc::new(self.config(Arc::clone(&check))?);
        let connecting = TlsConnector::from(config).connect(name, stream);
        connecting.await.map_err(|error| {
            let reason = text::handshake(&error, check.refusal());
            io::Error::other(format!(
                "transport: authentication handshake failed: {reason}"
            ))
        })
    }

    fn config(&self, check: Arc<ServerVerifier>) -> io::Result<ClientConfig> {
        let shown = match &self.identity {
            None => None,
            Some((cert, key)) => {
                let identity = Identity::load(cert, key);
                let identity = identity.map_err(|error| io::Error::other(error.reason()))?;
                Some(identity.certified_key())
            }
        };
        let mut config = dial::client_config(&self.settings, check, shown);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}
