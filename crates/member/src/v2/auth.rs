//! Users and roles of API v2: who somebody is, what they may do, and how that is changed.
//!
//! ```text
//! /2/enabled       true or false
//! /2/users/NAME    {"user":…,"password":"$2a$…","roles":[…]}
//! /2/roles/NAME    {"role":…,"permissions":{"kv":{"read":[…],"write":[…]}}}
//! ```
//!
//! They are nodes of the same tree as keys, and have nothing to do with the users of API v3. A
//! request is judged by what the member that it reaches has applied, before it is proposed: so a
//! change counts on another member a moment later, as in etcd 3.3.
//!
//! A name is one component of a path. etcd 3.3 takes any text that a client logs in with for a path
//! below `/2/users`, and with `..` in it for any node, whose value is the client's.

use std::sync::Arc;

use retcd_proto::etcdserverpb::Request;
use retcd_state::auth::password;
use retcd_state::v2::{self, Action, Answer, Code, Event};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::V2;
use super::roles::{Access, GUEST, ROOT, Role, RoleChange};
use super::users::{User, UserChange};
use crate::Error;

const TOP: &str = "/2";
const USERS: &str = "/2/users";
const ROLES: &str = "/2/roles";
const ENABLED: &str = "/2/enabled";

/// What the users and roles that there are do not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are names")]
pub enum AuthError {
    /// There is no such user.
    UserNotFound(String),
    /// There is no such user to be removed.
    UserNotFoundToDelete(String),
    /// There is no such role.
    RoleNotFound(String),
    /// There is no such role to be removed.
    RoleNotFoundToDelete(String),
    /// There is such a user already.
    UserExists(String),
    /// There is such a role already.
    RoleExists(String),
    /// Role `root` is what it is.
    RootRole,
    /// User `root` is needed.
    RootUserNeeded,
    /// A new user without a password.
    EmptyPassword(String),
    /// A change of a user that changes nothing.
    UserUnchanged,
    /// A change of a role that changes nothing.
    RoleUnchanged,
    /// The user has the role already.
    DuplicateRole { role: String, user: String },
    /// The user does not have the role.
    UngrantedRole { role: String, user: String },
    /// The role has the permission already.
    DuplicatePermission { write: bool, pattern: String },
    /// Authentication is on.
    AlreadyEnabled,
    /// Authentication is off.
    AlreadyDisabled,
    /// Nobody could switch authentication off again.
    NoRootUser,
}

/// Why users and roles were not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Those that there are do not allow it.
    Auth(AuthError),
    /// The tree does not allow it.
    Tree(v2::Error),
    /// There is no answer.
    Member(Error),
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Refusal {
        Refusal::Auth(error)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Member(error)
    }
}

/// How a client says who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// It does not.
    Nobody,
    /// By a certificate, which was verified, in this name.
    Certificate(Arc<str>),
    /// By a name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// It tries to, but in a form that says nothing.
    Malformed,
}

/// Users and roles.
#[derive(Clone, Copy)]
pub struct Auth<'a> {
    v2: &'a V2,
}

