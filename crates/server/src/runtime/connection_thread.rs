//! A thread that serves client connections.
//!
//! It runs a current-thread runtime. A connection stays on its thread until it is closed, so its
//! requests share state without locks.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::UPGRADE;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_rustls::server::TlsStream;

use super::in_flight::RequestsInFlight;
use crate::accept::{
    Accepted, AcceptedStream, ConnectionPermit, PrefaceTimeout, Protocols, Stream,
};
use crate::auth::CommonName;
use crate::budget::{AnswerBudget, Outstanding};
use crate::grpc::wire::ResponseBody;
use crate::log::Remote;

/// Flow-control window of a connection. Clients of etcd put up to 2 MiB into one request.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Flow-control window of a stream.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of responses that a stream may buffer.
const SEND_BUFFER_BYTES: usize = 1 << 20;
/// A client that cancels many requests at once (a restarted apiserver) is no attacker.
const PENDING_RESETS_MAX: usize = 10_000;
/// Headers of a request over HTTP/2, as in etcd: tokens may be long.
const HEADER_LIST_BYTES_MAX: u32 = 1 << 20;
/// Headers of a request over HTTP/1.1. Go limits their bytes only.
const HTTP1_HEADERS_MAX: usize = 1000;
/// Time for the head of a request over HTTP/1.1, as in etcd.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(300);
/// Time for HTTP/2's preface when ALPN has chosen HTTP/2, as in Go.
const HTTP2_PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for clients to receive GOAWAY once they have their responses. If the connection were closed
/// at once, a request that a client is just sending would fail.
const GOAWAY_GRACE: Duration = Duration::from_millis(500);

/// What answers the requests of one thread's connections: a member or a proxy.
pub(crate) trait Front: 'static {
    /// Answers a request; `connection` counts what is outstanding on its connection, which comes
    /// from `remote`. hyper moves the future several times: it should be small.
    fn answer(
        self: Rc<Self>,
        protocols: Protocols,
        connection: Outstanding,
        remote: Option<SocketAddr>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody>> + 'static;

    /// The memory that answers may hold.
    fn budget(&self) -> &AnswerBudget;

    /// Resolves when connections are to be served no longer.
    fn stopped(&self) -> impl Future<Output = ()>;

    /// How long the requests may take that are in flight then.
    fn drain_timeout(&self) -> Duration;

    /// A connection from `remote` has ended in an error.
    fn connection_failed(&self, _remote: Option<SocketAddr>, _error: &BoxError) {}
}

/// HTTP/2 settings that flags decide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Http2Settings {
    /// `--max-concurrent-streams`.
    pub(crate) streams_max: u32,
    /// `--grpc-keepalive-interval`; none for no pings.
    pub(crate) keepalive_interval: Option<Duration>,
    /// `--grpc-keepalive-timeout`.
    pub(crate) keepalive_timeout: Duration,
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

/// Serves the connections that are dispatched to this thread until `front` stops, then lets the
/// requests in flight end.
pub(crate) async fn serve<F: Front>(
    front: Rc<F>,
    mut accepted: UnboundedReceiver<Accepted>,
    settings: Http2Settings,
) {
    let builder = Rc::new(http_builder(settings));
    let graceful = GracefulShutdown::new();
    let in_flight = Rc::new(RequestsInFlight::default());
    let stopped = front.stopped();
    tokio::pin!(stopped);
    loop {
        let next = tokio::select! {
            next = accepted.recv() => next,
            () = &mut stopped => None,
        };
        let Some(Accepted {
            stream,
            protocols,
            permit,
        }) = next
        else {
            break;
        };
        let connection = Connection {
            front: Rc::clone(&front),
            builder: Rc::clone(&builder),
            in_flight: Rc::clone(&in_flight),
            remote: stream.remote(),
            watcher: graceful.watcher(),
            protocols,
            permit: Arc::new(permit),
        };
        connection.serve(stream);
    }
    let drained = async {
        loop {
            in_flight.drained().await;
            tokio::time::sleep(GOAWAY_GRACE).await;
            if in_flight.is_empty() {
                return;
            }
        }
    };
    // Watches do not end by themselves: they see the member stop and end their streams.
    tokio::select! {
        () = graceful.shutdown() => {}
        () = drained => {}
        () = tokio::time::sleep(front.drain_timeout()) => {}
    }
}

/// What a connection is served with.
struct Connection<F> {
    front: Rc<F>,
    builder: Rc<auto::Builder<LocalExecutor>>,
    in_flight: Rc<RequestsInFlight>,
    remote: Option<SocketAddr>,
    watcher: Watcher,
    protocols: Protocols,
    /// Given up with the last of what the connection is used for.
    permit: Arc<ConnectionPermit>,
}

/// Why a connection ends.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl<F: Front> Connection<F> {
    /// Serves the connection in a task. There are two kinds of them, so that a connection without TLS
    /// does not take the memory of one with it.
    fn serve(self, mut stream: AcceptedStream) {
        if let Err(error) = stream.register() {
            return self.front.connection_failed(self.remote, &error.into());
        }
        match stream {
            AcceptedStream::Plain(stream) => self.spawn(stream, None, HEADER_READ_TIMEOUT),
            AcceptedStream::Tls(established) => {
                let timeout = preface_timeout(&established.stream);
                let user = established.user.map(CommonName);
                self.spawn(established.stream, user, timeout);
            }
        }
    }

    /// `user` is from the client's certificate.
    fn spawn<S>(self, stream: S, user: Option<CommonName>, preface_timeout: Duration)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        tokio::task::spawn_local(self.serve_http(stream, user, preface_timeout));
    }

    /// Serves the connection until it is closed.
    async fn serve_http<S>(self, stream: S, user: Option<CommonName>, preface_timeout: Duration)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Connection {
            front,
            builder,
            in_flight,
            remote,
            watcher,
            protocols,
            permit,
        } = self;
        let outstanding = Outstanding::default();
        let (answering, given) = (Rc::clone(&front), outstanding.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let front = Rc::clone(&answering);
            let guard = in_flight.begin();
            let given = given.clone();
            if let Some(user) = &user {
                request.extensions_mut().insert(user.clone());
            }
            // A connection that becomes another lives on when it is no longer served here.
            if request.headers().contains_key(UPGRADE) {
                request.extensions_mut().insert(Arc::clone(&permit));
            }
            let answer = front.answer(protocols, given, remote, request);
            async move { Ok::<_, Infallible>(guard.guard(answer.await)) }
        });
        let io = TokioIo::new(PrefaceTimeout::new(stream, preface_timeout));
        let connection = builder
            .serve_connection_with_upgrades(io, service)
            .into_owned();
        let ended = tokio::select! {
            ended = watcher.watch(connection) => ended,
            () = outstanding.stuck(front.budget()) => {
                crate::warn!("closed the connection of a client that does not take its answers, while others wait for the memory";
                    "remote-addr" => Remote(remote));
                Ok(())
            }
        };
        // Errors are the client's: a reset, a malformed frame. As in Go, they are not logged.
        if let Err(error) = ended {
            front.connection_failed(remote, &error);
        }
    }
}

fn preface_timeout(stream: &TlsStream<Stream>) -> Duration {
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => HTTP2_PREFACE_TIMEOUT,
        _ => HEADER_READ_TIMEOUT,
    }
}

fn http_builder(settings: Http2Settings) -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    builder
        .http1()
        .max_headers(HTTP1_HEADERS_MAX)
        // As Go writes them: scripts look for `X-Etcd-Index` in what curl shows.
        .title_case_headers(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT);
    builder
        .http2()
        // grpc-go does not send one either, and it would cost bytes in each response.
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
