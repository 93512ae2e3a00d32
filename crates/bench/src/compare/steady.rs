//! Clients that put new keys until they are stopped, whatever happens to the members, and record
//! every result.
//!
//! Each client has one connection, initially distributed over the members round robin, and one put
//! in flight. When the connection breaks or a call times out, it continues at the next member;
//! after a refusal it retries at the same one. A key is never put again after it was acknowledged, so
//! every acknowledged key must exist in the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use retcd_proto::etcdserverpb as pb;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::disk_beside::Syncs;
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
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The parameters of the clients.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// The members to use.
    pub(super) target: Target,
    /// The number of clients.
    pub(super) clients: u32,
    /// When the clients put.
    pub(super) pacing: Pacing,
    /// The common prefix of all keys.
    pub(super) prefix: String,
    /// The size of values in bytes.
    pub(super) value_size: usize,
}

/// When clients put.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pacing {
    /// Each client pauses between two puts, so a slow cluster gets fewer.
    Pause(Duration),
    /// So many puts are due in each second, evenly spread and from one client after the other,
    /// whatever the cluster does. A client that is late sends what was due meanwhile without a
    /// pause, and again what was not acknowledged. Latencies count from the time when a put was due,
    /// so they hold what clients wait that do not wait for each other.
    PerSecond(u32),
}

/// An acknowledged put. Times count from the start of the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) client: u32,
    pub(super) number: u64,
    /// When it was due, with [`Pacing::Pause`] when it was sent.
    pub(super) due: Duration,
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
    /// Puts that were due before the stop and not acknowledged [`CALL_TIMEOUT`] after it, which is
    /// what their time of acknowledgement is here: it would have been later.
    pub(super) abandoned: Vec<Put>,
    /// The longest time until the end of a call since it was due, whatever its result.
    pub(super) longest: Duration,
}

impl Journal {
    /// Records the result of a call; `put` if it was acknowledged.
    fn record(&mut self, put: Put, ended: &Ended) {
        self.longest = self.longest.max(put.acknowledged - put.due);
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

    /// The number of calls that were not acknowledged, and of puts that were not made.
    pub(super) fn failed(&self) -> u64 {
        self.refusals.values().sum::<u64>()
            + self.timeouts
            + self.broken
            + self.abandoned.len() as u64
    }
}

/// Running clients. They end with the value, if it is not waited for them.
pub(super) struct Steady {
    shared: Arc<Shared>,
    /// Unset once it is waited for.
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    shape: Shape,
    origin: Instant,
    /// When the clients were stopped.
    stop: OnceLock<Duration>,
    journal: Mutex<Journal>,
}

impl Shape {
    /// The key of a put.
    pub(super) fn key(&self, client: u32, number: u64) -> Bytes {
        format!("{}{client:04}/{number:012}", self.prefix).into()
    }

    /// When a put is due, unless that depends on the put before.
    fn due(&self, client: u32, number: u64) -> Option<Duration> {
        let Pacing::PerSecond(rate) = self.pacing else {
            return None;
        };
        let before = number * u64::from(self.clients) + u64::from(client);
        Some(Duration::from_nanos(
            before * NANOS_PER_SECOND / u64::from(rate),
        ))
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
            stop: OnceLock::new(),
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
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The time of their start.
    pub(super) fn origin(&self) -> Instant {
        self.shared.origin
    }

    /// The time since their start.
    pub(super) fn now(&self) -> Duration {
        self.shared.origin.elapsed()
    }

    /// The results so far.
    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.shared.journal()
    }

    /// Lets every client complete its current call and make the puts that were due before; returns
    /// the results.
    pub(super) fn stop(mut self) -> Journal {
        self.end();
        let thread = self.thread.take().expect("`self` is consumed");
        thread.join().expect("a panic ends the process");
        std::mem::take(&mut self.shared.journal())
    }

    fn end(&self) {
        // The first time counts.
        let _ = self.shared.stop.set(self.now());
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().expect("a panic ends the process")
    }

