//! Which path is what on which listener, with the manners of Go's `http.ServeMux`.
//!
//! A path with `//`, `.` or `..` is sent elsewhere before anything else is looked at, even when
//! there is nothing at the place it leads to. Segments are compared after their escapes are
//! resolved, so `/versio%6E` is `/version`, but `%2F` does not separate. Nothing here but
//! `/members/promote/` has pages below it, so a slash at the end is another path.

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
    /// To another path, with the query.
    Redirect(String),
    NotFound,
}

/// Where a request of another member goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PeerRoute {
    Version,
    Members,
    /// The id as it was given.
    Promote(String),
    HashKv,
    DowngradeEnabled,
    Renew,
    TimeToLive,
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

/// The segments of a request's path.
enum Segments<'a> {
    /// The path is to be asked for as this one.
    Elsewhere(String),
    /// There is an escape in it that is none.
    Malformed,
    Of(Vec<Cow<'a, str>>),
}

fn segments(uri: &Uri) -> Segments<'_> {
    let path = uri.path();
    let clean = clean(path);
    if clean != path {
        return Segments::Elsewhere(with_query(clean.into_owned(), uri));
    }
    // A clean path begins with a slash.
    let segments: Option<Vec<_>> = path[1..].split('/').map(decode_percent).collect();
    segments.map_or(Segments::Malformed, Segments::Of)
}

fn with_query(path: String, uri: &Uri) -> String {
    let query = uri.query().map(|query| format!("?{query}"));
    path + &query.unwrap_or_default()
}

/// A page for clients.
pub(super) fn route(listener: ListenerKind, uri: &Uri) -> Route {
    let segments = match segments(uri) {
        Segments::Elsewhere(location) => return Route::Redirect(location),
        Segments::Malformed => return Route::NotFound,
        Segments::Of(segments) => segments,
    };
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    match listener {
        ListenerKind::Client { .. } => client(&segments),
        ListenerKind::Metrics => metrics(&segments),
    }
}

/// A page for other members.
pub(super) fn peer_route(uri: &Uri) -> PeerRoute {
    let segments = match segments(uri) {
        Segments::Elsewhere(location) => return PeerRoute::Redirect(location),
        Segments::Malformed => return PeerRoute::NotFound,
        Segments::Of(segments) => segments,
    };
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    match segments.as_slice() {
        ["version"] => PeerRoute::Version,
        ["members"] => PeerRoute::Members,
        ["members", "hashkv"] => PeerRoute::HashKv,
        ["members", "promote"] => {
            PeerRoute::Redirect(with_query("/members/promote/".to_owned(), uri))
        }
        ["members", "promote", id @ ..] => PeerRoute::Promote(id.join("/")),
        ["downgrade", "enabled"] => PeerRoute::DowngradeEnabled,
        ["raft", "stream"] => PeerRoute::Redirect(with_query("/raft/stream/".to_owned(), uri)),
        ["leases"] => PeerRoute::Renew,
        ["leases", "internal"] => PeerRoute::TimeToLive,
        _ => PeerRoute::NotFound,
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
        ];
        for (listener, uri) in lost {
            check(listener, uri, Route::NotFound);
        }
    }

    #[test]
    fn members_have_pages_of_their_own() {
        let promote = |id: &str| PeerRoute::Promote(id.to_owned());
        let redirect = |location: &str| PeerRoute::Redirect(location.to_owned());
        for (uri, route) in [
            ("/version", PeerRoute::Version),
            ("/members", PeerRoute::Members),
            ("/members?x", PeerRoute::Members),
            ("/members/promote?x", redirect("/members/promote/?x")),
            ("/members/promote/", promote("")),
            ("/members/promote/12", promote("12")),
            ("/members/promote/%31/2", promote("1/2")),
            ("/members/hashkv", PeerRoute::HashKv),
            ("/downgrade/enabled", PeerRoute::DowngradeEnabled),
            ("/leases", PeerRoute::Renew),
            ("/leases/internal", PeerRoute::TimeToLive),
            ("//leases", redirect("/leases")),
            ("/raft/stream", redirect("/raft/stream/")),
        ] {
            assert_eq!(peer_route(&uri.parse().unwrap()), route, "{uri}");
        }
        for uri in [
            "/",
            "/members/",
            "/members/hashkv/",
            "/leases/",
            "/downgrade",
            "/metrics",
            "/health",
            "/livez",
            "/health%",
        ] {
            assert_eq!(
                peer_route(&uri.parse().unwrap()),
                PeerRoute::NotFound,
                "{uri}"
            );
        }
    }
}
