//! `--discovery-srv`: the members of the cluster as the SRV records of a domain list them.
//!
//! ```text
//! _etcd-server-ssl[-NAME]._tcp.DOMAIN ──▶ https ──┐
//! _etcd-server[-NAME]._tcp.DOMAIN ──────▶ http ───┴─▶ "m1=https://…,0=https://…,1=https://…"
//! ```
//! The record of this member is the one with its advertised address; it gets this member's name.
//! The others get numbers in place of names, which they replace once they have started.

use std::net::SocketAddr;

use retcd_dns::{Resolver, SrvRecord};

use super::BootstrapError;
use super::addresses::{Resolve, resolve_once};
use super::initial_cluster::InitialCluster;
use crate::config::Config;
use crate::config::url::{Scheme, Url};

/// Looks up SRV records; fails with the resolver's text.
type Lookup<'a> = &'a dyn Fn(&str) -> Result<Vec<SrvRecord>, String>;

/// The two services, and the scheme of the URLs of each.
const SERVICES: [(&str, &str); 2] = [("etcd-server-ssl", "https"), ("etcd-server", "http")];

/// The members that DNS lists, in the form of `--initial-cluster`. Blocks.
///
/// # Errors
/// There are no records, or this member is not among them.
pub(super) fn initial_cluster(config: &Config) -> Result<String, BootstrapError> {
    let resolver = Resolver::from_system();
    let look_up = |name: &str| {
        let records = resolver.lookup_srv(name);
        records.map_err(|error| error.to_string())
    };
    find(config, &look_up, &resolve_once)
}

fn find(
    config: &Config,
    look_up: Lookup<'_>,
    resolve: Resolve<'_>,
) -> Result<String, BootstrapError> {
    let (mut members, mut failures) = (Vec::new(), Vec::new());
    for (service, scheme) in SERVICES {
        let service = match config.discovery_srv_name.as_str() {
            "" => service.to_owned(),
            suffix => format!("{service}-{suffix}"),
        };
        let found = records(config, &service, scheme, look_up, resolve)
            .map_err(|failure| format!("error querying DNS SRV records for _{service} {failure}"));
        tell(config, &service, scheme, &found);
        match found {
            Ok(found) => members.extend(found),
            Err(failure) => failures.push(failure),
        }
    }
    let failures = failures.join("\n");
    if !failures.is_empty() {
        crate::warn!("failed to resolve during SRV discovery"; "error" => &failures);
    }
    if members.is_empty() {
        return Err(BootstrapError::InitialCluster(failures));
    }
    for member in &members {
        crate::info!("got bootstrap from DNS for etcd-server"; "node" => member);
    }
    let members = members.join(",");
    if InitialCluster::parse(&members)?
        .urls_of(&config.name)
        .is_err()
    {
        return Err(BootstrapError::InitialCluster(format!(
            "cannot find local etcd member {:?} in SRV records",
            config.name
        )));
    }
    Ok(members)
}

/// The members that one service lists, as `name=url`. Those whose address is unknown are passed
/// over.
fn records(
    config: &Config,
    service: &str,
    scheme: &str,
    look_up: Lookup<'_>,
    resolve: Resolve<'_>,
) -> Result<Vec<String>, String> {
    let resolve = |address: &str| {
        resolve(address).map_err(|_| {
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            format!("lookup {host}: no such host")
        })
    };
    let mut own: Vec<(SocketAddr, &Url)> = Vec::new();
    for url in &config.initial_advertise_peer_urls {
        own.push((resolve(&url.address())?, url));
    }
    let (mut members, mut failure) = (Vec::new(), None);
    let mut numbers = 0..;
    for record in look_up(&format!("_{service}._tcp.{}", config.discovery_srv))? {
        let host = record.target.trim_end_matches('.');
        let url = format!("{scheme}://{host}:{}", record.port);
        let address = match resolve(&format!("{host}:{}", record.port)) {
            Ok(address) => address,
            Err(error) => {
                failure = Some(error);
                continue;
            }
        };
        let advertised = own.iter().find(|(own, _)| *own == address);
        match advertised {
            Some((_, expected)) if scheme_of(expected) != scheme => {
                failure = Some(format!(
                    "bootstrap at {url} from DNS for {service} has scheme mismatch with expected peer {expected}"
                ));
            }
            Some(_) => members.push(format!("{}={url}", config.name)),
            None => members.push(format!("{}={url}", numbers.next().unwrap_or(0))),
        }
    }
    match failure {
        Some(failure) if members.is_empty() => Err(failure),
        _ => Ok(members),
    }
}

fn scheme_of(url: &Url) -> &'static str {
    match url.scheme() {
        Scheme::Https => "https",
        Scheme::Http => "http",
        Scheme::Unix => "unix",
        Scheme::Unixs => "unixs",
    }
}

