//! The scenarios `connections-N` and `watches-W@C`: what clients cost that are there and rest.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::describe::{describe_memory, server_cpu};
use super::held::{Held, Shape};
use super::subject::Subject;
use super::table::{Sample, Unit};
use crate::error::Error;
use crate::load::Plan;
use crate::procfs::Memory;
use crate::stats::millis;
use crate::workload::positive;

/// Sizes of `connections` and `watches` if they are not given.
const CONNECTIONS_DEFAULT: u32 = 10_000;
const WATCHES_DEFAULT: u32 = 100_000;
const WATCHES_CONNECTIONS_DEFAULT: u32 = 100;

/// What the clients hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    /// This many connections, each with a watch and a lease.
    Connections(u32),
    /// Watches on few connections.
    Watches {
        /// The number of watches.
        watches: u32,
        /// The number of connections, at most that of watches.
        connections: u32,
    },
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Idle::Connections(connections) => write!(f, "connections-{connections}"),
            Idle::Watches {
                watches,
                connections,
            } => write!(f, "watches-{watches}@{connections}"),
        }
    }
}

impl Idle {
    /// Parses `connections[-N]` and `watches[-W][@C]`; `None` for other names.
    ///
    /// # Errors
    /// What is wrong with the numbers.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        let (name, connections) = match text.split_once('@') {
            Some((name, connections)) => (name, Some(connections)),
            None => (text, None),
        };
        let (name, size) = match name.split_once('-') {
            Some((name, size)) => (name, Some(size)),
            None => (name, None),
        };
        let size_or = |default| size.map_or(Ok(default), |size| positive(size, text));
        match (name, connections) {
            ("connections", None) => Ok(Some(Idle::Connections(size_or(CONNECTIONS_DEFAULT)?))),
            ("watches", _) => {
                let watches = size_or(WATCHES_DEFAULT)?;
                let connections = match connections {
                    Some(connections) => positive(connections, text)?,
                    None => WATCHES_CONNECTIONS_DEFAULT.min(watches),
                };
                if connections > watches {
                    return Err(format!("{text:?}: a connection would have no watch"));
                }
                Ok(Some(Idle::Watches {
                    watches,
                    connections,
                }))
            }
            _ => Ok(None),
        }
    }

    /// The number of connections.
    pub(super) fn connections(self) -> u32 {
        match self {
            Idle::Connections(connections) | Idle::Watches { connections, .. } => connections,
        }
    }

    /// What the memory is divided by, and its name.
    fn unit(self) -> (u32, &'static str) {
        match self {
            Idle::Connections(connections) => (connections, "connection"),
            Idle::Watches { watches, .. } => (watches, "watch"),
        }
    }
}

pub(super) fn measure(subject: Subject, plan: &Plan, idle: Idle) -> Result<Vec<Sample>, Error> {
    let (count, unit) = idle.unit();
    let shape = Shape {
        target: subject.users.user.clone(),
        connections: idle.connections(),
        watches: count,
        leases: matches!(idle, Idle::Connections(_)),
        prefix: format!("{}held/", plan.keys.prefix),
    };
    subject.rest();
    let before = subject.cluster.memory()?;
    let (cpu_before, began) = (subject.cluster.cpu_time()?, Instant::now());
    let held = Held::start(shape)?.wait_until_open(subject.progress)?;
    let opened_in = began.elapsed();
    let cpu_opened = subject.cluster.cpu_time()?;
    subject.progress.show("resting");
    thread::sleep(plan.duration());
    let cpu_at_rest = subject.cluster.cpu_time()?.saturating_sub(cpu_opened);
    let at_rest = subject.cluster.memory()?;
    subject.progress.show("checking every watch");
    held.check()?;
    subject.cluster.stop(Signal::TERM)?;

    let members = subject.layout.members();
    let cpu_per_one = cpu_opened.saturating_sub(cpu_before).as_secs_f64() * 1e6 / f64::from(count);
    let mut samples = vec![
        Sample::millis("opened in", opened_in),
        Sample::new(
            format!("{} to open a {unit}", server_cpu(members)),
            Unit::Micros,
            cpu_per_one,
        ),
        Sample::new(
            format!("{} per second at rest", server_cpu(members)),
            Unit::Millis,
            per_second(cpu_at_rest, plan.duration()),
        ),
    ];
    samples.extend(describe_memory(&before, "before"));
    samples.extend(describe_memory(&at_rest, "at rest"));
    samples.push(Sample::new(
        format!("memory per {unit}"),
        Unit::KiB,
        growth(&before, &at_rest) / 1024.0 / f64::from(count),
    ));
    Ok(samples)
}

fn per_second(cpu: Duration, passed: Duration) -> f64 {
    millis(cpu) / passed.as_secs_f64()
}

/// How many bytes all members have more than before.
fn growth(before: &[Memory], after: &[Memory]) -> f64 {
    let sum = |members: &[Memory]| -> f64 {
        let resident = members.iter().map(|memory| memory.resident as f64);
        resident.sum()
    };
    sum(after) - sum(before)
}
