//! Endpoints: URLs, below whose path and with whose query every request is sent.

use super::http::Action;
use super::store::{self, Escape, escape};
use crate::go::quote::quote;

/// A URL in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts<'e> {
    /// The scheme and the authority, which is all of a Unix domain socket.
    base: &'e str,
    path: &'e str,
    query: Option<&'e str>,
    fragment: &'e str,
}

impl Parts<'_> {
    fn of(endpoint: &str) -> Parts<'_> {
        let (rest, fragment) = endpoint.split_once('#').unwrap_or((endpoint, ""));
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let begin = rest.find("://").map_or(0, |scheme| scheme + 3);
        let end = match rest[begin..].find('/') {
            Some(path) if !rest.starts_with("unix") => begin + path,
            _ => rest.len(),
        };
        let (base, path) = rest.split_at(end);
        Parts {
            base,
            path,
            query,
            fragment,
        }
    }
}

/// The endpoint as Go writes the URL: what no path may hold is escaped.
///
/// # Errors
/// An escape is broken. The text is that of an error line.
pub(super) fn normalize(endpoint: &str) -> Result<String, String> {
    let parts = Parts::of(endpoint);
    if let Some(broken) = broken_escape(parts.path) {
        return Err(format!(
            "parse {}: invalid URL escape {}",
            quote(endpoint.as_bytes()),
            quote(broken.as_bytes())
        ));
    }
    let mut text = parts.base.to_owned();
    for c in parts.path.chars() {
        match c {
            '!'..='~' if !matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}') => {
                text.push(c);
            }
            c => text += &escape(c.encode_utf8(&mut [0; 4]).as_bytes(), Escape::Path),
        }
    }
    if let Some(query) = parts.query {
        text.push('?');
        text += query;
    }
    if !parts.fragment.is_empty() {
        text.push('#');
        text += parts.fragment;
    }
    Ok(text)
}

/// The first escape that is none, with up to three bytes.
fn broken_escape(path: &str) -> Option<&str> {
    let digits = |text: &[u8]| text.len() == 2 && text.iter().all(u8::is_ascii_hexdigit);
    let mut escapes = path.match_indices('%').map(|(at, _)| &path[at..]);
    escapes
        .find(|escape| !escape.as_bytes().get(1..3).is_some_and(digits))
        .map(|escape| {
            let end = escape
                .char_indices()
                .nth(3)
                .map_or(escape.len(), |(at, _)| at);
            &escape[..end]
        })
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// What is connected to: scheme and authority.
    pub(super) base: String,
    /// The path and the query.
    pub(super) path: String,
    /// What stands behind `#`, which is shown and not sent.
    fragment: String,
}

impl Target {
    /// Where `action` goes at this endpoint.
    pub(super) fn of(endpoint: &str, action: &Action) -> Target {
        let parts = Parts::of(endpoint);
        let mut path = store::clean(&unescape(parts.path, false));
        path += &action.path;
        match &action.parameters {
            // Go reads the endpoint's query, sets the parameters and writes all of it anew.
            Some(parameters) if !parameters.is_empty() || parts.query.is_some_and(has_any) => {
                path.push('?');
                path += &merged(parts.query.unwrap_or_default(), parameters);
            }
            _ => {
                if let Some(query) = parts.query {
                    path.push('?');
                    path += &escape_non_ascii(query);
                }
            }
        }
        Target {
            base: parts.base.to_owned(),
            path,
            fragment: parts.fragment.to_owned(),
        }
    }

    /// The host and the port; what a Unix domain socket has instead.
    pub(super) fn authority(&self) -> &str {
        if self.base.starts_with("unix") {
            return "localhost";
        }
        let authority = self.base.split_once("://").map(|(_, authority)| authority);
        authority.unwrap_or(&self.base)
    }

    /// The scheme, if it is one that can be connected to.
    ///
    /// # Errors
    /// It is another one.
    pub(super) fn check_scheme(&self) -> Result<(), &str> {
        match self.base.split_once(':') {
            Some((scheme, _)) if !matches!(scheme, "http" | "https" | "unix" | "unixs") => {
                Err(scheme)
            }
            _ => Ok(()),
        }
    }

