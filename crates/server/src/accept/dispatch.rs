//! Hands accepted connections to the threads that serve them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::mpsc::UnboundedSender;

use super::limit::ConnectionPermit;
use super::stream::Stream;
use crate::http::ListenerKind;
use crate::tls::Established;

/// A connection, what its listener knows of it, and its permit.
pub(crate) struct Accepted {
    pub(crate) stream: AcceptedStream,
    pub(crate) protocols: Protocols,
    pub(crate) permit: ConnectionPermit,
}

/// The stream of a connection, with TLS or without.
pub(crate) enum AcceptedStream {
    Plain(Stream),
    /// The handshake is complete.
    Tls(Box<Established<Stream>>),
}

impl AcceptedStream {
    /// The address of the other end; none for a Unix socket.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        match self {
            AcceptedStream::Plain(stream) => stream.remote(),
            AcceptedStream::Tls(established) => established.stream.get_ref().0.remote(),
        }
    }

    /// See [`Stream::register`].
    pub(crate) fn register(&mut self) -> io::Result<()> {
        self.socket().register()
    }

    fn socket(&mut self) -> &mut Stream {
        match self {
            AcceptedStream::Plain(stream) => stream,
            AcceptedStream::Tls(established) => established.stream.get_mut().0,
        }
    }
}

/// What a listener's connections may speak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocols {
    pub(crate) grpc: bool,
    /// Plain HTTP, with the pages of this kind of listener.
    pub(crate) pages: Option<ListenerKind>,
}

impl Protocols {
    /// Those of peer listeners: nothing that clients speak.
    pub(crate) const PEER: Protocols = Protocols {
        grpc: false,
        pages: None,
    };
}

/// Distributes connections over threads, round robin.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    threads: RoundRobin<UnboundedSender<Accepted>>,
}

impl Dispatcher {
    pub(crate) fn new(threads: Vec<UnboundedSender<Accepted>>) -> Dispatcher {
        Dispatcher {
            threads: RoundRobin::new(threads),
        }
    }

    /// Sends a connection to the next thread, which has to register it with its runtime.
    pub(crate) fn dispatch(&self, mut accepted: Accepted) {
        if accepted.stream.socket().deregister().is_err() {
            // The operating system has lost the connection.
            return;
        }
        // Fails when the thread has stopped; the connection is closed then.
        let _ = self.threads.next().send(accepted);
    }
}

/// Threads that take turns. Clones share whose turn it is: each connection with TLS has a clone of
/// its own.
#[derive(Clone)]
pub(super) struct RoundRobin<T> {
    threads: Arc<[T]>,
    turns: Arc<AtomicUsize>,
}

impl<T> RoundRobin<T> {
    pub(super) fn new(threads: Vec<T>) -> RoundRobin<T> {
        RoundRobin {
            threads: threads.into(),
            turns: Arc::default(),
        }
    }

    pub(super) fn next(&self) -> &T {
        let turn = self.turns.fetch_add(1, Relaxed);
        &self.threads[turn % self.threads.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::unbounded_channel;

    #[test]
    fn connections_of_all_clones_are_spread_over_all_threads() {
        let (senders, threads): (Vec<_>, Vec<_>) = (0..2).map(|_| unbounded_channel()).unzip();
        let dispatcher = Dispatcher::new(senders);
        for _ in 0..4 {
            dispatcher.clone().dispatch(Accepted {
                stream: AcceptedStream::Plain(Stream::Closed),
                protocols: Protocols::PEER,
                permit: ConnectionPermit::default(),
            });
        }
        for thread in &threads {
            assert_eq!(thread.len(), 2);
        }
    }
}
