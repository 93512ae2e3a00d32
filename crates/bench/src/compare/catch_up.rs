//! The scenario `catch-up`: a follower returns after missing more entries than the log retains, and
//! needs a snapshot.
//!
//! The servers are configured to snapshot early and to retain few entries, so that no log reaches
//! back to the follower.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::steady::{Journal, Pacing, Shape, Steady, between, latencies};
use super::subject::Subject;
use super::table::Sample;
use crate::binary::Binary;
use crate::disk;
use crate::error::Error;
use crate::fill::{PUTS_PER_TXN_MAX, fill_in_txns};
use crate::keys::KeySpace;
use crate::load::{self, Plan};
use crate::procfs;
use crate::status::{self, status};
use crate::target::Target;

/// The size of each missed value in bytes.
pub(super) const VALUE_SIZE: usize = 4096;
/// The number of clients that put while it catches up, and of puts they make in total.
pub(super) const CLIENTS: u32 = 4;
pub(super) const PUTS_PER_SECOND: u32 = 200;

const SNAPSHOT_COUNT: u64 = 1_000;
const ENTRIES_KEPT: u64 = 100;
/// The log grows by at least this many entries, so that the servers have snapshotted and compacted
/// it.
const ENTRIES_MIN: u64 = 4 * SNAPSHOT_COUNT;
/// Enough for every size of the scenario.
const QUOTA_BYTES: u64 = 8 << 30;
const _: () = assert!(QUOTA_BYTES >= (super::CATCH_UP_MIB_MAX << 20) * 2);
/// The interval at which the follower's progress is polled.
pub(super) const POLL: Duration = Duration::from_millis(10);

/// The server flags, by the names that `binary` uses.
///
/// # Errors
/// [`Error::Server`] if it has no such flags.
pub(super) fn server_args(binary: &Binary) -> Result<Vec<String>, Error> {
    let kept = binary.first_known(&[
        "snapshot-catchup-entries",
        "experimental-snapshot-catchup-entries",
    ])?;
    Ok(vec![
        format!("--snapshot-count={SNAPSHOT_COUNT}"),
        format!("--{kept}={ENTRIES_KEPT}"),
        format!("--quota-backend-bytes={QUOTA_BYTES}"),
    ])
}

pub(super) fn measure(
    mut subject: Subject,
    plan: &Plan,
    size_mib: u64,
) -> Result<Vec<Sample>, Error> {
    let target = subject.users.user.clone();
    let follower = (status::leader(&target)? + 1) % target.members();
    let behind = fall_behind(&mut subject, plan, follower, size_mib)?;
    let rest = target.without(follower);
    let at = status::leader(&rest)?;
    let leader = subject.cluster.server(at);

    let light = Steady::start(light_load(&rest, plan))?;
    thread::sleep(plan.warmup);
    subject.progress.show("catching up");
    drop(procfs::reset_peak(leader.pid()));
    let (cpu_before, from) = (leader.cpu_time()?, light.now());
    let mut returned = subject.layout.layout(follower).exec()?;
    let took = returned.wait_until(POLL, || has_caught_up(&target, follower, &rest.only(at)))?;
    let until = light.now();
    let leader_cpu = leader.cpu_time()?.saturating_sub(cpu_before);
    let sides = [
        ("leader", leader_cpu, leader.memory()?.peak),
        ("follower", returned.cpu_time()?, returned.memory()?.peak),
    ];
    let journal = light.stop();
    returned.stop(Signal::TERM)?;
    subject.cluster.stop(Signal::TERM)?;

    let mut samples = vec![
        Sample::millis("caught up after", took),
        Sample::count("entries behind", behind),
    ];
    samples.extend(sides.map(|(side, cpu, _)| Sample::millis(format!("CPU of the {side}"), cpu)));
    samples.extend(
        sides.map(|(side, _, peak)| Sample::mib(format!("memory of the {side}, peak"), peak)),
    );
    samples.extend(describe_puts(&journal, from, until));
    Ok(samples)
}

/// Stops the follower and puts what it misses; returns the number of entries.
pub(super) fn fall_behind(
    subject: &mut Subject,
    plan: &Plan,
    follower: usize,
    size_mib: u64,
) -> Result<u64, Error> {
    let target = subject.users.user.clone();
    let stopped_at = applied(&target, follower).unwrap_or(0);
    subject.cluster.take(follower).stop(Signal::TERM)?;
    let rest = target.without(follower);
    let keys = missed_keys(&plan.keys, size_mib);
    let per_txn = (keys.count / ENTRIES_MIN).clamp(1, PUTS_PER_TXN_MAX);
    fill_in_txns(&rest, &keys, VALUE_SIZE, per_txn, subject.progress)?;
    disk::settle(subject.directory.path())?;
    subject.rest();
    let at = status::leader(&rest)?;
    let behind = applied(&rest, at).unwrap_or(0).saturating_sub(stopped_at);
    if behind < 2 * SNAPSHOT_COUNT {
        let reason = format!("has only {behind} more entries than the stopped follower");
        return Err(subject.cluster.server(at).layout().failure(reason));
    }
    Ok(behind)
}

fn describe_puts(journal: &Journal, from: Duration, until: Duration) -> [Sample; 4] {
    let meanwhile = latencies(between(&journal.puts, from, until));
    [
        Sample::millis("p50 of the puts meanwhile", meanwhile.percentile(50.0)),
        Sample::millis("p99 of the puts meanwhile", meanwhile.percentile(99.0)),
        Sample::millis("longest put meanwhile", meanwhile.max()),
        Sample::count("failed puts", journal.failed()),
    ]
}

/// The keys that the follower misses, disjoint from those of other loads.
fn missed_keys(keys: &KeySpace, size_mib: u64) -> KeySpace {
    KeySpace {
        prefix: format!("{}catch-up/", keys.prefix),
        count: (size_mib << 20) / VALUE_SIZE as u64,
    }
}

fn light_load(target: &Target, plan: &Plan) -> Shape {
    Shape {
        target: target.clone(),
        clients: CLIENTS,
        pacing: Pacing::Pause(Duration::from_secs(1) * CLIENTS / PUTS_PER_SECOND),
        prefix: format!("{}steady/", plan.keys.prefix),
        value_size: plan.value_size,
    }
}

/// The applied index of member `at`, if it responds.
fn applied(target: &Target, at: usize) -> Option<u64> {
    let runtime = load::runtime().ok()?;
    let status = runtime.block_on(status(target, at)).ok()?;
    Some(status.raft_applied_index)
}

/// Whether `follower` has applied what the leader had applied just before.
pub(super) fn has_caught_up(target: &Target, follower: usize, leader: &Target) -> bool {
    let wanted = applied(leader, 0);
    wanted.is_some() && applied(target, follower) >= wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_size_makes_a_log_long_enough() {
        let keys = |size_mib| {
            let all = KeySpace {
                prefix: "/".into(),
                count: 1,
            };
            missed_keys(&all, size_mib).count
        };
        assert!(keys(super::super::CATCH_UP_MIB_MIN) >= ENTRIES_MIN);
        assert_eq!(keys(500), 128_000);
    }
}
