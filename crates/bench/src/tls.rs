//! TLS of the generator: version 1.3 only, without resumption, so that every connection costs a
//! full handshake.
//!
//! Cipher suites and key exchanges are the library's defaults, the same for every server.

use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::Error;

/// A TLS client configuration. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Trusts the CA certificates in the file `ca` and presents the certificate and key of `pair`,
    /// all PEM.
    ///
    /// # Errors
    /// [`Error::Tls`] if a file cannot be used.
    pub(crate) fn from_files(ca: &Path, pair: Option<(&Path, &Path)>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(ca)? {
            roots.add(certificate).map_err(Error::tls(ca.display()))?;
        }
        let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has cipher suites of TLS 1.3")
            .with_root_certificates(roots);
        let mut config = match pair {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = read_certificates(certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(Error::tls(key.display()))?;
                let paired = config.with_client_auth_cert(chain, key);
                paired.map_err(Error::tls(certificate.display()))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Performs the handshake on `socket` with a server whose certificate must be valid for `host`.
    ///
    /// # Errors
    /// The I/O error, or why the handshake failed.
    pub(crate) async fn connect(
        &self,
        host: &str,
        socket: TcpStream,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        // IPv6 addresses have brackets in a URI, but not in a certificate.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(std::io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.0))
            .connect(name, socket)
            .await
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(Error::tls(path.display()))?;
    if certificates.is_empty() {
        return Err(Error::tls(path.display())("no certificate in it"));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let (empty, missing) = (
            directory.path().join("empty.pem"),
            directory.path().join("missing.pem"),
        );
        std::fs::write(&empty, "").unwrap();
        for (path, reason) in [(&empty, "no certificate"), (&missing, "No such file")] {
            let error = Tls::from_files(path, None).unwrap_err().to_string();
            assert!(
                error.contains(reason) && error.contains(&*path.to_string_lossy()),
                "{error}"
            );
        }
    }
}
