//! Who sends a request, and whether it may have what is answered without the log.
//!
//! What goes through the log is checked where it is applied, by the users and roles at its place. What is
//! answered from memory is checked here: the sender is identified when all that was acknowledged before is
//! applied, and if users or roles have changed by the time the answer is there, it is not given.

use retcd_state::auth::{AuthError, AuthStore, Caller};

use super::local::Local;
use crate::auth::{Credentials, Found, Identity};
use crate::grpc::status::{self, Status};

impl Local {
    /// Who has these credentials; nobody while authentication is off, or without any.
    ///
    /// # Errors
    /// `invalid auth token`; etcd's status if this member cannot find out whether it missed the login.
    pub async fn identify(&self, credentials: &Credentials) -> Result<Option<Identity>, Status> {
        let nobody_yet = match self.find(credentials) {
            Ok(found) => return found,
            Err(nobody_yet) => nobody_yet,
        };
        // A token of another member, perhaps: whatever was given out is applied after this.
        self.linearizable().await?;
        self.find(credentials).unwrap_or(Err(nobody_yet.0))
    }

    fn find(&self, credentials: &Credentials) -> Result<Result<Option<Identity>, Status>, NotYet> {
        let member = &*self.member;
        // Not held while a signature is checked.
        let (is_enabled, revision) = {
            let store = member.auth.read();
            (store.is_enabled(), store.revision())
        };
        if !is_enabled {
            return Ok(Ok(None));
        }
        let authenticator = &member.authenticator;
        let Some(token) = credentials.token() else {
            let name = credentials.certificate();
            return Ok(Ok(name.and_then(|name| {
                authenticator.find_by_certificate(name, revision)
            })));
        };
        let (now, applied) = (member.clock.now(), member.progress.applied());
        match authenticator.find(token, revision, now, applied) {
            Found::User(identity) => Ok(Ok(Some(identity))),
            Found::NotYet => Err(NotYet(status::INVALID_AUTH_TOKEN)),
            Found::Invalid => {
                let fingerprint = crate::auth::fingerprint(token);
                crate::warn!("invalid auth token"; "token-fingerprint" => &fingerprint);
                Ok(Err(status::INVALID_AUTH_TOKEN))
            }
        }
    }

    /// This member itself, as the user that may do everything.
    pub(super) fn root(&self) -> Option<Identity> {
        let store = self.member.auth.read();
        store.is_enabled().then(|| Identity {
            user: "root".into(),
            revision: store.revision(),
        })
    }

    /// Refuses whoever has not logged in, if authentication is on.
    ///
    /// # Errors
    /// `user name is empty`; as [`Local::identify`].
    pub async fn require_user(&self, credentials: &Credentials) -> Result<(), Status> {
        let identity = self.identify(credentials).await?;
        if identity.is_none() && self.member.auth.read().is_enabled() {
            return Err(status::USER_EMPTY);
        }
        Ok(())
    }

    /// Refuses whoever does not have role `root`, if authentication is on.
    ///
    /// # Errors
    /// `user name is empty`, `user name not found`, `permission denied`; as [`Local::identify`].
    pub async fn require_admin(&self, credentials: &Credentials) -> Result<(), Status> {
        self.require(credentials, AuthStore::check_admin).await
    }

    /// Refuses whom `check` refuses.
    ///
    /// # Errors
    /// What `check` says; as [`Local::identify`].
    pub async fn require(
        &self,
        credentials: &Credentials,
        check: impl FnOnce(&AuthStore, Caller<'_>) -> Result<(), AuthError>,
    ) -> Result<(), Status> {
        self.permit(credentials, check).await.map(drop)
    }

    /// Reads what `check` allows the sender to read. Until `read` waits for the first time, nothing changes
    /// behind the check: it has to take its view before that.
    ///
    /// # Errors
    /// What `check` and `read` say; `revision of auth store is old`; as [`Local::identify`].
    pub async fn read_as<T>(
        &self,
        credentials: &Credentials,
        check: impl FnOnce(&AuthStore, Caller<'_>) -> Result<(), AuthError>,
        read: impl AsyncFnOnce() -> Result<T, Status>,
    ) -> Result<T, Status> {
        let permit = self.permit(credentials, check).await?;
        let answer = read().await;
        self.confirm(permit)?;
        answer
    }

    /// The first half of [`Local::read_as`], for what takes a while; [`Local::confirm`] is the other.
    ///
    /// # Errors
    /// What `check` says; as [`Local::identify`].
    pub async fn permit(
        &self,
        credentials: &Credentials,
        check: impl FnOnce(&AuthStore, Caller<'_>) -> Result<(), AuthError>,
    ) -> Result<Permit, Status> {
        let identity = self.identify(credentials).await?;
        let store = self.member.auth.read();
        check(&store, caller(identity.as_ref()))?;
        Ok(Permit {
            revision: identity.map_or(0, |identity| identity.revision),
        })
    }

    /// Whether users and roles are still what they were when the permit was given.
    ///
    /// # Errors
    /// `revision of auth store is old`.
    pub fn confirm(&self, permit: Permit) -> Result<(), Status> {
        // A permit for nobody was given while authentication was off, or for what needs none.
        if permit.revision != 0 && permit.revision != self.member.auth.read().revision() {
            return Err(status::AUTH_OLD_REVISION);
        }
        Ok(())
    }
}

/// The token's entry is not applied here; what to say of the token once all entries are that there were.
struct NotYet(Status);

/// Leave to read, as of a revision of users and roles.
#[must_use]
#[derive(Clone, Copy, Debug)]
pub struct Permit {
    /// 0 for nobody.
    revision: u64,
}

fn caller(identity: Option<&Identity>) -> Caller<'_> {
    identity.map_or(Caller::default(), Identity::caller)
}
