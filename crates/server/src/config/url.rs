//! Addresses of listeners and members: `http://host:port`, `https://…`, `unix:path`, `unixs:path`.
//!
//! Member ids are hashes of these texts, and members compare them. So a [`Url`] keeps its text as
//! given, except that the scheme is in lower case. What is refused, and with which message, is
//! decided as by Go's `net/url` and etcd's `types.NewURLs`.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// The transport of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS over TCP.
    Https,
    /// A Unix socket.
    Unix,
    /// TLS over a Unix socket.
    Unixs,
}

/// A valid address, compared by its text.
#[derive(Clone, Debug)]
pub struct Url {
    text: String,
    scheme: Scheme,
    /// `host:port`; for a Unix socket, the beginning of the path.
    authority: String,
    path: String,
}

/// Where a listener binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A socket file.
    Unix(PathBuf),
}

/// Why a text is not an address, in etcd's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

impl Url {
    /// Parses an address, ignoring blanks around it.
    ///
    /// # Errors
    /// The text is not a URL or has another scheme; over TCP, it has no `host:port`, or a path.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let text = text.trim();
        let parts =
            Parts::split(text).map_err(|reason| UrlError(format!("parse {text:?}: {reason}")))?;
        let scheme = match parts.scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => {
                return Err(UrlError(format!(
                    "URL scheme must be http, https, unix, or unixs: {text}"
                )));
            }
        };
        if matches!(scheme, Scheme::Http | Scheme::Https) {
            if split_host_port(parts.host).is_none() {
                return Err(UrlError(format!(
                    "URL address does not have the form \"host:port\": {text}"
                )));
            }
            if !parts.path.is_empty() {
                return Err(UrlError(format!("URL must not contain a path: {text}")));
            }
        }
        Ok(Url {
            text: format!(
                "{}{}",
                parts.scheme.to_ascii_lowercase(),
                &text[parts.scheme.len()..]
            ),
            scheme,
            authority: parts.host.to_owned(),
            path: parts.path.to_owned(),
        })
    }

    /// Parses a comma-separated list. The result is sorted and has no duplicates.
    ///
    /// # Errors
    /// As [`Url::parse`], for the first address that is not valid.
    pub fn parse_list(text: &str) -> Result<Vec<Url>, UrlError> {
        let mut urls = text
            .split(',')
            .map(Url::parse)
            .collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    /// The address as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The transport.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether it has TLS.
    pub fn is_secure(&self) -> bool {
        matches!(self.scheme, Scheme::Https | Scheme::Unixs)
    }

    /// Whether it is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.scheme, Scheme::Unix | Scheme::Unixs)
    }

    /// The host without brackets; may be empty.
    pub fn host(&self) -> &str {
        split_host_port(&self.authority).map_or("", |(host, _)| host)
    }

    /// The digits of the port; may be empty.
    pub fn port(&self) -> &str {
        split_host_port(&self.authority).map_or("", |(_, port)| port)
    }

    /// `host:port`, or the path of a socket file.
    pub fn address(&self) -> String {
        if self.is_unix() {
            format!("{}{}", self.authority, self.path)
        } else {
            self.authority.clone()
        }
    }

    /// The same scheme on another host and port.
    pub(crate) fn with_authority(&self, authority: &str) -> Url {
        let scheme = self.text.split(':').next().unwrap_or_default();
        Url {
            text: format!("{scheme}://{authority}"),
            authority: authority.to_owned(),
            ..self.clone()
        }
    }

    /// What to bind. `localhost` is 127.0.0.1; other names are not resolved. An empty port stands
    /// for any free one.
    ///
    /// # Errors
    /// The host is not an IP address, or the port is above 65535.
    pub fn listen_addr(&self) -> Result<ListenAddr, UrlError> {
        if self.is_unix() {
            return Ok(ListenAddr::Unix(self.address().into()));
        }
        let ip = match self.host() {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host
                .parse()
                .map_err(|_| UrlError(format!("expected IP in URL for binding ({self})")))?,
        };
        let port = match self.port() {
            "" => 0,
            port => port
                .parse()
                .map_err(|_| UrlError(format!("listen tcp: address {port}: invalid port")))?,
        };
        Ok(ListenAddr::Tcp(SocketAddr::new(ip, port)))
    }
}

