//! One HTTP exchange with one endpoint.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use retcd_client::{DialError, Dialer, tls_error};
use tokio::time;

use super::endpoint::Target;
use crate::go::json;

/// How many redirects are followed.
const REDIRECTS_MAX: usize = 10;
/// The ticks of tokio's timer.
const TICK: Duration = Duration::from_millis(1);
/// How long it may take until there is a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer. A listing of the largest store that a member can serve is below that.
const BODY_BYTES_MAX: usize = 2 << 30;

/// What Go, since etcd 3.3 was built, puts before the reason why a certificate is refused.
const VERIFICATION: &str = "tls: failed to verify certificate: ";

/// What is asked of an endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Action {
    /// The method.
    pub(super) method: Method,
    /// The path behind the endpoint's, escaped.
    pub(super) path: String,
    /// The parameters in the query, sorted by name. `None` where the request has none, so that the
    /// endpoint's query stays as it is.
    pub(super) parameters: Option<Vec<(&'static str, String)>>,
    /// The body and its type.
    pub(super) body: Option<(&'static str, Vec<u8>)>,
}

impl Action {
    /// A request without body.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Action {
        Action {
            method,
            path: path.into(),
            parameters: None,
            body: None,
        }
    }

    /// The same request with parameters in the query.
    pub(super) fn query(self, parameters: Vec<(&'static str, String)>) -> Action {
        Action {
            parameters: Some(parameters),
            ..self
        }
    }

    /// The same request with a JSON body.
    pub(super) fn json(self, body: String) -> Action {
        Action {
            body: Some(("application/json", body.into_bytes())),
            ..self
        }
    }

    /// The same request with a form.
    pub(super) fn form(self, form: String) -> Action {
        let content_type = "application/x-www-form-urlencoded";
        Action {
            body: Some((content_type, form.into_bytes())),
            ..self
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(super) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

/// Why an endpoint gave no answer. The texts are those of etcd's client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AttemptError {
    /// It cannot be reached, or the connection broke.
    #[error("{0}")]
    Connection(String),
    /// It took too long.
    #[error("client: endpoint {0} exceeded header timeout")]
    HeaderTimeout(String),
    /// The member has no leader.
    #[error("client: etcd member {0} has no leader")]
    NoLeader(String),
    /// The member failed.
    #[error("client: etcd member {0} returns server error [{1}]")]
    Server(String, String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Exchanges requests with endpoints, a connection for each request.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    dialer: Dialer,
    /// How long an endpoint may take until it answers; zero for any time.
    header_timeout: Duration,
    /// How long it may take until there is a connection.
    dial_timeout: Duration,
    /// The value of the header `Authorization`.
    authorization: Option<String>,
    /// Whether requests are shown as cURL commands.
    shows_requests: bool,
}

impl Http {
    /// Exchanges requests; `credentials` are a name and a password.
    pub(crate) fn new(
        dialer: Dialer,
        header_timeout: Duration,
        credentials: Option<&(String, String)>,
        shows_requests: bool,
    ) -> Http {
        Http {
            dialer,
            header_timeout,
            dial_timeout: DIAL_TIMEOUT,
            authorization: credentials.map(|(name, password)| basic(name, password)),
            shows_requests,
        }
    }

    /// The same, but endpoints may take `header_timeout` until they answer.
    pub(super) fn with_header_timeout(&self, header_timeout: Duration) -> Http {
        Http {
            header_timeout,
            ..self.clone()
        }
    }

    /// The same, but `limit` is for connections, too, if it is shorter than what they have.
    pub(super) fn with_dial_timeout(self, limit: Duration) -> Http {
        Http {
            dial_timeout: self.dial_timeout.min(limit),
            ..self
        }
    }

    /// Sends a request and follows redirects. An answer that says that the member failed is an
    /// error.
    ///
    /// # Errors
    /// As [`AttemptError`].
    pub(super) async fn ask(
        &self,
        endpoint: &str,
        action: &Action,
    ) -> Result<Answer, AttemptError> {
        let mut endpoint = endpoint.to_owned();
        let mut action = action.clone();
        for _ in 0..REDIRECTS_MAX {
            if self.shows_requests {
                super::debug::show_request(&endpoint, &action);
            }
            let answer = self.exchange(&endpoint, &action).await?;
            if !answer.status.is_redirection() {
                return check_status(&endpoint, answer);
            }
            let location = answer.headers.get(LOCATION);
            let location = location.ok_or_else(|| other("Location header not set"))?;
            let location = String::from_utf8_lossy(location.as_bytes());
            (endpoint, action.path) = redirect(&endpoint, &location)
                .ok_or_else(|| other(&format!("Location header not valid URL: {location}")))?;
            action.parameters = None;
        }
        Err(other("client: too many redirects"))
    }

    /// Sends a request and returns whatever is answered.
    ///
    /// # Errors
    /// The endpoint cannot be reached, or does not answer as HTTP servers do.
    pub(crate) async fn exchange(
        &self,
        endpoint: &str,
        action: &Action,
    ) -> Result<Answer, AttemptError> {
        let target = Target::of(endpoint, action);
        let request = self.request(&target, action)?;
        let sending = self.send(&target, request);
        let response = match self.header_timeout {
            Duration::ZERO => sending.await?,
            limit => {
                let sent = within(limit, sending).await;
                sent.ok_or_else(|| AttemptError::HeaderTimeout(endpoint.to_owned()))??
            }
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| match error.downcast_ref::<hyper::Error>() {
            Some(error) => broken(error),
            None => other(&error.to_string()),
        })?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }

    fn request(
        &self,
        target: &Target,
        action: &Action,
    ) -> Result<Request<Full<Bytes>>, AttemptError> {
        let mut request = Request::builder()
            .method(action.method.clone())
            .uri(target.path.as_str())
            .header(HOST, target.authority());
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let mut content = Bytes::new();
        if let Some((content_type, body)) = &action.body {
            content = Bytes::from(body.clone());
            request = request.header(CONTENT_TYPE, *content_type);
        }
        if action.method != Method::GET {
            request = request.header(CONTENT_LENGTH, content.len());
        }
        let request = request.body(Full::new(content));
        request.map_err(|error| other(&format!("parse {:?}: {error}", target.url())))
    }

    async fn send(
        &self,
        target: &Target,
        request: Request<Full<Bytes>>,
    ) -> Result<http::Response<hyper::body::Incoming>, AttemptError> {
        if let Err(scheme) = target.check_scheme() {
            return Err(other(&format!("unsupported protocol scheme {scheme:?}")));
        }
        if target.authority().is_empty() {
            return Err(other("http: no Host in request URL"));
        }
        let dialed = within(self.dial_timeout, self.dialer.dial(&target.base)).await;
        let dialed = dialed.ok_or_else(|| {
            let address = target.authority();
            AttemptError::Connection(format!("dial tcp {address}: i/o timeout"))
        })?;
        let stream = dialed.map_err(|error| match error {
            DialError::Unreachable(text) => AttemptError::Connection(text),
            DialError::Handshake(text) => other(text.trim_start_matches(VERIFICATION)),
        })?;
        let connected = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connected.map_err(|error| broken(&error))?;
        // It ends with the answer, or with the process.
        tokio::spawn(connection);
        let sent = sender.send_request(request).await;
        sent.map_err(|error| broken(&error))
    }
}

/// The result of `work`, unless it takes longer than `limit`. What has less than a tick of the timer
/// is not begun: no exchange is that fast, but its result would still be taken.
pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    match limit < TICK {
        true => None,
        false => time::timeout(limit, work).await.ok(),
    }
}

fn other(text: &str) -> AttemptError {
    AttemptError::Other(text.to_owned())
}

/// A connection on which there is no whole answer.
fn broken(error: &hyper::Error) -> AttemptError {
    let cause = std::error::Error::source(error);
    if let Some(io) = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>()) {
        if io.raw_os_error().is_some() {
            let reason = retcd_log::go_io_error(io);
            return AttemptError::Connection(format!("read tcp: read: {reason}"));
        }
        // With TLS 1.3, a member refuses a certificate after the handshake.
        if let Some(reason) = tls_error(io) {
            return AttemptError::Other(reason);
        }
    }
    if error.is_parse() {
        return AttemptError::Other(format!("malformed HTTP response: {error}"));
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return AttemptError::Other("EOF".to_owned());
    }
    AttemptError::Other(error.to_string())
}

/// What a status says of the member itself.
fn check_status(endpoint: &str, answer: Answer) -> Result<Answer, AttemptError> {
    match answer.status.as_u16() {
        500 | 503 => Err(AttemptError::NoLeader(endpoint.to_owned())),
        501..=599 => {
            let reason = answer.status.canonical_reason().unwrap_or_default();
            Err(AttemptError::Server(endpoint.to_owned(), reason.to_owned()))
        }
        _ => Ok(answer),
    }
}

/// The endpoint and the path of a location. A relative one stays at the endpoint, although etcd's
/// client refuses it.
fn redirect(endpoint: &str, location: &str) -> Option<(String, String)> {
    if location.starts_with('/') {
        let here = Target::of(endpoint, &Action::new(Method::GET, ""));
        return Some((here.base, location.to_owned()));
    }
    let uri: http::Uri = location.parse().ok()?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Some((
        format!("{}://{}", uri.scheme_str()?, uri.authority()?),
        path.to_owned(),
    ))
}

fn basic(name: &str, password: &str) -> String {
    let mut encoded = String::new();
    json::bytes(&mut encoded, format!("{name}:{password}").as_bytes());
    // Base64 needs no escapes in JSON, only quotes.
    format!("Basic {}", encoded.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_time_is_not_enough_even_for_what_is_there() {
        assert_eq!(within(Duration::from_nanos(1), async {}).await, None);
        assert_eq!(within(Duration::from_secs(1), async {}).await, Some(()));
    }

    #[test]
    fn redirects_lead_to_an_endpoint_and_a_path() {
        let check = |location: &str, to: Option<(&str, &str)>| {
            let to = to.map(|(endpoint, path)| (endpoint.to_owned(), path.to_owned()));
            assert_eq!(redirect("https://a:1/x", location), to);
        };
        check(
            "http://b:2/v2/keys?a=b",
            Some(("http://b:2", "/v2/keys?a=b")),
        );
        check("/v2/keys", Some(("https://a:1", "/v2/keys")));
        check("http://[::1", None);
        check("b", None);
    }

    #[test]
    fn credentials_are_base64() {
        assert_eq!(basic("u1", "p1"), "Basic dTE6cDE=");
    }
}
