//! Who may do what.
//!
//! The rules are etcd's, in its order (v3.7: `server/etcdserver/apply/auth.go`,
//! `server/auth/store.go`):
//!
//! | request | needs |
//! |---|---|
//! | users, roles, switching on and off | role `root`, whatever the caller's revision |
//! | one's own user, a role one has | nothing |
//! | range, compare | to read the range |
//! | put | to write the key; with `prev_kv` to read it; with a lease to write all keys of the lease |
//! | deletion | to write the range; with `prev_kv` to read it |
//! | transaction | all of that for compares and both branches, nested ones too |
//! | lease revocation | to write all keys of the lease |
//!
//! What touches keys also needs a caller ([`AuthError::UserEmpty`]) who was identified when users
//! and roles were as they are now ([`AuthError::OldRevision`]): a request that was proposed before
//! a change and is applied after it is refused. Nothing is checked while authentication is off.

use std::collections::BTreeSet;

use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    DeleteRangeRequest, InternalRaftRequest, PutRequest, RequestHeader, RequestOp, TxnRequest,
};

use super::permissions::{Access, Account, Rights};
use super::{AuthError, AuthStore};
use crate::lease::SharedLessor;

/// Who asks, and as of which revision of users and roles that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller<'a> {
    /// The user; empty for nobody.
    pub user: &'a str,
    /// The revision; 0 for nobody.
    pub revision: u64,
}

impl<'a> Caller<'a> {
    /// The caller that a log entry names.
    pub(crate) fn of(header: Option<&'a RequestHeader>) -> Caller<'a> {
        header.map_or(Caller::default(), |header| Caller {
            user: &header.username,
            revision: header.auth_revision,
        })
    }
}

/// The leases whose keys one request's caller was found to be allowed to write. A request may name
/// a lease in each of its puts, but its keys need to be looked at only once.
struct CheckedLeases<'a> {
    lessor: &'a SharedLessor,
    seen: BTreeSet<i64>,
}

impl<'a> CheckedLeases<'a> {
    fn new(lessor: &'a SharedLessor) -> CheckedLeases<'a> {
        let seen = BTreeSet::new();
        CheckedLeases { lessor, seen }
    }

    /// Whether this request has not named `lease` before.
    fn is_new(&mut self, lease: i64) -> bool {
        lease != 0 && self.seen.insert(lease)
    }
}

impl AuthStore {
    /// Whether the caller has role `root`.
    ///
    /// # Errors
    /// [`AuthError::UserEmpty`], [`AuthError::UserNotFound`], [`AuthError::PermissionDenied`]
    pub fn check_admin(&self, caller: Caller<'_>) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        if caller.user.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        match self.account(caller.user) {
            None => Err(AuthError::UserNotFound),
            Some(account) if account.is_root() => Ok(()),
            Some(_) => Err(AuthError::PermissionDenied),
        }
    }

    /// Whether the caller may touch a key (without `range_end`) or a whole range of keys.
    ///
    /// # Errors
    /// [`AuthError::UserEmpty`], [`AuthError::OldRevision`], [`AuthError::PermissionDenied`]
    pub fn check_keys(
        &self,
        caller: Caller<'_>,
        access: Access,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        if caller.revision == 0 {
            return Err(AuthError::UserEmpty);
        }
        if caller.revision < self.revision {
            return Err(AuthError::OldRevision);
        }
        let account = self.account(caller.user);
        let account = account.ok_or(AuthError::PermissionDenied)?;
        if account.is_root() || self.covers(account, access, key, range_end) {
            Ok(())
        } else {
            Err(AuthError::PermissionDenied)
        }
    }

