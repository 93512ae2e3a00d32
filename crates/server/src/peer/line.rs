//! Requests over HTTP/1.1, and a connection that is kept for the next one.
//!
//! Members close a connection that was silent for five seconds, without a word. One that has been idle for
//! nearly as long is therefore not used again, and a request on a kept connection that turns out to be
//! closed goes out once more on a new one, if the other side cannot have acted on it twice.

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

/// How long a connection may have been idle to be used again. The other end closes it after 5 s.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// There was no connection.
    #[error("dial tcp {address}: connect: {}", go_io_error(.error))]
    Dial {
        /// Where to.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// The connection broke, or what came was no HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The response did not come in time.
    #[error("context deadline exceeded")]
    Timeout,
    /// The response is larger than it may be.
    #[error("response body exceeds {limit} bytes limit")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
}

/// Opens a connection for one request and what may follow it.
///
/// The connection lives in a task of the current runtime until the sender and the response are dropped.
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
    // Whoever waits for the response is told why the connection ended.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Names the member that is asked in the request, as HTTP/1.1 wants it.
pub(super) fn address<B>(url: &Url, request: &mut Request<B>) {
    // A path of a Unix socket may hold anything; nobody reads the name then.
    let host = HeaderValue::from_str(&url.address())
        .unwrap_or_else(|_| HeaderValue::from_static("localhost"));
    request.headers_mut().insert(HOST, host);
}

/// Whether a request may reach the other side twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It does no harm.
    Harmless,
    /// It would be done twice.
    Never,
}

/// Keeps one connection from request to request.
pub struct Line {
    dialer: Dialer,
    write_limit: Duration,
    kept: Option<Kept>,
}

struct Kept {
    url: Url,
    sender: SendRequest<Outgoing>,
    used: Instant,
}

impl Line {
    /// A line without a connection yet. `write_limit` bounds how long the other end may leave bytes untaken.
    pub fn new(dialer: Dialer, write_limit: Duration) -> Line {
        Line {
            dialer,
            write_limit,
            kept: None,
        }
    }

    /// Sends a request and gives the head of the response. Its body must be read for the connection to be
    /// used again.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn send(
        &mut self,
        url: &Url,
        mut request: Request<Bytes>,
        repeat: Repeat,
    ) -> Result<Response<Incoming>, ExchangeError> {
        address(url, &mut request);
        if let Some(mut kept) = self.take_kept(url) {
            let again = request.clone();
            match kept
                .sender
                .try_send_request(request.map(Outgoing::whole))
                .await
            {
                Ok(response) => {
                    self.keep(url, kept.sender);
                    return Ok(response);
                }
                Err(error) => {
                    let unsent = error.message().is_some();
                    let error = error.into_error();
                    // Nothing of a response came; hyper says so in one of these ways.
                    let silent =
                        error.is_incomplete_message() || error.is_canceled() || is_io(&error);
                    if !unsent && (repeat == Repeat::Never || !silent) {
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

    /// [`Line::send`] and the response's body, all within `limit`. The connection is given up when it is late.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn exchange(
        &mut self,
        url: &Url,
        request: Request<Bytes>,
        repeat: Repeat,
        limit: Duration,
        body_bytes_max: usize,
    ) -> Result<Response<Bytes>, ExchangeError> {
        let all = async {
            let response = self.send(url, request, repeat).await?;
            collect(response, body_bytes_max).await
        };
        let result = tokio::time::timeout(limit, all)
            .await
            .unwrap_or(Err(ExchangeError::Timeout));
        match &result {
            Ok(_) => self.touch(),
            Err(_) => self.kept = None,
        }
        result
    }

    fn take_kept(&mut self, url: &Url) -> Option<Kept> {
        self.kept.take().filter(|kept| {
            kept.url == *url && kept.used.elapsed() < IDLE_MAX && kept.sender.is_ready()
        })
    }

    fn keep(&mut self, url: &Url, sender: SendRequest<Outgoing>) {
        self.kept = Some(Kept {
            url: url.clone(),
            sender,
            used: Instant::now(),
        });
    }

    fn touch(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.used = Instant::now();
        }
    }
}

fn is_io(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<io::Error>())
}

/// Reads a response to its end.
///
/// # Errors
/// When the connection breaks or the body is larger than `bytes_max`.
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
    /// All of it, at once; `None` when it is out.
    Whole(Option<Bytes>),
    /// Piece by piece. The body is complete when the sender said so; one that just ends breaks the connection,
    /// so that the other side does not take a part for the whole.
    Pieces(mpsc::Receiver<Piece>),
}

/// A piece of a body.
pub(super) enum Piece {
    /// Some bytes.
    Bytes(Bytes),
    /// The end.
    End,
}

impl Outgoing {
    pub fn whole(bytes: Bytes) -> Outgoing {
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
