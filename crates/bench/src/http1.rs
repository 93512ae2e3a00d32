//! A client of API v2 for load generation: one request at a time on one HTTP/1.1 connection.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::Authority;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::error::CallError;
use crate::target::Target;

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
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Writes the node at `key`; `form` has the parameters. Returns the body of the answer.
    ///
    /// # Errors
    /// As [`Http1::get`].
    pub(crate) async fn put(&mut self, key: &str, form: Bytes) -> Result<Bytes, CallError> {
        self.call(Method::PUT, format!("/v2/keys{key}"), form).await
    }

    async fn call(
        &mut self,
        method: Method,
        path: String,
        form: Bytes,
    ) -> Result<Bytes, CallError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.authority.as_str())
            .header(USER_AGENT, "retcd-bench")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(form))
            .map_err(|error| CallError::Unexpected(error.to_string()))?;
        self.requests.ready().await?;
        let reply = self.requests.send_request(request).await?;
        let status = reply.status();
        let body = reply.into_body().collect().await?.to_bytes();
        match status.is_success() {
            true => Ok(body),
            false => Err(CallError::HttpStatus {
                status: status.as_u16(),
                text: String::from_utf8_lossy(&body).trim_end().to_owned(),
            }),
        }
    }
}
