//! Clients that put new keys for as long as they are asked to, whatever happens to the members, and remember every answer.
//!
//! Each has a connection of its own, at first to a member each in turn, and one put under way. When the connection breaks or a
//! call takes too long, it goes on at the next member; a refusal is counted and it tries again where it is. A key is never put
//! twice, so what was acknowledged must be there in the end, whatever else came later.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use retcd_proto::etcdserverpb as pb;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::error::{CallError, Error};
use crate::grpc::{Connection, Method};
use crate::keys;
use crate::load;
use crate::target::Target;

/// Longer than a server takes to give up by itself (etcd: 7 seconds with default settings), so that its answer is seen.
const CALL_PATIENCE: Duration = Duration::from_secs(10);
/// A client that could not put waits this long, so that failures do not become the load.
const FAILED_PAUSE: Duration = Duration::from_millis(10);

/// What the clients do.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// The members that they may go to.
    pub(super) target: Target,
    /// How many they are.
    pub(super) clients: u32,
    /// Pause of a client between two puts.
    pub(super) pause: Duration,
    /// What all their keys begin with.
    pub(super) prefix: String,
    /// Bytes in a value.
    pub(super) value_size: usize,
}

/// An acknowledged put. Times count from the start of the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) client: u32,
    pub(super) number: u64,
    pub(super) sent: Duration,
    pub(super) acknowledged: Duration,
}

/// What the clients have seen.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// In the order of their acknowledgements.
    pub(super) puts: Vec<Put>,
    /// How often servers answered with which error.
    pub(super) refusals: BTreeMap<String, u64>,
    /// Calls without an answer within [`CALL_PATIENCE`].
    pub(super) timeouts: u64,
    /// Calls whose connection broke, and connections that could not be made.
    pub(super) broken: u64,
    /// The longest that a client waited for the end of a call, whatever that was.
    pub(super) longest: Duration,
}

impl Journal {
    /// Enters a call that was `put` if it was acknowledged.
    fn record(&mut self, put: Put, ended: &Ended) {
        self.longest = self.longest.max(put.acknowledged - put.sent);
        match ended {
            Ended::Acknowledged(_) => self.puts.push(put),
            Ended::Refused(_, error) => {
                let text = match error {
                    CallError::Status { message, .. } => message.clone(),
                    other => other.to_string(),
                };
                *self.refusals.entry(text).or_default() += 1;
            }
            Ended::Broken => self.broken += 1,
            Ended::TimedOut => self.timeouts += 1,
        }
    }

    /// Calls that were not acknowledged.
    pub(super) fn failed(&self) -> u64 {
        self.refusals.values().sum::<u64>() + self.timeouts + self.broken
    }
}

/// Clients at work.
pub(super) struct Steady {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    shape: Shape,
    origin: Instant,
    stop: AtomicBool,
    journal: Mutex<Journal>,
}

impl Shape {
    /// The key of a put.
    pub(super) fn key(&self, client: u32, number: u64) -> Bytes {
        format!("{}{client:04}/{number:012}", self.prefix).into()
    }
}

impl Steady {
    /// Starts the clients, on a thread of their own.
    ///
    /// # Errors
    /// [`Error::Io`] if the system has no descriptors left.
    pub(super) fn start(shape: Shape) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            shape,
            origin: Instant::now(),
            stop: AtomicBool::new(false),
            journal: Mutex::default(),
        });
        let (runtime, theirs) = (load::runtime()?, Arc::clone(&shared));
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let mut clients = JoinSet::new();
                for number in 0..theirs.shape.clients {
                    clients.spawn(put_until_stopped(Arc::clone(&theirs), number));
                }
                clients.join_all().await;
            });
        });
        Ok(Self { shared, thread })
    }

    /// Time since their start.
    pub(super) fn now(&self) -> Duration {
        self.shared.origin.elapsed()
    }

    /// What they have seen so far.
    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.shared.journal()
    }

    /// Lets every client end the call that it has under way; returns what they have seen.
    pub(super) fn stop(self) -> Journal {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a panic has ended the process");
        std::mem::take(&mut self.shared.journal())
    }
}

