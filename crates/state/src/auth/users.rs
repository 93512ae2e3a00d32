//! Changes of users.

use prost::Message;
use retcd_proto::authpb::{User, UserAddOptions};
use retcd_proto::etcdserverpb::{
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest,
    AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest,
};
use retcd_storage::backend::{Bucket, WriteBatch};

use super::permissions::Account;
use super::{AuthError, AuthStore, ROOT, check_name, password};

impl AuthStore {
    pub(super) fn user_add(
        &mut self,
        request: &AuthUserAddRequest,
        batch: &mut WriteBatch,
    ) -> Result<(), AuthError> {
        check_name(&request.name, AuthError::UserEmpty)?;
        if self.user(&request.name).is_some() {
            return Err(AuthError::UserExists);
        }
        let options = request.options.unwrap_or_default();
        let user = User {
            name: request.name.clone().into(),
            password: stored_password(Some(&options), &request.hashed_password)?.into(),
            roles: Vec::new(),
            options: Some(options),
        };
        self.put_user(user, batch);
        self.raise_revision(batch);
        Ok(())
    }

    pub(super) fn user_delete(
        &mut self,
        request: &AuthUserDeleteRequest,
        batch: &mut WriteBatch,
    ) -> Result<(), AuthError> {
        if self.enabled && request.name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let name = request.name.as_bytes();
        self.users.remove(name).ok_or(AuthError::UserNotFound)?;
        batch.delete(Bucket::AuthUsers, name);
        self.raise_revision(batch);
        Ok(())
    }

    pub(super) fn user_change_password(
        &mut self,
        request: &AuthUserChangePasswordRequest,
        batch: &mut WriteBatch,
    ) -> Result<(), AuthError> {
        let mut user = self.existing_user(&request.name)?;
        let password = stored_password(user.options.as_ref(), &request.hashed_password)?;
        user.password = password.into();
        self.put_user(user, batch);
        self.raise_revision(batch);
        Ok(())
    }

    /// The role must exist, but for `root`. What is granted already changes nothing.
    pub(super) fn user_grant_role(
        &mut self,
        request: &AuthUserGrantRoleRequest,
        batch: &mut WriteBatch,
    ) -> Result<(), AuthError> {
        let mut user = self.existing_user(&request.user)?;
        if request.role != ROOT && self.role(&request.role).is_none() {
            return Err(AuthError::RoleNotFound);
        }
        if user.roles.iter().any(|role| *role == request.role) {
            return Ok(());
        }
        user.roles.push(request.role.clone().into());
        user.roles.sort_unstable();
        self.put_user(user, batch);
        self.raise_revision(batch);
        Ok(())
    }

    pub(super) fn user_revoke_role(
        &mut self,
        request: &AuthUserRevokeRoleRequest,
        batch: &mut WriteBatch,
    ) -> Result<(), AuthError> {
        if self.enabled && request.name == ROOT && request.role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let mut user = self.existing_user(&request.name)?;
        if !take_role(&mut user, &request.role) {
            return Err(AuthError::RoleNotGranted);
        }
        self.put_user(user, batch);
        self.raise_revision(batch);
        Ok(())
    }

    /// Takes `role` from everyone who has it.
    pub(super) fn revoke_from_all(&mut self, role: &str, batch: &mut WriteBatch) {
        for account in self.users.values_mut() {
            let mut user = account.user().clone();
            if take_role(&mut user, role) {
                persist(&user, batch);
                *account = Account::new(user);
            }
        }
    }

    fn existing_user(&self, name: &str) -> Result<User, AuthError> {
        self.user(name).cloned().ok_or(AuthError::UserNotFound)
    }

    fn put_user(&mut self, user: User, batch: &mut WriteBatch) {
        persist(&user, batch);
        self.users.insert(user.name[..].into(), Account::new(user));
    }
}

fn persist(user: &User, batch: &mut WriteBatch) {
    batch.put(
        Bucket::AuthUsers,
        &user.name,
        user.encode_to_vec().as_slice().into(),
    );
}

/// What is kept of a new password, given as its hash in base64.
fn stored_password(options: Option<&UserAddOptions>, hash: &str) -> Result<Vec<u8>, AuthError> {
    // Users from before 3.4 have no options, but passwords.
    if options.is_some_and(|options| options.no_password) {
        return Ok(Vec::new());
    }
    password::decode(hash)
}

/// Whether the user had the role.
fn take_role(user: &mut User, role: &str) -> bool {
    let before = user.roles.len();
    user.roles.retain(|granted| granted != role);
    user.roles.len() < before
}
