//! One port, two protocols: gRPC by its content type, everything else is plain HTTP.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response, StatusCode};

use crate::accept::Protocols;
use crate::grpc;
use crate::grpc::outstanding::Outstanding;
use crate::grpc::wire::ResponseBody;
use crate::http::{self, HttpContext};
use crate::runtime::{Local, LocalProbe};

/// Bytes and time for a body that no page reads.
const UNREAD_BYTES_MAX: usize = 32 << 20;
const UNREAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Answers one request that came over `connection`.
pub async fn route(
    local: Rc<Local>,
    http: Rc<HttpContext<LocalProbe>>,
    protocols: Protocols,
    connection: Outstanding,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    if protocols.grpc && grpc::is_grpc(&request) {
        return grpc::call(local, connection, request).await;
    }
    let (head, body) = request.into_parts();
    let response = match protocols.pages {
        Some(pages) => {
            let head = Request::from_parts(head, ());
            // Apart, since hyper moves what it is given several times.
            let handled = Box::pin(http::handle(&http, pages, &head));
            handled.await.map(ResponseBody::Page)
        }
        None => {
            let mut response = Response::new(ResponseBody::Empty);
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            response
        }
    };
    if !body.is_end_stream() {
        // It runs when the answer is on its way.
        tokio::task::spawn_local(let_go(body));
    }
    response
}

/// Takes the body of a request that nobody reads, within bounds, so that the answer gets through.
///
/// A body that is dropped at once resets its stream (HTTP/2) or connection (HTTP/1.1), and a client such as curl that was
/// still sending then takes the answer for lost, though it is whole.
async fn let_go(mut body: Incoming) {
    let drain = async {
        let mut bytes = 0;
        while bytes < UNREAD_BYTES_MAX {
            match body.frame().await {
                Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) | None => return,
            }
        }
    };
    // Whoever sends more, or dawdles, is cut off behind the answer.
    let _ = tokio::time::timeout(UNREAD_TIME_MAX, drain).await;
}
