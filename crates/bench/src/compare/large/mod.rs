//! The scenario `large`: more data than memory, if there is a cap, and everything that is done with
//! a store in its life.
//!
//! ```text
//!  fill · gets · Zipf gets · pages · puts · watch of all history · compaction ·
//!  defragmentation · snapshot · restart
//! ```
//!
//! A writer that is paced, not closed, puts small values all the time but for the restart: its
//! slowest puts show the pauses that each step causes. A step that fails leaves a remark; the
//! next ones go on unless the server has ended.

mod steps;

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use rustix::process::Signal;

use super::describe::percentiles;
use super::disk_beside::{DiskBeside, Syncs};
use super::steady::{Journal, Pacing, Put, Shape, Steady, between, beyond, latencies};
use super::subject::{Measured, Subject};
use super::table::{Sample, Unit};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::keys::KeySpace;
use crate::load::Plan;
use crate::procfs::Memory;
use crate::stats::{Latencies, mib};
pub(super) use steps::page_len;
use steps::{STEPS, Work};

/// The clients of the writer, and the puts that they make together.
const WRITERS: u32 = 4;
pub(super) const PUTS_PER_SECOND: u32 = 50;
/// The writer's values are small: it shows waiting, not bandwidth.
const WRITTEN_VALUE_SIZE_MAX: usize = 256;
/// Room for history, compaction's lag and what surrounds small values.
const QUOTA_FACTOR: u64 = 4;
const QUOTA_SPARE_BYTES: u64 = 4 << 30;
/// The database and its copy of a defragmentation, with a little around both, in tenths.
const ROOM_TENTHS: u64 = 22;
/// Logs, and the history of a short run.
const ROOM_SPARE_BYTES: u64 = 2 << 30;

/// The size of the scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Large {
    /// The number of keys.
    pub(crate) keys: u64,
    /// The size of each value in bytes.
    pub(crate) value_size: usize,
}

impl Large {
    /// The plan of its loads.
    fn plan(self, plan: &Plan) -> Plan {
        Plan {
            keys: KeySpace {
                count: self.keys,
                ..plan.keys.clone()
            },
            value_size: self.value_size,
            ..plan.clone()
        }
    }

    /// Keys and values alone, in bytes.
    fn bytes(self, plan: &Plan) -> u64 {
        self.plan(plan).keys.bytes(self.value_size)
    }

    /// The flags of the servers. Those of the command line come later, and win.
    pub(super) fn server_args(self, plan: &Plan) -> Vec<String> {
        let quota = self.bytes(plan) * QUOTA_FACTOR + QUOTA_SPARE_BYTES;
        vec![format!("--quota-backend-bytes={quota}")]
    }
}

pub(super) fn measure(subject: Subject, plan: &Plan, size: Large) -> Result<Measured, Error> {
    check_room(subject.directory.path(), size.bytes(plan))?;
    let plan = size.plan(plan);
    let writer = Steady::start(Shape {
        target: subject.users.user.clone(),
        clients: WRITERS,
        pacing: Pacing::Pause(Duration::from_secs(1) * WRITERS / PUTS_PER_SECOND),
        prefix: format!("{}steady/", plan.keys.prefix),
        value_size: plan.value_size.min(WRITTEN_VALUE_SIZE_MAX),
    })?;
    let beside = DiskBeside::start(subject.directory.path())?;
    let mut run = Run {
        beside,
        subject,
        plan,
        measured: Measured::default(),
    };
    let alive = STEPS
        .into_iter()
        .all(|(step, work)| run.measure_step(step, &writer, work));
    let journal = writer.stop();
    run.describe_whole(&journal);
    if alive {
        run.restart();
    }
    Ok(run.measured)
}

/// # Errors
/// [`Error::Usage`] if the file system of `directory` has too little room.
fn check_room(directory: &Path, raw_bytes: u64) -> Result<(), Error> {
    let system = statvfs(directory).map_err(|error| {
        Error::io(format!("cannot look at {}", directory.display()))(error.into())
    })?;
    let (free, needed) = (
        system.f_bavail * system.f_frsize,
        raw_bytes / 10 * ROOM_TENTHS + ROOM_SPARE_BYTES,
    );
    if free >= needed {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{} has {:.0} MiB free, and the database and its copy of a defragmentation need {:.0} MiB",
        directory.display(),
        mib(free),
        mib(needed)
    )))
}

/// The server and what is known of it so far.
struct Run<'a> {
    beside: DiskBeside,
    subject: Subject<'a>,
    plan: Plan,
    measured: Measured,
}

