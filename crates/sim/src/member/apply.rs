//! The machine's part: batches of committed entries, the database's commits, compactions.

use std::time::Duration;

use prost::Message;
use retcd_member::{ApplyFailure, Commit, NoRoom, Report, Stages};
use retcd_node::Input;
use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_proto::mvccpb::KeyValue;
use retcd_proto::raftpb;
use retcd_state::machine::{Moment, RestoreError};
use retcd_state::mvcc::Revision;
use retcd_storage::backend::{Backend, BackendError, Bucket};

use super::{Process, Step, Stop, StopKind};
use crate::checker::{ensure, version};
use crate::context::Context;
use crate::host::TURNED_OVER;
use crate::model::tree;
use crate::sabotage::Sabotage;

const FORWARD: &str = "the index of API v2 never goes back";
const SAME_REVISION: &str = "the same entries make the same revision";
/// Revisions between two hashes.
const HASHED_EVERY: i64 = 60;
/// Which entry is passed over by a member that is broken that way.
const SKIPPED_EVERY: u64 = 50;
/// How far the clock is behind by which leases are granted on a member that is broken that way.
const BEHIND: Duration = Duration::from_millis(1500);

/// What the machine is asked to do.
pub enum ToApply {
    /// Apply committed entries.
    Entries(Vec<raftpb::Entry>),
    /// Go on with a received database.
    Restore(raftpb::Snapshot),
    /// Take a snapshot, to be written.
    SnapshotDue,
}

/// Commits `backend` for whoever needs that at once; what stands in the way of it is left in
/// `failed`.
fn commit_at_once(backend: &Backend, failed: &mut Option<Stop>) -> Result<(), NoRoom> {
    match backend.commit() {
        Ok(_) => Ok(()),
        Err(BackendError::Full(_)) => Err(NoRoom),
        Err(error) => {
            *failed = Some(Stop::disk("the database failed", error));
            Err(NoRoom)
        }
    }
}

impl From<ApplyFailure> for Stop {
    fn from(failure: ApplyFailure) -> Stop {
        let kind = match failure {
            ApplyFailure::Restore(RestoreError::Replace(_)) => StopKind::Disk,
            _ => StopKind::Contradiction,
        };
        Stop {
            reason: failure.to_string(),
            kind,
        }
    }
}

impl Process {
    pub(super) fn queue_apply(&mut self, message: ToApply, cx: &mut Context) {
        if let ToApply::Entries(entries) = &message {
            self.acknowledge_early(entries);
        }
        self.apply_queue.push_back(message);
        self.apply_next(cx);
    }

    fn apply_next(&mut self, cx: &mut Context) {
        if !self.apply_due && !self.apply_queue.is_empty() {
            self.apply_due = true;
            let (from, to) = self.speed.apply_us;
            let delay = cx.between_us(from, to);
            self.step_after(delay, Step::Apply, cx);
        }
    }

    pub(super) fn apply(&mut self, cx: &mut Context) -> Result<(), Stop> {
        self.apply_due = false;
        match self.apply_queue.pop_front() {
            Some(ToApply::Entries(entries)) => self.apply_entries(entries, cx)?,
            Some(ToApply::Restore(snapshot)) => self.restore(&snapshot, cx)?,
            Some(ToApply::SnapshotDue) => self.take_snapshot(cx),
            None => {}
        }
        self.apply_next(cx);
        Ok(())
    }

