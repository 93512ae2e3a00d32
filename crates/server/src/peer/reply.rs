//! Replies to raft's requests, in the shapes of Go's `net/http`.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;

use super::body::PeerBody;
use crate::net_http::reply;

/// What a member reports when the cluster says that it was removed.
pub(super) const REMOVED_MEMBER: &str = "the member has been permanently removed from the cluster";

/// 200 with text.
pub(super) fn text(text: impl Into<Bytes>) -> Response<PeerBody> {
    reply::ok(reply::TEXT, text).map(PeerBody::from)
}

/// An error: the text and a newline.
pub(super) fn error(status: StatusCode, message: &str) -> Response<PeerBody> {
    reply::error(status, message).map(PeerBody::from)
}

/// 405, with the method that is allowed.
pub(super) fn method_not_allowed(allowed: &Method) -> Response<PeerBody> {
    reply::method_not_allowed(allowed).map(PeerBody::from)
}

/// 204.
pub(super) fn no_content() -> Response<PeerBody> {
    let mut response = Response::new(Full::default().into());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Has the connection end with this answer.
pub(super) fn close(response: &mut Response<PeerBody>) {
    let close = HeaderValue::from_static("close");
    response
        .headers_mut()
        .insert(http::header::CONNECTION, close);
}
