//! gRPC's length-prefixed messages over HTTP/2 bodies.
//!
//! ```text
//! | compressed: u8 = 0 | length: u32 big endian | message |
//! ```
//!
//! A message that arrives in one piece is a slice of the receive buffer. Clients may compress with
//! gzip, which etcd understands, too; responses are never compressed.

use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::read::GzDecoder;
use futures_util::future::{FutureExt, LocalBoxFuture};
use futures_util::stream::{LocalBoxStream, StreamExt};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, HeaderName, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use prost::{Message, Name};
use retcd_proto::wire::decode;

use super::frames;
use crate::metrics::CallKind;
use crate::status::{self, Code, MESSAGE_BYTES_MAX, Status};

/// Bytes in front of each message.
pub(crate) const PREFIX_BYTES: usize = 5;

/// The length of a message that may be sent: at most what grpc-go, and so etcd, sends. It is known
/// before anything is allocated for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageLength(u32);

impl MessageLength {
    /// The length of a message of so many bytes.
    ///
    /// # Errors
    /// grpc-go's, for more bytes than it sends.
    pub(crate) fn of(bytes: usize) -> Result<MessageLength, Status> {
        match u32::try_from(bytes) {
            Ok(length) if bytes <= MESSAGE_BYTES_MAX => Ok(MessageLength(length)),
            _ => Err(Status::message_too_large(bytes)),
        }
    }

    /// The length in bytes, without the prefix.
    pub(crate) fn bytes(self) -> usize {
        self.0 as usize
    }

    /// What stands in front of the message.
    pub(crate) fn prefix(self) -> [u8; PREFIX_BYTES] {
        let [a, b, c, d] = self.0.to_be_bytes();
        [0, a, b, c, d]
    }
}

/// How a client may compress its messages (`grpc-encoding`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Not at all.
    Identity,
    /// By gzip, each message for itself.
    Gzip,
}

impl Encoding {
    /// The encoding that the header names; nothing is `identity`.
    ///
    /// # Errors
    /// An encoding that etcd does not understand either.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Encoding, Status> {
        let encoding = headers
            .get("grpc-encoding")
            .map(|encoding| encoding.to_str());
        match encoding {
            None | Some(Ok("identity")) => Ok(Encoding::Identity),
            Some(Ok("gzip")) => Ok(Encoding::Gzip),
            Some(other) => {
                let name = other.unwrap_or("unknown");
                let text =
                    format!("grpc: Decompressor is not installed for grpc-encoding {name:?}");
                Err(Status::new(Code::Unimplemented, text))
            }
        }
    }
}

/// Reads the messages of a request.
pub(crate) struct MessageReader<B> {
    body: B,
    buffered: Bytes,
    /// Pieces of a message that did not arrive whole.
    partial: BytesMut,
    encoding: Encoding,
    message_bytes_max: usize,
}

impl<B> MessageReader<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Reads from `body`, refusing messages above `message_bytes_max`.
    pub(crate) fn new(body: B, encoding: Encoding, message_bytes_max: usize) -> MessageReader<B> {
        MessageReader {
            body,
            encoding,
            buffered: Bytes::new(),
            partial: BytesMut::new(),
            message_bytes_max,
        }
    }

    /// The next message, `None` at the end of the stream. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// A message that is too large or cut short, or is compressed although none should be.
    pub(crate) async fn next(&mut self) -> Result<Option<Received>, Status> {
        loop {
            if let Some(message) = self.take_buffered()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.push(data);
                    }
                }
                Some(Err(_)) => return Err(status::CLIENT_GONE),
                None if self.buffered.is_empty() && self.partial.is_empty() => return Ok(None),
                None => return Err(self.cut_short()),
            }
        }
    }

    /// grpc-go's words for a stream that ends within a message.
    fn cut_short(&self) -> Status {
        let held = self.buffered.len().max(self.partial.len());
        let text = if held < PREFIX_BYTES {
            "EOF"
        } else {
            "unexpected EOF"
        };
        Status::new(Code::Unknown, text)
    }

    fn push(&mut self, data: Bytes) {
        if self.partial.is_empty() && self.buffered.is_empty() {
            self.buffered = data;
        } else {
            self.partial
                .extend_from_slice(&std::mem::take(&mut self.buffered));
            self.partial.extend_from_slice(&data);
        }
    }

    fn take_buffered(&mut self) -> Result<Option<Received>, Status> {
        let available: &[u8] = if self.partial.is_empty() {
            &self.buffered
        } else {
            &self.partial
        };
        let Some((prefix, rest)) = available.split_at_checked(PREFIX_BYTES) else {
            return Ok(None);
        };
        let length = (&prefix[1..]).get_u32() as usize;
        let compressed = prefix[0] != 0;
        if compressed && self.encoding == Encoding::Identity {
            return Err(Status::new(
                Code::Internal,
                "grpc: compressed flag set with identity or empty encoding",
            ));
        }
        check_length(length, self.message_bytes_max)?;
        if rest.len() < length {
            return Ok(None);
        }
        if !self.partial.is_empty() {
            self.buffered = std::mem::take(&mut self.partial).freeze();
        }
        self.buffered.advance(PREFIX_BYTES);
        let bytes = self.buffered.split_to(length);
        let compressed_up_to = compressed.then_some(self.message_bytes_max);
        Ok(Some(Received {
            bytes,
            compressed_up_to,
        }))
    }
}

