//! The new cluster of a restored member: members and ids.
//!
//! All members restored with the same flags compute the same ids.

use std::collections::{BTreeMap, BTreeSet};
use std::net::ToSocketAddrs;

use retcd_state::identity::{cluster_id, member_id};

use crate::go::json;
use crate::go::quote::quote;
use crate::urls::{MemberUrl, UrlError};

/// An initial member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// The member id.
    pub(crate) id: u64,
    /// The member name.
    pub(crate) name: String,
    /// Its peer URLs, sorted.
    pub(crate) peer_urls: Vec<String>,
}

impl Member {
    /// The member in JSON, as etcd stores it in the database and the log.
    pub(crate) fn to_json(&self) -> String {
        let mut text = String::new();
        json::object(&mut text, |o| {
            o.value("id", self.id);
            json::array(o.field("peerURLs"), &self.peer_urls, |out, url| {
                json::string(out, url)
            });
            o.string_opt("name", &self.name);
        });
        text
    }
}

/// A new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// The cluster id.
    pub(crate) id: u64,
    /// The id of the restored member.
    pub(crate) own_id: u64,
    /// All members, sorted by id.
    pub(crate) members: Vec<Member>,
}

/// Why the flags do not describe a cluster.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClusterError {
    /// A URL is invalid.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The member is not in the cluster.
    #[error("couldn't find local name {} in the initial cluster configuration", quote(.0.as_bytes()))]
    NameMissing(String),
    /// The advertised URLs differ from the member's URLs in the cluster.
    #[error("--initial-cluster has {0} but missing from --initial-advertise-peer-urls={1} ({2})")]
    NotAdvertised(String, String, String),
    /// The member's URLs in the cluster do not include all advertised ones.
    #[error("--initial-advertise-peer-urls has {0} but missing from --initial-cluster={1}")]
    NotInCluster(String, String),
    /// Two members have the same URL.
    #[error("initial cluster {0} has duplicate url")]
    DuplicateUrl(String),
}

/// Computes the cluster from the flags.
///
/// # Errors
/// The flags contradict each other, or a URL is invalid.
pub(crate) fn found(
    name: &str,
    initial_cluster: &str,
    advertised: &str,
    token: &str,
) -> Result<Cluster, ClusterError> {
    let advertised = parse_urls(advertised.split(','))?;
    let by_name = parse_cluster(initial_cluster)?;
    let own = by_name
        .get(name)
        .ok_or_else(|| ClusterError::NameMissing(name.to_owned()))?;
    check_advertised(name, &advertised, own)?;
    let mut seen = BTreeSet::new();
    if !by_name.values().flatten().all(|url| seen.insert(url)) {
        return Err(ClusterError::DuplicateUrl(shown(&by_name)));
    }
    let mut members: Vec<Member> = by_name
        .iter()
        .map(|(name, urls)| Member {
            id: member_id(urls, token),
            name: name.clone(),
            peer_urls: urls.clone(),
        })
        .collect();
    members.sort_by_key(|member| member.id);
    let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
    let own_id = members
        .iter()
        .find(|member| member.name == name)
        .map_or(0, |member| member.id);
    Ok(Cluster {
        id: cluster_id(&ids),
        own_id,
        members,
    })
}

fn parse_urls<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Vec<String>, UrlError> {
    let mut urls = texts
        .into_iter()
        .map(MemberUrl::parse)
        .collect::<Result<Vec<_>, _>>()?;
    urls.sort();
    Ok(urls.iter().map(|url| url.as_str().to_owned()).collect())
}

fn parse_cluster(text: &str) -> Result<BTreeMap<String, Vec<String>>, UrlError> {
    let mut members: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let (name, url) = item.split_once('=').unwrap_or((item, ""));
        members.entry(name.trim().to_owned()).or_default().push(url);
    }
    members
        .into_iter()
        .map(|(name, urls)| Ok((name, parse_urls(urls)?)))
        .collect()
}

fn shown(members: &BTreeMap<String, Vec<String>>) -> String {
    let mut pairs: Vec<String> = members
        .iter()
        .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")))
        .collect();
    pairs.sort();
    pairs.join(",")
}