impl Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Url {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Url {}

impl PartialOrd for Url {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Url {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl crate::log::Field for Url {
    fn write_json(&self, out: &mut String) {
        self.text.write_json(out);
    }
}

/// Splits `host:port` and removes brackets. None without a port or with a stray colon or bracket.
pub(crate) fn split_host_port(authority: &str) -> Option<(&str, &str)> {
    let (host, port) = authority.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').map(|host| (host, port)),
        None if host.contains([':', '[', ']']) => None,
        None => Some((host, port)),
    }
}

/// The parts that Go's `url.Parse` finds. A missing scheme is empty.
struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    path: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Parts<'a>, String> {
        if text.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err("net/url: invalid control character in URL".into());
        }
        let whole = text.split('#').next().unwrap_or_default();
        let (scheme, rest) = split_scheme(whole)?;
        let rest = rest.split('?').next().unwrap_or_default();
        if !rest.starts_with('/') {
            if !scheme.is_empty() {
                return Ok(Parts {
                    scheme,
                    host: "",
                    path: "",
                });
            }
            if rest
                .split('/')
                .next()
                .is_some_and(|segment| segment.contains(':'))
            {
                return Err("first path segment in URL cannot contain colon".into());
            }
        }
        let (host, path) = match rest.strip_prefix("//") {
            Some(after) if !scheme.is_empty() || !after.starts_with('/') => {
                let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
                (host_of(authority)?, path)
            }
            _ => ("", rest),
        };
        check_escapes(path)?;
        Ok(Parts { scheme, host, path })
    }
}

