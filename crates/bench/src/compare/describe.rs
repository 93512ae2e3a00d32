//! Measured numbers as table rows, named so that it is clear whether they are one member's or all
//! members'.

use std::time::Duration;

use super::background::Done;
use super::table::{Sample, Unit};
use crate::load::Outcome;
use crate::procfs::Memory;
use crate::stats::Latencies;

/// Throughput, latencies and CPU time of a load whose operation is called `unit`, on a cluster of
/// `members`.
pub(super) fn describe_load(
    outcome: &Outcome<Duration>,
    unit: &str,
    members: usize,
) -> Vec<Sample> {
    let [rate, p50, p99] = describe_rate(outcome, unit);
    let mut samples = vec![rate];
    // Slow readers may need longer for one list than the whole time.
    if outcome.latencies.count() > 0 {
        samples.extend([p50, p99]);
        samples.extend(describe_cpu(outcome, unit, members));
    }
    samples.extend(describe_refused("refused calls", outcome.errors));
    samples
}

/// Throughput and the usual percentiles.
pub(super) fn describe_rate(outcome: &Outcome<Duration>, unit: &str) -> [Sample; 3] {
    let [p50, p99] = percentiles(&outcome.latencies);
    let rate = Sample::new(format!("{unit}s"), Unit::PerSecond, outcome.rate());
    [rate, p50, p99]
}

/// What went on besides the puts.
pub(super) fn describe_done(done: &Done) -> [Sample; 4] {
    [
        Sample::count("lists of 10,000", done.lists),
        Sample::count("compactions", done.compactions),
        Sample::count("defragmentations", done.defragmentations),
        Sample::millis("longest defragmentation", done.longest_defragmentation),
    ]
}

/// What the usual percentiles do not show; the longest latency is called `longest`.
pub(super) fn describe_tail(latencies: &Latencies, longest: &str) -> [Sample; 2] {
    [
        Sample::millis("p99.9", latencies.percentile(99.9)),
        Sample::millis(longest, latencies.max()),
    ]
}

/// CPU time per operation, of all members and of the generator.
pub(super) fn describe_cpu(outcome: &Outcome<Duration>, unit: &str, members: usize) -> [Sample; 2] {
    let count = outcome.latencies.count().max(1) as f64;
    let per_unit = |whose: &str, cpu: Duration| {
        let micros = cpu.as_secs_f64() * 1e6 / count;
        Sample::new(format!("{whose} per {unit}"), Unit::Micros, micros)
    };
    [
        per_unit(
            &server_cpu(members),
            outcome.after.saturating_sub(outcome.before),
        ),
        per_unit("generator CPU", outcome.generator_cpu),
    ]
}

/// A row for refusals, if there were any.
pub(super) fn describe_refused(measure: &str, count: u64) -> Option<Sample> {
    (count > 0).then(|| Sample::count(measure, count))
}

/// The name of the CPU time of a cluster of `members`.
pub(super) fn server_cpu(members: usize) -> String {
    match members {
        1 => "server CPU".into(),
        members => format!("CPU of {members} members"),
    }
}

/// The usual percentiles.
pub(super) fn percentiles(latencies: &Latencies) -> [Sample; 2] {
    let at = |name, percent| Sample::millis(name, latencies.percentile(percent));
    [at("p50", 50.0), at("p99", 99.0)]
}

/// Resident memory: of the only member, or the sum and the maximum.
pub(super) fn describe_memory(members: &[Memory], when: &str) -> Vec<Sample> {
    let both = |measure: String, of: fn(&Memory) -> u64| match members {
        [only] => vec![Sample::mib(measure, of(only))],
        _ => vec![
            Sample::mib(
                format!("{measure}, {} members", members.len()),
                members.iter().map(of).sum(),
            ),
            Sample::mib(
                format!("{measure}, largest member"),
                members.iter().map(of).max().unwrap_or(0),
            ),
        ],
    };
    let mut samples = both(format!("memory {when}"), |memory| memory.resident);
    samples.extend(both(format!("memory {when}, peak"), |memory| memory.peak));
    samples
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
    fn a_load_of_which_nothing_was_completed_has_no_latencies() {
        let mut outcome = Outcome::<Duration> {
            elapsed: Duration::from_secs(2),
            ..Outcome::default()
        };
        let measures = |outcome: &Outcome<Duration>| {
            let samples = describe_load(outcome, "op", 1);
            samples.iter().map(Sample::measure).collect::<Vec<_>>()
        };
        assert_eq!(measures(&outcome), ["ops per second"]);
        outcome.latencies.record(Duration::from_millis(1));
        assert_eq!(measures(&outcome).len(), 5);
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
