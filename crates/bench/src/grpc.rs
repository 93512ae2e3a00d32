//! A minimal gRPC client for load generation, directly on HTTP/2.
//!
//! The generator shares the CPUs with the server that it measures, so a call costs one encoded
//! message and one HTTP/2 stream: no connection pool, no interceptors, no task per call. Large
//! responses are counted and released to flow control without being assembled, unless the caller
//! needs them.
//!
//! The format of a message:
//!
//! ```text
//! +------------+--------------------------+----------------+
//! | 0 (plain)  | length, 4 bytes, big end | protobuf bytes |
//! +------------+--------------------------+----------------+
//! ```
//!
//! Deliberately absent: compression, retries, deadlines.

use std::future::poll_fn;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::error::CallError;
use crate::read_rate::{ReadRate, SlowReader};
use crate::target::Target;

/// The prefix of each message: compression flag and length.
pub(crate) const FRAME_HEADER: usize = 5;

// Large enough that lists do not wait for the generator's window updates.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
// The default of HTTP/2. A thousand of them fit into the window of their connection, so that slow
// readers do not hold up others.
const SLOW_STREAM_WINDOW: u32 = (64 << 10) - 1;

/// A connection to a server. Clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    requests: SendRequest<Bytes>,
    scheme: Scheme,
    authority: Authority,
    token: Option<HeaderValue>,
}

impl Connection {
    /// Connects to member `at` of `target` (see [`Target::member`]) and drives the connection on
    /// the caller's runtime.
    ///
    /// # Errors
    /// [`CallError::Connect`] if the connection or the TLS handshake fails, [`CallError::Broken`]
    /// if the server does not speak HTTP/2.
    pub(crate) async fn open(target: &Target, at: usize) -> Result<Self, CallError> {
        Self::open_with(target, at, STREAM_WINDOW).await
    }

    /// As [`Connection::open`], for methods with a read rate ([`Method::at`]): the server may send
    /// no more than 64 KiB ahead of what a call has taken.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub(crate) async fn open_slow(target: &Target, at: usize) -> Result<Self, CallError> {
        Self::open_with(target, at, SLOW_STREAM_WINDOW).await
    }

    async fn open_with(target: &Target, at: usize, window: u32) -> Result<Self, CallError> {
        let authority = target.member(at).clone();
        let refused = |source| CallError::Connect {
            endpoint: authority.to_string(),
            source,
        };
        let socket = TcpStream::connect(authority.as_str())
            .await
            .and_then(|socket| socket.set_nodelay(true).map(|()| socket))
            .map_err(refused)?;
        let (requests, scheme) = match target.tls() {
            None => (handshake(socket, window).await?, Scheme::HTTP),
            Some(tls) => {
                let sealed = tls.connect(authority.host(), socket).await;
                (
                    handshake(sealed.map_err(refused)?, window).await?,
                    Scheme::HTTPS,
                )
            }
        };
        Ok(Self {
            requests,
            scheme,
            authority,
            token: target.token().cloned(),
        })
    }

    /// Prepares calls of `path` (`/package.Service/Method`).
    pub(crate) fn method(&self, path: &'static str) -> Method {
        let uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .expect("authority and path are valid, and paths are constants");
        let mut head = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "retcd-bench");
        if let Some(token) = &self.token {
            head = head.header("token", token);
        }
        Method {
            requests: self.requests.clone(),
            head: Box::new(head.body(()).expect("the headers are valid already")),
            read_rate: None,
        }
    }
}

/// Performs the HTTP/2 handshake on `socket` and spawns the connection's task. Each stream has a
/// `window` in bytes.
async fn handshake(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    window: u32,
) -> Result<SendRequest<Bytes>, CallError> {
    let (requests, driver) = h2::client::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .enable_push(false)
        .handshake(socket)
        .await?;
    // Every call on a broken connection reports its own error.
    tokio::spawn(async move { drop(driver.await) });
    Ok(requests)
}

/// A method of one server, prepared for repeated calls.
pub(crate) struct Method {
    requests: SendRequest<Bytes>,
    head: Box<Request<()>>,
    read_rate: Option<ReadRate>,
}

impl Method {
    /// The same method, whose responses are taken at no more than `read_rate`, if there is one.
    pub(crate) fn at(self, read_rate: Option<ReadRate>) -> Self {
        Self { read_rate, ..self }
    }

