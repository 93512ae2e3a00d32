//! `--resolver-prefix`: this proxy in the list of proxies, as long as it lives.
//!
//! The entry has a lease that is kept alive; when that is lost, the proxy registers again. Nothing
//! is taken back at the end: the lease runs out.

use std::time::Duration;

use retcd_client::{Client, Error};
use retcd_proto::etcdserverpb::{LeaseGrantRequest, PutRequest};
use serde_json::json;

use super::settings::{Registration, Settings};
use super::thread::Clients;
use crate::log::Text;

/// Between attempts.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The entry of a proxy: etcd's `naming/endpoints`. The order of its fields is etcd's.
fn entry(url: &str, host_name: &str) -> String {
    let metadata = json!({ "name": host_name }).to_string();
    let (url, metadata) = (json!(url), json!(metadata));
    format!(r#"{{"Op":0,"Addr":{url},"Metadata":{metadata}}}"#)
}

/// Registers again and again, as long as the process runs.
pub(super) async fn run(
    clients: &Clients,
    settings: &Settings,
    registration: &Registration,
    host_name: &str,
) {
    loop {
        let client = clients.current().namespace(settings.namespace.clone());
        match register(&client, settings, registration, host_name).await {
            Ok(lease) => {
                crate::info!("registered session with lease"; "addr" => &settings.advertise_client_url,
                    "lease-ttl" => registration.ttl_seconds);
                keep(&client, lease).await;
                crate::warn!("session expired; possible network partition or server restart");
                crate::warn!("creating a new session to rejoin");
            }
            Err(error) => {
                crate::error!("failed to create a session"; "error" => Text(error));
            }
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn register(
    client: &Client,
    settings: &Settings,
    registration: &Registration,
    host_name: &str,
) -> Result<i64, Error> {
    let grant = LeaseGrantRequest {
        ttl: registration.ttl_seconds,
        ..LeaseGrantRequest::default()
    };
    let lease = client.lease_grant(grant).await?.id;
    let url = &settings.advertise_client_url;
    let put = PutRequest {
        key: format!("{}/{url}", registration.prefix).into(),
        value: entry(url, host_name).into(),
        lease,
        ..PutRequest::default()
    };
    client.put(put).await?;
    Ok(lease)
}

/// Returns when the lease is lost.
async fn keep(client: &Client, lease: i64) {
    let mut keep_alive = client.keep_alive(lease);
    while keep_alive.next().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_etcds() {
        assert_eq!(
            entry("127.0.0.1:23790", "host"),
            r#"{"Op":0,"Addr":"127.0.0.1:23790","Metadata":"{\"name\":\"host\"}"}"#
        );
    }
}
