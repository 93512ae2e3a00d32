//! Simple tokens: random text that every member remembers.
//!
//! ```text
//! EeQVrMdAndLxqQnk.65
//! 16 letters       index of the login's entry
//! ```
//! The proposer of a login draws the letters, and whoever applies the entry remembers the token for the
//! user, so that it is good on all members. How long it is remembered is each member's own matter: a time
//! after its last use, and not over a restart. There are as many tokens as bcrypt lets in during that time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::RwLock;
use retcd_state::auth::TokenChange;

/// When `--auth-token-ttl` is 0.
const TTL_DEFAULT: Duration = Duration::from_secs(300);

/// Letters of a token.
const LETTERS: usize = 16;
const ALPHABET: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// The letters of a new token.
///
/// # Panics
/// If the operating system has no randomness: there is no going on without it.
pub fn draw() -> String {
    // The largest multiple of 52 that a byte can be below; others would make some letters likelier.
    const FAIR: u8 = 208;
    let mut letters = String::with_capacity(LETTERS);
    while letters.len() < LETTERS {
        let mut random = [0; 2 * LETTERS];
        getrandom::fill(&mut random).expect("the operating system gives random bytes");
        let fair = random.iter().filter(|&&byte| byte < FAIR);
        let letter = |byte: &u8| char::from(ALPHABET[usize::from(byte % 52)]);
        letters.extend(fair.map(letter).take(LETTERS - letters.len()));
    }
    letters
}

/// The index of the entry that a token was given out at.
pub fn index(token: &str) -> Option<u64> {
    let (_, index) = token.split_once('.')?;
    index.parse().ok()
}

/// The tokens that this member remembers.
pub struct SimpleTokens {
    ttl_ms: u64,
    tokens: RwLock<HashMap<String, Login>>,
}

struct Login {
    user: Arc<str>,
    /// In milliseconds since the start; every use moves it, under the lock for readers.
    ends_at_ms: AtomicU64,
}

impl SimpleTokens {
    /// Tokens that live for `ttl` after their last use; 0 for etcd's default.
    pub fn new(ttl: Duration) -> SimpleTokens {
        let ttl = if ttl.is_zero() { TTL_DEFAULT } else { ttl };
        SimpleTokens {
            ttl_ms: millis(ttl),
            tokens: RwLock::default(),
        }
    }

    /// Makes a change that an entry of the log stands for.
    pub fn apply(&self, change: TokenChange, now: Duration) {
        let mut tokens = self.tokens.write();
        match change {
            TokenChange::Login { token, user } => {
                let login = Login {
                    user: user.into(),
                    ends_at_ms: (millis(now).saturating_add(self.ttl_ms)).into(),
                };
                tokens.insert(token, login);
            }
            TokenChange::Logout(user) => tokens.retain(|_, login| *login.user != *user),
            TokenChange::LogoutAll => *tokens = HashMap::new(),
        }
    }

    /// The user of a token, whose time starts anew.
    pub fn user(&self, token: &str, now: Duration) -> Option<Arc<str>> {
        let now_ms = millis(now);
        let tokens = self.tokens.read();
        let login = tokens.get(token)?;
        if login.ends_at_ms.load(Relaxed) <= now_ms {
            return None;
        }
        let ends_at_ms = now_ms.saturating_add(self.ttl_ms);
        login.ends_at_ms.store(ends_at_ms, Relaxed);
        Some(Arc::clone(&login.user))
    }

    /// Forgets the tokens whose time is over.
    pub fn sweep(&self, now: Duration) {
        let now_ms = millis(now);
        let is_over = |login: &Login| login.ends_at_ms.load(Relaxed) <= now_ms;
        if self.tokens.read().values().any(is_over) {
            self.tokens.write().retain(|_, login| !is_over(login));
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(tokens: &SimpleTokens, token: &str, user: &str, now: u64) {
        let (token, user) = (token.into(), user.into());
        tokens.apply(TokenChange::Login { token, user }, Duration::from_secs(now));
    }

    fn user(tokens: &SimpleTokens, token: &str, now: u64) -> Option<String> {
        let user = tokens.user(token, Duration::from_secs(now));
        user.map(|user| user.to_string())
    }

    #[test]
    fn a_token_lives_after_its_last_use() {
        let tokens = SimpleTokens::new(Duration::from_secs(10));
        login(&tokens, "a.1", "u", 0);
        assert_eq!(user(&tokens, "a.1", 9), Some("u".into()));
        assert_eq!(user(&tokens, "a.1", 18), Some("u".into()));
        assert_eq!(user(&tokens, "a.1", 28), None);
        assert_eq!(user(&tokens, "b.1", 0), None);
        tokens.sweep(Duration::from_secs(27));
        assert_eq!(tokens.tokens.read().len(), 1);
        tokens.sweep(Duration::from_secs(28));
        assert_eq!(tokens.tokens.read().len(), 0);
    }

    #[test]
    fn a_user_is_logged_out_everywhere() {
        let tokens = SimpleTokens::new(Duration::ZERO);
        for (token, user) in [("a.1", "u"), ("b.2", "v"), ("c.3", "u")] {
            login(&tokens, token, user, 0);
        }
        tokens.apply(TokenChange::Logout("u".into()), Duration::ZERO);
        assert_eq!(user(&tokens, "a.1", 1), None);
        assert_eq!(user(&tokens, "c.3", 1), None);
        assert_eq!(user(&tokens, "b.2", 299), Some("v".into()));
        tokens.apply(TokenChange::LogoutAll, Duration::ZERO);
        assert_eq!(user(&tokens, "b.2", 299), None);
    }

    #[test]
    fn tokens_are_drawn_from_letters() {
        let drawn: std::collections::HashSet<String> = (0..100).map(|_| draw()).collect();
        assert_eq!(drawn.len(), 100);
        for token in &drawn {
            assert_eq!(token.len(), LETTERS);
            assert!(
                token.bytes().all(|byte| ALPHABET.contains(&byte)),
                "{token}"
            );
        }
        let all: String = drawn.into_iter().collect();
        assert!(
            ALPHABET
                .iter()
                .all(|letter| all.bytes().any(|b| b == *letter))
        );
    }

    #[test]
    fn a_token_tells_its_index() {
        assert_eq!(index("EeQVrMdAndLxqQnk.65"), Some(65));
        for other in [
            "",
            "x",
            "x.",
            "x.y",
            "x.6.5",
            "x.-1",
            "x.18446744073709551616",
        ] {
            assert_eq!(index(other), None, "{other}");
        }
    }
}
