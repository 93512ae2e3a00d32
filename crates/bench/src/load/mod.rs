//! Runs one workload against one cluster: connections, clients, phases, and the final tally.
//!
//! The load is a closed loop: each client sends its next request when the last one has completed.
//! So the load adapts to the server, and latencies include the queueing that clients cause each
//! other.
//!
//! ```text
//!  Setup ────────> Warm ─────────> Measure ──────────────────────────> Stop
//!  connect,        load, not       `sample()`, then completions are    `sample()`, clients are
//!  leases,         counted         counted until the time or the       dropped immediately
//!  watches                         number of operations is reached
//! ```
//!
//! Connections are distributed over the members round robin, like the calls of etcd's own clients.
//! Each thread has a current-thread runtime and its own share of connections and clients, and keeps
//! its own tally; threads share only [`Pace`].

mod clients;
mod json;
mod pace;
mod v2;
mod watchers;
mod zipf;

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{CallError, Error};
use crate::http1::Http1;
use crate::keys::KeySpace;
use crate::procfs;
use crate::progress::Progress;
use crate::read_rate::ReadRate;
use crate::stats::Latencies;
use crate::target::Target;
use crate::workload::{Kind, Workload};

pub(crate) use clients::{keep_alive, open_lease, put_request};
use pace::{Pace, Phase};
use watchers::FanOut;
pub(crate) use watchers::{create_watch, next_events};

/// The number of clients over HTTP/1.1, unless the workload sets it.
const HTTP1_CLIENTS_DEFAULT: u32 = 64;

/// Why a workload or scenario is refused with [`Plan::read_rate`].
pub(crate) const NO_READ_RATE: &str = "does not go with --read-rate, which is for list and stream";

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    /// After this time.
    Time(Duration),
    /// After this many operations.
    Operations(u64),
}

/// The parameters of a run, except for its target.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The workload.
    pub(crate) workload: Workload,
    /// The number of clients, unless the workload sets it.
    pub(crate) clients: u32,
    /// The number of connections shared by the clients.
    pub(crate) connections: u32,
    /// The number of generator threads.
    pub(crate) threads: u32,
    /// The number of streams shared by the watchers of [`Kind::Watch`].
    pub(crate) streams: u32,
    /// The number of writers of [`Kind::Watch`], unless the workload sets it.
    pub(crate) writers: u32,
    /// The key space.
    pub(crate) keys: KeySpace,
    /// The size of values in bytes.
    pub(crate) value_size: usize,
    /// How much of its responses each client takes per second, all at once if it is not set.
    pub(crate) read_rate: Option<ReadRate>,
    /// Load before the first counted operation.
    pub(crate) warmup: Duration,
    /// When to end.
    pub(crate) extent: Extent,
    /// The seed of all random choices.
    pub(crate) seed: u64,
}

/// The result of a run.
#[derive(Default)]
pub(crate) struct Outcome<S> {
    /// The latency of every counted operation.
    pub(crate) latencies: Latencies,
    /// The number of refused calls.
    pub(crate) errors: u64,
    /// The first refusal.
    pub(crate) first_error: Option<CallError>,
    /// Length of the measured phase.
    pub(crate) elapsed: Duration,
    /// The sample taken at the start of the measured phase.
    pub(crate) before: S,
    /// The sample taken at its end.
    pub(crate) after: S,
    /// CPU time used by this process in the measured phase.
    pub(crate) generator_cpu: Duration,
}

impl<S> Outcome<S> {
    /// Operations per second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.count() as f64 / self.elapsed.as_secs_f64()
    }
}

impl Outcome<Duration> {
    /// Adds a later run. [`Outcome::after`] grows by what was used meanwhile, not between the runs.
    pub(crate) fn add(&mut self, later: Self) {
        self.latencies.add(&later.latencies);
        self.errors += later.errors;
        self.first_error = self.first_error.take().or(later.first_error);
        self.elapsed += later.elapsed;
        self.after += later.after.saturating_sub(later.before);
        self.generator_cpu += later.generator_cpu;
    }
}

/// State shared by the threads of a run.
struct Shared {
    target: Target,
    plan: Plan,
    pace: Pace,
    fan_out: FanOut,
}

/// The counters of one thread.
#[derive(Default)]
struct Tally {
    latencies: Latencies,
    errors: u64,
    first_error: Option<CallError>,
}

impl Tally {
    fn refuse(&mut self, error: CallError) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    fn add(&mut self, other: Tally) {
        self.latencies.add(&other.latencies);
        self.errors += other.errors;
        if let Some(error) = other.first_error {
            self.first_error.get_or_insert(error);
        }
    }
}