fn check_length(length: usize, bytes_max: usize) -> Result<(), Status> {
    if length <= bytes_max {
        return Ok(());
    }
    let text = format!("grpc: received message larger than max ({length} vs. {bytes_max})");
    Err(Status::new(Code::ResourceExhausted, text))
}

/// A message as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received {
    bytes: Bytes,
    /// How long it may become when it is decompressed; nothing if it is not compressed.
    compressed_up_to: Option<usize>,
}

impl Received {
    /// A message that was not framed.
    ///
    /// # Errors
    /// grpc-go's, for one that is longer than it may be.
    pub(super) fn of(bytes: Bytes, bytes_max: usize) -> Result<Received, Status> {
        check_length(bytes.len(), bytes_max)?;
        Ok(Received {
            bytes,
            compressed_up_to: None,
        })
    }

    /// Messages up to this length are soon decoded, whatever is in them.
    const SHORT_BYTES: usize = 64 << 10;

    /// Whether it may take more than a millisecond to decode.
    pub(crate) fn is_long(&self) -> bool {
        self.bytes.len() > Self::SHORT_BYTES || self.compressed_up_to.is_some()
    }

    /// The encoded message.
    ///
    /// # Errors
    /// It cannot be decompressed, or becomes too long.
    pub(crate) fn into_message(self) -> Result<Bytes, Status> {
        match self.compressed_up_to {
            Some(bytes_max) => decompress(&self.bytes, bytes_max),
            None => Ok(self.bytes),
        }
    }
}

/// Decodes a message that has been received.
///
/// # Errors
/// It is no `T`, which grpc-go tells in other words for a stream.
pub(crate) fn decode_message<T: Name + Default>(
    message: Bytes,
    kind: CallKind,
) -> Result<T, Status> {
    decode(message).map_err(|error| {
        let failed = match kind {
            CallKind::Unary => "error unmarshalling request",
            _ => "failed to unmarshal the received message",
        };
        Status::new(Code::Internal, format!("grpc: {failed}: {error}"))
    })
}

/// Decompresses a message, no further than it may be long.
///
/// # Errors
/// It is not of gzip; it becomes longer than `bytes_max`.
fn decompress(message: &[u8], bytes_max: usize) -> Result<Bytes, Status> {
    let mut out = Vec::new();
    let limit = bytes_max as u64 + 1;
    GzDecoder::new(message)
        .take(limit)
        .read_to_end(&mut out)
        .map_err(|error| {
            let text = format!("grpc: failed to decompress the message: {error}");
            Status::new(Code::Internal, text)
        })?;
    if out.len() > bytes_max {
        let text =
            format!("grpc: received message after decompression larger than max {bytes_max}");
        return Err(Status::new(Code::ResourceExhausted, text));
    }
    Ok(out.into())
}

/// Appends a message in gRPC's frame; returns the length of frame and message in bytes.
///
/// # Errors
/// As [`MessageLength::of`]; nothing is appended then.
pub(crate) fn frame_into<T: Message>(buf: &mut BytesMut, message: &T) -> Result<usize, Status> {
    let length = MessageLength::of(message.encoded_len())?;
    buf.reserve(PREFIX_BYTES + length.bytes());
    buf.put_slice(&length.prefix());
    message.encode_raw(buf);
    Ok(PREFIX_BYTES + length.bytes())
}

