//! Measured numbers as table rows, named so that it is clear whether they are one member's or all
//! members'.

use std::time::Duration;

use super::table::{Sample, Unit};
use crate::load::Outcome;
use crate::procfs::Memory;
use crate::stats::{Latencies, millis};

/// Throughput, latencies and CPU time of a load whose operation is called `unit`, on a cluster of
/// `members`.
pub(super) fn describe_load(
    outcome: &Outcome<Duration>,
    unit: &str,
    members: usize,
) -> Vec<Sample> {
    let per_op = |cpu: Duration| cpu.as_secs_f64() * 1e6 / outcome.latencies.count().max(1) as f64;
    let mut samples = vec![Sample::new(
        format!("{unit}s"),
        Unit::PerSecond,
        outcome.rate(),
    )];
    samples.extend(percentiles(&outcome.latencies));
    samples.push(Sample::new(
        format!("{} per {unit}", server_cpu(members)),
        Unit::Micros,
        per_op(outcome.after.saturating_sub(outcome.before)),
    ));
    samples.push(Sample::new(
        format!("generator CPU per {unit}"),
        Unit::Micros,
        per_op(outcome.generator_cpu),
    ));
    if outcome.errors > 0 {
        samples.push(Sample::new(
            "refused calls",
            Unit::Count,
            outcome.errors as f64,
        ));
    }
    samples
}

/// The name of the CPU time of a cluster of `members`.
pub(super) fn server_cpu(members: usize) -> String {
    match members {
        1 => "server CPU".into(),
        members => format!("CPU of {members} members"),
    }
}

fn percentiles(latencies: &Latencies) -> [Sample; 2] {
    let at = |name, percent| Sample::new(name, Unit::Millis, millis(latencies.percentile(percent)));
    [at("p50", 50.0), at("p99", 99.0)]
}

/// Resident memory: of the only member, or the sum and the maximum.
pub(super) fn describe_memory(members: &[Memory], when: &str) -> Vec<Sample> {
    let row = |measure: String, bytes: u64| Sample::new(measure, Unit::MiB, mib(bytes));
    let both = |measure: String, of: fn(&Memory) -> u64| match members {
        [only] => vec![row(measure, of(only))],
        _ => vec![
            row(
                format!("{measure}, {} members", members.len()),
                members.iter().map(of).sum(),
            ),
            row(
                format!("{measure}, largest member"),
                members.iter().map(of).max().unwrap_or(0),
            ),
        ],
    };
    let mut samples = both(format!("memory {when}"), |memory| memory.resident);
    samples.extend(both(format!("memory {when}, peak"), |memory| memory.peak));
    samples
}

pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(resident: u64, peak: u64) -> Memory {
        Memory {
            resident: resident << 20,
            peak: peak << 20,
        }
    }

    fn rows(members: &[Memory]) -> Vec<String> {
        let text = |sample: &Sample| format!("{}: {}", sample.measure(), sample.value());
        describe_memory(members, "after").iter().map(text).collect()
    }

    #[test]
    fn memory_of_one_member_is_its_own() {
        assert_eq!(
            rows(&[memory(3, 4)]),
            ["memory after, MiB: 3", "memory after, peak, MiB: 4"]
        );
    }

    #[test]
    fn memory_of_several_is_their_sum_and_the_largest() {
        assert_eq!(
            rows(&[memory(3, 4), memory(5, 5), memory(1, 9)]),
            [
                "memory after, 3 members, MiB: 9",
                "memory after, largest member, MiB: 5",
                "memory after, peak, 3 members, MiB: 18",
                "memory after, peak, largest member, MiB: 9",
            ]
        );
    }
}
