//! Member URLs, with the validation and error texts of etcd's tools.

use crate::go::quote::quote;

/// A valid member URL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemberUrl {
    text: String,
}

/// Why a text is not a valid member URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    /// An unsupported scheme, or none.
    #[error("URL scheme must be http, https, unix, or unixs: {0}")]
    Scheme(String),
    /// No port.
    #[error("URL address does not have the form \"host:port\": {0}")]
    Address(String),
    /// Something follows the port.
    #[error("URL must not contain a path: {0}")]
    Path(String),
    /// Not a URL.
    #[error("parse {}: {reason}", quote(text.as_bytes()))]
    Syntax {
        /// The text.
        text: String,
        /// The reason.
        reason: &'static str,
    },
}

impl MemberUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// The URL is neither `http` nor `https` with host and port, nor `unix` or `unixs`.
    pub(crate) fn parse(text: &str) -> Result<MemberUrl, UrlError> {
        let text = text.trim();
        if text.contains(|c: char| c.is_ascii_control()) {
            let reason = "net/url: invalid control character in URL";
            return Err(UrlError::Syntax {
                text: text.to_owned(),
                reason,
            });
        }
        let (scheme, rest) = match text.split_once(':') {
            Some(("", _)) => {
                return Err(UrlError::Syntax {
                    text: text.to_owned(),
                    reason: "missing protocol scheme",
                });
            }
            Some((scheme, rest)) => (scheme, rest),
            None => return Err(UrlError::Scheme(text.to_owned())),
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => check_authority(text, rest)?,
            "unix" | "unixs" => {}
            // Go parses `127.0.0.1:80` as a path whose first segment contains a colon.
            scheme if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                let reason = "first path segment in URL cannot contain colon";
                return Err(UrlError::Syntax {
                    text: text.to_owned(),
                    reason,
                });
            }
            _ => return Err(UrlError::Scheme(text.to_owned())),
        }
        Ok(MemberUrl {
            text: text.to_owned(),
        })
    }

    /// The URL as it was given.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

fn check_authority(text: &str, rest: &str) -> Result<(), UrlError> {
    let authority = rest.strip_prefix("//").unwrap_or_default();
    let (address, path) = match authority.find('/') {
        Some(slash) => authority.split_at(slash),
        None => (authority, ""),
    };
    let host_end = if address.starts_with('[') {
        address.find(']').unwrap_or(0)
    } else {
        0
    };
    if !address[host_end..].contains(':') {
        return Err(UrlError::Address(text.to_owned()));
    }
    if !path.is_empty() {
        return Err(UrlError::Path(text.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_members_can_have() {
        for url in [
            "http://127.0.0.1:2380",
            "https://m1.example:2380",
            "http://[::1]:2380",
            "unix://m1:0",
            " http://a:1 ",
        ] {
            assert_eq!(
                MemberUrl::parse(url).as_ref().map(MemberUrl::as_str),
                Ok(url.trim())
            );
        }
    }

    #[test]
    fn names_what_is_wrong() {
        let check = |url: &str, text: &str| {
            assert_eq!(
                MemberUrl::parse(url).map_err(|e| e.to_string()),
                Err(text.to_owned())
            )
        };
        check("foo", "URL scheme must be http, https, unix, or unixs: foo");
        check(
            "ftp://a:1",
            "URL scheme must be http, https, unix, or unixs: ftp://a:1",
        );
        check(
            "http://a",
            "URL address does not have the form \"host:port\": http://a",
        );
        check(
            "http://[::1]",
            "URL address does not have the form \"host:port\": http://[::1]",
        );
        check("http://a:1/x", "URL must not contain a path: http://a:1/x");
        check(
            "127.0.0.1:1",
            "parse \"127.0.0.1:1\": first path segment in URL cannot contain colon",
        );
        check("://a", "parse \"://a\": missing protocol scheme");
    }
}
