//! A lease that is kept alive while the process runs.

use std::sync::Arc;
use std::time::Duration;

use retcd_proto::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::error::{Error, LEASE_NOT_FOUND};
use crate::lease::KeepAlive;

/// The default time to live of a session's lease, in seconds.
pub const DEFAULT_TTL_S: i64 = 60;

/// A lease that a background task keeps alive. Clones share it. When the last clone is dropped,
/// renewal stops and the lease expires.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    client: Client,
    lease: i64,
    ttl: Duration,
    has_ended: watch::Receiver<bool>,
    renewing: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl Session {
    /// Grants a lease of `ttl_s` seconds (at least one; the cluster may grant more) and keeps it
    /// alive.
    ///
    /// # Errors
    /// The lease could not be granted.
    pub async fn new(client: &Client, ttl_s: i64) -> Result<Session, Error> {
        let request = LeaseGrantRequest { ttl: ttl_s, id: 0 };
        let granted = client.lease_grant(request).await?;
        Ok(Session::with_lease(client, granted.id, granted.ttl))
    }

    /// Keeps an existing lease alive; `ttl_s` is its granted time to live.
    pub fn with_lease(client: &Client, lease: i64, ttl_s: i64) -> Session {
        let client = client.without_deadline();
        let (ended, has_ended) = watch::channel(false);
        let keep_alive = client.keep_alive(lease);
        let renewing = tokio::spawn(async move {
            renew(keep_alive).await;
            // There is no receiver if the session has been dropped.
            let _ = ended.send(true);
        });
        Session(Arc::new(Inner {
            client,
            lease,
            ttl: Duration::from_secs(u64::try_from(ttl_s).unwrap_or_default()),
            has_ended,
            renewing,
        }))
    }

    /// The session's client, without a deadline.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// The id of the lease.
    pub fn lease(&self) -> i64 {
        self.0.lease
    }

    /// Whether the lease has ended, and with it everything held by the session.
    pub fn has_ended(&self) -> bool {
        *self.0.has_ended.borrow()
    }

    /// Waits until the lease has ended.
    pub async fn ended(&self) {
        let mut has_ended = self.0.has_ended.clone();
        // The sender is dropped early only with the runtime.
        let _ = has_ended.wait_for(|has_ended| *has_ended).await;
    }

    /// Revokes the lease, which releases everything held by the session. Retries for as long as the
    /// lease may live.
    ///
    /// # Errors
    /// No endpoint could be reached: the lease expires.
    pub async fn close(self) -> Result<(), Error> {
        self.0.renewing.abort();
        let client = self.0.client.with_timeout(self.0.ttl);
        match client
            .lease_revoke(LeaseRevokeRequest { id: self.0.lease })
            .await
        {
            Err(error) if !error.is_answer(LEASE_NOT_FOUND) => Err(error),
            _ => Ok(()),
        }
    }
}

async fn renew(mut keep_alive: KeepAlive) {
    while keep_alive.next().await.is_ok() {}
}
