//! A look at API version 2 on behalf of version 3.
//!
//! Tutorials of etcd 2 and 3.3 set a key with `etcdctl set` and read it with `etcdctl get`. The two
//! versions have separate keys, so `get` finds nothing; this tells why.

use std::time::Duration;

use http::StatusCode;
use retcd_client::{Config, Dialer};
use tokio::time::timeout;

use super::http::Http;
use super::store;

/// How long it may take in all; the command has its result already.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Whether API version 2 has `key` on the first endpoint that answers. A server without version 2,
/// or none, has not.
pub(crate) async fn has_key(config: &Config, key: &[u8]) -> bool {
    let looking = async {
        let dialer = Dialer::new(&config.tls).ok()?;
        let http = Http::new(dialer, TIMEOUT, None, false);
        let action = store::get(key, false, false, false);
        let encrypts = config.tls.asks_for_tls();
        for endpoint in &config.endpoints {
            let endpoint = with_scheme(endpoint, encrypts);
            if let Ok(answer) = http.exchange(&endpoint, &action).await {
                return Some(answer.status == StatusCode::OK && store::decode(&answer).is_ok());
            }
        }
        None
    };
    timeout(TIMEOUT, looking)
        .await
        .ok()
        .flatten()
        .unwrap_or(false)
}

/// An endpoint of version 3 as version 2 writes it.
pub(crate) fn with_scheme(endpoint: &str, encrypts: bool) -> String {
    let has_scheme = endpoint.contains("://") || endpoint.starts_with("unix");
    match (has_scheme, encrypts) {
        (true, _) => endpoint.to_owned(),
        (false, true) => format!("https://{endpoint}"),
        (false, false) => format!("http://{endpoint}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_get_a_scheme() {
        assert_eq!(with_scheme("a:1", false), "http://a:1");
        assert_eq!(with_scheme("a:1", true), "https://a:1");
        assert_eq!(with_scheme("http://a:1", true), "http://a:1");
        assert_eq!(with_scheme("unixs:a", false), "unixs:a");
    }
}
