//! Users and roles, computed once more from what etcd says of them: nothing is merged, nothing
//! remembered.
//!
//! What a user may touch is found out point by point. A range is covered if its first key is, and
//! if so is every key in it at which some permission ends.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use retcd_proto::authpb::{Permission, permission};
use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_state::auth::{AuthError, AuthReply, AuthStore};

use crate::users;

const ROOT: &str = "root";

/// Who a request says that it is of, and as of which revision of users and roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// The user; empty for nobody.
    pub user: String,
    /// The revision; 0 for nobody.
    pub revision: u64,
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The hash of the password.
    pub password: Bytes,
    /// Whether nobody can log in as this user.
    pub has_no_password: bool,
    /// What it may do.
    pub roles: BTreeSet<String>,
}

/// Users, roles, and whether anybody asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Whether authentication is on.
    pub enabled: bool,
    /// Changes so far, and one.
    pub revision: u64,
    /// The users.
    pub users: BTreeMap<String, User>,
    /// The roles and what each permits, by key.
    pub roles: BTreeMap<String, Vec<Permission>>,
}

impl Default for Auth {
    fn default() -> Auth {
        Auth {
            enabled: false,
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
        }
    }
}

impl Auth {
    fn user(&mut self, name: &str) -> Result<&mut User, AuthError> {
        self.users.get_mut(name).ok_or(AuthError::UserNotFound)
    }

    fn role(&mut self, name: &str) -> Result<&mut Vec<Permission>, AuthError> {
        self.roles.get_mut(name).ok_or(AuthError::RoleNotFound)
    }

    fn is_root(&self, user: &str) -> bool {
        self.users
            .get(user)
            .is_some_and(|user| user.roles.contains(ROOT))
    }

    /// Whether the sender may do everything.
    pub fn may_administrate(&self, sender: &Sender) -> Result<(), AuthError> {
        match () {
            () if !self.enabled => Ok(()),
            () if sender.user.is_empty() => Err(AuthError::UserEmpty),
            () if !self.users.contains_key(&sender.user) => Err(AuthError::UserNotFound),
            () if !self.is_root(&sender.user) => Err(AuthError::PermissionDenied),
            () => Ok(()),
        }
    }

    /// Whether the sender may read, or write, these keys.
    pub fn may_touch(
        &self,
        sender: &Sender,
        writes: bool,
        key: &[u8],
        end: &[u8],
    ) -> Result<(), AuthError> {
        match () {
            () if !self.enabled => Ok(()),
            () if sender.revision == 0 => Err(AuthError::UserEmpty),
            () if sender.revision < self.revision => Err(AuthError::OldRevision),
            () if self.is_root(&sender.user) => Ok(()),
            () if self.covers(&sender.user, writes, key, end) => Ok(()),
            () => Err(AuthError::PermissionDenied),
        }
    }

    fn covers(&self, user: &str, writes: bool, key: &[u8], end: &[u8]) -> bool {
        let Some(user) = self.users.get(user) else {
            return false;
        };
        let wanted = match writes {
            true => permission::Type::Write,
            false => permission::Type::Read,
        };
        let permits = |permission: &&Permission| {
            permission.perm_type() == wanted
                || permission.perm_type() == permission::Type::Readwrite
        };
        let granted: Vec<Span> = user
            .roles
            .iter()
            .filter_map(|role| self.roles.get(role))
            .flatten()
            .filter(permits)
            .map(|permission| span(&permission.key, &permission.range_end))
            .collect();
        let request = span(key, end);
        let is_permitted = |point: &[u8]| granted.iter().any(|(from, to)| holds(from, to, point));
        let is_endless = granted.iter().any(|(_, to)| to.is_none());
        let mut ends = granted.iter().filter_map(|(_, to)| to.as_deref());
        (request.1.is_some() || is_endless)
            && is_permitted(&request.0)
            && ends.all(|end| !holds(&request.0, &request.1, end) || is_permitted(end))
    }

    /// Executes an entry, if it is about users; the sender is known to be permitted to.
    pub fn execute(
        &mut self,
        index: u64,
        r: &InternalRaftRequest,
    ) -> Option<Result<AuthReply, AuthError>> {
        match self.answer(index, r) {
            Some(answer) => Some(answer),
            None => self
                .change(r)
                .map(|changed| changed.map(|()| AuthReply::Done)),
        }
    }

