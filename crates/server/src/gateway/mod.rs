//! The JSON gateway: the API as JSON over HTTP, under `/v3/`, as etcd's gRPC gateway serves it.
//!
//! ```text
//! client ──► access (Host, CORS, OPTIONS) ──► route ──► request ──► grpc::call_messages
//!                                               │  JSON ─▶ wire        │
//!                                                                         ▼
//!                        answer ◀── reply ◀── transcode, wire ─▶ JSON ◀── grpc::Reply
//! ```
//!
//! A request is one call of a gRPC method, so that whatever holds for calls holds here: admission,
//! users, limits, metrics, the budget for answers. JSON is made of the frames that gRPC would send,
//! piece by piece as the connection takes them.
//!
//! - [`route`]: which method a path is. [`metadata`]: what headers become.
//! - [`request`]: messages in bodies; [`transcode`]: frames to JSON; [`reply`]: answers and errors.
//!
//! Unlike etcd's, the gateway has no connection to the member that it is a part of, and a client's
//! certificate means nothing here.

mod metadata;
mod reply;
mod request;
mod route;
mod transcode;

use std::rc::Rc;

use http::{Method as Verb, Request};
use hyper::body::Incoming;
use retcd_proto::json;
use tokio::time::Instant;

use crate::auth::{CommonName, credentials_of};
use crate::budget::Outstanding;
use crate::grpc::wire::ResponseBody;
use crate::grpc::{self, Call, Reply};
use crate::http::Access;
use crate::metrics::{CallKind, Method};
use crate::net_http;
use crate::server::ServerThread;
use crate::status::Status;
use metadata::Metadata;
use reply::Response;
use route::Route;

/// Whether a request to this member is the gateway's.
pub(crate) fn takes(thread: &ServerThread, request: &Request<()>) -> bool {
    thread.server.config.enable_grpc_gateway && route::is_of_gateway(request.uri())
}

/// A request under way.
struct Context<'a> {
    thread: &'a Rc<ServerThread>,
    /// What its connection holds of the budget.
    connection: &'a Outstanding,
    head: &'a Request<()>,
    /// Taken by those who read it.
    body: &'a mut Option<Incoming>,
}

/// Answers a request that [`takes`] takes, of a listener with `tls` or without. A body that is not
/// needed is left.
pub(crate) async fn handle(
    thread: &Rc<ServerThread>,
    access: &Access,
    tls: bool,
    connection: &Outstanding,
    head: &Request<()>,
    body: &mut Option<Incoming>,
) -> Response {
    if is_named_by_certificate(thread, head) {
        return reply::certificate_ignored();
    }
    let context = Context {
        thread,
        connection,
        head,
        body,
    };
    access.guard(tls, head, || serve(context)).await
}

/// Whether the client might think that it is the user whom its certificate names.
fn is_named_by_certificate(thread: &ServerThread, head: &Request<()>) -> bool {
    let name = head.extensions().get::<CommonName>();
    name.is_some_and(|CommonName(name)| !name.is_empty()) && thread.member.access.is_enabled()
}

async fn serve(context: Context<'_>) -> Response {
    let method = match route::route(context.head.uri()) {
        Route::Redirect(location) => {
            let response = net_http::reply::moved(context.head.method(), &location);
            return response.map(ResponseBody::Page);
        }
        Route::NotFound => return reply::error(&reply::NOT_FOUND),
        Route::Method(_) if context.head.method() != Verb::POST => {
            return reply::error(&reply::METHOD_NOT_ALLOWED);
        }
        Route::Method(method) => method,
    };
    match Exchange::new(&context, method) {
        Ok(exchange) => exchange.answer(context.body).await,
        Err(status) => reply::error(&status),
    }
}

/// A call by JSON.
struct Exchange {
    thread: Rc<ServerThread>,
    connection: Outstanding,
    method: Method,
    schemas: json::Method,
    metadata: Metadata,
    /// When the client no longer waits.
    deadline: Option<Instant>,
    /// Whether the answer may have trailers, and so has no length.
    trailers: bool,
}

impl Exchange {
    fn new(context: &Context<'_>, method: Method) -> Result<Exchange, Status> {
        let headers = context.head.headers();
        let metadata = Metadata::of(headers)?;
        let path = format!("/{}/{}", method.service(), method.name());
        Ok(Exchange {
            thread: Rc::clone(context.thread),
            connection: context.connection.clone(),
            method,
            schemas: json::Method::of_path(&path).expect("the schemas have every method"),
            deadline: metadata.timeout.map(|timeout| Instant::now() + timeout),
            metadata,
            trailers: metadata::accepts_trailers(headers),
        })
    }

    async fn answer(self, body: &mut Option<Incoming>) -> Response {
        let messages = match self.method.kind() {
            CallKind::BidiStream => {
                let chunks = request::chunks(body.take());
                request::messages(Rc::clone(&self.thread), self.schemas.request, chunks)
            }
            _ => match request::only(&self.thread, self.schemas.request, body.take()).await {
                Ok(message) => request::once(message),
                Err(status) => return reply::error(&status),
            },
        };
        let reply = self.call(messages).await;
        match self.method.kind() {
            CallKind::Unary => reply::unary(reply, self.schemas.response, self.trailers),
            _ => reply::stream(reply, self.schemas.response, self.deadline).await,
        }
    }

    async fn call(&self, messages: request::Messages) -> Reply {
        let now = Instant::now();
        let left = self
            .deadline
            .map(|deadline| deadline.saturating_duration_since(now));
        let headers = self.metadata.headers.clone();
        let call = Call {
            thread: Rc::clone(&self.thread),
            connection: self.connection.clone(),
            method: self.method,
            credentials: credentials_of(&headers, &http::Extensions::new()),
            headers,
            timeout: left,
        };
        grpc::call_messages(call, messages).await
    }
}
