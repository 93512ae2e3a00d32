//! The thread of the traffic between members.
//!
//! It is one more connection thread, which serves the peer listeners alone: what other members ask for
//! beside raft's messages (the members, a lease's renewal, a promotion) may propose and read like a client's
//! request. The transport runs on it, too, so that no client's large answer holds up a heartbeat.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use http_body_util::Either;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use retcd_node::durable::Dirs;
use retcd_state::machine::DatabaseCopy;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::UnboundedReceiver;

use super::local::Local;
use super::mailbox::Mail;
use super::member::Member;
use super::probe::LocalProbe;
use super::watches::StartPoint;
use crate::accept::{Accepted, Socket};
use crate::http::{self, HttpContext};
use crate::peer::{self, Door, Driver, OutgoingSnapshot, Transport, WriteDeadline};

/// What the thread is given.
pub struct PeerThread {
    /// Its number among the connection threads.
    pub number: usize,
    /// Answers to what was asked on it.
    pub mailbox: UnboundedReceiver<Mail>,
    /// What the database held before anything was applied.
    pub start: StartPoint,
    /// Answers raft's requests.
    pub door: Door,
    /// Runs the transport.
    pub driver: Driver,
}

/// The transport of `member`, which receives databases in `dirs`.
pub fn transport(member: &Arc<Member>, dirs: &Dirs) -> (Transport, Door, Driver) {
    let config = &member.config;
    let urls = &config.initial_advertise_peer_urls;
    let backend = member.backend.clone();
    let membership = Arc::clone(&member.membership);
    let removed = member.removed.clone();
    peer::open(peer::Config {
        identity: peer::Identity {
            id: member.id,
            cluster_id: member.cluster_id,
            urls: urls.iter().map(ToString::to_string).collect(),
        },
        dialer: member.dialer.clone(),
        node: member.node.clone(),
        metrics: Arc::clone(&member.metrics),
        disk: Arc::clone(&dirs.disk),
        snap_dir: dirs.snap_dir.clone(),
        workers: member.workers.clone(),
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
        removed_by_cluster: Box::new(move || {
            removed.send_replace(true);
        }),
    })
}

/// Serves what the listeners accept and runs the transport, until the member stops.
pub async fn serve(
    local: Rc<Local>,
    http: Rc<HttpContext<LocalProbe>>,
    door: Door,
    driver: Driver,
    mut accepted: UnboundedReceiver<Accepted>,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(peer::IO_TIMEOUT);
    let (builder, door) = (Rc::new(builder), Rc::new(door));
    let member = Arc::clone(&local.member);
    tokio::task::spawn_local(driver.run());
    let accept = async {
        while let Some(Accepted { socket, .. }) = accepted.recv().await {
            let (builder, door, http) = (Rc::clone(&builder), Rc::clone(&door), Rc::clone(&http));
            tokio::task::spawn_local(async move {
                // A connection that breaks is opened anew by the member at its other end.
                let _ = serve_socket(&builder, socket, door, http).await;
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = member.stopped() => {}
    }
}

fn is_of_raft(path: &str) -> bool {
    path == "/raft" || (path.starts_with("/raft/") && path != "/raft/stream")
}

async fn serve_socket(
    builder: &http1::Builder,
    socket: Socket,
    door: Rc<Door>,
    http: Rc<HttpContext<LocalProbe>>,
) -> io::Result<()> {
    match socket {
        Socket::Tcp(socket) => {
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            serve_connection(builder, TcpStream::from_std(socket)?, door, http).await
        }
        Socket::Unix(socket) => {
            socket.set_nonblocking(true)?;
            serve_connection(builder, UnixStream::from_std(socket)?, door, http).await
        }
        Socket::Tls(established) => {
            serve_connection(builder, established.attach()?, door, http).await
        }
    }
}

async fn serve_connection(
    builder: &http1::Builder,
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    door: Rc<Door>,
    http: Rc<HttpContext<LocalProbe>>,
) -> io::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let (door, http) = (Rc::clone(&door), Rc::clone(&http));
        async move {
            let page = if is_of_raft(request.uri().path()) {
                match door.handle(request).await {
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
