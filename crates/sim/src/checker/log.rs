//! The committed log: one for all members, never changed, and answered truthfully.
//!
//! Whoever applies an entry first makes it the truth; everybody else must apply the same one. The model
//! executes it once, so that every answer can be held against it:
//!
//! - an answer to a write is the model's, and the entry lies behind all that was answered before the write was
//!   invoked;
//! - an answer to a read is the state of the model at the revision that it names, and no linearizable read
//!   names one below what was answered before it was invoked.
//!
//! Since every answer names its place in one order, these two make a history strictly serializable.

use std::collections::{BTreeMap, BTreeSet};

use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_proto::raftpb::{ConfChange, ConfChangeType, Entry};
use retcd_state::machine::{AppliedConfChange, ApplyError};

use retcd_state::mvcc::KeyspaceHash;

use super::access::AccessHistory;
use super::lives::Lives;
use super::reference::Reference;
use super::{Verdict, ensure};
use crate::history::{Floor, Operation, Outcome};
use crate::model::auth::Sender;
use crate::model::{self, Model};
use crate::request::{Answer, Request};

const SAME_LOG: &str = "all members apply the same entries";
const ONE_LEADER: &str = "one leader per term";
const EXACTLY_ONCE: &str = "a request is executed once at most";
pub(super) const TRUE_ANSWER: &str = "answers tell what the log says";
const NOT_LOST: &str = "what was answered is in the log";
pub(super) const ORDER: &str = "what was answered is visible to what comes after it";
const SAME_HASH: &str = "equal revisions have equal hashes";
const SAME_CHANGE: &str = "all members make the same configuration changes";
const REFUSED: &str = "what was refused is not done";

/// What an entry did.
pub(super) struct Done {
    pub(super) index: u64,
    /// Who is named as its sender.
    pub(super) sender: Sender,
    pub(super) answer: Answer,
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
    lives: Lives,
    /// Hashes of the keyspace by revision and compaction.
    hashes: BTreeMap<(i64, i64), u32>,
    /// Configuration changes by index, with node id 0 if they were refused.
    changes: BTreeMap<u64, ConfChange>,
    /// The members as of the last entry, and whether each is a learner.
    pub members: BTreeMap<u64, bool>,
    /// Those that were removed.
    pub removed: BTreeSet<u64>,
    /// What has been answered to anybody.
    pub floor: Floor,
}

