//! A channel that distinguishes failures: whether the request was sent, and whether the peer speaks
//! gRPC.
//!
//! tonic reports all failures of a connection alike. Retrying depends on whether the request was
//! sent, and users want to know if the peer is not etcd.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Status};
use tower_service::Service;

/// How much of a non-gRPC response body is reported.
const BODY_EXCERPT_BYTES_MAX: usize = 1024;

/// The request was certainly not processed by the server.
#[derive(Debug, thiserror::Error)]
#[error("the request was not sent")]
pub(crate) struct Unsent;

/// The request may have been processed, but the response was lost.
#[derive(Debug, thiserror::Error)]
#[error("the connection broke")]
pub(crate) struct Broken;

/// A channel to one endpoint.
#[derive(Clone)]
pub(crate) struct Transport(pub Channel);

impl Service<http::Request<Body>> for Transport {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.0.poll_ready(cx).map_err(|error| failure(&error))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let response = answer.await.map_err(|error| failure(&error))?;
            match non_grpc_status(response.status(), response.headers()) {
                None => Ok(response),
                Some((code, text)) => Err(Status::new(code, text + &body_excerpt(response).await)),
            }
        })
    }
}

/// The status of a request without a response.
fn failure(error: &(dyn Error + 'static)) -> Status {
    let root_cause = causes(error).last().map(ToString::to_string);
    let text = root_cause.unwrap_or_default();
    if causes(error).any(is_before_sending) {
        let mut status = Status::unavailable(format!("connection error: desc = {text:?}"));
        status.set_source(Arc::new(Unsent));
        status
    } else {
        let mut status = Status::unavailable(format!("error reading from server: {text}"));
        status.set_source(Arc::new(Broken));
        status
    }
}

/// The chain of sources of an error, starting with itself.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn is_before_sending(cause: &(dyn Error + 'static)) -> bool {
    // The connection could not be established.
    cause.is::<ConnectError>()
        // The connection was closed while the request was queued.
        || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
        // The server reset the stream before processing it.
        || cause.downcast_ref::<h2::Error>().is_some_and(is_refusal)
}

/// REFUSED_STREAM: a server that is stopping or overloaded rejects streams unprocessed.
fn is_refusal(error: &h2::Error) -> bool {
    let reason = match error.is_go_away() {
        true => h2::Reason::NO_ERROR,
        false => h2::Reason::REFUSED_STREAM,
    };
    error.is_remote() && error.reason() == Some(reason)
}

/// Code and text, as grpc-go words them, for a response that is not gRPC.
fn non_grpc_status(status: StatusCode, headers: &HeaderMap) -> Option<(Code, String)> {
    let content_type = match headers.get(header::CONTENT_TYPE) {
        None => "malformed header: missing HTTP content-type".to_owned(),
        Some(value) => {
            let value = String::from_utf8_lossy(value.as_bytes());
            if is_grpc(&value) {
                return None;
            }
            format!("transport: received unexpected content-type {value:?}")
        }
    };
    let code = match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    let reason = status.canonical_reason().unwrap_or_default();
    let status = status.as_u16();
    let text = format!(
        "unexpected HTTP status code received from server: {status} ({reason}); {content_type}"
    );
    Some((code, text))
}

fn is_grpc(content_type: &str) -> bool {
    let subtype = content_type.strip_prefix("application/grpc");
    subtype.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// The start of a non-gRPC response body, which often identifies the peer.
async fn body_excerpt(response: http::Response<Body>) -> String {
    let mut body = response.into_body();
    let mut excerpt = Vec::new();
    while excerpt.len() < BODY_EXCERPT_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        excerpt.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
    }
    excerpt.truncate(BODY_EXCERPT_BYTES_MAX);
    match excerpt.is_empty() {
        true => String::new(),
        false => format!("\ndata: {:?}", String::from_utf8_lossy(&excerpt)),
    }
}
