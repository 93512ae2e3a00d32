//! Requests over persistent HTTP/1.1 connections.
//!
//! Members close a connection that has been idle for five seconds. One that has been idle for
//! nearly as long is therefore not reused. A request on a reused connection that turns out to be
//! closed is sent once more on a new one, unless the other side may have executed it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::HOST};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::dial::{Dialer, WriteDeadline};
use crate::config::url::Url;
use crate::log::go_io_error;

/// Connections that have been idle for longer are not reused. The other end closes them after 5 s.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// No connection could be established.
    #[error("dial tcp {address}: connect: {}", go_io_error(.error))]
    Dial {
        /// Of the member.
        address: String,
        /// The operating system's, or the handshake's.
        error: io::Error,
    },
    /// The connection broke, or the response is not HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The response did not come in time.
    #[error("context deadline exceeded")]
    Timeout,
    /// The response is too large.
    #[error("response body exceeds {limit} bytes limit")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
}

/// Opens a connection.
///
/// It is driven by a task of the current runtime until the sender and the response are dropped.
pub(super) async fn connect(
    dialer: &Dialer,
    url: &Url,
    write_limit: Duration,
) -> Result<SendRequest<Outgoing>, ExchangeError> {
    let stream = dialer
        .dial(url)
        .await
        .map_err(|error| ExchangeError::Dial {
            address: url.address(),
            error,
        })?;
    let stream = TokioIo::new(WriteDeadline::new(stream, write_limit));
    let (sender, connection) = http1::handshake(stream).await?;
    // The error goes to the response that is waited for, too.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Sets the header `Host`.
pub(super) fn address<B>(url: &Url, request: &mut Request<B>) {
    // The path of a Unix socket may not be valid in a header. The value does not matter then.
    let host = HeaderValue::from_str(&url.address())
        .unwrap_or_else(|_| HeaderValue::from_static("localhost"));
    request.headers_mut().insert(HOST, host);
}

/// Whether a request may be executed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryPolicy {
    /// It may.
    Repeatable,
    /// It must not.
    NonRepeatable,
}

/// A connection that is kept from one request to the next.
pub(super) struct PersistentConnection {
    dialer: Dialer,
    write_limit: Duration,
    idle: Option<Idle>,
}

struct Idle {
    url: Url,
    sender: SendRequest<Outgoing>,
    used: Instant,
}

impl PersistentConnection {
    /// Connects with the first request. `write_limit` bounds how long a write may block.
    pub(super) fn new(dialer: Dialer, write_limit: Duration) -> PersistentConnection {
        PersistentConnection {
            dialer,
            write_limit,
            idle: None,
        }
    }

    /// Sends a request and returns the head of the response. The connection is reused once the body
    /// has been read.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub(super) async fn send(
        &mut self,
        url: &Url,
        mut request: Request<Bytes>,
        retry: RetryPolicy,
    ) -> Result<Response<Incoming>, ExchangeError> {
        address(url, &mut request);
        if let Some(mut idle) = self.take_idle(url) {
            let again = request.clone();
            match idle
                .sender
                .try_send_request(request.map(Outgoing::whole))
                .await
            {
                Ok(response) => {
                    self.keep(url, idle.sender);
                    return Ok(response);
                }
                Err(error) => {
                    let unsent = error.message().is_some();
                    let error = error.into_error();
                    // No part of a response has been received.
                    let silent =
                        error.is_incomplete_message() || error.is_canceled() || is_io(&error);
                    if !unsent && (retry == RetryPolicy::NonRepeatable || !silent) {
                        return Err(error.into());
                    }
                    request = again;
                }
            }
        }
        let mut sender = connect(&self.dialer, url, self.write_limit).await?;
        let response = sender.send_request(request.map(Outgoing::whole)).await?;
        self.keep(url, sender);
        Ok(response)
    }

    /// [`PersistentConnection::send`] and the response's body, within `limit`. The connection is
    /// closed on a timeout.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub(super) async fn exchange(
        &mut self,
        url: &Url,
        request: Request<Bytes>,
        retry: RetryPolicy,
        limit: Duration,
        body_bytes_max: usize,
    ) -> Result<Response<Bytes>, ExchangeError> {
        let all = async {
            let response = self.send(url, request, retry).await?;
            collect(response, body_bytes_max).await
        };
        let result = tokio::time::timeout(limit, all)
            .await
            .unwrap_or(Err(ExchangeError::Timeout));
        match &result {
            Ok(_) => self.touch(),
            Err(_) => self.idle = None,
        }
        result
    }

    fn take_idle(&mut self, url: &Url) -> Option<Idle> {
        self.idle.take().filter(|idle| {
            idle.url == *url && idle.used.elapsed() < IDLE_MAX && idle.sender.is_ready()
        })
    }

    fn keep(&mut self, url: &Url, sender: SendRequest<Outgoing>) {
        self.idle = Some(Idle {
            url: url.clone(),
            sender,
            used: Instant::now(),
        });
    }

    fn touch(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.used = Instant::now();
        }
    }
}

fn is_io(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<io::Error>())
}

/// Reads the body of a response.
///
/// # Errors
/// The connection breaks, or the body is larger than `bytes_max`.
pub(super) async fn collect(
    response: Response<Incoming>,
    bytes_max: usize,
) -> Result<Response<Bytes>, ExchangeError> {
    let (head, body) = response.into_parts();
    let body = match Limited::new(body, bytes_max).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return Err(match error.downcast::<hyper::Error>() {
                Ok(error) => ExchangeError::Http(*error),
                Err(error) => {
                    debug_assert!(error.is::<LengthLimitError>(), "{error}");
                    ExchangeError::TooLarge { limit: bytes_max }
                }
            });
        }
    };
    Ok(Response::from_parts(head, body))
}

/// The body of a request.
pub(super) enum Outgoing {
    /// All of it at once; none once it has been sent.
    Whole(Option<Bytes>),
    /// In pieces, ending with [`Piece::End`]. Without that the connection is broken, so that the
    /// other side does not mistake a part of the body for the whole.
    Pieces(mpsc::Receiver<Piece>),
}

/// A piece of a body.
pub(super) enum Piece {
    Bytes(Bytes),
    End,
}

impl Outgoing {
    pub(super) fn whole(bytes: Bytes) -> Outgoing {
        Outgoing::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let pieces = match &mut *self {
            Outgoing::Whole(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Outgoing::Pieces(pieces) => pieces,
        };
        Poll::Ready(match ready!(pieces.poll_recv(cx)) {
            Some(Piece::Bytes(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Piece::End) => {
                *self = Outgoing::Whole(None);
                None
            }
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Outgoing::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Outgoing::Pieces(_) => SizeHint::default(),
        }
    }
}
