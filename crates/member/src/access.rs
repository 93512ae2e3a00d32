//! Who sends a request, and whether they may have what is answered without the log.
//!
//! What goes through the log is checked where it is applied, by the users and roles at its place.
//! What is answered from memory is checked here: the sender is identified when all that was
//! acknowledged before is applied, and if users or roles have changed by the time the answer is
//! there, it is not given.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use retcd_state::auth::{AuthError, AuthStore, Caller};

use crate::Error;
use crate::clock::Clock;
use crate::identity::caller;
use crate::read_index::ReadIndex;
use crate::shared::Shared;

pub use crate::identity::{Authenticator, Credentials, Found, Identity, fingerprint};

/// Identifies senders and checks what they may read.
pub struct Access {
    shared: Arc<Shared>,
    clock: Rc<dyn Clock>,
    read_index: Rc<ReadIndex>,
}

impl Access {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        clock: &Rc<dyn Clock>,
        read_index: &Rc<ReadIndex>,
    ) -> Access {
        Access {
            shared: Arc::clone(shared),
            clock: Rc::clone(clock),
            read_index: Rc::clone(read_index),
        }
    }

    /// Whether users are known at all.
    pub fn is_enabled(&self) -> bool {
        self.shared.state.auth.read().is_enabled()
    }

    /// Who has these credentials; nobody while authentication is off, or without any.
    ///
    /// # Errors
    /// [`Error::InvalidToken`]; this member cannot find out whether it missed the login.
    pub async fn identify(&self, credentials: &Credentials) -> Result<Option<Identity>, Error> {
        if let Some(found) = self.find(credentials) {
            return found;
        }
        // A token of another member, perhaps: whatever was given out is applied after this.
        self.read_index.linearizable().await?;
        self.find(credentials).unwrap_or(Err(Error::InvalidToken))
    }

    /// `None` if the token's entry is not applied here.
    fn find(&self, credentials: &Credentials) -> Option<Result<Option<Identity>, Error>> {
        // Not held while a signature is checked.
        let (is_enabled, revision) = {
            let store = self.shared.state.auth.read();
            (store.is_enabled(), store.revision())
        };
        if !is_enabled {
            return Some(Ok(None));
        }
        let authenticator = &self.shared.authenticator;
        let Some(token) = credentials.token.as_deref() else {
            let name = credentials.certificate.as_ref();
            let name = name.filter(|_| authenticator.trusts_certificates());
            return Some(Ok(name.map(|name| Identity {
                user: Arc::clone(name),
                revision,
            })));
        };
        let (now, applied) = (self.clock.now(), self.shared.progress.applied());
        match authenticator.find(token, revision, now, applied) {
            Found::User(identity) => Some(Ok(Some(identity))),
            Found::NotYet => None,
            Found::Invalid => {
                retcd_log::warn!("invalid auth token"; "token-fingerprint" => &fingerprint(token));
                Some(Err(Error::InvalidToken))
            }
        }
    }

    /// This member itself, as the user that may do everything.
    pub(crate) fn root(&self) -> Option<Identity> {
        let store = self.shared.state.auth.read();
        store.is_enabled().then(|| Identity {
            user: "root".into(),
            revision: store.revision(),
        })
    }

    /// Who has logged in, refusing whoever has not if authentication is on.
    ///
    /// # Errors
    /// [`AuthError::UserEmpty`]; as [`Access::identify`].
    pub async fn require_user(&self, credentials: &Credentials) -> Result<Option<Identity>, Error> {
        let identity = self.identify(credentials).await?;
        if identity.is_none() && self.shared.state.auth.read().is_enabled() {
            return Err(AuthError::UserEmpty.into());
        }
        Ok(identity)
    }

    /// Who has role `root`, refusing whoever has not if authentication is on.
    ///
    /// # Errors
    /// What [`AuthStore::check_admin`] says; as [`Access::identify`].
    pub async fn require_admin(
        &self,
        credentials: &Credentials,
    ) -> Result<Option<Identity>, Error> {
        self.require(credentials, AuthStore::check_admin).await
    }

    /// Who this is, refusing whom `check` refuses.
    ///
    /// # Errors
    /// What `check` says; as [`Access::identify`].
    pub async fn require(
        &self,
        credentials: &Credentials,
        check: impl FnOnce(&AuthStore, Caller<'_>) -> Result<(), AuthError>,
    ) -> Result<Option<Identity>, Error> {
        let identity = self.identify(credentials).await?;
        self.check(identity.as_ref(), check)?;
        Ok(identity)
    }

    /// Refuses who was identified before if `check` does.
    ///
    /// # Errors
    /// What `check` says.
    pub(crate) fn check(
        &self,
        identity: Option<&Identity>,
        check: impl FnOnce(&AuthStore, Caller<'_>) -> Result<(), AuthError>,
    ) -> Result<(), Error> {
        Ok(check(&self.shared.state.auth.read(), caller(identity))?)
    }

    /// Reads what `check` allows the sender to read. `read` has to take its view before it waits
    /// for the first time: a change of users and roles meanwhile is found by
    /// [`Access::confirm`], but for who was let in while authentication was off, as in etcd.
    ///
    /// # Errors
    /// What `check` and `read` say; [`AuthError::OldRevision`]; as [`Access::identify`].
    pub async fn read_as<T>(
        &self,
        credentials: &Credentials,
        check: impl FnOnce(&AuthStore, Caller<'_>) -> Result<(), AuthError>,
        read: impl AsyncFnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let permit = self.permit(credentials, check).await?;
        let answer = read().await;
        self.confirm(permit)?;
        answer
    }

    /// The first half of [`Access::read_as`], for what takes a while; [`Access::confirm`] is the
    /// other.
    ///
    /// # Errors
    /// What `check` says; as [`Access::identify`].
    pub async fn permit(
        &self,
        credentials: &Credentials,
        check: impl FnOnce(&AuthStore, Caller<'_>) -> Result<(), AuthError>,
    ) -> Result<Permit, Error> {
        let identity = self.require(credentials, check).await?;
        Ok(Permit {
            revision: identity.map_or(0, |identity| identity.revision),
        })
    }

    /// Whether users and roles are still what they were when the permit was given.
    ///
    /// # Errors
    /// [`AuthError::OldRevision`].
    pub fn confirm(&self, permit: Permit) -> Result<(), Error> {
        // A permit for nobody was given while authentication was off, or for what needs none. That
        // of a signed token may be ahead of a member that lags.
        let now = self.shared.state.auth.read().revision();
        if permit.revision != 0 && permit.revision != now {
            return Err(AuthError::OldRevision.into());
        }
        Ok(())
    }

    /// Forgets tokens that nobody has used for long, until the member is dropped.
    pub(crate) async fn run_sweep(&self) {
        const INTERVAL: Duration = Duration::from_secs(1);
        loop {
            self.clock.sleep(INTERVAL).await;
            self.shared.authenticator.sweep(self.clock.now());
        }
    }
}

/// Leave to read, as of a revision of users and roles.
#[must_use]
#[derive(Clone, Copy, Debug)]
pub struct Permit {
    /// 0 for nobody.
    revision: u64,
}
