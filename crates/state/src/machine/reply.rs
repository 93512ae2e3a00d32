//! What the machine answers, and why it may refuse.

use std::sync::Arc;

use retcd_proto::etcdserverpb::AlarmMember;
use retcd_proto::raftpb::{ConfChange, ConfState};
use retcd_proto::wire::WireError;
use retcd_storage::backend::BackendError;

use crate::alarm::AlarmLoadError;
use crate::auth::{AuthError, AuthLoadError, AuthReply, TokenChange};
use crate::lease::LeaseLoadError;
use crate::membership::{ConfChangeDamage, Member, MemberError, MembershipLoadError};
use crate::meta::{AppliedIndex, MetaError};
use crate::mvcc::{
    DeleteReply, Event, PutReply, RangeReply, StorageError, StoreRevision, TxnReply,
};
use crate::request::Operation;
use crate::v2;
use crate::version::SchemaError;

/// Why the backend cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The keyspace is damaged.
    #[error(transparent)]
    Keyspace(#[from] StorageError),
    /// The leases are damaged.
    #[error(transparent)]
    Leases(#[from] LeaseLoadError),
    /// The alarms are damaged.
    #[error(transparent)]
    Alarms(#[from] AlarmLoadError),
    /// The membership is damaged.
    #[error(transparent)]
    Membership(#[from] MembershipLoadError),
    /// The applied index is damaged.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The schema is of a version that we do not know.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Users, roles or authentication are damaged.
    #[error(transparent)]
    Auth(#[from] AuthLoadError),
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Why the machine cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("cannot apply entry {index} (term {term}): {problem}")]
pub struct Fatal {
    /// Index of the entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// What is wrong.
    pub problem: FatalProblem,
}

/// What is wrong with an entry that cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum FatalProblem {
    /// The entry is not the next one.
    #[error("the entry before it is missing: applied up to {applied}")]
    Gap {
        /// Index of the last applied entry.
        applied: u64,
    },
    /// The entry's type is unknown.
    #[error("unknown entry type {0}")]
    UnknownType(i32),
    /// The entry's data is no request. etcd cannot apply it either.
    #[error("undecodable request of {bytes} bytes: {error}")]
    Undecodable {
        /// How long it is.
        bytes: usize,
        /// What is wrong with it.
        error: WireError,
    },
    /// A name in the entry's request is no text. etcd cannot apply it either, since 3.7.
    #[error(
        "request of {bytes} bytes with a name that is not UTF-8, which etcd up to 3.6 took and 3.7 does not: \
         start etcd 3.6 on this directory, let it write a snapshot behind this entry, and come back"
    )]
    NotUtf8 {
        /// How long it is.
        bytes: usize,
    },
    /// The request is of a kind that is unknown here.
    #[error("unknown kind of request")]
    UnknownRequest,
    /// The tree of API v2 does not agree with the membership.
    #[error("the store of API v2 does not have the members of the cluster: {0}")]
    Tree(v2::Error),
    /// A joint configuration change, which etcd never proposes.
    #[error("configuration change of version 2")]
    ConfChangeV2,
    /// A configuration change that cannot be read.
    #[error(transparent)]
    ConfChange(#[from] ConfChangeDamage),
    /// A cluster version that is none.
    #[error("invalid cluster version {0:?}")]
    BadVersion(String),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a request was refused; the state is unchanged. Each is one of etcd's errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// `mvcc: required revision has been compacted`
    #[error("required revision has been compacted")]
    Compacted,
    /// `mvcc: required revision is a future revision`
    #[error("required revision is a future revision")]
    FutureRevision,
    /// The transaction was executed, but its answer is longer than a message can be; it was given
    /// up at so many bytes.
    #[error("an answer of {0} bytes or more is too large")]
    ReplyTooLarge(usize),
    /// `key not found`
    #[error("key not found")]
    KeyNotFound,
    /// `requested lease not found`
    #[error("requested lease not found")]
    LeaseNotFound,
    /// `lease already exists`
    #[error("lease already exists")]
    LeaseExists,
    /// `too large lease TTL`
    #[error("too large lease TTL")]
    LeaseTtlTooLarge,
    /// `mvcc: database space exceeded`
    #[error("database space exceeded")]
    NoSpace,
    /// `corrupt cluster`
    #[error("corrupt cluster")]
    Corrupt,
    /// A configuration change was refused.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// A change of users, roles or authentication, or a question for them, was refused.
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To a range that went through the log.
    Range(RangeReply),
    /// To a put.
    Put(PutReply),
    /// To a deletion.
    DeleteRange(DeleteReply),
    /// To a transaction.
    Txn(TxnReply),
    /// To a compaction: readers refuse older revisions from now on.
    Compact(CompactReply),
    /// To a lease grant.
    LeaseGrant(LeaseGrantReply),
    /// To a lease revocation.
    LeaseRevoke {
        /// The revision after it.
        revision: StoreRevision,
    },
    /// To lease checkpoints.
    LeaseCheckpoint {
        /// The current revision.
        revision: StoreRevision,
    },
    /// To an alarm request.
    Alarm {
        /// The current revision.
        revision: StoreRevision,
        /// The alarms that it lists, raises or takes back.
        alarms: Vec<AlarmMember>,
    },
    /// To a configuration change: the members after it, by id. etcd tells no revision with them.
    Members(Vec<Member>),
    /// To a request about users, roles or authentication.
    Auth {
        /// The current revision of the store.
        revision: StoreRevision,
        /// The answer.
        reply: AuthReply,
    },
    /// To a request whose answer says nothing else.
    Done {
        /// The current revision.
        revision: StoreRevision,
    },
    /// A request of API v2; what its tree refuses is an answer.
    V2(Result<v2::Answer, v2::Error>),
}

/// The answer to a compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactReply {
    /// The current revision.
    pub revision: StoreRevision,
    /// The compacted revision. Its rows are gone when
    /// [`Machine::compaction_step`](super::Machine::compaction_step) has finished this revision or
    /// a later one.
    pub compacted: i64,
}

/// The answer to a lease grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseGrantReply {
    /// The current revision.
    pub revision: StoreRevision,
    /// The lease's id.
    pub id: i64,
    /// The effective time to live in seconds.
    pub ttl: i64,
}

