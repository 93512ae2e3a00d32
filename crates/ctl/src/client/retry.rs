//! Which failed request is repeated, and where.
//!
//! Two tables decide: what may be done twice ([`Method::policy`]), and what an answer says about whether it was done
//! ([`Failure::of`]). Both are those of etcd's Go client (client/v3: `retry.go`, `retry_interceptor.go`), but for what stands
//! in docs/compatibility.md.
//!
//! | failure | repeatable | at most once |
//! |---|---|---|
//! | never sent | again | again |
//! | the login is too old | again, with a new one | again, with a new one |
//! | a learner refuses, and there are other endpoints | at the next | at the next |
//! | no leader, and there are other endpoints | at the next | at the next |
//! | no leader | again | the end |
//! | unavailable, or the connection broke | at the next | the end |
//! | the server gave up, though there is time left | at the next | the end |
//! | anything else | the end | the end |

use std::error::Error;

use tonic::{Code, Status};

use super::transport::{Broken, Unsent};
use super::{ClientError, error};

const LEARNER: &str = "etcdserver: rpc not supported for learner";
const NO_LEADER: &str = "etcdserver: no leader";

/// The methods that commands call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the API")]
pub enum Method {
    Range,
    RangeStream,
    Put,
    DeleteRange,
    Txn,
    Compact,
    LeaseGrant,
    LeaseRevoke,
    LeaseTimeToLive,
    LeaseLeases,
    MemberAdd,
    MemberRemove,
    MemberUpdate,
    MemberPromote,
    MemberList,
    Alarm,
    Status,
    HashKv,
    Snapshot,
    MoveLeader,
    LeaseKeepAlive,
    Authenticate,
    Defragment,
    Downgrade,
    AuthEnable,
    AuthDisable,
    AuthStatus,
    UserAdd,
    UserDelete,
    UserChangePassword,
    UserGrantRole,
    UserRevokeRole,
    UserGet,
    UserList,
    RoleAdd,
    RoleDelete,
    RoleGrantPermission,
    RoleRevokePermission,
    RoleGet,
    RoleList,
}

/// Whether a request may be executed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The second time changes nothing that matters.
    Repeatable,
    /// The user asked for it once.
    AtMostOnce,
}

impl Method {
    /// Whether requests of this method may be executed twice.
    pub fn policy(self) -> Policy {
        match self {
            // They change nothing.
            Method::Range
            | Method::RangeStream
            | Method::LeaseTimeToLive
            | Method::LeaseLeases
            | Method::MemberList
            | Method::Status
            | Method::HashKv
            | Method::Snapshot
            | Method::AuthStatus
            | Method::UserGet
            | Method::UserList
            | Method::RoleGet
            | Method::RoleList
            // A second lease has no keys and ends by itself.
            | Method::LeaseGrant
            // They ask for a state; it may be there already.
            | Method::LeaseRevoke
            | Method::Alarm
            | Method::MoveLeader
            | Method::LeaseKeepAlive => Policy::Repeatable,
            Method::Put
            | Method::DeleteRange
            | Method::Txn
            | Method::Compact
            | Method::MemberAdd
            | Method::MemberRemove
            | Method::MemberUpdate
            | Method::MemberPromote
            | Method::Defragment
            | Method::Downgrade
            | Method::AuthEnable
            | Method::AuthDisable
            | Method::Authenticate
            | Method::UserAdd
            | Method::UserDelete
            | Method::UserChangePassword
            | Method::UserGrantRole
            | Method::UserRevokeRole
            | Method::RoleAdd
            | Method::RoleDelete
            | Method::RoleGrantPermission
            | Method::RoleRevokePermission => Policy::AtMostOnce,
        }
    }
}

/// What a failure says about the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It never left.
    Unsent,
    /// It was refused for its token, or for what was known of the user.
    LoginOutdated,
    /// It was refused by a learner, which does not do such things. Others do.
    Learner,
    /// It was refused by a member that knows of no leader. Others may.
    NoLeader,
    /// It may have been executed. Asking once more may succeed.
    Unknown,
    /// That was the answer.
    Final,
}

impl Failure {
    /// What `error` says.
    pub fn of(error: &ClientError) -> Failure {
        let ClientError::Status(status) = error else {
            return Failure::Final;
        };
        match (status.code(), status.message()) {
            _ if has_source::<Unsent>(status) => Failure::Unsent,
            _ if has_source::<Broken>(status) => Failure::Unknown,
            (_, error::OLD_REVISION | error::INVALID_TOKEN | error::NO_USER) => {
                Failure::LoginOutdated
            }
            (Code::FailedPrecondition, LEARNER) => Failure::Learner,
            (Code::Unavailable, NO_LEADER) => Failure::NoLeader,
            // The answer broke off.
            (Code::Unknown, _) if status.source().is_some() => Failure::Unknown,
            // The time that the user gave is looked after elsewhere, so it is not over.
            (Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded, _) => Failure::Unknown,
            _ => Failure::Final,
        }
    }
}

fn has_source<E: Error + 'static>(status: &Status) -> bool {
    status.source().is_some_and(|source| source.is::<E>())
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask again, at another endpoint if there is one.
    Elsewhere,
    /// Log in and ask again.
    LogIn,
    /// Tell the user.
    GiveUp,
}

/// The table above.
pub fn next(policy: Policy, failure: Failure, endpoints: usize) -> Next {
    match (failure, policy) {
        (Failure::Unsent, _) => Next::Elsewhere,
        (Failure::LoginOutdated, _) => Next::LogIn,
        (Failure::Learner | Failure::NoLeader, _) if endpoints > 1 => Next::Elsewhere,
        (Failure::NoLeader | Failure::Unknown, Policy::Repeatable) => Next::Elsewhere,
        (Failure::Learner | Failure::NoLeader | Failure::Unknown | Failure::Final, _) => {
            Next::GiveUp
        }
    }
}
