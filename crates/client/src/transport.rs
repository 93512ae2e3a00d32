//! A connection whose failures are told apart: was the request sent, did the other side speak gRPC?
//!
//! The library has one kind of error for all that can happen to a connection. Whether a request may
//! be repeated depends on more than that, and users want to know that what answered is no etcd.

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

/// So much of a foreign answer's body is shown.
const SHOWN_BYTES_MAX: usize = 1024;

/// A request that certainly did not get to the server's program.
#[derive(Debug, thiserror::Error)]
#[error("the request was not sent")]
pub(crate) struct Unsent;

/// A request that may have been executed, but whose answer was lost.
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
            match foreign(response.status(), response.headers()) {
                None => Ok(response),
                Some((code, text)) => Err(Status::new(code, text + &shown(response).await)),
            }
        })
    }
}

/// What became of a request without an answer.
fn failure(error: &(dyn Error + 'static)) -> Status {
    let innermost = causes(error).last().map(ToString::to_string);
    let text = innermost.unwrap_or_default();
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

/// An error and what is behind it, from the outside to the inside.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn is_before_sending(cause: &(dyn Error + 'static)) -> bool {
    // No connection could be made.
    cause.is::<ConnectError>()
        // The connection was closed while the request waited for its turn.
        || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
        // The server says so.
        || cause.downcast_ref::<h2::Error>().is_some_and(is_refusal)
}

/// A server that stops or has too much to do refuses streams before it looks at them.
fn is_refusal(error: &h2::Error) -> bool {
    let reason = match error.is_go_away() {
        true => h2::Reason::NO_ERROR,
        false => h2::Reason::REFUSED_STREAM,
    };
    error.is_remote() && error.reason() == Some(reason)
}

/// Code and text, as grpc-go words them, for an answer that is none of gRPC.
fn foreign(status: StatusCode, headers: &HeaderMap) -> Option<(Code, String)> {
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

/// The beginning of a foreign answer, which often says what answered.
async fn shown(response: http::Response<Body>) -> String {
    let mut body = response.into_body();
    let mut shown = Vec::new();
    while shown.len() < SHOWN_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        shown.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
    }
    shown.truncate(SHOWN_BYTES_MAX);
    match shown.is_empty() {
        true => String::new(),
        false => format!("\ndata: {:?}", String::from_utf8_lossy(&shown)),
    }
}
