//! The thread that owns the machine.
//!
//! It applies committed entries in batches, answers those who wait for them, publishes the changes to
//! the watchers, and hands the writes to the backend. Between batches it works off compactions in small
//! steps: at once when idle, a step per batch under load.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use retcd_node::Input;
use retcd_proto::raftpb;
use retcd_state::machine::{Applied, Machine};
use retcd_state::mvcc::Progress;

use super::ClusterView;
use super::fatal::stop_process;
use super::mailbox::Mail;
use super::member::Member;

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
pub fn run(mut machine: Machine, inbox: &Receiver<ToApply>, node: &SyncSender<Input>, member: &Arc<Member>, pace: CompactionPace) {
    let mut compacting = machine.is_compacting();
    loop {
        let next = match compacting {
            true => inbox.recv_timeout(pace.pause),
            false => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(ToApply::Entries(entries)) => {
                apply(&mut machine, entries, node, member);
                compacting = compacting || machine.is_compacting();
            }
            Ok(ToApply::StorageVersion) => machine.update_storage_version(),
            Err(RecvTimeoutError::Timeout) => compacting = compaction_step(&mut machine, member, pace.batch),
            Ok(ToApply::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn apply(machine: &mut Machine, entries: Vec<raftpb::Entry>, node: &SyncSender<Input>, member: &Arc<Member>) {
    let now = member.clock.time();
    let applied = match machine.apply(&entries, now) {
        Ok(applied) => applied,
        Err(error) => stop_process("a committed entry cannot be applied; the member stops rather than lose it", &error),
    };
    let Applied { index, replies, events, conf_changes, cluster_changed } = applied;
    if cluster_changed {
        *member.cluster.write() = Arc::new(ClusterView::of(machine));
    }
    // Watchers before writers: who has seen its write acknowledged finds it published.
    member.mailboxes.publish(events);
    member.mailboxes.send_split(replies, |(request, _)| *request, Mail::Replies);
    // The node thread outlives this one unless the process is stopping.
    let _ = node.send(Input::Applied { index, conf_changes });
}

fn compaction_step(machine: &mut Machine, member: &Arc<Member>, batch: usize) -> bool {
    let started = Instant::now();
    match machine.compaction_step(batch) {
        Ok(Progress::Finished { revision, deleted }) => {
            member.metrics.compaction.db_keys.inc_by(deleted as u64);
            member.compacted.send_replace(revision);
            machine.is_compacting()
        }
        Ok(Progress::Stepped { deleted }) => {
            member.metrics.compaction.db_pause.observe(started.elapsed().as_secs_f64() * 1e3);
            member.metrics.compaction.db_keys.inc_by(deleted as u64);
            true
        }
        Ok(Progress::Idle) => false,
        Err(error) => stop_process("compaction failed to read the database", &error),
    }
}
