//! Two servers side by side: each scenario in turn, each round A then B, every time on a fresh data directory.
//!
//! Only one server runs at a time, for the two would take each other's processors, and the rounds alternate, so that what
//! changes slowly on a machine (heat, neighbours, a disk that wakes up) falls on both.

mod background;
mod scenario;
mod table;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::cleanup::TempDir;
use crate::disk;
use crate::error::Error;
use crate::load::Plan;
use crate::machine;
use crate::progress::Progress;
use crate::server::Binary;
use crate::stats::{Latencies, millis, number};

pub use scenario::Scenario;
use table::{Report, Section};

/// Everything that a comparison needs to know.
pub struct Comparison {
    /// A and B; ratios are A's number divided by B's.
    pub binaries: [Binary; 2],
    /// What to measure, in this order.
    pub scenarios: Vec<Scenario>,
    /// How often.
    pub rounds: u32,
    /// The shape of every load; endpoint and workload are filled in.
    pub plan: Plan,
    /// Keys of the scenario `restart`.
    pub restart_keys: u64,
    /// Data directories are made in here.
    pub directory: PathBuf,
    /// Where to write the results as Markdown.
    pub markdown: Option<PathBuf>,
}

/// Measures all of `comparison`, printing each table as it is complete. A scenario that fails on one side is reported in its
/// place and the others go on; returns whether all were measured.
///
/// # Errors
/// [`Error::Io`] and [`Error::Server`] if the directory or a binary is unusable from the start.
pub fn compare(comparison: &Comparison, progress: &Progress) -> Result<bool, Error> {
    let root = TempDir::new_in(&comparison.directory)?;
    let mut report = Report {
        head: describe(comparison, &root, progress)?,
        names: comparison
            .binaries
            .each_ref()
            .map(|binary| binary.name.clone()),
        sections: Vec::new(),
    };
    progress.clear();
    println!("{}", report.head_text());
    for scenario in &comparison.scenarios {
        let section = measure(comparison, *scenario, &root, progress);
        progress.clear();
        println!("{}", report.section_text(&section));
        report.sections.push(section);
        // After every section, so that an interrupted run keeps what it has.
        if let Some(path) = &comparison.markdown {
            let written = fs::write(path, report.markdown());
            written.map_err(Error::io(format!("cannot write {}", path.display())))?;
        }
    }
    Ok(report
        .sections
        .iter()
        .all(|section| section.failures.is_empty()))
}

fn measure(
    comparison: &Comparison,
    scenario: Scenario,
    root: &TempDir,
    progress: &Progress,
) -> Section {
    let mut section = Section::new(scenario.to_string(), scenario.note(comparison));
    for round in 1..=comparison.rounds {
        for (side, binary) in comparison.binaries.iter().enumerate() {
            let step = format!(
                "{scenario}, round {round} of {}, {}",
                comparison.rounds, binary.name
            );
            progress.task(&step);
            let measured = TempDir::new_in(root.path()).and_then(|directory| {
                scenario::measure(comparison, scenario, binary, &directory, progress)
            });
            match measured {
                Ok(samples) => section.add(side, samples),
                Err(error) => {
                    section.failures.push(format!("{step}: {error}"));
                    return section;
                }
            }
        }
    }
    section
}

/// The lines above the tables: who, where, how.
fn describe(
    comparison: &Comparison,
    root: &TempDir,
    progress: &Progress,
) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    for binary in &comparison.binaries {
        let args = if binary.args.is_empty() {
            String::new()
        } else {
            format!(", with {}", binary.args.join(" "))
        };
        lines.push(format!("{}: {}{args}", binary.name, binary.version()?));
    }
    lines.push(format!("machine: {}", machine::describe()));
    progress.task("measuring the disk");
    disk::settle(root.path())?;
    lines.push(describe_disk(&disk::measure_syncs(
        root.path(),
        disk::SYNCS_MAX,
    )?));
    if disk::is_in_memory(root.path()) {
        lines.push(
            "warning: the data directories are in memory, where a sync costs nothing; use --dir"
                .into(),
        );
    }
    let plan = &comparison.plan;
    lines.push(format!(
        "load: {} clients on {} connections, {} keys, values of {} bytes, generator on {} thread{} of the same machine",
        plan.clients,
        plan.connections,
        number(plan.keys.count as f64),
        plan.value_size,
        plan.threads,
        if plan.threads == 1 { "" } else { "s" },
    ));
    lines.push(match comparison.rounds {
        1 => "one round, each measurement on a fresh data directory".into(),
        rounds => format!(
            "medians of {rounds} rounds, A B A B, each measurement on a fresh data directory; smallest and largest in parentheses"
        ),
    });
    Ok(lines)
}

fn describe_disk(syncs: &Latencies) -> String {
    let at = |percent| number(millis(syncs.percentile(percent)));
    format!(
        "disk: appended write with fdatasync p50 {} ms, p90 {} ms, p99 {} ms, max {} ms ({} writes)",
        at(50.0),
        at(90.0),
        at(99.0),
        number(millis(syncs.max())),
        syncs.count(),
    )
}

/// How long a server may rest before its memory is read, so that what it does in the background is done.
const REST: Duration = Duration::from_secs(2);
