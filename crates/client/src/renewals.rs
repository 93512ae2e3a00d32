//! Renewals of many leases on one stream, for whoever passes on the keep-alives of others.
//!
//! Unlike [`KeepAlive`](crate::KeepAlive) nothing here knows when a lease is due. Each request is
//! answered once; requests for a lease that already waits for an answer share it. If the stream
//! breaks, what was not answered is asked again on another one: a renewal may be repeated.

use std::collections::BTreeSet;
use std::time::Duration;

use retcd_proto::etcdserverpb::lease_client::LeaseClient;
use retcd_proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use tokio::time::Instant;

use crate::client::Client;
use crate::error::Error;
use crate::stream::{Exchange, StreamFailure};

/// The pause before a broken stream is reopened.
const RESUME_PAUSE: Duration = Duration::from_millis(100);

/// See the [module](self).
pub struct Renewals {
    client: Client,
    /// Leases whose renewal is not answered yet.
    unanswered: BTreeSet<i64>,
    stream: Option<Exchange<LeaseKeepAliveRequest, LeaseKeepAliveResponse>>,
    /// When to reopen a broken stream.
    resume_at: Option<Instant>,
}

impl Client {
    /// Renewals on a stream of their own, which is opened with the first.
    pub fn renewals(&self) -> Renewals {
        Renewals {
            client: self.without_deadline(),
            unanswered: BTreeSet::new(),
            stream: None,
            resume_at: None,
        }
    }
}

impl Renewals {
    /// Asks for the renewal of a lease, unless that has been done and is not answered yet.
    pub fn request(&mut self, id: i64) {
        if !self.unanswered.insert(id) {
            return;
        }
        if let Some(stream) = &self.stream
            && !stream.send(LeaseKeepAliveRequest { id })
        {
            self.stream = None;
        }
    }

    /// Goes on with another client of the same cluster: what is not answered is asked again with it.
    pub fn set_client(&mut self, client: &Client) {
        self.client = client.without_deadline();
        self.stream = None;
        self.resume_at = None;
    }

    /// Whether everything is answered.
    pub fn is_idle(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// Waits for the next answer; for ever while nothing has been asked. Cancel safe.
    ///
    /// # Errors
    /// A member refuses the stream; none of the unanswered requests will be answered.
    pub async fn next(&mut self) -> Result<LeaseKeepAliveResponse, Error> {
        if self.is_idle() {
            return std::future::pending().await;
        }
        loop {
            if let Some(at) = self.resume_at {
                tokio::time::sleep_until(at).await;
                self.resume_at = None;
            }
            let (client, unanswered) = (&self.client, &self.unanswered);
            let stream = self.stream.get_or_insert_with(|| {
                let first = unanswered.iter();
                let first = first.map(|id| LeaseKeepAliveRequest { id: *id });
                Exchange::open(client, first, |service, requests| async move {
                    LeaseClient::new(service).lease_keep_alive(requests).await
                })
            });
            match stream.next().await {
                Ok(response) => {
                    self.unanswered.remove(&response.id);
                    return Ok(response);
                }
                Err(failure) => {
                    self.stream = None;
                    self.handle_failure(failure)?;
                }
            }
        }
    }

    fn handle_failure(&mut self, failure: StreamFailure) -> Result<(), Error> {
        let StreamFailure { error, route } = failure;
        if let Some(route) = &route {
            self.client.leave(route, &error);
        }
        if self.client.may_reopen(&error) {
            self.resume_at = Some(Instant::now() + RESUME_PAUSE);
            return Ok(());
        }
        self.unanswered.clear();
        Err(error)
    }
}
