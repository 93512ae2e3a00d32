//! TLS towards the members: what the flags say, and the handshake.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use retcd_tls::{Authorities, FileError, Identity, Rules, ServerCheck, Settings, text};
use rustls::ClientConfig;
use rustls::SignatureScheme;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What users say about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFlags {
    /// File of the client's certificate; empty for none.
    pub cert: String,
    /// File of its key.
    pub key: String,
    /// File of trusted authorities; empty for the system's.
    pub cacert: String,
    /// The name that servers must have instead of the one in the endpoint.
    pub server_name: Option<String>,
    /// Whether endpoints that do not say so are plain.
    pub insecure_transport: bool,
    /// Whether any certificate will do.
    pub insecure_skip_verify: bool,
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
pub struct Tls {
    settings: Settings,
    /// None: any certificate will do.
    authorities: Option<Arc<Authorities>>,
    identity: Option<Identity>,
    server_name: Option<String>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(..)")
    }
}

impl TlsFlags {
    /// Whether endpoints without a scheme are to be encrypted.
    pub fn ask_for_tls(&self) -> bool {
        !(self.cert.is_empty() && self.key.is_empty() && self.cacert.is_empty())
            || self.server_name.is_some()
            || !self.insecure_transport
            || self.insecure_skip_verify
    }
}

impl Tls {
    /// Reads the files that the flags name.
    ///
    /// # Errors
    /// One cannot be used, or they do not fit together.
    pub fn load(flags: &TlsFlags) -> Result<Tls, TlsError> {
        let (cert, key) = (&flags.cert, &flags.key);
        if cert.is_empty() != key.is_empty() {
            return Err(TlsError::HalfPair {
                key: key.clone(),
                cert: cert.clone(),
            });
        }
        let identity = match cert.is_empty() {
            true => None,
            false => Some(Identity::load(Path::new(cert), Path::new(key))?),
        };
        let authorities = match flags.cacert.as_str() {
            "" => None,
            path => Some(Authorities::load(Path::new(path))?),
        };
        let authorities = match flags.insecure_skip_verify {
            true => None,
            false => Some(Arc::new(authorities.unwrap_or_else(Authorities::of_system))),
        };
        Ok(Tls {
            settings: Settings::default(),
            authorities,
            identity,
            server_name: flags.server_name.clone(),
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
        let name = match host.parse::<IpAddr>() {
            Ok(address) => ServerName::IpAddress(address.into()),
            Err(_) => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let check = Arc::new(ServerCheck::new(
            self.authorities.clone(),
            Arc::new(Rules::default()),
            self.settings.algorithms(),
        ));
        let config = Arc::new(self.config(Arc::clone(&check)));
        let connecting = TlsConnector::from(config).connect(name, stream);
        connecting.await.map_err(|error| {
            let reason = text::handshake(&error, check.refusal());
            io::Error::other(format!(
                "transport: authentication handshake failed: {reason}"
            ))
        })
    }

    fn config(&self, check: Arc<ServerCheck>) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::clone(self.settings.provider()))
            .with_protocol_versions(self.settings.versions())
            .expect("the default settings have suites for their versions")
            .dangerous()
            .with_custom_certificate_verifier(check);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(Always(identity.certified_key())))
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        config
    }
}

/// Shows the same certificate to every server that asks for one, whichever authorities it names.
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
