//! Who sends a request: tokens, passwords, names in certificates.
//!
//! Which users there are and what they may do is the machine's business (`retcd_state::auth`) and the same
//! on all members. What is in here belongs to one member:
//!
//! - [`Credentials`]: what a request says about its sender; [`Identity`]: who that is.
//! - [`simple`]: tokens that members remember; [`jwt`]: tokens that are signed.
//! - [`passwords`]: bcrypt, away from the connection threads and a few at a time.
//!
//! A request with a token is answered as its user, or not at all: an unknown token is never nobody. Where
//! there is no token, the common name of the certificate that the client's connection was made with is
//! the user, if `--client-cert-auth` asks for certificates.

mod credentials;
pub mod jwt;
mod options;
pub mod passwords;
pub mod simple;

use std::sync::Arc;
use std::time::Duration;

pub use credentials::{CommonName, Credentials, Identity};
use jwt::JsonWebTokens;
pub use options::{TokenError, TokenKind, TokenOptions};
use passwords::Passwords;
use retcd_state::auth::TokenChange;
use sha2::{Digest, Sha256};
use simple::SimpleTokens;

use crate::config::Config;
use crate::grpc::status::{self, Code, Status};
use crate::runtime::unix_ms;
use crate::workers::Workers;

/// Knows who sends a request. Shared by all threads.
pub struct Authenticator {
    tokens: Tokens,
    /// Hashes and compares passwords.
    pub passwords: Passwords,
    /// `--client-cert-auth`.
    trusts_certificates: bool,
    workers: Workers,
}

/// `--auth-token`.
enum Tokens {
    /// No tokens: nobody can log in.
    None,
    /// Remembered by the members.
    Simple(SimpleTokens),
    /// Signed.
    Jwt(JsonWebTokens),
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

impl Authenticator {
    /// As `config` has it; reads the files with keys. `workers` hash and sign.
    ///
    /// # Errors
    /// Tokens cannot be as `--auth-token` has them.
    pub fn new(config: &Config, workers: Workers) -> Result<Authenticator, TokenError> {
        let options = TokenOptions::parse(&config.auth_token)?;
        let ttl = Duration::from_secs(config.auth_token_ttl_seconds as u64);
        let tokens = match options.kind()? {
            TokenKind::None => Tokens::None,
            TokenKind::Simple => {
                crate::warn!("simple token is not cryptographically signed");
                Tokens::Simple(SimpleTokens::new(ttl))
            }
            TokenKind::Jwt => Tokens::Jwt(options.load_jwt()?),
        };
        Ok(Authenticator {
            tokens,
            passwords: Passwords::new(
                config.bcrypt_cost as u32,
                config.request_timeout(),
                workers.clone(),
            ),
            trusts_certificates: config.client_tls.client_cert_auth,
            workers,
        })
    }

    /// The user of `token`; `revision` is that of users and roles, `now` the time since the start, and
    /// `applied` the index up to which this member has applied the log.
    pub fn find(&self, token: &str, revision: u64, now: Duration, applied: u64) -> Found {
        match &self.tokens {
            Tokens::None => Found::Invalid,
            Tokens::Jwt(tokens) => match tokens.user(token, unix_ms()) {
                Some(identity) => Found::User(identity),
                None => Found::Invalid,
            },
            Tokens::Simple(tokens) => match tokens.user(token, now) {
                Some(user) => Found::User(Identity { user, revision }),
                None if simple::is_to_come(token, applied) => Found::NotYet,
                None => Found::Invalid,
            },
        }
    }

    /// The user that a client's certificate names.
    pub fn find_by_certificate(&self, name: &CommonName, revision: u64) -> Option<Identity> {
        self.trusts_certificates.then(|| Identity {
            user: Arc::clone(&name.0),
            revision,
        })
    }

