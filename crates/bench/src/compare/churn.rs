//! The scenario `churn`: many updates of few keys, while the history is compacted steadily.
//!
//! A server that reuses what compaction frees keeps its file near the size of the live data and its
//! memory flat, however long it runs. The updates come in four parts, so that both can be read in
//! between:
//!
//! ```text
//!  fill | updates | updates | updates | updates | at rest
//!       |      quarter     half              the end
//!       |--- a compaction each second --------|
//! ```

use std::time::Duration;

use rustix::process::Signal;

use super::background::{Background, Chores, History};
use super::describe::{describe_memory, mib, server_cpu};
use super::subject::Subject;
use super::table::{Sample, Unit};
use crate::error::Error;
use crate::keys::KeySpace;
use crate::load::{Extent, Outcome, Plan};
use crate::stats::{Latencies, millis};
use crate::workload::{Kind, Workload};

/// The size of the scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Churn {
    /// The number of updates.
    pub(crate) updates: u64,
    /// The number of keys.
    pub(crate) keys: u64,
}

/// The parts of the updates, by when they end; only some are worth a row.
const PARTS: [Option<&str>; 4] = [
    Some("after a quarter"),
    Some("after a half"),
    None,
    Some("in the end"),
];

/// What all parts together have shown.
struct Total {
    latencies: Latencies,
    elapsed: Duration,
    server_cpu: Duration,
    generator_cpu: Duration,
    refused: u64,
    /// The peak memory of each member in bytes; each part resets the kernel's own.
    peaks: Vec<u64>,
    /// File and memory, as time went on.
    rows: Vec<Sample>,
}

pub(super) fn measure(subject: Subject, plan: &Plan, size: Churn) -> Result<Vec<Sample>, Error> {
    let plan = updates(plan, size);
    subject.fill(&plan.keys, plan.value_size)?;
    let chores = Chores {
        listed: 0,
        kept: History::LastSecond,
        defragmenting: false,
    };
    let background = Background::start(&subject.users, &plan.keys, chores)?;
    let measured = update_in_parts(&subject, &plan, size.updates);
    let done = background.stop()?;
    let mut total = measured?;
    subject.rest();
    total.look(&subject, &plan, Some("at rest"))?;
    subject.cluster.stop(Signal::TERM)?;

    let mut samples = describe(&total, subject.layout.members());
    samples.push(Sample::new(
        "compactions",
        Unit::Count,
        done.compactions as f64,
    ));
    samples.push(Sample::new(
        "live data",
        Unit::MiB,
        mib(plan.keys.bytes(plan.value_size)),
    ));
    samples.extend(total.rows);
    Ok(samples)
}

/// The plan of all updates.
fn updates(plan: &Plan, size: Churn) -> Plan {
    Plan {
        workload: Workload {
            kind: Kind::Put,
            clients: None,
        },
        keys: KeySpace {
            count: size.keys,
            ..plan.keys.clone()
        },
        warmup: Duration::ZERO,
        extent: Extent::Operations(size.updates),
        ..plan.clone()
    }
}

/// The plan of part `number` of `all`.
fn part(all: &Plan, updates: u64, number: u64) -> Plan {
    let parts = PARTS.len() as u64;
    let share = updates / parts + u64::from(number < updates % parts);
    Plan {
        extent: Extent::Operations(share),
        // The clients of a part have seeds next to each other.
        seed: all.seed.wrapping_add(number << 32),
        ..all.clone()
    }
}

fn update_in_parts(subject: &Subject, plan: &Plan, updates: u64) -> Result<Total, Error> {
    let mut total = Total::new(subject.layout.members());
    for (number, when) in PARTS.into_iter().enumerate() {
        total.add(&subject.run(&part(plan, updates, number as u64))?);
        total.look(subject, plan, when)?;
    }
    Ok(total)
}

impl Total {
    fn new(members: usize) -> Self {
        Self {
            latencies: Latencies::default(),
            elapsed: Duration::ZERO,
            server_cpu: Duration::ZERO,
            generator_cpu: Duration::ZERO,
            refused: 0,
            peaks: vec![0; members],
            rows: Vec::new(),
        }
    }