/// A configuration change for raft.
#[derive(Clone, Debug, PartialEq)]
pub struct AppliedConfChange {
    /// Index of its entry.
    pub index: u64,
    /// The change, with node id 0 if it was refused.
    pub change: ConfChange,
    /// The raft configuration after it.
    pub conf_state: ConfState,
}

/// A request that was executed, or refused for what it asks or where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// What it asked for.
    pub operation: Operation,
    /// Whether it got it. As in etcd, that a revision is compacted is an answer.
    pub success: bool,
}

/// What came of a batch of entries.
#[derive(Debug, Default)]
pub struct Applied {
    /// How far the log is applied now.
    pub applied: AppliedIndex,
    /// The answers, by request id, in the order of the entries. Ids of other members are among
    /// them.
    pub replies: Vec<(u64, Result<Reply, ApplyError>)>,
    /// The requests among the entries, in their order.
    pub executed: Vec<Executed>,
    /// The events of each new revision, ascending.
    pub events: Vec<(i64, Arc<[Event]>)>,
    /// The configuration changes, to be passed on to raft in this order.
    pub conf_changes: Vec<AppliedConfChange>,
    /// Whether rows wait to be removed by
    /// [`Machine::compaction_step`](super::Machine::compaction_step).
    pub compacting: bool,
    /// What happened to tokens, in order; to be seen to before the replies go out.
    pub token_changes: Vec<TokenChange>,
    /// Whether members, their attributes, the cluster's version or its downgrade job changed.
    pub cluster_changed: bool,
    /// The newest term whose first entry was among them.
    pub begun_term: Option<u64>,
}
