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
use super::{Verdict, ensure};
use crate::history::{Floor, Operation, Outcome};
use crate::model::auth::Sender;
use crate::model::{self, Model};
use crate::operator::KEPT;
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

/// A member of whose data something was turned over behind its back.
#[derive(Clone, Copy, Debug)]
pub struct Corrupt {
    /// The member.
    pub member: u64,
    /// Its host.
    pub host: usize,
    /// The revision of what was turned over.
    pub revision: i64,
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
    /// Hashes of the keyspace by revision and compaction.
    hashes: BTreeMap<(i64, i64), u32>,
    /// Configuration changes by index, with node id 0 if they were refused.
    changes: BTreeMap<u64, ConfChange>,
    /// The members as of the last entry, and whether each is a learner.
    pub members: BTreeMap<u64, bool>,
    /// Those that were removed.
    pub removed: BTreeSet<u64>,
    /// Where peers find members that were added.
    pub urls: BTreeMap<String, u64>,
    /// The member that holds something else than the log says.
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

    /// Whether the member holds something else than the log says, through no fault of its own.
    pub fn holds_something_else(&self, member: u64) -> bool {
        self.corrupt.is_some_and(|corrupt| corrupt.member == member)
    }

    /// Whether such a member is still to be found and removed.
    pub fn is_corrupt(&self) -> bool {
        // What was put over it has healed it.
        let kept = self.model.get(KEPT).map(|kv| kv.modified);
        let is_in = |corrupt: Corrupt| {
            self.members.contains_key(&corrupt.member) && kept == Some(corrupt.revision)
        };
        self.corrupt.is_some_and(is_in) || self.model.corrupt().next().is_some()
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
            let before = self.done.insert(header.id, done);
            ensure(before.is_none(), EXACTLY_ONCE, || {
                format!(
                    "request {:x} is in the log twice, last at {index}",
                    header.id
                )
            })?;
        }
        Ok(executed)
    }

    /// `member` has made a configuration change of the entry at `index`, or refused it.
    pub fn changed(&mut self, member: u64, index: u64, change: &ConfChange) -> Verdict {
        if let Some(known) = self.changes.get(&index) {
            return ensure(known == change, SAME_CHANGE, || {
                format!("{member:x} makes {change:?} of entry {index}, others {known:?}")
            });
        }
        self.changes.insert(index, change.clone());
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

    /// `member` has summed up its keyspace.
    pub fn hashed(&mut self, member: u64, hash: &KeyspaceHash) -> Verdict {
        let at = (hash.revision, hash.compact_revision);
        let known = *self.hashes.entry(at).or_insert(hash.hash);
        ensure(known == hash.hash, SAME_HASH, || {
            format!("{member:x} has {hash:x?}, another one {known:x}")
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
