//! gRPC by hand, so that it can be wrong.

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::task::Poll;

use bytes::{BufMut, Bytes, BytesMut};
use h2::Reason;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Method, Request};
use prost::Message;

use super::place::Server;

/// One HTTP/2 connection.
pub struct Connection(SendRequest<Bytes>);

/// What came back for a call.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub http_status: u16,
    /// `grpc-status` and `grpc-message`.
    pub grpc: Option<(i32, String)>,
    pub body: Bytes,
}

impl Answer {
    #[track_caller]
    pub fn assert(&self, code: tonic::Code, message: &str) {
        assert_eq!(
            self.grpc,
            Some((code as i32, message.to_owned())),
            "{self:?}"
        );
    }

    #[track_caller]
    pub fn assert_prefix(&self, code: tonic::Code, prefix: &str) {
        let (got, message) = self.grpc.as_ref().expect("the call has a status");
        assert_eq!(*got, code as i32, "{self:?}");
        assert!(
            message.starts_with(prefix),
            "{message:?} does not start with {prefix:?}"
        );
    }
}

pub const PUT: &str = "/etcdserverpb.KV/Put";

/// A call with the headers that every client sends.
pub fn call(path: &str) -> Request<()> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("the parts are valid")
}

/// A call with one more header.
pub fn call_with(path: &str, name: &'static str, value: &[u8]) -> Request<()> {
    let mut request = call(path);
    let value = http::HeaderValue::from_bytes(value).expect("a value that HTTP allows");
    request.headers_mut().insert(name, value);
    request
}

/// A message behind its prefix.
pub fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(message.len()).expect("test messages are small"));
    frame.put_slice(message);
    frame.freeze()
}

pub fn encoded(message: &impl Message) -> Bytes {
    framed(0, &message.encode_to_vec())
}

impl Connection {
    pub async fn open(server: &Server) -> Connection {
        let socket = server.socket();
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::TcpStream::from_std(socket).unwrap();
        assert_eq!(socket.peer_addr().unwrap().ip(), Ipv4Addr::LOCALHOST);
        let (sender, connection) = h2::client::handshake(socket)
            .await
            .expect("the server speaks HTTP/2");
        tokio::spawn(async move {
            // Each call tells what became of it.
            let _ = connection.await;
        });
        Connection(sender)
    }

    /// Sends `request` with `body` and reads what comes back.
    pub async fn send(&self, request: Request<()>, body: Bytes) -> Result<Answer, h2::Error> {
        let mut sender = self.0.clone().ready().await?;
        let (response, mut stream) = sender.send_request(request, false)?;
        stream.send_data(body, true)?;
        read(response).await
    }

    /// Sends `request`, reads what comes back, and only then sends `body`. The reason tells how the
    /// server reset the stream, if it did.
    pub async fn send_late(
        &self,
        request: Request<()>,
        body: Bytes,
    ) -> Result<(Answer, Option<Reason>), h2::Error> {
        let mut sender = self.0.clone().ready().await?;
        let (response, mut stream) = sender.send_request(request, false)?;
        let answer = read(response).await?;
        // It fails if the stream was reset, which is told below.
        let _ = stream.send_data(body, true);
        // What the server had to say about this stream comes before its answer to the next.
        self.send(call(PUT), Bytes::new()).await?;
        let reset = poll_fn(|context| Poll::Ready(stream.poll_reset(context)));
        match reset.await {
            Poll::Ready(reason) => Ok((answer, Some(reason?))),
            Poll::Pending => Ok((answer, None)),
        }
    }
}

async fn read(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut received) = response.await?.into_parts();
    let mut body = BytesMut::new();
    while let Some(chunk) = received.data().await {
        let chunk = chunk?;
        received.flow_control().release_capacity(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    let trailers = received.trailers().await?.unwrap_or_default();
    let grpc = grpc_status(&trailers).or_else(|| grpc_status(&head.headers));
    Ok(Answer {
        http_status: head.status.as_u16(),
        grpc,
        body: body.freeze(),
    })
}

fn grpc_status(headers: &HeaderMap) -> Option<(i32, String)> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let message = headers
        .get("grpc-message")
        .map(|value| value.to_str().expect("ASCII").to_owned());
    Some((code, message.unwrap_or_default()))
}
