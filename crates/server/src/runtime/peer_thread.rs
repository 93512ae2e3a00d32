//! The thread that talks to other members.
//!
//! It serves the peer listeners as a connection thread serves clients: what members ask for besides
//! raft's messages (the list of members, a lease's renewal, a promotion) proposes and reads like a
//! client's request. The transport runs here, too, so that no large response to a client delays a
//! heartbeat.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use http_body_util::Either;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use retcd_member::watch::StartPoint;
use retcd_member::{Mail, Shared};
use retcd_node::Input;
use retcd_node::durable::Dirs;
use retcd_state::machine::DatabaseCopy;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::accept::{Accepted, AcceptedStream};
use crate::http::{self, HttpContext};
use crate::peer::{self, Dialer, Driver, OutgoingSnapshot, RaftHandler, Transport, WriteDeadline};
use crate::probe::LocalProbe;
use crate::server::Server;
use crate::workers::Workers;

/// What the thread runs with.
pub(crate) struct PeerThread {
    /// Its number among the connection threads.
    pub(crate) number: usize,
    pub(crate) mailbox: UnboundedReceiver<Mail>,
    /// The revisions of the database before anything was applied.
    pub(crate) start: StartPoint,
    pub(crate) handler: RaftHandler,
    pub(crate) driver: Driver,
}

/// What a transport is made of beside the server.
pub(crate) struct Made {
    /// Opens connections to other members.
    pub(crate) dialer: Dialer,
    /// Read and write snapshots, and look up names.
    pub(crate) workers: Workers,
    /// The node's queue.
    pub(crate) node: SyncSender<Input>,
}

/// The transport of `server`'s member, which stores received databases in `dirs`.
pub(crate) fn transport(
    server: &Arc<Server>,
    dirs: &Dirs,
    made_of: Made,
) -> (Transport, RaftHandler, Driver) {
    let member = &server.member;
    let urls = &server.config.initial_advertise_peer_urls;
    let backend = member.backend.clone();
    let membership = Arc::clone(&member.state.membership);
    let removed = Arc::clone(member);
    peer::open(peer::Config {
        local: peer::LocalMember {
            id: member.id,
            cluster_id: member.cluster_id,
            urls: urls.iter().map(ToString::to_string).collect(),
        },
        dialer: made_of.dialer,
        node: made_of.node,
        metrics: Arc::clone(&server.metrics),
        disk: Arc::clone(&dirs.disk),
        snap_dir: dirs.snap_dir.clone(),
        workers: made_of.workers,
        snapshot: Box::new(move || {
            let copy = DatabaseCopy::take(&backend).map_err(io::Error::other)?;
            let snapshot = copy.snapshot();
            Ok(OutgoingSnapshot {
                metadata: snapshot.metadata.unwrap_or_default(),
                data: snapshot.data.unwrap_or_default(),
                size_bytes: copy.file.len(),
                database: Box::new(copy.file),
            })
        }),
        snapshot_pace: None,
        is_removed: Box::new(move |id| membership.read().is_removed(id)),
        removed_by_cluster: Box::new(move || removed.signals.remove()),
    })
}

/// Serves the connections of other members and runs the transport until the member stops.
pub(crate) async fn serve(
    member: &Shared,
    http: Rc<HttpContext<LocalProbe>>,
    handler: RaftHandler,
    driver: Driver,
    mut accepted: UnboundedReceiver<Accepted>,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(peer::IO_TIMEOUT);
    let (builder, handler) = (Rc::new(builder), Rc::new(handler));
    tokio::task::spawn_local(driver.run());
    let accept = async {
        while let Some(Accepted { stream, .. }) = accepted.recv().await {
            let (builder, handler, http) =
                (Rc::clone(&builder), Rc::clone(&handler), Rc::clone(&http));
            tokio::task::spawn_local(async move {
                // The member at the other end connects again.
                let _ = serve_stream(&builder, stream, handler, http).await;
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = member.signals.stopped() => {}
    }
}

fn is_raft(path: &str) -> bool {
    path == "/raft" || (path.starts_with("/raft/") && path != "/raft/stream")
}

async fn serve_stream(
    builder: &http1::Builder,
    mut stream: AcceptedStream,
    handler: Rc<RaftHandler>,
    http: Rc<HttpContext<LocalProbe>>,
) -> io::Result<()> {
    stream.register()?;
    match stream {
        AcceptedStream::Plain(stream) => serve_connection(builder, stream, handler, http).await,
        AcceptedStream::Tls(established) => {
            serve_connection(builder, established.stream, handler, http).await
        }
    }
}

async fn serve_connection(
    builder: &http1::Builder,
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    handler: Rc<RaftHandler>,
    http: Rc<HttpContext<LocalProbe>>,
) -> io::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let (handler, http) = (Rc::clone(&handler), Rc::clone(&http));
        async move {
            let page = if is_raft(request.uri().path()) {
                match handler.handle(request).await {
                    Some(response) => return Ok::<_, Infallible>(response.map(Either::Left)),
                    None => http::not_found(),
                }
            } else {
                http::handle_peer(&http, request).await
            };
            Ok(page.map(Either::Right))
        }
    });
    let io = TokioIo::new(WriteDeadline::new(stream, peer::IO_TIMEOUT));
    builder
        .serve_connection(io, service)
        .await
        .map_err(io::Error::other)
}
