//! Which path is what on which listener, with the manners of Go's `http.ServeMux`.
//!
//! A path with `//`, `.` or `..` is sent elsewhere before anything else is looked at, even when
//! there is nothing at the place it leads to. Segments are compared after their escapes are
//! resolved, so `/versio%6E` is `/version`, but `%2F` does not separate. Nothing here has pages
//! below it, so a slash at the end is another path.

use std::borrow::Cow;

use http::Uri;

use super::ListenerKind;
use super::query::decode_percent;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Version,
    Health,
    /// All checks of a page, or one.
    Check(HealthPage, Option<Check>),
    Metrics,
    Vars,
    Members,
    /// To another path, with the query.
    Redirect(String),
    NotFound,
}

/// A page of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthPage {
    /// Should this process be restarted?
    Livez,
    /// Should this process get traffic?
    Readyz,
}

/// One question of a page of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    DataCorruption,
    LinearizableRead,
    NonLearner,
    SerializableRead,
}

impl HealthPage {
    pub fn name(self) -> &'static str {
        match self {
            HealthPage::Livez => "livez",
            HealthPage::Readyz => "readyz",
        }
    }

    /// The checks in the order in which they run and are listed.
    pub fn checks(self) -> &'static [Check] {
        match self {
            HealthPage::Livez => &[Check::SerializableRead],
            HealthPage::Readyz => &[
                Check::DataCorruption,
                Check::LinearizableRead,
                Check::NonLearner,
                Check::SerializableRead,
            ],
        }
    }
}

impl Check {
    pub fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
            Check::SerializableRead => "serializable_read",
        }
    }
}

impl Route {
    /// `/metrics` answers any method (etcd v3.7: promhttp does not look at it).
    pub fn is_get_only(&self) -> bool {
        !matches!(self, Route::Metrics | Route::Redirect(_) | Route::NotFound)
    }
}

pub(super) fn route(listener: ListenerKind, uri: &Uri) -> Route {
    let path = uri.path();
    let clean = clean(path);
    if clean != path {
        let query = uri.query().map(|query| format!("?{query}"));
        return Route::Redirect(clean.into_owned() + &query.unwrap_or_default());
    }
    // A clean path begins with a slash.
    let segments: Option<Vec<_>> = path[1..].split('/').map(decode_percent).collect();
    let Some(segments) = segments else {
        return Route::NotFound;
    };
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    match listener {
        ListenerKind::Client { .. } => client(&segments),
        ListenerKind::Metrics => metrics(&segments),
        ListenerKind::Peer => peer(&segments),
    }
}

fn client(segments: &[&str]) -> Route {
    match segments {
        ["version"] => Route::Version,
        ["debug", "vars"] => Route::Vars,
        other => metrics(other),
    }
}

fn metrics(segments: &[&str]) -> Route {
    match segments {
        ["metrics"] => Route::Metrics,
        ["health"] => Route::Health,
        ["livez", rest @ ..] => checks(HealthPage::Livez, rest),
        ["readyz", rest @ ..] => checks(HealthPage::Readyz, rest),
        _ => Route::NotFound,
    }
}

fn checks(page: HealthPage, rest: &[&str]) -> Route {
    match rest {
        [] => Route::Check(page, None),
        [name] => match page.checks().iter().find(|check| check.name() == *name) {
            Some(check) => Route::Check(page, Some(*check)),
            None => Route::NotFound,
        },
        _ => Route::NotFound,
    }
}

fn peer(segments: &[&str]) -> Route {
    match segments {
        ["version"] => Route::Version,
        ["members"] => Route::Members,
        _ => Route::NotFound,
    }
}

/// The path without empty, `.` and `..` segments; a slash at the end stays.
fn clean(path: &str) -> Cow<'_, str> {
    let relative = path.strip_prefix('/').unwrap_or(path);
    let (relative, end) = match relative.strip_suffix('/') {
        Some(relative) => (relative, "/"),
        None => (relative, ""),
    };
    let plain = |segment: &str| !matches!(segment, "" | "." | "..");
    if path == "/" || (path.starts_with('/') && relative.split('/').all(plain)) {
        return Cow::Borrowed(path);
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in relative.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    match kept.as_slice() {
        [] => Cow::Borrowed("/"),
        kept => Cow::Owned(format!("/{}{end}", kept.join("/"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, cleaned) in [
            ("/", "/"),
            ("/version", "/version"),
            ("/version/", "/version/"),
            ("//version", "/version"),
            ("/version//", "/version/"),
            ("//", "/"),
            ("/./health", "/health"),
            ("/a/../version", "/version"),
            ("/x/..", "/"),
            ("/x/../foo/", "/foo/"),
            ("/../../a", "/a"),
            ("/a/./", "/a/"),
            ("/%2e%2e/version", "/%2e%2e/version"),
            ("/...", "/..."),
            ("*", "/*"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    fn check(listener: ListenerKind, uri: &str, route: Route) {
        assert_eq!(
            super::route(listener, &uri.parse().unwrap()),
            route,
            "{uri}"
        );
    }

    #[test]
    fn every_listener_has_its_paths() {
        let client = ListenerKind::Client { tls: true };
        let found = [
            (client, "/version", Route::Version),
            (client, "/versio%6E", Route::Version),
            (client, "/health", Route::Health),
            (client, "/livez", Route::Check(HealthPage::Livez, None)),
            (client, "/metrics", Route::Metrics),
            (client, "/debug/vars", Route::Vars),
            (ListenerKind::Metrics, "/metrics", Route::Metrics),
            (ListenerKind::Metrics, "/health", Route::Health),
            (
                ListenerKind::Metrics,
                "/readyz/non_learner",
                Route::Check(HealthPage::Readyz, Some(Check::NonLearner)),
            ),
            (ListenerKind::Peer, "/version", Route::Version),
            (ListenerKind::Peer, "/members", Route::Members),
            (
                client,
                "//members?a=1&b",
                Route::Redirect("/members?a=1&b".to_owned()),
            ),
        ];
        for (listener, uri, route) in found {
            check(listener, uri, route);
        }
        let lost = [
            (client, "/members"),
            (client, "/version/"),
            (client, "/Version"),
            (client, "/livez/non_learner"),
            (client, "/livez%2Fserializable_read"),
            (client, "/livez/serializable_read/"),
            (client, "/health%"),
            (client, "/v3/kv/range"),
            (client, "/debug/pprof/"),
            (ListenerKind::Metrics, "/"),
            (ListenerKind::Metrics, "/version"),
            (ListenerKind::Metrics, "/debug/vars"),
            (ListenerKind::Peer, "/metrics"),
            (ListenerKind::Peer, "/health"),
            (ListenerKind::Peer, "/livez"),
            (ListenerKind::Peer, "/members/"),
        ];
        for (listener, uri) in lost {
            check(listener, uri, Route::NotFound);
        }
    }
}
