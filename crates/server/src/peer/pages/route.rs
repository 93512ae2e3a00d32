//! Which path of the peer listener is which page.

use http::Uri;

use crate::net_http::path::{Path, with_query};

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
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
    /// With a path that is refused.
    Malformed,
    NotFound,
}

impl Route {
    /// The route of a request for `uri`.
    pub(super) fn of(uri: &Uri) -> Route {
        let segments = match Path::parse(uri) {
            Path::Redirect(location) => return Route::Redirect(location),
            Path::Malformed => return Route::Malformed,
            Path::Segments(segments) => segments,
        };
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        match segments.as_slice() {
            ["version"] => Route::Version,
            ["members"] => Route::Members,
            ["members", "hashkv"] => Route::HashKv,
            ["members", "promote"] => {
                Route::Redirect(with_query("/members/promote/".to_owned(), uri))
            }
            ["members", "promote", id @ ..] => Route::Promote(id.join("/")),
            ["downgrade", "enabled"] => Route::DowngradeEnabled,
            ["raft", "stream"] => Route::Redirect(with_query("/raft/stream/".to_owned(), uri)),
            ["leases"] => Route::Renew,
            ["leases", "internal"] => Route::TimeToLive,
            _ => Route::NotFound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_pages_of_their_own() {
        let promote = |id: &str| Route::Promote(id.to_owned());
        let redirect = |location: &str| Route::Redirect(location.to_owned());
        for (uri, route) in [
            ("/version", Route::Version),
            ("/members", Route::Members),
            ("/members?x", Route::Members),
            ("/members/promote?x", redirect("/members/promote/?x")),
            ("/members/promote/", promote("")),
            ("/members/promote/12", promote("12")),
            ("/members/promote/%31/2", promote("1/2")),
            ("/members/hashkv", Route::HashKv),
            ("/downgrade/enabled", Route::DowngradeEnabled),
            ("/leases", Route::Renew),
            ("/leases/internal", Route::TimeToLive),
            ("//leases", redirect("/leases")),
            ("//leases%", Route::Malformed),
            ("/health%", Route::Malformed),
            ("/raft/stream", redirect("/raft/stream/")),
        ] {
            assert_eq!(Route::of(&uri.parse().unwrap()), route, "{uri}");
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
        ] {
            assert_eq!(Route::of(&uri.parse().unwrap()), Route::NotFound, "{uri}");
        }
    }
}
