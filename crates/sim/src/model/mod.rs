//! What the log means, computed once more in the plainest way: every version of every key in a map.
//!
//! Fed with the committed entries in order. It executes what the workload asks for, not all that
//! etcd knows; and it keeps everything, so that any past state can be looked up. Users and roles
//! are in [`auth`].

pub mod auth;
mod permits;
pub mod tree;
pub mod tree_users;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use retcd_proto::etcdserverpb::alarm_request::AlarmAction;
use retcd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use retcd_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use retcd_proto::etcdserverpb::request_op::Request as Op;
use retcd_proto::etcdserverpb::{
    AlarmRequest, AlarmType, Compare, DeleteRangeRequest, InternalRaftRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest,
};
use retcd_proto::raftpb::{Entry, EntryType};
use retcd_state::machine::ApplyError;

use crate::request::{Answer, Kv};
use auth::Auth;
pub use permits::sender;

/// The shortest lease in seconds that the members allow.
pub const TTL_MIN: i64 = 2;

/// A change of a key, as watchers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// What it holds since; nothing if it was deleted.
    pub kv: Option<Kv>,
    /// What it held before.
    pub prev: Option<Kv>,
}

#[derive(Default)]
struct Lease {
    keys: BTreeSet<Bytes>,
}

/// The branch of a transaction that is taken.
struct Chosen<'t> {
    succeeded: bool,
    steps: Vec<Step<'t>>,
}

enum Step<'t> {
    Op(&'t RequestOp),
    Txn(Chosen<'t>),
}

/// The state that the committed log makes up.
pub struct Model {
    revision: i64,
    compacted: i64,
    /// All versions of each key, ascending by revision.
    keys: BTreeMap<Bytes, Vec<(i64, Option<Kv>)>>,
    leases: BTreeMap<i64, Lease>,
    /// Members that have raised NOSPACE.
    full: BTreeSet<u64>,
    /// Members that were found to hold something else than the others, 0 if it is not known which.
    corrupt: BTreeSet<u64>,
    was_corrupt: bool,
    /// Users and roles.
    pub auth: Auth,
    /// The changes of each revision from 2 on.
    changes: Vec<Vec<Change>>,
    /// Changes of the entry being executed.
    current: Vec<Change>,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            revision: 1,
            compacted: -1,
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            full: BTreeSet::new(),
            corrupt: BTreeSet::new(),
            was_corrupt: false,
            auth: Auth::default(),
            changes: Vec::new(),
            current: Vec::new(),
        }
    }
}

impl Model {
    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The newest compaction, -1 for none.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Whether the lease exists.
    pub fn has_lease(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// The leases that exist.
    pub fn leases(&self) -> impl Iterator<Item = i64> {
        self.leases.keys().copied()
    }

    /// Members that have raised NOSPACE.
    pub fn full(&self) -> impl Iterator<Item = u64> {
        self.full.iter().copied()
    }

    /// Members that are called corrupt; 0 if it is not known which.
    pub fn corrupt(&self) -> impl Iterator<Item = u64> {
        self.corrupt.iter().copied()
    }

    /// Whether a member was ever called corrupt.
    pub fn was_corrupt(&self) -> bool {
        self.was_corrupt
    }

    /// What a key holds.
    pub fn get(&self, key: &[u8]) -> Option<&Kv> {
        let (_, newest) = self.keys.get(key)?.last()?;
        newest.as_ref()
    }

    /// The changes of `revision`, in order.
    pub fn changes(&self, revision: i64) -> &[Change] {
        let number = usize::try_from(revision - 2).unwrap_or(usize::MAX);
        self.changes.get(number).map_or(&[], Vec::as_slice)
    }

    /// Executes an entry; the request and its answer, if it is one.
    pub fn apply(&mut self, entry: &Entry) -> Option<(InternalRaftRequest, Answer)> {
        if entry.r#type() != EntryType::EntryNormal || entry.data().is_empty() {
            return None;
        }
        let request = InternalRaftRequest::decode(entry.data()).ok()?;
        let answer = self.execute(entry.index(), &request);
        if !self.current.is_empty() {
            self.changes.push(std::mem::take(&mut self.current));
            self.revision += 1;
        }
        Some((request, answer))
    }

