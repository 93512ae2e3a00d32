//! What is compared, one server at a time: start, prepare, measure, stop.

use std::fmt;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::background::Background;
use super::table::{Sample, Unit};
use super::{Comparison, REST};
use crate::cleanup::TempDir;
use crate::disk;
use crate::error::Error;
use crate::fill::fill;
use crate::keys::KeySpace;
use crate::load::{self, Outcome, Plan};
use crate::procfs;
use crate::progress::Progress;
use crate::server::{Binary, Home, Server};
use crate::stats::millis;
use crate::workload::{Kind, Workload};

/// Names beyond those of the workloads.
const NAMES: &str = "mixed, rss, restart";

/// Keys that are written again before the kill, so that the log holds what the last checkpoint does not.
const REWRITTEN_KEYS: u64 = 10_000;

/// One thing to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// One workload alone.
    Load(Workload),
    /// Puts while lists, compactions and defragmentations go on.
    Mixed,
    /// Memory that the key space takes.
    Rss,
    /// Start with a large key space.
    Restart,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scenario::Load(workload) => workload.fmt(f),
            Scenario::Mixed => f.write_str("mixed"),
            Scenario::Rss => f.write_str("rss"),
            Scenario::Restart => f.write_str("restart"),
        }
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "mixed" => Ok(Scenario::Mixed),
            "rss" => Ok(Scenario::Rss),
            "restart" => Ok(Scenario::Restart),
            _ => text
                .parse()
                .map(Scenario::Load)
                .map_err(|error| format!("{error}, {NAMES}")),
        }
    }
}

impl Scenario {
    /// What a reader of its table must know.
    pub(super) fn note(self, comparison: &Comparison) -> String {
        let plan = &comparison.plan;
        match self {
            Scenario::Load(workload) => match workload.kind {
                Kind::Put => "a random key each".into(),
                Kind::Get => "a random key each, linearizable".into(),
                Kind::GetSerializable => "a random key each, serializable".into(),
                Kind::List(keys) => format!("{keys} neighbouring keys, linearizable"),
                Kind::Page(keys) => format!("the next {keys} keys of the key space from a random one on, linearizable"),
                Kind::Txn => "a get, then a put on the condition that the key has not changed; one op is both".into(),
                Kind::Watch(watchers) => format!(
                    "{watchers} watchers of one prefix on {} streams, {} writers; one op is one event at one watcher, its \
                     latency counts from before the put was sent, and the processor time holds the puts",
                    plan.streams.min(watchers),
                    workload.clients.unwrap_or(plan.writers),
                ),
                Kind::LeaseGrant => "a new lease each".into(),
                Kind::LeaseKeepAlive => "a stream and a lease for each client".into(),
            },
            Scenario::Mixed => "puts, while two clients list 10,000 keys each, the history is compacted every second and the \
                                 backend defragmented every three"
                .into(),
            Scenario::Rss => format!("memory at rest with {} keys of {} bytes", plan.keys.count, plan.value_size),
            Scenario::Restart => format!(
                "{} keys of {} bytes; from exec to the first answered linearizable get, after SIGTERM, and after SIGKILL behind \
                 {REWRITTEN_KEYS} more puts",
                comparison.restart_keys, plan.value_size
            ),
        }
    }
}

/// Measures `scenario` once on `binary`, with its data in `directory`.
pub(super) fn measure(
    comparison: &Comparison,
    scenario: Scenario,
    binary: &Binary,
    directory: &TempDir,
    progress: &Progress,
) -> Result<Vec<Sample>, Error> {
    disk::settle(directory.path())?;
    let home = Home::new(binary, directory.path())?;
    progress.show("starting");
    let subject = Subject {
        home: &home,
        server: home.start()?,
        directory,
        progress,
    };
    let mut plan = comparison.plan.clone();
    plan.endpoint = subject.server.endpoint();
    match scenario {
        Scenario::Load(workload) => subject.load(&Plan { workload, ..plan }),
        Scenario::Mixed => subject.mixed(&plan),
        Scenario::Rss => subject.rss(&plan),
        Scenario::Restart => subject.restart(&plan, comparison.restart_keys),
    }
}

/// The server under measurement.
struct Subject<'a> {
    home: &'a Home,
    server: Server<'a>,
    directory: &'a TempDir,
    progress: &'a Progress,
}

