//! What whoever dials shows and believes.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

use crate::{ServerCheck, Settings};

/// The configuration for a handshake in which `check` judges the server. The certificate of `shown` is shown to
/// every server that asks for one. No session is resumed.
pub fn client_config(
    settings: &Settings,
    check: Arc<ServerCheck>,
    shown: Option<Arc<CertifiedKey>>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::clone(settings.provider()))
        .with_protocol_versions(settings.versions())
        .expect("the settings have a suite for each of their versions")
        .dangerous()
        .with_custom_certificate_verifier(check);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(key) => builder.with_client_cert_resolver(Arc::new(Always(key))),
    };
    config.resumption = Resumption::disabled();
    config
}

/// The server's name in a handshake: a host name, or an address.
///
/// # Errors
/// It is neither.
pub fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    match host.parse::<IpAddr>() {
        Ok(address) => Ok(ServerName::IpAddress(address.into())),
        Err(_) => ServerName::try_from(host.to_owned()).map_err(io::Error::other),
    }
}

/// Shows the same certificate to everybody who asks for one, as Go's `GetClientCertificate` does: whether its authority
/// is among those that the server names is for the server to say.
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
