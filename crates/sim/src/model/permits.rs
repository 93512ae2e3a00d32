//! What an entry needs, by the rules that etcd has for each kind of request.

use retcd_proto::etcdserverpb::request_op::Request as Op;
use retcd_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest, RequestHeader,
    TxnRequest,
};
use retcd_state::auth::AuthError;

use super::Model;
use super::auth::Sender;

impl Model {
    /// Whether an entry's sender may have it executed.
    pub(super) fn permits(
        &self,
        sender: &Sender,
        r: &InternalRaftRequest,
    ) -> Result<(), AuthError> {
        if let Some(put) = &r.put {
            self.permits_put(sender, put)
        } else if let Some(delete) = &r.delete_range {
            self.permits_delete(sender, delete)
        } else if let Some(txn) = &r.txn {
            self.permits_txn(sender, txn)
        } else if let Some(revoke) = &r.lease_revoke {
            self.permits_lease(sender, revoke.id)
        } else if let Some(get) = &r.auth_user_get {
            let own = get.name == sender.user;
            self.auth
                .may_administrate(sender)
                .or_else(|e| if own { Ok(()) } else { Err(e) })
        } else if let Some(get) = &r.auth_role_get {
            let user = self.auth.users.get(&sender.user);
            let own = user.is_some_and(|user| user.roles.contains(&get.role));
            self.auth
                .may_administrate(sender)
                .or_else(|e| if own { Ok(()) } else { Err(e) })
        } else if is_for_administrators(r) {
            self.auth.may_administrate(sender)
        } else {
            Ok(())
        }
    }

    fn permits_put(&self, sender: &Sender, put: &PutRequest) -> Result<(), AuthError> {
        self.auth.may_touch(sender, true, &put.key, b"")?;
        self.permits_lease(sender, put.lease)?;
        match put.prev_kv {
            true => self.auth.may_touch(sender, false, &put.key, b""),
            false => Ok(()),
        }
    }

    fn permits_delete(
        &self,
        sender: &Sender,
        delete: &DeleteRangeRequest,
    ) -> Result<(), AuthError> {
        let (key, end) = (&delete.key, &delete.range_end);
        self.auth.may_touch(sender, true, key, end)?;
        match delete.prev_kv {
            true => self.auth.may_touch(sender, false, key, end),
            false => Ok(()),
        }
    }

    /// A transaction needs what both of its branches need, whichever is taken.
    fn permits_txn(&self, sender: &Sender, txn: &TxnRequest) -> Result<(), AuthError> {
        for Compare { key, range_end, .. } in &txn.compare {
            self.auth.may_touch(sender, false, key, range_end)?;
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match &op.request {
                Some(Op::RequestPut(put)) => self.permits_put(sender, put)?,
                Some(Op::RequestDeleteRange(delete)) => self.permits_delete(sender, delete)?,
                Some(Op::RequestTxn(txn)) => txn.visit(|txn| self.permits_txn(sender, txn))?,
                Some(Op::RequestRange(RangeRequest { key, range_end, .. })) => {
                    self.auth.may_touch(sender, false, key, range_end)?;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Who touches a lease must be able to write what it holds.
    fn permits_lease(&self, sender: &Sender, id: i64) -> Result<(), AuthError> {
        let Some(lease) = self.leases.get(&id) else {
            return Ok(());
        };
        if self.auth.may_administrate(sender).is_ok() {
            return Ok(());
        }
        let mut keys = lease.keys.iter();
        keys.try_for_each(|key| self.auth.may_touch(sender, true, key, b""))
    }
}

/// Who an entry says that it is of.
pub fn sender(header: Option<&RequestHeader>) -> Sender {
    let header = header.cloned().unwrap_or_default();
    Sender {
        user: header.username,
        revision: header.auth_revision,
    }
}

/// What only they may do; what anybody may ask of himself is not in here.
fn is_for_administrators(r: &InternalRaftRequest) -> bool {
    let users = r.auth_user_add.is_some()
        || r.auth_user_delete.is_some()
        || r.auth_user_change_password.is_some()
        || r.auth_user_grant_role.is_some()
        || r.auth_user_revoke_role.is_some()
        || r.auth_user_list.is_some();
    let roles = r.auth_role_add.is_some()
        || r.auth_role_delete.is_some()
        || r.auth_role_grant_permission.is_some()
        || r.auth_role_revoke_permission.is_some()
        || r.auth_role_list.is_some();
    r.auth_enable.is_some() || r.auth_disable.is_some() || users || roles
}
