//! What came of a run, and how a failure is shown to people.

use std::fmt::Write;
use std::time::Duration;

use crate::checker::Violation;
use crate::checker::linearizable::Searched;
use crate::history::{History, Operation};
use crate::member::Setup;
use crate::plan::Plan;

/// What came of a run.
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// How many members there were.
    pub members: usize,
    /// What went wrong on purpose.
    pub plan: Plan,
    /// How the members were configured.
    pub setup: Setup,
    /// What clients did.
    pub history: History,
    /// The promise that was broken, if one was.
    pub violation: Option<Violation>,
    /// A sum over everything that happened.
    pub digest: u64,
    /// How much happened.
    pub events: u64,
    /// How long it took in the world.
    pub simulated: Duration,
    /// Entries in the committed log.
    pub entries: u64,
    /// What the search for orders found.
    pub searched: Searched,
}

/// Operations and notes in a report, the last of them.
const LINES_MAX: usize = 400;

impl Run {
    /// The failure, for people.
    pub fn report(&self) -> String {
        let mut text = String::new();
        let out = &mut text;
        let Some(violation) = &self.violation else {
            return format!("seed {}: all promises were kept\n", self.seed);
        };
        let _ = writeln!(
            out,
            "seed {}: broken promise: {}",
            self.seed, violation.promise
        );
        let _ = writeln!(out, "\n{}\n", violation.detail);
        let _ = writeln!(out, "members: {}, {:?}", self.members, self.setup);
        let _ = writeln!(
            out,
            "\nplan (everything is mended at {:?}):",
            self.plan.heal_at
        );
        for (at, fault) in &self.plan.faults {
            let _ = writeln!(out, "{:>12.6} {fault}", at.as_secs_f64());
        }
        let _ = writeln!(out, "\nwhat happened, until {:?}:", self.simulated);
        let lines = self.lines();
        let cut = lines.len().saturating_sub(LINES_MAX);
        if cut > 0 {
            let _ = writeln!(out, "  … {cut} lines before");
        }
        for (at, line) in &lines[cut..] {
            let _ = writeln!(out, "{:>12.6} {line}", at.as_secs_f64());
        }
        let _ = writeln!(
            out,
            "\nagain: cargo run --release -p retcd-sim -- --seed {}",
            self.seed
        );
        text
    }

    fn lines(&self) -> Vec<(Duration, String)> {
        let notes = self.history.notes.iter().cloned();
        let operations = self.history.operations.iter();
        let ended = operations.map(|operation| {
            let at = operation.returned.unwrap_or(self.simulated);
            (at, line(operation))
        });
        let mut lines: Vec<(Duration, String)> = notes.chain(ended).collect();
        lines.sort_by_key(|(at, _)| *at);
        lines
    }
}

/// An operation in one line.
pub fn line(operation: &Operation) -> String {
    let client = match operation.client {
        crate::operator::OPERATOR => "operator".to_owned(),
        client => format!("client {client}"),
    };
    format!(
        "{client} at host {}, since {:.6}: {} -> {:?}",
        operation.host,
        operation.invoked.as_secs_f64(),
        operation.request,
        operation.outcome
    )
}
