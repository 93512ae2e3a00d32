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
//! - [`websocket`]: the same over WebSocket.
//!
//! Unlike etcd's, the gateway has no connection to the member that it is a part of, and a client's
//! certificate means nothing here.

mod metadata;
mod reply;
mod request;
mod route;
mod transcode;
mod websocket;

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Method as Verb, Request};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use retcd_proto::json;
use tokio::time::Instant;

use crate::auth::{CommonName, credentials_of};
use crate::grpc::wire::ResponseBody;
use crate::grpc::{self, Call, Reply};
use crate::http::Access;
use crate::metrics::{CallKind, Method};
use crate::net_http;
use crate::router::Client;
use crate::server::ServerThread;
use crate::status::Status;
use metadata::Metadata;
use reply::Response;
use request::Chunks;
use route::Route;
use websocket::Socket;

/// Whether a request to this member is the gateway's.
pub(crate) fn takes(thread: &ServerThread, request: &Request<()>) -> bool {
    thread.server.config.enable_grpc_gateway && route::is_of_gateway(request.uri())
}

/// A request under way.
struct Context<'a> {
    thread: &'a Rc<ServerThread>,
    client: &'a Client,
    head: &'a Request<()>,
    body: &'a mut Option<Incoming>,
    /// Whether the connection is to become a WebSocket.
    upgrade: Option<OnUpgrade>,
}

/// Answers a request that [`takes`] takes, of a listener with `tls` or without. A body that is not
/// needed is left.
pub(crate) async fn handle(
    thread: &Rc<ServerThread>,
    access: &Access,
    tls: bool,
    client: &Client,
    head: &mut Request<()>,
    body: &mut Option<Incoming>,
) -> Response {
    if is_named_by_certificate(thread, head) {
        return reply::certificate_ignored();
    }
    let upgrade = websocket::is_wanted(head).then(|| hyper::upgrade::on(&mut *head));
    let context = Context {
        thread,
        client,
        head,
        body,
        upgrade,
    };
    access.guard(tls, head, || serve(context)).await
}

/// Whether the client might think that it is the user whom its certificate names.
fn is_named_by_certificate(thread: &ServerThread, head: &Request<()>) -> bool {
    let name = head.extensions().get::<CommonName>();
    name.is_some_and(|CommonName(name)| !name.is_empty()) && thread.member.access.is_enabled()
}

async fn serve(mut context: Context<'_>) -> Response {
    let route = route::route(context.head.uri());
    if let Route::Redirect(location) = route {
        let response = net_http::reply::moved(context.head.method(), &location);
        return response.map(ResponseBody::Page);
    }
    if let Some(upgrade) = context.upgrade.take() {
        return serve_websocket(&context, upgrade, route);
    }
    let exchange = Exchange::new(
        &context,
        route,
        context.head.headers(),
        context.head.method(),
    );
    match exchange {
        Ok(exchange) => exchange.answer(Body::Plain(context.body)).await,
        Err(status) => reply::error(&status),
    }
}

/// Agrees to a WebSocket and has it served. Whatever is wrong with the request is told over it.
fn serve_websocket(context: &Context<'_>, upgrade: OnUpgrade, route: Route) -> Response {
    let accepted = match websocket::accept(context.head) {
        Ok(accepted) => accepted,
        Err(status) => return websocket::refusal(status),
    };
    let headers = websocket::headers(context.head);
    let exchange = Exchange::new(context, route, &headers, &Verb::POST);
    let socket = Socket {
        thread: Rc::clone(context.thread),
        upgrade,
        connection: context.client.connection.clone(),
        permit: context.head.extensions().get().map(Arc::clone),
        message_bytes_max: request::json_bytes_max(context.thread),
    };
    tokio::task::spawn_local(socket.serve(async |chunks| match exchange {
        Ok(exchange) => exchange.answer(Body::Chunks(chunks)).await,
        Err(status) => reply::error(&status),
    }));
    accepted
}

/// What a request's messages are in.
enum Body<'a> {
    /// Taken if it outlives the head of the answer.
    Plain(&'a mut Option<Incoming>),
    /// It ends with the socket alone.
    Chunks(Chunks),
}

/// A call by JSON.
struct Exchange {
    thread: Rc<ServerThread>,
    client: Client,
    method: Method,
    schemas: json::Method,
    metadata: Metadata,
    /// When the client no longer waits.
    deadline: Option<Instant>,
    /// Whether the answer may have trailers, and so has no length.
    trailers: bool,
}

impl Exchange {
    /// The call that a request makes.
    ///
    /// # Errors
    /// It makes none.
    fn new(
        context: &Context<'_>,
        route: Route,
        headers: &HeaderMap,
        verb: &Verb,
    ) -> Result<Exchange, Status> {
        let method = match route {
            Route::Method(method) if *verb == Verb::POST => method,
            Route::Method(_) => return Err(reply::METHOD_NOT_ALLOWED),
            Route::NotFound | Route::Redirect(_) => return Err(reply::NOT_FOUND),
        };
        let metadata = Metadata::of(headers)?;
        let path = format!("/{}/{}", method.service(), method.name());
        Ok(Exchange {
            thread: Rc::clone(context.thread),
            client: context.client.clone(),
            method,
            schemas: json::Method::of_path(&path).expect("the schemas have every method"),
            deadline: metadata.timeout.map(|timeout| Instant::now() + timeout),
            metadata,
            trailers: metadata::accepts_trailers(headers),
        })
    }

    async fn answer(self, body: Body<'_>) -> Response {
        let (thread, schema) = (&self.thread, self.schemas.request);
        let messages = match (self.method.kind(), body) {
            (CallKind::BidiStream, body) => {
                let chunks = match body {
                    Body::Plain(body) => request::chunks(body.take()),
                    Body::Chunks(chunks) => chunks,
                };
                Ok(request::messages(Rc::clone(thread), schema, chunks))
            }
            (_, Body::Plain(body)) => request::only(thread, schema, body).await,
            (_, Body::Chunks(chunks)) => request::first(thread, schema, chunks).await,
        };
        let messages = match messages {
            Ok(messages) => messages,
            Err(status) => return reply::error(&status),
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
            authority: None,
            thread: Rc::clone(&self.thread),
            client: self.client.clone(),
            method: self.method,
            credentials: credentials_of(&headers, &http::Extensions::new()),
            headers,
            timeout: left,
        };
        grpc::call_messages(call, messages).await
    }
}