    /// Whether a put that is due at `due` is not made any more.
    fn is_over(&self, due: Duration) -> bool {
        let now = self.origin.elapsed();
        let stop = self.stop.get();
        stop.is_some_and(|stop| due >= *stop || now > *stop + CALL_TIMEOUT)
    }

    /// The puts of `client` from `number` on that were due before the stop, given up now.
    fn left(&self, client: u32, number: u64) -> Vec<Put> {
        let stop = self.stop.get().copied().unwrap_or_default();
        let acknowledged = self.origin.elapsed();
        let left = (number..).map_while(|number| {
            let due = self.shape.due(client, number).filter(|due| *due < stop)?;
            Some(Put {
                client,
                number,
                due,
                acknowledged,
            })
        });
        left.collect()
    }
}

/// The `puts` acknowledged in `from..to`.
pub(super) fn between(puts: &[Put], from: Duration, to: Duration) -> &[Put] {
    let at = |time| puts.partition_point(|put| put.acknowledged < time);
    &puts[at(from)..at(to).max(at(from))]
}

/// The `puts` that were due in `from..to`.
pub(super) fn due_between(puts: &[Put], from: Duration, to: Duration) -> Vec<Put> {
    let due = puts.iter().filter(|put| (from..to).contains(&put.due));
    due.copied().collect()
}

/// The latency of each put.
pub(super) fn latencies(puts: &[Put]) -> Latencies {
    let mut latencies = Latencies::default();
    for put in puts {
        latencies.record(put.acknowledged - put.due);
    }
    latencies
}

impl Put {
    /// How much longer it took than the longest of `syncs` meanwhile. Its times count from `origin`.
    pub(super) fn beyond(&self, syncs: &Syncs, origin: Instant) -> Duration {
        let sync = syncs.longest(origin + self.due, origin + self.acknowledged);
        self.acknowledged - self.due - sync
    }
}

/// How much longer each put took than the longest of `syncs` meanwhile.
pub(super) fn beyond(puts: &[Put], syncs: &Syncs, origin: Instant) -> Latencies {
    let mut beyond = Latencies::default();
    for put in puts {
        beyond.record(put.beyond(syncs, origin));
    }
    beyond
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
    // When the client is free for its next put.
    let mut free = shared.origin.elapsed();
    loop {
        let planned = shape.due(client, number);
        match planned {
            Some(planned) => sleep_precisely(planned.max(free), shared.origin).await,
            None => sleep(free.saturating_sub(shared.origin.elapsed())).await,
        }
        let due = planned.unwrap_or_else(|| shared.origin.elapsed());
        if shared.is_over(due) {
            let left = shared.left(client, number);
            shared.journal().abandoned.extend(left);
            return;
        }
        let request = load::put_request(shape.key(client, number), value.clone());
        let ended = put(&shape.target, at, connected.take(), &request).await;
        let now = shared.origin.elapsed();
        shared.journal().record(
            Put {
                client,
                number,
                due,
                acknowledged: now,
            },
            &ended,
        );
        let pause = match (&ended, shape.pacing) {
            (Ended::Acknowledged(_), Pacing::Pause(pause)) => pause,
            (Ended::Acknowledged(_), Pacing::PerSecond(_)) => Duration::ZERO,
            _ => FAILED_PAUSE,
        };
        free = now + pause;
        if matches!(ended, Ended::Acknowledged(_)) || planned.is_none() {
            number += 1;
        }
        match ended {
            Ended::Acknowledged(put) | Ended::Refused(put, _) => connected = Some(put),
            Ended::Broken | Ended::TimedOut => at += 1,
        }
    }
}

/// Sleeps until `time` has passed since `origin`. The runtime's own timer has a resolution of a
/// millisecond, which is about what a put takes; a thread's sleep is exact to a twentieth of that.
async fn sleep_precisely(time: Duration, origin: Instant) {
    let left = time.saturating_sub(origin.elapsed());
    if !left.is_zero() {
        let slept = tokio::task::spawn_blocking(move || thread::sleep(left)).await;
        slept.expect("a panic ends the process");
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
            due: ms(at) / 2,
            acknowledged: ms(at),
        };
        acknowledged.into_iter().enumerate().map(put).collect()
    }

