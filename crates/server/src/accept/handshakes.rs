//! TLS handshakes, on threads of their own.
//!
//! A handshake costs as much as dozens of requests. On other threads than the requests', a flood of
//! new connections does not slow down those that are established.
//!
//! Each thread works on a bounded number of handshakes. When it has that many, it closes the
//! connection whose handshake is oldest, but only after [`EVICTABLE_AFTER`]; until then new
//! connections wait in the listener's backlog. So neither idle connections nor a flood of real ones
//! keep everybody else out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use super::dispatch::{Accepted, AcceptedStream, Dispatcher, Protocols, RoundRobin};
use super::limit::ConnectionPermit;
use super::stream::Stream;
use crate::log::Throttle;
use crate::tls::{Endpoint, HANDSHAKE_RECORD};
use crate::workers::Workers;

/// Handshakes in progress on one thread.
const HANDSHAKES_MAX: usize = 1024;
/// Connections that wait for one thread.
const QUEUE_MAX: usize = 64;
/// How old a handshake must be to make room for another.
const EVICTABLE_AFTER: Duration = Duration::from_secs(1);
/// Time for the first byte where it decides whether there is TLS: what a client without TLS has for
/// the head of its first request on other listeners.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(300);

/// What a listener with TLS does with connections.
#[derive(Clone)]
pub(super) struct TlsAcceptor {
    pub(super) endpoint: Arc<Endpoint>,
    /// What connections with TLS may speak.
    pub(super) protocols: Protocols,
    /// What connections without TLS may speak; none if they are refused.
    pub(super) plain: Option<Protocols>,
    pub(super) dispatcher: Dispatcher,
    pub(super) handshakes: HandshakePool,
}

impl TlsAcceptor {
    /// Queues a connection for its handshake; waits while the queue is full.
    pub(super) async fn accept(&self, stream: Stream, permit: ConnectionPermit) {
        let acceptor = self.clone();
        let handshake = Handshake {
            stream,
            permit,
            acceptor,
        };
        self.handshakes.submit(handshake).await;
    }
}

/// The queues of the threads that make handshakes; connections go to them round robin.
#[derive(Clone)]
pub(crate) struct HandshakePool {
    threads: RoundRobin<mpsc::Sender<Handshake>>,
    workers: Workers,
}

impl HandshakePool {
    /// A pool of so many threads, each of which has to [run](HandshakeQueue::run) one of the
    /// queues. Look-ups in DNS are made by `workers`.
    pub(crate) fn new(threads: usize, workers: Workers) -> (HandshakePool, Vec<HandshakeQueue>) {
        let (senders, queues): (Vec<_>, Vec<_>) = (0..threads)
            .map(|_| mpsc::channel(QUEUE_MAX))
            .map(|(sender, queue)| (sender, HandshakeQueue(queue)))
            .unzip();
        let pool = HandshakePool {
            threads: RoundRobin::new(senders),
            workers,
        };
        (pool, queues)
    }

    async fn submit(&self, mut handshake: Handshake) {
        if handshake.stream.deregister().is_err() {
            // The operating system has lost the connection.
            return;
        }
        // Fails when the thread has stopped; the connection is closed then.
        let _ = self.threads.next().send(handshake).await;
    }
}

/// The handshakes that one thread is to make.
pub(crate) struct HandshakeQueue(mpsc::Receiver<Handshake>);

