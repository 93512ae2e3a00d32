//! Who sends a request, and whether they may have what is answered without the log.
//!
//! What goes through the log is checked where it is applied, by the users and roles at its place. What is
//! answered from memory is checked here: the sender is identified when all that was acknowledged before is
//! applied, and if users or roles have changed by the time the answer is there, it is not given.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use retcd_state::auth::{AuthError, AuthStore, Caller, TokenChange};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::clock::Clock;
use crate::read_index::ReadIndex;
use crate::shared::Shared;

/// What a request says about its sender.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The token, if one was sent; empty if it cannot be one.
    pub token: Option<Arc<str>>,
    /// The common name in the client's certificate, if that was verified; empty if it has none.
    pub certificate: Option<Arc<str>>,
}

/// Tokens have no place in messages.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("token", &self.token.as_deref().map(fingerprint))
            .field("certificate", &self.certificate)
            .finish()
    }
}

/// Who sends a request, and as of which revision of users and roles that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's name; the user may be gone meanwhile.
    pub user: Arc<str>,
    /// The revision.
    pub revision: u64,
}

impl Identity {
    /// As the machine wants it.
    pub fn caller(&self) -> Caller<'_> {
        Caller {
            user: &self.user,
            revision: self.revision,
        }
    }
}

fn caller(identity: Option<&Identity>) -> Caller<'_> {
    identity.map_or(Caller::default(), Identity::caller)
}

/// What is known of a token at once.
pub enum Found {
    /// Its user.
    User(Identity),
    /// It is worth nothing.
    Invalid,
    /// It was given out at an entry that this member has not applied yet.
    NotYet,
}

/// Tokens and passwords of one member. What users there are is the machine's business.
pub trait Authenticator: Send + Sync {
    /// The user of `token`; `revision` is that of users and roles, `now` the member's clock, and `applied`
    /// the index up to which it has applied the log.
    fn find(&self, token: &str, revision: u64, now: Duration, applied: u64) -> Found;

    /// Whether the names in clients' certificates are users.
    fn trusts_certificates(&self) -> bool;

    /// Makes a change that an entry of the log stands for.
    fn apply(&self, change: TokenChange, now: Duration);

    /// Forgets tokens whose time is over.
    fn sweep(&self, now: Duration);

    /// What a login proposes as its token: nothing, where tokens are signed.
    ///
    /// # Errors
    /// Nobody can log in here.
    fn draw_token(&self) -> Result<String, Error>;

    /// The token of `user`, who has logged in at `revision`: `simple`, which was remembered, or a signed
    /// one.
    ///
    /// # Errors
    /// It cannot be signed.
    fn token<'a>(
        &'a self,
        user: &'a str,
        simple: String,
        revision: u64,
    ) -> LocalBoxFuture<'a, Result<String, Error>>;

    /// The hash that is kept of a new password, in base64.
    ///
    /// # Errors
    /// Overload; the member stops.
    fn hash(&self, password: String) -> LocalBoxFuture<'_, Result<String, Error>>;

    /// Whether `stored` is the hash of `password`.
    ///
    /// # Errors
    /// As [`Authenticator::hash`].
    fn verify(&self, password: String, stored: Bytes) -> LocalBoxFuture<'_, Result<bool, Error>>;
}

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

    /// Refuses whoever has not logged in, if authentication is on.
    ///
    /// # Errors
    /// [`AuthError::UserEmpty`]; as [`Access::identify`].
    pub async fn require_user(&self, credentials: &Credentials) -> Result<(), Error> {
        let identity = self.identify(credentials).await?;
        if identity.is_none() && self.shared.state.auth.read().is_enabled() {
            return Err(AuthError::UserEmpty.into());
        }
        Ok(())
    }

    /// Refuses whoever does not have role `root`, if authentication is on.
    ///
    /// # Errors
    /// What [`AuthStore::check_admin`] says; as [`Access::identify`].
    pub async fn require_admin(&self, credentials: &Credentials) -> Result<(), Error> {
        self.require(credentials, AuthStore::check_admin).await
    }

    /// Refuses whom `check` refuses.
    ///
    /// # Errors
    /// What `check` says; as [`Access::identify`].
    pub async fn require(
        &self,
        credentials: &Credentials,
        check: impl FnOnce(&AuthStore, Caller<'_>) -> Result<(), AuthError>,
    ) -> Result<(), Error> {
        self.permit(credentials, check).await.map(drop)
    }

    /// Reads what `check` allows the sender to read. Until `read` waits for the first time, nothing
    /// changes behind the check: it has to take its view before that.
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

    /// The first half of [`Access::read_as`], for what takes a while; [`Access::confirm`] is the other.
    ///
    /// # Errors
    /// What `check` says; as [`Access::identify`].
    pub async fn permit(
        &self,
        credentials: &Credentials,
        check: impl FnOnce(&AuthStore, Caller<'_>) -> Result<(), AuthError>,
    ) -> Result<Permit, Error> {
        let identity = self.identify(credentials).await?;
        let store = self.shared.state.auth.read();
        check(&store, caller(identity.as_ref()))?;
        Ok(Permit {
            revision: identity.map_or(0, |identity| identity.revision),
        })
    }

    /// Whether users and roles are still what they were when the permit was given.
    ///
    /// # Errors
    /// [`AuthError::OldRevision`].
    pub fn confirm(&self, permit: Permit) -> Result<(), Error> {
        // A permit for nobody was given while authentication was off, or for what needs none.
        if permit.revision != 0 && permit.revision != self.shared.state.auth.read().revision() {
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

/// What a log may show of a token: enough to tell two apart, as etcd shows it.
pub fn fingerprint(token: &str) -> String {
    let digest = Sha256::digest(token);
    digest[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