    /// Whether the caller may make this transaction, whichever branch it takes.
    ///
    /// # Errors
    /// As [`AuthStore::check_keys`].
    pub fn check_txn(
        &self,
        caller: Caller<'_>,
        request: &TxnRequest,
        lessor: &SharedLessor,
    ) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        let mut leases = CheckedLeases::new(lessor);
        self.check_nested(caller, request, &mut leases)
    }

    fn check_nested(
        &self,
        caller: Caller<'_>,
        request: &TxnRequest,
        leases: &mut CheckedLeases<'_>,
    ) -> Result<(), AuthError> {
        for compare in &request.compare {
            self.check_keys(caller, Access::Read, &compare.key, &compare.range_end)?;
        }
        for op in request.success.iter().chain(&request.failure) {
            self.check_op(caller, op, leases)?;
        }
        Ok(())
    }

    /// Whether the caller may touch all keys of a lease. A lease that does not exist has none.
    ///
    /// # Errors
    /// As [`AuthStore::check_keys`].
    pub fn check_lease(
        &self,
        caller: Caller<'_>,
        access: Access,
        lease: i64,
        lessor: &SharedLessor,
    ) -> Result<(), AuthError> {
        if lease == 0 || self.check_admin(caller).is_ok() {
            return Ok(());
        }
        let keys = lessor.lock().keys(lease);
        keys.iter()
            .try_for_each(|key| self.check_keys(caller, access, key, b""))
    }

    /// What the one request of a log entry needs, apart from what it may be refused for itself. The
    /// entry has passed [`check_admin_requests`](AuthStore::check_admin_requests).
    pub(crate) fn check(
        &self,
        caller: Caller<'_>,
        r: &InternalRaftRequest,
        lessor: &SharedLessor,
    ) -> Result<(), AuthError> {
        if !self.enabled {
            Ok(())
        } else if let Some(range) = &r.range {
            self.check_keys(caller, Access::Read, &range.key, &range.range_end)
        } else if let Some(put) = &r.put {
            self.check_put(caller, put, &mut CheckedLeases::new(lessor))
        } else if let Some(delete) = &r.delete_range {
            self.check_delete(caller, delete)
        } else if let Some(txn) = &r.txn {
            self.check_txn(caller, txn, lessor)
        } else if let Some(revoke) = &r.lease_revoke {
            self.check_lease(caller, Access::Write, revoke.id, lessor)
        } else if let Some(get) = &r.auth_user_get {
            let own = get.name == caller.user;
            self.check_admin(caller)
                .or_else(|e| own.then_some(()).ok_or(e))
        } else if let Some(get) = &r.auth_role_get {
            let account = self.account(caller.user);
            let own = account.is_some_and(|account| account.has_role(&get.role));
            self.check_admin(caller)
                .or_else(|e| own.then_some(()).ok_or(e))
        } else {
            Ok(())
        }
    }

    /// What a log entry needs that changes or lists users and roles, whatever else it asks for. To
    /// be checked before anything else, also before alarms.
    pub(crate) fn check_admin_requests(&self, r: &InternalRaftRequest) -> Result<(), AuthError> {
        match needs_admin(r) {
            true => self.check_admin(Caller::of(r.header.as_ref())),
            false => Ok(()),
        }
    }

    fn check_op(
        &self,
        caller: Caller<'_>,
        op: &RequestOp,
        leases: &mut CheckedLeases<'_>,
    ) -> Result<(), AuthError> {
        match &op.request {
            Some(Request::RequestRange(range)) => {
                self.check_keys(caller, Access::Read, &range.key, &range.range_end)
            }
            Some(Request::RequestPut(put)) => self.check_put(caller, put, leases),
            Some(Request::RequestDeleteRange(delete)) => self.check_delete(caller, delete),
            Some(Request::RequestTxn(txn)) => {
                txn.visit(|txn| self.check_nested(caller, txn, leases))
            }
            None => Ok(()),
        }
    }

    /// Who attaches a key to a lease must be able to revoke it.
    fn check_put(
        &self,
        caller: Caller<'_>,
        put: &PutRequest,
        leases: &mut CheckedLeases<'_>,
    ) -> Result<(), AuthError> {
        self.check_keys(caller, Access::Write, &put.key, b"")?;
        if leases.is_new(put.lease) {
            self.check_lease(caller, Access::Write, put.lease, leases.lessor)?;
        }
        if put.prev_kv {
            self.check_keys(caller, Access::Read, &put.key, b"")?;
        }
        Ok(())
    }

    fn check_delete(
        &self,
        caller: Caller<'_>,
        delete: &DeleteRangeRequest,
    ) -> Result<(), AuthError> {
        let (key, range_end) = (&delete.key, &delete.range_end);
        self.check_keys(caller, Access::Write, key, range_end)?;
        if delete.prev_kv {
            self.check_keys(caller, Access::Read, key, range_end)?;
        }
        Ok(())
    }

    fn covers(&self, account: &Account, access: Access, key: &[u8], range_end: &[u8]) -> bool {
        let rights = account.rights(|| {
            let roles = account.user().roles.iter();
            let roles = roles.filter_map(|role| self.roles.get(&role[..]));
            Rights::of(roles.flat_map(|role| &role.key_permission))
        });
        rights.ranges(access).covers(key, range_end)
    }
}

fn needs_admin(r: &InternalRaftRequest) -> bool {
    r.auth_enable.is_some()
        || r.auth_disable.is_some()
        || r.auth_user_add.is_some()
        || r.auth_user_delete.is_some()
        || r.auth_user_change_password.is_some()
        || r.auth_user_grant_role.is_some()
        || r.auth_user_revoke_role.is_some()
        || r.auth_user_list.is_some()
        || r.auth_role_add.is_some()
        || r.auth_role_delete.is_some()
        || r.auth_role_grant_permission.is_some()
        || r.auth_role_revoke_permission.is_some()
        || r.auth_role_list.is_some()
}
