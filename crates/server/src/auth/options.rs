//! `--auth-token`: `simple`, nothing, or `jwt,sign-method=…,pub-key=…,priv-key=…,ttl=…`.

use std::collections::BTreeMap;
use std::{fs, io};

use retcd_log::go_io_error;

use super::jwt::{JsonWebTokens, Method};
use crate::log::{DurationError, GoDuration, Text};

/// How long signed tokens live without `ttl`.
const TTL_DEFAULT: GoDuration = GoDuration::from_millis(5 * 60 * 1000);

/// Why tokens cannot be as `--auth-token` has them; the texts are etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// Unknown kind, malformed or duplicate option, unknown method, unreadable file, bad duration.
    #[error("auth: invalid auth options")]
    Options,
    /// Neither key is given, or none that the method needs.
    #[error("auth: missing key data")]
    MissingKey,
    /// The keys are not of one pair.
    #[error("auth: public and private keys don't match")]
    KeyMismatch,
    /// The method `none`, with which anybody could be anybody.
    #[error("unsupported signing method: *jwt.signingMethodNone")]
    NoMethod,
    /// A file holds no PEM.
    #[error("invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key")]
    NotPem,
    /// A file holds another key than the method needs.
    #[error("key is not a valid {0}")]
    WrongKey(&'static str),
}

impl TokenError {
    /// etcd's last word on tokens before it says why it does not start.
    fn log(&self) {
        crate::warn!("failed to create token provider"; "error" => Text(self));
    }
}

/// `--auth-token`, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TokenOptions<'a> {
    kind: TokenKind,
    options: BTreeMap<&'a str, &'a str>,
}

/// What tokens are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// There are none.
    None,
    /// Random text that members remember.
    Simple,
    /// Signed claims.
    Jwt,
}

impl<'a> TokenOptions<'a> {
    /// Takes the flag's value apart, and says in the log what is wrong with it.
    ///
    /// # Errors
    /// [`TokenError::Options`]
    pub(crate) fn parse(value: &'a str) -> Result<TokenOptions<'a>, TokenError> {
        TokenOptions::take_apart(value).inspect_err(TokenError::log)
    }

    fn take_apart(value: &'a str) -> Result<TokenOptions<'a>, TokenError> {
        let mut parts = value.split(',');
        let kind = parts.next().unwrap_or_default();
        let mut options = BTreeMap::new();
        for part in parts {
            let pair: Vec<&str> = part.split('=').collect();
            let [name, option] = pair[..] else {
                crate::error!("invalid token option"; "option" => value);
                return Err(TokenError::Options);
            };
            if options.insert(name, option).is_some() {
                crate::error!("invalid token option"; "option" => value, "duplicate-parameter" => name);
                return Err(TokenError::Options);
            }
        }
        let kind = match kind {
            "" => TokenKind::None,
            "simple" => TokenKind::Simple,
            "jwt" => TokenKind::Jwt,
            unknown => {
                let error = TokenError::Options;
                crate::warn!("unknown token type"; "type" => unknown, "error" => Text(&error));
                return Err(error);
            }
        };
        Ok(TokenOptions { kind, options })
    }

    /// The kind of tokens.
    pub(crate) fn kind(&self) -> TokenKind {
        self.kind
    }

    /// Reads the files with the keys of signed tokens.
    ///
    /// # Errors
    /// Each [`TokenError`].
    pub(crate) fn load_jwt(&self) -> Result<JsonWebTokens, TokenError> {
        self.jwt().inspect_err(TokenError::log)
    }

    fn jwt(&self) -> Result<JsonWebTokens, TokenError> {
        const KNOWN: [&str; 4] = ["pub-key", "priv-key", "sign-method", "ttl"];
        let ttl = match self.option("ttl") {
            "" => TTL_DEFAULT,
            text => (text.parse()).map_err(|error: DurationError| problem(&error.to_string()))?,
        };
        let public = self.read("pub-key")?;
        let private = self.read("priv-key")?;
        let name = self.option("sign-method");
        let method =
            Method::named(name).ok_or_else(|| problem("auth: invalid auth signature method"));
        let method = method?;
        let unknown: Vec<String> = self
            .options
            .keys()
            .filter(|name| !KNOWN.contains(name))
            .map(|name| (*name).to_owned())
            .collect();
        if !unknown.is_empty() {
            crate::warn!("unknown JWT options"; "keys" => unknown);
        }
        JsonWebTokens::new(method, &public, &private, ttl)
    }

    fn option(&self, name: &str) -> &'a str {
        self.options.get(name).copied().unwrap_or_default()
    }

    /// The file that an option names; nothing if it names none.
    fn read(&self, option: &str) -> Result<Vec<u8>, TokenError> {
        match self.option(option) {
            "" => Ok(Vec::new()),
            path => fs::read(path).map_err(|error| {
                // Go names what it could not do: a directory can be opened, but not read.
                let step = match error.kind() {
                    io::ErrorKind::IsADirectory => "read",
                    _ => "open",
                };
                problem(&format!("{step} {path}: {}", go_io_error(&error)))
            }),
        }
    }
}

fn problem(error: &str) -> TokenError {
    crate::error!("problem loading JWT options"; "error" => error);
    TokenError::Options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_pairs_that_occur_once() {
        let kind = |value| TokenOptions::parse(value).map(|options| options.kind());
        assert_eq!(kind("simple"), Ok(TokenKind::Simple));
        assert_eq!(kind(""), Ok(TokenKind::None));
        assert_eq!(kind("simple,a=1"), Ok(TokenKind::Simple));
        assert_eq!(kind("jwt,ttl=5m,sign-method=HS256"), Ok(TokenKind::Jwt));
        for value in ["foo", "simple,", "simple,x", "simple,a=1,a=2", "jwt,a=b=c"] {
            assert_eq!(kind(value), Err(TokenError::Options), "{value}");
        }
    }

    #[test]
    fn what_etcd_cannot_load_is_refused_in_its_words() {
        let refused = |value: &str| {
            let options = TokenOptions::parse(value).unwrap();
            options.load_jwt().err().unwrap().to_string()
        };
        let invalid = "auth: invalid auth options";
        assert_eq!(refused("jwt"), invalid);
        assert_eq!(refused("jwt,sign-method=RS255"), invalid);
        assert_eq!(refused("jwt,sign-method=RS256,ttl=x"), invalid);
        assert_eq!(refused("jwt,sign-method=RS256,pub-key=/nowhere"), invalid);
        for method in ["RS256", "PS512", "ES384", "EdDSA", "HS256"] {
            let missing = refused(&format!("jwt,sign-method={method}"));
            assert_eq!(missing, "auth: missing key data", "{method}");
        }
        let none = refused("jwt,sign-method=none");
        assert_eq!(none, "unsupported signing method: *jwt.signingMethodNone");
    }
}
