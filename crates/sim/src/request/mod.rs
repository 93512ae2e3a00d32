//! What clients ask, and what they are answered, in one shape for the member and the model.

pub mod tree;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use retcd_proto::etcdserverpb::request_op::Request as Op;
use retcd_proto::etcdserverpb::{InternalRaftRequest, RangeRequest, RequestOp, TxnRequest};
use retcd_proto::raftpb::{ConfChange, Entry};
use retcd_state::auth::AuthReply;
use retcd_state::machine::{ApplyError, Reply};
use retcd_state::mvcc::{
    DeleteReply, KeyspaceHash, Kvs, OpReply, PutReply, RangeReply, Record, StorageError, TxnReply,
};

use crate::model::tree::TOP;
use crate::model::tree_users::Purpose;
use tree::{TreeRequest, UsersRequest};

/// What a client asks.
#[derive(Clone, Debug)]
pub enum Request {
    /// Something that goes through the log.
    Write(Box<InternalRaftRequest>),
    /// Something about members.
    Members(MemberRequest),
    /// A change of the membership that is put into the log without any of the checks before it.
    Change(Box<ConfChange>),
    /// A range, linearizable unless it says otherwise.
    Range(RangeRequest),
    /// The same, answered piece by piece.
    Stream(RangeRequest),
    /// Several ranges in one transaction.
    Lists(Vec<RangeRequest>),
    /// All leases, as the member knows them.
    Leases,
    /// The renewal of a lease.
    KeepAlive(i64),
    /// What is left of a lease.
    TimeToLive(i64),
    /// The hash of the keyspace at a revision, 0 for the newest.
    HashKv(i64),
    /// An entry that a member of another program forwards. Nobody answers.
    Smuggled(Box<Entry>),
    /// A token for a user and its password.
    LogIn(&'static str, &'static str),
    /// Something of API v2 that goes through the log.
    Tree(Box<TreeRequest>),
    /// A change of users or roles of API v2.
    TreeUsers(Box<UsersRequest>),
    /// A read of API v2 from what the member has.
    TreeRead {
        /// The node.
        path: &'static str,
        /// Whether with all that is below it.
        recursive: bool,
    },
    /// The next event of API v2.
    TreeWait {
        /// The node.
        path: &'static str,
        /// Whether of all that is below it, too.
        recursive: bool,
        /// The first index that counts.
        since: u64,
    },
    /// The events of API v2 from now on.
    TreeStream {
        /// The node.
        path: &'static str,
        /// Whether of all that is below it, too.
        recursive: bool,
        /// How long the client stays.
        stay: Duration,
    },
}

/// What is asked about members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberRequest {
    /// Add one.
    Add {
        /// Where its peers find it.
        url: String,
        /// Whether it has no vote.
        is_learner: bool,
    },
    /// Remove one.
    Remove(u64),
    /// Give a learner its vote.
    Promote(u64),
    /// Hand leadership over.
    MoveLeader(u64),
}

impl Request {
    /// Whether the answer must show everything that was answered before the request was made.
    pub fn is_linearizable(&self) -> bool {
        match self {
            Request::Write(_) | Request::Members(_) | Request::Change(_) => true,
            Request::Range(_) | Request::Stream(_) | Request::Lists(_) => {
                !self.ranges().iter().all(|range| range.serializable)
            }
            Request::KeepAlive(_) | Request::Leases | Request::HashKv(_) => false,
            Request::LogIn(..) | Request::Smuggled(_) | Request::TimeToLive(_) => true,
            Request::Tree(_) | Request::TreeUsers(_) => true,
            Request::TreeRead { .. } | Request::TreeWait { .. } | Request::TreeStream { .. } => {
                false
            }
        }
    }

    /// Whether it is one of API v2.
    pub fn is_of_tree(&self) -> bool {
        matches!(
            self,
            Request::Tree(_)
                | Request::TreeUsers(_)
                | Request::TreeRead { .. }
                | Request::TreeWait { .. }
                | Request::TreeStream { .. }
        )
    }