    /// The whole URL.
    pub(super) fn url(&self) -> String {
        let Target {
            base,
            path,
            fragment,
        } = self;
        match fragment.is_empty() {
            true => format!("{base}{path}"),
            false => format!("{base}{path}#{fragment}"),
        }
    }
}

fn has_any(query: &str) -> bool {
    query.split('&').any(|part| !part.is_empty())
}

/// The parameters of both, sorted by name; those of the request replace the endpoint's.
fn merged(query: &str, parameters: &[(&'static str, String)]) -> String {
    let mut all: Vec<(String, String)> = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let [name, value] = [name, value].map(|text| escape(&unescape(text, true), Escape::Form));
        if parameters.iter().all(|(other, _)| *other != name) {
            all.push((name, value));
        }
    }
    let parameters = parameters.iter();
    all.extend(parameters.map(|(name, value)| {
        let value = escape(value.as_bytes(), Escape::Form);
        ((*name).to_owned(), value)
    }));
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    let parts: Vec<String> = all
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    parts.join("&")
}

/// The bytes of a text with escapes; a broken one is taken as it is. A plus is a space in a form.
fn unescape(text: &str, form: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let escaped = tail.get(..2).filter(|_| *first == b'%');
        let escaped = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None if form && *first == b'+' => bytes.push(b' '),
            None => bytes.push(*first),
        }
    }
    bytes
}

fn escape_non_ascii(query: &str) -> String {
    let mut text = String::with_capacity(query.len());
    for byte in query.bytes() {
        match byte {
            b'!'..=b'~' => text.push(char::from(byte)),
            byte => text += &format!("%{byte:02X}"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    /// As etcdctl 3.3.25 shows it with `--debug`.
    #[test]
    fn requests_go_below_the_endpoint() {
        let get = || store::get(b"k", false, false, false);
        let list = || Action::new(Method::GET, "/v2/members");
        let check = |endpoint: &str, action: Action, path: &str| {
            let target = Target::of(&format!("http://h:1{endpoint}"), &action);
            assert_eq!(target.base, "http://h:1", "{endpoint}");
            assert_eq!(target.url(), format!("http://h:1{path}"), "{endpoint}");
        };
        let plain = "quorum=false&recursive=false&sorted=false";
        check("", get(), &format!("/v2/keys/k?{plain}"));
        check("/", get(), &format!("/v2/keys/k?{plain}"));
        check("/x/", get(), &format!("/x/v2/keys/k?{plain}"));
        check("/%2fx", list(), "/x/v2/members");
        check("/?a", get(), &format!("/v2/keys/k?a=&{plain}"));
        check(
            "?z=1&b=2&b=3",
            get(),
            &format!("/v2/keys/k?b=2&b=3&{plain}&z=1"),
        );
        check("?z=1&b=2", list(), "/v2/members?z=1&b=2");
        check("/?quorum=x", get(), &format!("/v2/keys/k?{plain}"));
        check("/?a=%20+", get(), &format!("/v2/keys/k?a=++&{plain}"));
        check("/?a=%20+", list(), "/v2/members?a=%20+");
        check("#f", get(), &format!("/v2/keys/k?{plain}#f"));
        check("?", list(), "/v2/members?");
    }

    #[test]
    fn a_socket_has_no_path() {
        let target = Target::of(
            "unix:///run/etcd.sock",
            &Action::new(Method::GET, "/health"),
        );
        let found = (
            target.base.as_str(),
            target.path.as_str(),
            target.authority(),
        );
        assert_eq!(found, ("unix:///run/etcd.sock", "/health", "localhost"));
    }

    #[test]
    fn endpoints_are_written_as_go_writes_them() {
        let check = |endpoint: &str, text: &str| {
            assert_eq!(normalize(endpoint), Ok(text.to_owned()));
        };
        check("http://h:1/a b/ü", "http://h:1/a%20b/%C3%BC");
        check("http://h:1/%2fx?a=ü", "http://h:1/%2fx?a=ü");
        check("http://h:1/?#", "http://h:1/?");
        let error = normalize("http://h:1/x%zz").unwrap_err();
        assert_eq!(
            error,
            "parse \"http://h:1/x%zz\": invalid URL escape \"%zz\""
        );
    }
}
