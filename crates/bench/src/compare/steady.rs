//! Clients that put new keys until they are stopped, whatever happens to the members, and record
//! every result.
//!
//! Each client has one connection, initially distributed over the members round robin, and one put
//! in flight. When the connection breaks or a call times out, it continues at the next member;
//! after a refusal it retries at the same one. A key is never put twice, so every acknowledged key
//! must exist in the end.

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
use crate::stats::Latencies;
use crate::target::Target;

/// Longer than a server's own timeout (etcd: 7 seconds by default), so that its answer is received.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed put, so that failures do not become the load.
const FAILED_PAUSE: Duration = Duration::from_millis(10);

/// The parameters of the clients.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// The members to use.
    pub(super) target: Target,
    /// The number of clients.
    pub(super) clients: u32,
    /// The pause of a client between two puts.
    pub(super) pause: Duration,
    /// The common prefix of all keys.
    pub(super) prefix: String,
    /// The size of values in bytes.
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

/// The recorded results.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// In order of acknowledgement.
    pub(super) puts: Vec<Put>,
    /// The number of answers per error.
    pub(super) refusals: BTreeMap<String, u64>,
    /// Calls without a response within [`CALL_TIMEOUT`].
    pub(super) timeouts: u64,
    /// Calls whose connection broke, and failed connections.
    pub(super) broken: u64,
    /// The longest time between the start and the end of a call, whatever its result.
    pub(super) longest: Duration,
}

impl Journal {
    /// Records the result of a call; `put` if it was acknowledged.
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

    /// The number of calls that were not acknowledged.
    pub(super) fn failed(&self) -> u64 {
        self.refusals.values().sum::<u64>() + self.timeouts + self.broken
    }
}

/// Running clients.
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
    /// Starts the clients on a new thread.
    ///
    /// # Errors
    /// [`Error::Io`] if no file descriptor is available.
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

    /// The time since their start.
    pub(super) fn now(&self) -> Duration {
        self.shared.origin.elapsed()
    }

    /// The results so far.
    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.shared.journal()
    }

    /// Lets every client complete its current call; returns the results.
    pub(super) fn stop(self) -> Journal {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a panic ends the process");
        std::mem::take(&mut self.shared.journal())
    }
}

impl Shared {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().expect("a panic ends the process")
    }
}

/// The `puts` acknowledged in `from..to`.
pub(super) fn between(puts: &[Put], from: Duration, to: Duration) -> &[Put] {
    let at = |time| puts.partition_point(|put| put.acknowledged < time);
    &puts[at(from)..at(to).max(at(from))]
}

/// The latency of each put.
pub(super) fn latencies(puts: &[Put]) -> Latencies {
    let mut latencies = Latencies::default();
    for put in puts {
        latencies.record(put.acknowledged - put.sent);
    }
    latencies
}

/// How a put ended. The connection is returned if it is still usable.
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
    timeout(CALL_TIMEOUT, attempt)
        .await
        .unwrap_or(Ended::TimedOut)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Model, closed_port, serve, target_at};

    pub(in crate::compare) fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Puts acknowledged at these milliseconds.
    pub(in crate::compare) fn puts(acknowledged: impl IntoIterator<Item = u64>) -> Vec<Put> {
        let put = |(number, at)| Put {
            client: 0,
            number: number as u64,
            sent: ms(at) / 2,
            acknowledged: ms(at),
        };
        acknowledged.into_iter().enumerate().map(put).collect()
    }

    fn shape(endpoints: &[std::net::SocketAddr]) -> Shape {
        Shape {
            target: target_at(endpoints),
            clients: 4,
            pause: Duration::ZERO,
            prefix: "/steady/".into(),
            value_size: 8,
        }
    }

    /// Runs the clients until `enough`.
    fn run(shape: &Shape, enough: impl Fn(&Journal) -> bool) -> Journal {
        let steady = Steady::start(shape.clone()).unwrap();
        while !enough(&steady.journal()) {
            thread::yield_now();
        }
        steady.stop()
    }

    #[test]
    fn clients_move_to_another_member() {
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

    #[test]
    fn puts_between_two_times() {
        let puts = puts([10, 20, 30]);
        assert_eq!(between(&puts, ms(10), ms(30)).len(), 2);
        assert!(between(&puts, ms(31), ms(90)).is_empty());
        assert!(between(&puts, ms(20), ms(10)).is_empty());
    }

    #[test]
    fn latencies_are_from_sending_to_acknowledgement() {
        assert_eq!(latencies(&puts([2_000])).max().as_millis(), 1_000);
    }
}