    /// What it is for, if that is for API v2's users to permit.
    pub fn purpose(&self) -> Option<Purpose> {
        let (path, recursive, write) = match self {
            Request::TreeUsers(_) => return Some(Purpose::Users),
            Request::Tree(asked) => {
                let r = &asked.request;
                (r.path(), r.recursive(), r.method() != "QGET")
            }
            Request::TreeRead { path, recursive }
            | Request::TreeWait {
                path, recursive, ..
            }
            | Request::TreeStream {
                path, recursive, ..
            } => (*path, *recursive, false),
            _ => return None,
        };
        let key = path.strip_prefix(TOP).unwrap_or_default().to_owned();
        Some(Purpose::Key {
            key,
            recursive,
            write,
        })
    }

    /// Whether any member may answer from what it has.
    pub fn is_serializable(&self) -> bool {
        !self.ranges().is_empty() && !self.is_linearizable()
    }

    /// The ranges that are read without the log.
    pub fn ranges(&self) -> &[RangeRequest] {
        match self {
            Request::Range(range) | Request::Stream(range) => std::slice::from_ref(range),
            Request::Lists(ranges) => ranges,
            _ => &[],
        }
    }

    /// These ranges as the operations of a transaction.
    pub fn as_txn(&self) -> TxnRequest {
        let op = |range: &RangeRequest| RequestOp {
            request: Some(Op::RequestRange(range.clone())),
        };
        TxnRequest {
            success: self.ranges().iter().map(op).collect(),
            ..Default::default()
        }
    }
}

/// A key and what it holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Kv {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// Revision of its creation.
    pub create: i64,
    /// Revision of its last change.
    pub modified: i64,
    /// Changes since its creation.
    pub version: i64,
    /// The attached lease.
    pub lease: i64,
}

impl From<&Record> for Kv {
    fn from(record: &Record) -> Kv {
        Kv {
            key: Bytes::copy_from_slice(record.key()),
            value: Bytes::copy_from_slice(record.value()),
            create: record.create_revision(),
            modified: record.mod_revision(),
            version: record.version(),
            lease: record.lease(),
        }
    }
}

/// What a client is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To a put: its revision, and what was there.
    Put(i64, Option<Kv>),
    /// To a deletion: its revision, and what was there.
    Delete(i64, i64, Vec<Kv>),
    /// To a range: the store's revision, what is there, and how many in all.
    Range(i64, Vec<Kv>, i64),
    /// To a transaction: its revision, whether the compares held, and the answers to its
    /// operations.
    Txn(i64, bool, Vec<Answer>),
    /// To a compaction.
    Compact(i64),
    /// To the grant of a lease: its time to live in seconds.
    Grant(i64),
    /// To a revocation.
    Revoke(i64),
    /// To a question for all leases: the revision that it is of, and their ids, ascending.
    Leases(i64, Vec<i64>),
    /// To a keep-alive: seconds from now, 0 if the lease is gone, and the revision that it is of.
    KeepAlive(i64, i64),
    /// To a question for what is left of a lease: seconds, nothing if there is no such lease, and
    /// the revision that it is of.
    TimeToLive(Option<i64>, i64),
    /// To a question for a hash: the revision that it is of, and the hash.
    Hash(i64, KeyspaceHash),
    /// To what is asked of, or done to, users and roles.
    Auth(AuthReply),
    /// To a login: the token.
    Token(String),
    /// To the addition of a member: its id.
    Added(u64),
    /// To a request of API v2.
    Tree(tree::Answer),
    /// To what users and roles of API v2 do not allow.
    TreeDenied,
    /// To a change of users and roles of API v2 that cannot be, as they are.
    TreeUnchanged,
    /// To a stream of API v2.
    TreeStream(tree::Streamed),
    /// To anything whose answer is not looked at.
    Other,
    /// A refusal that is an answer.
    Error(ApplyError),
}

impl Answer {
    /// The revision that the answer speaks of; 0 for none.
    pub fn revision(&self) -> i64 {
        match self {
            Answer::Put(revision, _)
            | Answer::Delete(revision, _, _)
            | Answer::Range(revision, _, _)
            | Answer::Txn(revision, _, _)
            | Answer::Compact(revision)
            | Answer::Leases(revision, _)
            | Answer::KeepAlive(_, revision)
            | Answer::TimeToLive(_, revision)
            | Answer::Hash(revision, _)
            | Answer::Revoke(revision) => *revision,
            Answer::Grant(_) | Answer::Auth(_) | Answer::Token(_) | Answer::Added(_) => 0,
            Answer::Tree(_) | Answer::TreeStream(_) | Answer::Other | Answer::Error(_) => 0,
            Answer::TreeDenied | Answer::TreeUnchanged => 0,
        }
    }
}

