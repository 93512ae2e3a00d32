//! Users and roles, as the log changes them and the backend keeps them.
//!
//! ```text
//! bucket auth:        authEnabled    1 byte: 1 on, 0 off (absent: off)
//!                     authRevision   8 bytes, big endian: starts at 1, one more with each change
//! bucket authUsers:   name → authpb.User { 1 name, 2 password, 3 roles, 4 options }
//! bucket authRoles:   name → authpb.Role { 1 name, 2 permissions { 1 type, 2 key, 3 range_end } }
//! ```
//!
//! A user's roles are sorted and without repetition, a role's permissions are sorted by key. A user
//! that was added since 3.4 has the message `options`, even if it is empty. The revision counts
//! changes of users, roles and permissions and the switching off, but neither the switching on nor
//! what changes nothing. A request that is refused changes nothing at all.
//!
//! Everything is held in memory as well: users and roles are few, and with authentication on every
//! request asks for them.
//!
//! - [`AuthStore::check_keys`] and its like: who may do what; `permissions`: the merged ranges of a
//!   user.
//! - [`password`]: what is kept of a password, and whether another one fits.
//! - [`TokenChange`]: what an entry means for the tokens of logged-in users.
//!
//! Deliberately absent: tokens themselves. They live as long as a member says, so they are no part
//! of the replicated state; what is replicated is who logged in, under which token, at which entry.

mod apply;
mod check;
mod interval_tree;
pub mod password;
mod permissions;
mod roles;
#[cfg(test)]
mod tests;
mod users;

use std::collections::BTreeMap;

use bytes::Bytes;
use retcd_proto::authpb::{Permission, Role, User};
use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_proto::wire;
use retcd_storage::backend::{self, BackendError, Bucket, WriteBatch};

pub(crate) use apply::token_change;
pub use check::Caller;
pub use permissions::Access;
use permissions::Account;

const ENABLED: &[u8] = b"authEnabled";
const REVISION: &[u8] = b"authRevision";

/// The user, and the role, that may do everything.
const ROOT: &str = "root";

/// Data of users, roles or authentication that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AuthLoadError {
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The value is not what belongs under this key. It is not told: a user's holds the hash of a
    /// password.
    #[error("damaged value of {key:?} in bucket {bucket} ({value_bytes} bytes)")]
    Damaged {
        /// The bucket's name.
        bucket: &'static str,
        /// The key, as far as it is text.
        key: String,
        /// The length of what is there.
        value_bytes: usize,
    },
}

/// Why a request was refused; the store is unchanged. Each is one of etcd's errors, but for the
/// last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// `root user does not exist`
    #[error("root user does not exist")]
    RootUserNotFound,
    /// `root user does not have root role`
    #[error("root user does not have root role")]
    RootRoleNotGranted,
    /// `user name already exists`
    #[error("user name already exists")]
    UserExists,
    /// `user name is empty`
    #[error("user name is empty")]
    UserEmpty,
    /// `user name not found`
    #[error("user name not found")]
    UserNotFound,
    /// `role name already exists`
    #[error("role name already exists")]
    RoleExists,
    /// `role name not found`
    #[error("role name not found")]
    RoleNotFound,
    /// `role name is empty`
    #[error("role name is empty")]
    RoleEmpty,
    /// `permission not given`
    #[error("permission not given")]
    PermissionNotGiven,
    /// The hash of the password is not in base64. etcd answers with the text of another error:
    /// `auth: authentication failed, password was given for no password user`
    #[error("the password's hash is not in base64")]
    BadPasswordHash,
    /// `role is not granted to the user`
    #[error("role is not granted to the user")]
    RoleNotGranted,
    /// `permission is not granted to the role`
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    /// `authentication is not enabled`
    #[error("authentication is not enabled")]
    NotEnabled,
    /// `invalid auth management`
    #[error("invalid auth management")]
    InvalidManagement,
    /// `authentication failed, invalid user ID or password`
    #[error("authentication failed, invalid user ID or password")]
    Failed,
    /// `auth: authentication failed, password was given for no password user`
    #[error("password was given for no password user")]
    NoPasswordUser,
    /// `permission denied`
    #[error("permission denied")]
    PermissionDenied,
    /// `revision of auth store is old`
    #[error("revision of auth store is old")]
    OldRevision,
    /// The name does not fit into a key of the backend. etcd panics.
    #[error("name is too long")]
    NameTooLong,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthReply {
    /// To a change.
    Done,
    /// To a question for the status.
    Status {
        /// Whether authentication is on.
        enabled: bool,
        /// The store's revision.
        revision: u64,
    },
    /// To a login that was found to be right before it entered the log.
    LoggedIn {
        /// The token, if the members keep tokens themselves.
        token: String,
        /// The store's revision at the login.
        revision: u64,
    },
    /// To a question for a user: its roles, sorted.
    User(Vec<String>),
    /// To a question for all users: their names, sorted.
    Users(Vec<String>),
    /// To a question for a role: its permissions, sorted by key.
    Role(Vec<Permission>),
    /// To a question for all roles: their names, sorted.
    Roles(Vec<String>),
}

