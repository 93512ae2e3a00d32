//! The gateway over WebSocket: text messages are the JSON of requests, and each line of the answer is
//! a message. Browsers cannot send a request while they read its answer in any other way.
//!
//! The token is in the subprotocol (`Bearer, TOKEN`) or in a cookie named `token`, as browsers let
//! their pages set no header. A long line goes out in fragments, as they are made.

use std::rc::Rc;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use futures_util::{FutureExt, SinkExt};
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method as Verb, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::reply::Response;
use super::request::Chunks;
use crate::accept::ConnectionPermit;
use crate::budget::Outstanding;
use crate::grpc::wire::ResponseBody;
use crate::net_http;
use crate::server::ServerThread;

/// What RFC 6455 appends to a client's key.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Decoded length of a client's key.
const KEY_BYTES: usize = 16;
const TOKEN_COOKIE: &str = "token";
const BEARER: &str = "Bearer";

/// Whether the client wants a WebSocket.
pub(super) fn is_wanted(request: &Request<()>) -> bool {
    names(request.headers(), CONNECTION, "upgrade")
        && names(request.headers(), UPGRADE, "websocket")
}

/// Whether one of the names in a header is this.
fn names(headers: &HeaderMap, header: HeaderName, name: &str) -> bool {
    let values = headers.get_all(header);
    let values = values.iter().filter_map(|value| value.to_str().ok());
    let mut named = values.flat_map(|value| value.split(','));
    named.any(|named| named.trim().eq_ignore_ascii_case(name))
}