    /// Calls the method and returns the response.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn call<R: Message + Default>(
        &mut self,
        request: &impl Message,
    ) -> Result<R, CallError> {
        let mut body = BytesMut::new();
        self.exchange(request, |chunk| append(&mut body, chunk))
            .await?;
        let mut body = body.freeze();
        let message = split_message(&mut body)
            .filter(|_| body.is_empty())
            .ok_or_else(|| CallError::Unexpected("not exactly one message".into()))?;
        decode(message)
    }

    /// Calls the method and returns the length of the response in bytes, of a stream that of all its
    /// messages; its content is dropped as it arrives.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn call_for_len(
        &mut self,
        request: &impl Message,
    ) -> Result<usize, CallError> {
        let mut total = 0;
        self.exchange(request, |chunk| total += chunk.len()).await?;
        total
            .checked_sub(FRAME_HEADER)
            .ok_or_else(|| CallError::Unexpected(format!("a body of {total} bytes")))
    }

    /// Opens a bidirectional stream.
    ///
    /// # Errors
    /// [`CallError::Broken`] if the connection is gone.
    pub(crate) async fn open(&mut self) -> Result<Stream, CallError> {
        let (response, out) = self.send_head().await?;
        Ok(Stream {
            out,
            incoming: Incoming::Awaited(Box::new(response)),
            buffered: Bytes::new(),
        })
    }

    async fn send_head(&mut self) -> Result<(ResponseFuture, SendStream<Bytes>), CallError> {
        poll_fn(|context| self.requests.poll_ready(context)).await?;
        Ok(self
            .requests
            .send_request(Request::clone(&self.head), false)?)
    }

    async fn exchange(
        &mut self,
        request: &impl Message,
        mut keep: impl FnMut(Bytes),
    ) -> Result<(), CallError> {
        let (response, mut out) = self.send_head().await?;
        out.send_data(frame(request), true)?;
        let mut body = accept(response).await?;
        let mut reader = self.read_rate.map(SlowReader::new);
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            if let Some(reader) = &mut reader {
                reader.take(chunk.len()).await;
            }
            body.flow_control().release_capacity(chunk.len())?;
            keep(chunk);
        }
        match body.trailers().await? {
            Some(trailers) => check_status(&trailers),
            None => Err(CallError::Unexpected("no trailers".into())),
        }
    }
}

/// A bidirectional stream.
pub(crate) struct Stream {
    out: SendStream<Bytes>,
    incoming: Incoming,
    buffered: Bytes,
}

enum Incoming {
    /// The server sends its headers with its first message.
    Awaited(Box<ResponseFuture>),
    Open(RecvStream),
}

impl Stream {
    /// Sends one message.
    ///
    /// # Errors
    /// [`CallError::Broken`] if the stream is closed.
    pub(crate) fn send(&mut self, message: &impl Message) -> Result<(), CallError> {
        Ok(self.out.send_data(frame(message), false)?)
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// See [`CallError`]; the end of the stream is an error, because no workload expects it.
    pub(crate) async fn next<R: Message + Default>(&mut self) -> Result<R, CallError> {
        loop {
            if let Some(message) = split_message(&mut self.buffered) {
                return decode(message);
            }
            let chunk = self.receive().await?;
            if self.buffered.is_empty() {
                self.buffered = chunk;
            } else {
                // Nobody else has the joined bytes, so that the next chunk is appended in place.
                let mut joined = BytesMut::from(std::mem::take(&mut self.buffered));
                joined.extend_from_slice(&chunk);
                self.buffered = joined.freeze();
            }
        }
    }

    async fn receive(&mut self) -> Result<Bytes, CallError> {
        if let Incoming::Awaited(response) = &mut self.incoming {
            let body = accept(response.as_mut()).await?;
            self.incoming = Incoming::Open(body);
        }
        let Incoming::Open(body) = &mut self.incoming else {
            unreachable!("the branch above has opened it")
        };
        match body.data().await {
            Some(chunk) => {
                let chunk = chunk?;
                body.flow_control().release_capacity(chunk.len())?;
                Ok(chunk)
            }
            None => {
                if let Some(trailers) = body.trailers().await? {
                    check_status(&trailers)?;
                }
                Err(CallError::Unexpected("the server closed the stream".into()))
            }
        }
    }
}

/// Waits for the response headers; a "trailers-only" response is a failure.
async fn accept(
    response: impl Future<Output = Result<http::Response<RecvStream>, h2::Error>>,
) -> Result<RecvStream, CallError> {
    let response = response.await?;
    if response.status() != StatusCode::OK {
        return Err(CallError::Unexpected(format!(
            "HTTP status {}",
            response.status()
        )));
    }
    if response.headers().contains_key("grpc-status") {
        check_status(response.headers())?;
    }
    Ok(response.into_body())
}

fn check_status(headers: &HeaderMap) -> Result<(), CallError> {
    let text = |name| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
    };
    let code = text("grpc-status")
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| CallError::Unexpected("no grpc-status".into()))?;
    if code == 0 {
        return Ok(());
    }
    let message = percent_decoded(&text("grpc-message").unwrap_or_default());
    Err(CallError::Status { code, message })
}

/// Decodes a percent-encoded status message; invalid escapes are kept as they are.
fn percent_decoded(text: &str) -> String {
    let (mut decoded, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, behind)) = rest.split_first() {
        let digit = |at: usize| {
            behind
                .get(at)
                .and_then(|digit| char::from(*digit).to_digit(16))
        };
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                rest = &behind[2..];
            }
            _ => {
                decoded.push(byte);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn frame(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(FRAME_HEADER + len);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(len).expect("requests are far smaller than 4 GiB"));
    message
        .encode(&mut bytes)
        .expect("the buffer has encoded_len bytes of capacity");
    bytes.freeze()
}

