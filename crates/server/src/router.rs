//! One port, two protocols: gRPC by its content type, everything else is plain HTTP.

use std::rc::Rc;

use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::grpc;
use crate::grpc::wire::ResponseBody;
use crate::http::{self, ListenerKind};
use crate::runtime::Local;

/// Answers one request.
pub async fn route(local: Rc<Local>, listener: ListenerKind, request: Request<Incoming>) -> Response<ResponseBody> {
    if listener.serves_grpc() && grpc::is_grpc(&request) {
        return grpc::call(local, request).await;
    }
    let response = http::handle(&local.http, listener, request).await;
    response.map(|body| ResponseBody::Full(Some(body)))
}
