//! What clients see over HTTP beside gRPC: versions, health, metrics.
//!
//! ```text
//! client ──► access (client listeners: Host, CORS, OPTIONS) ──► mux ──► health, vars …
//!                                                                          │
//!                                                                  Probe (the server)
//! ```
//!
//! [`handle`] takes the head of a request and gives the whole answer. It opens no socket, spawns
//! nothing, and learns about the server through [`Probe`] alone. Headers that depend on the
//! connection (`Date`, `Content-Length`, no body after `HEAD`) are left to the HTTP server.
//!
//! Deliberately absent: the JSON gateway and API v2, which have rooms of their own, and what members
//! ask each other, which is in `peer`.

mod access;
mod health;
mod mux;
mod pprof;
mod vars;

use std::sync::Arc;

use http::{Method, Request};
use retcd_member::Error;
use retcd_proto::etcdserverpb::AlarmMember;

use crate::metrics::{self, Metrics, Sample};
pub use crate::net_http::Response;
use crate::net_http::reply;
use crate::peer::Versions;
pub use crate::recent::Recent;

pub use access::Access;
pub use pprof::Profiles;
pub(crate) use pprof::page as profile_page;
pub use vars::{Progress, RaftStatus};

use mux::{Route, Served};

/// What a listener is for; it decides which paths there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    /// `--listen-client-urls` and `--listen-client-http-urls`.
    Client {
        /// Whether the connection is encrypted: a browser's page cannot then be tricked into
        /// reaching it under another name, so the Host header is not checked.
        tls: bool,
    },
    /// `--listen-metrics-urls`.
    Metrics,
}

/// What the pages ask the server.
// Pages are answered on the connection's own thread, so nothing in here has to be `Send`.
#[allow(async_fn_in_trait)]
pub trait Probe {
    /// The alarms that are raised, of all members.
    fn alarms(&self) -> Vec<AlarmMember>;

    /// The leader's id, when there is one.
    fn leader(&self) -> Option<u64>;

    /// Whether this member has no vote.
    fn is_learner(&self) -> bool;

    /// The versions of program, cluster and storage.
    fn versions(&self) -> Versions;

    /// Reads one key that need not exist, at a point confirmed by the cluster.
    async fn linearizable_read(&self) -> Result<(), Error>;

    /// Reads one key that need not exist from this member's own state.
    async fn serializable_read(&self) -> Result<(), Error>;

    /// The numbers that `/metrics` copies.
    async fn sample(&self) -> Sample;

    /// Raft's view of this member.
    async fn raft_status(&self) -> Option<RaftStatus>;
}

/// What all requests share.
pub struct HttpContext<P> {
    /// The server.
    pub probe: P,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
    /// Who may ask on client listeners.
    pub access: Access,
    /// The arguments of this process, the program's name first.
    pub command_line: Vec<String>,
    /// With `--enable-pprof`.
    pub profiles: Option<Profiles>,
    /// With `--log-level=debug`.
    pub recent: Option<Recent>,
}

/// Answers one request. No page reads the request's body.
pub async fn handle<P: Probe, B>(
    context: &HttpContext<P>,
    listener: ListenerKind,
    request: &Request<B>,
) -> Response {
    let served = Served {
        profiles: context.profiles.is_some(),
        recent: context.recent.is_some(),
    };
    let route = mux::route(listener, served, request.uri());
    // Go refuses it before its handler, which is what guards the pages.
    if route == Route::Malformed {
        return reply::bad_request();
    }
    let ListenerKind::Client { tls } = listener else {
        return serve(context, route, request).await;
    };
    let serve = || serve(context, route, request);
    context.access.guard(tls, request, serve).await
}

async fn serve<P: Probe, B>(
    context: &HttpContext<P>,
    route: Route,
    request: &Request<B>,
) -> Response {
    if route.is_get_only() && request.method() != Method::GET {
        return reply::method_not_allowed(&Method::GET);
    }
    let query = request.uri().query().unwrap_or_default();
    match route {
        Route::Version => reply::json(&context.probe.versions()),
        Route::Health => health::health(context, query).await,
        Route::Check(page, check) => health::check(context, page, check, query).await,
        Route::Metrics => {
            let page = context.metrics.page(&context.probe.sample().await);
            reply::ok(metrics::CONTENT_TYPE, page)
        }
        Route::Vars => vars::vars(context).await,
        Route::Profile(page) => match &context.profiles {
            Some(profiles) => profiles.serve(&page, query, &context.command_line).await,
            None => reply::not_found(),
        },
        Route::Requests => recent_page(context, |recent| recent.requests_page(query)),
        Route::Events => recent_page(context, |recent| recent.events_page(query)),
        Route::Redirect(location) => reply::moved(request.method(), &location),
        Route::Malformed => reply::bad_request(),
        Route::NotFound => reply::not_found(),
    }
}

fn recent_page<P>(context: &HttpContext<P>, page: impl FnOnce(&Recent) -> String) -> Response {
    match &context.recent {
        Some(recent) => reply::ok("text/html; charset=utf-8", page(recent)),
        None => reply::not_found(),
    }
}
