//! The scenario `leader-kill`: the impact of the leader's death on clients.
//!
//! ```text
//!  start      from              killed      elected     back                        until
//!  |  warmup  |  rate before    |  nothing is acknowledged  |  80 % of it and more  |
//!                               |<-- longest gap -->|
//! ```
//!
//! In the end the surviving members must have every acknowledged put.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use retcd_proto::etcdserverpb as pb;
use rustix::process::Signal;

use super::steady::{Journal, Pacing, Put, Shape, Steady, between, latencies};
use super::subject::Subject;
use super::table::{Sample, Unit};
use crate::error::{CallError, Error};
use crate::grpc::Connection;
use crate::keys::KeySpace;
use crate::load::{self, Plan};
use crate::status;
use crate::target::Target;

/// The number of clients, each with its own connection.
pub(super) const CLIENTS: u32 = 32;
/// The pause between two puts of a client: long enough that the rate before the kill is about the
/// same for every server, and has recovered when the share [`RATE_BACK`] of the clients is served
/// again.
pub(super) const PAUSE: Duration = Duration::from_millis(10);
/// The rate has recovered when it reaches this share for a [`WINDOW`].
const RATE_BACK: f64 = 0.8;
const WINDOW: Duration = Duration::from_millis(500);
/// Keys per call when reading back.
const PAGE: i64 = if cfg!(test) { 100 } else { 10_000 };
/// Timeout of the recovery.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn measure(mut subject: Subject, plan: &Plan) -> Result<Vec<Sample>, Error> {
    let (target, half) = (subject.users.user.clone(), plan.duration() / 2);
    let shape = Shape {
        target: target.clone(),
        clients: CLIENTS,
        pacing: Pacing::Pause(PAUSE),
        prefix: format!("{}steady/", plan.keys.prefix),
        value_size: plan.value_size,
    };
    let steady = Steady::start(shape.clone())?;
    subject.progress.show("warming up");
    thread::sleep(plan.warmup);
    let from = steady.now();
    subject.progress.show("steady puts");
    thread::sleep(half);

    let leader = status::leader(&target)?;
    let survivors = target.without(leader);
    let victim = subject.cluster.take(leader);
    subject.progress.show("the leader is dead");
    let killed = steady.now();
    victim.stop(Signal::KILL)?;
    let before = between(&steady.journal().puts, from, killed).to_vec();
    let wanted = before.len() as f64 / (killed - from).as_secs_f64() * RATE_BACK;
    let recovery = recover(&steady, &survivors, killed, wanted)
        .map_err(|reason| subject.layout.layout(leader).failure(reason))?;
    thread::sleep(half);
    let until = steady.now();
    subject.progress.show("reading back");
    let journal = steady.stop();
    check_nothing_lost(&survivors, &shape, &journal.puts)?;
    subject.cluster.stop(Signal::TERM)?;

    let gap = longest_gap(&journal.puts, killed, until);
    let mut samples = describe_before(&before, killed - from).to_vec();
    samples.extend([
        Sample::millis("new leader after", recovery.elected),
        Sample::millis("longest time without an acknowledged put", gap),
        Sample::millis("rate back at 80 % after", recovery.back),
    ]);
    samples.extend(describe_calls(&journal));
    Ok(samples)
}

fn describe_before(puts: &[Put], length: Duration) -> [Sample; 2] {
    let rate = puts.len() as f64 / length.as_secs_f64();
    let p99 = latencies(puts).percentile(99.0);
    [
        Sample::new("puts before the kill", Unit::PerSecond, rate),
        Sample::millis("p99 before the kill", p99),
    ]
}

fn describe_calls(journal: &Journal) -> Vec<Sample> {
    let mut samples = vec![
        Sample::millis("longest call", journal.longest),
        Sample::count(
            "acknowledged puts, all found again",
            journal.puts.len() as u64,
        ),
        Sample::count("timeouts", journal.timeouts),
        Sample::count("broken connections", journal.broken),
        Sample::count("refused calls", journal.refusals.values().sum()),
    ];
    // Last, because the refusals differ between rounds.
    for (text, times) in &journal.refusals {
        samples.push(Sample::count(format!("… {text}"), *times));
    }
    samples
}

/// Times since the kill.
struct Recovery {
    /// A survivor reported that it leads.
    elected: Duration,
    /// The rate recovered.
    back: Duration,
}

