//! The committed log: one for all members, never changed, and answered truthfully.
//!
//! Whoever applies an entry first makes it the truth; everybody else must apply the same one. The
//! model executes it once, so that every answer can be held against it:
//!
//! - an answer to a write is the model's, and the entry lies behind all that was answered before
//!   the write was invoked;
//! - an answer to a read is the state of the model at the revision that it names, and no
//!   linearizable read names one below what was answered before it was invoked.
//!
//! Since every answer names its place in one order, these two make a history strictly serializable.

use std::collections::{BTreeMap, BTreeSet};

use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_proto::raftpb::{ConfChange, ConfChangeType, Entry};
use retcd_state::membership::ConfChangeContext;
use retcd_state::mvcc::KeyspaceHash;

use super::access::AccessHistory;
use super::lives::Lives;
use super::reference::Reference;
use super::tree::TreeChecker;
use super::{Verdict, ensure};
use crate::history::{Floor, Operation, Outcome};
use crate::model::auth::Sender;
use crate::model::{self, Model};
use crate::request::Answer;

const SAME_LOG: &str = "all members apply the same entries";
const ONE_LEADER: &str = "one leader per term";
const EXACTLY_ONCE: &str = "a request is executed once at most";
pub(super) const TRUE_ANSWER: &str = "answers tell what the log says";
pub(super) const NOT_LOST: &str = "what was answered is in the log";
pub(super) const ORDER: &str = "what was answered is visible to what comes after it";
const SAME_HASH: &str = "equal revisions have equal hashes";
const SAME_CHANGE: &str = "all members make the same configuration changes";
const REFUSED: &str = "what was refused is not done";

/// What an entry did.
pub(super) struct Done {
    pub(super) index: u64,
    /// Who is named as its sender.
    pub(super) sender: Sender,
    /// Nothing for a change of the membership that was refused, for whatever reason.
    pub(super) answer: Option<Answer>,
}

/// What was turned over behind the members' backs, and who holds it.
#[derive(Clone, Debug, Default)]
pub struct Corrupt {
    /// The revision of what was turned over.
    pub revision: i64,
    /// The members that hold it.
    pub members: BTreeSet<u64>,
    /// The hosts that it was ever on: hashes of compactions outlive it there.
    pub hosts: BTreeSet<usize>,
}

/// The truth, as far as it is known.
#[derive(Default)]
pub struct LogChecker {
    /// The state behind the last entry.
    pub model: Model,
    /// What executes the entries that the model does not know, in a world in which there are some.
    reference: Option<Reference>,
    /// Who could do what, and who was logged in, at every index.
    pub(super) access: AccessHistory,
    entries: Vec<Entry>,
    /// The revision behind each entry.
    revisions: Vec<i64>,
    /// By request id.
    pub(super) done: BTreeMap<u64, Done>,
    leaders: BTreeMap<u64, u64>,
    pub(super) lives: Lives,
    /// The tree of API v2.
    pub tree: TreeChecker,
    /// Hashes of the keyspace by revision and compaction, each with whose it was first.
    hashes: BTreeMap<(i64, i64), (u32, String)>,
    /// Configuration changes by index, with node id 0 if they were refused.
    changes: BTreeMap<u64, ConfChange>,
    /// The members as of the last entry, and whether each is a learner.
    pub members: BTreeMap<u64, bool>,
    /// Those that were removed.
    pub removed: BTreeSet<u64>,
    /// Where peers find members that were added.
    pub urls: BTreeMap<String, u64>,
    /// What some members hold that the log does not say.
    pub corrupt: Option<Corrupt>,
    /// Whether members may be short of room.
    pub may_lack_space: bool,
    /// What has been answered to anybody.
    pub floor: Floor,
}

impl LogChecker {
    /// An empty log, in which there may be entries that the model does not know, of members that
    /// may be short of room.
    pub fn new(has_strange: bool, may_lack_space: bool) -> LogChecker {
        LogChecker {
            reference: has_strange.then(Reference::default),
            may_lack_space,
            tree: TreeChecker::new(!has_strange),
            ..LogChecker::default()
        }
    }