/// A thread's share of connections, clients, watchers and streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    /// The index of its first connection among all.
    first_connection: u32,
    connections: u32,
    /// The index of its first client among all.
    first_client: u32,
    clients: u32,
    watchers: u32,
    streams: u32,
}

/// Messages from the threads to the conductor.
enum Event {
    Ready,
    /// All clients of the thread have ended: no operations are left, or the thread returns an
    /// error.
    Ended,
}

impl Plan {
    /// The length of the measured phase if it is limited by time, else zero.
    pub(crate) fn duration(&self) -> Duration {
        match self.extent {
            Extent::Time(time) => time,
            Extent::Operations(_) => Duration::ZERO,
        }
    }

    /// The number of clients that send requests.
    fn callers(&self) -> u32 {
        let usual = match self.workload.kind {
            Kind::Watch(_) | Kind::V2Watch(_) | Kind::JsonWatch(_) => self.writers,
            kind if kind.is_http1() => HTTP1_CLIENTS_DEFAULT,
            _ => self.clients,
        };
        self.workload.clients.unwrap_or(usual)
    }

    /// The number of streams that the watchers share.
    fn streams(&self) -> u32 {
        match self.workload.kind {
            Kind::Watch(watchers) => self.streams.min(watchers),
            _ => 0,
        }
    }

    /// The number of connections that clients and streams share.
    fn shared_connections(&self) -> u32 {
        self.connections.min(self.callers().max(self.streams()))
    }

    /// The number of connections that are open at the same time.
    pub(crate) fn open_connections(&self) -> u64 {
        let callers = u64::from(self.callers());
        let shared = u64::from(self.shared_connections());
        match self.workload.kind {
            kind if kind.is_http1() => u64::from(kind.watchers()) + callers,
            Kind::Connect => callers + shared,
            _ => shared,
        }
    }

    fn shares(&self) -> Vec<Share> {
        let (callers, watchers) = (self.callers(), self.workload.kind.watchers());
        let (streams, connections) = (self.streams(), self.shared_connections());
        let mut threads = self.threads.min(connections).min(callers);
        if streams > 0 {
            threads = threads.min(streams);
        }
        let share = |at| Share {
            first_connection: part_start(connections, threads, at),
            connections: part(connections, threads, at),
            first_client: part_start(callers, threads, at),
            clients: part(callers, threads, at),
            watchers: part(watchers, threads, at),
            streams: part(streams, threads, at),
        };
        (0..threads).map(share).collect()
    }

    fn check(&self) -> Result<(), Error> {
        let usage = |text: String| Err(Error::Usage(text));
        match self.workload.kind {
            kind if self.read_rate.is_some() && !kind.takes_read_rate() => {
                usage(format!("{} {NO_READ_RATE}", self.workload))
            }
            Kind::List(keys) | Kind::Stream(keys) | Kind::Page(keys) | Kind::JsonList(keys)
                if u64::from(keys) > self.keys.count =>
            {
                usage(format!(
                    "{} needs a key space of {keys} keys, not {}",
                    self.workload, self.keys.count
                ))
            }
            kind if kind.is_v2() && !self.keys.prefix.starts_with('/') => usage(format!(
                "{} needs a prefix with a slash in front, not {}",
                self.workload, self.keys.prefix
            )),
            Kind::Watch(_) | Kind::V2Watch(_) | Kind::JsonWatch(_)
                if self.value_size < watchers::STAMP_LEN =>
            {
                usage(format!(
                    "{} needs values of at least {} bytes, which carry the time of sending",
                    self.workload,
                    watchers::STAMP_LEN
                ))
            }
            Kind::Txn if u64::from(self.callers()) > self.keys.count => usage(format!(
                "{} needs a key for each of its {} clients, not {}",
                self.workload,
                self.callers(),
                self.keys.count
            )),
            _ => Ok(()),
        }
    }
}

/// Share `at` of `total` divided into `parts`; shares differ by at most one.
pub(crate) fn part(total: u32, parts: u32, at: u32) -> u32 {
    total / parts + u32::from(at < total % parts)
}

/// Where share `at` begins: the sum of the shares before it.
pub(crate) fn part_start(total: u32, parts: u32, at: u32) -> u32 {
    total / parts * at + at.min(total % parts)
}

