//! The credentials in the head of a request.

use std::sync::Arc;

use http::{Extensions, HeaderMap};
use retcd_member::access::Credentials;

/// Where tokens are looked for, in this order. The second is what HTTP clients of the gateway can
/// set.
const TOKEN_KEYS: [&str; 2] = ["token", "authorization"];
/// Go strips exactly this spelling.
const BEARER: &str = "Bearer ";
/// Metadata of calls that the HTTP gateway makes: over a connection of its own, whose certificate
/// is the server's and says nothing about the client.
const GATEWAY_KEY: &str = "grpcgateway-accept";

/// The common name in the certificate that a client's connection was made with; empty if the
/// certificate has none.
///
/// Whoever accepts TLS connections puts it into the extensions of each of their requests, and only
/// when the certificate was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommonName(pub Arc<str>);

/// What the head of a request says about its sender.
pub(crate) fn credentials_of(headers: &HeaderMap, extensions: &Extensions) -> Credentials {
    let token = TOKEN_KEYS.iter().find_map(|key| headers.get(*key));
    let certificate = extensions
        .get::<CommonName>()
        .filter(|_| !headers.contains_key(GATEWAY_KEY));
    Credentials {
        token: token.map(|value| {
            let text = value.to_str().unwrap_or_default();
            text.strip_prefix(BEARER).unwrap_or(text).into()
        }),
        certificate: certificate.map(|CommonName(name)| Arc::clone(name)),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn credentials(headers: &[(&'static str, &'static str)], name: Option<&str>) -> Credentials {
        let headers = headers.iter().map(|(key, value)| {
            let key = http::HeaderName::from_static(key);
            (key, HeaderValue::from_static(value))
        });
        let mut extensions = Extensions::new();
        if let Some(name) = name {
            extensions.insert(CommonName(name.into()));
        }
        credentials_of(&headers.collect(), &extensions)
    }

    #[test]
    fn tokens_are_found_as_etcd_finds_them() {
        let token = |headers: &[_]| {
            credentials(headers, None)
                .token
                .map(|token| token.to_string())
        };
        assert_eq!(token(&[]), None);
        assert_eq!(token(&[("token", "a.1")]), Some("a.1".into()));
        assert_eq!(token(&[("authorization", "a.1")]), Some("a.1".into()));
        let both = [("authorization", "b.2"), ("token", "a.1")];
        assert_eq!(token(&both), Some("a.1".into()));
        assert_eq!(token(&[("token", "Bearer a.1")]), Some("a.1".into()));
        assert_eq!(token(&[("token", "bearer a.1")]), Some("bearer a.1".into()));
        assert_eq!(token(&[("token", "")]), Some(String::new()));
    }

    #[test]
    fn the_gateways_certificate_names_nobody() {
        let name = |headers: &[_]| credentials(headers, Some("cn")).certificate;
        assert_eq!(name(&[]), Some("cn".into()));
        assert_eq!(name(&[("grpcgateway-accept", "*/*")]), None);
    }
}