    /// An entry that the model does not know is on its way.
    pub fn expect_strange(&mut self, entry: &Entry) {
        if let (Some(reference), Some(data)) = (&mut self.reference, &entry.data) {
            reference.expect(data.clone());
        }
    }

    /// How many entries were executed that the model does not know.
    pub fn strange(&self) -> usize {
        let reference = self.reference.as_ref();
        reference.map_or(0, |reference| reference.executed)
    }

    /// A member's database was looked at for what was turned over.
    pub fn looked_at(&mut self, member: u64, host: usize, holds_it: bool) {
        let Some(corrupt) = &mut self.corrupt else {
            return;
        };
        if holds_it {
            corrupt.members.insert(member);
            corrupt.hosts.insert(host);
        } else {
            corrupt.members.remove(&member);
        }
    }

    /// Whether hashes of this host prove nothing.
    pub fn has_wrong_hashes(&self, host: usize) -> bool {
        let corrupt = self.corrupt.as_ref();
        corrupt.is_some_and(|corrupt| corrupt.hosts.contains(&host))
    }

    /// Whether a member that holds what was turned over is still to be found and removed.
    pub fn is_corrupt(&self) -> bool {
        let mut holders = self.corrupt.iter().flat_map(|corrupt| &corrupt.members);
        holders.any(|id| self.members.contains_key(id)) || self.model.corrupt().next().is_some()
    }

