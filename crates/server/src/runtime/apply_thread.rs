//! The thread that owns the machine.
//!
//! It applies committed entries in batches, and between batches it runs compactions in small steps,
//! a pause apart. [`Applier`] defines the order in which the effects of a batch become visible.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use retcd_member::{Applier, ApplyFailure, Changes, NoRoom, Stages, Step, ToLog};
use retcd_node::durable::Dirs;
use retcd_proto::raftpb;
use retcd_state::machine::Executed;
use retcd_storage::snap;
use tokio::sync::oneshot;

use super::durable_at::DurableAt;
use super::fatal::stop_process;
use super::node::NodeInbox;
use super::peers::PeerSet;
use super::snapshot_thread::ToSnapshot;
use crate::clock::{Clock, unix_ms};
use crate::log::Text;
use crate::request_text;
use crate::server::Server;

/// What the machine is asked to do.
pub(super) enum ToApply {
    /// Apply entries that are committed as of this moment.
    Entries(Vec<raftpb::Entry>, Duration),
    /// Take over the database that came with this snapshot.
    Restore(raftpb::Snapshot),
    /// Take a snapshot, to be written.
    SnapshotDue,
    /// A snapshot of this index is durable.
    Snapshotted(u64),
    /// End.
    Stop,
}

/// The machine and whoever hears of what it did.
pub(super) struct ApplyThread {
    /// The machine.
    pub applier: Applier,
    /// To the node.
    pub node: NodeInbox,
    /// To the log.
    pub log: Sender<ToLog>,
    /// To whoever writes snapshots.
    pub snapshots: Sender<ToSnapshot>,
    /// What the threads share.
    pub server: Arc<Server>,
    /// The member's clock.
    pub clock: Clock,
    /// The members that are sent to.
    pub peers: PeerSet,
    /// Where received databases are.
    pub dirs: Dirs,
    /// Pause between two steps of a compaction.
    pub compaction_pause: Duration,
    /// When the log had what on its disk.
    pub durable_at: Arc<DurableAt>,
    /// When the compaction began that is under way.
    pub compacting_since: Option<Instant>,
}

