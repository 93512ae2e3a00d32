//! The headers that members recognize each other by, and what they must hold.
//!
//! Ids are lower-case hexadecimal without padding and compared as text, as Go's etcd does.

use http::{HeaderMap, HeaderName, HeaderValue};
use retcd_state::version::Version;

use super::Identity;
use crate::log::{self, Hex};

/// The sender's id.
pub(crate) const SERVER_FROM: HeaderName = HeaderName::from_static("x-server-from");
/// The version of the sender's program; of the answering one in responses to streams.
pub(crate) const SERVER_VERSION: HeaderName = HeaderName::from_static("x-server-version");
/// The lowest version that the sender talks to.
pub(crate) const MIN_CLUSTER_VERSION: HeaderName = HeaderName::from_static("x-min-cluster-version");
/// The cluster's id.
pub(crate) const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
/// The sender's peer URLs, for receivers that do not know it yet.
pub(crate) const PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");
/// Whom the sender means to talk to.
pub(crate) const RAFT_TO: HeaderName = HeaderName::from_static("x-raft-to");

/// The lowest version that this member talks to, which is etcd's for all of 3.x.
const MIN_VERSION: &str = "3.0.0";
/// What a missing version header stands for.
const VERSION_WITHOUT_HEADER: &str = "2.0.0";

/// The headers of this member's requests.
pub(super) fn request_headers(identity: &Identity) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(SERVER_FROM, hex_value(identity.id));
    headers.insert(SERVER_VERSION, HeaderValue::from_static(crate::VERSION));
    headers.insert(MIN_CLUSTER_VERSION, HeaderValue::from_static(MIN_VERSION));
    headers.insert(CLUSTER_ID, hex_value(identity.cluster_id));
    // URLs are parsed before they get here, so a value that no header can hold does not occur.
    if let Ok(urls) = HeaderValue::from_str(&identity.urls.join(",")) {
        headers.insert(PEER_URLS, urls);
    }
    headers
}

/// An id as a header.
pub(crate) fn hex_value(id: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("{id:x}")).expect("hexadecimal digits are valid in a header")
}

/// The text of a header; empty when it is missing or not text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Why a request is not from this cluster. Displays the body of the answer, status 412.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// One of the two is too old for the other.
    #[error("incompatible version")]
    Version,
    /// The sender belongs to another cluster.
    #[error("cluster ID mismatch")]
    Cluster,
}

impl Mismatch {
    /// What the body of an answer with status 412 says; `None` if it is none of these.
    pub(super) fn from_text(body: &[u8]) -> Option<Mismatch> {
        let body = body.strip_suffix(b"\n").unwrap_or(body);
        [Mismatch::Version, Mismatch::Cluster]
            .into_iter()
            .find(|mismatch| mismatch.to_string().as_bytes() == body)
    }
}

/// Checks versions and cluster id, in this order. `log` says whether a refusal is to be logged.
pub(super) fn check(
    identity: &Identity,
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
                "local-member-id" => Hex(identity.id),
                "local-member-cluster-id" => Hex(identity.cluster_id),
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
    if cluster != format!("{:x}", identity.cluster_id) {
        if log() {
            log::warn!("request cluster ID mismatch";
                "local-member-id" => Hex(identity.id),
                "local-member-cluster-id" => Hex(identity.cluster_id),
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
    /// Compares major and minor alone. A version that is none (on which the Go server panics) is refused.
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

/// The version in a header, or what stands for none.
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

    fn identity() -> Identity {
        Identity {
            id: 0x1a,
            cluster_id: 0xc0ffee,
            urls: vec![
                "http://127.0.0.1:2380".into(),
                "http://127.0.0.1:2381".into(),
            ],
        }
    }

    fn checked(change: impl FnOnce(&mut HeaderMap)) -> Result<(), Mismatch> {
        let mut headers = request_headers(&identity());
        change(&mut headers);
        check(&identity(), &headers, || false)
    }

    #[test]
    fn own_headers_are_etcds() {
        let headers = request_headers(&identity());
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