impl Shared {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().expect("a panic has ended the process")
    }
}

/// How a put ended; the connection is handed back if it can be used again.
enum Ended {
    Acknowledged(Method),
    Refused(Method, CallError),
    Broken,
    TimedOut,
}

async fn put_until_stopped(shared: Arc<Shared>, client: u32) {
    let shape = &shared.shape;
    let value = keys::value(shape.value_size, &mut Rng::with_seed(client.into()));
    let (mut at, mut connected, mut number) = (client as usize, None, 0);
    while !shared.stop.load(Ordering::Relaxed) {
        let request = load::put_request(shape.key(client, number), value.clone());
        let sent = shared.origin.elapsed();
        let ended = put(&shape.target, at, connected.take(), &request).await;
        shared.journal().record(
            Put {
                client,
                number,
                sent,
                acknowledged: shared.origin.elapsed(),
            },
            &ended,
        );
        number += 1;
        match ended {
            Ended::Acknowledged(put) => {
                connected = Some(put);
                sleep(shape.pause).await;
            }
            Ended::Refused(put, _) => {
                connected = Some(put);
                sleep(FAILED_PAUSE).await;
            }
            Ended::Broken | Ended::TimedOut => {
                at += 1;
                sleep(FAILED_PAUSE).await;
            }
        }
    }
}

/// Puts over `connected`, or over a new connection to member `at`.
async fn put(
    target: &Target,
    at: usize,
    connected: Option<Method>,
    request: &pb::PutRequest,
) -> Ended {
    let attempt = async {
        let mut put = match connected {
            Some(put) => put,
            None => match Connection::open(target, at).await {
                Ok(connection) => connection.method("/etcdserverpb.KV/Put"),
                Err(_) => return Ended::Broken,
            },
        };
        match put.call_for_len(request).await {
            Ok(_) => Ended::Acknowledged(put),
            Err(error) if error.is_refusal() => Ended::Refused(put, error),
            Err(_) => Ended::Broken,
        }
    };
    timeout(CALL_PATIENCE, attempt)
        .await
        .unwrap_or(Ended::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, closed_port, serve};

    fn shape(endpoints: &[std::net::SocketAddr]) -> Shape {
        let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
        Shape {
            target: Target::new(&endpoints, None).unwrap(),
            clients: 4,
            pause: Duration::ZERO,
            prefix: "/steady/".into(),
            value_size: 8,
        }
    }

    /// Lets the clients go on until `enough`.
    fn run(shape: &Shape, enough: impl Fn(&Journal) -> bool) -> Journal {
        let steady = Steady::start(shape.clone()).unwrap();
        while !enough(&steady.journal()) {
            thread::yield_now();
        }
        steady.stop()
    }

    #[test]
    fn clients_whose_member_is_gone_go_on_at_another() {
        let model = Model::default();
        let shape = shape(&[closed_port(), serve(&model)]);
        let all = |journal: &Journal| {
            (0..4).all(|client| journal.puts.iter().any(|put| put.client == client))
        };
        let journal = run(&shape, all);
        assert_eq!((journal.broken, journal.failed()), (2, 2));
        assert!(
            journal
                .puts
                .is_sorted_by_key(|put| put.acknowledged.max(put.sent))
        );
        let mut keys: Vec<_> = journal
            .puts
            .iter()
            .map(|put| shape.key(put.client, put.number))
            .collect();
        keys.sort();
        assert_eq!(
            keys,
            Vec::from_iter(model.keyspace().records.keys().cloned())
        );
    }

    #[test]
    fn refusals_are_counted_by_their_text() {
        let refusing = Model::refusing();
        let journal = run(&shape(&[serve(&refusing)]), |journal| journal.failed() >= 8);
        let (text, times) = journal.refusals.first_key_value().unwrap();
        assert_eq!(text, "etcdserver: too many requests");
        assert_eq!((*times, journal.puts.len()), (journal.failed(), 0));
        assert!(journal.longest > Duration::ZERO);
    }
}