    fn answer(&self, index: u64, r: &InternalRaftRequest) -> Option<Result<AuthReply, AuthError>> {
        if let Some(get) = &r.auth_user_get {
            let user = self.users.get(&get.name).ok_or(AuthError::UserNotFound);
            return Some(user.map(|user| AuthReply::User(user.roles.iter().cloned().collect())));
        }
        if let Some(get) = &r.auth_role_get {
            let role = self.roles.get(&get.role).ok_or(AuthError::RoleNotFound);
            return Some(role.map(|permissions| AuthReply::Role(permissions.clone())));
        }
        if r.auth_user_list.is_some() {
            return Some(Ok(AuthReply::Users(self.users.keys().cloned().collect())));
        }
        if r.auth_role_list.is_some() {
            return Some(Ok(AuthReply::Roles(self.roles.keys().cloned().collect())));
        }
        if r.auth_status.is_some() {
            return Some(Ok(AuthReply::Status {
                enabled: self.enabled,
                revision: self.revision,
            }));
        }
        let login = r.authenticate.as_ref()?;
        let user = self.users.get(&login.name);
        Some(match user {
            _ if !self.enabled => Err(AuthError::NotEnabled),
            Some(user) if !user.has_no_password => Ok(AuthReply::LoggedIn {
                token: format!("{}.{}", login.simple_token, index - 1),
                revision: self.revision,
            }),
            _ => Err(AuthError::Failed),
        })
    }

    fn change(&mut self, r: &InternalRaftRequest) -> Option<Result<(), AuthError>> {
        let before = self.clone();
        let changed = if r.auth_enable.is_some() {
            self.enable()
        } else if r.auth_disable.is_some() {
            self.enabled = false;
            Ok(())
        } else if let Some(add) = &r.auth_user_add {
            let has_no_password = add.options.is_some_and(|options| options.no_password);
            self.add_user(&add.name, has_no_password, &add.hashed_password)
        } else if let Some(delete) = &r.auth_user_delete {
            self.delete_user(&delete.name)
        } else if let Some(change) = &r.auth_user_change_password {
            // Who was added without a password goes on without.
            self.user(&change.name).map(|user| {
                if !user.has_no_password {
                    user.password = users::stored(&change.hashed_password);
                }
            })
        } else if let Some(grant) = &r.auth_user_grant_role {
            self.grant_role(&grant.user, &grant.role)
        } else if let Some(revoke) = &r.auth_user_revoke_role {
            self.revoke_role(&revoke.name, &revoke.role)
        } else {
            self.change_roles(r)?
        };
        // A change of the password counts even if it is to the same one, a new type of a
        // permission, too.
        let counts = r.auth_user_change_password.is_some()
            || r.auth_role_grant_permission.is_some()
            || (r.auth_enable.is_none() && *self != before);
        if changed.is_ok() && counts {
            self.revision += 1;
        }
        Some(changed)
    }

    fn change_roles(&mut self, r: &InternalRaftRequest) -> Option<Result<(), AuthError>> {
        Some(if let Some(add) = &r.auth_role_add {
            match self.roles.contains_key(&add.name) {
                true => Err(AuthError::RoleExists),
                false => {
                    self.roles.insert(add.name.clone(), Vec::new());
                    Ok(())
                }
            }
        } else if let Some(delete) = &r.auth_role_delete {
            self.delete_role(&delete.role)
        } else if let Some(grant) = &r.auth_role_grant_permission {
            let permission = grant.perm.clone().unwrap_or_default();
            self.role(&grant.name).map(|role| permit(role, permission))
        } else if let Some(revoke) = &r.auth_role_revoke_permission {
            let role = self.role(&revoke.role);
            role.and_then(|role| {
                let is_other = |permission: &Permission| {
                    (&permission.key, &permission.range_end) != (&revoke.key, &revoke.range_end)
                };
                match role.iter().all(is_other) {
                    true => Err(AuthError::PermissionNotGranted),
                    false => {
                        role.retain(is_other);
                        Ok(())
                    }
                }
            })
        } else {
            return None;
        })
    }

    fn enable(&mut self) -> Result<(), AuthError> {
        if !self.enabled {
            let root = self.users.get(ROOT).ok_or(AuthError::RootUserNotFound)?;
            if !root.roles.contains(ROOT) {
                return Err(AuthError::RootRoleNotGranted);
            }
            self.enabled = true;
        }
        Ok(())
    }

    fn add_user(
        &mut self,
        name: &str,
        has_no_password: bool,
        password: &str,
    ) -> Result<(), AuthError> {
        if self.users.contains_key(name) {
            return Err(AuthError::UserExists);
        }
        let user = User {
            password: match has_no_password {
                true => Bytes::new(),
                false => users::stored(password),
            },
            has_no_password,
            roles: BTreeSet::new(),
        };
        self.users.insert(name.to_owned(), user);
        Ok(())
    }

