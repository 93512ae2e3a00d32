//! One listening socket: how it is bound, and the loop that accepts from it.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::sync::watch;

use super::dispatch::{Accepted, AcceptedStream, Dispatcher, Protocols};
use super::handshakes::TlsAcceptor;
use super::limit::{ConnectionLimit, ConnectionPermit};
use super::stream::Stream;
use crate::config::url::ListenAddr;
use crate::log::{Text, go_io_error};

const BACKLOG: i32 = 1024;
/// Go's defaults. A connection whose other end is gone without a word is found and closed.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(KEEPALIVE_INTERVAL)
    .with_interval(KEEPALIVE_INTERVAL);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Pause after an error that is not about a single connection.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How sockets are bound.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketOptions {
    /// SO_REUSEPORT (`--socket-reuse-port`).
    pub(super) reuse_port: bool,
}

/// A bound socket. Connections wait in its backlog until [`Listener::run`].
pub(super) enum Listener {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

/// What becomes of accepted connections.
pub(super) enum Acceptor {
    /// They go to the threads that serve them.
    Plain(Protocols, Dispatcher),
    /// They go to the handshake pool first.
    Tls(TlsAcceptor),
}

impl Acceptor {
    async fn accept(&self, stream: Stream, permit: ConnectionPermit) {
        match self {
            Acceptor::Plain(protocols, dispatcher) => dispatcher.dispatch(Accepted {
                stream: AcceptedStream::Plain(stream),
                protocols: *protocols,
                permit,
            }),
            Acceptor::Tls(acceptor) => acceptor.accept(stream, permit).await,
        }
    }
}

/// Binds `address`.
///
/// # Errors
/// In Go's words, e.g. `listen tcp 127.0.0.1:2379: bind: address already in use`.
pub(super) fn bind(address: &ListenAddr, options: SocketOptions) -> Result<Listener, String> {
    match address {
        ListenAddr::Tcp(address) => bind_tcp(*address, options).map(Listener::Tcp),
        ListenAddr::Unix(path) => bind_unix(path).map(Listener::Unix).map_err(|error| {
            format!(
                "listen unix {}: bind: {}",
                path.display(),
                go_io_error(&error)
            )
        }),
    }
}

/// As [`bind`], for TCP.
pub(crate) fn bind_tcp(
    address: SocketAddr,
    options: SocketOptions,
) -> Result<std::net::TcpListener, String> {
    let bound = bind_tcp_socket(address, options);
    bound.map_err(|error| format!("listen tcp {address}: bind: {}", go_io_error(&error)))
}

fn bind_tcp_socket(
    address: SocketAddr,
    options: SocketOptions,
) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // As Go does, so that a restart need not wait for connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Replaces the socket file of a dead process, but not of one that answers.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error)
            if error.kind() == io::ErrorKind::AddrInUse
                && std::os::unix::net::UnixStream::connect(path).is_err() =>
        {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        other => other,
    }?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Listener {
    /// Accepts connections until the member stops.
    pub(super) async fn run(
        self,
        acceptor: Acceptor,
        limit: Option<ConnectionLimit>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let listener = match self.register() {
            Ok(listener) => listener,
            Err(error) => {
                crate::warn!("stopped accepting connections"; "error" => Text(error));
                return;
            }
        };
        tokio::select! {
            () = listener.accept_all(acceptor, limit) => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    fn register(self) -> io::Result<Registered> {
        Ok(match self {
            Listener::Tcp(listener) => {
                Registered::Tcp(tokio::net::TcpListener::from_std(listener)?)
            }
            Listener::Unix(listener) => {
                Registered::Unix(tokio::net::UnixListener::from_std(listener)?)
            }
        })
    }
}

/// A listener that is registered with this thread's runtime.
enum Registered {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Registered {
    async fn accept_all(&self, acceptor: Acceptor, limit: Option<ConnectionLimit>) {
        loop {
            let permit = match &limit {
                Some(limit) => limit.acquire().await,
                None => ConnectionPermit::default(),
            };
            match self.accept().await {
                Ok(stream) => acceptor.accept(stream, permit).await,
                Err(error) => pause_after(&error).await,
            }
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Registered::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                // Best effort: the first only finds sooner who is gone, the second only saves time.
                let _ = SockRef::from(&socket).set_tcp_keepalive(&KEEPALIVE);
                let _ = socket.set_nodelay(true);
                Ok(Stream::Tcp(socket))
            }
            Registered::Unix(listener) => {
                let (socket, _) = listener.accept().await?;
                Ok(Stream::Unix(socket))
            }
        }
    }
}

/// Without descriptors or memory, accepting waits for connections to be closed. Other errors
/// concern only the connection that was about to be accepted.
async fn pause_after(error: &io::Error) {
    let of_one_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    );
    if !of_one_connection {
        crate::warn!("cannot accept a connection; trying again"; "error" => Text(error));
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
