//! Replies in the shapes of Go's `net/http`.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::Response;

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// 200 with a body.
pub(crate) fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// 200 with JSON, without a newline at the end.
pub(crate) fn json(value: &impl Serialize) -> Response {
    ok("application/json", to_json(value))
}

pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structs of strings and numbers have a JSON form")
}

/// An answer that a browser must not take for anything but text, without a newline added.
pub(crate) fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = ok(TEXT, body);
    *response.status_mut() = status;
    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// An error: the text and a newline.
pub(crate) fn error(status: StatusCode, text: &str) -> Response {
    plain(status, format!("{text}\n"))
}

/// What Go answers, and then hangs up, where the line of a request is wrong.
pub(crate) fn bad_request() -> Response {
    let mut response = ok(TEXT, "400 Bad Request");
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

pub(crate) fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

pub(crate) fn method_not_allowed(allowed: &Method) -> Response {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    let allowed = HeaderValue::from_str(allowed.as_str()).expect("methods are tokens");
    response.headers_mut().insert(ALLOW, allowed);
    response
}

/// 301. Only `GET` and `HEAD` are told in words.
pub(crate) fn moved(method: &Method, location: &str) -> Response {
    let mut response = match *method {
        Method::GET | Method::HEAD => {
            let link = escape_html(location);
            let body = format!("<a href=\"{link}\">Moved Permanently</a>.\n\n");
            ok("text/html; charset=utf-8", body)
        }
        _ => Response::default(),
    };
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::from_str(&escape_non_ascii(location))
        .expect("a URI holds no control characters, and only ASCII is left of it");
    response.headers_mut().insert(LOCATION, location);
    response
}

fn escape_non_ascii(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii() {
            true => escaped.push(byte.into()),
            false => escaped += &format!("%{byte:02x}"),
        }
    }
    escaped
}

/// `text` where HTML is expected.
pub(crate) fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
