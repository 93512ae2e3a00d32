//! The machine's part: batches of committed entries, the database's commits, compactions, leases.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use retcd_node::Input;
use retcd_proto::etcdserverpb::{InternalRaftRequest, RequestHeader};
use retcd_proto::raftpb;
use retcd_state::machine::Reply;
use retcd_state::mvcc::Progress;
use retcd_storage::backend::BackendError;

use super::{Process, Stop, StopKind, Work};
use crate::checker::ensure;
use crate::context::Context;
use crate::model::auth::Sender;
use crate::request::{self, Answer};
use crate::sabotage::Sabotage;

const SAME_REVISION: &str = "the same entries make the same revision";
/// Rows per step of a compaction.
const COMPACTION_ROWS: usize = 10;
/// Revisions between two hashes.
const HASHED_EVERY: i64 = 60;
/// Which entry is passed over by a member that is broken that way.
const SKIPPED_EVERY: u64 = 50;

/// What the machine is asked to do.
pub enum ToApply {
    /// Apply committed entries.
    Entries(Vec<raftpb::Entry>),
    /// Go on with a received database.
    Restore(raftpb::Snapshot),
}

impl Process {
    pub(super) fn queue_apply(&mut self, message: ToApply, cx: &mut Context) {
        self.apply_queue.push_back(message);
        self.apply_next(cx);
    }

    fn apply_next(&mut self, cx: &mut Context) {
        if !self.apply_due && !self.apply_queue.is_empty() {
            self.apply_due = true;
            let (from, to) = self.speed.apply_us;
            let delay = cx.between_us(from, to);
            self.work_after(delay, Work::Apply, cx);
        }
    }

    pub(super) fn apply(&mut self, cx: &mut Context) -> Result<(), Stop> {
        self.apply_due = false;
        match self.apply_queue.pop_front() {
            Some(ToApply::Entries(entries)) => self.apply_entries(entries, cx)?,
            Some(ToApply::Restore(snapshot)) => self.restore(&snapshot, cx)?,
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
                    let verdict = cx.leases.executed(cx.now, &request, &answer);
                    cx.check(verdict);
                }
                Ok(None) => {}
                Err(violation) => cx.check(Err(violation)),
            }
        }
        if self.is_broken(cx, Sabotage::SkipEntry) && self.host == 0 {
            let skipped = |entry: &&mut raftpb::Entry| entry.index().is_multiple_of(SKIPPED_EVERY);
            if let Some(entry) = entries.iter_mut().find(skipped) {
                entry.data = None;
            }
        }
        if self.is_broken(cx, Sabotage::CheckAtProposal) {
            entries.iter_mut().for_each(unguard);
        }
        let before = self.reader.revision();
        let applied = self
            .machine
            .apply(self.time(cx), &entries)
            .map_err(|fatal| Stop {
                reason: fatal.to_string(),
                kind: StopKind::Contradiction,
            })?;
        let index = applied.applied.index;
        let (revision, expected) = (self.reader.revision(), cx.log.revision_at(index));
        let id = self.id;
        cx.check(ensure(revision == expected, SAME_REVISION, || {
            format!("{id:x} is at revision {revision} behind entry {index}, not {expected}")
        }));
        cx.trace.mix(&[self.id, index, revision as u64]);
        self.sum_up(before, revision, cx);
        self.change_tokens(applied.token_changes, cx);
        // Watchers before writers, as the server has it.
        self.publish(applied.events, cx);
        for (id, reply) in &applied.replies {
            if let Ok(Reply::Compact(compaction)) = reply {
                self.history_compacted(compaction.compacted, cx);
            }
            if let Some(operation) = self.proposals.remove(id) {
                self.answer_proposal(operation, reply, cx);
            }
        }
        for change in &applied.conf_changes {
            let reply = applied
                .replies
                .iter()
                .find(|(id, _)| *id == change.change.id());
            let answer = reply.map_or(Answer::Other, |(_, reply)| request::of_reply(reply));
            let verdict = cx.log.changed(self.id, change, answer);
            cx.check(verdict);
        }
        if self.machine.membership().read().is_removed(self.id) {
            // The others have to hear that the change is committed; then it goes.
            self.work_after(Duration::from_secs(1), Work::Leave, cx);
        }
        let changes = applied.conf_changes.into_iter();
        let conf_changes = changes.map(|applied| applied.change).collect();
        self.push(
            Input::Applied {
                index,
                conf_changes,
            },
            cx,
        );
        self.compact_if(applied.compacting, cx);
        Ok(())
    }

    /// Every member sums up its keyspace at the same revisions.
    fn sum_up(&self, before: i64, revision: i64, cx: &mut Context) {
        let at = revision / HASHED_EVERY * HASHED_EVERY;
        if at <= before {
            return;
        }
        // A revision that was compacted meanwhile has no hash.
        if let Ok((hash, _)) = self.reader.hash_kv(at) {
            let verdict = cx.log.hashed(self.id, &hash);
            cx.check(verdict);
        }
    }

    pub(super) fn compact_if(&mut self, compacting: bool, cx: &mut Context) {
        if compacting && !self.compact_due {
            self.compact_due = true;
            let delay = cx.between_us(10, 20_000);
            self.work_after(delay, Work::Compact, cx);
        }
    }

    pub(super) fn compact(&mut self, cx: &mut Context) -> Result<(), Stop> {
        self.compact_due = false;
        let progress = self
            .machine
            .compaction_step(COMPACTION_ROWS)
            .map_err(|error| Stop::disk("a compaction failed", error))?;
        if matches!(progress, Progress::Stepped { .. }) || self.machine.is_compacting() {
            self.compact_due = true;
            let delay = cx.between_us(1_000, 20_000);
            self.work_after(delay, Work::Compact, cx);
        }
        Ok(())
    }

    /// Whether all that was written is in the file: what finds no room waits for the next commit.
    pub(super) fn commit_database(&self) -> Result<bool, Stop> {
        match self.backend.commit() {
            Ok(_) => Ok(true),
            Err(BackendError::Full(_)) => Ok(false),
            Err(error) => Err(Stop::disk("the database failed", error)),
        }
    }

    pub(super) fn commit(&mut self, cx: &mut Context) -> Result<(), Stop> {
        self.commit_database()?;
        if cx.rng.u8(..) == 0 {
            let defragmented = self.backend.defragment();
            defragmented.map_err(|error| Stop::disk("defragmentation failed", error))?;
        }
        // As after a change of the cluster's version.
        if cx.rng.u8(..) == 0 {
            self.push(Input::SnapshotWanted, cx);
        }
        let jitter = cx.between_us(0, 10_000);
        self.work_after(self.speed.commit_every + jitter, Work::Commit, cx);
        Ok(())
    }

    /// Hands a request to the node; its id.
    pub(super) fn propose(
        &mut self,
        sender: &Sender,
        mut request: InternalRaftRequest,
        cx: &mut Context,
    ) -> u64 {
        let id = self.take_id();
        request.header = Some(RequestHeader {
            id,
            username: sender.user.clone(),
            auth_revision: sender.revision,
        });
        let data = Bytes::from(request.encode_to_vec());
        if self.is_broken(cx, Sabotage::ProposeTwice) && id.is_multiple_of(16) {
            let data = data.clone();
            self.push(Input::Propose { request: id, data }, cx);
        }
        self.push(Input::Propose { request: id, data }, cx);
        id
    }

    /// A new request id, as the server makes them.
    pub(super) fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
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
