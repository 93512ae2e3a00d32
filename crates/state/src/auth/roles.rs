//! Changes of roles and their permissions.

use prost::Message;
use retcd_proto::authpb::{Permission, Role, permission};
use retcd_proto::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest,
};
use retcd_storage::backend::{Bucket, WriteBatch};

use super::permissions::OPEN_END;
use super::{AuthError, AuthStore, ROOT, check_name};

impl AuthStore {
    pub(super) fn role_add(
        &mut self,
        request: &AuthRoleAddRequest,
        batch: &mut WriteBatch,
    ) -> Result<(), AuthError> {
        check_name(&request.name, AuthError::RoleEmpty)?;
        if self.role(&request.name).is_some() {
            return Err(AuthError::RoleExists);
        }
        let role = Role {
            name: request.name.clone().into(),
            key_permission: Vec::new(),
        };
        self.put_role(role, batch);
        self.raise_revision(batch);
        Ok(())
    }

    pub(super) fn role_delete(
        &mut self,
        request: &AuthRoleDeleteRequest,
        batch: &mut WriteBatch,
    ) -> Result<(), AuthError> {
        if self.enabled && request.role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let name = request.role.as_bytes();
        self.roles.remove(name).ok_or(AuthError::RoleNotFound)?;
        batch.delete(Bucket::AuthRoles, name);
        self.revoke_from_all(&request.role, batch);
        self.raise_revision(batch);
        Ok(())
    }

    /// Adds a permission, or changes the type of the one with the same interval.
    ///
    /// Of several permissions with the same key only the first is looked at: one of the others,
    /// granted again, is added again. So does etcd (v3.7: `server/auth/store.go`), whose bytes
    /// these are. A new permission goes behind those with the same key; etcd's sorting leaves that
    /// open in roles of more than twelve permissions, where it depends on the release of its
    /// compiler.
    pub(super) fn role_grant_permission(
        &mut self,
        request: &AuthRoleGrantPermissionRequest,
        batch: &mut WriteBatch,
    ) -> Result<(), AuthError> {
        let new = request.perm.as_ref();
        let new = new.ok_or(AuthError::PermissionNotGiven)?;
        if !is_valid_interval(&new.key, &new.range_end) {
            return Err(AuthError::InvalidManagement);
        }
        let mut role = self.existing_role(&request.name)?;
        let permissions = &mut role.key_permission;
        let first = permissions.partition_point(|permission| permission.key < new.key);
        match permissions.get_mut(first) {
            Some(same) if covers_same(same, &new.key, &new.range_end) => {
                same.perm_type = new.perm_type;
            }
            _ => {
                permissions.push(new.clone());
                permissions.sort_by(|a, b| a.key.cmp(&b.key));
            }
        }
        self.put_role(role, batch);
        self.forget_rights_of(&request.name);
        self.raise_revision(batch);
        Ok(())
    }

    pub(super) fn role_revoke_permission(
        &mut self,
        request: &AuthRoleRevokePermissionRequest,
        batch: &mut WriteBatch,
    ) -> Result<(), AuthError> {
        let mut role = self.existing_role(&request.role)?;
        let before = role.key_permission.len();
        role.key_permission
            .retain(|permission| !covers_same(permission, &request.key, &request.range_end));
        if role.key_permission.len() == before {
            return Err(AuthError::PermissionNotGranted);
        }
        self.put_role(role, batch);
        self.forget_rights_of(&request.role);
        self.raise_revision(batch);
        Ok(())
    }

    /// What those who have the role may do has to be found out again.
    fn forget_rights_of(&mut self, role: &str) {
        for account in self.users.values_mut() {
            if account.has_role(role) {
                account.forget_rights();
            }
        }
    }

    /// What the role may do. `root` may do everything, whatever its record says.
    pub(super) fn permissions(&self, role: &str) -> Result<Vec<Permission>, AuthError> {
        let found = self.role(role).ok_or(AuthError::RoleNotFound)?;
        if role != ROOT {
            return Ok(found.key_permission.clone());
        }
        Ok(vec![Permission {
            perm_type: permission::Type::Readwrite as i32,
            key: Default::default(),
            range_end: OPEN_END.into(),
        }])
    }

    fn existing_role(&self, name: &str) -> Result<Role, AuthError> {
        self.role(name).cloned().ok_or(AuthError::RoleNotFound)
    }

    fn put_role(&mut self, role: Role, batch: &mut WriteBatch) {
        batch.put(
            Bucket::AuthRoles,
            &role.name,
            role.encode_to_vec().as_slice().into(),
        );
        self.roles.insert(role.name[..].into(), role);
    }
}

fn covers_same(permission: &Permission, key: &[u8], range_end: &[u8]) -> bool {
    permission.key == key && permission.range_end == range_end
}

/// A key, an interval with something in it, or everything from a key on.
fn is_valid_interval(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || key < range_end || range_end == OPEN_END)
}
