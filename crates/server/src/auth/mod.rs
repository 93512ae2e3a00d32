//! Authentication: tokens, passwords, and common names of certificates.
//!
//! Which users there are and what they may do is the machine's business (`retcd_state::auth`) and
//! the same on all members. What is in here belongs to one member:
//!
//! - [`credentials_of`]: what the head of a request says about its sender.
//! - [`jwt`]: tokens that are signed. Those that members remember are in crate `member`.
//! - [`passwords`]: bcrypt, away from the connection threads and a few at a time.
//!
//! A request with a token is executed as the token's user or refused; an unknown token never makes
//! a request anonymous. Without a token, the user is the common name of the client's certificate,
//! if `--client-cert-auth` asks for one.

mod credentials;
pub(crate) mod jwt;
mod options;
pub(crate) mod passwords;

use std::time::Duration;

use bytes::Bytes;
pub(crate) use credentials::{CommonName, credentials_of};
use futures_util::future::LocalBoxFuture;
use jwt::JsonWebTokens;
pub(crate) use options::{TokenError, TokenKind, TokenOptions};
use passwords::Passwords;
use retcd_member::access::{self, Found, Identity};
use retcd_member::tokens::{self, SimpleTokens};
use retcd_member::{Error, Workers};
use retcd_state::auth::TokenChange;

use crate::clock::unix_ms;
use crate::config::Config;

/// Authenticates requests. Shared by all threads.
pub(crate) struct Authenticator {
    tokens: Tokens,
    passwords: Passwords,
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

impl Authenticator {
    /// As `config` has it, with the tokens of its `--auth-token`; reads the files with keys.
    /// `workers` hash and sign.
    ///
    /// # Errors
    /// Tokens cannot be as `tokens` has them.
    pub(crate) fn new(
        config: &Config,
        tokens: &TokenOptions<'_>,
        workers: Workers,
    ) -> Result<Authenticator, TokenError> {
        let ttl = Duration::from_secs(config.auth_token_ttl_seconds as u64);
        let tokens = match tokens.kind() {
            TokenKind::None => Tokens::None,
            TokenKind::Simple => {
                crate::warn!("simple token is not cryptographically signed");
                Tokens::Simple(SimpleTokens::new(ttl))
            }
            TokenKind::Jwt => Tokens::Jwt(tokens.load_jwt()?),
        };
        let (cost, wait_max) = (config.bcrypt_cost as u32, config.request_timeout());
        Ok(Authenticator {
            tokens,
            passwords: Passwords::new(cost, wait_max, workers.clone()),
            trusts_certificates: config.client_tls.client_cert_auth,
            workers,
        })
    }
}

impl access::Authenticator for Authenticator {
    fn find(&self, token: &str, revision: u64, now: Duration, applied: u64) -> Found {
        match &self.tokens {
            Tokens::None => Found::Invalid,
            Tokens::Jwt(tokens) => match tokens.user(token, unix_ms()) {
                Some(identity) => Found::User(identity),
                None => Found::Invalid,
            },
            Tokens::Simple(tokens) => match tokens.user(token, now) {
                Some(user) => Found::User(Identity { user, revision }),
                None if tokens::is_to_come(token, applied) => Found::NotYet,
                None => Found::Invalid,
            },
        }
    }

    fn trusts_certificates(&self) -> bool {
        self.trusts_certificates
    }

    fn apply(&self, change: TokenChange, now: Duration) {
        if let Tokens::Simple(tokens) = &self.tokens {
            tokens.apply(change, now);
        }
    }

    fn sweep(&self, now: Duration) {
        if let Tokens::Simple(tokens) = &self.tokens {
            tokens.sweep(now);
        }
    }

    fn draw_token(&self) -> Result<String, Error> {
        match &self.tokens {
            Tokens::None => Err(Error::NoTokens),
            Tokens::Simple(_) => Ok(tokens::draw(|random| {
                getrandom::fill(random).expect("the operating system gives random bytes");
            })),
            Tokens::Jwt(tokens) if tokens.can_sign() => Ok(String::new()),
            Tokens::Jwt(_) => Err(Error::VerifyOnly),
        }
    }

    fn token<'a>(
        &'a self,
        user: &'a str,
        simple: String,
        revision: u64,
    ) -> LocalBoxFuture<'a, Result<String, Error>> {
        Box::pin(async move {
            let Tokens::Jwt(tokens) = &self.tokens else {
                return Ok(simple);
            };
            let sign = tokens.sign(user, revision, unix_ms());
            let sign = sign.ok_or(Error::VerifyOnly)?;
            self.workers.run(sign).await?.ok_or(Error::SigningFailed)
        })
    }

    fn hash(&self, password: String) -> LocalBoxFuture<'_, Result<String, Error>> {
        Box::pin(self.passwords.hash(password))
    }

    fn verify(&self, password: String, stored: Bytes) -> LocalBoxFuture<'_, Result<bool, Error>> {
        Box::pin(self.passwords.verify(password, stored))
    }
}

#[cfg(test)]
mod tests {
    use retcd_member::access::Authenticator as _;

    use super::*;

    fn authenticator(tokens: Tokens) -> Authenticator {
        let workers = crate::workers::Workers::start().unwrap().queue().clone();
        Authenticator {
            tokens,
            passwords: Passwords::new(4, Duration::ZERO, workers.clone()),
            trusts_certificates: false,
            workers,
        }
    }

    fn simple() -> Tokens {
        Tokens::Simple(SimpleTokens::new(Duration::ZERO))
    }

    #[test]
    fn a_token_may_be_of_an_entry_that_is_still_to_come() {
        let authenticator = authenticator(simple());
        let find = |token: &str| authenticator.find(token, 3, Duration::ZERO, 10);
        let login = TokenChange::Login {
            drawn: "a".into(),
            index: 10,
            user: "alice".into(),
        };
        authenticator.apply(login, Duration::ZERO);
        assert!(matches!(find("a.9"), Found::User(found) if *found.user == *"alice"));
        assert!(matches!(find("b.9"), Found::Invalid));
        assert!(matches!(find("b.10"), Found::NotYet));
        authenticator.apply(TokenChange::LogoutAll, Duration::ZERO);
        assert!(matches!(find("a.9"), Found::Invalid));
    }

    #[test]
    fn without_tokens_nobody_logs_in() {
        let authenticator = authenticator(Tokens::None);
        assert_eq!(authenticator.draw_token(), Err(Error::NoTokens));
        let found = authenticator.find("a.1", 3, Duration::ZERO, 0);
        assert!(matches!(found, Found::Invalid));
    }
}
