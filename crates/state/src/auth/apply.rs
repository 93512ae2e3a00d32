//! Which request does what.

use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_storage::backend::WriteBatch;

use super::{AuthError, AuthReply, AuthStore, text};
use crate::meta::AppliedIndex;

impl AuthStore {
    /// Executes the request of the entry at `position`; `None` if it is not about authentication.
    ///
    /// etcd before 3.6 has its questions in the log as well. They change nothing.
    pub(crate) fn apply(
        &mut self,
        position: AppliedIndex,
        request: &InternalRaftRequest,
        batch: &mut WriteBatch,
    ) -> Option<Result<AuthReply, AuthError>> {
        if let Some(changed) = self.apply_change(position, request, batch) {
            return Some(changed.map(|()| AuthReply::Done));
        }
        self.answer(request)
    }

    fn apply_change(
        &mut self,
        position: AppliedIndex,
        r: &InternalRaftRequest,
        batch: &mut WriteBatch,
    ) -> Option<Result<(), AuthError>> {
        Some(if r.auth_enable.is_some() {
            self.enable(batch)
        } else if r.auth_disable.is_some() {
            self.disable(batch);
            Ok(())
        } else if let Some(request) = &r.auth_user_add {
            self.user_add(position, request, batch)
        } else if let Some(request) = &r.auth_user_delete {
            self.user_delete(request, batch)
        } else if let Some(request) = &r.auth_user_change_password {
            self.user_change_password(position, request, batch)
        } else if let Some(request) = &r.auth_user_grant_role {
            self.user_grant_role(request, batch)
        } else if let Some(request) = &r.auth_user_revoke_role {
            self.user_revoke_role(request, batch)
        } else if let Some(request) = &r.auth_role_add {
            self.role_add(request, batch)
        } else if let Some(request) = &r.auth_role_delete {
            self.role_delete(request, batch)
        } else if let Some(request) = &r.auth_role_grant_permission {
            self.role_grant_permission(request, batch)
        } else if let Some(request) = &r.auth_role_revoke_permission {
            self.role_revoke_permission(request, batch)
        } else {
            return None;
        })
    }

    fn answer(&self, r: &InternalRaftRequest) -> Option<Result<AuthReply, AuthError>> {
        Some(if r.auth_status.is_some() {
            Ok(AuthReply::Status {
                enabled: self.enabled,
                revision: self.revision,
            })
        } else if r.authenticate.is_some() {
            // With authentication on there would be a token to give, but nobody serves then.
            Err(AuthError::NotEnabled)
        } else if let Some(request) = &r.auth_user_get {
            let user = self.user(&request.name).ok_or(AuthError::UserNotFound);
            user.map(|user| AuthReply::User(user.roles.clone()))
        } else if r.auth_user_list.is_some() {
            let names = self.users.keys().map(|name| text(name));
            Ok(AuthReply::Users(names.collect()))
        } else if let Some(request) = &r.auth_role_get {
            self.permissions(&request.role).map(AuthReply::Role)
        } else if r.auth_role_list.is_some() {
            let names = self.roles.keys().map(|name| text(name));
            Ok(AuthReply::Roles(names.collect()))
        } else {
            return None;
        })
    }
}
