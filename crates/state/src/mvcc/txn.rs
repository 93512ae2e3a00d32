//! Executing a transaction.
//!
//! Three passes over the request: all compares, nested ones too, are evaluated against the state
//! before the transaction and choose a path; the chosen path is checked against that same state;
//! only then is it executed, so that a transaction changes all or nothing.
//!
//! A transaction may be large: the lessor, which other threads need too, is held for one operation
//! at a time. That is enough, since nobody but the machine creates or removes leases.

use std::cmp::Ordering;

use retcd_proto::Nested;
use retcd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use super::keyspace::Changes;
use super::range::ReplySize;
use super::snapshot::{Effort, Found, Need, Position, Snapshot};
use super::{Interval, Kvs, Prev, RangeError, RangeReply, Record, StorageError, StoreRevision};
use crate::lease::SharedLessor;

/// Why a write was refused. The state is unchanged, except where the range error is
/// [`ReplyTooLarge`](RangeError::ReplyTooLarge): then the write was executed, and only its answer
/// is missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// A range inside the transaction has no answer.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The lease to attach does not exist.
    #[error("lease not found")]
    LeaseNotFound,
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    #[error("key not found")]
    KeyNotFound,
}

impl From<StorageError> for WriteError {
    fn from(error: StorageError) -> Self {
        WriteError::Range(error.into())
    }
}

/// The answer to a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutReply {
    /// The revision of the put.
    pub revision: StoreRevision,
    /// The record before, if it was asked for and existed.
    pub prev: Kvs,
}

/// The answer to a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteReply {
    /// The revision of the deletion, or the current one if there was nothing to delete.
    pub revision: StoreRevision,
    /// Number of deleted keys.
    pub deleted: i64,
    /// The records before, if they were asked for.
    pub prevs: Kvs,
}

/// The answer to a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnReply {
    /// The revision after the transaction; 0 in a nested one, whose header etcd leaves empty.
    pub revision: StoreRevision,
    /// Whether all compares held.
    pub succeeded: bool,
    /// The answers to the operations of the chosen branch, in order.
    pub replies: Vec<OpReply>,
}

/// The answer to an operation inside a transaction, with the revision at that point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpReply {
    /// To a range.
    Range(RangeReply),
    /// To a put.
    Put(PutReply),
    /// To a deletion.
    DeleteRange(DeleteReply),
    /// To a nested transaction.
    Txn(Nested<TxnReply>),
    /// To an operation that names none of these.
    Empty,
}

