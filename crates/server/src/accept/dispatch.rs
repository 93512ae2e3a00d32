//! Accepted sockets on their way to the threads that serve them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::limit::ConnectionPermit;
use crate::http::ListenerKind;
use crate::tls::{Established, Portable};

/// An accepted socket.
pub enum Socket {
    /// Over TCP; from `std`, as it moves between runtimes.
    Tcp(std::net::TcpStream),
    /// Over a Unix socket.
    Unix(std::os::unix::net::UnixStream),
    /// Encrypted, over one of them.
    Tls(Box<Established>),
}

impl Socket {
    /// Where the other end is; none for a Unix socket.
    pub fn remote(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(socket) => socket.peer_addr().ok(),
            Socket::Unix(_) => None,
            Socket::Tls(established) => established.remote(),
        }
    }
}

impl TryFrom<Portable> for Socket {
    type Error = io::Error;

    fn try_from(socket: Portable) -> io::Result<Socket> {
        Ok(match socket {
            Portable::Tcp(socket) => Socket::Tcp(socket.into_std()?),
            Portable::Unix(socket) => Socket::Unix(socket.into_std()?),
            Portable::DetachedTcp(socket) => Socket::Tcp(socket),
            Portable::DetachedUnix(socket) => Socket::Unix(socket),
            Portable::Closed => return Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

/// A socket and the listener that accepted it.
pub struct Accepted {
    /// The connection.
    pub socket: Socket,
    /// What it may speak.
    pub protocols: Protocols,
    /// A client's.
    pub permit: ConnectionPermit,
}

/// What a listener's connections may speak.
#[derive(Clone, Copy, Debug)]
pub struct Protocols {
    /// gRPC.
    pub grpc: bool,
    /// Plain HTTP, with these pages.
    pub pages: Option<ListenerKind>,
}

impl Protocols {
    /// What other members speak is nothing that a client speaks.
    pub const PEER: Protocols = Protocols {
        grpc: false,
        pages: None,
    };
}

/// Deals accepted sockets to the connection threads in turn.
#[derive(Clone)]
pub struct Dispatcher {
    threads: Arc<[UnboundedSender<Accepted>]>,
    next: usize,
}

impl Dispatcher {
    /// A dispatcher for these threads.
    pub fn new(threads: Vec<UnboundedSender<Accepted>>) -> Dispatcher {
        Dispatcher {
            threads: threads.into(),
            next: 0,
        }
    }

    /// Gives a socket to the next thread.
    pub fn dispatch(&mut self, accepted: Accepted) {
        self.next = (self.next + 1) % self.threads.len();
        // A thread that has stopped closes what it is given.
        let _ = self.threads[self.next].send(accepted);
    }
}
