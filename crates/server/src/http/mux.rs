//! Which page a path leads to, by the kind of listener.

use http::Uri;

use super::ListenerKind;
use super::pprof::{self, ProfilePage};
use crate::net_http::path::{Path, with_query};

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Version,
    Health,
    /// All checks of a page, or one.
    Check(HealthPage, Option<Check>),
    Metrics,
    Vars,
    /// Below `/debug/pprof/`.
    Profile(ProfilePage),
    /// What calls did lately.
    Requests,
    /// What happened to the server lately.
    Events,
    /// To another path, with the query.
    Redirect(String),
    /// Refused for its path, before anything else is looked at.
    Malformed,
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
    pub(super) fn name(self) -> &'static str {
        match self {
            HealthPage::Livez => "livez",
            HealthPage::Readyz => "readyz",
        }
    }

    /// The checks in the order in which they run and are listed.
    pub(super) fn checks(self) -> &'static [Check] {
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
    pub(super) fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
            Check::SerializableRead => "serializable_read",
        }
    }
}

impl Route {
    /// `/metrics` and pages for debugging answer any method (etcd v3.7: promhttp, pprof and net/trace do
    /// not look at it).
    pub(super) fn is_get_only(&self) -> bool {
        !matches!(
            self,
            Route::Metrics
                | Route::Profile(_)
                | Route::Requests
                | Route::Events
                | Route::Redirect(_)
                | Route::Malformed
                | Route::NotFound
        )
    }
}

/// Pages for debugging that are not always there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Served {
    pub(super) profiles: bool,
    pub(super) recent: bool,
}

/// The page that `uri` names.
pub(super) fn route(listener: ListenerKind, served: Served, uri: &Uri) -> Route {
    let segments = match Path::parse(uri) {
        Path::Redirect(location) => return Route::Redirect(location),
        Path::Malformed => return Route::Malformed,
        Path::Segments(segments) => segments,
    };
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    match listener {
        ListenerKind::Client { .. } => match segments.as_slice() {
            ["debug", "pprof"] if served.profiles => {
                Route::Redirect(with_query("/debug/pprof/".to_owned(), uri))
            }
            ["debug", "pprof", rest @ ..] if served.profiles => Route::Profile(pprof::page(rest)),
            ["debug", "requests"] if served.recent => Route::Requests,
            ["debug", "events"] if served.recent => Route::Events,
            segments => client(segments),
        },
        ListenerKind::Metrics => metrics(&segments),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listener: ListenerKind, uri: &str, route: Route) {
        let found = super::route(listener, Served::default(), &uri.parse().unwrap());
        assert_eq!(found, route, "{uri}");
    }

    #[test]
    fn pages_for_debugging_are_for_clients_and_when_asked_for_only() {
        let client = ListenerKind::Client { tls: false };
        let all = Served {
            profiles: true,
            recent: true,
        };
        let heap = ProfilePage::Standing(pprof::Standing::Heap);
        let cases = [
            ("/debug/pprof/", Route::Profile(ProfilePage::Index)),
            (
                "/debug/pprof?a",
                Route::Redirect("/debug/pprof/?a".to_owned()),
            ),
            ("/debug/pprof/heap", Route::Profile(heap)),
            ("/debug/pprof/profile", Route::Profile(ProfilePage::Cpu)),
            ("/debug/pprof/heap/", Route::Profile(ProfilePage::Unknown)),
            ("/debug/pprof/nope", Route::Profile(ProfilePage::Unknown)),
            ("/debug/requests?fam=a", Route::Requests),
            ("/debug/events", Route::Events),
        ];
        for (uri, route) in cases {
            let uri = uri.parse().unwrap();
            assert_eq!(super::route(client, all, &uri), route, "{uri}");
            let without = super::route(client, Served::default(), &uri);
            assert_eq!(without, Route::NotFound, "{uri}");
            let metrics = super::route(ListenerKind::Metrics, all, &uri);
            assert_eq!(metrics, Route::NotFound, "{uri}");
        }
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
        let malformed = [
            (client, "/health%"),
            (client, "//%zz"),
            (ListenerKind::Metrics, "/%2"),
        ];
        for (listener, uri) in malformed {
            check(listener, uri, Route::Malformed);
        }
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
            (client, "/v3/kv/range"),
            (client, "/debug/pprof/"),
            (client, "/debug/requests/"),
            (ListenerKind::Metrics, "/"),
            (ListenerKind::Metrics, "/version"),
            (ListenerKind::Metrics, "/debug/vars"),
        ];
        for (listener, uri) in lost {
            check(listener, uri, Route::NotFound);
        }
    }
}
