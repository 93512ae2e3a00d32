//! The last checks of a configuration, made when a member starts with it.

use super::Config;
use super::derived::RETENTION_MIN;
use super::settings::Tls;
use super::url::{ListenAddr, Url};
use crate::log::DurationError;

/// Settings that contradict each other, in etcd's words.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is")]
pub enum ConfigError {
    #[error("cannot listen on TLS for {0}: KeyFile and CertFile are not presented")]
    PeerTls(String),
    #[error(
        "TLS key/cert (--cert-file, --key-file) must be provided for client url {0} with HTTPS scheme"
    )]
    ClientTls(Url),
    #[error(
        "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
    )]
    MetricsTls,
    #[error(
        "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {0}"
    )]
    SharedUrl(Url),
    #[error("error parsing CompactionRetention: {0}")]
    CompactionRetention(DurationError),
    #[error(
        "--auto-compaction-retention={0} is no span to keep: use 0 for all history, or at least {RETENTION_MIN} with --auto-compaction-mode=periodic"
    )]
    RetentionTooShort(String),
    #[error(
        "--auto-compaction-retention={0} is no number of revisions: use one with --auto-compaction-mode=revision, or --auto-compaction-mode=periodic for a span of time"
    )]
    RetentionNotRevisions(String),
}

impl Config {
    /// Checks what [`super::parse`] does not, as etcd checks it only when it starts. Nothing is
    /// opened or bound.
    ///
    /// # Errors
    /// Settings contradict each other.
    pub fn check_start(&self) -> Result<(), ConfigError> {
        self.check_listeners()?;
        self.auto_compaction()?;
        Ok(())
    }

    fn check_listeners(&self) -> Result<(), ConfigError> {
        // If only one of the two files is given, that is reported when they are opened.
        let has_certificate =
            |tls: &Tls| tls.auto_tls || !(tls.cert_file.is_empty() && tls.key_file.is_empty());
        let plain_peers = !has_certificate(&self.peer_tls);
        let plain_clients = !has_certificate(&self.client_tls);
        let mut peer_urls = self.listen_peer_urls.iter();
        if let Some(url) = peer_urls.find(|url| url.is_secure() && plain_peers) {
            return Err(ConfigError::PeerTls(url.address()));
        }
        let mut client_urls = self
            .listen_client_urls
            .iter()
            .chain(&self.listen_client_http_urls);
        if let Some(url) = client_urls.find(|url| url.is_secure() && plain_clients) {
            return Err(ConfigError::ClientTls(url.clone()));
        }
        // Of the addresses that are bound, not of their texts: those may differ for one address.
        // One that cannot be bound is reported when that is tried.
        let address = |url: &Url| url.listen_addr().ok();
        let grpc: Vec<ListenAddr> = self.listen_client_urls.iter().filter_map(address).collect();
        let mut http_urls = self.listen_client_http_urls.iter();
        if let Some(url) = http_urls.find(|url| address(url).is_some_and(|at| grpc.contains(&at))) {
            return Err(ConfigError::SharedUrl(url.clone()));
        }
        if plain_clients && self.listen_metrics_urls.iter().any(Url::is_secure) {
            return Err(ConfigError::MetricsTls);
        }
        Ok(())
    }
}
