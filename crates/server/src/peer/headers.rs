//! The headers by which members identify each other, and their checks.
//!
//! Ids are lower-case hexadecimal without padding and compared as text, as in etcd.

use http::{HeaderMap, HeaderName, HeaderValue};
use retcd_state::version::Version;

use super::LocalMember;
use crate::log::{self, Hex};

/// The sender's id.
pub(crate) const SERVER_FROM: HeaderName = HeaderName::from_static("x-server-from");
/// The version of the sender's program; in responses to stream requests, of the responder's.
pub(crate) const SERVER_VERSION: HeaderName = HeaderName::from_static("x-server-version");
/// The lowest version that the sender accepts.
pub(crate) const MIN_CLUSTER_VERSION: HeaderName = HeaderName::from_static("x-min-cluster-version");
/// Of an answer with versions: its sender keeps API v2, which etcd from 3.6 on does not.
pub(crate) const KEEPS_V2: HeaderName = HeaderName::from_static("x-etcd-keeps-v2");
/// The cluster's id.
pub(crate) const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
/// The sender's peer URLs, for receivers that do not know it yet.
pub(crate) const PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");
/// The id of the recipient.
pub(crate) const RAFT_TO: HeaderName = HeaderName::from_static("x-raft-to");

/// The lowest version that this member accepts; that of all etcd 3.x.
const MIN_VERSION: &str = "3.0.0";
/// The version that a missing header stands for.
const VERSION_WITHOUT_HEADER: &str = "2.0.0";

/// The headers of this member's requests.
pub(super) fn request_headers(local: &LocalMember) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(SERVER_FROM, hex_value(local.id));
    headers.insert(SERVER_VERSION, HeaderValue::from_static(crate::VERSION));
    headers.insert(MIN_CLUSTER_VERSION, HeaderValue::from_static(MIN_VERSION));
    headers.insert(CLUSTER_ID, hex_value(local.cluster_id));
    // URLs have been parsed, and valid ones are valid in headers.
    if let Ok(urls) = HeaderValue::from_str(&local.urls.join(",")) {
        headers.insert(PEER_URLS, urls);
    }
    headers
}

/// An id as a header.
pub(crate) fn hex_value(id: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("{id:x}")).expect("hexadecimal digits are valid in a header")
}

/// The text of a header; empty if it is missing or not text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Why a request is refused with status 412; displayed, the body of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The version of one member is too low for the other.
    #[error("incompatible version")]
    Version,
    /// The sender belongs to another cluster.
    #[error("cluster ID mismatch")]
    Cluster,
}

impl Mismatch {
    /// Parses the body of a response with status 412; none if it is another error.
    pub(super) fn from_text(body: &[u8]) -> Option<Mismatch> {
        let body = body.strip_suffix(b"\n").unwrap_or(body);
        [Mismatch::Version, Mismatch::Cluster]
            .into_iter()
            .find(|mismatch| mismatch.to_string().as_bytes() == body)
    }
}

/// Checks versions and then the cluster id. `log` says whether to log a refusal.
pub(super) fn check(
    local: &LocalMember,
    headers: &HeaderMap,
    log: impl FnOnce() -> bool,
) -> Result<(), Mismatch> {
    let remote = Remote {
        name: text(headers, &SERVER_FROM),
        server: version_text(headers, &SERVER_VERSION),
        min_cluster: version_text(headers, &MIN_CLUSTER_VERSION),
    };
    if let Err(reason) = remote.check_versions() {
        if log() {
            log::warn!("failed version compatibility check";
                "local-member-id" => Hex(local.id),
                "local-member-cluster-id" => Hex(local.cluster_id),
                "local-member-server-version" => crate::VERSION,
                "local-member-server-minimum-cluster-version" => MIN_VERSION,
                "remote-peer-server-name" => remote.name,
                "remote-peer-server-version" => remote.server,
                "remote-peer-server-minimum-cluster-version" => remote.min_cluster,
                "error" => reason);
        }
        return Err(Mismatch::Version);
    }
    let cluster = text(headers, &CLUSTER_ID);
    if cluster != format!("{:x}", local.cluster_id) {
        if log() {
            log::warn!("request cluster ID mismatch";
                "local-member-id" => Hex(local.id),
                "local-member-cluster-id" => Hex(local.cluster_id),
                "local-member-server-version" => crate::VERSION,
                "local-member-server-minimum-cluster-version" => MIN_VERSION,
                "remote-peer-server-name" => remote.name,
                "remote-peer-server-version" => remote.server,
                "remote-peer-server-minimum-cluster-version" => remote.min_cluster,
                "remote-peer-cluster-id" => cluster);
        }
        return Err(Mismatch::Cluster);
    }
    Ok(())
}