/// The scheme, empty if there is none, and what follows its colon.
fn split_scheme(text: &str) -> Result<(&str, &str), String> {
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if i > 0 => {}
            b':' if i == 0 => return Err("missing protocol scheme".into()),
            b':' => return Ok((&text[..i], &text[i + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

/// Checks an authority and returns its `host:port`.
fn host_of(authority: &str) -> Result<&str, String> {
    let host = match authority.rsplit_once('@') {
        Some((userinfo, host)) => {
            check_escapes(userinfo)?;
            host
        }
        None => authority,
    };
    let port_at = if host.starts_with('[') {
        host.rfind(']').ok_or("missing ']' in host")? + 1
    } else {
        host.find(':').unwrap_or(host.len())
    };
    let port = &host[port_at..];
    let valid = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    if !valid {
        return Err(format!("invalid port {port:?} after host"));
    }
    if let Some(at) = host
        .find('%')
        .filter(|&at| !host[at..].starts_with("%25") || !host.starts_with('['))
    {
        return Err(format!(
            "invalid URL escape {:?}",
            prefix_chars(&host[at..], 3)
        ));
    }
    let stray = |c: char| {
        c.is_ascii() && !c.is_ascii_alphanumeric() && !"-_.~!$&'()*+,;=:[]<>\"%".contains(c)
    };
    match host.chars().find(|&c| stray(c)) {
        Some(c) => Err(format!(
            "invalid character {:?} in host name",
            c.to_string()
        )),
        None => Ok(host),
    }
}

/// Every `%` must start an escape.
fn check_escapes(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let digits = text.as_bytes().get(at + 1..at + 3).unwrap_or_default();
        if digits.len() < 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(format!(
                "invalid URL escape {:?}",
                prefix_chars(&text[at..], 3)
            ));
        }
    }
    Ok(())
}

fn prefix_chars(text: &str, count: usize) -> String {
    text.chars().take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let got = match Url::parse(text) {
            Ok(url) => format!("{url} {}", url.address()),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected, "for {text:?}");
    }

    #[test]
    fn addresses_keep_their_text() {
        check(
            "http://localhost:2380",
            "http://localhost:2380 localhost:2380",
        );
        check(" HTTPS://A.b:1 ", "https://A.b:1 A.b:1");
        check("http://:80", "http://:80 :80");
        check("http://[::1]:2380", "http://[::1]:2380 [::1]:2380");
        check(
            "http://u:p@127.0.0.1:1?x#y",
            "http://u:p@127.0.0.1:1?x#y 127.0.0.1:1",
        );
        check("unix:///tmp/a.sock", "unix:///tmp/a.sock /tmp/a.sock");
        check(
            "unix://127.0.0.5:1456",
            "unix://127.0.0.5:1456 127.0.0.5:1456",
        );
        check(
            "unixs://tmp/etcd.sock",
            "unixs://tmp/etcd.sock tmp/etcd.sock",
        );
    }

    #[test]
    fn bad_addresses_are_refused_in_gos_words() {
        for (text, reason) in [
            (
                "127.0.0.1:23010",
                "first path segment in URL cannot contain colon",
            ),
            (
                "1http://a:1",
                "first path segment in URL cannot contain colon",
            ),
            (":2380", "missing protocol scheme"),
            ("http://127.0.0.1:abc", "invalid port \":abc\" after host"),
            ("http://::1:2380", "invalid port \"::1:2380\" after host"),
            ("http://[::1]2380", "invalid port \"2380\" after host"),
            ("http://[::1:2380", "missing ']' in host"),
            ("http://a b:1", "invalid character \" \" in host name"),
            ("http://%zz:1", "invalid URL escape \"%zz\""),
            ("http://a%20b:1", "invalid URL escape \"%20\""),
            ("http://u%zz@h:1", "invalid URL escape \"%zz\""),
            ("http://127.0.0.1:1/%zz", "invalid URL escape \"%zz\""),
            ("a\nb", "net/url: invalid control character in URL"),
        ] {
            check(text, &format!("parse {text:?}: {reason}"));
        }
        for text in [
            "",
            "abc",
            "ftp://127.0.0.1:1",
            "localhost:2379",
            "//127.0.0.1:1",
            "http//x",
            "*",
        ] {
            check(
                text,
                &format!("URL scheme must be http, https, unix, or unixs: {text}"),
            );
        }
        for text in [
            "http://127.0.0.1",
            "http://",
            "http:127.0.0.1:1",
            "http:/127.0.0.1:1",
        ] {
            check(
                text,
                &format!("URL address does not have the form \"host:port\": {text}"),
            );
        }
        check(
            "http://127.0.0.1:1/path",
            "URL must not contain a path: http://127.0.0.1:1/path",
        );
    }

    #[test]
    fn lists_are_sorted_sets() {
        let urls = Url::parse_list("http://b:1,http://a:1,http://b:1").expect("valid");
        assert_eq!(
            urls.iter().map(Url::as_str).collect::<Vec<_>>(),
            ["http://a:1", "http://b:1"]
        );
    }

    #[test]
    fn listeners_bind_addresses_only() {
        let bind = |text: &str| match Url::parse(text).expect("valid").listen_addr() {
            Ok(ListenAddr::Tcp(addr)) => addr.to_string(),
            Ok(ListenAddr::Unix(path)) => path.display().to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(bind("http://localhost:2379"), "127.0.0.1:2379");
        assert_eq!(bind("http://[::1]:1"), "[::1]:1");
        assert_eq!(bind("http://127.0.0.1:"), "127.0.0.1:0");
        assert_eq!(bind("unix:///tmp/x"), "/tmp/x");
        assert_eq!(
            bind("http://example.com:1"),
            "expected IP in URL for binding (http://example.com:1)"
        );
        assert_eq!(
            bind("http://127.0.0.1:99999"),
            "listen tcp: address 99999: invalid port"
        );
    }
}