    /// Takes over what somebody else has executed: the leases that there are now, and the changes
    /// of keys.
    pub fn adopt(&mut self, leases: &BTreeSet<i64>, changes: Vec<Change>) {
        for id in leases {
            self.leases.entry(*id).or_default();
        }
        for Change { key, kv, .. } in changes {
            self.set(key, kv);
        }
        self.leases.retain(|id, _| leases.contains(id));
        if !self.current.is_empty() {
            self.changes.push(std::mem::take(&mut self.current));
            self.revision += 1;
        }
    }

    /// The same of a compaction.
    pub fn adopt_compaction(&mut self, compacted: i64) {
        self.compacted = compacted;
    }

    fn execute(&mut self, index: u64, r: &InternalRaftRequest) -> Answer {
        if !self.corrupt.is_empty() && touches_keyspace(r) {
            return Answer::Error(ApplyError::Corrupt);
        }
        if !self.full.is_empty() && costs_space(r) {
            return Answer::Error(ApplyError::NoSpace);
        }
        if let Err(refused) = self.permits(&sender(r.header.as_ref()), r) {
            return Answer::Error(ApplyError::Auth(refused));
        }
        if let Some(answer) = self.auth.execute(index, r) {
            return answer.map_or_else(|e| Answer::Error(ApplyError::Auth(e)), Answer::Auth);
        }
        if let Some(put) = &r.put {
            match self.check_put(put) {
                Ok(()) => self.put(put),
                Err(error) => Answer::Error(error),
            }
        } else if let Some(delete) = &r.delete_range {
            self.delete(delete)
        } else if let Some(txn) = &r.txn {
            self.txn(txn)
        } else if let Some(compaction) = &r.compaction {
            self.compact(compaction.revision)
        } else if let Some(grant) = &r.lease_grant {
            if self.leases.contains_key(&grant.id) {
                return Answer::Error(ApplyError::LeaseExists);
            }
            self.leases.insert(grant.id, Lease::default());
            Answer::Grant(grant.ttl.max(TTL_MIN))
        } else if let Some(revoke) = &r.lease_revoke {
            self.revoke(revoke.id)
        } else if let Some(alarm) = &r.alarm {
            self.alarm(alarm)
        } else {
            Answer::Other
        }
    }

    /// The revision that the entry being executed is at.
    fn at(&self) -> i64 {
        self.revision + i64::from(!self.current.is_empty())
    }

    fn set(&mut self, key: Bytes, kv: Option<Kv>) {
        let prev = self.get(&key).cloned();
        if let Some(lease) = prev.as_ref().and_then(|kv| self.leases.get_mut(&kv.lease)) {
            lease.keys.remove(&key);
        }
        if let Some(lease) = kv.as_ref().and_then(|kv| self.leases.get_mut(&kv.lease)) {
            lease.keys.insert(key.clone());
        }
        let versions = self.keys.entry(key.clone()).or_default();
        versions.push((self.revision + 1, kv.clone()));
        self.current.push(Change { key, kv, prev });
    }