/// Runs `plan` against `target`; `sample` is called at the start and the end of the measured phase.
///
/// # Errors
/// [`Error::Usage`] if the plan is contradictory; [`Error::Io`] and [`Error::Call`] if the server
/// cannot be reached, exits, or refuses every call; and errors of `sample`.
pub(crate) fn run<S>(
    target: &Target,
    plan: &Plan,
    progress: &Progress,
    mut sample: impl FnMut() -> Result<S, Error>,
) -> Result<Outcome<S>, Error> {
    plan.check()?;
    if plan.workload.kind.is_http1() && (target.tls().is_some() || target.token().is_some()) {
        return Err(Error::Usage(format!(
            "{} goes without TLS and without users of API v3",
            plan.workload
        )));
    }
    let shared = Arc::new(Shared {
        target: target.clone(),
        plan: plan.clone(),
        pace: Pace::new(plan.extent),
        fan_out: FanOut::new(plan),
    });
    let (events, heard) = mpsc::channel();
    let start = |share| {
        let (shared, events) = (Arc::clone(&shared), events.clone());
        thread::spawn(move || work(&shared, share, &events))
    };
    let threads: Vec<_> = plan.shares().into_iter().map(start).collect();
    let measured = conduct(
        plan,
        &shared.pace,
        threads.len(),
        &heard,
        progress,
        &mut sample,
    );
    shared.pace.enter(Phase::Stop);
    let mut total = Tally::default();
    for thread in threads {
        // A thread's error is the cause of what the conductor saw, so it is reported first.
        total.add(thread.join().expect("a panic ends the process")?);
    }
    let measured = measured?.ok_or_else(|| {
        Error::Usage(format!("{}: the load ended before its time", plan.workload))
    })?;
    if total.latencies.count() == 0
        && let Some(source) = total.first_error
    {
        let what = format!("{}: every call failed", plan.workload);
        return Err(Error::Call { what, source });
    }
    Ok(Outcome {
        latencies: total.latencies,
        errors: total.errors,
        first_error: total.first_error,
        elapsed: measured.elapsed,
        before: measured.before,
        after: measured.after,
        generator_cpu: measured.generator_cpu,
    })
}

struct Measured<S> {
    elapsed: Duration,
    before: S,
    after: S,
    generator_cpu: Duration,
}

/// Takes the threads through the phases; `None` if one of them ended early.
fn conduct<S>(
    plan: &Plan,
    pace: &Pace,
    threads: usize,
    heard: &Receiver<Event>,
    progress: &Progress,
    sample: &mut impl FnMut() -> Result<S, Error>,
) -> Result<Option<Measured<S>>, Error> {
    for _ in 0..threads {
        match heard.recv() {
            Ok(Event::Ready) => {}
            _ => return Ok(None),
        }
    }
    if !plan.warmup.is_zero() {
        pace.enter(Phase::Warm);
        progress.show("warming up");
        if !wait(heard, threads, Some(plan.warmup), |_| {}).timed_out {
            return Ok(None);
        }
    }
    let own = std::process::id();
    let before = sample()?;
    let generator_before = procfs::cpu_time(own)?;
    let began = Instant::now();
    pace.enter(Phase::Measure);
    let limit = match plan.extent {
        Extent::Time(time) => Some(time),
        Extent::Operations(_) => None,
    };
    let waited = wait(heard, threads, limit, |passed| {
        progress.show(&measuring(passed, plan.extent))
    });
    pace.enter(Phase::Stop);
    let elapsed = began.elapsed();
    let after = sample()?;
    let generator_cpu = procfs::cpu_time(own)?.saturating_sub(generator_before);
    let complete = waited.timed_out || limit.is_none();
    Ok(complete.then_some(Measured {
        elapsed,
        before,
        after,
        generator_cpu,
    }))
}

struct Waited {
    timed_out: bool,
}

