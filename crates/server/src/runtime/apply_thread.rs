//! The thread that owns the machine.
//!
//! It applies committed entries in batches, answers those who wait for them, publishes the changes to
//! the watchers, and hands the writes to the backend. Between batches it works off compactions in small
//! steps: at once when idle, a step per batch under load.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use retcd_node::Input;
use retcd_proto::raftpb;
use retcd_state::machine::{Applied, ApplyError, Machine, Reply};
use retcd_state::mvcc::{Event, EventKind, Progress};
use retcd_state::watch::RevisionEvents;

use super::clock::unix_ms;
use super::fatal::stop_process;
use super::mailbox::{Mail, Outcome};
use super::member::Member;
use crate::log::Text;
use crate::metrics::Operation;

/// What the machine is asked to do.
pub enum ToApply {
    /// Apply committed entries.
    Entries(Vec<raftpb::Entry>),
    /// Bring the schema's version up to the cluster's.
    StorageVersion,
    /// End.
    Stop,
}

/// How fast compactions go.
#[derive(Clone, Copy, Debug)]
pub struct CompactionPace {
    /// Revisions per step.
    pub batch: usize,
    /// Pause between steps.
    pub pause: Duration,
}

/// Runs until the last sender is gone.
pub fn run(
    mut machine: Machine,
    inbox: &Receiver<ToApply>,
    node: &SyncSender<Input>,
    member: &Arc<Member>,
    pace: CompactionPace,
) {
    // The first step of a compaction does not wait, so that small ones are over at once.
    let mut compacting = machine.is_compacting();
    let mut pause = Duration::ZERO;
    loop {
        let next = match compacting {
            true => inbox.recv_timeout(pause),
            false => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(ToApply::Entries(entries)) => {
                apply(&mut machine, entries, node, member);
                if !compacting {
                    compacting = machine.is_compacting();
                    pause = Duration::ZERO;
                }
            }
            Ok(ToApply::StorageVersion) => update_storage_version(&mut machine, member),
            Err(RecvTimeoutError::Timeout) => {
                compacting = compaction_step(&mut machine, member, pace.batch);
                pause = pace.pause;
            }
            Ok(ToApply::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn apply(
    machine: &mut Machine,
    entries: Vec<raftpb::Entry>,
    node: &SyncSender<Input>,
    member: &Arc<Member>,
) {
    let started = Instant::now();
    let was_enabled = member.auth.read().is_enabled();
    let applied = match machine.apply(member.clock.time(), &entries) {
        Ok(applied) => applied,
        Err(error) => stop_process(
            "a committed entry cannot be applied; the member stops rather than lose it",
            &error,
        ),
    };
    let Applied {
        applied,
        replies,
        events,
        conf_changes,
        token_changes,
        ..
    } = applied;
    match (was_enabled, member.auth.read().is_enabled()) {
        (false, true) => crate::info!("enabled authentication"),
        (true, false) => crate::info!("disabled authentication"),
        _ => {}
    }
    if !token_changes.is_empty() {
        let now = member.clock.now();
        member.authenticator.apply(token_changes, now);
    }
    observe(member, &replies, &events, started.elapsed());
    let events = events
        .into_iter()
        .map(|(revision, events)| Arc::new(RevisionEvents::new(revision, events)));
    // Watchers before writers: who has seen its write acknowledged finds it published.
    member.mailboxes.publish(events.collect());
    for (_, reply) in &replies {
        if let Ok(Reply::Compact(compaction)) = reply {
            member.mailboxes.compacted(compaction.compacted);
        }
    }
    member
        .mailboxes
        .send_split(replies, |(request, _)| *request, Mail::Replies);
    // The node thread outlives this one unless the process is stopping.
    let conf_changes = conf_changes
        .into_iter()
        .map(|applied| applied.change)
        .collect();
    let _ = node.send(Input::Applied {
        index: applied.index,
        conf_changes,
    });
}

/// Counts what a batch did. Entries of a batch are taken to have cost the same.
fn observe(
    member: &Member,
    replies: &[(u64, Outcome)],
    events: &[(i64, Arc<[Event]>)],
    took: Duration,
) {
    let each = took / u32::try_from(replies.len()).unwrap_or(u32::MAX).max(1);
    for (_, outcome) in replies {
        let (operation, success) = match outcome {
            Ok(reply) => (operation_of(reply), true),
            // As in etcd, where a compacted revision is an answer.
            Err(error) => (None, matches!(error, ApplyError::Compacted)),
        };
        if let Some(operation) = operation {
            member
                .metrics
                .server
                .apply
                .observe(operation, success, each);
        }
    }
    if took > member.config.warning_apply_duration.std() {
        member.metrics.server.slow_applies.inc();
        crate::warn!("apply request took too long"; "took" => took,
            "expected-duration" => member.config.warning_apply_duration.std(), "entries" => replies.len());
    }
    let mvcc = &member.metrics.mvcc;
    for (_, events) in events {
        let puts = events.iter().filter(|event| event.kind == EventKind::Put);
        let (count, bytes) = puts.fold((0, 0), |(count, bytes), event| {
            (
                count + 1,
                bytes + event.record.key().len() + event.record.value().len(),
            )
        });
        mvcc.puts.inc_by(count);
        mvcc.put_bytes.add(bytes as i64);
        mvcc.deletes.inc_by(events.len() as u64 - count);
        if events.len() > 1 {
            mvcc.txns.inc();
        }
    }
}

fn operation_of(reply: &Reply) -> Option<Operation> {
    match reply {
        Reply::Put(_) => Some(Operation::Put),
        Reply::DeleteRange(_) => Some(Operation::DeleteRange),
        Reply::Txn(_) => Some(Operation::Txn),
        Reply::Range(_) => Some(Operation::Range),
        Reply::Compact(_) => Some(Operation::Compaction),
        Reply::LeaseGrant(_) => Some(Operation::LeaseGrant),
        Reply::LeaseRevoke { .. } => Some(Operation::LeaseRevoke),
        Reply::LeaseCheckpoint { .. } => Some(Operation::LeaseCheckpoint),
        Reply::Alarm(_) => Some(Operation::Alarm),
        Reply::Members(_) | Reply::Auth(_) | Reply::Done => None,
    }
}

/// Takes the schema to the cluster's version.
fn update_storage_version(machine: &mut Machine, member: &Member) {
    match machine.update_storage_version() {
        Ok(Some(version)) => {
            crate::info!("updated storage version"; "new-storage-version" => &version.to_string());
        }
        Ok(None) => {}
        Err(error) => crate::error!("failed to update storage version"; "error" => Text(&error)),
    }
    *member.storage_version.write() = machine.storage_version().ok().flatten();
}

fn compaction_step(machine: &mut Machine, member: &Arc<Member>, batch: usize) -> bool {
    let started = Instant::now();
    match machine.compaction_step(batch) {
        Ok(Progress::Finished { revision, deleted }) => {
            member.metrics.compaction.db_keys.inc_by(deleted as u64);
            crate::info!("finished scheduled compaction"; "compact-revision" => revision);
            member.compacted_at_seconds.store(unix_ms() / 1000, Relaxed);
            member.compacted.send_replace(revision);
            machine.is_compacting()
        }
        Ok(Progress::Stepped { deleted }) => {
            member.metrics.compaction.db_keys.inc_by(deleted as u64);
            member
                .metrics
                .compaction
                .db_pause
                .observe(started.elapsed().as_secs_f64() * 1e3);
            true
        }
        Ok(Progress::Idle) => false,
        Err(error) => stop_process("compaction failed to read the database", &error),
    }
}