/// What the machine replied.
pub fn of_reply(reply: &Result<Reply, ApplyError>) -> Answer {
    match reply {
        Err(error) => Answer::Error(*error),
        Ok(Reply::Range(range)) => of_range(range),
        Ok(Reply::Put(put)) => of_put(put),
        Ok(Reply::DeleteRange(delete)) => of_delete(delete),
        Ok(Reply::Txn(txn)) => of_txn(txn),
        Ok(Reply::Compact(compact)) => Answer::Compact(compact.revision.get()),
        Ok(Reply::LeaseGrant(grant)) => Answer::Grant(grant.ttl),
        Ok(Reply::LeaseRevoke { revision }) => Answer::Revoke(revision.get()),
        Ok(Reply::Auth { reply, .. }) => Answer::Auth(reply.clone()),
        Ok(_) => Answer::Other,
    }
}

/// The answer to a put.
pub fn of_put(put: &PutReply) -> Answer {
    Answer::Put(put.revision.get(), kvs(&put.prev).pop())
}

/// The answer to a deletion.
pub fn of_delete(delete: &DeleteReply) -> Answer {
    Answer::Delete(delete.revision.get(), delete.deleted, kvs(&delete.prevs))
}

/// The answer to a range.
pub fn of_range(range: &RangeReply) -> Answer {
    Answer::Range(range.revision.get(), kvs(&range.kvs), range.count)
}

/// The answer to a transaction.
pub fn of_txn(txn: &TxnReply) -> Answer {
    let answers = txn.replies.iter().map(|reply| match reply {
        OpReply::Range(range) => of_range(range),
        OpReply::Put(put) => of_put(put),
        OpReply::DeleteRange(delete) => of_delete(delete),
        OpReply::Txn(txn) => txn.visit(of_txn),
        OpReply::Empty => Answer::Other,
    });
    Answer::Txn(txn.revision.get(), txn.succeeded, answers.collect())
}

/// Records in the shape of this module.
pub fn kvs(records: &Kvs) -> Vec<Kv> {
    let whole = |record: Result<Cow<'_, Record>, StorageError>| {
        Kv::from(&*record.expect("what a view holds can be read"))
    };
    records.iter().map(whole).collect()
}

impl fmt::Debug for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, value) = (text(&self.key), text(&self.value));
        write!(f, "{key}={value}@{}", self.modified)?;
        if self.lease != 0 {
            write!(f, " lease {}", self.lease)?;
        }
        Ok(())
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Write(request) => write(request, f),
            Request::Range(range) => write_range(range, f),
            Request::Stream(range) => {
                f.write_str("stream: ")?;
                write_range(range, f)
            }
            Request::Lists(ranges) => {
                f.write_str("together:")?;
                ranges.iter().try_for_each(|range| {
                    f.write_str(" ")?;
                    write_range(range, f)
                })
            }
            Request::Leases => f.write_str("list leases"),
            Request::Members(request) => write!(f, "{request:x?}"),
            Request::Change(change) => {
                write!(f, "{:?} {:x}", change.r#type(), change.node_id())
            }
            Request::KeepAlive(lease) => write!(f, "keep-alive {lease}"),
            Request::TimeToLive(lease) => write!(f, "time to live of {lease}"),
            Request::HashKv(revision) => write!(f, "hash at {revision}"),
            Request::Smuggled(entry) => {
                let (kind, data) = (entry.r#type(), entry.data());
                write!(f, "smuggle {kind:?} {:02x?}", &data[..data.len().min(60)])
            }
            Request::LogIn(user, password) => write!(f, "log in as {user} with {password}"),
            Request::Tree(request) => write!(f, "{request}"),
            Request::TreeUsers(request) => write!(f, "v2 {request:?}"),
            Request::TreeRead { path, recursive } => {
                let all = if *recursive { " recursive" } else { "" };
                write!(f, "v2 read {path}{all}")
            }
            Request::TreeStream { path, stay, .. } => write!(f, "v2 stream of {path} for {stay:?}"),
            Request::TreeWait { path, since, .. } => write!(f, "v2 wait for {path} from {since}"),
        }
    }
}