/// What an entry means for the tokens of logged-in users. Whoever keeps tokens makes these changes,
/// in their order, before anyone hears of the entries' replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenChange {
    /// From now on the token stands for the user.
    Login {
        /// What the proposer drew for it; nobody else can guess it.
        drawn: String,
        /// The entry's index.
        index: u64,
        /// The user.
        user: String,
    },
    /// The user is gone or has another password: its tokens are worth nothing.
    Logout(String),
    /// Authentication was switched off: no token is worth anything.
    LogoutAll,
}

/// Users, roles, and whether authentication is on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthStore {
    enabled: bool,
    /// 0 only until [`AuthStore::initialize`].
    revision: u64,
    users: BTreeMap<Box<[u8]>, Account>,
    roles: BTreeMap<Box<[u8]>, Role>,
}

impl AuthStore {
    /// Reads the three buckets.
    pub fn open(reader: &backend::Reader) -> Result<AuthStore, AuthLoadError> {
        let mut store = AuthStore {
            enabled: read_enabled(reader)?,
            revision: read_revision(reader)?,
            ..AuthStore::default()
        };
        for row in reader.range(Bucket::AuthUsers, b"", None) {
            let (key, value) = row?;
            let user: Option<User> = decode(&value);
            let user = user.filter(|user| user.name == key[..]);
            let user = user.ok_or_else(|| damaged("authUsers", &key, &value))?;
            store.users.insert(key[..].into(), Account::new(user));
        }
        for row in reader.range(Bucket::AuthRoles, b"", None) {
            let (key, value) = row?;
            let role: Option<Role> = decode(&value);
            let role = role.filter(|role| role.name == key[..]);
            let role = role.ok_or_else(|| damaged("authRoles", &key, &value))?;
            store.roles.insert(key[..].into(), role);
        }
        Ok(store)
    }

    /// Gives a new store its first revision.
    pub(crate) fn initialize(&mut self, batch: &mut WriteBatch) {
        if self.revision == 0 {
            self.raise_revision(batch);
        }
    }

    /// Whether authentication is on.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The number of changes so far, and one.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The user of this name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.account(name).map(Account::user)
    }

    /// All users, by name.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values().map(Account::user)
    }

    fn account(&self, name: &str) -> Option<&Account> {
        self.users.get(name.as_bytes())
    }

    /// The role of this name.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name.as_bytes())
    }

    /// All roles, by name.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.values()
    }

    /// Switches authentication on, which needs somebody who can switch it off.
    fn enable(&mut self, batch: &mut WriteBatch) -> Result<(), AuthError> {
        if self.enabled {
            return Ok(());
        }
        let root = self.user(ROOT).ok_or(AuthError::RootUserNotFound)?;
        if !root.roles.iter().any(|role| role == ROOT) {
            return Err(AuthError::RootRoleNotGranted);
        }
        self.set_enabled(true, batch);
        Ok(())
    }

    /// Switches authentication off.
    fn disable(&mut self, batch: &mut WriteBatch) {
        if self.enabled {
            self.set_enabled(false, batch);
            self.raise_revision(batch);
        }
    }

    fn set_enabled(&mut self, enabled: bool, batch: &mut WriteBatch) {
        self.enabled = enabled;
        batch.put(Bucket::Auth, ENABLED, [u8::from(enabled)][..].into());
    }

    fn raise_revision(&mut self, batch: &mut WriteBatch) {
        self.revision += 1;
        batch.put(
            Bucket::Auth,
            REVISION,
            self.revision.to_be_bytes()[..].into(),
        );
    }
}

fn read_enabled(reader: &backend::Reader) -> Result<bool, AuthLoadError> {
    match reader.get(Bucket::Auth, ENABLED)? {
        None => Ok(false),
        Some(value) => match value[..] {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(damaged("auth", ENABLED, &value)),
        },
    }
}

fn read_revision(reader: &backend::Reader) -> Result<u64, AuthLoadError> {
    let Some(value) = reader.get(Bucket::Auth, REVISION)? else {
        return Ok(0);
    };
    let bytes = value[..].try_into();
    let bytes = bytes.map_err(|_| damaged("auth", REVISION, &value))?;
    Ok(u64::from_be_bytes(bytes))
}

fn damaged(bucket: &'static str, key: &[u8], value: &[u8]) -> AuthLoadError {
    AuthLoadError::Damaged {
        bucket,
        key: String::from_utf8_lossy(key).into_owned(),
        value_bytes: value.len(),
    }
}

fn decode<T: prost::Message + prost::Name + Default>(value: &[u8]) -> Option<T> {
    wire::decode(Bytes::copy_from_slice(value)).ok()
}

/// Whether what `request` names can be kept, in any state. Where it cannot, etcd's members stop
/// with a panic, so it must not be proposed.
///
/// # Errors
/// [`AuthError::NameTooLong`]
pub fn check_form(request: &InternalRaftRequest) -> Result<(), AuthError> {
    let user = request.auth_user_add.as_ref().map(|add| &add.name);
    let role = request.auth_role_add.as_ref().map(|add| &add.name);
    match user.or(role) {
        Some(name) if name.len() > backend::KEY_BYTES_MAX => Err(AuthError::NameTooLong),
        _ => Ok(()),
    }
}

/// A name that the backend can hold as a key; `empty` is what an empty one is refused with.
fn check_name(name: &str, empty: AuthError) -> Result<(), AuthError> {
    match name.len() {
        0 => Err(empty),
        1..=backend::KEY_BYTES_MAX => Ok(()),
        _ => Err(AuthError::NameTooLong),
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
