//! Who may call which method while authentication is on.
//!
//! The table is etcd's (v3.7: `server/etcdserver/api/v3rpc`, `v3_server.go`, `server.go`).

use crate::metrics::Method;

/// What a method asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing.
    Anybody,
    /// To have logged in.
    User,
    /// Role `root`.
    Admin,
    /// What is in the request decides: its handler, or whoever applies it, looks.
    ByContent,
}

/// What `method` asks of its caller.
pub(super) fn needed(method: Method) -> Access {
    match method {
        Method::Compact
        | Method::MemberAdd
        | Method::MemberRemove
        | Method::MemberUpdate
        | Method::MemberPromote
        | Method::Defragment
        | Method::Hash
        | Method::HashKv
        | Method::Snapshot
        | Method::MoveLeader
        | Method::Downgrade => Access::Admin,
        Method::LeaseGrant
        | Method::LeaseRevoke
        | Method::LeaseTimeToLive
        | Method::LeaseLeases
        | Method::MemberList
        | Method::Status => Access::User,
        Method::Range
        | Method::RangeStream
        | Method::Put
        | Method::DeleteRange
        | Method::Txn
        | Method::Watch
        | Method::LeaseKeepAlive
        | Method::Alarm
        | Method::AuthEnable
        | Method::AuthDisable
        | Method::UserAdd
        | Method::UserGet
        | Method::UserList
        | Method::UserDelete
        | Method::UserChangePassword
        | Method::UserGrantRole
        | Method::UserRevokeRole
        | Method::RoleAdd
        | Method::RoleGet
        | Method::RoleList
        | Method::RoleDelete
        | Method::RoleGrantPermission
        | Method::RoleRevokePermission
        | Method::Lock
        | Method::Unlock
        | Method::Campaign
        | Method::Proclaim
        | Method::Leader
        | Method::Observe
        | Method::Resign => Access::ByContent,
        Method::AuthStatus
        | Method::Authenticate
        | Method::HealthCheck
        | Method::HealthList
        | Method::HealthWatch => Access::Anybody,
    }
}
