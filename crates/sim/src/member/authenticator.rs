//! Tokens and passwords of a process: the member's own tokens, letters that are counted instead of
//! drawn, and hashes that are looked up after a while.
//!
//! Every word on a token is held against a plain count of uses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use retcd_member::access::{Authenticator, Found, Identity};
use retcd_member::tokens::{self, SimpleTokens};
use retcd_member::{Error, Workers};
use retcd_state::auth::TokenChange;

use crate::sabotage::Sabotage;
use crate::users;

/// How late a member hears of logins and logouts that is broken that way.
const LATE: Duration = Duration::from_millis(400);

/// What was said of a token.
#[derive(Clone, Debug)]
pub struct TokenJudged {
    /// The token.
    pub token: String,
    /// Logins up to this entry are not known.
    pub since: u64,
    /// The last entry that was applied.
    pub applied: u64,
    /// Its user, as the member says.
    pub user: Option<String>,
    /// Whether its time is over, as far as is known here.
    pub is_over: bool,
    /// Whether it was called worth nothing.
    pub is_refused: bool,
}

#[derive(Default)]
struct State {
    since: u64,
    drawn: u64,
    /// When each token ends, in milliseconds, by its letters.
    ends: BTreeMap<String, u64>,
    judged: Vec<TokenJudged>,
    /// What a member that is broken that way has not heard of yet.
    late: Vec<(Duration, TokenChange)>,
}

/// The tokens of a process.
pub struct Tokens {
    tokens: SimpleTokens,
    ttl_ms: u64,
    /// What begins the letters that are drawn here.
    prefix: String,
    workers: Workers,
    sabotage: Option<Sabotage>,
    state: Mutex<State>,
}

impl Tokens {
    /// No tokens yet, behind the entry at `since`. What is drawn here begins with `prefix`.
    pub fn new(
        ttl: Duration,
        prefix: String,
        since: u64,
        workers: Workers,
        sabotage: Option<Sabotage>,
    ) -> Arc<Tokens> {
        Arc::new(Tokens {
            tokens: SimpleTokens::new(ttl),
            ttl_ms: millis(ttl),
            prefix,
            workers,
            sabotage,
            state: Mutex::new(State {
                since,
                ..State::default()
            }),
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().expect("nobody panics with it"))
    }

    /// A database of the entry at `index` was taken over, which tells of no logins.
    pub fn forget_until(&self, index: u64) {
        self.with(|state| {
            state.since = index;
            state.late.clear();
        });
    }

    /// What was said since the last call.
    pub fn take_judged(&self) -> Vec<TokenJudged> {
        self.with(|state| std::mem::take(&mut state.judged))
    }

    fn change(&self, change: TokenChange, now: Duration) {
        let ends = matches!(change, TokenChange::Logout(_));
        if ends && self.sabotage == Some(Sabotage::KeepTokens) {
            return;
        }
        self.tokens.apply(change, now);
    }

    fn catch_up(&self, now: Duration) {
        let due = self.with(|state| {
            let (due, late) = std::mem::take(&mut state.late)
                .into_iter()
                .partition::<Vec<_>, _>(|(at, _)| *at <= now);
            state.late = late;
            due
        });
        for (at, change) in due {
            self.change(change, at);
        }
    }
}

impl Authenticator for Tokens {
    fn find(&self, token: &str, revision: u64, now: Duration, applied: u64) -> Found {
        self.catch_up(now);
        let user = self.tokens.user(token, now);
        let is_to_come =
            tokens::is_to_come(token, applied) && self.sabotage != Some(Sabotage::HastyTokens);
        let letters = token.split_once('.').map_or(token, |(letters, _)| letters);
        self.with(|state| {
            let ends = state.ends.get_mut(letters);
            let is_over = ends.as_ref().is_some_and(|ends| **ends <= millis(now));
            if let Some(ends) = ends.filter(|_| user.is_some()) {
                *ends = millis(now) + self.ttl_ms;
            }
            state.judged.push(TokenJudged {
                token: token.to_owned(),
                since: state.since,
                applied,
                user: user.as_deref().map(str::to_owned),
                is_over,
                is_refused: user.is_none() && !is_to_come,
            });
        });
        match user {
            Some(user) => Found::User(Identity { user, revision }),
            None if is_to_come => Found::NotYet,
            None => Found::Invalid,
        }
    }

    fn trusts_certificates(&self) -> bool {
        true
    }

    fn apply(&self, change: TokenChange, now: Duration) {
        if let TokenChange::Login { drawn, .. } = &change {
            self.with(|state| state.ends.insert(drawn.clone(), millis(now) + self.ttl_ms));
        }
        if self.sabotage == Some(Sabotage::LateTokens) {
            return self.with(|state| state.late.push((now + LATE, change)));
        }
        self.change(change, now);
    }

    fn sweep(&self, now: Duration) {
        self.tokens.sweep(now);
    }

    fn draw_token(&self) -> Result<String, Error> {
        let number = self.with(|state| {
            state.drawn += 1;
            state.drawn
        });
        Ok(format!("{}{number:x}", self.prefix))
    }

    fn token<'a>(
        &'a self,
        _user: &'a str,
        simple: String,
        _revision: u64,
    ) -> LocalBoxFuture<'a, Result<String, Error>> {
        Box::pin(async move { Ok(simple) })
    }

    fn hash(&self, password: String) -> LocalBoxFuture<'_, Result<String, Error>> {
        Box::pin(self.workers.run(move || users::hash(&password).to_owned()))
    }

    fn verify(&self, password: String, stored: Bytes) -> LocalBoxFuture<'_, Result<bool, Error>> {
        Box::pin(self.workers.run(move || users::fits(&password, &stored)))
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