    fn check_put(&self, put: &PutRequest) -> Result<(), ApplyError> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(ApplyError::LeaseNotFound);
        }
        Ok(())
    }

    fn put(&mut self, put: &PutRequest) -> Answer {
        let revision = self.revision + 1;
        let prev = self.get(&put.key).cloned();
        let kv = Kv {
            key: put.key.clone(),
            value: put.value.clone(),
            create: prev.as_ref().map_or(revision, |prev| prev.create),
            modified: revision,
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            lease: put.lease,
        };
        self.set(put.key.clone(), Some(kv));
        Answer::Put(revision, prev.filter(|_| put.prev_kv))
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> Answer {
        let prevs = self.list(&delete.key, &delete.range_end, i64::MAX);
        for kv in &prevs {
            self.set(kv.key.clone(), None);
        }
        let deleted = prevs.len() as i64;
        let prevs = if delete.prev_kv { prevs } else { Vec::new() };
        Answer::Delete(self.at(), deleted, prevs)
    }

    /// All branches, nested ones too, are chosen and looked at before anything is done.
    fn txn(&mut self, txn: &TxnRequest) -> Answer {
        let chosen = self.choose(txn);
        match self.check_chosen(&chosen) {
            Ok(()) => {
                let answers = self.execute_chosen(&chosen);
                Answer::Txn(self.at(), chosen.succeeded, answers)
            }
            Err(error) => Answer::Error(error),
        }
    }

    fn choose<'t>(&self, txn: &'t TxnRequest) -> Chosen<'t> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let ops = match succeeded {
            true => &txn.success,
            false => &txn.failure,
        };
        let step = |op: &'t RequestOp| match &op.request {
            Some(Op::RequestTxn(txn)) => Step::Txn(txn.visit(|txn| self.choose(txn))),
            _ => Step::Op(op),
        };
        let steps = ops.iter().map(step).collect();
        Chosen { succeeded, steps }
    }

    fn check_chosen(&self, chosen: &Chosen<'_>) -> Result<(), ApplyError> {
        for step in &chosen.steps {
            match step {
                Step::Txn(chosen) => self.check_chosen(chosen)?,
                Step::Op(op) => match &op.request {
                    Some(Op::RequestPut(put)) => self.check_put(put)?,
                    Some(Op::RequestRange(range)) => self.check_revision(range.revision)?,
                    _ => {}
                },
            }
        }
        Ok(())
    }

    /// Answers to nested transactions name no revision.
    fn execute_chosen(&mut self, chosen: &Chosen<'_>) -> Vec<Answer> {
        let steps = chosen.steps.iter();
        let answers = steps.map(|step| match step {
            Step::Txn(chosen) => Answer::Txn(0, chosen.succeeded, self.execute_chosen(chosen)),
            Step::Op(op) => self.op(op),
        });
        answers.collect()
    }

    fn op(&mut self, op: &RequestOp) -> Answer {
        match &op.request {
            Some(Op::RequestPut(put)) => self.put(put),
            Some(Op::RequestRange(range)) => self.range(range, self.at()),
            Some(Op::RequestDeleteRange(delete)) => self.delete(delete),
            Some(Op::RequestTxn(_)) | None => Answer::Other,
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let kv = self.get(&compare.key);
        let number = |of: fn(&Kv) -> i64| kv.map_or(0, of);
        let ordering = match (compare.target(), &compare.target_union) {
            (CompareTarget::Value, Some(TargetUnion::Value(value))) => match kv {
                None => return false,
                Some(kv) => kv.value.cmp(value),
            },
            (CompareTarget::Mod, Some(TargetUnion::ModRevision(n))) => {
                number(|kv| kv.modified).cmp(n)
            }
            (CompareTarget::Create, Some(TargetUnion::CreateRevision(n))) => {
                number(|kv| kv.create).cmp(n)
            }
            (CompareTarget::Version, Some(TargetUnion::Version(n))) => {
                number(|kv| kv.version).cmp(n)
            }
            other => panic!("the workload compares by {other:?}"),
        };
        match compare.result() {
            CompareResult::Equal => ordering.is_eq(),
            CompareResult::NotEqual => ordering.is_ne(),
            CompareResult::Greater => ordering.is_gt(),
            CompareResult::Less => ordering.is_lt(),
        }
    }

    fn compact(&mut self, revision: i64) -> Answer {
        if revision <= self.compacted {
            return Answer::Error(ApplyError::Compacted);
        }
        if revision > self.revision {
            return Answer::Error(ApplyError::FutureRevision);
        }
        self.compacted = revision;
        Answer::Compact(self.revision)
    }

    fn revoke(&mut self, id: i64) -> Answer {
        let Some(lease) = self.leases.remove(&id) else {
            return Answer::Error(ApplyError::LeaseNotFound);
        };
        for key in lease.keys {
            self.set(key, None);
        }
        Answer::Revoke(self.at())
    }

    fn alarm(&mut self, alarm: &AlarmRequest) -> Answer {
        let member = alarm.member_id;
        let raised = match alarm.alarm() {
            AlarmType::Corrupt => &mut self.corrupt,
            AlarmType::Nospace | AlarmType::None => &mut self.full,
        };
        match alarm.action() {
            AlarmAction::Activate => drop(raised.insert(member)),
            AlarmAction::Deactivate => drop(raised.remove(&member)),
            AlarmAction::Get => {}
        }
        self.was_corrupt |= !self.corrupt.is_empty();
        Answer::Other
    }

    fn check_revision(&self, revision: i64) -> Result<(), ApplyError> {
        match revision {
            0 => Ok(()),
            revision if revision > self.revision => Err(ApplyError::FutureRevision),
            revision if revision < self.compacted => Err(ApplyError::Compacted),
            _ => Ok(()),
        }
    }

    /// The answer to `request` from the state at `revision`, whatever was compacted since.
    pub fn range(&self, request: &RangeRequest, revision: i64) -> Answer {
        let at = match request.revision {
            0 => revision,
            older => older,
        };
        let mut kvs = self.list(&request.key, &request.range_end, at);
        let count = kvs.len() as i64;
        if request.count_only {
            kvs.clear();
        }
        let target = |kv: &Kv| match request.sort_target() {
            SortTarget::Key | SortTarget::Value => panic!("the workload does not sort so"),
            SortTarget::Version => kv.version,
            SortTarget::Create => kv.create,
            SortTarget::Mod => kv.modified,
        };
        match request.sort_order() {
            SortOrder::None => {}
            SortOrder::Ascend => kvs.sort_by_key(target),
            SortOrder::Descend => kvs.sort_by_key(|kv| std::cmp::Reverse(target(kv))),
        }
        if request.limit > 0 {
            kvs.truncate(request.limit as usize);
        }
        Answer::Range(revision, kvs, count)
    }

    /// The pairs of an interval at a revision.
    pub fn list(&self, key: &[u8], end: &[u8], at: i64) -> Vec<Kv> {
        let versions = self.keys.range(Bytes::copy_from_slice(key)..);
        let within = versions.take_while(|(other, _)| match end {
            b"" => &other[..] == key,
            b"\0" => true,
            end => &other[..] < end,
        });
        within
            .filter_map(|(_, versions)| {
                let newest = versions.partition_point(|(revision, _)| *revision <= at);
                versions.get(newest.checked_sub(1)?)?.1.clone()
            })
            .collect()
    }
}

/// What is refused while a member is called corrupt.
fn touches_keyspace(r: &InternalRaftRequest) -> bool {
    let keys = r.put.is_some() || r.delete_range.is_some() || r.txn.is_some() || r.range.is_some();
    keys || r.compaction.is_some() || r.lease_grant.is_some() || r.lease_revoke.is_some()
}

/// What is refused while a member has no space left.
fn costs_space(r: &InternalRaftRequest) -> bool {
    fn puts(txn: &TxnRequest) -> bool {
        let mut ops = txn.success.iter().chain(&txn.failure);
        ops.any(|op| match &op.request {
            Some(Op::RequestPut(_)) => true,
            Some(Op::RequestTxn(txn)) => txn.visit(puts),
            _ => false,
        })
    }
    r.put.is_some() || r.lease_grant.is_some() || r.txn.as_ref().is_some_and(puts)
}
