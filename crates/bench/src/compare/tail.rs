//! The scenario `tail`: the slowest puts while everything else goes on that a cluster does besides.
//!
//! ```text
//!  fill · puts alone · a follower is stopped and misses data · it returns; meanwhile
//!         |<- 1/3 ->|                                          |<- 2/3 ->|
//! ```
//!
//! Meanwhile two clients list, the history is compacted, the backends are defragmented and snapshots
//! are read. The clients that put use the members that stay, in both phases. They put at a fixed rate
//! and their latencies count from when a put was due, so that a pause shows as long as it was for
//! clients that do not wait for each other.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::background::{Background, Done, History, Operation, Operations, What};
use super::catch_up;
use super::describe::{describe_done, describe_refused};
use super::disk_beside::{DiskBeside, Syncs};
use super::steady::{Journal, Pacing, Put, Shape, Steady, beyond, due_between, latencies};
use super::subject::{LISTED_KEYS, Measured, Subject};
use super::table::{Sample, Unit};
use crate::cluster::member_name;
use crate::error::Error;
use crate::load::Plan;
use crate::stats::{Latencies, millis, number};
use crate::status;
use crate::target::Target;

/// The number of clients that put, and of puts they make in total.
pub(super) const CLIENTS: u32 = 8;
pub(super) const PUTS_PER_SECOND: u32 = 500;
/// What the follower misses.
pub(super) const MISSED_MIB: u64 = 64;
/// The number of puts that are listed one by one.
const SLOWEST: usize = 20;
const APART: Duration = Duration::from_millis(100);

pub(super) fn measure(mut subject: Subject, plan: &Plan) -> Result<Measured, Error> {
    let mut plan = plan.clone();
    plan.keys.count = plan.keys.count.max(u64::from(LISTED_KEYS));
    subject.fill(&plan.keys, plan.value_size)?;
    subject.rest();
    let target = subject.users.user.clone();
    let follower = (status::leader(&target)? + 1) % target.members();
    let rest = target.without(follower);

    subject.progress.show("puts alone");
    let alone = put_alone(&rest, &plan)?;
    let behind = catch_up::fall_behind(&mut subject, &plan, follower, MISSED_MIB)?;
    subject.progress.show("puts meanwhile");
    let meanwhile = put_meanwhile(&subject, &plan, follower)?;
    subject.cluster.stop(Signal::TERM)?;

    let mut samples = describe_puts(&alone, &meanwhile.puts);
    samples.extend(meanwhile.describe_disk());
    samples.extend(describe_operations(&meanwhile.done));
    samples.extend([
        Sample::millis("caught up after", meanwhile.caught_up),
        Sample::count("entries behind", behind),
    ]);
    Ok(Measured {
        samples,
        remarks: vec![meanwhile.describe_slowest()],
    })
}

fn shape(target: &Target, plan: &Plan, phase: &str) -> Shape {
    Shape {
        target: target.clone(),
        clients: CLIENTS,
        pacing: Pacing::PerSecond(PUTS_PER_SECOND),
        prefix: format!("{}{phase}/", plan.keys.prefix),
        value_size: plan.value_size,
    }
}

/// The puts of one phase.
struct Puts {
    /// Also those that were given up, which would have taken even longer.
    puts: Vec<Put>,
    /// Calls that failed, also before the phase, and puts that were given up.
    failed: u64,
}

impl Puts {
    fn new(journal: &Journal, from: Duration, until: Duration) -> Self {
        let made = due_between(&journal.puts, from, until);
        let abandoned = due_between(&journal.abandoned, from, until);
        Self {
            puts: [made, abandoned].concat(),
            failed: journal.failed(),
        }
    }
}

fn put_alone(rest: &Target, plan: &Plan) -> Result<Puts, Error> {
    let steady = Steady::start(shape(rest, plan, "alone"))?;
    thread::sleep(plan.warmup);
    let from = steady.now();
    thread::sleep(plan.duration() / 3);
    let until = steady.now();
    Ok(Puts::new(&steady.stop(), from, until))
}

/// The second phase.
struct Meanwhile {
    puts: Puts,
    /// When it began, and the same since the start of the clients.
    began: Instant,
    from: Duration,
    done: Done,
    syncs: Syncs,
    /// How long the follower took.
    caught_up: Duration,
    /// Who leads, who came back, and whether that changed.
    roles: String,
}

fn put_meanwhile(subject: &Subject, plan: &Plan, follower: usize) -> Result<Meanwhile, Error> {
    let target = &subject.users.user;
    let rest = target.without(follower);
    let leader = status::leader(target)?;
    let steady = Steady::start(shape(&rest, plan, "meanwhile"))?;
    thread::sleep(plan.warmup);

    let beside = DiskBeside::start(subject.directory.path())?;
    let from = steady.now();
    let began = steady.origin() + from;
    let mut returned = subject.layout.layout(follower).exec()?;
    let background = Background::start(&subject.users, &plan.keys, operations(follower))?;
    let leading = target.only(leader);
    let caught_up = returned.wait_until(catch_up::POLL, || {
        catch_up::has_caught_up(target, follower, &leading)
    })?;
    background.include();
    thread::sleep((plan.duration() * 2 / 3).saturating_sub(began.elapsed()));
    let until = steady.now();
    // First, so that the load goes on until the last put of the phase is made.
    let journal = steady.stop();
    let mut done = background.stop()?;
    let syncs = beside.stop()?;
    let leads = status::leader(target)?;
    returned.stop(Signal::TERM)?;
    done.log.push(Operation {
        what: What::CatchUp,
        began,
        ended: Some(began + caught_up),
    });
    Ok(Meanwhile {
        puts: Puts::new(&journal, from, until),
        began,
        from,
        done,
        syncs,
        caught_up,
        roles: describe_roles(leader, leads, follower),
    })
}