impl<'a> Auth<'a> {
    pub(super) fn new(v2: &'a V2) -> Auth<'a> {
        Auth { v2 }
    }

    /// Whether requests are judged at all.
    pub fn is_enabled(self) -> bool {
        self.read(ENABLED) == Some(true)
    }

    /// Whether whoever logs in so may change users, roles and members.
    ///
    /// # Errors
    /// It cannot be found out whether the password is right.
    pub async fn is_root(self, login: &Login) -> Result<bool, Error> {
        if !self.is_enabled() {
            return Ok(true);
        }
        let user = self.find(login).await?;
        let is_root = user.as_ref().is_some_and(|user| user.has_role(ROOT));
        if let (Some(user), false) = (&user, is_root) {
            retcd_log::warn!("user does not have role root"; "user" => &user.user);
        }
        Ok(is_root)
    }

    /// Whether whoever logs in so may do that. Who does not log in is a guest, whose role is not
    /// asked for whole subtrees, as in etcd 3.3 (`etcdserver/api/v2http/client_auth.go`).
    ///
    /// # Errors
    /// It cannot be found out whether the password is right.
    pub async fn may(self, login: &Login, access: Access<'_>) -> Result<bool, Error> {
        if !self.is_enabled() {
            return Ok(true);
        }
        let Some(user) = self.find(login).await? else {
            let is_guest = matches!(login, Login::Nobody | Login::Certificate(_));
            let guest = is_guest.then(|| self.role(GUEST).ok()).flatten();
            let access = Access {
                recursive: false,
                ..access
            };
            return Ok(guest.is_some_and(|role| role.allows(access)));
        };
        let mut roles = user.roles.iter().flatten();
        Ok(roles.any(|name| self.role(name).is_ok_and(|role| role.allows(access))))
    }

    /// The user who logs in so, if it is one.
    async fn find(self, login: &Login) -> Result<Option<User>, Error> {
        let (name, password) = match login {
            Login::Nobody | Login::Malformed => return Ok(None),
            Login::Certificate(name) => return Ok(self.user(name).ok()),
            Login::Password { user, password } => (user, password),
        };
        let Ok(user) = self.user(name) else {
            return Ok(None);
        };
        let stored = user.password.clone().into_bytes().into();
        let authenticator = &self.v2.core.shared.authenticator;
        let fits = authenticator.verify(password.clone(), stored).await?;
        if !fits {
            retcd_log::warn!("incorrect password for user"; "user" => name);
        }
        Ok(fits.then_some(user))
    }

    /// The names of all users, sorted.
    pub fn users(self) -> Vec<String> {
        self.list(USERS)
    }

    /// A user.
    ///
    /// # Errors
    /// There is none.
    pub fn user(self, name: &str) -> Result<User, AuthError> {
        let user = place(USERS, name).and_then(|path| self.read::<User>(&path));
        let user = user.ok_or_else(|| AuthError::UserNotFound(name.to_owned()))?;
        Ok(user.with_root_role())
    }

    /// The names of all roles, sorted.
    pub fn roles(self) -> Vec<String> {
        let mut names = self.list(ROLES);
        names.push(ROOT.to_owned());
        names.sort();
        names
    }

    /// A role.
    ///
    /// # Errors
    /// There is none.
    pub fn role(self, name: &str) -> Result<Role, AuthError> {
        if name == ROOT {
            return Ok(Role::root());
        }
        let role = place(ROLES, name).and_then(|path| self.read(&path));
        role.ok_or_else(|| AuthError::RoleNotFound(name.to_owned()))
    }

    /// Makes a user or changes the one that there is; returns it, and whether it is told as new: as
    /// in etcd, one that is made with roles is not.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn put_user(self, name: &str, change: UserChange) -> Result<(User, bool), Refusal> {
        let changes_roles = !change.grant.is_empty() || !change.revoke.is_empty();
        let has_roles = change.roles.as_ref().is_some_and(|roles| !roles.is_empty());
        if has_roles && !changes_roles {
            return Ok((self.create_user(name, change).await?, false));
        }
        match self.newest_user(name).await {
            Err(Refusal::Auth(AuthError::UserNotFound(_))) if !changes_roles => {
                Ok((self.create_user(name, change).await?, true))
            }
            user => Ok((self.update_user(user?, change).await?, false)),
        }
    }

    async fn create_user(self, name: &str, change: UserChange) -> Result<User, Refusal> {
        let hash = self.hash(change.password).await?;
        let user = User {
            user: name.to_owned(),
            password: hash.ok_or_else(|| AuthError::EmptyPassword(name.to_owned()))?,
            roles: change.roles,
        };
        let user = user.with_root_role();
        let exists = AuthError::UserExists(name.to_owned());
        self.create(USERS, name, &user, exists).await?;
        retcd_log::info!("created a user of API v2"; "user" => name);
        Ok(user)
    }

    async fn update_user(self, old: User, mut change: UserChange) -> Result<User, Refusal> {
        let hash = self.hash(std::mem::take(&mut change.password)).await?;
        let user = old.changed(hash, &change)?;
        if user == old {
            return Err(AuthError::UserUnchanged.into());
        }
        self.update(USERS, &user.user, &user).await?;
        retcd_log::info!("updated a user of API v2"; "user" => &user.user);
        Ok(user)
    }

