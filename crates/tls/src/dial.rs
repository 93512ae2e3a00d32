//! Client side of a handshake: configuration and server name.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

use crate::{ServerVerifier, Settings};

/// The configuration of a handshake in which `verifier` checks the server. `shown` is presented to
/// every server that requests a certificate. Sessions are not resumed.
pub fn client_config(
    settings: &Settings,
    verifier: Arc<ServerVerifier>,
    shown: Option<Arc<CertifiedKey>>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::clone(settings.provider()))
        .with_protocol_versions(settings.versions())
        .expect("the settings have a suite for each of their versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(key) => builder.with_client_cert_resolver(Arc::new(FixedCertificate(key))),
    };
    config.resumption = Resumption::disabled();
    config
}

/// Parses the server name of a handshake.
///
/// # Errors
/// `host` is neither a host name nor an IP address.
pub fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    match host.parse::<IpAddr>() {
        Ok(address) => Ok(ServerName::IpAddress(address.into())),
        Err(_) => ServerName::try_from(host.to_owned()).map_err(io::Error::other),
    }
}

/// Presents the same certificate to every server that requests one, as Go's `GetClientCertificate`
/// does, even if the server's CA list does not include its issuer.
#[derive(Debug)]
struct FixedCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for FixedCertificate {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let usable = self.0.key.choose_scheme(schemes).is_some();
        usable.then(|| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