impl HandshakeQueue {
    /// Makes handshakes until the member stops. Runs in a `LocalSet`.
    pub(crate) async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut in_progress = InProgress::default();
        let work = async {
            loop {
                in_progress.wait_for_room().await;
                match self.0.recv().await {
                    Some(handshake) => in_progress.start(handshake.run()),
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

/// Handshakes in progress.
#[derive(Default)]
struct InProgress {
    tasks: JoinSet<()>,
    /// Oldest first; may contain some that are finished.
    started: VecDeque<(Instant, AbortHandle)>,
    evictions: Throttle,
}

impl InProgress {
    fn start(&mut self, handshake: impl Future<Output = ()> + 'static) {
        let handle = self.tasks.spawn_local(handshake);
        self.started.push_back((Instant::now(), handle));
        if self.started.len() > 2 * HANDSHAKES_MAX {
            self.started.retain(|(_, handle)| !handle.is_finished());
        }
    }

    /// Waits until another handshake may start, and aborts the oldest one if it is old enough.
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
            let Some((started, _)) = self.started.front() else {
                return;
            };
            let evictable = *started + EVICTABLE_AFTER;
            if timeout_at(evictable, self.tasks.join_next()).await.is_err() {
                self.evict_oldest().await;
            }
        }
    }

    /// Ends when one of them has, so that no other makes room in its place.
    async fn evict_oldest(&mut self) {
        let Some((_, oldest)) = self.started.pop_front() else {
            return;
        };
        oldest.abort();
        if self.evictions.allow() {
            crate::warn!("too many TLS handshakes under way; gave up the oldest"; "handshakes" => self.tasks.len());
        }
        self.tasks.join_next().await;
    }
}

/// A connection whose handshake is to be made.
struct Handshake {
    stream: Stream,
    permit: ConnectionPermit,
    acceptor: TlsAcceptor,
}

impl Handshake {
    /// Makes the handshake and dispatches the connection, which is closed if it fails.
    async fn run(self) {
        let Handshake {
            mut stream,
            permit,
            acceptor,
        } = self;
        if stream.register().is_err() {
            return;
        }
        let plain = match acceptor.plain {
            Some(plain) => match is_plain(&stream).await {
                Some(is_plain) => is_plain.then_some(plain),
                None => return,
            },
            None => None,
        };
        let (stream, protocols) = match plain {
            Some(plain) => (AcceptedStream::Plain(stream), plain),
            None => match acceptor.tls(stream).await {
                Some(stream) => (stream, acceptor.protocols),
                None => return,
            },
        };
        acceptor.dispatcher.dispatch(Accepted {
            stream,
            protocols,
            permit,
        });
    }
}

impl TlsAcceptor {
    async fn tls(&self, stream: Stream) -> Option<AcceptedStream> {
        let remote = stream.remote();
        let workers = &self.handshakes.workers;
        let established = self.endpoint.accept(stream, remote, workers).await?;
        // The handshake ends with the client's message, to which the server has nothing to answer.
        // A client with Nagle's algorithm waits for the acknowledgement before its first request.
        established.stream.get_ref().0.acknowledge();
        Some(AcceptedStream::Tls(Box::new(established)))
    }
}

/// Whether the client has begun to speak something else than TLS; none if it has said nothing for
/// too long.
async fn is_plain(stream: &Stream) -> Option<bool> {
    let first = timeout(FIRST_BYTE_TIMEOUT, stream.peek_byte()).await.ok()?;
    Some(first.is_some_and(|first| first != HANDSHAKE_RECORD))
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::net::Ipv4Addr;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_handshake_makes_room_for_one() {
        let fill = async {
            let mut in_progress = InProgress::default();
            for _ in 0..HANDSHAKES_MAX {
                in_progress.wait_for_room().await;
                in_progress.start(pending());
            }
            let full = Instant::now();
            in_progress.wait_for_room().await;
            assert_eq!(full.elapsed().as_secs(), EVICTABLE_AFTER.as_secs());
            assert_eq!(in_progress.tasks.len(), HANDSHAKES_MAX - 1);
            assert_eq!(in_progress.started.len(), HANDSHAKES_MAX - 1);
        };
        LocalSet::new().run_until(fill).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (accepted, _) = listener.accept().await.unwrap();
        let begun = Instant::now();
        assert_eq!(is_plain(&Stream::Tcp(accepted)).await, None);
        assert_eq!(begun.elapsed().as_secs(), FIRST_BYTE_TIMEOUT.as_secs());
        drop(client);
    }
}