    fn shape(endpoints: &[std::net::SocketAddr]) -> Shape {
        Shape {
            target: target_at(endpoints),
            clients: 4,
            pacing: Pacing::Pause(Duration::ZERO),
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
                .is_sorted_by_key(|put| put.acknowledged.max(put.due))
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
    fn clients_end_with_the_value() {
        let model = Model::default();
        let steady = Steady::start(shape(&[serve(&model)])).unwrap();
        let theirs = Arc::downgrade(&steady.shared);
        while steady.journal().puts.is_empty() {
            thread::yield_now();
        }
        drop(steady);
        while theirs.upgrade().is_some() {
            thread::yield_now();
        }
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
    fn puts_at_a_rate_are_all_made_and_counted_from_when_they_were_due() {
        let model = Model::default();
        let shape = Shape {
            pacing: Pacing::PerSecond(2_000),
            ..shape(&[closed_port(), serve(&model)])
        };
        let steady = Steady::start(shape.clone()).unwrap();
        while steady.journal().puts.len() < 100 {
            thread::yield_now();
        }
        // Nothing is answered while it is held, and nothing that was due meanwhile is left out.
        let held = model.keyspace();
        let from = steady.now();
        thread::sleep(ms(50));
        let until = steady.now();
        drop(held);
        let journal = steady.stop();
        assert_eq!(journal.abandoned, []);
        let mut puts = journal.puts;
        puts.sort_by_key(|put| put.due);
        for (at, put) in puts.iter().enumerate() {
            assert_eq!(shape.due(put.client, put.number), Some(put.due));
            assert_eq!((put.number * 4 + u64::from(put.client)) as usize, at);
            assert_eq!(put.due, Duration::from_micros(500 * at as u64));
        }
        let meanwhile = due_between(&puts, from, until);
        assert!(meanwhile.len() >= 99, "{}", meanwhile.len());
        let answered = meanwhile.iter().map(|put| put.acknowledged);
        assert!(answered.min() >= Some(until), "{meanwhile:?}");
        assert!(latencies(&meanwhile).max() >= ms(45));
    }

    #[test]
    fn puts_that_are_never_answered_are_abandoned() {
        let shape = Shape {
            pacing: Pacing::PerSecond(1_000),
            ..shape(&[closed_port()])
        };
        let shared = Shared {
            shape,
            origin: Instant::now() - ms(300),
            stop: OnceLock::new(),
            journal: Mutex::default(),
        };
        assert!(!shared.is_over(ms(5)));
        shared.stop.set(ms(100)).unwrap();
        assert!(!shared.is_over(ms(99)) && shared.is_over(ms(100)));
        // Of the four clients each has a put every four milliseconds.
        let left = [(0, 20), (1, 24), (0, 25)].map(|(client, number)| shared.left(client, number));
        assert_eq!(left.each_ref().map(Vec::len), [5, 1, 0]);
        assert_eq!(left[1][0].due, ms(97));
        assert!(left[1][0].acknowledged >= ms(300));
    }

    #[test]
    fn puts_between_two_times() {
        let puts = puts([10, 20, 30]);
        assert_eq!(between(&puts, ms(10), ms(30)).len(), 2);
        assert!(between(&puts, ms(31), ms(90)).is_empty());
        assert!(between(&puts, ms(20), ms(10)).is_empty());
        assert_eq!(due_between(&puts, ms(5), ms(15)), puts[..2]);
    }

    #[test]
    fn latencies_are_from_the_due_time_to_the_acknowledgement() {
        assert_eq!(latencies(&puts([2_000])).max().as_millis(), 1_000);
    }
}