impl Subject<'_> {
    fn load(self, plan: &Plan) -> Result<Vec<Sample>, Error> {
        if plan.workload.kind.needs_keys() {
            fill(&plan.endpoint, &plan.keys, plan.value_size, self.progress)?;
        }
        let outcome = self.run(plan)?;
        let mut samples = describe_load(&outcome, plan.workload.kind.unit());
        samples.extend(self.memory("after")?);
        self.server.stop(Signal::TERM)?;
        Ok(samples)
    }

    fn mixed(self, plan: &Plan) -> Result<Vec<Sample>, Error> {
        const LISTED_KEYS: u32 = 10_000;
        let workload = Workload {
            kind: Kind::Put,
            clients: None,
        };
        let mut plan = Plan {
            workload,
            ..plan.clone()
        };
        plan.keys.count = plan.keys.count.max(u64::from(LISTED_KEYS));
        fill(&plan.endpoint, &plan.keys, plan.value_size, self.progress)?;
        let background = Background::start(&plan.endpoint, &plan.keys, LISTED_KEYS)?;
        let outcome = self.run(&plan);
        let done = background.stop()?;
        let outcome = outcome?;
        let mut samples = describe_load(&outcome, "put");
        let tail = [
            ("p99.9", outcome.latencies.percentile(99.9)),
            ("max", outcome.latencies.max()),
        ];
        let behind_p99 = 3;
        let tail =
            tail.map(|(measure, latency)| Sample::new(measure, Unit::Millis, millis(latency)));
        samples.splice(behind_p99..behind_p99, tail);
        samples.push(Sample::new(
            "lists of 10,000",
            Unit::Count,
            done.lists as f64,
        ));
        samples.push(Sample::new(
            "compactions",
            Unit::Count,
            done.compactions as f64,
        ));
        samples.push(Sample::new(
            "defragmentations",
            Unit::Count,
            done.defragmentations as f64,
        ));
        samples.push(Sample::new(
            "longest defragmentation",
            Unit::Millis,
            millis(done.longest_defragmentation),
        ));
        samples.extend(self.memory("after")?);
        self.server.stop(Signal::TERM)?;
        Ok(samples)
    }

    fn rss(self, plan: &Plan) -> Result<Vec<Sample>, Error> {
        let bare = procfs::memory(self.server.pid())?;
        fill(&plan.endpoint, &plan.keys, plan.value_size, self.progress)?;
        self.rest();
        let mut samples = vec![Sample::new("memory before", Unit::MiB, mib(bare.resident))];
        samples.extend(self.memory("at rest")?);
        samples.push(Sample::new(
            "data directory",
            Unit::MiB,
            mib(self.home.disk_bytes()),
        ));
        self.server.stop(Signal::TERM)?;
        Ok(samples)
    }

    fn restart(self, plan: &Plan, count: u64) -> Result<Vec<Sample>, Error> {
        let keys = KeySpace {
            count,
            ..plan.keys.clone()
        };
        let filled = fill(&plan.endpoint, &keys, plan.value_size, self.progress)?;
        self.rest();
        let mut samples = vec![Sample::new("fill", Unit::Millis, millis(filled))];
        samples.extend(self.memory("after the fill")?);
        samples.push(Sample::new(
            "data directory",
            Unit::MiB,
            mib(self.home.disk_bytes()),
        ));

        let restarted =
            self.again(Signal::TERM)?
                .first_get(&keys, "after SIGTERM", &mut samples)?;
        let rewritten = KeySpace {
            count: count.min(REWRITTEN_KEYS),
            ..keys.clone()
        };
        fill(
            &plan.endpoint,
            &rewritten,
            plan.value_size,
            restarted.progress,
        )?;
        let killed =
            restarted
                .again(Signal::KILL)?
                .first_get(&keys, "after SIGKILL", &mut samples)?;
        killed.server.stop(Signal::TERM)?;
        Ok(samples)
    }

    /// Ends the server with `signal` and executes it again.
    fn again(self, signal: Signal) -> Result<Self, Error> {
        self.progress.show("stopping");
        self.server.stop(signal)?;
        disk::settle(self.directory.path())?;
        self.progress.show("starting again");
        Ok(Subject {
            server: self.home.exec()?,
            ..self
        })
    }

    fn first_get(
        mut self,
        keys: &KeySpace,
        when: &str,
        samples: &mut Vec<Sample>,
    ) -> Result<Self, Error> {
        let passed = self.server.first_get(keys)?;
        let cpu = procfs::cpu_time(self.server.pid())?;
        samples.push(Sample::new(
            format!("first get {when}"),
            Unit::Millis,
            millis(passed),
        ));
        samples.push(Sample::new(
            format!("server CPU {when}"),
            Unit::Millis,
            millis(cpu),
        ));
        samples.extend(self.memory(when)?);
        Ok(self)
    }

    fn run(&self, plan: &Plan) -> Result<Outcome<Duration>, Error> {
        let pid = self.server.pid();
        // Where the kernel cannot do it, the peak holds the preparation too.
        drop(procfs::reset_peak(pid));
        disk::settle(self.directory.path())?;
        load::run(plan, self.progress, || procfs::cpu_time(pid))
    }

    fn memory(&self, when: &str) -> Result<[Sample; 2], Error> {
        let memory = procfs::memory(self.server.pid())?;
        Ok([
            Sample::new(format!("memory {when}"), Unit::MiB, mib(memory.resident)),
            Sample::new(format!("memory {when}, peak"), Unit::MiB, mib(memory.peak)),
        ])
    }

    fn rest(&self) {
        self.progress.show("resting");
        thread::sleep(REST);
    }
}

fn describe_load(outcome: &Outcome<Duration>, unit: &str) -> Vec<Sample> {
    let per_op = |cpu: Duration| cpu.as_secs_f64() * 1e6 / outcome.latencies.count().max(1) as f64;
    let at = |percent| millis(outcome.latencies.percentile(percent));
    let mut samples = vec![
        Sample::new(format!("{unit}s"), Unit::PerSecond, outcome.rate()),
        Sample::new("p50", Unit::Millis, at(50.0)),
        Sample::new("p99", Unit::Millis, at(99.0)),
        Sample::new(
            format!("server CPU per {unit}"),
            Unit::Micros,
            per_op(outcome.after.saturating_sub(outcome.before)),
        ),
        Sample::new(
            format!("generator CPU per {unit}"),
            Unit::Micros,
            per_op(outcome.generator_cpu),
        ),
    ];
    if outcome.errors > 0 {
        samples.push(Sample::new(
            "refused calls",
            Unit::Count,
            outcome.errors as f64,
        ));
    }
    samples
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_read_back_as_they_are_written() {
        for text in ["put", "list-1000", "watch-10@4", "mixed", "rss", "restart"] {
            assert_eq!(text.parse::<Scenario>().unwrap().to_string(), text);
        }
        let error = "nonsense".parse::<Scenario>().unwrap_err();
        assert!(
            error.contains("lease-grant") && error.contains("restart"),
            "{error}"
        );
    }
}
