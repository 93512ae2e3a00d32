//! The lines above the tables: binaries, machine, disk, parameters.

use super::Comparison;
use crate::cleanup::TempDir;
use crate::disk;
use crate::error::Error;
use crate::machine;
use crate::progress::Progress;
use crate::stats::{Latencies, count, millis, number};

/// Describes `comparison`, whose directories are in `root`.
///
/// # Errors
/// [`Error::Io`] and [`Error::Server`] if a binary or the directory is unusable.
pub(super) fn describe(
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
    lines.extend(describe_servers(comparison));
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
        "load: {} clients on {} connections, {}{} keys, values of {} bytes, generator on {} thread{} of the same machine",
        plan.clients,
        plan.connections,
        listed(&comparison.keys),
        if comparison.is_sweep() {
            " (written before every load)"
        } else {
            ""
        },
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

fn listed(counts: &[u64]) -> String {
    let counts: Vec<_> = counts.iter().map(|keys| count(*keys)).collect();
    counts.join(" / ")
}

/// The server options, a line each.
fn describe_servers(comparison: &Comparison) -> Vec<String> {
    let mut lines = Vec::new();
    if comparison.members > 1 {
        lines.push(format!(
            "servers: clusters of {} members on the same machine and disk, connections go to the members in turn",
            comparison.members
        ));
    }
    if comparison.tls {
        lines.push("TLS 1.3 for clients, also between members, certificates (P-256) on both sides, no resumption".into());
    }
    if let Some(max_bytes) = comparison.memory_max {
        lines.push(format!(
            "memory: each server process has at most {} MiB, in a cgroup of its own without swap; cached file pages count",
            count(max_bytes >> 20)
        ));
    }
    if comparison.auth {
        lines.push(
            "authentication is on, each call carries the token of a user with one role".into(),
        );
    }
    lines
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