    /// What a login proposes as its token, if logins are possible at all: nothing, where tokens are signed.
    ///
    /// # Errors
    /// There are no tokens, or none can be signed here.
    pub fn draw_token(&self) -> Result<String, Status> {
        match &self.tokens {
            Tokens::None => Err(status::AUTH_FAILED),
            Tokens::Simple(_) => Ok(simple::draw()),
            Tokens::Jwt(tokens) if tokens.can_sign() => Ok(String::new()),
            Tokens::Jwt(_) => Err(status::TOKEN_VERIFY_ONLY),
        }
    }

    /// The token of `user`, who has logged in at `revision`: the one that was remembered under `simple`, or
    /// a signed one.
    ///
    /// # Errors
    /// The signature fails.
    pub async fn token(&self, user: &str, simple: String, revision: u64) -> Result<String, Status> {
        let Tokens::Jwt(tokens) = &self.tokens else {
            return Ok(simple);
        };
        let sign = tokens.sign(user, revision, unix_ms());
        let sign = sign.ok_or(status::TOKEN_VERIFY_ONLY)?;
        self.workers
            .run(sign)
            .await?
            .ok_or_else(|| Status::new(Code::Unknown, "key is invalid"))
    }

    /// Makes the changes that entries of the log stand for, before anyone hears of their replies.
    pub fn apply(&self, changes: Vec<TokenChange>, now: Duration) {
        if let Tokens::Simple(tokens) = &self.tokens {
            for change in changes {
                tokens.apply(change, now);
            }
        }
    }

    /// Forgets all tokens: after the machine has switched to another database, which tells of no logins.
    pub fn forget_tokens(&self, now: Duration) {
        self.apply(vec![TokenChange::LogoutAll], now);
    }

    /// Forgets tokens whose time is over.
    pub fn sweep(&self, now: Duration) {
        if let Tokens::Simple(tokens) = &self.tokens {
            tokens.sweep(now);
        }
    }
}

/// What a log may show of a token: enough to tell two apart, as etcd shows it.
pub fn fingerprint(token: &str) -> String {
    let digest = Sha256::digest(token);
    digest[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticator(tokens: Tokens, trusts_certificates: bool) -> Authenticator {
        let workers = Workers::start().unwrap();
        Authenticator {
            tokens,
            passwords: Passwords::new(4, Duration::ZERO, workers.clone()),
            trusts_certificates,
            workers,
        }
    }

    fn simple() -> Tokens {
        Tokens::Simple(SimpleTokens::new(Duration::ZERO))
    }

    #[test]
    fn a_certificate_names_its_user_where_certificates_are_asked_for() {
        let name = CommonName("alice".into());
        let find = |trusts| authenticator(simple(), trusts).find_by_certificate(&name, 7);
        let alice = Identity {
            user: "alice".into(),
            revision: 7,
        };
        assert_eq!(find(true), Some(alice));
        assert_eq!(find(false), None);
    }

    #[test]
    fn a_token_may_be_of_an_entry_that_is_still_to_come() {
        let authenticator = authenticator(simple(), false);
        let find = |token: &str| authenticator.find(token, 3, Duration::ZERO, 10);
        let login = TokenChange::Login {
            drawn: "a".into(),
            index: 10,
            user: "alice".into(),
        };
        authenticator.apply(vec![login], Duration::ZERO);
        assert!(matches!(find("a.9"), Found::User(found) if *found.user == *"alice"));
        assert!(matches!(find("b.9"), Found::Invalid));
        assert!(matches!(find("b.10"), Found::NotYet));
        authenticator.forget_tokens(Duration::ZERO);
        assert!(matches!(find("a.9"), Found::Invalid));
    }

    #[test]
    fn without_tokens_nobody_logs_in() {
        let authenticator = authenticator(Tokens::None, false);
        assert_eq!(authenticator.draw_token(), Err(status::AUTH_FAILED));
        let found = authenticator.find("a.1", 3, Duration::ZERO, 0);
        assert!(matches!(found, Found::Invalid));
    }
}
