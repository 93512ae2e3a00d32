//! Sockets that accept.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use tokio::sync::watch;

use super::dispatch::{Accepted, Dispatcher, Protocols, Socket};
use super::handshakes::TlsAcceptor;
use super::limit::{ConnectionLimit, ConnectionPermit};
use crate::config::url::ListenAddr;
use crate::log::{Text, go_io_error};
use crate::tls::Portable;

const BACKLOG: i32 = 1024;
/// A connection that is silent is probed, as Go does it, so that one whose other end is gone without a word ends.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(KEEPALIVE_INTERVAL)
    .with_interval(KEEPALIVE_INTERVAL);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// How sockets are bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketOptions {
    /// Several processes may share the port (`--socket-reuse-port`).
    pub reuse_port: bool,
}

/// A bound socket; connections queue until [`Listener::accept_into`].
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket.
    Unix(UnixListener),
}

/// Binds `address`.
///
/// # Errors
/// In Go's words, e.g. `listen tcp 127.0.0.1:2379: bind: address already in use`.
pub fn bind(address: &ListenAddr, options: SocketOptions) -> Result<Listener, String> {
    match address {
        ListenAddr::Tcp(address) => bind_tcp(*address, options)
            .map(Listener::Tcp)
            .map_err(|error| format!("listen tcp {address}: bind: {}", go_io_error(&error))),
        ListenAddr::Unix(path) => bind_unix(path).map(Listener::Unix).map_err(|error| {
            format!(
                "listen unix {}: bind: {}",
                path.display(),
                go_io_error(&error)
            )
        }),
    }
}

fn bind_tcp(address: SocketAddr, options: SocketOptions) -> io::Result<TcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, None)?;
    // As Go's listeners have it, so that a restart does not wait for connections that linger.
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A socket file that a dead process left behind is replaced, one that answers is not.
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

/// Where accepted sockets go.
#[derive(Clone)]
pub enum Acceptor {
    /// To the threads that serve them.
    Plain(Protocols, Dispatcher),
    /// To a handshake first.
    Secure(TlsAcceptor),
}

impl Acceptor {
    async fn take(&mut self, socket: Portable, permit: ConnectionPermit) {
        match self {
            Acceptor::Plain(protocols, dispatcher) => {
                // A socket that the system has lost meanwhile is nobody's.
                if let Ok(socket) = Socket::try_from(socket) {
                    let protocols = *protocols;
                    dispatcher.dispatch(Accepted {
                        socket,
                        protocols,
                        permit,
                    });
                }
            }
            Acceptor::Secure(gate) => gate.admit(socket, permit).await,
        }
    }
}

impl Listener {
    /// Accepts until the member stops, as long as the connection limit, if there is one, allows it.
    pub async fn accept_into(
        self,
        mut acceptor: Acceptor,
        limit: Option<ConnectionLimit>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let accept = async {
            match self {
                Listener::Tcp(listener) => accept_tcp(listener, &mut acceptor, limit).await,
                Listener::Unix(listener) => accept_unix(listener, &mut acceptor, limit).await,
            }
        };
        tokio::select! {
            result = accept => if let Err(error) = result {
                crate::warn!("stopped accepting connections"; "error" => Text(error));
            },
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }
}

async fn acquire(limit: &Option<ConnectionLimit>) -> ConnectionPermit {
    match limit {
        Some(limit) => limit.acquire().await,
        None => ConnectionPermit::default(),
    }
}

async fn accept_tcp(
    listener: TcpListener,
    acceptor: &mut Acceptor,
    limit: Option<ConnectionLimit>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let permit = acquire(&limit).await;
        match listener.accept().await {
            Ok((socket, _)) => {
                // Best effort, as it only finds out sooner who is gone.
                let _ = SockRef::from(&socket).set_tcp_keepalive(&KEEPALIVE);
                acceptor
                    .take(Portable::DetachedTcp(socket.into_std()?), permit)
                    .await;
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

async fn accept_unix(
    listener: UnixListener,
    acceptor: &mut Acceptor,
    limit: Option<ConnectionLimit>,
) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        let permit = acquire(&limit).await;
        match listener.accept().await {
            Ok((socket, _)) => {
                acceptor
                    .take(Portable::DetachedUnix(socket.into_std()?), permit)
                    .await
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Out of file descriptors or memory: connections that end make room again. Anything else concerns
/// the one connection that was about to be accepted.
async fn pause_after(error: &io::Error) {
    let transient = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    );
    if !transient {
        crate::warn!("cannot accept a connection; trying again"; "error" => Text(error));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
