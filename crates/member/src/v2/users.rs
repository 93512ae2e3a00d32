//! Users of API v2.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::AuthError;
use super::roles::ROOT;

/// A user. The form is the one in which etcd 3.3 stores it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// The name.
    pub user: String,
    /// bcrypt's hash of the password, as text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// The names of roles, which need not exist. `None` is Go's nil list, which clients see as
    /// `null`.
    pub roles: Option<Vec<String>>,
}

/// What is to become of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserChange {
    /// The password; empty: the one that it is.
    pub password: String,
    /// The roles of a new user.
    pub roles: Option<Vec<String>>,
    /// Roles that the user is to have from now on.
    pub grant: Vec<String>,
    /// Roles that the user is not to have any more.
    pub revoke: Vec<String>,
}

impl User {
    /// The user as everybody sees it: user `root` has role `root`, whatever is stored.
    pub(super) fn with_root_role(mut self) -> User {
        let roles = self.roles.iter().flatten();
        if self.user == ROOT && !roles.into_iter().any(|role| role == ROOT) {
            self.roles.get_or_insert_default().push(ROOT.to_owned());
        }
        self
    }

    /// Whether the user has the role.
    pub fn has_role(&self, name: &str) -> bool {
        self.roles.iter().flatten().any(|role| role == name)
    }

    /// The user with other roles, and with another password if there is a hash of one.
    pub(super) fn changed(
        &self,
        hash: Option<String>,
        change: &UserChange,
    ) -> Result<User, AuthError> {
        let name = &self.user;
        let mut roles: BTreeSet<&String> = self.roles.iter().flatten().collect();
        for role in &change.grant {
            if !roles.insert(role) {
                return Err(AuthError::DuplicateRole {
                    role: role.clone(),
                    user: name.clone(),
                });
            }
        }
        for role in &change.revoke {
            if !roles.remove(role) {
                return Err(AuthError::UngrantedRole {
                    role: role.clone(),
                    user: name.clone(),
                });
            }
        }
        Ok(User {
            user: name.clone(),
            password: hash.unwrap_or_else(|| self.password.clone()),
            roles: Some(roles.into_iter().cloned().collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, roles: Option<&[&str]>) -> User {
        let roles = roles.map(|roles| roles.iter().map(|&role| role.into()).collect());
        User {
            user: name.into(),
            password: "hash".into(),
            roles,
        }
    }

    fn change(grant: &[&str], revoke: &[&str]) -> UserChange {
        let list = |names: &[&str]| names.iter().map(|&name| name.into()).collect();
        UserChange {
            grant: list(grant),
            revoke: list(revoke),
            ..UserChange::default()
        }
    }

    #[test]
    fn roles_come_and_go() {
        let before = user("u", Some(&["b"]));
        let after = before.changed(None, &change(&["c", "a"], &["b"])).unwrap();
        assert_eq!(after, user("u", Some(&["a", "c"])));
        let twice = after.changed(None, &change(&["a"], &[]));
        let (role, name) = ("a".to_owned(), "u".to_owned());
        assert_eq!(twice, Err(AuthError::DuplicateRole { role, user: name }));
        let never = after.changed(None, &change(&[], &["x"]));
        let (role, name) = ("x".to_owned(), "u".to_owned());
        assert_eq!(never, Err(AuthError::UngrantedRole { role, user: name }));
        let other = after.changed(Some("other".into()), &change(&[], &[]));
        assert_eq!(other.unwrap().password, "other");
    }

    /// So the first change of nothing is one, as in etcd.
    #[test]
    fn no_roles_become_an_empty_list() {
        let after = user("u", None).changed(None, &change(&[], &[])).unwrap();
        assert_eq!(after.roles, Some(Vec::new()));
    }

    #[test]
    fn root_is_root() {
        assert!(user(ROOT, None).with_root_role().has_role(ROOT));
        let once = user(ROOT, Some(&[ROOT])).with_root_role();
        assert_eq!(once.roles.unwrap().len(), 1);
        assert_eq!(user("u", None).with_root_role(), user("u", None));
    }

    #[test]
    fn what_etcd_has_stored_is_read() {
        let stored = r#"{"user":"u","password":"h","roles":["a"],"grant":null,"revoke":["x"]}"#;
        let user: User = serde_json::from_str(stored).unwrap();
        assert_eq!(user.roles, Some(vec!["a".into()]));
        let stored = r#"{"user":"u","password":"h","roles":null}"#;
        let user: User = serde_json::from_str(stored).unwrap();
        assert_eq!(serde_json::to_string(&user).unwrap(), stored);
    }
}
