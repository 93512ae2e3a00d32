//! HTTP/1.1 beside gRPC: versions, health, metrics, and what members ask each other.
//!
//! ```text
//! client ──► access (client listeners: Host, CORS, OPTIONS) ──► mux ──► health, vars …
//! member ───────────────────────────────────────────────────────► mux ──► peer
//!                                                                 │
//!                                                            Probe (the server)
//! ```
//!
//! [`handle`] takes the head of a request and gives the whole answer, [`handle_peer`] does so for another
//! member, whose request may have a body. They open no socket, spawn
//! nothing, and learn about the server through [`Probe`] alone. Headers that depend on the
//! connection (`Date`, `Content-Length`, no body after `HEAD`) are left to the HTTP server.
//!
//! Deliberately absent: the JSON gateway (`/v3/`), which without being enabled is a path that does
//! not exist, Go's profiles (`/debug/pprof/`), and raft's paths on the peer listener, which are not pages.

mod access;
mod health;
mod mux;
pub mod peer;
mod query;
mod reply;
mod vars;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use retcd_member::Error;
use retcd_proto::etcdserverpb::{AlarmMember, Member};
use serde::Serialize;

use crate::metrics::{self, Metrics, Sample};

pub use access::Access;
pub use peer::{PeerProbe, handle_peer};
pub(crate) use reply::not_found;
pub use vars::{Progress, RaftStatus};

use mux::Route;

/// An answer of [`handle`].
pub type Response = http::Response<Full<Bytes>>;

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

    /// The cluster's version as `major.minor.patch`, once it is decided.
    fn cluster_version(&self) -> Option<String>;

    /// The version of the stored data's schema as `major.minor.patch`, when it is known.
    fn storage_version(&self) -> Option<String>;

    /// The cluster's id.
    fn cluster_id(&self) -> u64;

    /// All members, in order of their ids.
    fn members(&self) -> Vec<Member>;

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
}

/// Answers one request. No page reads the request's body.
pub async fn handle<P: Probe, B>(
    context: &HttpContext<P>,
    listener: ListenerKind,
    request: &Request<B>,
) -> Response {
    let ListenerKind::Client { tls } = listener else {
        return serve(context, listener, request).await;
    };
    if let Some(refusal) = context.access.refusal(tls, request) {
        return refusal;
    }
    let mut response = match *request.method() {
        Method::OPTIONS => Response::default(),
        _ => serve(context, listener, request).await,
    };
    if let Some(origin) = context.access.allowed_origin(request) {
        access::share(&mut response, origin);
    }
    response
}

async fn serve<P: Probe, B>(
    context: &HttpContext<P>,
    listener: ListenerKind,
    request: &Request<B>,
) -> Response {
    let route = mux::route(listener, request.uri());
    if route.is_get_only() && request.method() != Method::GET {
        return reply::method_not_allowed(&Method::GET);
    }
    let query = request.uri().query().unwrap_or_default();
    match route {
        Route::Version => version(&context.probe),
        Route::Health => health::health(context, query).await,
        Route::Check(page, check) => health::check(context, page, check, query).await,
        Route::Metrics => {
            let page = context.metrics.page(&context.probe.sample().await);
            reply::ok(metrics::CONTENT_TYPE, page)
        }
        Route::Vars => vars::vars(context).await,
        Route::Redirect(location) => reply::moved(request.method(), &location),
        Route::NotFound => reply::not_found(),
    }
}

/// `/version`. Joining members and tools read it; the order of the fields is etcd's.
fn version(probe: &impl Probe) -> Response {
    #[derive(Serialize)]
    struct Versions<'a> {
        etcdserver: &'a str,
        etcdcluster: &'a str,
        storage: &'a str,
    }
    let cluster = probe.cluster_version();
    let storage = probe.storage_version();
    reply::json(&Versions {
        etcdserver: env!("CARGO_PKG_VERSION"),
        etcdcluster: cluster.as_deref().unwrap_or("not_decided"),
        storage: storage.as_deref().unwrap_or("unknown"),
    })
}
