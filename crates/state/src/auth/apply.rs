//! Which request does what.

use retcd_proto::etcdserverpb::{InternalAuthenticateRequest, InternalRaftRequest};
use retcd_storage::backend::WriteBatch;

use super::{AuthError, AuthReply, AuthStore, TokenChange, text};

impl AuthStore {
    /// Executes the request of the entry at `index`; `None` if it is not about authentication. A
    /// password in it has been hashed ([`password::settle`](super::password::settle)).
    ///
    /// Questions are in the log as well, since what they may tell depends on who asks. They change
    /// nothing.
    pub(crate) fn apply(
        &mut self,
        index: u64,
        request: &InternalRaftRequest,
        batch: &mut WriteBatch,
    ) -> Option<Result<AuthReply, AuthError>> {
        let before = (self.revision, batch.len());
        if let Some(changed) = self.apply_change(request, batch) {
            let after = (self.revision, batch.len());
            assert!(
                after.0 == before.0 || after.0 == before.0 + 1,
                "one change took users and roles from {} to {}",
                before.0,
                after.0
            );
            assert!(
                changed.is_ok() || before == after,
                "revision and rows of a refused change: {before:?}, {after:?}"
            );
            return Some(changed.map(|()| AuthReply::Done));
        }
        self.answer(index, request)
    }

    fn apply_change(
        &mut self,
        r: &InternalRaftRequest,
        batch: &mut WriteBatch,
    ) -> Option<Result<(), AuthError>> {
        Some(if r.auth_enable.is_some() {
            self.enable(batch)
        } else if r.auth_disable.is_some() {
            self.disable(batch);
            Ok(())
        } else if let Some(request) = &r.auth_user_add {
            self.user_add(request, batch)
        } else if let Some(request) = &r.auth_user_delete {
            self.user_delete(request, batch)
        } else if let Some(request) = &r.auth_user_change_password {
            self.user_change_password(request, batch)
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

    fn answer(&self, index: u64, r: &InternalRaftRequest) -> Option<Result<AuthReply, AuthError>> {
        Some(if r.auth_status.is_some() {
            Ok(AuthReply::Status {
                enabled: self.enabled,
                revision: self.revision,
            })
        } else if let Some(request) = &r.authenticate {
            self.log_in(index, request)
        } else if let Some(request) = &r.auth_user_get {
            let user = self.user(&request.name).ok_or(AuthError::UserNotFound);
            user.map(|user| AuthReply::User(user.roles.iter().map(|role| text(role)).collect()))
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

    /// The proposer has checked the password, and asks again if anything has changed since.
    fn log_in(
        &self,
        index: u64,
        request: &InternalAuthenticateRequest,
    ) -> Result<AuthReply, AuthError> {
        if !self.enabled {
            return Err(AuthError::NotEnabled);
        }
        let user = self.user(&request.name).ok_or(AuthError::Failed)?;
        if user.options.is_some_and(|options| options.no_password) {
            return Err(AuthError::Failed);
        }
        let token = match request.simple_token.as_str() {
            "" => String::new(),
            // As etcd since 3.5.3, which counts the entry as applied only when it is.
            drawn => format!("{drawn}.{}", index - 1),
        };
        Ok(AuthReply::LoggedIn {
            token,
            revision: self.revision,
        })
    }
}

/// What the `request` of the entry at `index` means for tokens, given that it was answered with
/// `reply`.
pub(crate) fn token_change(
    index: u64,
    request: &InternalRaftRequest,
    reply: &AuthReply,
) -> Option<TokenChange> {
    if let (Some(request), AuthReply::LoggedIn { .. }) = (&request.authenticate, reply) {
        let (drawn, user) = (request.simple_token.clone(), request.name.clone());
        // A member that signs its tokens draws none. To keep the index alone as one would let it be
        // guessed.
        (!drawn.is_empty()).then_some(TokenChange::Login { drawn, index, user })
    } else if let Some(request) = &request.auth_user_delete {
        Some(TokenChange::Logout(request.name.clone()))
    } else if let Some(request) = &request.auth_user_change_password {
        Some(TokenChange::Logout(request.name.clone()))
    } else {
        let off = request.auth_disable.is_some();
        off.then_some(TokenChange::LogoutAll)
    }
}