/// The body of every response on a client listener.
pub(crate) enum ResponseBody {
    /// A page over plain HTTP.
    Page(Full<Bytes>),
    /// Nothing: a gRPC error is all in the headers.
    Empty,
    /// One framed message and the trailers of success.
    Unary(Option<Bytes>),
    /// The same when only the trailers are still to come.
    UnaryTrailers,
    /// Framed messages from a task; the last item is the status of the call.
    Stream(frames::Receiver),
    /// One piece that is still to come, over plain HTTP.
    Chunk(LocalBoxFuture<'static, Option<Bytes>>),
    /// Pieces that are made when the connection can take them, over plain HTTP.
    Chunks(LocalBoxStream<'static, Bytes>),
    /// The same for JSON, which may turn out not to be made whole.
    Json(LocalBoxStream<'static, Result<Bytes, GivenUp>>),
    /// Everything was sent.
    Done,
}

/// An answer breaks off. Its connection, or its stream, is reset, so that the client does not take it
/// for whole.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer was given up")]
pub(crate) struct GivenUp;

impl From<Full<Bytes>> for ResponseBody {
    fn from(page: Full<Bytes>) -> ResponseBody {
        ResponseBody::Page(page)
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(GRPC_STATUS, HeaderValue::from(status.code as i32));
    trailers.insert(GRPC_MESSAGE, status.message_header());
    trailers
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = GivenUp;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        match this {
            ResponseBody::Page(page) => Pin::new(page)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            ResponseBody::Empty => Poll::Ready(None),
            ResponseBody::Unary(data) => {
                let data = data
                    .take()
                    .expect("a unary body is polled once for its message");
                *this = ResponseBody::UnaryTrailers;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            ResponseBody::UnaryTrailers => {
                *this = ResponseBody::Done;
                Poll::Ready(Some(Ok(Frame::trailers(ok_trailers()))))
            }
            ResponseBody::Stream(messages) => match messages.poll_recv(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Ok(message))) => Poll::Ready(Some(Ok(Frame::data(message)))),
                Poll::Ready(ended) => {
                    let trailers = match ended {
                        Some(Err(status)) => trailers(&status),
                        _ => ok_trailers(),
                    };
                    *this = ResponseBody::Done;
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
            },
            ResponseBody::Chunk(chunk) => {
                let chunk = ready!(chunk.poll_unpin(cx));
                *this = ResponseBody::Done;
                Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
            }
            ResponseBody::Chunks(chunks) => chunks
                .poll_next_unpin(cx)
                .map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk)))),
            ResponseBody::Json(pieces) => pieces
                .poll_next_unpin(cx)
                .map(|piece| piece.map(|piece| piece.map(Frame::data))),
            ResponseBody::Done => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Page(page) => page.is_end_stream(),
            ResponseBody::Empty | ResponseBody::Done => true,
            _ => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Page(page) => page.size_hint(),
            ResponseBody::Empty | ResponseBody::Done => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// A response that consists of one framed message, in one piece.
pub(crate) fn unary_response(message: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Unary(Some(message)));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// A response whose messages come from a task.
pub(crate) fn stream_response(messages: frames::Receiver) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Stream(messages));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// A response that consists of a failed status.
pub(crate) fn error_response(status: &Status) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.headers_mut() = trailers(status);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;
    use retcd_proto::etcdserverpb::PutRequest;

    use super::*;

    /// Feeds `chunks` and tells what comes out.
    fn read(chunks: &[&[u8]], max: usize) -> Vec<Result<Option<Received>, Status>> {
        let frames: Vec<Result<Frame<Bytes>, std::convert::Infallible>> = chunks
            .iter()
            .map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk))))
            .collect();
        let mut reader = MessageReader::new(
            StreamBody::new(futures_util::stream::iter(frames)),
            Encoding::Identity,
            max,
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut out = Vec::new();
        loop {
            let next = runtime.block_on(reader.next());
            let more = matches!(next, Ok(Some(_)));
            out.push(next);
            if !more {
                return out;
            }
        }
    }

    #[test]
    fn messages_may_be_cut_anywhere() {
        let message = PutRequest {
            key: "k".into(),
            value: vec![7; 40].into(),
            ..Default::default()
        };
        let frame = |message: &_| {
            let mut framed = BytesMut::new();
            frame_into(&mut framed, message).map(|_| framed)
        };
        let stream = [frame(&message).unwrap(), frame(&message).unwrap()].concat();
        let expected = || {
            let bytes = message.encode_to_vec().into();
            let compressed_up_to = None;
            Ok(Some(Received {
                bytes,
                compressed_up_to,
            }))
        };
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            let got = read(&[head, tail], 100);
            assert_eq!(got, [expected(), expected(), Ok(None)], "cut at {cut}");
        }
    }

    #[test]
    fn oversize_compressed_and_cut_messages_are_refused() {
        let refused = |chunks: &[&[u8]]| read(chunks, 10).pop().unwrap().unwrap_err().message;
        assert_eq!(
            refused(&[&[0, 0, 0, 0, 11]]),
            "grpc: received message larger than max (11 vs. 10)"
        );
        assert_eq!(
            refused(&[&[1, 0, 0, 0, 0]]),
            "grpc: compressed flag set with identity or empty encoding"
        );
        assert_eq!(refused(&[&[0, 0, 0, 0, 3, 1]]), "unexpected EOF");
    }

    #[test]
    fn a_message_is_at_most_what_grpc_go_sends() {
        let largest = MessageLength::of(2_147_483_647).unwrap();
        assert_eq!(largest.prefix(), [0, 0x7f, 0xff, 0xff, 0xff]);
        let refused = MessageLength::of(2_516_637_149).unwrap_err();
        assert_eq!(refused.code, Code::ResourceExhausted);
        assert_eq!(
            refused.message,
            "grpc: trying to send message larger than max (2516637149 vs. 2147483647)"
        );
    }
}