/// Waits until `limit` has passed or all threads have ended.
fn wait(
    heard: &Receiver<Event>,
    threads: usize,
    limit: Option<Duration>,
    tick: impl Fn(Duration),
) -> Waited {
    const TICK: Duration = Duration::from_millis(250);
    let began = Instant::now();
    let mut running = threads;
    while running > 0 {
        let passed = began.elapsed();
        tick(passed);
        let left = limit.map_or(TICK, |limit| limit.saturating_sub(passed).min(TICK));
        if left.is_zero() {
            return Waited { timed_out: true };
        }
        match heard.recv_timeout(left) {
            // A thread that ends early has failed: stop the others.
            Ok(Event::Ended) if limit.is_some() => break,
            Ok(Event::Ended) => running -= 1,
            Ok(Event::Ready) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Waited { timed_out: false }
}

fn measuring(passed: Duration, extent: Extent) -> String {
    match extent {
        Extent::Time(limit) => format!(
            "measuring, {:.0} of {:.0} s",
            passed.as_secs_f64(),
            limit.as_secs_f64()
        ),
        Extent::Operations(count) => format!(
            "measuring {count} operations, {:.0} s",
            passed.as_secs_f64()
        ),
    }
}

/// The body of a generator thread.
fn work(shared: &Arc<Shared>, share: Share, events: &Sender<Event>) -> Result<Tally, Error> {
    // The receiver is gone only if the conductor has failed, which it reports.
    let tell = |event| drop(events.send(event));
    let result = runtime()
        .and_then(|runtime| runtime.block_on(clients::serve(shared, share, || tell(Event::Ready))));
    tell(Event::Ended);
    result
}

/// Opens an HTTP/1.1 connection of its own for client `number` of all.
async fn open_http1(shared: &Shared, number: u32) -> Result<Http1, Error> {
    let opened = Http1::open(&shared.target, number as usize).await;
    opened.map_err(Error::call(shared.plan.workload.to_string()))
}

/// The connections of a thread's writers, each with the client's number.
async fn open_writers(shared: &Shared, share: Share) -> Result<Vec<(Http1, u32)>, Error> {
    let mut writers = Vec::new();
    for number in share.first_client..share.first_client + share.clients {
        writers.push((open_http1(shared, number).await?, number));
    }
    Ok(writers)
}

/// Creates a current-thread runtime.
///
/// # Errors
/// [`Error::Io`] if no file descriptor is available.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("cannot start a runtime"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(workload: &str) -> Plan {
        Plan {
            workload: workload.parse().unwrap(),
            clients: 256,
            connections: 16,
            threads: 3,
            streams: 4,
            writers: 8,
            keys: KeySpace {
                prefix: "/bench/".into(),
                count: 500,
            },
            value_size: 256,
            read_rate: None,
            warmup: Duration::ZERO,
            extent: Extent::Operations(1),
            seed: 0,
        }
    }

    #[test]
    fn connections_are_shared_or_one_for_each_client_and_watcher() {
        for (workload, connections) in [
            ("put", 16),
            ("put@3", 3),
            ("watch-100", 8),
            ("watch-100@1", 4),
            ("connect@20", 36),
            ("json-put", 64),
            ("v2-watch-1000@5", 1005),
            ("json-watch-4294967295", 4_294_967_303),
        ] {
            assert_eq!(plan(workload).open_connections(), connections, "{workload}");
        }
    }

    #[test]
    fn shares_add_up_and_follow_each_other() {
        for workload in [
            "put",
            "put@1",
            "put@2",
            "put@17",
            "watch-1",
            "watch-100",
            "watch-7@1",
            "watch-3@50",
        ] {
            let plan = plan(workload);
            let shares = plan.shares();
            let sum = |of: fn(&Share) -> u32| shares.iter().map(of).sum::<u32>();
            assert_eq!(sum(|share| share.clients), plan.callers(), "{workload}");
            assert!(
                sum(|share| share.connections) <= plan.connections,
                "{workload}"
            );
            let (mut next, mut next_connection) = (0, 0);
            for share in &shares {
                assert_eq!(share.first_client, next, "{workload}");
                assert_eq!(share.first_connection, next_connection, "{workload}");
                assert!(
                    share.connections > 0 && share.clients > 0,
                    "{workload}: {share:?}"
                );
                next += share.clients;
                next_connection += share.connections;
            }
            if let Kind::Watch(watchers) = plan.workload.kind {
                assert_eq!(sum(|share| share.watchers), watchers, "{workload}");
                assert!(
                    shares
                        .iter()
                        .all(|share| share.streams > 0 && share.watchers >= share.streams),
                    "{workload}"
                );
            }
        }
    }

    #[test]
    fn plans_that_contradict_themselves_are_refused() {
        assert!(plan("list-500").check().is_ok());
        assert!(plan("list-501").check().is_err());
        assert!(plan("stream-501").check().is_err());
        assert!(plan("page-501").check().is_err());
        assert!(plan("txn@501").check().is_err());
        for (workload, goes) in [("list-5", true), ("stream-5", true), ("put", false)] {
            let mut slow = plan(workload);
            slow.read_rate = Some(ReadRate::parse("1").unwrap());
            assert_eq!(slow.check().is_ok(), goes, "{workload}");
        }
        let mut short = plan("watch-1");
        short.value_size = 15;
        assert!(short.check().is_err());
    }
}