/// Compares the member's URLs with the advertised ones, textually or by resolved address.
fn check_advertised(
    name: &str,
    advertised: &[String],
    in_cluster: &[String],
) -> Result<(), ClusterError> {
    let Err(reason) = same_addresses(advertised, in_cluster) else {
        return Ok(());
    };
    let missing = |these: &[String], those: &[String], prefix: &str| -> Vec<String> {
        these
            .iter()
            .filter(|url| !those.contains(url))
            .map(|url| format!("{prefix}{url}"))
            .collect()
    };
    let named = format!("{name}=");
    let not_advertised = missing(in_cluster, advertised, &named);
    if !not_advertised.is_empty() {
        return Err(ClusterError::NotAdvertised(
            not_advertised.join(","),
            advertised.join(","),
            reason,
        ));
    }
    let not_in_cluster = missing(advertised, in_cluster, "");
    let cluster: Vec<String> = advertised
        .iter()
        .map(|url| format!("{named}{url}"))
        .collect();
    Err(ClusterError::NotInCluster(
        not_in_cluster.join(","),
        cluster.join(","),
    ))
}

fn same_addresses(a: &[String], b: &[String]) -> Result<(), String> {
    let listed = |urls: &[String]| {
        urls.iter()
            .map(|url| quote(url.as_bytes()))
            .collect::<Vec<_>>()
            .join(" ")
    };
    if a.len() != b.len() {
        return Err(format!("len([{}]) != len([{}])", listed(a), listed(b)));
    }
    if a == b {
        return Ok(());
    }
    let resolved = |urls: &[String]| {
        let mut urls: Vec<String> = urls.iter().map(|url| resolve(url)).collect();
        urls.sort();
        urls
    };
    let (resolved_a, resolved_b) = (resolved(a), resolved(b));
    match resolved_a.iter().zip(&resolved_b).find(|(a, b)| a != b) {
        None => Ok(()),
        Some(_) => Err(format!("resolved urls: {} != {}", listed(a), listed(b))),
    }
}

/// The URL with its host name resolved to an IP address, if possible.
fn resolve(url: &str) -> String {
    let Some((scheme, address)) = url
        .split_once("://")
        .filter(|(scheme, _)| scheme.starts_with("http"))
    else {
        return url.to_owned();
    };
    let resolved = address
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next());
    resolved.map_or_else(|| url.to_owned(), |address| format!("{scheme}://{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computes_the_ids_that_etcd_computes() {
        let cluster = "a=http://127.0.0.1:29380,b=http://127.0.0.1:29382";
        let founded =
            found("a", cluster, "http://127.0.0.1:29380", "etcd-cluster").expect("valid flags");
        assert_eq!(founded.own_id, 0x151a_a8a8_d37c_3e01_u64);
        assert_eq!(founded.members[1].id, 0xb90b_d3cf_b420_c743);
        let json = r#"{"id":1520713267247070721,"peerURLs":["http://127.0.0.1:29380"],"name":"a"}"#;
        assert_eq!(founded.members[0].to_json(), json);
    }

    #[test]
    fn names_what_contradicts() {
        let check = |name: &str, cluster: &str, urls: &str, text: &str| {
            let result = found(name, cluster, urls, "t").map_err(|error| error.to_string());
            assert_eq!(result, Err(text.to_owned()));
        };
        let url = "http://127.0.0.1:24060";
        check(
            "zz",
            "a=http://a:1",
            url,
            "couldn't find local name \"zz\" in the initial cluster configuration",
        );
        check(
            "default",
            "foo",
            url,
            "URL scheme must be http, https, unix, or unixs: ",
        );
        check(
            "default",
            "default=foo",
            url,
            "URL scheme must be http, https, unix, or unixs: foo",
        );
        check(
            "a",
            "a=http://127.0.0.1:24060,b=http://127.0.0.1:24060",
            url,
            "initial cluster a=http://127.0.0.1:24060,b=http://127.0.0.1:24060 has duplicate url",
        );
        check(
            "a",
            "a=http://127.0.0.1:1",
            url,
            "--initial-cluster has a=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=http://127.0.0.1:24060 \
             (resolved urls: \"http://127.0.0.1:24060\" != \"http://127.0.0.1:1\")",
        );
    }
}