impl Run<'_> {
    /// Measures one step; returns whether the server still runs.
    fn measure_step(&mut self, step: &'static str, writer: &Steady, work: Work) -> bool {
        // What the step before has left under way is not this one's.
        self.subject.rest();
        self.subject.progress.show(step);
        let measured = self.try_step(writer, work);
        let ended = self.subject.cluster.ended();
        match (measured, &ended) {
            (Ok(samples), _) => self.add(step, samples),
            (Err(_), Some(how)) => self.remark(step, how),
            (Err(error), None) => self.remark(step, &error.to_string()),
        }
        ended.is_none()
    }

    fn try_step(&self, writer: &Steady, work: Work) -> Result<Vec<Sample>, Error> {
        let cluster = &self.subject.cluster;
        cluster.reset_peaks();
        let (cpu_before, from) = (cluster.cpu_time()?, writer.now());
        let calls = work(self)?;
        let until = writer.now();
        let cpu = cluster.cpu_time()?.saturating_sub(cpu_before);
        let puts = between(&writer.journal().puts, from, until).to_vec();
        let syncs = self.beside.syncs();
        let mut samples = describe_cost(until - from, cpu).to_vec();
        samples.extend(calls.iter().flat_map(describe_calls));
        samples.extend(describe_puts(&puts, &syncs, writer.origin()));
        samples.extend(describe_memory_sum(cluster)?);
        Ok(samples)
    }

    /// The last step: the server is stopped and started again, without the writer.
    fn restart(&mut self) {
        const STEP: &str = "restart";
        match self.try_restart() {
            Ok(samples) => self.add(STEP, samples),
            Err(error) => self.remark(STEP, &error.to_string()),
        }
    }

    fn try_restart(&mut self) -> Result<Vec<Sample>, Error> {
        let subject = &mut self.subject;
        subject.restart_servers(Signal::TERM)?;
        let first_get = subject
            .cluster
            .first_get(&subject.users.user, &self.plan.keys)?;
        let mut samples = describe_cost(first_get, subject.cluster.cpu_time()?).to_vec();
        samples.extend(describe_memory_sum(&subject.cluster)?);
        Ok(samples)
    }

    /// What concerns no single step.
    fn describe_whole(&mut self, journal: &Journal) {
        let layout = self.subject.layout;
        let raw = self.plan.keys.bytes(self.plan.value_size);
        let longest = latencies(&journal.puts).max();
        self.measured.samples.extend([
            Sample::mib("keys and values", raw),
            Sample::mib("database file", layout.database_bytes()),
            Sample::mib("data directory", layout.disk_bytes()),
            Sample::millis("longest put, rests included", longest),
            Sample::count("failed puts", journal.failed()),
        ]);
    }

    fn add(&mut self, step: &'static str, samples: Vec<Sample>) {
        let samples = samples.into_iter().map(|sample| sample.in_step(step));
        self.measured.samples.extend(samples);
    }

    fn remark(&mut self, step: &str, what: &str) {
        self.measured.remarks.push(format!("{step}: {what}"));
    }
}

fn describe_cost(took: Duration, cpu: Duration) -> [Sample; 2] {
    [
        Sample::new("time", Unit::Seconds, took.as_secs_f64()),
        Sample::new("server CPU", Unit::Seconds, cpu.as_secs_f64()),
    ]
}

fn describe_calls(calls: &Latencies) -> [Sample; 4] {
    let [p50, p99] = percentiles(calls);
    [
        Sample::count("calls", calls.count()),
        p50,
        p99,
        Sample::millis("max", calls.max()),
    ]
}

/// What the puts of the writer took, which began at `origin`, and what the disk took meanwhile.
fn describe_puts(puts: &[Put], syncs: &Syncs, origin: Instant) -> Vec<Sample> {
    if puts.is_empty() {
        return Vec::new();
    }
    let (took, beyond) = (latencies(puts), beyond(puts, syncs, origin));
    vec![
        Sample::millis("p99.9 of puts", took.percentile(99.9)),
        Sample::millis("longest put", took.max()),
        Sample::millis("longest put beyond an fdatasync beside", beyond.max()),
    ]
}

/// The sum over all members.
fn describe_memory_sum(cluster: &Cluster) -> Result<[Sample; 2], Error> {
    let members = cluster.memory()?;
    let sum = |of: fn(&Memory) -> u64| members.iter().map(of).sum();
    Ok([
        Sample::mib("memory", sum(|memory| memory.resident)),
        Sample::mib("peak", sum(|memory| memory.peak)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_room_is_refused_with_both_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let error = check_room(directory.path(), 1 << 60).unwrap_err();
        assert!(error.to_string().contains("MiB free"), "{error}");
    }
}
