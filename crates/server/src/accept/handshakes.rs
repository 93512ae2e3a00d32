//! TLS handshakes, on threads of their own.
//!
//! A handshake costs as much as dozens of requests, so it is not made where requests are served: however many
//! strangers knock, connections that are in keep their threads. An encrypted stream is then dispatched to a connection
//! thread like a plain socket.
//!
//! A thread works at a bounded number of handshakes. When it has no room left, whoever has kept the server waiting longest
//! is hung up on, but nobody before [`EVICTABLE_AFTER`]; until then newcomers wait in the listener's queue. So neither idle
//! connections nor a storm of real ones keep everybody else out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::dispatch::{Accepted, Dispatcher, Protocols, Socket};
use super::limit::ConnectionPermit;
use crate::tls::{Endpoint, FIRST_BYTE, Portable};
use crate::workers::Workers;

/// Handshakes under way on one thread.
const HANDSHAKES_MAX: usize = 1024;
/// Accepted sockets that wait for a thread.
const QUEUE_MAX: usize = 64;
/// How long a handshake is sure of its place.
const EVICTABLE_AFTER: Duration = Duration::from_secs(1);

/// What a listener with TLS does with sockets.
#[derive(Clone)]
pub struct TlsAcceptor {
    /// Certificates and rules.
    pub endpoint: Arc<Endpoint>,
    /// What encrypted connections may speak.
    pub secure: Protocols,
    /// What plain connections on the same port may speak, if there may be any.
    pub plain: Option<Protocols>,
    /// Takes them afterwards.
    pub dispatcher: Dispatcher,
    /// Makes the handshakes.
    pub handshakes: HandshakePool,
}

/// A socket with which a handshake is to be made.
struct Handshake {
    socket: Portable,
    gate: TlsAcceptor,
    permit: ConnectionPermit,
}

/// The threads' entrances; sockets go to them in turn.
#[derive(Clone)]
pub struct HandshakePool {
    threads: Arc<[mpsc::Sender<Handshake>]>,
    next: usize,
    workers: Workers,
}

impl HandshakePool {
    /// A pool of so many threads, each of which is to [run](HandshakeQueue::run) one of the queues. `workers` ask DNS for them.
    pub fn new(threads: usize, workers: Workers) -> (HandshakePool, Vec<HandshakeQueue>) {
        let (senders, queues): (Vec<_>, Vec<_>) = (0..threads)
            .map(|_| mpsc::channel(QUEUE_MAX))
            .map(|(sender, queue)| (sender, HandshakeQueue(queue)))
            .unzip();
        let pool = HandshakePool {
            threads: senders.into(),
            next: 0,
            workers,
        };
        (pool, queues)
    }

    async fn send(&mut self, handshake: Handshake) {
        self.next = (self.next + 1) % self.threads.len();
        // A thread that has stopped closes what it is given.
        let _ = self.threads[self.next].send(handshake).await;
    }
}

impl TlsAcceptor {
    /// Takes an accepted socket; waits while there is no room.
    pub async fn admit(&mut self, socket: Portable, permit: ConnectionPermit) {
        let gate = self.clone();
        let handshake = Handshake {
            socket,
            gate,
            permit,
        };
        self.handshakes.send(handshake).await;
    }
}

/// What one thread of the pool is to do.
pub struct HandshakeQueue(mpsc::Receiver<Handshake>);

impl HandshakeQueue {
    /// Makes handshakes until the member stops.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut in_progress = HandshakesInProgress::default();
        let work = async {
            loop {
                in_progress.wait_for_room().await;
                match self.0.recv().await {
                    Some(handshake) => in_progress.start(handshake),
                    None => break,
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }
}

/// The handshakes under way, oldest first.
#[derive(Default)]
struct HandshakesInProgress {
    tasks: JoinSet<()>,
    /// Some of them may be finished.
    started: VecDeque<(Instant, AbortHandle)>,
}

impl HandshakesInProgress {
    fn start(&mut self, handshake: Handshake) {
        let handle = self.tasks.spawn_local(make(handshake));
        self.started.push_back((Instant::now(), handle));
        if self.started.len() > 2 * HANDSHAKES_MAX {
            self.started.retain(|(_, handle)| !handle.is_finished());
        }
    }

    async fn wait_for_room(&mut self) {
        loop {
            while self.tasks.try_join_next().is_some() {}
            if self.tasks.len() < HANDSHAKES_MAX {
                return;
            }
            while let Some((_, handle)) = self.started.front()
                && handle.is_finished()
            {
                self.started.pop_front();
            }
            let Some((since, oldest)) = self.started.front() else {
                return;
            };
            let given_up = *since + EVICTABLE_AFTER;
            if Instant::now() >= given_up {
                oldest.abort();
                self.started.pop_front();
                crate::warn!("too many TLS handshakes under way; gave up the oldest"; "handshakes" => self.tasks.len());
            }
            // Whichever comes first: a place, or the end of the oldest one's time.
            let _ = tokio::time::timeout_at(given_up, self.tasks.join_next()).await;
        }
    }
}

/// Lets one connection in, or not.
async fn make(handshake: Handshake) {
    let Handshake {
        mut socket,
        mut gate,
        permit,
    } = handshake;
    // Errors of the system's mean that the connection is gone.
    if socket.attach().is_err() {
        return;
    }
    if let Some(protocols) = gate.plain
        && speaks_plainly(&socket).await
    {
        if let Ok(socket) = Socket::try_from(socket) {
            gate.dispatcher.dispatch(Accepted {
                socket,
                protocols,
                permit,
            });
        }
        return;
    }
    if let Some(established) = gate.endpoint.accept(socket, &gate.handshakes.workers).await {
        let socket = Socket::Tls(Box::new(established));
        let protocols = gate.secure;
        gate.dispatcher.dispatch(Accepted {
            socket,
            protocols,
            permit,
        });
    }
}

/// Whether the first byte is something else than TLS's.
async fn speaks_plainly(socket: &Portable) -> bool {
    let Portable::Tcp(socket) = socket else {
        return false;
    };
    let mut first = [0];
    matches!(socket.peek(&mut first).await, Ok(1) if first[0] != FIRST_BYTE)
}