impl ApplyThread {
    /// Runs until it is told to stop, or the last sender is gone.
    pub(super) fn run(mut self, inbox: &Receiver<ToApply>) {
        // The first step of a compaction does not wait, so that small ones are over at once.
        let mut step_at = self.applier.is_compacting().then(Instant::now);
        loop {
            let next = match step_at {
                Some(at) => inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(ToApply::Entries(entries, committed_at)) => {
                    if self.apply(&entries, committed_at) {
                        step_at.get_or_insert_with(Instant::now);
                    }
                }
                Ok(ToApply::Restore(snapshot)) => {
                    step_at = self.restore(&snapshot).then(Instant::now);
                }
                Ok(ToApply::SnapshotDue) => {
                    let taken = self.applier.snapshot();
                    let _ = self.snapshots.send(ToSnapshot::Save(Box::new(taken)));
                }
                Ok(ToApply::Snapshotted(index)) => {
                    let commit = &mut || commit_database(&self.server);
                    self.applier.handle_snapshot(index, commit);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(ToApply::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            // Also when there always is a next batch.
            if step_at.is_some_and(|at| at <= Instant::now()) {
                let more = self.compaction_step();
                step_at = more.then(|| Instant::now() + self.compaction_pause);
            }
        }
    }

    /// Whether a compaction has steps to be made.
    fn apply(&mut self, entries: &[raftpb::Entry], committed_at: Duration) -> bool {
        let started = Instant::now();
        let moment = (&self.clock as &dyn retcd_member::Clock).moment();
        let last = entries.last().map_or(0, raftpb::Entry::index);
        let stages = Stages {
            durable: self.durable_at.of(last),
            committed: committed_at,
            begun: moment.monotonic.since_start(),
        };
        let applied = self.applier.apply(
            moment,
            entries,
            stages,
            |executed, changes| {
                let took = started.elapsed();
                count(&self.server, executed, changes, took);
                warn_if_slow(&self.server, entries, stages, took);
            },
            |membership| self.peers.follow(membership),
            &mut || commit_database(&self.server),
        );
        let report = applied.unwrap_or_else(|failure| stop(&failure));
        for input in report.inputs {
            self.node.report(input);
        }
        report.compacting
    }

    /// Goes on with the database that the leader has sent; the log has recorded its arrival.
    fn restore(&mut self, snapshot: &raftpb::Snapshot) -> bool {
        let started = Instant::now();
        let metadata = snapshot.metadata.clone().unwrap_or_default();
        let index = metadata.index();
        crate::info!("applying snapshot"; "incoming-leader-snapshot-index" => index,
            "incoming-leader-snapshot-term" => metadata.term());
        let _restoring = self.server.restoring.enter();
        let restored = self.applier.restore(
            self.clock.time(),
            snapshot,
            &snap::database_path(&self.dirs.snap_dir, index),
            |membership| self.peers.follow(membership),
            &mut || commit_database(&self.server),
        );
        let restored = restored.unwrap_or_else(|failure| stop(&failure));
        let _ = self.log.send(restored.to_log);
        let removed = snap::remove_databases_before(&*self.dirs.disk, &self.dirs.snap_dir, index);
        if let Err(error) = removed {
            crate::warn!("failed to remove received databases"; "error" => Text(&error));
        }
        crate::info!("applied snapshot"; "incoming-leader-snapshot-index" => index,
            "revision" => restored.revision, "took" => started.elapsed());
        self.node.report(restored.input);
        restored.compacting
    }

    /// Whether there are more.
    fn compaction_step(&mut self) -> bool {
        let started = Instant::now();
        match self.applier.compaction_step() {
            Ok(Step::Idle) => {
                self.compacting_since = None;
                false
            }
            Ok(Step::Stepped) => {
                self.compacting_since.get_or_insert(started);
                let pause = &self.server.metrics.compaction.db_pause;
                pause.observe(started.elapsed().as_secs_f64() * 1e3);
                true
            }
            Ok(Step::Finished { more }) => {
                let finished = &self.server.compacted_at_seconds;
                finished.store(unix_ms() / 1000, Relaxed);
                let began = self.compacting_since.take().unwrap_or(started);
                let total = &self.server.metrics.compaction.db_total;
                total.observe(began.elapsed().as_secs_f64() * 1e3);
                more
            }
            Err(error) => stop_process("compaction failed to read the database", &error),
        }
    }
}

/// Counts what a batch did in the metrics. Entries of a batch are taken to have cost the same.
fn count(server: &Server, executed: &[Executed], changes: Changes, took: Duration) {
    let each = took / u32::try_from(executed.len()).unwrap_or(u32::MAX).max(1);
    let metrics = &server.metrics;
    for request in executed {
        let apply = &metrics.server.apply;
        apply.observe(request.operation, request.success, each);
    }
    metrics.mvcc.puts.inc_by(changes.puts);
    metrics.mvcc.put_bytes.add(changes.put_bytes as i64);
    metrics.mvcc.deletes.inc_by(changes.deletes);
    metrics.mvcc.txns.inc_by(changes.txns);
}

/// `--warning-apply-duration`, of a batch of entries. The largest is told: it is what most likely
/// took the time.
fn warn_if_slow(server: &Server, entries: &[raftpb::Entry], stages: Stages, took: Duration) {
    let expected = server.config.warning_apply_duration.std();
    if took <= expected {
        return;
    }
    server.metrics.server.slow_applies.inc();
    let largest = entries.iter().max_by_key(|entry| entry.data().len());
    let request = largest.map(request_text::of_entry).unwrap_or_default();
    let waited = stages.begun.saturating_sub(stages.committed);
    crate::warn!("apply request took too long"; "took" => took, "expected-duration" => expected,
        "prefix" => "", "request" => request, "entries" => entries.len(), "waited for the apply thread" => waited);
}

fn stop(failure: &ApplyFailure) -> ! {
    let what = match failure {
        ApplyFailure::Entry(_) => {
            "a committed entry cannot be applied; the member stops rather than lose it"
        }
        ApplyFailure::Restore(_) | ApplyFailure::Tree(_) | ApplyFailure::ForeignDatabase { .. } => {
            "the leader's snapshot cannot be applied"
        }
        ApplyFailure::Outdated(_) => {
            "the cluster has gone on to a version that this program is too old for"
        }
    };
    stop_process(what, failure)
}

/// Makes everything applied so far durable in the database; blocks.
pub(super) fn commit_database(server: &Server) -> Result<(), NoRoom> {
    let (done, committed) = oneshot::channel();
    (server.member.commits)(done);
    committed.blocking_recv().unwrap_or(Err(NoRoom))
}