fn tell(config: &Config, service: &str, scheme: &str, found: &Result<Vec<String>, String>) {
    let what = service.strip_suffix(&format!("-{}", config.discovery_srv_name));
    let advertised: Vec<String> = config
        .initial_advertise_peer_urls
        .iter()
        .map(Url::to_string)
        .collect();
    let none = Vec::new();
    let message = format!("get cluster for {} SRV", what.unwrap_or(service));
    let mut record = crate::log_record!(Info, None, message;
        "service-scheme" => scheme, "service-name" => service, "server-name" => &config.name,
        "discovery-srv" => &config.discovery_srv, "advertise-peer-urls" => &advertised,
        "found-cluster" => found.as_ref().unwrap_or(&none));
    if let Err(error) = found {
        record.with("error", error);
    }
    crate::log::emit(&record);
}

#[cfg(test)]
mod tests {
    //! What is guarded: the name that each member computes for itself and for the others, since its
    //! first start depends on it.
    use super::*;

    const DOMAIN: &str = "cluster.example";

    fn record(target: &str, port: u16) -> SrvRecord {
        SrvRecord {
            priority: 0,
            weight: 0,
            port,
            target: target.to_owned(),
        }
    }

    /// `m1.example.` and `m2.example.` are loopback addresses; others do not resolve.
    fn resolve(address: &str) -> std::io::Result<SocketAddr> {
        let (host, port) = address.rsplit_once(':').expect("host:port");
        let last = match host {
            "m1.example" | "127.0.0.1" => 1,
            "m2.example" => 2,
            _ => return Err(std::io::Error::other("not found")),
        };
        Ok(([127, 0, 0, last], port.parse().expect("a port")).into())
    }

    struct Case {
        advertised: &'static str,
        secure: Result<Vec<SrvRecord>, String>,
        plain: Result<Vec<SrvRecord>, String>,
    }

    impl Case {
        #[track_caller]
        fn check(self, expected: &str) {
            let mut config = Config::from_table();
            config.name = "m1".into();
            config.discovery_srv = DOMAIN.into();
            config.discovery_srv_name = "x".into();
            config.initial_advertise_peer_urls = Url::parse_list(self.advertised).expect("valid");
            let look_up = |name: &str| match name {
                "_etcd-server-ssl-x._tcp.cluster.example" => self.secure.clone(),
                "_etcd-server-x._tcp.cluster.example" => self.plain.clone(),
                other => panic!("a lookup of {other}"),
            };
            let found = find(&config, &look_up, &resolve);
            let found = found.unwrap_or_else(|error| error.to_string());
            assert_eq!(found, expected);
        }
    }

    fn missing() -> Result<Vec<SrvRecord>, String> {
        Err("lookup X: no such host".to_owned())
    }

    #[test]
    fn the_record_with_the_own_address_has_the_own_name() {
        let records = vec![
            record("m2.example.", 2380),
            record("nowhere.example.", 2380),
            record("m1.example.", 2380),
            record("m1.example.", 2390),
        ];
        Case {
            advertised: "http://127.0.0.1:2380",
            secure: missing(),
            plain: Ok(records),
        }
        .check("0=http://m2.example:2380,m1=http://m1.example:2380,1=http://m1.example:2390");
        Case {
            advertised: "https://m1.example:2380",
            secure: Ok(vec![record("m1.example.", 2380)]),
            plain: Ok(vec![record("m2.example.", 2380)]),
        }
        .check("m1=https://m1.example:2380,0=http://m2.example:2380");
    }

    #[test]
    fn a_start_without_its_own_record_is_refused() {
        Case {
            advertised: "http://m1.example:2380",
            secure: missing(),
            plain: Ok(vec![record("m2.example.", 2380)]),
        }
        .check(
            "error setting up initial cluster: cannot find local etcd member \"m1\" in SRV records",
        );
    }

    #[test]
    fn failures_are_told_in_etcds_words() {
        Case {
            advertised: "http://m1.example:2380",
            secure: missing(),
            plain: missing(),
        }
        .check(
            "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl-x lookup X: no such host\n\
             error querying DNS SRV records for _etcd-server-x lookup X: no such host",
        );
        let mismatch = "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl-x bootstrap at \
                        https://m1.example:2380 from DNS for etcd-server-ssl-x has scheme mismatch with expected peer \
                        http://m1.example:2380\nerror querying DNS SRV records for _etcd-server-x lookup X: no such host";
        Case {
            advertised: "http://m1.example:2380",
            secure: Ok(vec![record("m1.example.", 2380)]),
            plain: missing(),
        }
        .check(mismatch);
        Case {
            advertised: "http://nowhere.example:2380",
            secure: Ok(vec![record("m1.example.", 2380)]),
            plain: missing(),
        }
        .check(
            "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl-x lookup nowhere.example: no such host\n\
             error querying DNS SRV records for _etcd-server-x lookup nowhere.example: no such host",
        );
    }
}