    fn delete_user(&mut self, name: &str) -> Result<(), AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let deleted = self.users.remove(name);
        deleted.map(drop).ok_or(AuthError::UserNotFound)
    }

    fn grant_role(&mut self, name: &str, role: &str) -> Result<(), AuthError> {
        let is_role = role == ROOT || self.roles.contains_key(role);
        let user = self.user(name)?;
        if !is_role {
            return Err(AuthError::RoleNotFound);
        }
        user.roles.insert(role.to_owned());
        Ok(())
    }

    fn revoke_role(&mut self, name: &str, role: &str) -> Result<(), AuthError> {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        match self.user(name)?.roles.remove(role) {
            true => Ok(()),
            false => Err(AuthError::RoleNotGranted),
        }
    }

    fn delete_role(&mut self, name: &str) -> Result<(), AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.roles.remove(name).ok_or(AuthError::RoleNotFound)?;
        for user in self.users.values_mut() {
            user.roles.remove(name);
        }
        Ok(())
    }

    /// What a member holds, told in the same way; the passwords as far as they are text.
    pub fn of(store: &AuthStore) -> Auth {
        let text = |bytes: &[u8]| crate::request::text(bytes);
        let users = store.users().map(|user| {
            let known = User {
                password: user.password.clone(),
                has_no_password: user.options.is_some_and(|options| options.no_password),
                roles: user.roles.iter().map(|role| text(role)).collect(),
            };
            (text(&user.name), known)
        });
        let roles = store
            .roles()
            .map(|role| (text(&role.name), role.key_permission.clone()));
        Auth {
            enabled: store.is_enabled(),
            revision: store.revision(),
            users: users.collect(),
            roles: roles.collect(),
        }
    }
}

/// A permission for a key that the role has none for is added; of those with the same key only the
/// first can be changed.
fn permit(role: &mut Vec<Permission>, new: Permission) {
    let same = role.iter_mut().find(|old| old.key == new.key);
    match same {
        Some(same) if same.range_end == new.range_end => same.perm_type = new.perm_type,
        _ => {
            role.push(new);
            role.sort_by(|a, b| a.key.cmp(&b.key));
        }
    }
}

/// From the first key to the one behind the last, if there is a last.
type Span = (Vec<u8>, Option<Vec<u8>>);

fn span(key: &[u8], end: &[u8]) -> Span {
    let to = match end {
        b"" => Some([key, b"\0"].concat()),
        b"\0" => None,
        end => Some(end.to_vec()),
    };
    (key.to_vec(), to)
}

fn holds(from: &[u8], to: &Option<Vec<u8>>, point: &[u8]) -> bool {
    from <= point && to.as_deref().is_none_or(|to| point < to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may_read(granted: &[(&'static str, &'static str)], key: &str, end: &str) -> bool {
        let permissions = granted.iter().map(|(key, end)| Permission {
            perm_type: permission::Type::Read as i32,
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(end.as_bytes()),
        });
        let mut auth = Auth {
            enabled: true,
            ..Auth::default()
        };
        auth.roles.insert("r".to_owned(), permissions.collect());
        let user = auth.users.entry("u".to_owned()).or_default();
        user.roles.insert("r".to_owned());
        let sender = Sender {
            user: "u".to_owned(),
            revision: 1,
        };
        let verdict = auth.may_touch(&sender, false, key.as_bytes(), end.as_bytes());
        assert!(matches!(verdict, Ok(()) | Err(AuthError::PermissionDenied)));
        assert!(!auth.covers("u", true, key.as_bytes(), end.as_bytes()));
        verdict.is_ok()
    }

    #[test]
    fn a_range_is_covered_without_a_gap_or_not_at_all() {
        let granted = [("a", "c"), ("c", "e"), ("k", ""), ("x", "\0")];
        assert!(may_read(&granted, "a", "e"));
        assert!(may_read(&granted, "b", ""));
        assert!(may_read(&granted, "k", ""));
        assert!(may_read(&granted, "y", "\0"));
        assert!(!may_read(&granted, "a", "f"));
        assert!(!may_read(&granted, "e", ""));
        assert!(!may_read(&granted, "k", "l"));
        assert!(!may_read(&granted, "d", "y"));
        assert!(!may_read(&granted, "a", "\0"));
        assert!(!may_read(&granted, "\0", "b"));
    }
}
