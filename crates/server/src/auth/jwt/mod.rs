//! Signed tokens (JSON Web Tokens, RFC 7519 in the compact form of RFC 7515).
//!
//! ```text
//! base64url({"alg":"RS256","typ":"JWT"}) . base64url({"exp":…,"revision":…,"username":"…"}) . base64url(signature)
//! ```
//! A token is good for whoever holds it until `exp` (seconds since 1970), and as long as users and
//! roles are at `revision`. Nobody remembers it, so that logging out is not possible. Members that
//! only know the public key check tokens that somebody else signs; for those `exp` is optional, and
//! `nbf` is kept to.
//!
//! Which method a token was signed with is ours to say and not the token's: another one in its
//! header is refused. Tokens that were found to be signed are remembered, a bounded number of them,
//! since a signature takes longer to check than most requests take.

mod keys;

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use parking_lot::Mutex;
use serde_json::{Value, json};

pub(crate) use keys::Method;
use keys::{Signer, Verifier};

use super::{Identity, TokenError};
use crate::log::GoDuration;

/// As lenient as Go's decoder.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Tokens that are remembered to be signed; when there are more, all are forgotten.
const VERIFIED_MAX: usize = 4096;

/// Signs and checks tokens.
pub(crate) struct JsonWebTokens {
    method: Method,
    /// `None` with a public key only.
    signer: Option<Arc<Signer>>,
    verifier: Verifier,
    ttl: GoDuration,
    verified: Mutex<HashMap<String, Claims>>,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq)]
struct Claims {
    identity: Identity,
    /// Seconds since 1970, both; `None` for no bound.
    expires: Option<f64>,
    not_before: Option<f64>,
}

impl Claims {
    fn of(claims: &Value) -> Option<Claims> {
        let revision = claims.get("revision")?.as_f64()?;
        Some(Claims {
            identity: Identity {
                user: claims.get("username")?.as_str()?.into(),
                // A fraction is cut off, and what is below 0 is 0, which is nobody's.
                revision: revision as u64,
            },
            expires: date(claims, "exp")?,
            not_before: date(claims, "nbf")?,
        })
    }

    fn hold_at(&self, now_ms: u64) -> bool {
        let now = now_ms as f64 / 1000.0;
        self.expires.is_none_or(|expires| now < expires)
            && self.not_before.is_none_or(|not_before| now >= not_before)
    }
}

/// Whole seconds since 1970; 0 is none, as etcd's library has it. `None` for what is no number.
#[expect(clippy::option_option, reason = "a wrong date is not the same as none")]
fn date(claims: &Value, name: &str) -> Option<Option<f64>> {
    let Some(value) = claims.get(name) else {
        return Some(None);
    };
    let seconds = value.as_f64()?;
    Some((seconds != 0.0).then(|| seconds.floor()))
}

impl JsonWebTokens {
    /// Tokens signed with `method` that live for `ttl`. The keys are the content of files, empty
    /// for none; of an HMAC the private one is the secret.
    ///
    /// # Errors
    /// The keys are not what the method needs.
    pub(crate) fn new(
        method: Method,
        public: &[u8],
        private: &[u8],
        ttl: GoDuration,
    ) -> Result<JsonWebTokens, TokenError> {
        let (signer, verifier) = keys::load(method, public, private)?;
        Ok(JsonWebTokens {
            method,
            signer: signer.map(Arc::new),
            verifier,
            ttl,
            verified: Mutex::default(),
        })
    }

    /// Whether tokens can be given out at all.
    pub(crate) fn can_sign(&self) -> bool {
        self.signer.is_some()
    }

    /// A token of `user`, as work for a thread that may take its time; `now_ms` is the time since
    /// 1970.
    pub(crate) fn sign(
        &self,
        user: &str,
        revision: u64,
        now_ms: u64,
    ) -> Option<impl FnOnce() -> Option<String> + Send + use<>> {
        let signer = Arc::clone(self.signer.as_ref()?);
        let exp = i64::try_from(now_ms)
            .unwrap_or(i64::MAX)
            .saturating_add(self.ttl.0 / 1_000_000)
            .div_euclid(1000);
        let header = json!({"alg": self.method.name(), "typ": "JWT"});
        let claims = json!({"exp": exp, "revision": revision, "username": user});
        let part = |value: &Value| BASE64.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        Some(move || {
            let signature = signer.sign(signed.as_bytes())?;
            Some(format!("{signed}.{}", BASE64.encode(signature)))
        })
    }

    /// Who a token is for; `now_ms` is the time since 1970.
    pub(crate) fn user(&self, token: &str, now_ms: u64) -> Option<Identity> {
        let known = self.verified.lock().get(token).cloned();
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = self.verify(token)?;
                let mut verified = self.verified.lock();
                if verified.len() >= VERIFIED_MAX {
                    verified.clear();
                }
                verified.insert(token.to_owned(), claims.clone());
                claims
            }
        };
        claims.hold_at(now_ms).then_some(claims.identity)
    }

    fn verify(&self, token: &str) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| BASE64.decode(part).ok();
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        if header.get("alg")?.as_str()? != self.method.name() {
            return None;
        }
        let claims = decode(claims)?;
        let is_signed = self.verifier.verify(signed.as_bytes(), &decode(signature)?);
        // Nothing in the claims is believed, nor looked at, before.
        let claims = is_signed.then(|| serde_json::from_slice::<Value>(&claims));
        Claims::of(&claims?.ok()?)
    }
}

#[cfg(test)]
mod tests;