    fn apply_entries(
        &mut self,
        mut entries: Vec<raftpb::Entry>,
        cx: &mut Context,
    ) -> Result<(), Stop> {
        for entry in &entries {
            match cx.log.applies(self.id, entry) {
                Ok(Some((request, answer))) => {
                    let (now, index) = (cx.now, entry.index());
                    let verdict = cx
                        .leases
                        .executed(now, index, &request, &answer)
                        .and_then(|()| version::is_of_all(&request, cx));
                    cx.check(verdict);
                }
                Ok(None) => {
                    let verdict = version::knows_tree(entry, cx);
                    cx.check(verdict);
                }
                Err(violation) => cx.check(Err(violation)),
            }
        }
        if self.is_broken(Sabotage::SkipEntry) && self.host == 0 {
            let skipped = |entry: &&mut raftpb::Entry| entry.index().is_multiple_of(SKIPPED_EVERY);
            if let Some(entry) = entries.iter_mut().find(skipped) {
                entry.data = None;
            }
        }
        if self.is_broken(Sabotage::CheckAtProposal) {
            entries.iter_mut().for_each(unguard);
        }
        let applied_before = self.applied();
        if self.is_broken(Sabotage::ExpireByOwnClock) {
            let wall = (&self.time as &dyn retcd_member::Clock).timestamp();
            entries
                .iter_mut()
                .for_each(|entry| expire_at(entry, wall.0));
        }
        if self.is_broken(Sabotage::OldTree) && applied_before > 0 {
            self.tree_before = Some(self.applier.snapshot().tree);
        }
        let mut now = self.machine_time();
        if self.is_broken(Sabotage::ExpireEarly) {
            now = retcd_state::Time::new(now.since_start().saturating_sub(BEHIND));
        }
        let before = self.shared.state.reader.revision();
        let now = Moment {
            monotonic: now,
            wall: (&self.time as &dyn retcd_member::Clock).timestamp(),
        };
        let apply = |process: &mut Process, commit: Commit<'_>| {
            let applier = &mut process.applier;
            let stages = Stages::default();
            applier.apply(now, &entries, stages, |_, _| {}, |_| {}, commit)
        };
        let report = self.committing(apply)??;
        let index = self.applied();
        let (revision, expected) = (
            self.shared.state.reader.revision(),
            cx.log.revision_at(index),
        );
        let id = self.id;
        cx.check(ensure(revision == expected, SAME_REVISION, || {
            format!("{id:x} is at revision {revision} behind entry {index}, not {expected}")
        }));
        cx.applied.insert(id, index);
        cx.trace.mix(&[self.id, index, revision as u64]);
        self.sum_up(before, revision, cx);
        self.members_changed(&entries, applied_before, &report, cx);
        self.show_tree(cx);
        if self.shared.state.membership.read().is_removed(self.id) {
            // The others have to hear that the change is committed; then it goes.
            self.step_after(Duration::from_secs(1), Step::Leave, cx);
        }
        let compacting = report.compacting;
        for input in report.inputs {
            self.push(input, cx);
        }
        self.compact_if(compacting, cx);
        Ok(())
    }

    /// Tells what became of changes of the membership.
    fn members_changed(
        &self,
        entries: &[raftpb::Entry],
        applied_before: u64,
        report: &Report,
        cx: &mut Context,
    ) {
        let changes = report.inputs.iter().flat_map(|input| match input {
            Input::Applied { conf_changes, .. } => conf_changes.as_slice(),
            _ => &[],
        });
        let is_change = |entry: &&raftpb::Entry| {
            entry.index() > applied_before && entry.r#type() == raftpb::EntryType::EntryConfChange
        };
        let entries = entries.iter().filter(is_change);
        for (entry, change) in entries.zip(changes) {
            let verdict = cx.log.changed(self.id, entry.index(), change);
            cx.check(verdict);
        }
    }

    /// Shows what the tree of API v2 is behind what was applied.
    pub(super) fn show_tree(&mut self, cx: &mut Context) {
        let (id, applied, view) = (self.id, self.applied(), self.tree());
        let (index, shown) = (view.index(), self.tree_shown);
        self.tree_shown = shown.max(index);
        let verdict = ensure(index >= shown, FORWARD, || {
            format!(
                "{id:x} is at index {index} of API v2 behind entry {applied}, and has shown {shown}"
            )
        });
        cx.trace.mix(&[index]);
        let verdict = verdict.and_then(|()| cx.log.tree.shown(id, applied, &view));
        cx.check(verdict);
    }

    /// Every member sums up its keyspace at the same revisions.
    fn sum_up(&self, before: i64, revision: i64, cx: &mut Context) {
        let at = revision / HASHED_EVERY * HASHED_EVERY;
        if at <= before || cx.log.has_wrong_hashes(self.host) {
            return;
        }
        // A revision that was compacted meanwhile has no hash.
        if let Ok((hash, _)) = self.shared.state.reader.hash_kv(at) {
            let verdict = cx.log.hashed(format!("{:x}", self.id), &hash);
            cx.check(verdict);
        }
    }

    pub(super) fn compact_if(&mut self, compacting: bool, cx: &mut Context) {
        if compacting && !self.compact_due {
            self.compact_due = true;
            let delay = cx.between_us(10, 20_000);
            self.step_after(delay, Step::Compact, cx);
        }
    }

    pub(super) fn compact(&mut self, cx: &mut Context) -> Result<(), Stop> {
        self.compact_due = false;
        self.applier
            .compaction_step()
            .map_err(|error| Stop::disk("a compaction failed", error))?;
        if self.applier.is_compacting() {
            self.compact_due = true;
            let delay = cx.between_us(1_000, 20_000);
            self.step_after(delay, Step::Compact, cx);
        } else {
            self.look_for_corruption(cx);
        }
        Ok(())
    }

    /// Looks whether the database holds what was turned over. It may come and go with a database of
    /// another member, a loss of power, a compaction.
    pub(super) fn look_for_corruption(&self, cx: &mut Context) {
        let Some(main) = cx.log.corrupt.as_ref().map(|corrupt| corrupt.revision) else {
            return;
        };
        let row = Revision { main, sub: 0 }.to_key();
        let found = self.backend().reader().get(Bucket::Key, row.as_ref());
        let holds_it = matches!(found, Ok(Some(value))
            if KeyValue::decode(&value[..]).is_ok_and(|kv| kv.value == TURNED_OVER));
        cx.log.looked_at(self.id, self.host, holds_it);
    }

    /// Does a step that may have to commit the database. Where that fails, it is why the step does.
    pub(super) fn committing<T>(
        &mut self,
        step: impl FnOnce(&mut Process, Commit<'_>) -> T,
    ) -> Result<T, Stop> {
        let (backend, mut failed) = (self.backend().clone(), None);
        let done = step(self, &mut || commit_at_once(&backend, &mut failed));
        failed.map_or(Ok(done), Err)
    }

    pub(super) fn commit_database(&mut self) -> Result<Result<(), NoRoom>, Stop> {
        self.committing(|_, commit| commit())
    }

    pub(super) fn commit(&mut self, cx: &mut Context) -> Result<(), Stop> {
        // What finds no room waits for the next commit.
        let _ = self.commit_database()?;
        self.shared.room.look();
        if cx.rng.u8(..) == 0 {
            let defragmented = self.backend().defragment();
            defragmented.map_err(|error| Stop::disk("defragmentation failed", error))?;
        }
        // As after a change of the cluster's version.
        if cx.rng.u8(..) == 0 && self.snapshots_by_chance {
            self.push(Input::SnapshotWanted, cx);
        }
        let jitter = cx.between_us(0, 10_000);
        self.step_after(self.speed.commit_every + jitter, Step::Commit, cx);
        Ok(())
    }
}

/// Lets nodes of API v2 expire by another clock than the leader's.
fn expire_at(entry: &mut raftpb::Entry, nanos: i64) {
    if let Some(mut request) = tree::request_of(entry).filter(|r| r.method() == "SYNC") {
        request.time = Some(nanos);
        entry.data = Some(request.encode_to_vec().into());
    }
}

/// Makes an entry that touches keys one of somebody who may do everything.
fn unguard(entry: &mut raftpb::Entry) {
    let Ok(mut request) = InternalRaftRequest::decode(entry.data()) else {
        return;
    };
    let touches = request.put.is_some() || request.delete_range.is_some() || request.txn.is_some();
    if let Some(header) = request.header.as_mut().filter(|_| touches) {
        header.username = "root".to_owned();
        header.auth_revision = u64::MAX;
        entry.data = Some(request.encode_to_vec().into());
    }
}
