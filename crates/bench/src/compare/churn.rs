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

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::background::{Background, History, Operations};
use super::describe::{
    describe_cpu, describe_memory, describe_rate, describe_refused, describe_tail,
};
use super::disk_beside::DiskBeside;
use super::subject::Subject;
use super::table::{Sample, Unit};
use crate::error::Error;
use crate::keys::KeySpace;
use crate::load::{Extent, Outcome, Plan};
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
    load: Outcome<Duration>,
    /// The peak memory of each member in bytes; each part resets the kernel's own.
    peaks: Vec<u64>,
    /// File and memory, as time went on.
    rows: Vec<Sample>,
}

pub(super) fn measure(subject: Subject, plan: &Plan, size: Churn) -> Result<Vec<Sample>, Error> {
    let plan = updates(plan, size);
    subject.fill(&plan.keys, plan.value_size)?;
    let operations = Operations {
        listed: 0,
        kept: History::LastSecond,
        defragmenting: false,
        snapshots: false,
        absent: None,
    };
    let beside = DiskBeside::start(subject.directory.path())?;
    let background = Background::start(&subject.users, &plan.keys, operations)?;
    let began = Instant::now();
    let measured = update_in_parts(&subject, &plan, size.updates);
    let ended = Instant::now();
    let done = background.stop()?;
    let syncs = beside.stop()?;
    let mut total = measured?;
    subject.rest();
    total.read_memory_and_file(&subject, &plan, Some("at rest"))?;
    subject.cluster.stop(Signal::TERM)?;

    let mut samples = describe(&total.load, subject.layout.members());
    samples.extend(syncs.describe(began, ended));
    samples.push(Sample::count("compactions", done.compactions));
    samples.push(Sample::mib("live data", plan.keys.bytes(plan.value_size)));
    samples.extend(total.rows);
    Ok(samples)
}

/// What the plans of all parts have in common.
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
        total
            .load
            .add(subject.run(&part(plan, updates, number as u64))?);
        total.read_memory_and_file(subject, plan, when)?;
    }
    Ok(total)
}

impl Total {
    fn new(members: usize) -> Self {
        Self {
            load: Outcome::default(),
            peaks: vec![0; members],
            rows: Vec::new(),
        }
    }

    /// Reads memory and file; they become rows if that moment has a name.
    fn read_memory_and_file(
        &mut self,
        subject: &Subject,
        plan: &Plan,
        when: Option<&str>,
    ) -> Result<(), Error> {
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

fn describe(load: &Outcome<Duration>, members: usize) -> Vec<Sample> {
    let mut samples = describe_rate(load, "put").to_vec();
    samples.extend(describe_tail(&load.latencies, "longest put"));
    samples.extend(describe_cpu(load, "put", members));
    samples.extend(describe_refused("refused puts", load.errors));
    samples
}

/// The size of the database file, and how many times the live data that is.
fn file(subject: &Subject, plan: &Plan, when: &str) -> [Sample; 2] {
    let (file, live) = (
        subject.layout.database_bytes(),
        plan.keys.bytes(plan.value_size),
    );
    [
        Sample::mib(format!("database file {when}"), file),
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
    use crate::stats::Latencies;

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
        let mut load = Outcome::default();
        for part in [1..=400, 401..=1000] {
            let mut latencies = Latencies::default();
            part.for_each(|millis| latencies.record(Duration::from_millis(millis)));
            load.add(Outcome {
                latencies,
                elapsed: Duration::from_secs(1),
                before: Duration::from_millis(500),
                after: Duration::from_millis(510),
                ..Outcome::default()
            });
        }
        let rows: Vec<_> = describe(&load, 1)
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
