//! A lease that is kept alive as long as the process lives.

use std::sync::Arc;
use std::time::Duration;

use retcd_proto::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::error::{Error, LEASE_NOT_FOUND};
use crate::lease::KeepAlive;

/// How long after the death of its process a session ends, in seconds, where nothing else is said.
pub const DEFAULT_TTL_S: i64 = 60;

/// A lease that a task keeps alive. Clones share it; with the last one the renewals end, and the
/// lease when its time is over.
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
    /// Makes a lease of so many seconds (at least one; the cluster may give more) and keeps it
    /// alive.
    ///
    /// # Errors
    /// The lease cannot be made.
    pub async fn new(client: &Client, ttl_s: i64) -> Result<Session, Error> {
        let request = LeaseGrantRequest { ttl: ttl_s, id: 0 };
        let granted = client.lease_grant(request).await?;
        Ok(Session::with_lease(client, granted.id, granted.ttl))
    }

    /// Keeps a lease alive that there is already; `ttl_s` is what it has been granted.
    pub fn with_lease(client: &Client, lease: i64, ttl_s: i64) -> Session {
        let client = client.without_deadline();
        let (ended, has_ended) = watch::channel(false);
        let keep_alive = client.keep_alive(lease);
        let renewing = tokio::spawn(async move {
            renew(keep_alive).await;
            // Nobody waits any more if the session is gone.
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

    /// The client whose session it is, without a deadline.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// The lease's id.
    pub fn lease(&self) -> i64 {
        self.0.lease
    }

    /// Whether the lease has ended: what was held with it is not held any more.
    pub fn has_ended(&self) -> bool {
        *self.0.has_ended.borrow()
    }

    /// Waits until the lease has ended.
    pub async fn ended(&self) {
        let mut has_ended = self.0.has_ended.clone();
        // The task that renews is gone only if the runtime is, and with it whoever waits.
        let _ = has_ended.wait_for(|has_ended| *has_ended).await;
    }

    /// Ends the lease, and with it all that is held. Tries for as long as the lease would live.
    ///
    /// # Errors
    /// Nobody could be reached: the lease ends by itself.
    pub async fn close(self) -> Result<(), Error> {
        self.0.renewing.abort();
        let client = self.0.client.within(self.0.ttl);
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