/// Agrees to a WebSocket.
///
/// # Errors
/// The handshake is none; it is [refused](refusal) so.
pub(super) fn accept(request: &Request<()>) -> Result<Response, StatusCode> {
    let headers = request.headers();
    if request.method() != Verb::GET {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if !names(headers, SEC_WEBSOCKET_VERSION, "13") {
        return Err(StatusCode::BAD_REQUEST);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let is_key = |key: &&[u8]| STANDARD.decode(key).is_ok_and(|key| key.len() == KEY_BYTES);
    let Some(key) = key.filter(is_key) else {
        return Err(StatusCode::BAD_REQUEST);
    };
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(KEY_SUFFIX);
    let accepted = STANDARD.encode(hash.finalize());
    let accepted = HeaderValue::from_str(&accepted).expect("base64 is a header's value");
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    if protocol(headers).is_some_and(|protocol| protocol.starts_with(BEARER)) {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(BEARER));
    }
    Ok(response)
}

/// The answer to a handshake that is none.
pub(super) fn refusal(status: StatusCode) -> Response {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut response = net_http::reply::error(status, reason).map(ResponseBody::Page);
    let version = HeaderValue::from_static("13");
    response
        .headers_mut()
        .insert(SEC_WEBSOCKET_VERSION, version);
    response
}

fn protocol(headers: &HeaderMap) -> Option<&str> {
    headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()
}

/// What of the handshake's headers counts for the call: its token.
pub(super) fn headers(request: &Request<()>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let token = protocol(request.headers()).map(|protocol| {
        let token = protocol.split_once("Bearer,");
        token.map_or(String::new(), |(_, token)| {
            format!("Bearer {}", token.trim_matches(' '))
        })
    });
    let cookies = request.headers().get_all(COOKIE).iter();
    let mut cookies = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='));
    let cookie = cookies.find(|(name, _)| *name == TOKEN_COOKIE);
    let token = cookie.map(|(_, token)| format!("Bearer {token}")).or(token);
    if let Some(token) = token.and_then(|token| HeaderValue::from_str(&token).ok()) {
        headers.insert(AUTHORIZATION, token);
    }
    headers
}

/// A WebSocket that is being agreed on, and what it is served with.
pub(super) struct Socket {
    pub(super) thread: Rc<ServerThread>,
    pub(super) upgrade: OnUpgrade,
    /// What its connection holds of the budget.
    pub(super) connection: Outstanding,
    /// Of its connection, which lasts as long as the socket.
    pub(super) permit: Option<Arc<ConnectionPermit>>,
    pub(super) message_bytes_max: usize,
}

impl Socket {
    /// Serves it, once it is there, by `answer`, which is given what the client sends.
    pub(super) async fn serve(self, answer: impl AsyncFnOnce(Chunks) -> Response) {
        let Socket {
            thread,
            upgrade,
            connection,
            permit,
            message_bytes_max,
        } = self;
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default()
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let io = TokioIo::new(upgraded);
        let stream = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        tokio::select! {
            // Errors are the client's.
            _ = converse(stream, answer) => {}
            () = connection.stuck(&thread.server.answers) => {}
        }
        drop(permit);
    }
}

type Stream = WebSocketStream<TokioIo<Upgraded>>;

/// Passes messages on in both directions, until the client or the answer ends.
async fn converse(
    mut stream: Stream,
    answer: impl AsyncFnOnce(Chunks) -> Response,
) -> Result<(), Error> {
    let (requests, received) = mpsc::channel(1);
    let received = stream::unfold(received, async |mut received| {
        Some((Ok(received.recv().await?), received))
    });
    let answer = answer(received.boxed_local());
    let pieces = answer.map(Response::into_body).into_stream();
    let mut pieces = Box::pin(pieces.flat_map(BodyExt::into_data_stream));
    let mut writer = Writer::default();
    let mut request: Option<Bytes> = None;
    loop {
        tokio::select! {
            // If nobody wants to hear more, it is lost, as over plain HTTP.
            place = requests.reserve(), if request.is_some() => {
                let request = request.take();
                if let (Ok(place), Some(request)) = (place, request) {
                    place.send(request);
                }
            }
            message = stream.next(), if request.is_none() => match message {
                Some(Ok(Message::Text(text))) => request = Some(text.into()),
                Some(Ok(Message::Binary(bytes))) => request = Some(bytes),
                Some(Ok(Message::Close(_))) => return stream.flush().await,
                // Pings are answered by the stream.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            piece = pieces.next() => match piece {
                Some(Ok(piece)) => writer.write(&mut stream, piece).await?,
                Some(Err(_)) => return Ok(()),
                None => {
                    writer.end(&mut stream).await?;
                    return stream.close(None).await;
                }
            },
        }
    }
}

/// Writes an answer as messages.
#[derive(Default)]
struct Writer {
    /// Whether a message has begun.
    begun: bool,
}

impl Writer {
    /// Writes a piece of the answer; a message ends with its line.
    async fn write(&mut self, stream: &mut Stream, mut piece: Bytes) -> Result<(), Error> {
        while !piece.is_empty() {
            let end = piece.iter().position(|byte| *byte == b'\n');
            let part = piece.split_to(end.unwrap_or(piece.len()));
            self.fragment(stream, part, end.is_some()).await?;
            if end.is_some() {
                drop(piece.split_to(1));
            }
        }
        stream.flush().await
    }

    /// Ends the message of an answer without lines.
    async fn end(&mut self, stream: &mut Stream) -> Result<(), Error> {
        match self.begun {
            true => self.fragment(stream, Bytes::new(), true).await,
            false => Ok(()),
        }
    }

    async fn fragment(
        &mut self,
        stream: &mut Stream,
        part: Bytes,
        is_last: bool,
    ) -> Result<(), Error> {
        let kind = match self.begun {
            true => Data::Continue,
            false => Data::Text,
        };
        self.begun = !is_last;
        let frame = Frame::message(part, OpCode::Data(kind), is_last);
        stream.feed(Message::Frame(frame)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::get("/v3/watch");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn token(headers: &[(&str, &str)]) -> Option<String> {
        let headers = super::headers(&request(headers));
        let token = headers.get(AUTHORIZATION)?;
        Some(token.to_str().unwrap().to_owned())
    }

    #[test]
    fn tokens_come_by_protocol_or_cookie() {
        let protocol = |value| token(&[("sec-websocket-protocol", value)]);
        assert_eq!(protocol("Bearer, a.1"), Some("Bearer a.1".to_owned()));
        assert_eq!(protocol("Bearer,a.1 "), Some("Bearer a.1".to_owned()));
        assert_eq!(protocol("chat"), Some(String::new()));
        assert_eq!(token(&[]), None);
        let both = [
            ("cookie", "a=b; token=c.2"),
            ("sec-websocket-protocol", "Bearer, a.1"),
        ];
        assert_eq!(token(&both), Some("Bearer c.2".to_owned()));
        assert_eq!(token(&[("authorization", "d.3")]), None);
    }

    #[test]
    fn handshakes_are_those_of_the_rfc() {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let version = ("sec-websocket-version", "13");
        let upgrade = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
        ];
        assert!(is_wanted(&request(&upgrade)));
        assert!(!is_wanted(&request(&upgrade[..1])));
        let accepted = accept(&request(&[key, version])).ok().unwrap();
        assert_eq!(accepted.status(), StatusCode::SWITCHING_PROTOCOLS);
        let accepted = &accepted.headers()[SEC_WEBSOCKET_ACCEPT];
        assert_eq!(accepted, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for wrong in [
            &[key][..],
            &[version],
            &[version, ("sec-websocket-key", "YQ==")],
        ] {
            let refused = accept(&request(wrong)).err();
            assert_eq!(refused, Some(StatusCode::BAD_REQUEST));
        }
    }
}
