//! Connection threads: each runs the connections that it was given, and nothing else.
//!
//! A thread is one current-thread runtime; a connection lives on it from accept to close, so that its
//! requests share their state without locks.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_rustls::server::TlsStream;

use super::in_flight::Running;
use super::local::Local;
use super::probe::LocalProbe;
use crate::accept::{Accepted, PrefaceTimeout, Protocols, Socket};
use crate::auth::CommonName;
use crate::grpc::outstanding::Outstanding;
use crate::http::HttpContext;
use crate::log::Remote;
use crate::tls::Portable;

/// Window for all streams of a connection together; etcd clients put up to 2 MiB into one request.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Window of one stream.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of responses that a connection buffers before a stream has to wait.
const SEND_BUFFER_BYTES: usize = 1 << 20;
/// Clients that cancel many requests at once (a restarted apiserver) are no attack.
const PENDING_RESETS_MAX: usize = 10_000;
/// Headers of a request over HTTP/2, as in etcd: tokens may be long.
const HEADER_LIST_BYTES_MAX: u32 = 1 << 20;
/// Headers of a request over HTTP/1.1; Go counts their bytes only.
const HTTP1_HEADERS_MAX: usize = 1000;
/// Time for reading a request's head over HTTP/1.1, as etcd has it.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(300);
/// Time for the words with which HTTP/2 begins, once TLS has settled that it is spoken; as in Go.
const HTTP2_PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long clients may take to hear that a member stops, once they have their answers. A connection that is closed before costs
/// a client that is about to send a request one that fails.
const FAREWELL: Duration = Duration::from_millis(500);

/// HTTP/2 settings that flags decide.
#[derive(Clone, Copy, Debug)]
pub struct Http2Settings {
    /// `--max-concurrent-streams`.
    pub streams_max: u32,
    /// `--grpc-keepalive-interval`; `None` for no pings.
    pub keepalive_interval: Option<Duration>,
    /// `--grpc-keepalive-timeout`.
    pub keepalive_timeout: Duration,
}

/// Spawns on the thread's own runtime.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F> Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves what the dispatcher sends until the member stops, then lets running requests end.
pub async fn serve(
    local: Rc<Local>,
    http: Rc<HttpContext<LocalProbe>>,
    mut accepted: UnboundedReceiver<Accepted>,
    settings: Http2Settings,
) {
    let builder = Rc::new(http_builder(settings));
    let graceful = GracefulShutdown::new();
    let running = Rc::new(Running::default());
    let stopped = local.member.stopped();
    tokio::pin!(stopped);
    loop {
        let next = tokio::select! {
            next = accepted.recv() => next,
            () = &mut stopped => None,
        };
        let Some(Accepted {
            socket,
            protocols,
            permit,
        }) = next
        else {
            break;
        };
        let connection = Connection {
            local: Rc::clone(&local),
            http: Rc::clone(&http),
            builder: Rc::clone(&builder),
            running: Rc::clone(&running),
            remote: socket.remote(),
            watcher: graceful.watcher(),
            protocols,
        };
        tokio::task::spawn_local(async move {
            // Errors of a connection are its client's: a reset, a broken frame. There is nobody to tell.
            let _ = match socket {
                Socket::Tcp(socket) => match tcp(socket) {
                    Ok(stream) => connection.serve_plain(stream).await,
                    Err(error) => Err(error.into()),
                },
                Socket::Unix(socket) => match unix(socket) {
                    Ok(stream) => connection.serve_plain(stream).await,
                    Err(error) => Err(error.into()),
                },
                Socket::Tls(established) => {
                    let user = established.user.clone();
                    match established.attach() {
                        Ok(stream) => {
                            let limit = preface_timeout(&stream);
                            connection.serve(stream, user, limit).await
                        }
                        Err(error) => Err(error.into()),
                    }
                }
            };
            drop(permit);
        });
    }
    // Watches never end by themselves; they see the member stop and end their streams.
    let farewell = async {
        loop {
            running.none().await;
            tokio::time::sleep(FAREWELL).await;
            if !running.any() {
                return;
            }
        }
    };
    tokio::select! {
        () = graceful.shutdown() => {}
        () = farewell => {}
        () = tokio::time::sleep(local.member.limits.request_timeout) => {}
    }
}

/// What a connection is served with.
struct Connection {
    local: Rc<Local>,
    http: Rc<HttpContext<LocalProbe>>,
    builder: Rc<auto::Builder<LocalExecutor>>,
    running: Rc<Running>,
    remote: Option<SocketAddr>,
    watcher: Watcher,
    protocols: Protocols,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Connection {
    async fn serve_plain<S>(self, stream: S) -> Result<(), BoxError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        self.serve(stream, None, HEADER_READ_TIMEOUT).await
    }

    /// Serves the connection to its end. `user` is whom the client's certificate names, `limit` the time in which it must be clear
    /// what is spoken.
    async fn serve<S>(
        self,
        stream: S,
        user: Option<Arc<str>>,
        limit: Duration,
    ) -> Result<(), BoxError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let Connection {
            local,
            http,
            builder,
            running,
            remote,
            watcher,
            protocols,
        } = self;
        let user = user.map(CommonName);
        let outstanding = Outstanding::default();
        let (member, given) = (Arc::clone(&local.member), outstanding.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (local, http) = (Rc::clone(&local), Rc::clone(&http));
            let running = running.begin();
            let given = given.clone();
            if let Some(user) = &user {
                request.extensions_mut().insert(user.clone());
            }
            async move {
                let response = crate::router::route(local, http, protocols, given, request);
                Ok::<_, Infallible>(running.answered(response.await))
            }
        });
        let io = TokioIo::new(PrefaceTimeout::within(limit, stream));
        let connection = builder.serve_connection(io, service).into_owned();
        tokio::select! {
            ended = watcher.watch(connection) => ended,
            () = outstanding.stuck(&member.answers) => {
                crate::warn!("closed the connection of a client that does not take its answers, while others wait for the memory";
                    "remote-addr" => Remote(remote));
                Ok(())
            }
        }
    }
}

fn preface_timeout(stream: &TlsStream<Portable>) -> Duration {
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => HTTP2_PREFACE_TIMEOUT,
        _ => HEADER_READ_TIMEOUT,
    }
}

fn tcp(socket: std::net::TcpStream) -> io::Result<TcpStream> {
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    TcpStream::from_std(socket)
}

fn unix(socket: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

fn http_builder(settings: Http2Settings) -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    builder
        .http1()
        .max_headers(HTTP1_HEADERS_MAX)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT);
    builder
        .http2()
        // Nor does grpc-go send one; it would be packed into every response.
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(settings.streams_max)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(PENDING_RESETS_MAX)
        .keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout);
    builder
}
