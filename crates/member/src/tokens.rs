//! Simple tokens: random text that every member remembers.
//!
//! ```text
//! EeQVrMdAndLxqQnk.65
//! 16 letters       index of the entry before the login's, or of that itself before 3.5.3
//! ```
//! The proposer of a login draws the letters, and whoever applies the entry remembers them for the
//! user, so that the token is good on all members, whatever their version: both indexes count. How
//! long it is remembered is each member's own matter: a time after its last use, and not over a
//! restart. There are as many tokens as bcrypt lets in during that time, up to a limit, behind
//! which the ones that were not used for longest are forgotten early.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::RwLock;
use retcd_proto::number;
use retcd_state::auth::TokenChange;

/// When `--auth-token-ttl` is 0.
const TTL_DEFAULT: Duration = Duration::from_secs(300);

/// Tokens that are remembered at a time, some 30 MB; at the default cost and time to live, no host
/// logs in as many.
const TOKENS_MAX: usize = 1 << 18;

/// Letters of a token.
const LETTERS: usize = 16;
const ALPHABET: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// The letters of a new token, of random bytes that `fill` gives.
pub fn draw(mut fill: impl FnMut(&mut [u8])) -> String {
    // The largest multiple of 52 that a byte can be below; others would make some letters likelier.
    const FAIR: u8 = 208;
    let mut letters = String::with_capacity(LETTERS);
    while letters.len() < LETTERS {
        let mut random = [0; 2 * LETTERS];
        fill(&mut random);
        let fair = random.iter().filter(|&&byte| byte < FAIR);
        let letter = |byte: &u8| char::from(ALPHABET[usize::from(byte % 52)]);
        letters.extend(fair.map(letter).take(LETTERS - letters.len()));
    }
    letters
}

/// The letters of a token, and its index.
fn parts(token: &str) -> Option<(&str, u64)> {
    let (drawn, index) = token.split_once('.')?;
    Some((drawn, number::decimal(index)?))
}

/// Whether a token may have been given out at an entry behind the one at `applied`.
pub fn is_to_come(token: &str, applied: u64) -> bool {
    parts(token).is_some_and(|(_, index)| index >= applied)
}

/// The tokens that this member remembers.
pub struct SimpleTokens {
    ttl_ms: u64,
    /// By their letters.
    tokens: RwLock<BTreeMap<String, Login>>,
}

struct Login {
    user: Arc<str>,
    index: u64,
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
            TokenChange::Login { drawn, index, user } => {
                let login = Login {
                    user: user.into(),
                    index,
                    ends_at_ms: (millis(now).saturating_add(self.ttl_ms)).into(),
                };
                if tokens.len() >= TOKENS_MAX {
                    forget_older_half(&mut tokens);
                }
                tokens.insert(drawn, login);
                assert!(tokens.len() <= TOKENS_MAX, "{} tokens", tokens.len());
            }
            TokenChange::Logout(user) => tokens.retain(|_, login| *login.user != *user),
            TokenChange::LogoutAll => *tokens = BTreeMap::new(),
        }
    }

    /// The user of a token, whose time starts anew.
    pub fn user(&self, token: &str, now: Duration) -> Option<Arc<str>> {
        let now_ms = millis(now);
        let (drawn, index) = parts(token)?;
        let tokens = self.tokens.read();
        let login = tokens.get(drawn)?;
        if index != login.index && index.checked_add(1) != Some(login.index) {
            return None;
        }
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

/// All at once, so that a flood of logins does not look for the oldest one each time.
fn forget_older_half(tokens: &mut BTreeMap<String, Login>) {
    let ends_at_ms = |login: &Login| login.ends_at_ms.load(Relaxed);
    let mut ends: Vec<u64> = tokens.values().map(ends_at_ms).collect();
    let middle = ends.len() / 2;
    let (_, &mut median, _) = ends.select_nth_unstable(middle);
    // Those that end with the median stay, as long as that makes room at all.
    tokens.retain(|_, login| ends_at_ms(login) >= median);
    if tokens.len() >= TOKENS_MAX {
        tokens.clear();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(tokens: &SimpleTokens, drawn: &str, index: u64, user: &str) {
        let (drawn, user) = (drawn.into(), user.into());
        let login = TokenChange::Login { drawn, index, user };
        tokens.apply(login, Duration::ZERO);
    }

    fn user(tokens: &SimpleTokens, token: &str, now: u64) -> Option<String> {
        let user = tokens.user(token, Duration::from_secs(now));
        user.map(|user| user.to_string())
    }

    #[test]
    fn a_token_lives_after_its_last_use() {
        let tokens = SimpleTokens::new(Duration::from_secs(10));
        login(&tokens, "a", 2, "u");
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
    fn too_many_tokens_are_forgotten_from_the_oldest_on() {
        let tokens = SimpleTokens::new(Duration::from_secs(1000));
        let log_in = |number: usize, now| {
            let (drawn, user) = (number.to_string(), "u".into());
            let index = 1;
            let login = TokenChange::Login { drawn, index, user };
            tokens.apply(login, Duration::from_secs(now));
        };
        (0..TOKENS_MAX).for_each(|number| log_in(number, (number % 4) as u64));
        // Used again, the first one is younger than most.
        assert_eq!(user(&tokens, "0.0", 4), Some("u".into()));
        log_in(TOKENS_MAX, 5);
        let left = tokens.tokens.read().len();
        assert!(
            (TOKENS_MAX / 4..=TOKENS_MAX / 2 + 2).contains(&left),
            "{left}"
        );
        for (token, is_known) in [("0.0", true), ("1.0", false), ("3.0", true)] {
            assert_eq!(user(&tokens, token, 6).is_some(), is_known, "{token}");
        }
        assert!(user(&tokens, &format!("{TOKENS_MAX}.0"), 6).is_some());
        // Of the same age they are all alike.
        (0..TOKENS_MAX).for_each(|number| log_in(number, 7));
        assert!(tokens.tokens.read().len() <= TOKENS_MAX);
    }

    #[test]
    fn a_user_is_logged_out_everywhere() {
        let tokens = SimpleTokens::new(Duration::ZERO);
        for (drawn, index, user) in [("a", 1, "u"), ("b", 2, "v"), ("c", 3, "u")] {
            login(&tokens, drawn, index, user);
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
        // All bytes in turn, so that those come, too, which would make some letters likelier.
        let mut next = 0u8;
        let mut fill = |random: &mut [u8]| {
            for byte in random {
                *byte = next;
                next = next.wrapping_add(1);
            }
        };
        let drawn: Vec<String> = (0..100).map(|_| draw(&mut fill)).collect();
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
    fn a_token_has_one_of_two_indexes() {
        let tokens = SimpleTokens::new(Duration::ZERO);
        login(&tokens, "a", 65, "u");
        assert_eq!(user(&tokens, "a.64", 0), Some("u".into()));
        assert_eq!(user(&tokens, "a.65", 0), Some("u".into()));
        for other in [
            "a",
            "a.",
            "a.63",
            "a.66",
            "a.64.",
            "a.64x",
            "b.64",
            "a.18446744073709551615",
        ] {
            assert_eq!(user(&tokens, other, 0), None, "{other}");
        }
        assert!(is_to_come("x.65", 65) && is_to_come("x.66", 65));
        assert!(!is_to_come("x.64", 65) && !is_to_come("x", 0) && !is_to_come("x.y", 0));
    }
}