impl LogChecker {
    /// A log in which there will be entries that the model does not know.
    pub fn with_reference() -> LogChecker {
        LogChecker {
            reference: Some(Reference::default()),
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
                answer: answer.clone(),
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

    /// `member` has made a configuration change, or refused it.
    pub fn changed(&mut self, member: u64, applied: &AppliedConfChange, answer: Answer) -> Verdict {
        let AppliedConfChange { index, change, .. } = applied;
        if let Some(known) = self.changes.get(index) {
            return ensure(known == change, SAME_CHANGE, || {
                format!("{member:x} makes {change:?} of entry {index}, others {known:?}")
            });
        }
        self.changes.insert(*index, change.clone());
        if change.id() != 0 {
            let index = *index;
            let sender = Sender::default();
            let done = Done {
                index,
                sender,
                answer,
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

    /// A client has heard of its operation.
    pub fn returned(&mut self, operation: &Operation) -> Verdict {
        let answer = match &operation.outcome {
            Outcome::Answered(answer) => answer,
            Outcome::Refused(_) | Outcome::Unknown(_) => return Ok(()),
        };
        match &operation.request {
            Request::Write(_) | Request::Change(_) => self.write_returned(operation, answer)?,
            Request::LogIn(_, password) => self.login_returned(operation, password, answer)?,
            Request::Range(_) | Request::Stream(_) | Request::Lists(_) => {
                self.read_returned(operation, answer)?;
            }
            Request::Smuggled(_) => {}
            Request::Leases => self.lives.listed(operation, answer)?,
            Request::KeepAlive(_) => self.lives.renewed(operation, answer)?,
            Request::TimeToLive(_) => self.lives.looked_at(operation, answer)?,
            Request::HashKv(revision) => self.hash_returned(*revision, operation, answer)?,
        }
        self.is_known(operation, answer)?;
        self.floor.revision = self
            .floor
            .revision
            .max(match operation.request.is_linearizable() {
                true => answer.revision(),
                false => 0,
            });
        Ok(())
    }

    /// No answer is of a revision that the log has not come to.
    fn is_known(&self, operation: &Operation, answer: &Answer) -> Verdict {
        let known = self.model.revision();
        ensure(answer.revision() <= known, TRUE_ANSWER, || {
            let request = &operation.request;
            format!("{request} was answered {answer:?}, but the log ends at revision {known}")
        })
    }

    /// A hash is of the revision that was asked for; if none was, of the one in its header.
    fn hash_returned(&mut self, asked: i64, operation: &Operation, answer: &Answer) -> Verdict {
        let (at, hash) = match answer {
            Answer::Hash(at, hash) => (*at, *hash),
            Answer::Error(ApplyError::Compacted) => {
                return ensure(asked < self.model.compacted(), TRUE_ANSWER, || {
                    format!("{} is compacted, the log says otherwise", operation.request)
                });
            }
            // Of a member that is behind.
            _ => return Ok(()),
        };
        let expected = if asked == 0 { at } else { asked };
        ensure(
            hash.revision == expected && at >= expected,
            TRUE_ANSWER,
            || format!("{} was answered {answer:?}", operation.request),
        )?;
        self.hashed(operation.host as u64, &hash)
    }

    fn login_returned(
        &mut self,
        operation: &Operation,
        password: &str,
        answer: &Answer,
    ) -> Verdict {
        if operation.request_id == 0 {
            // Refused without the log.
            return self.login_refused(operation, answer);
        }
        self.write_returned(operation, answer)?;
        self.logged_in(password, answer)
    }

    pub(super) fn write_returned(&mut self, operation: &Operation, answer: &Answer) -> Verdict {
        let Some(done) = self.done.get(&operation.request_id) else {
            return ensure(false, NOT_LOST, || {
                format!(
                    "{} was answered {answer:?}, and is in no entry",
                    operation.request
                )
            });
        };
        ensure(done.answer == *answer, TRUE_ANSWER, || {
            let (request, index) = (&operation.request, done.index);
            format!(
                "{request} was answered {answer:?}; entry {index} says {:?}",
                done.answer
            )
        })?;
        let Floor { revision, index } = operation.floor;
        let at = self.revision_at(done.index);
        ensure(done.index > index && at >= revision, ORDER, || {
            let request = &operation.request;
            format!(
                "{request} is entry {} at revision {at}, but entry {index} and revision {revision} had been \
                 answered before it began",
                done.index
            )
        })?;
        self.floor.index = self.floor.index.max(done.index);
        Ok(())
    }

    fn read_returned(&self, operation: &Operation, answer: &Answer) -> Verdict {
        self.read_permitted(operation, answer)?;
        let ranges = operation.request.ranges();
        let oldest = ranges.iter().map(|range| range.revision).min().unwrap_or(0);
        match answer {
            Answer::Error(ApplyError::Auth(_)) => return Ok(()),
            Answer::Error(ApplyError::Compacted) => {
                return ensure(oldest < self.model.compacted(), TRUE_ANSWER, || {
                    format!("{} is compacted, the log says otherwise", operation.request)
                });
            }
            // A member that is behind; a linearizable read has to know better.
            Answer::Error(ApplyError::FutureRevision) => {
                let known = operation.floor.revision;
                let lies = operation.request.is_linearizable() && oldest <= known;
                return ensure(!lies, ORDER, || {
                    format!(
                        "{} is of the future, but {known} was answered",
                        operation.request
                    )
                });
            }
            _ => {}
        }
        self.is_known(operation, answer)?;
        let revision = answer.revision();
        let mut truth = ranges.iter().map(|range| self.model.range(range, revision));
        let truth = match operation.request {
            Request::Lists(_) => Answer::Txn(revision, true, truth.collect()),
            _ => truth.next().expect("it asks for a range"),
        };
        ensure(truth == *answer, TRUE_ANSWER, || {
            format!(
                "{} was answered {answer:?}; it is {truth:?}",
                operation.request
            )
        })?;
        let floor = operation.floor.revision;
        let visible = revision >= floor || !operation.request.is_linearizable();
        ensure(visible, ORDER, || {
            let request = &operation.request;
            format!(
                "{request} was answered at revision {revision}, but {floor} had been answered before it began"
            )
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
