//! The threads that make TLS handshakes.
//!
//! A handshake costs as much as dozens of requests, so it is not made where requests are served: however many
//! strangers knock, connections that are in keep their threads. An encrypted stream is then dealt to a connection
//! thread like a plain socket.
//!
//! A thread works at a bounded number of handshakes. When all places are taken, whoever has kept the server waiting longest
//! is hung up on, but nobody before [`PATIENCE`]; until then newcomers wait in the listener's queue. So neither idle
//! connections nor a storm of real ones keep everybody else out.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet, LocalSet};
use tokio::time::Instant;

use super::connections::{Accepted, Dealer, Protocols, Socket};
use super::descriptors::Seat;
use crate::tls::{Endpoint, FIRST_BYTE, Portable};
use crate::workers::Workers;

/// Handshakes under way on one thread.
const HANDSHAKES_MAX: usize = 1024;
/// Accepted sockets that wait for a thread.
const ARRIVALS_MAX: usize = 64;
/// How long a handshake is sure of its place.
const PATIENCE: Duration = Duration::from_secs(1);
/// Threads at the most.
const THREADS_MAX: usize = 8;

/// What a listener with TLS does with sockets.
#[derive(Clone)]
pub struct TlsGate {
    /// Certificates and rules.
    pub endpoint: Arc<Endpoint>,
    /// What encrypted connections may speak.
    pub secure: Protocols,
    /// What plain connections on the same port may speak, if there may be any.
    pub plain: Option<Protocols>,
    /// Takes them afterwards.
    pub dealer: Dealer,
    /// Makes the handshakes.
    pub handshakers: Handshakers,
}

/// A socket on its way through a gate.
struct Arrival {
    socket: Portable,
    gate: TlsGate,
    seat: Seat,
}

/// The threads' entrances; sockets go to them in turn.
#[derive(Clone)]
pub struct Handshakers {
    threads: Arc<[mpsc::Sender<Arrival>]>,
    next: usize,
    workers: Workers,
}

impl Handshakers {
    /// Starts the threads, for half of the processors, or none if there are none; they end when the member stops. `workers`
    /// ask DNS for them.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(
        processors: usize,
        workers: Workers,
        stopping: &watch::Receiver<bool>,
    ) -> io::Result<(Handshakers, Vec<JoinHandle<()>>)> {
        let count = processors.div_ceil(2).min(THREADS_MAX);
        let (mut threads, mut handles) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let stopping = stopping.clone();
            let run = move || LocalSet::new().block_on(&runtime, run(arrivals, stopping));
            let named = std::thread::Builder::new().name(format!("tls-{number}"));
            handles.push(named.spawn(run)?);
            threads.push(sender);
        }
        let handshakers = Handshakers {
            threads: threads.into(),
            next: 0,
            workers,
        };
        Ok((handshakers, handles))
    }

    async fn send(&mut self, arrival: Arrival) {
        self.next = (self.next + 1) % self.threads.len();
        // A thread that has stopped closes what it is given.
        let _ = self.threads[self.next].send(arrival).await;
    }
}

impl TlsGate {
    /// Takes an accepted socket; waits while there is no room.
    pub async fn admit(&mut self, socket: Portable, seat: Seat) {
        let gate = self.clone();
        let arrival = Arrival { socket, gate, seat };
        self.handshakers.send(arrival).await;
    }
}

async fn run(mut arrivals: mpsc::Receiver<Arrival>, mut stopping: watch::Receiver<bool>) {
    let mut places = Places::default();
    let work = async {
        loop {
            places.make_room().await;
            match arrivals.recv().await {
                Some(arrival) => places.take(arrival),
                None => break,
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

/// The handshakes under way, oldest first.
#[derive(Default)]
struct Places {
    tasks: JoinSet<()>,
    /// Some of them may be finished.
    started: VecDeque<(Instant, AbortHandle)>,
}

impl Places {
    fn take(&mut self, arrival: Arrival) {
        let handle = self.tasks.spawn_local(receive(arrival));
        self.started.push_back((Instant::now(), handle));
        if self.started.len() > 2 * HANDSHAKES_MAX {
            self.started.retain(|(_, handle)| !handle.is_finished());
        }
    }

    async fn make_room(&mut self) {
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
            let given_up = *since + PATIENCE;
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
async fn receive(arrival: Arrival) {
    let Arrival {
        mut socket,
        mut gate,
        seat,
    } = arrival;
    // Errors of the system's mean that the connection is gone.
    if socket.attach().is_err() {
        return;
    }
    if let Some(protocols) = gate.plain
        && speaks_plainly(&socket).await
    {
        if let Ok(socket) = Socket::try_from(socket) {
            gate.dealer.deal(Accepted {
                socket,
                protocols,
                seat,
            });
        }
        return;
    }
    if let Some(established) = gate
        .endpoint
        .accept(socket, &gate.handshakers.workers)
        .await
    {
        let socket = Socket::Tls(Box::new(established));
        let protocols = gate.secure;
        gate.dealer.deal(Accepted {
            socket,
            protocols,
            seat,
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
