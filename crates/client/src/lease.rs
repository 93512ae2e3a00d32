//! Keeping leases alive.
//!
//! A lease is renewed after a third of its time to live. If the stream of stream breaks, another
//! one is opened, at another member if possible, as long as the lease may still exist. Its expiry
//! is computed from when the last answered renewal was sent, so that it is never later than the
//! cluster's.

use std::time::Duration;

use retcd_proto::etcdserverpb::lease_client::LeaseClient;
use retcd_proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::client::{Client, Route, Service};
use crate::error::{Error, LEASE_NOT_FOUND};
use crate::retry::Policy;
use crate::stream::with_leader;

/// The pause before a broken stream is reopened.
const RESUME_PAUSE: Duration = Duration::from_millis(500);
/// Timeout of the first response, in addition to the dial timeout: the time to live is unknown
/// until then.
const FIRST_ANSWER: Duration = Duration::from_secs(1);

/// Why a lease is no longer renewed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeepAliveError {
    /// It has expired or never existed, or no endpoint could be reached before it must have
    /// expired.
    #[error("{LEASE_NOT_FOUND}")]
    Ended,
    /// The first renewal was rejected.
    #[error(transparent)]
    Refused(#[from] Error),
}

/// Renews a lease while it is polled; see [`Client::keep_alive`].
pub struct KeepAlive {
    client: Client,
    id: i64,
    /// When the lease expires unless it is renewed.
    ends: Instant,
    /// When to send the next renewal.
    renew_at: Instant,
    is_renewed: bool,
    open: Option<(KeepAliveStream, Route)>,
}

impl Client {
    /// Keeps a lease alive from the first call of [`KeepAlive::next`] on. The first response must
    /// arrive within the dial timeout plus one second.
    pub fn keep_alive(&self, id: i64) -> KeepAlive {
        let now = Instant::now();
        KeepAlive {
            client: self.without_deadline(),
            id,
            ends: now + self.shared.config.dial_timeout.unwrap_or_default() + FIRST_ANSWER,
            renew_at: now,
            is_renewed: false,
            open: None,
        }
    }

    /// Renews a lease once.
    ///
    /// # Errors
    /// The lease does not exist, or the error of the last attempt.
    pub async fn keep_alive_once(&self, id: i64) -> Result<LeaseKeepAliveResponse, KeepAliveError> {
        let renew = |service: Service| async move {
            KeepAliveStream::open(service, id).await?.next().await
        };
        let renewed = self.call(Policy::Repeatable, renew).await?;
        match renewed.ttl {
            ..=0 => Err(KeepAliveError::Ended),
            _ => Ok(renewed),
        }
    }
}

impl KeepAlive {
    /// The id of the lease.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Waits until the next renewal is due, renews the lease, and returns the response with the new
    /// time to live in seconds. Call it in a loop: a lease that nobody waits for expires. Cancel
    /// safe.
    ///
    /// # Errors
    /// The lease has expired, or its first renewal was rejected. Later rejections are retried until
    /// the lease expires.
    pub async fn next(&mut self) -> Result<LeaseKeepAliveResponse, KeepAliveError> {
        loop {
            let ends = self.ends;
            let renewed = async {
                sleep_until(self.renew_at).await;
                self.renew().await
            };
            let error = match timeout_at(ends, renewed).await {
                Err(_) => return Err(KeepAliveError::Ended),
                Ok(Err(error)) => error,
                Ok(Ok((sent_at, renewed))) => {
                    let Ok(ttl @ 1..) = u64::try_from(renewed.ttl) else {
                        return Err(KeepAliveError::Ended);
                    };
                    let ttl = Duration::from_secs(ttl);
                    self.is_renewed = true;
                    self.ends = sent_at + ttl;
                    self.renew_at = sent_at + ttl / 3;
                    return Ok(renewed);
                }
            };
            if let Some((_, route)) = self.open.take() {
                self.client.leave(&route, &error);
            }
            if !self.is_renewed && !self.client.may_reopen(&error) {
                return Err(error.into());
            }
            self.renew_at = Instant::now() + RESUME_PAUSE;
        }
    }

    /// Renews once; returns also when the request was sent.
    async fn renew(&mut self) -> Result<(Instant, LeaseKeepAliveResponse), Error> {
        let (stream, _) = match &mut self.open {
            Some(open) => open,
            open => {
                let route = self.client.route().await?;
                let stream = KeepAliveStream::open(route.service(), self.id).await;
                match stream {
                    Ok(stream) => open.insert((stream, route)),
                    Err(error) => {
                        self.client.leave(&route, &error);
                        return Err(error);
                    }
                }
            }
        };
        let renewed = stream.next().await?;
        Ok((stream.sent_at, renewed))
    }
}

/// An open keep-alive stream for one lease.
struct KeepAliveStream {
    id: i64,
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    responses: Streaming<LeaseKeepAliveResponse>,
    /// When the last request was sent.
    sent_at: Instant,
    /// Whether its response is outstanding.
    is_waiting: bool,
}

impl KeepAliveStream {
    /// Opens the stream and sends the first renewal: a server may not respond before that.
    async fn open(service: Service, id: i64) -> Result<KeepAliveStream, Error> {
        let (requests, receiver) = mpsc::channel(1);
        requests
            .try_send(LeaseKeepAliveRequest { id })
            .expect("the channel is new and has room");
        let sent_at = Instant::now();
        let mut stub = LeaseClient::new(service);
        let request = with_leader(ReceiverStream::new(receiver));
        let responses = stub.lease_keep_alive(request).await?.into_inner();
        Ok(KeepAliveStream {
            id,
            requests,
            responses,
            sent_at,
            is_waiting: true,
        })
    }

    async fn next(&mut self) -> Result<LeaseKeepAliveResponse, Error> {
        let closed = || Error::Broken {
            code: Code::Unknown,
            message: "the server closed the stream".to_owned(),
        };
        if !self.is_waiting {
            let request = LeaseKeepAliveRequest { id: self.id };
            self.requests.try_send(request).map_err(|_| closed())?;
            self.sent_at = Instant::now();
            self.is_waiting = true;
        }
        let response = self.responses.message().await?.ok_or_else(closed)?;
        self.is_waiting = false;
        Ok(response)
    }
}
