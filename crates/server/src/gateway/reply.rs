//! Answers and errors of the gateway.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::ready;
use futures_util::stream::{self, Stream, StreamExt};
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::Full;
use retcd_proto::json::{Schema, quote};
use tokio::time::{Instant, timeout_at};

use super::transcode::{Form, Transcoder};
use crate::grpc::wire::{GivenUp, ResponseBody};
use crate::grpc::{Reply, frames};
use crate::net_http;
use crate::status::{self, Code, Status};

pub(super) type Response = http::Response<ResponseBody>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The content type that gRPC would have had.
const GRPC_CONTENT_TYPE: HeaderName = HeaderName::from_static("grpc-metadata-content-type");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Longer messages become JSON in pieces, as the connection takes them.
const WHOLE_MAX: usize = 64 << 10;

/// There is no such path.
pub(super) const NOT_FOUND: Status = status::status(Code::NotFound, "Not Found");
/// All methods are asked with POST.
pub(super) const METHOD_NOT_ALLOWED: Status =
    status::status(Code::Unimplemented, "Method Not Allowed");

/// Frames from a task; the last item is why there are no more.
type Frames = frames::Receiver;

/// Refuses a client that has a certificate with a user's name.
pub(super) fn certificate_ignored() -> Response {
    let text = "CommonName of client sending a request against gateway will be ignored and not used as expected";
    net_http::reply::error(StatusCode::BAD_REQUEST, text).map(ResponseBody::Page)
}

/// A failure of a call that has one answer.
pub(super) fn error(status: &Status) -> Response {
    failure(status, Full::new(error_json(status).into()).into())
}

fn failure(status: &Status, body: ResponseBody) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status_code(status.code);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    if status.code == Code::Unauthenticated
        && let Ok(challenge) = HeaderValue::from_str(&status.message)
    {
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

fn error_json(status: &Status) -> Vec<u8> {
    let mut json = format!("{{\"code\":{},\"message\":", status.code as i32).into_bytes();
    quote(&status.message, &mut json);
    json.push(b'}');
    json
}

/// The line of a stream that says why there are no more.
fn error_line(status: &Status) -> Bytes {
    let json = error_json(status);
    [b"{\"error\":", json.as_slice(), b"}\n"].concat().into()
}

/// HTTP's status for a code of gRPC's.
fn status_code(code: Code) -> StatusCode {
    let number = match code {
        Code::Ok => 200,
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::Unauthenticated => 401,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    };
    StatusCode::from_u16(number).expect("these are statuses")
}

fn success(body: ResponseBody) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(GRPC_CONTENT_TYPE, GRPC);
    response
}

/// The answer of a unary method; without a length if it may have trailers, as in etcd.
pub(super) fn unary(reply: Reply, schema: &'static Schema, trailers: bool) -> Response {
    let whole = |json: Vec<u8>| match trailers {
        false => Full::new(json.into()).into(),
        true => ResponseBody::Chunk(ready(Some(json.into())).boxed_local()),
    };
    match reply {
        Reply::Failed(status) => failure(&status, whole(error_json(&status))),
        Reply::Message(message) if message.len() <= WHOLE_MAX => {
            let mut json = Vec::with_capacity(2 * message.len());
            Transcoder::new(schema, Form::Plain).push(&message, &mut json);
            success(whole(json))
        }
        Reply::Message(message) => success(pieces(schema, cut(message))),
        Reply::Stream(frames) => success(pieces(schema, received(frames))),
    }
}

/// A message in pieces that are soon made JSON of.
fn cut(mut message: Bytes) -> impl Stream<Item = Result<Bytes, Status>> {
    let pieces = std::iter::from_fn(move || {
        let length = message.len().min(WHOLE_MAX);
        (length > 0).then(|| Ok(message.split_to(length)))
    });
    stream::iter(pieces)
}

fn received(frames: Frames) -> impl Stream<Item = Result<Bytes, Status>> {
    stream::unfold(frames, async |mut frames| {
        Some((frames.recv().await?, frames))
    })
}

/// One message. When it breaks off, so does the connection.
fn pieces(
    schema: &'static Schema,
    pieces: impl Stream<Item = Result<Bytes, Status>> + 'static,
) -> ResponseBody {
    let mut transcoder = Transcoder::new(schema, Form::Plain);
    let json = pieces.map(move |piece| match piece {
        Ok(piece) => Ok(transcoder.transcode(piece)),
        Err(_) => Err(GivenUp),
    });
    ResponseBody::Json(json.boxed_local())
}

/// The answer of a method that streams: a line per message. Its head waits for the first, as what
/// comes before that has a status of its own.
pub(super) async fn stream(
    reply: Reply,
    schema: &'static Schema,
    deadline: Option<Instant>,
) -> Response {
    let frames = match reply {
        Reply::Failed(status) => return stream_failure(&status),
        Reply::Message(message) => return success(pieces(schema, cut(message))),
        Reply::Stream(frames) => frames,
    };
    let mut lines = Lines {
        frames,
        transcoder: Transcoder::new(schema, Form::Lines),
        deadline,
        ended: false,
    };
    match lines.next_frames().await {
        None => Response::new(ResponseBody::Json(stream::empty().boxed_local())),
        Some(Err(status)) => stream_failure(&status),
        Some(Ok(first)) => {
            let first = lines.transcoder.transcode(first);
            let rest = stream::unfold(lines, async |mut lines| Some((lines.next().await?, lines)));
            let all = stream::iter([Ok(first)]).chain(rest.map(Ok));
            success(ResponseBody::Json(all.boxed_local()))
        }
    }
}

fn stream_failure(status: &Status) -> Response {
    let line = ready(Some(error_line(status)));
    failure(status, ResponseBody::Chunk(line.boxed_local()))
}

/// The lines of a stream.
struct Lines {
    frames: Frames,
    transcoder: Transcoder,
    deadline: Option<Instant>,
    ended: bool,
}

impl Lines {
    async fn next_frames(&mut self) -> Option<Result<Bytes, Status>> {
        let Some(deadline) = self.deadline else {
            return self.frames.recv().await;
        };
        let received = timeout_at(deadline, self.frames.recv()).await;
        received.unwrap_or(Some(Err(status::DEADLINE_EXCEEDED)))
    }

    /// What is sent next, and at last why there is no more.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        match self.next_frames().await? {
            Ok(frames) => Some(self.transcoder.transcode(frames)),
            Err(status) => {
                self.ended = true;
                Some(error_line(&status))
            }
        }
    }
}