    fn add(&mut self, outcome: &Outcome<Duration>) {
        self.latencies.add(&outcome.latencies);
        self.elapsed += outcome.elapsed;
        self.server_cpu += outcome.after.saturating_sub(outcome.before);
        self.generator_cpu += outcome.generator_cpu;
        self.refused += outcome.errors;
    }

    /// Reads memory and file; they become rows if that moment has a name.
    fn look(&mut self, subject: &Subject, plan: &Plan, when: Option<&str>) -> Result<(), Error> {
        let mut memory = subject.cluster.memory()?;
        for (now, peak) in memory.iter_mut().zip(&mut self.peaks) {
            *peak = now.peak.max(*peak);
            now.peak = *peak;
        }
        if let Some(when) = when {
            self.rows.extend(file(subject, plan, when));
            self.rows.extend(describe_memory(&memory, when));
        }
        Ok(())
    }
}

fn describe(total: &Total, members: usize) -> Vec<Sample> {
    let count = total.latencies.count().max(1) as f64;
    let at = |name, percent| {
        let latency = total.latencies.percentile(percent);
        Sample::new(name, Unit::Millis, millis(latency))
    };
    let per_put = |cpu: Duration| cpu.as_secs_f64() * 1e6 / count;
    let mut samples = vec![
        Sample::new("puts", Unit::PerSecond, count / total.elapsed.as_secs_f64()),
        at("p50", 50.0),
        at("p99", 99.0),
        at("p99.9", 99.9),
        Sample::new("longest put", Unit::Millis, millis(total.latencies.max())),
        Sample::new(
            format!("{} per put", server_cpu(members)),
            Unit::Micros,
            per_put(total.server_cpu),
        ),
        Sample::new(
            "generator CPU per put",
            Unit::Micros,
            per_put(total.generator_cpu),
        ),
    ];
    if total.refused > 0 {
        samples.push(Sample::new(
            "refused puts",
            Unit::Count,
            total.refused as f64,
        ));
    }
    samples
}

/// The size of the database file, and how many times the live data that is.
fn file(subject: &Subject, plan: &Plan, when: &str) -> [Sample; 2] {
    let (file, live) = (
        subject.layout.database_bytes(),
        plan.keys.bytes(plan.value_size),
    );
    [
        Sample::new(format!("database file {when}"), Unit::MiB, mib(file)),
        Sample::new(
            format!("database file {when} / live data"),
            Unit::Ratio,
            file as f64 / live as f64,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::comparison;

    #[test]
    fn the_parts_make_all_updates_each_with_its_own_choices() {
        let comparison = comparison("compare --ours a --other b --churn-updates 1003");
        let all = updates(&comparison.plan, comparison.churn);
        assert_eq!((all.keys.count, all.warmup), (20_000, Duration::ZERO));
        let parts = [0, 1, 2, 3].map(|number| part(&all, 1003, number));
        let shares = parts.each_ref().map(|part| match part.extent {
            Extent::Operations(share) => share,
            Extent::Time(_) => 0,
        });
        assert_eq!(shares, [251, 251, 251, 250]);
        let seeds = parts.map(|part| part.seed);
        assert!(seeds.windows(2).all(|two| two[1] - two[0] > 1 << 31));
    }

    #[test]
    fn costs_are_by_put_and_the_tail_is_there() {
        let mut total = Total::new(1);
        for millis in 1..=1000 {
            total.latencies.record(Duration::from_millis(millis));
        }
        total.elapsed = Duration::from_secs(2);
        total.server_cpu = Duration::from_millis(20);
        let rows: Vec<_> = describe(&total, 1)
            .iter()
            .map(|sample| (sample.measure(), sample.value()))
            .collect();
        let value = |name: &str| rows.iter().find(|row| row.0 == name).unwrap().1;
        assert_eq!(value("puts per second"), 500.0);
        assert_eq!(value("server CPU per put, µs"), 20.0);
        assert!((value("p99.9, ms") - 999.0).abs() < 2.0);
        assert!((value("longest put, ms") - 1000.0).abs() < 2.0);
    }
}
