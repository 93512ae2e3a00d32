//! Routes the requests of a client listener: gRPC by its content type, API v2 and the JSON gateway by
//! their paths, the rest to the pages.

use std::future::ready;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response, StatusCode};

use crate::accept::Protocols;
use crate::budget::{AnswerBudget, Outstanding};
use crate::gateway;
use crate::grpc;
use crate::grpc::wire::ResponseBody;
use crate::http::{self, HttpContext, ListenerKind};
use crate::probe::LocalProbe;
use crate::runtime::{BoxError, Front};
use crate::server::ServerThread;
use crate::v2;

/// Limits for reading a body that no page has read.
const UNREAD_BYTES_MAX: usize = 32 << 20;
const UNREAD_TIME_MAX: Duration = Duration::from_secs(5);

/// A member, as what answers the requests of a thread's connections.
pub(crate) struct MemberFront {
    pub(crate) thread: Rc<ServerThread>,
    pub(crate) http: Rc<HttpContext<LocalProbe>>,
}

impl Front for MemberFront {
    fn answer(
        self: Rc<Self>,
        protocols: Protocols,
        connection: Outstanding,
        remote: Option<SocketAddr>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody>> + 'static {
        let (thread, http) = (Rc::clone(&self.thread), Rc::clone(&self.http));
        let client = Client { connection, remote };
        route(thread, http, protocols, client, request)
    }

    fn connection_failed(&self, remote: Option<SocketAddr>, error: &BoxError) {
        if let Some(recent) = &self.thread.server.recent {
            let remote = remote.map_or_else(String::new, |remote| remote.to_string());
            recent.connection_failed(format!(
                "connection from {remote} failed: {}",
                told(&**error)
            ));
        }
    }

    fn budget(&self) -> &AnswerBudget {
        &self.thread.server.answers
    }

    fn stopped(&self) -> impl Future<Output = ()> {
        self.thread.server.member.signals.stopped()
    }

    fn drain_timeout(&self) -> Duration {
        self.thread.server.member.config.limits.request_timeout
    }
}

/// An error and what it is due to.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// Whoever made a request.
#[derive(Clone)]
pub(crate) struct Client {
    /// What is outstanding on its connection.
    pub(crate) connection: Outstanding,
    /// Its address, unless it is a socket's name.
    pub(crate) remote: Option<SocketAddr>,
}

/// A request being answered. It is small, as hyper moves what it is given several times.
enum Answering {
    Call(grpc::Called),
    Other(LocalBoxFuture<'static, Response<ResponseBody>>),
}

impl Future for Answering {
    type Output = Response<ResponseBody>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<ResponseBody>> {
        match &mut *self {
            Answering::Call(call) => call.as_mut().poll(cx).map(Response::from),
            Answering::Other(answer) => answer.as_mut().poll(cx),
        }
    }
}

/// Answers a request.
fn route(
    thread: Rc<ServerThread>,
    http: Rc<HttpContext<LocalProbe>>,
    protocols: Protocols,
    client: Client,
    request: Request<Incoming>,
) -> Answering {
    if !(protocols.grpc && grpc::is_grpc(&request)) {
        return Answering::Other(Box::pin(answer_http(
            thread, http, protocols, client, request,
        )));
    }
    match grpc::call(thread, client, request) {
        Ok(call) => Answering::Call(call),
        Err(refusal) => Answering::Other(Box::pin(ready(*refusal))),
    }
}

/// Answers a request that is no call over gRPC.
async fn answer_http(
    thread: Rc<ServerThread>,
    http: Rc<HttpContext<LocalProbe>>,
    protocols: Protocols,
    client: Client,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let (head, body) = request.into_parts();
    let (mut head, mut body) = (Request::from_parts(head, ()), Some(body));
    let response = match protocols.pages {
        Some(ListenerKind::Client { tls }) if v2::takes(&thread, &head) => {
            let access = &http.access;
            let body = body.as_mut().expect("nobody has taken it");
            v2::handle(&thread, access, tls, &client.connection, &head, body).await
        }
        Some(ListenerKind::Client { tls }) if gateway::takes(&thread, &head) => {
            let access = &http.access;
            gateway::handle(&thread, access, tls, &client, &mut head, &mut body).await
        }
        Some(pages) => {
            let page = http::handle(&http, pages, &head).await;
            page.map(ResponseBody::Page)
        }
        None => {
            let mut response = Response::new(ResponseBody::Empty);
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            response
        }
    };
    if let Some(body) = body.filter(|body| !body.is_end_stream()) {
        // Begins once the response has been handed to hyper.
        tokio::task::spawn_local(drain(body));
    }
    response
}

/// Reads and discards a body, within limits.
///
/// Dropping the body would reset its stream (HTTP/2) or connection (HTTP/1.1). A client that is
/// still sending, such as curl, then discards the response, although it is complete.
async fn drain(mut body: Incoming) {
    let read_all = async {
        let mut bytes = 0;
        while bytes < UNREAD_BYTES_MAX {
            match body.frame().await {
                Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) | None => return,
            }
        }
    };
    // Beyond the limits the body is dropped, after the response.
    let _ = tokio::time::timeout(UNREAD_TIME_MAX, read_all).await;
}
