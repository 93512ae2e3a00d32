//! API v2 over HTTP, as etcd 3.3 serves it to clients.
//!
//! ```text
//! client ──► access (Host, CORS, OPTIONS) ──► route ──► keys ───► parameters ──► member::v2
//!                                                │        └─────► watch
//!                                                ├────► members, machines, stats
//!                                                └────► users, roles, enable ──► member::v2::Auth
//! ```
//!
//! - [`route`]: where a path leads. [`form`]: parameters in query and body, as Go reads them;
//!   [`parameters`]: what they mean for keys. [`json`]: events and nodes.
//! - [`keys`], [`watch`], [`members`], [`stats`]: a page each. [`auth`]: the pages about users and
//!   roles; `document`: the JSON in their requests.
//! - [`credentials`]: who asks. [`reply`]: the two forms of errors.
//!
//! What requests mean, and who may make them, is for crate `member` to say. A watch costs a boxed
//! stream that hyper polls when its connection can write: no task, and no buffer but the watcher's
//! own queue.
//!
//! API v2 knows nothing of the users of API v3. As soon as these are on, it is refused, unless
//! `--enable-v2` says otherwise.

mod auth;
mod credentials;
mod document;
mod form;
mod json;
mod keys;
mod members;
mod parameters;
mod reply;
mod route;
mod stats;
mod watch;

use std::rc::Rc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use retcd_state::v2::{Code, Error};

use crate::budget::Outstanding;
use crate::config::value::EnableV2;
use crate::http::Access;
use crate::net_http;
use crate::server::ServerThread;
use reply::{Response, page};
use route::Route;

/// Why nobody is served.
const V3_AUTH: &str = "authentication of API v3 is on, which API v2 does not know: \
                       --enable-v2=true serves API v2 all the same, to everybody";

/// A request under way.
struct Context<'a> {
    thread: &'a Rc<ServerThread>,
    /// What its connection holds of the budget for answers.
    connection: &'a Outstanding,
    head: &'a Request<()>,
    body: &'a mut Incoming,
}

impl Context<'_> {
    fn method(&self) -> &Method {
        self.head.method()
    }

    fn query(&self) -> &str {
        self.head.uri().query().unwrap_or_default()
    }
}

/// Whether a request to this member is one of API v2.
pub(crate) fn takes(thread: &ServerThread, request: &Request<()>) -> bool {
    thread.server.config.enable_v2 != EnableV2::Off && route::is_of_v2(request.uri())
}

/// Answers a request that [`takes`] takes, of a listener with `tls` or without. What of the body is
/// not needed is left in it.
pub(crate) async fn handle(
    thread: &Rc<ServerThread>,
    access: &Access,
    tls: bool,
    connection: &Outstanding,
    head: &Request<()>,
    body: &mut Incoming,
) -> Response {
    let context = Context {
        thread,
        connection,
        head,
        body,
    };
    access.guard(tls, head, || serve(context)).await
}

async fn serve(context: Context<'_>) -> Response {
    let route = match route::route(context.head.uri()) {
        Route::Redirect(location) => {
            return page(net_http::reply::moved(context.method(), &location));
        }
        Route::NotFound => return page(net_http::reply::not_found()),
        route => route,
    };
    let config = &context.thread.server.config;
    let is_refused =
        config.enable_v2 == EnableV2::Unset && context.thread.member.access.is_enabled();
    if is_refused {
        return match route {
            Route::Keys(_) => reply::key_error(
                context.thread,
                &Error {
                    code: Code::Unauthorized,
                    cause: V3_AUTH.to_owned(),
                    index: 0,
                },
            ),
            _ => reply::message(StatusCode::UNAUTHORIZED, V3_AUTH),
        };
    }
    match route {
        Route::Keys(key) => keys::keys(context, &key).await,
        Route::Machines => members::machines(&context),
        Route::Members(rest) => members::members(context, &rest).await,
        Route::Stats(of) => stats::stats(&context, of),
        Route::Enable => auth::enable(&context).await,
        Route::Users(name) => auth::users(context, name).await,
        Route::Roles(name) => auth::roles(context, name).await,
        Route::InvalidName => reply::message(StatusCode::BAD_REQUEST, "Invalid path"),
        Route::Redirect(_) | Route::NotFound => unreachable!("answered above"),
    }
}