/// Whether `request` has only ranges, in both branches: it needs no log entry then.
pub fn is_read_only(request: &TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

/// Whether `request` is [read-only](is_read_only) and every range serializable: it may be answered
/// without asking the leader.
pub fn is_serializable(request: &TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

/// Whether a range of `request` names a revision, so that the backend must have all of them.
pub(crate) fn reads_history(request: &TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .any(|op| match &op.request {
            Some(Request::RequestRange(range)) => range.revision > 0,
            Some(Request::RequestTxn(txn)) => txn.visit(reads_history),
            _ => false,
        })
}

/// Executes a put.
pub(crate) fn put(
    changes: &mut Changes<'_>,
    lessor: &SharedLessor,
    request: &PutRequest,
) -> Result<PutReply, WriteError> {
    changes.read(|snapshot| check_put(request, lessor, snapshot))?;
    Ok(execute_put(changes, lessor, request, Step::Last)?)
}

/// Executes a deletion.
pub(crate) fn delete_range(
    changes: &mut Changes<'_>,
    lessor: &SharedLessor,
    request: &DeleteRangeRequest,
) -> DeleteReply {
    let reply = execute_delete_range(changes, lessor, request);
    lessor.lock().changed_at(changes.revision());
    reply
}

/// Executes a transaction.
pub(crate) fn txn(
    changes: &mut Changes<'_>,
    lessor: &SharedLessor,
    request: &TxnRequest,
) -> Result<TxnReply, WriteError> {
    let chosen = changes.read(|snapshot| {
        let chosen = Chosen::of(request, snapshot)?;
        chosen.check(snapshot, lessor)?;
        Ok::<_, WriteError>(chosen)
    })?;
    let mut size = ReplySize::default();
    let mut reply = chosen.execute(changes, lessor, &mut size)?;
    lessor.lock().changed_at(changes.revision());
    size.check()?;
    reply.revision = changes.store_revision();
    Ok(reply)
}

/// The branch that the compares chose, and those of the nested transactions in it.
struct Chosen<'a> {
    succeeded: bool,
    ops: &'a [RequestOp],
    /// In the order of the nested transactions among `ops`.
    nested: Vec<Nested<Chosen<'a>>>,
}

impl<'a> Chosen<'a> {
    fn of(request: &'a TxnRequest, snapshot: &Snapshot<'_>) -> Result<Chosen<'a>, StorageError> {
        let mut succeeded = true;
        for compare in &request.compare {
            if !holds(compare, snapshot)? {
                succeeded = false;
                break;
            }
        }
        let ops = if succeeded {
            &request.success
        } else {
            &request.failure
        };
        let nested = ops.iter().filter_map(|op| match &op.request {
            Some(Request::RequestTxn(txn)) => Some(txn.visit(|txn| Chosen::of(txn, snapshot))),
            _ => None,
        });
        let nested = nested.map(|chosen| chosen.map(Nested::new));
        Ok(Chosen {
            succeeded,
            ops,
            nested: nested.collect::<Result<_, _>>()?,
        })
    }

    /// Refuses what cannot be executed, before anything is.
    fn check(&self, snapshot: &Snapshot<'_>, lessor: &SharedLessor) -> Result<(), WriteError> {
        let mut nested = self.nested.iter();
        for op in self.ops {
            match &op.request {
                Some(Request::RequestRange(range)) => check_range(snapshot, range)?,
                Some(Request::RequestPut(put)) => {
                    check_put(put, lessor, snapshot)?;
                }
                Some(Request::RequestTxn(_)) => {
                    nested
                        .next()
                        .expect("one choice per nested transaction")
                        .visit(|chosen| chosen.check(snapshot, lessor))?;
                }
                Some(Request::RequestDeleteRange(_)) | None => {}
            }
        }
        assert!(nested.next().is_none(), "a choice without a transaction");
        Ok(())
    }

    /// Executes what was checked; fails only if the store does.
    fn execute(
        &self,
        changes: &mut Changes<'_>,
        lessor: &SharedLessor,
        size: &mut ReplySize,
    ) -> Result<TxnReply, RangeError> {
        let mut nested = self.nested.iter();
        let mut replies = Vec::with_capacity(self.ops.len());
        for op in self.ops {
            replies.push(match &op.request {
                // Nobody will be answered; what is left to do are the changes.
                Some(Request::RequestRange(_)) if size.check().is_err() => OpReply::Empty,
                Some(Request::RequestRange(range)) => {
                    let beside = size.bytes();
                    let reply = changes.read(|snapshot| snapshot.range_beside(range, beside));
                    match size.take(reply) {
                        Ok(reply) => OpReply::Range(reply),
                        // The changes are made all the same: by other members, too, which may
                        // have more of it in memory.
                        Err(RangeError::ReplyTooLarge(_)) => OpReply::Empty,
                        Err(error) => return Err(error),
                    }
                }
                Some(Request::RequestPut(put)) => {
                    OpReply::Put(execute_put(changes, lessor, put, Step::Inner)?)
                }
                Some(Request::RequestDeleteRange(delete)) => {
                    OpReply::DeleteRange(execute_delete_range(changes, lessor, delete))
                }
                Some(Request::RequestTxn(_)) => {
                    let nested = nested.next().expect("one choice per nested transaction");
                    let reply = nested.visit(|chosen| chosen.execute(changes, lessor, size));
                    OpReply::Txn(Nested::new(reply?))
                }
                None => OpReply::Empty,
            });
        }
        assert!(nested.next().is_none(), "a choice without a transaction");
        Ok(TxnReply {
            revision: StoreRevision::new(0),
            succeeded: self.succeeded,
            replies,
        })
    }
}

/// A range inside a transaction: unlike outside, a negative revision counts as one
/// (etcd v3.7: `server/etcdserver/txn/range.go`, `checkRange`).
pub(super) fn check_range(
    snapshot: &Snapshot<'_>,
    request: &RangeRequest,
) -> Result<(), RangeError> {
    match request.revision {
        0 => Ok(()),
        revision if revision > snapshot.revision => Err(RangeError::FutureRevision),
        revision if revision < snapshot.compacted => Err(RangeError::Compacted),
        _ => Ok(()),
    }
}

fn check_put(
    request: &PutRequest,
    lessor: &SharedLessor,
    snapshot: &Snapshot<'_>,
) -> Result<(), WriteError> {
    if request.lease != 0 && !lessor.lock().contains(request.lease) {
        return Err(WriteError::LeaseNotFound);
    }
    let keeps = request.ignore_value || request.ignore_lease;
    if keeps && snapshot.attributes(&request.key).is_none() {
        return Err(WriteError::KeyNotFound);
    }
    Ok(())
}

fn execute_delete_range(
    changes: &mut Changes<'_>,
    lessor: &SharedLessor,
    request: &DeleteRangeRequest,
) -> DeleteReply {
    let deleted = changes.delete_range(Interval::new(&request.key, &request.range_end));
    let leased = deleted.iter().filter_map(Prev::attributes);
    for kv in leased.filter(|kv| kv.lease() != 0) {
        lessor.lock().detach(kv.lease(), kv.key());
    }
    let count = deleted.len() as i64;
    let mut prevs = Found::default();
    if request.prev_kv {
        deleted.into_iter().for_each(|prev| prevs.push(prev));
    }
    DeleteReply {
        revision: changes.store_revision(),
        deleted: count,
        prevs: changes.kvs(prevs),
    }
}

