//! Who sends a request: what it says, who that is, and who knows.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use retcd_state::auth::{Caller, TokenChange};
use sha2::{Digest, Sha256};

use crate::Error;

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

pub(crate) fn caller(identity: Option<&Identity>) -> Caller<'_> {
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
    /// The user of `token`; `revision` is that of users and roles, `now` the member's clock, and
    /// `applied` the index up to which it has applied the log.
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

    /// The token of `user`, who has logged in at `revision`: `simple`, which was remembered, or a
    /// signed one.
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

/// What a log may show of a token: enough to tell two apart, as etcd shows it.
pub fn fingerprint(token: &str) -> String {
    let digest = Sha256::digest(token);
    digest[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
