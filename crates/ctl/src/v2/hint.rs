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
        for endpoint in &config.endpoints {
            if let Ok(answer) = http.exchange(endpoint, &action).await {
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