/// Where in its entry a change of leases stands. What the lessor shows between two steps of a
/// transaction counts as the state before it, which is at worst older than what is seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Inner,
    Last,
}

fn execute_put(
    changes: &mut Changes<'_>,
    lessor: &SharedLessor,
    request: &PutRequest,
    step: Step,
) -> Result<PutReply, StorageError> {
    // An earlier operation of the transaction may have deleted the key since it was checked; there
    // is nothing to keep then.
    let kept = match request.ignore_value {
        true => changes.get(&request.key)?,
        false => None,
    };
    let value = kept.as_ref().map_or(&request.value[..], Record::value);
    let lease_of = |snapshot: &Snapshot<'_>| snapshot.attributes(&request.key).map(|kv| kv.lease());
    let kept_lease = match request.ignore_lease {
        true => changes.read(lease_of),
        false => None,
    };
    let lease = kept_lease.unwrap_or(request.lease);
    let prev = changes.put(&request.key, value, lease);
    let prev_lease = prev.attributes().map_or(0, |prev| prev.lease());
    if prev_lease != lease {
        let mut lessor = lessor.lock();
        lessor.detach(prev_lease, &request.key);
        let attached = lessor.attach(lease, &request.key);
        // What is kept may name a lease that a file never had.
        assert!(
            attached || lease == 0 || request.ignore_lease,
            "lease {lease:x} went while a put with it was applied"
        );
        if step == Step::Last {
            lessor.changed_at(changes.revision());
        }
    }
    let mut shown = Found::default();
    if request.prev_kv {
        shown.push(prev);
    }
    Ok(PutReply {
        revision: changes.store_revision(),
        prev: changes.kvs(shown),
    })
}

/// Whether `compare` holds for all keys that it names.
fn holds(compare: &Compare, snapshot: &Snapshot<'_>) -> Result<bool, StorageError> {
    let holds = Comparing::default().step(compare, snapshot, &mut { Effort::UNBOUNDED })?;
    Ok(holds.expect("unbounded effort comes to the end"))
}

/// How far a compare has come.
#[derive(Default)]
pub(super) struct Comparing {
    position: Position,
    found: bool,
}

impl Comparing {
    /// Whether `compare` holds for all keys that it names, if `effort` suffices to tell; then it is
    /// ready for the next one.
    pub(super) fn step(
        &mut self,
        compare: &Compare,
        snapshot: &Snapshot<'_>,
        effort: &mut Effort,
    ) -> Result<Option<bool>, StorageError> {
        let interval = Interval::new(&compare.key, &compare.range_end);
        let Comparing { position, found } = self;
        let need = match CompareTarget::try_from(compare.target) {
            Ok(CompareTarget::Value) => Need::Record,
            _ => Need::Attributes,
        };
        let all = snapshot.all(interval, need, position, effort, |record| {
            *found = true;
            holds_for(compare, record)
        })?;
        if *position != Position::End {
            return Ok(None);
        }
        let found = std::mem::take(self).found;
        // No key compares like one with all fields zero, except by value: an absent value is
        // neither equal nor unequal to anything.
        let absent = || Record::tombstone(b"", 0);
        Ok(Some(match found {
            true => all,
            false => compare.target != CompareTarget::Value as i32 && holds_for(compare, &absent()),
        }))
    }
}

fn holds_for(compare: &Compare, record: &Record) -> bool {
    let union = compare.target_union.as_ref();
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => {
            let given = if let Some(TargetUnion::Version(n)) = union {
                *n
            } else {
                0
            };
            record.version().cmp(&given)
        }
        Ok(CompareTarget::Create) => {
            let given = if let Some(TargetUnion::CreateRevision(n)) = union {
                *n
            } else {
                0
            };
            record.create_revision().cmp(&given)
        }
        Ok(CompareTarget::Mod) => {
            let given = if let Some(TargetUnion::ModRevision(n)) = union {
                *n
            } else {
                0
            };
            record.mod_revision().cmp(&given)
        }
        Ok(CompareTarget::Value) => {
            let given = if let Some(TargetUnion::Value(value)) = union {
                &value[..]
            } else {
                b""
            };
            record.value().cmp(given)
        }
        Ok(CompareTarget::Lease) => {
            let given = if let Some(TargetUnion::Lease(n)) = union {
                *n
            } else {
                0
            };
            record.lease().cmp(&given)
        }
        // etcd compares an unknown target as equal and holds an unknown result to be true.
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}