struct Remote<'a> {
    name: &'a str,
    server: &'a str,
    min_cluster: &'a str,
}

impl Remote<'_> {
    /// Compares major and minor versions. A version that does not parse, on which etcd panics, is
    /// refused.
    fn check_versions(&self) -> Result<(), String> {
        let local = major_minor(crate::VERSION);
        let lowest = major_minor(MIN_VERSION);
        let (server, min_cluster) = (major_minor(self.server), major_minor(self.min_cluster));
        let complain = |which| {
            Err(format!(
                "{which} version is too low: remote[{}]={}, local={}",
                self.name,
                self.server,
                crate::VERSION
            ))
        };
        if server.is_none() || server < lowest {
            complain("remote")
        } else if min_cluster.is_none() || min_cluster > local {
            complain("local")
        } else {
            Ok(())
        }
    }
}

/// The version in a header, or [`VERSION_WITHOUT_HEADER`].
pub(super) fn version_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    match text(headers, name) {
        "" => VERSION_WITHOUT_HEADER,
        version => version,
    }
}

/// Major and minor of a semantic version.
pub(super) fn major_minor(version: &str) -> Option<(u64, u64)> {
    let version = Version::parse(version.as_bytes())?;
    Some((version.major, version.minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> LocalMember {
        LocalMember {
            id: 0x1a,
            cluster_id: 0xc0ffee,
            urls: vec![
                "http://127.0.0.1:2380".into(),
                "http://127.0.0.1:2381".into(),
            ],
        }
    }

    fn checked(change: impl FnOnce(&mut HeaderMap)) -> Result<(), Mismatch> {
        let mut headers = request_headers(&local());
        change(&mut headers);
        check(&local(), &headers, || false)
    }

    #[test]
    fn own_headers_are_etcds() {
        let headers = request_headers(&local());
        let all: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(
            all,
            [
                ("x-server-from", "1a"),
                ("x-server-version", crate::VERSION),
                ("x-min-cluster-version", "3.0.0"),
                ("x-etcd-cluster-id", "c0ffee"),
                ("x-peerurls", "http://127.0.0.1:2380,http://127.0.0.1:2381"),
            ]
        );
        assert_eq!(checked(|_| ()), Ok(()));
    }

    #[test]
    fn versions_are_compared_by_major_and_minor() {
        for (server, min_cluster, expected) in [
            ("3.0.0", "2.3.8", Ok(())),
            ("3.4.23", "3.0.0", Ok(())),
            ("4.1.0", "3.0.0", Ok(())),
            ("3.7.0-rc.1+git", "3.7.9", Ok(())),
            ("2.3.8", "2.0.0", Err(Mismatch::Version)),
            ("3.8.0", "3.8.0", Err(Mismatch::Version)),
            ("three", "3.0.0", Err(Mismatch::Version)),
            ("3.7", "3.0.0", Err(Mismatch::Version)),
            ("3.7.0", "-1.0.0", Err(Mismatch::Version)),
            (
                "99999999999999999999999.0.0",
                "3.0.0",
                Err(Mismatch::Version),
            ),
        ] {
            let found = checked(|headers| {
                headers.insert(SERVER_VERSION, HeaderValue::from_str(server).unwrap());
                headers.insert(
                    MIN_CLUSTER_VERSION,
                    HeaderValue::from_str(min_cluster).unwrap(),
                );
            });
            assert_eq!(found, expected, "{server} {min_cluster}");
        }
        let without = checked(|headers| {
            headers.remove(SERVER_VERSION);
        });
        assert_eq!(without, Err(Mismatch::Version));
    }

    #[test]
    fn the_version_is_looked_at_before_the_cluster() {
        let foreign = |headers: &mut HeaderMap| {
            headers.insert(CLUSTER_ID, HeaderValue::from_static("0c0ffee"));
        };
        assert_eq!(checked(foreign), Err(Mismatch::Cluster));
        let both = checked(|headers| {
            foreign(headers);
            headers.remove(SERVER_VERSION);
        });
        assert_eq!(both, Err(Mismatch::Version));
        let without = checked(|headers| {
            headers.remove(CLUSTER_ID);
        });
        assert_eq!(without, Err(Mismatch::Cluster));
    }
}