/// Waits until one of `survivors` leads and the clients put at the rate `wanted`; otherwise reports
/// which did not happen.
fn recover(
    steady: &Steady,
    survivors: &Target,
    killed: Duration,
    wanted: f64,
) -> Result<Recovery, String> {
    let runtime = load::runtime().map_err(|error| error.to_string())?;
    let mut elected = None;
    loop {
        if elected.is_none() && runtime.block_on(status::leading(survivors)).is_some() {
            elected = Some(steady.now() - killed);
        }
        let back = rate_back(&steady.journal().puts, killed, wanted);
        if let (Some(elected), Some(back)) = (elected, back) {
            return Ok(Recovery { elected, back });
        }
        if steady.now() - killed > TIMEOUT {
            return Err(format!(
                "{TIMEOUT:?} after it was killed {}",
                match elected {
                    None => "no other member leads".into(),
                    Some(_) => format!("the others do not serve {wanted:.0} puts per second"),
                }
            ));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The longest time in `from..to` without an acknowledgement.
fn longest_gap(puts: &[Put], from: Duration, to: Duration) -> Duration {
    let times = between(puts, from, to).iter().map(|put| put.acknowledged);
    let (mut last, mut longest) = (from, Duration::ZERO);
    for time in times.chain([to]) {
        longest = longest.max(time - last);
        last = time;
    }
    longest
}

/// The time from `from` until the start of a [`WINDOW`] with at least `wanted` acknowledged puts
/// per second.
fn rate_back(puts: &[Put], from: Duration, wanted: f64) -> Option<Duration> {
    let needed = ((wanted * WINDOW.as_secs_f64()).ceil() as usize).max(1);
    let puts = between(puts, from, Duration::MAX);
    puts.windows(needed)
        .find(|window| window[needed - 1].acknowledged - window[0].acknowledged < WINDOW)
        .map(|window| window[0].acknowledged - from)
}

/// Reads all keys of `shape` and checks that every acknowledged one exists.
fn check_nothing_lost(target: &Target, shape: &Shape, puts: &[Put]) -> Result<(), Error> {
    let read = load::runtime()?.block_on(read_keys(target, &shape.prefix));
    let found = read.map_err(Error::call("reading the acknowledged puts back"))?;
    let lost: Vec<_> = puts
        .iter()
        .map(|put| shape.key(put.client, put.number))
        .filter(|key| found.binary_search(key).is_err())
        .collect();
    match lost.first() {
        None => Ok(()),
        Some(example) => Err(Error::Lost {
            lost: lost.len(),
            of: puts.len(),
            example: String::from_utf8_lossy(example).into_owned(),
        }),
    }
}

/// All keys with this prefix, in order.
async fn read_keys(target: &Target, prefix: &str) -> Result<Vec<Bytes>, CallError> {
    let all = KeySpace {
        prefix: prefix.to_owned(),
        count: 0,
    };
    let (mut key, range_end) = all.whole();
    let mut range = Connection::open(target, 0)
        .await?
        .method("/etcdserverpb.KV/Range");
    let mut found: Vec<Bytes> = Vec::new();
    loop {
        let request = pb::RangeRequest {
            key,
            range_end: range_end.clone(),
            limit: PAGE,
            keys_only: true,
            ..pb::RangeRequest::default()
        };
        let page: pb::RangeResponse = range.call(&request).await?;
        found.extend(page.kvs.into_iter().map(|record| record.key));
        match found.last() {
            Some(last) if page.more => key = [last, &b"\0"[..]].concat().into(),
            _ => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::steady::tests::{ms, puts};
    use super::*;
    use crate::model::{Model, serve, target_at};

    #[test]
    fn the_longest_gap_may_lie_at_either_end() {
        let puts = puts([10, 20, 50, 55]);
        assert_eq!(longest_gap(&puts, ms(0), ms(60)), ms(30));
        assert_eq!(longest_gap(&puts, ms(0), ms(100)), ms(45));
        assert_eq!(longest_gap(&puts, ms(12), ms(21)), ms(8));
        assert_eq!(longest_gap(&[], ms(5), ms(9)), ms(4));
    }

    #[test]
    fn the_rate_is_back_where_a_window_of_it_begins() {
        // One per 10 ms until 1 s, two isolated ones, and from 3 s on one per 10 ms again: 50 in a
        // window.
        let puts = puts(
            (0..1_000)
                .step_by(10)
                .chain([1_500, 2_000])
                .chain((3_000..4_000).step_by(10)),
        );
        assert_eq!(rate_back(&puts, ms(1_000), 80.0), Some(ms(2_000)));
        assert_eq!(rate_back(&puts, ms(1_000), 2.0), Some(ms(500)));
        assert_eq!(rate_back(&puts, ms(1_000), 200.0), None);
        let still_too_few = &puts[..puts.len() - 70];
        assert_eq!(rate_back(still_too_few, ms(1_000), 80.0), None);
    }

    #[test]
    fn a_lost_put_is_noticed() {
        let model = Model::default();
        let shape = Shape {
            target: target_at(&[serve(&model)]),
            clients: 2,
            pacing: Pacing::Pause(Duration::ZERO),
            prefix: "/steady/".into(),
            value_size: 8,
        };
        let steady = Steady::start(shape.clone()).unwrap();
        // More than one page of keys.
        while steady.journal().puts.len() < PAGE as usize + 10 {
            thread::yield_now();
        }
        let puts = steady.stop().puts;
        check_nothing_lost(&shape.target, &shape, &puts).unwrap();
        let last = puts.last().unwrap();
        let key = shape.key(last.client, last.number);
        assert!(model.keyspace().records.remove(&key).is_some());
        let error = check_nothing_lost(&shape.target, &shape, &puts).unwrap_err();
        let expected = format!(
            "1 of {} acknowledged puts are not there, among them {}",
            puts.len(),
            String::from_utf8_lossy(&key)
        );
        assert_eq!(error.to_string(), expected);
    }
}
