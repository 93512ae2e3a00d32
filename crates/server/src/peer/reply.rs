//! Answers to peers in the shapes of Go's `net/http`.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::body::PeerBody;

/// What a member reports when the cluster says that it was removed.
pub(super) const REMOVED_MEMBER: &str = "the member has been permanently removed from the cluster";

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A status with a body of text.
pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<PeerBody> {
    let mut response = Response::new(Full::new(text.into()).into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

/// An error: the text and a newline.
pub(super) fn error(status: StatusCode, message: &str) -> Response<PeerBody> {
    let mut response = text(status, format!("{message}\n"));
    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// 405, with the method that is allowed.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response<PeerBody> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(ALLOW, allowed);
    response
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