fn write_range(range: &RangeRequest, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let kind = match (range.count_only, range.serializable) {
        (true, _) => "count",
        (false, true) => "read",
        (false, false) => "get",
    };
    write!(f, "{kind} {}", interval(&range.key, &range.range_end))?;
    if range.sort_target != 0 {
        write!(f, " by {:?}", range.sort_target())?;
    }
    match range.revision {
        0 => Ok(()),
        revision => write!(f, " at {revision}"),
    }
}

fn write(r: &InternalRaftRequest, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(put) = &r.put {
        write!(f, "put {}={}", text(&put.key), text(&put.value))?;
        return match put.lease {
            0 => Ok(()),
            lease => write!(f, " lease {lease}"),
        };
    }
    if let Some(delete) = &r.delete_range {
        return write!(f, "delete {}", interval(&delete.key, &delete.range_end));
    }
    if let Some(txn) = &r.txn {
        return write_txn(txn, f);
    }
    if let Some(compaction) = &r.compaction {
        let physically = if compaction.physical {
            " physically"
        } else {
            ""
        };
        return write!(f, "compact {}{physically}", compaction.revision);
    }
    if let Some(grant) = &r.lease_grant {
        return write!(f, "grant {} of {} s", grant.id, grant.ttl);
    }
    if let Some(revoke) = &r.lease_revoke {
        return write!(f, "revoke {}", revoke.id);
    }
    if let Some(alarm) = &r.alarm {
        return write!(f, "alarm {:?}", alarm.action());
    }
    write_auth(r, f)
}

fn write_auth(r: &InternalRaftRequest, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let parts: [Option<&dyn fmt::Debug>; 16] = [
        r.auth_enable.as_ref().map(|part| part as _),
        r.auth_disable.as_ref().map(|part| part as _),
        r.auth_status.as_ref().map(|part| part as _),
        r.auth_user_add.as_ref().map(|part| part as _),
        r.auth_user_delete.as_ref().map(|part| part as _),
        r.auth_user_get.as_ref().map(|part| part as _),
        r.auth_user_list.as_ref().map(|part| part as _),
        r.auth_user_change_password.as_ref().map(|part| part as _),
        r.auth_user_grant_role.as_ref().map(|part| part as _),
        r.auth_user_revoke_role.as_ref().map(|part| part as _),
        r.auth_role_add.as_ref().map(|part| part as _),
        r.auth_role_delete.as_ref().map(|part| part as _),
        r.auth_role_get.as_ref().map(|part| part as _),
        r.auth_role_list.as_ref().map(|part| part as _),
        r.auth_role_grant_permission.as_ref().map(|part| part as _),
        r.auth_role_revoke_permission.as_ref().map(|part| part as _),
    ];
    match parts.into_iter().flatten().next() {
        Some(part) => write!(f, "{part:?}"),
        None => write!(f, "{r:?}"),
    }
}

fn write_txn(txn: &TxnRequest, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "txn if")?;
    for compare in &txn.compare {
        let target = compare.target_union.as_ref();
        write!(f, " {} {:?}", text(&compare.key), target)?;
    }
    for (name, ops) in [("then", &txn.success), ("else", &txn.failure)] {
        write!(f, " {name}")?;
        for op in ops {
            match &op.request {
                Some(Op::RequestPut(put)) => {
                    write!(f, " put {}={}", text(&put.key), text(&put.value))?;
                }
                Some(Op::RequestRange(range)) => write!(f, " get {}", text(&range.key))?,
                Some(Op::RequestDeleteRange(delete)) => {
                    write!(f, " delete {}", text(&delete.key))?;
                }
                Some(Op::RequestTxn(_)) | None => write!(f, " …")?,
            }
        }
    }
    Ok(())
}

fn interval(key: &[u8], end: &[u8]) -> String {
    match end {
        b"" => text(key),
        _ => format!("[{}, {})", text(key), text(end)),
    }
}

/// Keys and values of the workload are plain text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
