//! Who asks, by the rules of API v2: HTTP Basic, or the client's certificate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap};
use retcd_member::v2::Login;

use crate::auth::CommonName;

/// How the head of a request says who sends it. The name in a certificate is there only if
/// `--client-cert-auth` is, and counts if there is no header.
pub(super) fn login_of(headers: &HeaderMap, extensions: &Extensions) -> Login {
    let header = headers.get(AUTHORIZATION);
    let header = header.filter(|header| !header.is_empty());
    match (header, extensions.get::<CommonName>()) {
        (Some(header), _) => basic(header.as_bytes()).unwrap_or(Login::Malformed),
        (None, Some(CommonName(name))) => Login::Certificate(name.clone()),
        (None, None) => Login::Nobody,
    }
}

fn basic(header: &[u8]) -> Option<Login> {
    const SCHEME: &[u8] = b"basic ";
    let (scheme, encoded) = header.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(Login::Password {
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(header: Option<&'static str>, name: Option<&str>, expected: Login) {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(header));
        }
        let mut extensions = Extensions::new();
        if let Some(name) = name {
            extensions.insert(CommonName(name.into()));
        }
        assert_eq!(login_of(&headers, &extensions), expected, "{header:?}");
    }

    #[test]
    fn a_header_counts_before_a_certificate() {
        let password = |user: &str, password: &str| Login::Password {
            user: user.into(),
            password: password.into(),
        };
        check(None, None, Login::Nobody);
        check(Some(""), None, Login::Nobody);
        check(None, Some("cn"), Login::Certificate("cn".into()));
        check(Some("Basic cm9vdDpy"), Some("cn"), password("root", "r"));
        check(Some("bASIC YTpiOmM="), None, password("a", "b:c"));
        check(Some("Basic Og=="), None, password("", ""));
        for header in ["Basic", "Basic !!!", "Basic cm9vdA==", "Bearer x", "Basic "] {
            check(Some(header), Some("cn"), Login::Malformed);
        }
    }
}