    /// The index of the newest entry that anybody applied.
    pub fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The entry at `index`, if anybody applied it.
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        self.entries.get((index as usize).checked_sub(1)?)
    }

    /// The revision behind the entry at `index`, which somebody applied.
    pub fn revision_at(&self, index: u64) -> i64 {
        match index {
            0 => 1,
            index => self.revisions[index as usize - 1],
        }
    }

    /// `member` is going to apply `entry`. The request in it, if nobody did so before.
    pub fn applies(
        &mut self,
        member: u64,
        entry: &Entry,
    ) -> Result<Option<(InternalRaftRequest, Answer)>, super::Violation> {
        let index = entry.index();
        if let Some(known) = self.entry(index) {
            ensure(known == entry, SAME_LOG, || {
                format!("{member:x} applies {entry:?}, which was {known:?}")
            })?;
            return Ok(None);
        }
        let last = self.last();
        ensure(index == last + 1, SAME_LOG, || {
            format!(
                "{member:x} applies entry {index}, but nobody has applied {}",
                last + 1
            )
        })?;
        let executed = match &mut self.reference {
            Some(reference) => reference.apply(entry, &mut self.model)?,
            None => self.model.apply(entry),
        };
        if let Some((request, answer)) = &executed {
            let before = self.revision_at(index - 1);
            self.lives
                .record(index, (before, self.model.revision()), request, answer);
        }
        self.entries.push(entry.clone());
        self.revisions.push(self.model.revision());
        self.access
            .record(index, &self.model.auth, executed.as_ref());
        if let Some((request, answer)) = &executed
            && let Some(header) = &request.header
            && header.id != 0
        {
            let done = Done {
                index,
                sender: model::sender(Some(header)),
                answer: Some(answer.clone()),
            };
            self.is_done(header.id, done)?;
        }
        if let Some(id) = self.tree.push(entry) {
            let done = Done {
                index,
                sender: Sender::default(),
                answer: None,
            };
            self.is_done(id, done)?;
        }
        self.execute_tree()?;
        Ok(executed)
    }

    fn is_done(&mut self, request: u64, done: Done) -> Verdict {
        let index = done.index;
        let before = self.done.insert(request, done);
        ensure(before.is_none(), EXACTLY_ONCE, || {
            format!("request {request:x} is in the log twice, last at {index}")
        })
    }

    /// Goes on with the tree of API v2, which configuration changes are a part of.
    fn execute_tree(&mut self) -> Verdict {
        for (id, answer) in self.tree.execute(&self.changes)? {
            if let Some(done) = self.done.get_mut(&id) {
                done.answer = Some(Answer::Tree(answer));
            }
        }
        Ok(())
    }

    /// `member` has made a configuration change of the entry at `index`, or refused it.
    pub fn changed(&mut self, member: u64, index: u64, change: &ConfChange) -> Verdict {
        if let Some(known) = self.changes.get(&index) {
            return ensure(known == change, SAME_CHANGE, || {
                format!("{member:x} makes {change:?} of entry {index}, others {known:?}")
            });
        }
        self.changes.insert(index, change.clone());
        self.execute_tree()?;
        if change.id() != 0 {
            let done = Done {
                index,
                sender: Sender::default(),
                answer: (change.node_id() != 0).then_some(Answer::Other),
            };
            let before = self.done.insert(change.id(), done);
            ensure(before.is_none(), EXACTLY_ONCE, || {
                format!(
                    "change {:x} is in the log twice, last at {index}",
                    change.id()
                )
            })?;
        }
        let id = change.node_id();
        if id == 0 {
            return Ok(());
        }
        let context = ConfChangeContext::parse(change.context()).ok();
        let member = context.and_then(|context| context.member.peer_urls);
        for url in member.into_iter().flatten() {
            self.urls.insert(url, id);
        }
        match change.r#type() {
            ConfChangeType::ConfChangeAddNode => drop(self.members.insert(id, false)),
            ConfChangeType::ConfChangeAddLearnerNode => drop(self.members.insert(id, true)),
            ConfChangeType::ConfChangeRemoveNode => {
                self.members.remove(&id);
                self.removed.insert(id);
            }
            ConfChangeType::ConfChangeUpdateNode => {}
        }
        Ok(())
    }

    /// A member or host has summed up its keyspace.
    pub fn hashed(&mut self, whose: String, hash: &KeyspaceHash) -> Verdict {
        let (revision, compacted) = (hash.revision, hash.compact_revision);
        let new = || (hash.hash, whose.clone());
        let (known, other) = self.hashes.entry((revision, compacted)).or_insert_with(new);
        ensure(*known == hash.hash, SAME_HASH, || {
            format!(
                "at revision {revision}, compacted at {compacted}, {whose} has {:x}, {other} had {known:x}",
                hash.hash
            )
        })
    }

    /// `member` says that it leads in `term`.
    pub fn leads(&mut self, member: u64, term: u64) -> Verdict {
        let leader = *self.leaders.entry(term).or_insert(member);
        ensure(leader == member, ONE_LEADER, || {
            format!("{member:x} and {leader:x} lead in term {term}")
        })
    }

    /// At the end: what was refused must not have happened after all.
    pub fn finish(&self, operations: &[Operation]) -> Verdict {
        for operation in operations {
            if let Outcome::Refused(reason) = operation.outcome
                && let Some(done) = self.done.get(&operation.request_id)
            {
                return ensure(false, REFUSED, || {
                    let request = &operation.request;
                    format!(
                        "{request} was refused ({reason}), but is entry {}",
                        done.index
                    )
                });
            }
            self.in_its_name(operation)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_what_was_turned_over_is_corrupt_until_it_is_healed_or_removed() {
        let mut log = LogChecker {
            members: [(1, false), (2, false)].into(),
            ..LogChecker::default()
        };
        log.looked_at(1, 0, true);
        assert!(!log.is_corrupt(), "nothing was turned over yet");

        log.corrupt = Some(Corrupt::default());
        log.looked_at(1, 0, true);
        log.looked_at(2, 1, false);
        assert!(log.is_corrupt());

        // Its database goes to another member before it gets a right one.
        log.looked_at(2, 1, true);
        log.looked_at(1, 0, false);
        assert!(log.is_corrupt());

        log.members.remove(&2);
        assert!(!log.is_corrupt());
        assert!(log.has_wrong_hashes(0) && log.has_wrong_hashes(1) && !log.has_wrong_hashes(2));
    }
}
