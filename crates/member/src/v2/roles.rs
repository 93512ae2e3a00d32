//! Roles of API v2, and what they allow.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::AuthError;

/// The role that may do everything. It cannot be changed, and is stored nowhere.
pub(super) const ROOT: &str = "root";
/// The role of whoever says nothing about himself.
pub(super) const GUEST: &str = "guest";

/// A role. The form is the one in which etcd 3.3 stores it, and shows it to clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Role {
    /// Its name.
    pub role: String,
    /// What it allows.
    pub permissions: Permissions,
}

/// What a role allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permissions {
    /// With keys.
    pub kv: Patterns,
}

/// Patterns of keys, for reads and writes. A pattern is a key, or, with `*` at its end, a prefix.
/// `None` is Go's nil list, which clients see as `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Patterns {
    /// What may be read.
    pub read: Option<Vec<String>>,
    /// What may be written.
    pub write: Option<Vec<String>>,
}

/// What somebody is about to do with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access<'a> {
    /// The key, as the client wrote it.
    pub key: &'a str,
    /// Whether with all below it, too.
    pub recursive: bool,
    /// Whether to change it.
    pub write: bool,
}

/// What is to become of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleChange {
    /// It is to be made, with these permissions.
    Create(Permissions),
    /// It is to change.
    Update {
        /// What it is to allow from now on.
        grant: Permissions,
        /// What it is not to allow any more.
        revoke: Permissions,
    },
}

impl Patterns {
    /// Whether they allow nothing.
    pub fn is_empty(&self) -> bool {
        let none = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        none(&self.read) && none(&self.write)
    }

    fn allow(&self, access: Access<'_>) -> bool {
        let patterns = if access.write {
            &self.write
        } else {
            &self.read
        };
        let mut patterns = patterns.iter().flatten();
        patterns.any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => access.key.starts_with(prefix),
            None => !access.recursive && access.key == pattern,
        })
    }
}

impl Role {
    /// [`ROOT`].
    pub(super) fn root() -> Role {
        Role::for_all_keys(ROOT)
    }

    /// [`GUEST`], as long as nobody has changed it.
    pub(super) fn guest() -> Role {
        Role::for_all_keys(GUEST)
    }

    fn for_all_keys(name: &str) -> Role {
        let all = Some(vec!["/*".to_owned()]);
        Role {
            role: name.to_owned(),
            permissions: Permissions {
                kv: Patterns {
                    read: all.clone(),
                    write: all,
                },
            },
        }
    }

    /// Whether it allows that.
    pub fn allows(&self, access: Access<'_>) -> bool {
        self.role == ROOT || self.permissions.kv.allow(access)
    }

    /// The role with more permissions, and then with fewer. To revoke what was never granted is
    /// fine.
    pub(super) fn changed(
        &self,
        grant: &Permissions,
        revoke: &Permissions,
    ) -> Result<Role, AuthError> {
        let (grant, revoke) = (&grant.kv, &revoke.kv);
        let kv = &self.permissions.kv;
        let lists = |of: fn(&Patterns) -> &Option<Vec<String>>, write| {
            let mut patterns: BTreeSet<&String> = of(kv).iter().flatten().collect();
            for pattern in of(grant).iter().flatten() {
                if !patterns.insert(pattern) {
                    let pattern = pattern.clone();
                    return Err(AuthError::DuplicatePermission { write, pattern });
                }
            }
            for pattern in of(revoke).iter().flatten() {
                patterns.remove(pattern);
            }
            Ok(Some(patterns.into_iter().cloned().collect()))
        };
        Ok(Role {
            role: self.role.clone(),
            permissions: Permissions {
                kv: Patterns {
                    read: lists(|patterns| &patterns.read, false)?,
                    write: lists(|patterns| &patterns.write, true)?,
                },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(read: &[&str], write: &[&str]) -> Permissions {
        let list = |patterns: &[&str]| Some(patterns.iter().map(|&text| text.into()).collect());
        Permissions {
            kv: Patterns {
                read: list(read),
                write: list(write),
            },
        }
    }

    fn role(read: &[&str], write: &[&str]) -> Role {
        Role {
            role: "r".into(),
            permissions: patterns(read, write),
        }
    }

    #[track_caller]
    fn check(role: &Role, key: &str, [read, tree, write]: [bool; 3]) {
        let allows = |recursive, write| {
            role.allows(Access {
                key,
                recursive,
                write,
            })
        };
        let found = [
            allows(false, false),
            allows(true, false),
            allows(false, true),
        ];
        assert_eq!(found, [read, tree, write], "{key}");
    }

    #[test]
    fn a_pattern_is_a_key_or_a_prefix() {
        let role = role(&["/a/*", "/b", ""], &["/c*"]);
        check(&role, "/a/", [true, true, false]);
        check(&role, "/a/b/c", [true, true, false]);
        check(&role, "/a", [false, false, false]);
        check(&role, "/b", [true, false, false]);
        check(&role, "/b/c", [false, false, false]);
        check(&role, "/cd", [false, false, true]);
        check(&role, "", [true, false, false]);
        check(&Role::root(), "", [true, true, true]);
        check(&Role::guest(), "/x", [true, true, true]);
        // As in etcd: the key of `/v2/keys` without a slash behind it is empty.
        check(&Role::guest(), "", [false, false, false]);
    }

    #[test]
    fn permissions_are_granted_once_and_revoked_at_will() {
        let none = Permissions::default();
        let before = role(&["/b"], &[]);
        let more = before.changed(&patterns(&["/a"], &["/w"]), &none).unwrap();
        assert_eq!(more, role(&["/a", "/b"], &["/w"]));
        let fewer = more.changed(&none, &patterns(&["/b", "/nope"], &["/w"]));
        assert_eq!(fewer, Ok(role(&["/a"], &[])));
        let twice = more.changed(&patterns(&[], &["/w"]), &none);
        let duplicate = AuthError::DuplicatePermission {
            write: true,
            pattern: "/w".into(),
        };
        assert_eq!(twice, Err(duplicate));
    }
}