fn operations(follower: usize) -> Operations {
    Operations {
        listed: LISTED_KEYS,
        kept: History::None,
        defragmenting: true,
        snapshots: true,
        absent: Some(follower),
    }
}

fn describe_roles(leader: usize, leads: usize, follower: usize) -> String {
    let change = match leader == leads {
        true => String::new(),
        false => format!(", in the end {}", member_name(leads)),
    };
    let [leader, follower] = [leader, follower].map(member_name);
    format!("{leader} leads{change}, {follower} catches up")
}

fn describe_puts(alone: &Puts, meanwhile: &Puts) -> Vec<Sample> {
    let phases = [("alone", alone), ("meanwhile", meanwhile)];
    let measured = phases.map(|(when, puts)| (when, latencies(&puts.puts)));
    let mut samples: Vec<_> = measured
        .iter()
        .flat_map(|(when, latencies)| describe_phase(when, latencies))
        .collect();
    let [alone_tail, tail] = measured
        .each_ref()
        .map(|(_, latencies)| latencies.percentile(99.9).as_secs_f64());
    let ratio = Sample::new("p99.9 meanwhile / alone", Unit::Ratio, tail / alone_tail);
    samples.push(ratio);
    samples.extend(
        measured.map(|(when, latencies)| Sample::count(format!("puts {when}"), latencies.count())),
    );
    samples.push(Sample::count(
        "failed puts",
        alone.failed + meanwhile.failed,
    ));
    samples
}

fn describe_phase(when: &str, latencies: &Latencies) -> [Sample; 4] {
    let at = |name: &str, percent| {
        Sample::millis(
            format!("{name} of puts {when}"),
            latencies.percentile(percent),
        )
    };
    [
        at("p50", 50.0),
        at("p99", 99.0),
        at("p99.9", 99.9),
        Sample::millis(format!("longest put {when}"), latencies.max()),
    ]
}

fn describe_operations(done: &Done) -> Vec<Sample> {
    let mut samples = describe_done(done).to_vec();
    samples.extend([
        Sample::count("snapshots", done.snapshots),
        Sample::mib("all snapshots", done.snapshot_bytes),
    ]);
    samples.extend(describe_refused(
        "refused lists, compactions and snapshots",
        done.refused,
    ));
    samples
}

impl Meanwhile {
    /// When the clients began.
    fn origin(&self) -> Instant {
        self.began - self.from
    }

    /// What the disk itself took, and the puts beyond that.
    fn describe_disk(&self) -> Vec<Sample> {
        let ended = self.puts.puts.iter().map(|put| put.acknowledged).max();
        let ended = self.origin() + ended.unwrap_or(self.from);
        let beyond = beyond(&self.puts.puts, &self.syncs, self.origin());
        let mut samples = self.syncs.describe(self.began, ended).to_vec();
        samples.extend([
            Sample::millis(
                "p99.9 of puts meanwhile beyond an fdatasync beside",
                beyond.percentile(99.9),
            ),
            Sample::millis(
                "longest put meanwhile beyond an fdatasync beside",
                beyond.max(),
            ),
        ]);
        samples
    }

    /// A line for each of the slowest puts: its latency, when it was due, and how long what was under
    /// way between that and its acknowledgement.
    fn describe_slowest(&self) -> String {
        let slowest = slowest(&self.puts.puts);
        let mut text = format!(
            "the {} slowest puts meanwhile, due at least {} ms apart ({})",
            slowest.len(),
            APART.as_millis(),
            self.roles
        );
        for put in slowest {
            text += &format!(
                "\n{} ms, due after {:.3} s: {}",
                number(millis(put.acknowledged - put.due)),
                (put.due - self.from).as_secs_f64(),
                self.describe_under_way(&put),
            );
        }
        text
    }

    fn describe_under_way(&self, put: &Put) -> String {
        let under_way = self.under_way(put);
        let part =
            |(what, time): (&What, &Duration)| format!("{what} {} ms", number(millis(*time)));
        let mut parts: Vec<_> = under_way.iter().map(part).collect();
        let origin = self.origin();
        let sync = self
            .syncs
            .longest(origin + put.due, origin + put.acknowledged);
        if !sync.is_zero() {
            parts.push(format!("an fdatasync beside {} ms", number(millis(sync))));
        }
        match parts.is_empty() {
            true => "nothing".into(),
            false => parts.join(", "),
        }
    }