/// Removes the first complete message from `buffered`, if there is one.
fn split_message(buffered: &mut Bytes) -> Option<Bytes> {
    let header = buffered.get(..FRAME_HEADER)?;
    let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if buffered.len() < FRAME_HEADER + len {
        return None;
    }
    let mut message = buffered.split_to(FRAME_HEADER + len);
    message.advance(FRAME_HEADER);
    Some(message)
}

fn append(body: &mut BytesMut, chunk: Bytes) {
    if body.is_empty() {
        // The usual response is a single DATA frame with a unique owner: use it without copying.
        *body = chunk
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    } else {
        body.extend_from_slice(&chunk);
    }
}

fn decode<R: Message + Default>(message: Bytes) -> Result<R, CallError> {
    R::decode(message).map_err(|error| CallError::Unexpected(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::model::{listen, target_at};
    use retcd_proto::etcdserverpb::PutRequest;

    fn put() -> PutRequest {
        PutRequest {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"v"),
            ..PutRequest::default()
        }
    }

    #[test]
    fn a_frame_comes_apart_again_at_every_cut() {
        let whole = [frame(&put()), frame(&put())].concat();
        for cut in 0..whole.len() {
            let mut first = Bytes::copy_from_slice(&whole[..cut]);
            let mut messages = 0;
            while let Some(message) = split_message(&mut first) {
                assert_eq!(decode::<PutRequest>(message).unwrap(), put());
                messages += 1;
            }
            let mut rest: Bytes = [&first[..], &whole[cut..]].concat().into();
            while let Some(message) = split_message(&mut rest) {
                assert_eq!(decode::<PutRequest>(message).unwrap(), put());
                messages += 1;
            }
            assert_eq!((messages, rest.len()), (2, 0), "cut at {cut}");
        }
    }

    /// Answers one call with `size` bytes as far as the client's windows allow; returns after which
    /// time each part was sent, and how much of the body with it.
    async fn send_within_windows(
        listener: tokio::net::TcpListener,
        size: usize,
    ) -> Vec<(Duration, usize)> {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut body = respond
            .send_response(http::Response::new(()), false)
            .unwrap();
        let began = Instant::now();
        let sending = async move {
            let (mut sent, mut log) = (0, Vec::new());
            while sent < size {
                body.reserve_capacity(size - sent);
                let granted = poll_fn(|context| body.poll_capacity(context)).await;
                let granted = granted.unwrap().unwrap();
                sent += granted;
                log.push((began.elapsed(), sent));
                body.send_data(vec![0; granted].into(), false).unwrap();
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            body.send_trailers(trailers).unwrap();
            log
        };
        // The connection moves on only while it is polled; it ends when the client has left it.
        let sending = tokio::spawn(sending);
        while connection.accept().await.is_some() {}
        sending.await.unwrap()
    }

    #[test]
    fn a_slow_reader_holds_the_server_back() {
        const SIZE: usize = 300 << 10;
        const RATE: usize = 2 << 20;
        let (listener, address) = listen();
        let sent = crate::load::runtime().unwrap().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let server = tokio::spawn(send_within_windows(listener, SIZE));
            let connection = Connection::open_slow(&target_at(&[address]), 0).await;
            let connection = connection.unwrap();
            let rate = ReadRate::parse("2").unwrap();
            let mut method = connection.method("/a/b").at(Some(rate));
            let len = method.call_for_len(&put()).await.unwrap();
            assert_eq!(len, SIZE - FRAME_HEADER);
            drop((method, connection));
            server.await.unwrap()
        });
        for (after, sent) in sent {
            // What a reader may make up for comes on top of the window.
            let taken = (after.as_secs_f64() + 0.01) * RATE as f64;
            let most = SLOW_STREAM_WINDOW as usize + taken as usize;
            assert!(sent <= most, "{sent} bytes after {after:?}, at most {most}");
        }
    }

    #[test]
    fn status_texts_are_decoded() {
        for (encoded, text) in [
            ("", ""),
            ("a%20b%3A", "a b:"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%c3%a9", "é"),
        ] {
            assert_eq!(percent_decoded(encoded), text);
        }
    }

    #[test]
    fn a_status_other_than_ok_is_an_error_with_its_text() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", "8".parse().unwrap());
        headers.insert(
            "grpc-message",
            "etcdserver: too many requests".parse().unwrap(),
        );
        assert_eq!(
            check_status(&headers).unwrap_err().to_string(),
            "the server answered with gRPC code 8: etcdserver: too many requests"
        );
        headers.insert("grpc-status", "0".parse().unwrap());
        assert!(check_status(&headers).is_ok());
        assert!(check_status(&HeaderMap::new()).is_err());
    }
}
