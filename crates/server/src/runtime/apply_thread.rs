//! The thread that owns the machine.
//!
//! It applies committed entries in batches, answers those who wait for them, publishes the changes to
//! the watchers, and hands the writes to the backend. Between batches it works off compactions in small
//! steps: at once when idle, a step per batch under load.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::{Duration, Instant};

use retcd_node::Input;
use retcd_node::durable::Dirs;
use retcd_proto::raftpb;
use retcd_state::machine::{Applied, Executed, Machine, Reply};
use retcd_state::mvcc::{Event, EventKind, Progress};
use retcd_state::watch::RevisionEvents;
use retcd_storage::snap;

use super::clock::unix_ms;
use super::fatal::stop_process;
use super::log_thread::ToLog;
use super::mailbox::Mail;
use super::member::Member;
use super::peers::Peers;
use super::versions::{FollowedVersion, Schema};
use crate::log::Text;

/// What the machine is asked to do.
pub enum ToApply {
    /// Apply committed entries.
    Entries(Vec<raftpb::Entry>),
    /// Take over the database that came with this snapshot.
    Restore(raftpb::Snapshot),
    /// A snapshot of this index is durable.
    Snapshotted(u64),
    /// End.
    Stop,
}

/// A snapshot whose database is of another index.
#[derive(Debug, thiserror::Error)]
#[error("the snapshot is of index {snapshot}, the database that came with it of index {database}")]
struct ForeignDatabase {
    snapshot: u64,
    database: u64,
}

/// How fast compactions go.
#[derive(Clone, Copy, Debug)]
pub struct CompactionPace {
    /// Revisions per step.
    pub batch: usize,
    /// Pause between steps.
    pub pause: Duration,
}

/// The machine and whoever hears of what it did.
pub struct Applier {
    /// The machine.
    pub machine: Machine,
    /// To the node.
    pub node: SyncSender<Input>,
    /// To the log.
    pub log: Sender<ToLog>,
    /// What the threads share.
    pub member: Arc<Member>,
    /// The members that are sent to.
    pub peers: Peers,
    /// The cluster's version as it was last seen.
    pub versions: FollowedVersion,
    /// Where received databases are.
    pub dirs: Dirs,
    /// How fast compactions go.
    pub pace: CompactionPace,
}

impl Applier {
    /// Runs until it is told to stop, or the last sender is gone.
    pub fn run(mut self, inbox: &Receiver<ToApply>) {
        // The first step of a compaction does not wait, so that small ones are over at once.
        let mut compacting = self.machine.is_compacting();
        let mut pause = Duration::ZERO;
        loop {
            let next = match compacting {
                true => inbox.recv_timeout(pause),
                false => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(ToApply::Entries(entries)) => {
                    self.apply(&entries);
                    if !compacting {
                        compacting = self.machine.is_compacting();
                        pause = Duration::ZERO;
                    }
                }
                Ok(ToApply::Restore(snapshot)) => {
                    self.restore(&snapshot);
                    compacting = self.machine.is_compacting();
                }
                Ok(ToApply::Snapshotted(index)) => {
                    self.versions
                        .handle_snapshot(index, &mut self.machine, &self.member);
                }
                Err(RecvTimeoutError::Timeout) => {
                    compacting = compaction_step(&mut self.machine, &self.member, self.pace.batch);
                    pause = self.pace.pause;
                }
                Ok(ToApply::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn apply(&mut self, entries: &[raftpb::Entry]) {
        let member = &self.member;
        let started = Instant::now();
        let was_enabled = member.auth.read().is_enabled();
        let applied = match self.machine.apply(member.clock.time(), entries) {
            Ok(applied) => applied,
            Err(error) => stop_process(
                "a committed entry cannot be applied; the member stops rather than lose it",
                &error,
            ),
        };
        let Applied {
            applied,
            replies,
            executed,
            events,
            conf_changes,
            cluster_changed,
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
        member.progress.publish_applied(applied.index);
        observe(member, &executed, &events, started.elapsed());
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
        if cluster_changed {
            self.peers.follow(member);
            if self.versions.follow(&mut self.machine, member) == Schema::AwaitsSnapshot {
                let _ = self.node.send(Input::SnapshotWanted);
            }
        }
        if let Some(first) = entries.iter().rfind(|entry| is_first_of_term(entry)) {
            member.begun_term.send_replace(first.term());
        }
        member
            .mailboxes
            .send_split(replies, |(request, _)| *request, Mail::Replies);
        let conf_changes = conf_changes
            .into_iter()
            .map(|applied| applied.change)
            .collect();
        self.report(applied.index, conf_changes);
    }

    /// Goes on with the database that the leader has sent; the log has recorded its arrival.
    fn restore(&mut self, snapshot: &raftpb::Snapshot) {
        let started = Instant::now();
        let metadata = snapshot.metadata.clone().unwrap_or_default();
        let index = metadata.index();
        let file = snap::database_path(&self.dirs.snap_dir, index);
        crate::info!("applying snapshot"; "incoming-leader-snapshot-index" => index,
            "incoming-leader-snapshot-term" => metadata.term());
        let _restoring = self.member.restoring.enter();
        let restored = match self.machine.restore(&file) {
            Ok(restored) => restored,
            Err(error) => stop_process("the leader's snapshot cannot be applied", &error),
        };
        if restored.applied.index != index {
            let error = ForeignDatabase {
                snapshot: index,
                database: restored.applied.index,
            };
            stop_process("the leader's snapshot cannot be applied", &error);
        }
        let member = &self.member;
        // The database does not tell who has logged out meanwhile.
        member.authenticator.forget_tokens(member.clock.now());
        member
            .mailboxes
            .restored(restored.revision, restored.compacted);
        self.peers.follow(member);
        *member.storage_version.write() = self.machine.storage_version().ok().flatten();
        if self.versions.follow(&mut self.machine, member) == Schema::AwaitsSnapshot {
            self.versions
                .handle_snapshot(index, &mut self.machine, member);
        }
        member.progress.publish_applied(index);
        let _ = self.log.send(ToLog::Release(index));
        if let Err(error) =
            snap::remove_databases_before(&*self.dirs.disk, &self.dirs.snap_dir, index)
        {
            crate::warn!("failed to remove received databases"; "error" => Text(&error));
        }
        crate::info!("applied snapshot"; "incoming-leader-snapshot-index" => index,
            "revision" => restored.revision, "took" => started.elapsed());
        self.report(index, Vec::new());
    }

    fn report(&self, index: u64, conf_changes: Vec<raftpb::ConfChange>) {
        // The node thread outlives this one unless the process is stopping.
        let _ = self.node.send(Input::Applied {
            index,
            conf_changes,
        });
    }
}

/// Counts what a batch did. Entries of a batch are taken to have cost the same.
fn observe(member: &Member, executed: &[Executed], events: &[(i64, Arc<[Event]>)], took: Duration) {
    let each = took / u32::try_from(executed.len()).unwrap_or(u32::MAX).max(1);
    let apply = &member.metrics.server.apply;
    for request in executed {
        apply.observe(request.operation, request.success, each);
    }
    if took > member.config.warning_apply_duration.std() {
        member.metrics.server.slow_applies.inc();
        crate::warn!("apply request took too long"; "took" => took,
            "expected-duration" => member.config.warning_apply_duration.std(), "entries" => executed.len());
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

/// Whether this is the entry that a leader starts its term with.
fn is_first_of_term(entry: &raftpb::Entry) -> bool {
    entry.r#type() == raftpb::EntryType::EntryNormal && entry.data().is_empty()
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
