//! Which method a path is.

use std::borrow::Cow;

use http::Uri;

use crate::metrics::Method;
use crate::net_http::path::{Path, with_query};

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Method(Method),
    /// To another path, with the query.
    Redirect(String),
    NotFound,
}

const PREFIX: &str = "/v3/";
/// What etcd 3.3 called it.
const OLD_PREFIX: &str = "/v3beta/";

/// Behind the prefix.
const METHODS: &[(&str, Method)] = &[
    ("kv/range", Method::Range),
    ("kv/put", Method::Put),
    ("kv/deleterange", Method::DeleteRange),
    ("kv/txn", Method::Txn),
    ("kv/compaction", Method::Compact),
    ("watch", Method::Watch),
    ("lease/grant", Method::LeaseGrant),
    ("lease/revoke", Method::LeaseRevoke),
    ("kv/lease/revoke", Method::LeaseRevoke),
    ("lease/keepalive", Method::LeaseKeepAlive),
    ("lease/timetolive", Method::LeaseTimeToLive),
    ("kv/lease/timetolive", Method::LeaseTimeToLive),
    ("lease/leases", Method::LeaseLeases),
    ("kv/lease/leases", Method::LeaseLeases),
    ("cluster/member/add", Method::MemberAdd),
    ("cluster/member/remove", Method::MemberRemove),
    ("cluster/member/update", Method::MemberUpdate),
    ("cluster/member/list", Method::MemberList),
    ("cluster/member/promote", Method::MemberPromote),
    ("maintenance/alarm", Method::Alarm),
    ("maintenance/status", Method::Status),
    ("maintenance/defragment", Method::Defragment),
    ("maintenance/hash", Method::Hash),
    ("maintenance/hashkv", Method::HashKv),
    ("maintenance/snapshot", Method::Snapshot),
    ("maintenance/transfer-leadership", Method::MoveLeader),
    ("maintenance/downgrade", Method::Downgrade),
    ("auth/enable", Method::AuthEnable),
    ("auth/disable", Method::AuthDisable),
    ("auth/status", Method::AuthStatus),
    ("auth/authenticate", Method::Authenticate),
    ("auth/user/add", Method::UserAdd),
    ("auth/user/get", Method::UserGet),
    ("auth/user/list", Method::UserList),
    ("auth/user/delete", Method::UserDelete),
    ("auth/user/changepw", Method::UserChangePassword),
    ("auth/user/grant", Method::UserGrantRole),
    ("auth/user/revoke", Method::UserRevokeRole),
    ("auth/role/add", Method::RoleAdd),
    ("auth/role/get", Method::RoleGet),
    ("auth/role/list", Method::RoleList),
    ("auth/role/delete", Method::RoleDelete),
    ("auth/role/grant", Method::RoleGrantPermission),
    ("auth/role/revoke", Method::RoleRevokePermission),
    ("lock/lock", Method::Lock),
    ("lock/unlock", Method::Unlock),
    ("election/campaign", Method::Campaign),
    ("election/proclaim", Method::Proclaim),
    ("election/leader", Method::Leader),
    ("election/observe", Method::Observe),
    ("election/resign", Method::Resign),
];

/// Whether a path is one of the gateway's, and clean: others are redirected by the pages.
pub(super) fn is_of_gateway(uri: &Uri) -> bool {
    // Most paths are known not to be before they are taken apart.
    uri.path().contains('v') && path(uri).is_some()
}

/// The path behind the prefix, or nothing for the prefix without its slash.
fn path(uri: &Uri) -> Option<Option<String>> {
    let Path::Segments(segments) = Path::parse(uri) else {
        return None;
    };
    // Escapes are resolved before etcd's gateway looks at slashes.
    let path = segments
        .iter()
        .map(Cow::as_ref)
        .collect::<Vec<_>>()
        .join("/");
    let path = format!("/{path}");
    if path == PREFIX.trim_end_matches('/') {
        return Some(None);
    }
    let behind = [PREFIX, OLD_PREFIX]
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix));
    behind.map(|behind| Some(behind.to_owned()))
}

/// Where a path of the gateway's leads.
pub(super) fn route(uri: &Uri) -> Route {
    match path(uri) {
        None => Route::NotFound,
        Some(None) => Route::Redirect(with_query(PREFIX.to_owned(), uri)),
        Some(Some(path)) => {
            let found = METHODS.iter().find(|(known, _)| *known == path);
            found.map_or(Route::NotFound, |(_, method)| Route::Method(*method))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Option<Route>) {
        let uri = path.parse().unwrap();
        let found = is_of_gateway(&uri).then(|| route(&uri));
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn paths_are_methods() {
        check("/v3/kv/range", Some(Route::Method(Method::Range)));
        check("/v3/kv/rang%65?x=1", Some(Route::Method(Method::Range)));
        check("/v3/kv%2Frange", Some(Route::Method(Method::Range)));
        check(
            "/v3beta/kv/lease/leases",
            Some(Route::Method(Method::LeaseLeases)),
        );
        check("/v3?x=1", Some(Route::Redirect("/v3/?x=1".to_owned())));
        for lost in [
            "/v3/",
            "/v3/kv/range/",
            "/v3/kv/Range",
            "/v3/kv/range:x",
            "/v3beta/v3/kv/range",
        ] {
            check(lost, Some(Route::NotFound));
        }
        for other in [
            "/",
            "/version",
            "/v3beta",
            "/v3alpha/kv/range",
            "/v2/keys",
            "/v3//kv",
            "/v3/%zz",
        ] {
            check(other, None);
        }
    }

    /// All that other clients can call, but for what etcd's gateway does not have.
    #[test]
    fn every_method_has_a_path() {
        let missing = Method::ALL
            .iter()
            .filter(|method| !METHODS.iter().any(|(_, known)| known == *method));
        let missing: Vec<Method> = missing.copied().collect();
        let expected = [
            Method::RangeStream,
            Method::HealthCheck,
            Method::HealthList,
            Method::HealthWatch,
        ];
        assert_eq!(missing, expected);
    }
}