    /// Removes a user.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn delete_user(self, name: &str) -> Result<(), Refusal> {
        if name == ROOT && self.is_enabled() {
            return Err(AuthError::RootUserNeeded.into());
        }
        let missing = AuthError::UserNotFoundToDelete(name.to_owned());
        self.delete(USERS, name, missing).await
    }

    /// Makes or changes a role; returns it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn put_role(self, name: &str, change: RoleChange) -> Result<Role, Refusal> {
        if name == ROOT {
            return Err(AuthError::RootRole.into());
        }
        let (grant, revoke) = match change {
            RoleChange::Create(permissions) => {
                let role = Role {
                    role: name.to_owned(),
                    permissions,
                };
                return self.create_role(role).await;
            }
            RoleChange::Update { grant, revoke } => (grant, revoke),
        };
        let old = self.newest_role(name).await?;
        let role = old.changed(&grant, &revoke)?;
        if role == old {
            return Err(AuthError::RoleUnchanged.into());
        }
        self.update(ROLES, name, &role).await?;
        retcd_log::info!("updated a role of API v2"; "role" => name);
        Ok(role)
    }

    async fn create_role(self, role: Role) -> Result<Role, Refusal> {
        let exists = AuthError::RoleExists(role.role.clone());
        self.create(ROLES, &role.role, &role, exists).await?;
        retcd_log::info!("created a role of API v2"; "role" => &role.role);
        Ok(role)
    }

    /// Removes a role. Users may still have it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn delete_role(self, name: &str) -> Result<(), Refusal> {
        if name == ROOT {
            return Err(AuthError::RootRole.into());
        }
        let missing = AuthError::RoleNotFoundToDelete(name.to_owned());
        self.delete(ROLES, name, missing).await
    }

    /// Begins to judge requests. Guests may do everything from then on, unless their role says
    /// otherwise.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn enable(self) -> Result<(), Refusal> {
        if self.is_enabled() {
            return Err(AuthError::AlreadyEnabled.into());
        }
        match self.newest_user(ROOT).await {
            Err(Refusal::Auth(AuthError::UserNotFound(_))) => {
                return Err(AuthError::NoRootUser.into());
            }
            user => drop(user?),
        }
        match self.newest_role(GUEST).await {
            Err(Refusal::Auth(AuthError::RoleNotFound(_))) => {
                self.create_role(Role::guest()).await?;
            }
            role => drop(role?),
        }
        self.switch(true).await
    }

    /// Judges requests no more.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn disable(self) -> Result<(), Refusal> {
        match self.is_enabled() {
            true => self.switch(false).await,
            false => Err(AuthError::AlreadyDisabled.into()),
        }
    }

    async fn switch(self, on: bool) -> Result<(), Refusal> {
        self.prepare().await?;
        self.put(ENABLED, on.to_string(), true).await?;
        retcd_log::info!("authentication of API v2 was switched"; "enabled" => on);
        Ok(())
    }

    /// None for an empty password.
    async fn hash(self, password: String) -> Result<Option<String>, Error> {
        if password.is_empty() {
            return Ok(None);
        }
        let authenticator = &self.v2.core.shared.authenticator;
        let encoded = authenticator.hash(password).await?;
        let hash = password::decode(&encoded).expect("our own encoding");
        Ok(Some(String::from_utf8(hash).expect("hashes are ASCII")))
    }

    /// The user that all members will know.
    async fn newest_user(self, name: &str) -> Result<User, Refusal> {
        let user: Option<User> = self.read_newest(USERS, name).await?;
        let user = user.ok_or_else(|| AuthError::UserNotFound(name.to_owned()))?;
        Ok(user.with_root_role())
    }

    async fn newest_role(self, name: &str) -> Result<Role, Refusal> {
        let role = self.read_newest(ROLES, name).await?;
        Ok(role.ok_or_else(|| AuthError::RoleNotFound(name.to_owned()))?)
    }

    async fn read_newest<T: DeserializeOwned>(
        self,
        directory: &str,
        name: &str,
    ) -> Result<Option<T>, Refusal> {
        let Some(path) = place(directory, name) else {
            return Ok(None);
        };
        match self.propose("QGET", path, |_| {}).await {
            Ok(event) => Ok(parse(&event)),
            Err(Refusal::Tree(error)) if error.code == Code::KeyNotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the node holds; none if it is missing, or holds something else.
    fn read<T: DeserializeOwned>(self, path: &str) -> Option<T> {
        let value = self.v2.reader().view().value(path)?;
        serde_json::from_str(&value).ok()
    }

    fn list(self, directory: &str) -> Vec<String> {
        let now = self.v2.core.clock.timestamp();
        let event = self.v2.reader().view().get(directory, false, now);
        let nodes = event.map(|event| event.node.nodes).unwrap_or_default();
        let names = nodes.iter().map(|node| node.key.name().to_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    async fn create(
        self,
        directory: &str,
        name: &str,
        value: &impl Serialize,
        exists: AuthError,
    ) -> Result<(), Refusal> {
        let path = place(directory, name).ok_or_else(|| exists.clone())?;
        self.prepare().await?;
        let value = serde_json::to_string(value).expect("plain structs have a JSON form");
        match self.put(&path, value, false).await {
            Err(Refusal::Tree(error)) if error.code == Code::NodeExists => Err(exists.into()),
            result => result,
        }
    }

    async fn update(
        self,
        directory: &str,
        name: &str,
        value: &impl Serialize,
    ) -> Result<(), Refusal> {
        self.prepare().await?;
        let value = serde_json::to_string(value).expect("plain structs have a JSON form");
        let path = place(directory, name).expect("what was read has a place");
        self.put(&path, value, true).await
    }

    async fn delete(self, directory: &str, name: &str, missing: AuthError) -> Result<(), Refusal> {
        let path = place(directory, name).ok_or_else(|| missing.clone())?;
        self.prepare().await?;
        match self.propose("DELETE", path, |_| {}).await {
            Ok(_) => Ok(()),
            Err(Refusal::Tree(error)) if error.code == Code::KeyNotFound => Err(missing.into()),
            Err(error) => Err(error),
        }
    }

    /// Makes the directories and the switch, unless they are there.
    async fn prepare(self) -> Result<(), Refusal> {
        if self.read::<bool>(ENABLED).is_some() {
            return Ok(());
        }
        for directory in [TOP, USERS, ROLES] {
            let made = self.propose("PUT", directory.to_owned(), |request| {
                request.dir = Some(true);
                request.prev_exist = Some(false);
            });
            unless_exists(made.await.map(drop))?;
        }
        unless_exists(self.put(ENABLED, false.to_string(), false).await)
    }

    /// Writes a file that exists already, or does not.
    async fn put(self, path: &str, value: String, exists: bool) -> Result<(), Refusal> {
        let put = self.propose("PUT", path.to_owned(), |request| {
            request.val = Some(value);
            request.prev_exist = Some(exists);
        });
        put.await.map(drop)
    }

    async fn propose(
        self,
        method: &str,
        path: String,
        fill: impl FnOnce(&mut Request),
    ) -> Result<Arc<Event>, Refusal> {
        let mut request = Request {
            method: Some(method.to_owned()),
            path: Some(path),
            ..Request::default()
        };
        fill(&mut request);
        match self.v2.propose(request).await?.map_err(Refusal::Tree)? {
            Answer::Event(event) => Ok(event),
            other => unreachable!("{method} was answered with {other:?}"),
        }
    }
}

/// The path of a node below `directory`, if that is where `name` leads.
fn place(directory: &str, name: &str) -> Option<String> {
    let is_component = !matches!(name, "" | "." | "..") && !name.contains('/');
    is_component.then(|| format!("{directory}/{name}"))
}

fn parse<T: DeserializeOwned>(event: &Event) -> Option<T> {
    debug_assert_eq!(event.action, Action::Get);
    serde_json::from_str(event.node.value.as_deref()?).ok()
}

fn unless_exists(result: Result<(), Refusal>) -> Result<(), Refusal> {
    match result {
        Err(Refusal::Tree(error)) if error.code == Code::NodeExists => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a client logs in with: a value of a key must never be taken for a user.
    #[test]
    fn no_name_leads_out_of_its_directory() {
        for name in ["", ".", "..", "../roles/r", "../../1/key", "a/b", "/"] {
            assert_eq!(place(USERS, name), None, "{name:?}");
        }
        assert_eq!(place(USERS, "..a"), Some("/2/users/..a".to_owned()));
    }
}
