//! A client of API v2 and of the JSON gateway for load generation: one request at a time on one
//! HTTP/1.1 connection.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::Authority;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::error::CallError;
use crate::target::Target;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// The parameters of a write. Values are alphanumeric, and need no escapes.
pub(crate) fn form(value: &[u8]) -> Bytes {
    [b"value=", value].concat().into()
}

/// A connection that is kept alive.
pub(crate) struct Http1 {
    requests: SendRequest<Full<Bytes>>,
    authority: Authority,
}

impl Http1 {
    /// Connects to member `at` of `target` (see [`Target::member`]), without TLS, and drives the
    /// connection on the caller's runtime.
    ///
    /// # Errors
    /// [`CallError::Connect`] if the connection fails.
    pub(crate) async fn open(target: &Target, at: usize) -> Result<Self, CallError> {
        let authority = target.member(at).clone();
        let socket = TcpStream::connect(authority.as_str())
            .await
            .and_then(|socket| socket.set_nodelay(true).map(|()| socket))
            .map_err(|source| CallError::Connect {
                endpoint: authority.to_string(),
                source,
            })?;
        let (requests, driver) = http1::handshake(TokioIo::new(socket)).await?;
        // Every call on a broken connection reports its own error.
        tokio::spawn(async move { drop(driver.await) });
        Ok(Self {
            requests,
            authority,
        })
    }

    /// The node at `key`, with `query`; returns the body of the answer.
    ///
    /// # Errors
    /// [`CallError::HttpStatus`] if the status is not 2xx, others if the connection breaks.
    pub(crate) async fn get(&mut self, key: &str, query: &str) -> Result<Bytes, CallError> {
        let path = format!("/v2/keys{key}{query}");
        self.call(Method::GET, path, FORM, Bytes::new()).await
    }

    /// Writes the node at `key`; `form` has the parameters. Returns the body of the answer.
    ///
    /// # Errors
    /// As [`Http1::get`].
    pub(crate) async fn put(&mut self, key: &str, form: Bytes) -> Result<Bytes, CallError> {
        let path = format!("/v2/keys{key}");
        self.call(Method::PUT, path, FORM, form).await
    }

    /// Calls a method of the JSON gateway; returns the body of the answer.
    ///
    /// # Errors
    /// As [`Http1::get`].
    pub(crate) async fn post_json(&mut self, path: &str, json: String) -> Result<Bytes, CallError> {
        self.call(Method::POST, path.to_owned(), JSON, json.into())
            .await
    }

    /// Calls a method of the JSON gateway that answers with a stream; the connection is its own.
    ///
    /// # Errors
    /// As [`Http1::get`].
    pub(crate) async fn stream_json(
        mut self,
        path: &str,
        json: String,
    ) -> Result<Lines, CallError> {
        let reply = self
            .send(Method::POST, path.to_owned(), JSON, json.into())
            .await?;
        Ok(Lines {
            body: reply.into_body(),
            received: BytesMut::new(),
            _requests: self.requests,
        })
    }

    async fn call(
        &mut self,
        method: Method,
        path: String,
        content_type: &str,
        body: Bytes,
    ) -> Result<Bytes, CallError> {
        let reply = self.send(method, path, content_type, body).await?;
        Ok(reply.into_body().collect().await?.to_bytes())
    }

    async fn send(
        &mut self,
        method: Method,
        path: String,
        content_type: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, CallError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.authority.as_str())
            .header(USER_AGENT, "retcd-bench")
            .header(CONTENT_TYPE, content_type)
            .body(Full::new(body))
            .map_err(|error| CallError::Unexpected(error.to_string()))?;
        self.requests.ready().await?;
        let reply = self.requests.send_request(request).await?;
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        let body = reply.into_body().collect().await?.to_bytes();
        Err(CallError::HttpStatus {
            status: status.as_u16(),
            text: String::from_utf8_lossy(&body).trim_end().to_owned(),
        })
    }
}

/// An answer that comes line by line.
pub(crate) struct Lines {
    body: Incoming,
    received: BytesMut,
    /// The connection ends with its last request.
    _requests: SendRequest<Full<Bytes>>,
}

impl Lines {
    /// The next line, with its end.
    ///
    /// # Errors
    /// [`CallError::Unexpected`] if the answer ends, others if the connection breaks.
    pub(crate) async fn next(&mut self) -> Result<Bytes, CallError> {
        let mut searched = 0;
        loop {
            let end = self.received[searched..].iter().position(|b| *b == b'\n');
            if let Some(end) = end {
                return Ok(self.received.split_to(searched + end + 1).freeze());
            }
            searched = self.received.len();
            let Some(frame) = self.body.frame().await else {
                return Err(CallError::Unexpected("the answer has ended".into()));
            };
            if let Ok(data) = frame?.into_data() {
                self.received.extend_from_slice(&data);
            }
        }
    }
}
