//! Renewals of many leases on one stream, for whoever passes on the keep-alives of others.
//!
//! Unlike [`KeepAlive`](crate::KeepAlive) nothing here knows when a lease is due. Each request is
//! answered once; requests for a lease that already waits for an answer share it. If the stream
//! breaks, what was not answered is asked again on another one: a renewal may be repeated.

use std::collections::BTreeSet;
use std::time::Duration;

use retcd_proto::etcdserverpb::lease_client::LeaseClient;
use retcd_proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Streaming};

use crate::client::{Client, Route};
use crate::error::Error;
use crate::stream::with_leader;

/// The pause before a broken stream is reopened.
const RESUME_PAUSE: Duration = Duration::from_millis(100);

/// See the [module](self).
pub struct Renewals {
    client: Client,
    /// Leases whose renewal is not answered yet.
    unanswered: BTreeSet<i64>,
    open: Option<Open>,
    /// When to reopen a broken stream.
    resume_at: Option<Instant>,
}

struct Open {
    requests: mpsc::UnboundedSender<LeaseKeepAliveRequest>,
    responses: Streaming<LeaseKeepAliveResponse>,
    route: Route,
}

impl Client {
    /// Renewals on a stream of their own, which is opened with the first.
    pub fn renewals(&self) -> Renewals {
        Renewals {
            client: self.without_deadline(),
            unanswered: BTreeSet::new(),
            open: None,
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
        if let Some(open) = &self.open
            && open.requests.send(LeaseKeepAliveRequest { id }).is_err()
        {
            self.open = None;
        }
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
            let open = match &mut self.open {
                Some(open) => open,
                None => match self.open_stream().await {
                    Ok(open) => self.open.insert(open),
                    Err((error, route)) => {
                        self.handle_failure(error, route)?;
                        continue;
                    }
                },
            };
            let error = match open.responses.message().await {
                Ok(Some(response)) => {
                    self.unanswered.remove(&response.id);
                    return Ok(response);
                }
                Ok(None) => Error::Broken {
                    code: Code::Unknown,
                    message: "the server closed the stream".to_owned(),
                },
                Err(status) => status.into(),
            };
            let route = self.open.take().map(|open| open.route);
            self.handle_failure(error, route)?;
        }
    }

    async fn open_stream(&self) -> Result<Open, (Error, Option<Route>)> {
        let route = self.client.route().await.map_err(|error| (error, None))?;
        let (requests, receiver) = mpsc::unbounded_channel();
        for id in &self.unanswered {
            let request = LeaseKeepAliveRequest { id: *id };
            requests.send(request).expect("the receiver is here");
        }
        let request = with_leader(UnboundedReceiverStream::new(receiver));
        let opened = LeaseClient::new(route.service())
            .lease_keep_alive(request)
            .await;
        match opened {
            Ok(response) => Ok(Open {
                requests,
                responses: response.into_inner(),
                route,
            }),
            Err(status) => Err((status.into(), Some(route))),
        }
    }

    fn handle_failure(&mut self, error: Error, route: Option<Route>) -> Result<(), Error> {
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