    /// How long operations were under way while `put` was. Lists of two clients add up.
    fn under_way(&self, put: &Put) -> BTreeMap<What, Duration> {
        let (due, acknowledged) = (self.origin() + put.due, self.origin() + put.acknowledged);
        let mut times = BTreeMap::new();
        for operation in &self.done.log {
            let ended = operation.ended.unwrap_or(acknowledged).min(acknowledged);
            let shared = ended.saturating_duration_since(operation.began.max(due));
            if !shared.is_zero() {
                *times.entry(operation.what).or_default() += shared;
            }
        }
        times
    }
}

/// The slowest of `puts`, slowest first. One pause delays many puts, of which one is enough to tell
/// what it was.
fn slowest(puts: &[Put]) -> Vec<Put> {
    let mut rest = puts.to_vec();
    rest.sort_by_key(|put| Reverse(put.acknowledged - put.due));
    let mut slowest: Vec<Put> = Vec::new();
    for put in rest {
        let is_apart = |other: &Put| other.due.abs_diff(put.due) >= APART;
        if slowest.len() < SLOWEST && slowest.iter().all(is_apart) {
            slowest.push(put);
        }
    }
    slowest
}

#[cfg(test)]
mod tests {
    use super::super::steady::tests::ms;
    use super::*;

    fn put(due: u64, acknowledged: u64) -> Put {
        Put {
            client: 0,
            number: due,
            due: ms(due),
            acknowledged: ms(acknowledged),
        }
    }

    /// A phase that began a second after the clients.
    fn meanwhile(puts: Vec<Put>, operations: &[(What, u64, Option<u64>)]) -> Meanwhile {
        let began = Instant::now();
        let log = operations.iter().map(|(what, from, until)| Operation {
            what: *what,
            began: began + ms(*from),
            ended: until.map(|until| began + ms(until)),
        });
        Meanwhile {
            puts: Puts { puts, failed: 0 },
            began,
            from: ms(1_000),
            done: Done {
                log: log.collect(),
                ..Done::default()
            },
            syncs: Syncs::of(began, &[(205, 230), (300, 301)]),
            caught_up: ms(400),
            roles: describe_roles(0, 0, 1),
        }
    }

    #[test]
    fn the_slowest_puts_name_what_was_under_way() {
        let puts = vec![put(1_100, 1_101), put(1_200, 1_250), put(1_300, 1_302)];
        let operations = [
            (What::List, 0, Some(150)),
            (What::Snapshot(2), 90, Some(199)),
            (What::Compaction, 249, Some(260)),
            (What::Defragmentation(0), 210, Some(220)),
            (What::List, 245, Some(247)),
            (What::List, 248, Some(301)),
            (What::CatchUp, 251, None),
        ];
        let expected = "\
the 3 slowest puts meanwhile, due at least 100 ms apart (m1 leads, m2 catches up)
50.0 ms, due after 0.200 s: compaction 1.00 ms, defragmentation of m1 10.0 ms, list 4.00 ms, an fdatasync beside 25.0 ms
2.00 ms, due after 0.300 s: catch-up 2.00 ms, list 1.00 ms, an fdatasync beside 1.00 ms
1.00 ms, due after 0.100 s: snapshot of m3 1.00 ms, list 1.00 ms";
        assert_eq!(meanwhile(puts, &operations).describe_slowest(), expected);
        let idle = meanwhile(vec![put(1_000, 1_007)], &[]).describe_slowest();
        assert!(
            idle.ends_with("7.00 ms, due after 0.000 s: nothing"),
            "{idle}"
        );
    }

    #[test]
    fn only_the_slowest_of_a_pause_is_listed() {
        // Every millisecond one is due, and every 400 ms a pause of 300 ms begins.
        let wait = |at: u64| 300_u64.saturating_sub(at % 400) + at / 400;
        let puts: Vec<_> = (0..20_000).map(|at| put(at, at + wait(at))).collect();
        let found = slowest(&puts);
        assert_eq!(found.len(), SLOWEST);
        let due: Vec<_> = found.iter().map(|put| put.due).collect();
        let expected = (30..50).rev().map(|pause| ms(pause * 400));
        assert_eq!(due, expected.collect::<Vec<_>>());
        assert_eq!(slowest(&puts[..50]), puts[..1]);
    }

    #[test]
    fn a_new_leader_is_named() {
        assert_eq!(
            describe_roles(0, 2, 1),
            "m1 leads, in the end m3, m2 catches up"
        );
    }

    #[test]
    fn the_tail_is_compared_with_that_of_puts_alone() {
        let phase = |latency| Puts {
            puts: (0..2_000).map(|at| put(at, at + latency)).collect(),
            failed: 3,
        };
        let samples = describe_puts(&phase(2), &phase(10));
        let value = |measure: &str| {
            let sample = samples.iter().find(|sample| sample.measure() == measure);
            sample.unwrap().value()
        };
        let ratio = value("p99.9 meanwhile / alone");
        assert!((4.98..5.02).contains(&ratio), "{ratio}");
        assert!((9.98..10.02).contains(&value("p99.9 of puts meanwhile, ms")));
        assert_eq!((value("puts alone"), value("failed puts")), (2_000.0, 6.0));
    }
}
