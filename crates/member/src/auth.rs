//! Users, roles and logins, as clients ask for them.
//!
//! Changes and questions alike go through the log and are judged there, in their sender's name; the
//! one exception is a login, which nobody has to be logged in for. Passwords never go through it,
//! only their hashes.

use std::rc::Rc;

use bytes::Bytes;
use retcd_proto::etcdserverpb::{
    AuthUserAddRequest, AuthUserChangePasswordRequest, InternalAuthenticateRequest,
    InternalRaftRequest,
};
use retcd_state::auth::{AuthError, AuthReply, check_form, password};
use retcd_state::machine::Reply;
use retcd_state::mvcc::StoreRevision;

use crate::Error;
use crate::access::Credentials;
use crate::core::Core;

/// Users, roles and logins.
pub struct Auth {
    core: Rc<Core>,
}

/// An answer about users and roles, and the revision of the store that it is of.
pub type AuthAnswer = (AuthReply, StoreRevision);

impl Auth {
    pub(crate) fn new(core: &Rc<Core>) -> Auth {
        Auth {
            core: Rc::clone(core),
        }
    }

    /// Puts a change of users and roles, or a question for them, through the log. Requests with a
    /// password have methods of their own.
    ///
    /// # Errors
    /// The form is wrong; what the machine refuses; as
    /// [`Core::propose_as`].
    pub async fn ask(
        &self,
        credentials: &Credentials,
        request: InternalRaftRequest,
    ) -> Result<AuthAnswer, Error> {
        check_form(&request)?;
        match self.core.propose_as(credentials, request.into()).await? {
            Reply::Auth { revision, reply } => Ok((reply, revision)),
            other => unreachable!("a request about users was answered with {other:?}"),
        }
    }

    /// Adds a user, with a password or without.
    ///
    /// Who may not add users is refused before anything is hashed for it.
    ///
    /// # Errors
    /// The password is too long; the caller may not; as [`Auth::ask`].
    pub async fn add_user(
        &self,
        credentials: &Credentials,
        mut request: AuthUserAddRequest,
    ) -> Result<AuthAnswer, Error> {
        let password = std::mem::take(&mut request.password);
        let has_password = !request.options.is_some_and(|options| options.no_password);
        if has_password {
            check_length(&password)?;
        }
        self.core.access.require_admin(credentials).await?;
        let mut request = InternalRaftRequest {
            auth_user_add: Some(request),
            ..Default::default()
        };
        check_form(&request)?;
        if has_password {
            let hashed = self.core.shared.authenticator.hash(password).await?;
            request
                .auth_user_add
                .get_or_insert_default()
                .hashed_password = hashed;
        }
        // Identified anew: users may have changed while it was hashed.
        self.ask(credentials, request).await
    }

    /// Gives a user another password; an empty one is none, so that nobody can log in with it.
    ///
    /// # Errors
    /// As [`Auth::add_user`].
    pub async fn change_password(
        &self,
        credentials: &Credentials,
        mut request: AuthUserChangePasswordRequest,
    ) -> Result<AuthAnswer, Error> {
        let password = std::mem::take(&mut request.password);
        check_length(&password)?;
        self.core.access.require_admin(credentials).await?;
        if !password.is_empty() {
            request.hashed_password = self.core.shared.authenticator.hash(password).await?;
        }
        let request = InternalRaftRequest {
            auth_user_change_password: Some(request),
            ..Default::default()
        };
        self.ask(credentials, request).await
    }

    /// A token for a name and its password, and the revision of the store at the login.
    ///
    /// The password is compared here, with what the member knows of it once it is up to date, and
    /// the login is then put into the log, so that all members hear of the token. If users have
    /// changed meanwhile, the password may have, too, and everything is done again.
    ///
    /// # Errors
    /// There is no such user, or it has another password; as [`Auth::ask`].
    pub async fn authenticate(
        &self,
        name: &str,
        password: &str,
    ) -> Result<(String, StoreRevision), Error> {
        self.core.read_index.linearizable().await?;
        loop {
            let checked = self.check_password(name, password).await?;
            let (token, revision, at) = self.log_in(name).await?;
            if checked == revision {
                let authenticator = &self.core.shared.authenticator;
                let token = authenticator.token(name, token, revision).await?;
                return Ok((token, at));
            }
            retcd_log::info!("revision when password checked became stale; retrying");
        }
    }

    /// The revision of users and roles at which the password was the user's.
    async fn check_password(&self, name: &str, password: &str) -> Result<u64, Error> {
        let checked = match self.stored_password(name) {
            Ok((stored, revision)) => {
                let authenticator = &self.core.shared.authenticator;
                let fits = authenticator.verify(password.to_owned(), stored).await?;
                fits.then_some(revision).ok_or(AuthError::Failed)
            }
            Err(AuthError::NotEnabled) => return Err(AuthError::NotEnabled.into()),
            Err(error) => Err(error),
        };
        checked.map_err(|error| {
            retcd_log::warn!("invalid authentication was requested";
                "user" => name, "error" => &format!("auth: {error}"));
            error.into()
        })
    }

    /// What is kept of a user's password, and the revision that it is of.
    fn stored_password(&self, name: &str) -> Result<(Bytes, u64), AuthError> {
        let store = self.core.shared.state.auth.read();
        if !store.is_enabled() {
            return Err(AuthError::NotEnabled);
        }
        let user = store.user(name).ok_or(AuthError::Failed)?;
        if user.options.is_some_and(|options| options.no_password) {
            return Err(AuthError::NoPasswordUser);
        }
        Ok((user.password.clone(), store.revision()))
    }

    /// The simple token, if tokens are, and the revisions of users and roles and of the store at
    /// the login.
    async fn log_in(&self, name: &str) -> Result<(String, u64, StoreRevision), Error> {
        let request = InternalAuthenticateRequest {
            name: name.to_owned(),
            simple_token: self.core.shared.authenticator.draw_token()?,
            ..Default::default()
        };
        let request = InternalRaftRequest {
            authenticate: Some(request),
            ..Default::default()
        };
        match self.ask(&Credentials::default(), request).await? {
            (AuthReply::LoggedIn { token, revision }, at) => Ok((token, revision, at)),
            other => unreachable!("a login was answered with {other:?}"),
        }
    }
}

/// Whether bcrypt looks at all of a new password.
fn check_length(password: &str) -> Result<(), Error> {
    match password.len() > password::PASSWORD_BYTES_MAX {
        true => Err(Error::PasswordTooLong),
        false => Ok(()),
    }
}
