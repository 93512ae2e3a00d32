//! Answers of API v2: errors about keys have a code, others a text.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::Full;
use retcd_member::Error;
use retcd_state::v2::{self, Code};

use super::json;
use crate::grpc::wire::ResponseBody;
use crate::net_http;
use crate::server::ServerThread;
use crate::status::text;

pub(super) type Response = http::Response<ResponseBody>;

pub(super) const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
pub(super) const ETCD_INDEX: HeaderName = HeaderName::from_static("x-etcd-index");
pub(super) const RAFT_INDEX: HeaderName = HeaderName::from_static("x-raft-index");
pub(super) const RAFT_TERM: HeaderName = HeaderName::from_static("x-raft-term");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer of the pages that are not API v2's alone.
pub(super) fn page(response: net_http::Response) -> Response {
    response.map(ResponseBody::Page)
}

/// JSON.
pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = http::Response::new(ResponseBody::Page(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Adds the cluster's id.
pub(super) fn with_cluster(thread: &ServerThread, mut response: Response) -> Response {
    let id = format!("{:x}", thread.server.member.cluster_id);
    let id = HeaderValue::from_str(&id).expect("hexadecimal digits");
    response.headers_mut().insert(CLUSTER_ID, id);
    response
}

/// A request about keys that failed.
pub(super) fn key_error(thread: &ServerThread, error: &v2::Error) -> Response {
    let mut body = Vec::new();
    json::error(&mut body, error);
    let mut response = json(status(error.code), body);
    let headers = response.headers_mut();
    headers.insert(ETCD_INDEX, HeaderValue::from(error.index));
    with_cluster(thread, response)
}

/// A request about keys that has no answer.
pub(super) fn key_failure(thread: &ServerThread, error: Error) -> Response {
    // What the client has sent will not fit the next time either.
    let code = match error {
        Error::RequestTooLarge => Code::InvalidForm,
        _ => Code::Raft,
    };
    let error = v2::Error {
        code,
        cause: text(error),
        index: 0,
    };
    key_error(thread, &error)
}

/// An error in a text.
pub(super) fn message(status: StatusCode, text: &str) -> Response {
    let mut body = b"{\"message\":".to_vec();
    json::string(&mut body, text);
    body.push(b'}');
    json(status, body)
}

/// Whoever asks is nobody who may.
pub(super) fn unauthorized() -> Response {
    message(StatusCode::UNAUTHORIZED, "Insufficient credentials")
}

/// The tree or the member has failed; the log has the reason.
pub(super) fn failure(error: &Error) -> Response {
    crate::warn!("got unexpected response error"; "error" => text(error.clone()));
    message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
}

/// None, if the method is one of `allowed`.
pub(super) fn refuse_method(method: &Method, allowed: &'static [&'static str]) -> Option<Response> {
    if allowed.contains(&method.as_str()) {
        return None;
    }
    let mut response = method_not_allowed();
    let allowed = HeaderValue::from_str(&allowed.join(",")).expect("methods are tokens");
    response.headers_mut().insert(ALLOW, allowed);
    Some(response)
}

/// Without a word on what is.
pub(super) fn method_not_allowed() -> Response {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    page(net_http::reply::error(status, "Method Not Allowed"))
}

/// The status of an error about keys.
fn status(code: Code) -> StatusCode {
    match code {
        Code::KeyNotFound => StatusCode::NOT_FOUND,
        Code::CompareFailed | Code::NodeExists => StatusCode::PRECONDITION_FAILED,
        Code::NotFile | Code::DirectoryNotEmpty => StatusCode::FORBIDDEN,
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::Raft | Code::LeaderElection => StatusCode::INTERNAL_SERVER_ERROR,
        Code::NotDirectory
        | Code::RootReadOnly
        | Code::PreviousValueRequired
        | Code::TtlNotNumber
        | Code::IndexNotNumber
        | Code::InvalidField
        | Code::InvalidForm
        | Code::RefreshWithValue
        | Code::RefreshWithoutTtl
        | Code::WatcherCleared
        | Code::EventIndexCleared => StatusCode::BAD_REQUEST,
    }
}
