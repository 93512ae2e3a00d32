//! Where a path of API v2 leads.
//!
//! Escapes are resolved first, so that `%2F` separates, as it did for etcd 3.3 with the Go of its
//! time. A path with `//`, `.` or `..` is redirected.

use http::Uri;

use crate::net_http::path::clean;
use crate::net_http::query::decode_percent;

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// A key: empty, or with a slash in front, and perhaps one behind it.
    Keys(String),
    Machines,
    /// What is behind `/v2/members`, without a slash.
    Members(String),
    Stats(Stats),
    Enable,
    /// All users, or one.
    Users(Option<String>),
    /// All roles, or one.
    Roles(Option<String>),
    /// A name with slashes.
    InvalidName,
    /// To another path, with the query.
    Redirect(String),
    NotFound,
}

/// Whose statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stats {
    Own,
    Leader,
    Store,
}

/// Whether the path is below `/v2/`, wherever it leads.
pub(super) fn is_of_v2(uri: &Uri) -> bool {
    decode_percent(uri.path()).is_some_and(|path| path.starts_with("/v2/"))
}

pub(super) fn route(uri: &Uri) -> Route {
    let Some(path) = decode_percent(uri.path()) else {
        return Route::NotFound;
    };
    let cleaned = clean(&path);
    if cleaned != path {
        let query = uri.query().map(|query| format!("?{query}"));
        return Route::Redirect(escape(&cleaned) + &query.unwrap_or_default());
    }
    let Some(path) = path.strip_prefix("/v2/") else {
        return Route::NotFound;
    };
    let end = path.find('/').unwrap_or(path.len());
    match path.split_at(end) {
        ("keys", key) => Route::Keys(key.to_owned()),
        ("machines", "") => Route::Machines,
        ("members", rest) => Route::Members(rest.strip_prefix('/').unwrap_or(rest).to_owned()),
        ("stats", "/self") => Route::Stats(Stats::Own),
        ("stats", "/leader") => Route::Stats(Stats::Leader),
        ("stats", "/store") => Route::Stats(Stats::Store),
        ("auth", "/enable") => Route::Enable,
        ("auth", rest) => auth(rest.strip_suffix('/').unwrap_or(rest)),
        _ => Route::NotFound,
    }
}

fn auth(path: &str) -> Route {
    let mut parts = path.splitn(3, '/').skip(1);
    let route: fn(Option<String>) -> Route = match parts.next() {
        Some("users") => Route::Users,
        Some("roles") => Route::Roles,
        _ => return Route::NotFound,
    };
    match parts.next() {
        Some(name) if name.contains('/') => Route::InvalidName,
        name => route(name.map(str::to_owned)),
    }
}

/// A path as Go writes it into a URL.
fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'='
            | b'@' => escaped.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => escaped.push(byte.into()),
            byte => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Route) {
        assert_eq!(route(&path.parse().unwrap()), expected, "{path}");
    }

    #[test]
    fn every_path_leads_somewhere() {
        let some = |name: &str| Some(name.to_owned());
        for (path, expected) in [
            ("/v2/keys", Route::Keys("".into())),
            ("/v2/keys/", Route::Keys("/".into())),
            ("/v2/key%73/a%2Fb/?x=1", Route::Keys("/a/b/".into())),
            ("/v2/keys/sp%20ace", Route::Keys("/sp ace".into())),
            ("/v2/keys/x%2e%2e/y", Route::Keys("/x../y".into())),
            ("/v2/machines", Route::Machines),
            ("/v2/members", Route::Members("".into())),
            ("/v2/members/", Route::Members("".into())),
            ("/v2/members/leader/", Route::Members("leader/".into())),
            ("/v2/stats/self", Route::Stats(Stats::Own)),
            ("/v2/stats/store", Route::Stats(Stats::Store)),
            ("/v2/auth/enable", Route::Enable),
            ("/v2/auth/users", Route::Users(None)),
            ("/v2/auth/users/", Route::Users(None)),
            ("/v2/auth/users/a", Route::Users(some("a"))),
            ("/v2/auth/users/a/", Route::Users(some("a"))),
            ("/v2/auth/users/l%2Fx", Route::InvalidName),
            ("/v2/auth/roles/r", Route::Roles(some("r"))),
            ("/v2/auth/roles/r/x/y", Route::InvalidName),
            (
                "/v2/keys//v?a=/../b",
                Route::Redirect("/v2/keys/v?a=/../b".into()),
            ),
            ("/v2/keys/%2e%2e/y", Route::Redirect("/v2/y".into())),
            (
                "/v2/keys/a%2F%2Fb%0A%3F",
                Route::Redirect("/v2/keys/a/b%0A%3F".into()),
            ),
        ] {
            check(path, expected);
        }
        for path in [
            "/v2/",
            "/v2/keysfoo",
            "/v2/machines/",
            "/v2/stats",
            "/v2/stats/self/",
            "/v2/stats/foo",
            "/v2/auth",
            "/v2/auth/",
            "/v2/auth/enable/",
            "/v2/auth/usersx",
            "/v2/keys/%zz",
        ] {
            check(path, Route::NotFound);
        }
    }

    #[test]
    fn the_other_pages_keep_theirs() {
        let is_of_v2 = |path: &str| is_of_v2(&path.parse().unwrap());
        assert!(is_of_v2("/v2/keys/a") && is_of_v2("/v%32/nothing") && is_of_v2("/v2//"));
        assert!(!is_of_v2("/v2") && !is_of_v2("/v3/") && !is_of_v2("//v2/keys"));
        assert!(!is_of_v2("/v2/%"));
    }
}
