//! Streams: their metadata, how those with many requests are opened, and the snapshot stream.

use std::future::Future;
use std::pin::Pin;

use retcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_proto::etcdserverpb::{SnapshotRequest, SnapshotResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::client::{Client, Route, Service};
use crate::error::Error;
use crate::retry::Policy;

/// Adds the metadata that makes a member without a leader end the stream.
pub(crate) fn with_leader<T>(requests: T) -> Request<T> {
    let mut request = Request::new(requests);
    let value = MetadataValue::from_static("true");
    request.metadata_mut().insert("hasleader", value);
    request
}

/// A stream with many requests, from when it is asked for.
///
/// Opening it takes a round trip or more. It goes on where it was when somebody who waited for a
/// response has stopped: who asks for one thing after another would otherwise begin it anew each
/// time, and never have it. Requests that come meanwhile are sent when it is open.
pub(crate) struct Exchange<Q, R> {
    requests: mpsc::UnboundedSender<Q>,
    state: State<R>,
}

enum State<R> {
    Opening(Opening<R>),
    Open(Box<Open<R>>),
}

type Opening<R> = Pin<Box<dyn Future<Output = Result<Open<R>, StreamFailure>> + Send>>;

struct Open<R> {
    responses: Streaming<R>,
    route: Route,
}

/// Why a stream has ended.
pub(crate) struct StreamFailure {
    pub(crate) error: Error,
    /// How it was sent, if it was.
    pub(crate) route: Option<Route>,
}

impl<Q, R> Exchange<Q, R>
where
    Q: Send + 'static,
    R: Send + 'static,
{
    /// A stream that begins with some requests; `call` opens it.
    pub(crate) fn open<F>(
        client: &Client,
        first: impl IntoIterator<Item = Q>,
        call: impl FnOnce(Service, Request<UnboundedReceiverStream<Q>>) -> F + Send + 'static,
    ) -> Exchange<Q, R>
    where
        F: Future<Output = Result<Response<Streaming<R>>, Status>> + Send + 'static,
    {
        let (requests, receiver) = mpsc::unbounded_channel();
        for request in first {
            // The receiver is here.
            let _ = requests.send(request);
        }
        let opening: Opening<R> = Box::pin(open_stream(client.clone(), receiver, call));
        Exchange {
            requests,
            state: State::Opening(opening),
        }
    }

    /// Sends a request; whether the stream still takes any.
    pub(crate) fn send(&self, request: Q) -> bool {
        self.requests.send(request).is_ok()
    }

    /// Waits for the next response. Cancel safe.
    ///
    /// # Errors
    /// The stream has ended; it is not to be used any more.
    pub(crate) async fn next(&mut self) -> Result<R, StreamFailure> {
        if let State::Opening(opening) = &mut self.state {
            let opened = opening.await?;
            self.state = State::Open(Box::new(opened));
        }
        let State::Open(open) = &mut self.state else {
            unreachable!("it has just been opened");
        };
        let error = match open.responses.message().await {
            Ok(Some(response)) => return Ok(response),
            Ok(None) => Error::Broken {
                code: Code::Unknown,
                message: "the server closed the stream".to_owned(),
            },
            Err(status) => Error::from(status),
        };
        Err(StreamFailure {
            error,
            route: Some(open.route.clone()),
        })
    }

    /// How it was sent, once it is open.
    pub(crate) fn into_route(self) -> Option<Route> {
        match self.state {
            State::Opening(_) => None,
            State::Open(open) => Some(open.route),
        }
    }
}

async fn open_stream<Q, R, F>(
    client: Client,
    requests: mpsc::UnboundedReceiver<Q>,
    call: impl FnOnce(Service, Request<UnboundedReceiverStream<Q>>) -> F,
) -> Result<Open<R>, StreamFailure>
where
    F: Future<Output = Result<Response<Streaming<R>>, Status>>,
{
    let route = match client.route().await {
        Ok(route) => route,
        Err(error) => return Err(StreamFailure { error, route: None }),
    };
    let requests = with_leader(UnboundedReceiverStream::new(requests));
    match call(route.service(), requests).await {
        Ok(response) => Ok(Open {
            responses: response.into_inner(),
            route,
        }),
        Err(status) => Err(StreamFailure {
            error: Error::from(status),
            route: Some(route),
        }),
    }
}

/// A snapshot of a member's database, received in parts.
pub struct Snapshot {
    first: Option<SnapshotResponse>,
    parts: Streaming<SnapshotResponse>,
}

impl Client {
    /// Requests a snapshot of the member connected to. The deadline applies to the first part;
    /// until it arrives, the request is retried like a read.
    ///
    /// # Errors
    /// The error of the last attempt, or [`Error::DeadlineExceeded`].
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let response_bytes_max = self.shared.config.response_bytes_max;
        let open = |service: Service| async move {
            let stub = MaintenanceClient::new(service);
            let mut stub = stub.max_decoding_message_size(response_bytes_max);
            let mut parts = stub.snapshot(SnapshotRequest {}).await?.into_inner();
            let first = parts.message().await?;
            Ok(Snapshot { first, parts })
        };
        self.call(Policy::Repeatable, open).await
    }
}

impl Snapshot {
    /// Waits for the next part; `None` at the end.
    ///
    /// # Errors
    /// The stream broke: the snapshot must be requested again.
    pub async fn next(&mut self) -> Result<Option<SnapshotResponse>, Error> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => Ok(self.parts.message().await?),
        }
    }
}
