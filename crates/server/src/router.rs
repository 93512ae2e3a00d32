//! One port, two protocols: gRPC by its content type, everything else is plain HTTP.

use std::rc::Rc;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

use crate::grpc;
use crate::grpc::wire::ResponseBody;
use crate::http::{self, HttpContext};
use crate::runtime::{Local, LocalProbe, Protocols};

/// Answers one request.
pub async fn route(
    local: Rc<Local>,
    http: Rc<HttpContext<LocalProbe>>,
    protocols: Protocols,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    if protocols.grpc && grpc::is_grpc(&request) {
        return grpc::call(local, request).await;
    }
    match protocols.pages {
        Some(pages) => http::handle(&http, pages, &request)
            .await
            .map(ResponseBody::Page),
        None => {
            let mut response = Response::new(ResponseBody::Empty);
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            response
        }
    }
}
