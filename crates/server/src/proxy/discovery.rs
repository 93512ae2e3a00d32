//! `--discovery-srv` of both proxies: the servers as the SRV records of a domain list them.
//!
//! ```text
//! _etcd-client-ssl[-NAME]._tcp.DOMAIN ──▶ https ──┐
//! _etcd-client[-NAME]._tcp.DOMAIN ──────▶ http ───┴─▶ validated unless --insecure-discovery
//! ```
//! Validation keeps the https records whose targets accept connections. As in etcd it makes no
//! handshake: whom a certificate names is found out by whoever speaks TLS to the target.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use retcd_dns::{Resolver, SrvRecord};
use retcd_tls::Authorities;

use super::flags::{Flag, Kind, flag};
use super::{Refusal, join_host_port};
use crate::log::{Text, go_io_error};

const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) const DOMAIN_FLAG: Flag = flag(
    "discovery-srv",
    Kind::Text,
    "",
    "domain whose SRV records list the servers, instead of --endpoints",
);

pub(super) const SERVICE_FLAG: Flag = flag(
    "discovery-srv-name",
    Kind::Text,
    "",
    "suffix of the service in the names of SRV records",
);

pub(super) const INSECURE_FLAG: Flag = flag(
    "insecure-discovery",
    Kind::Bool,
    "false",
    "use SRV records without validating them, and those for http",
);

/// The values of its flags.
pub(super) struct Discovery<'a> {
    /// Nothing is discovered without one.
    pub(super) domain: &'a str,
    pub(super) service_name: &'a str,
    /// Whether records are used as they come.
    pub(super) insecure: bool,
    /// The authorities for the validation; empty for the system's.
    pub(super) authorities: &'a str,
}

/// A server that DNS lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Discovered {
    pub(super) url: String,
    pub(super) record: SrvRecord,
}

impl Discovery<'_> {
    /// Asks name servers; blocks. Nothing is left if nothing is valid.
    ///
    /// # Errors
    /// DNS lists neither kind of servers.
    pub(super) fn discover(&self) -> Result<Vec<Discovered>, Refusal> {
        if self.domain.is_empty() {
            return Ok(Vec::new());
        }
        let resolver = Resolver::from_system();
        let look_up = |service: &str| {
            let records = resolver.lookup_srv(&self.record_name(service));
            records.map_err(|error| error.to_string())
        };
        let found = combine(look_up("etcd-client-ssl"), look_up("etcd-client"));
        let found = found.map_err(Refusal::stderr)?;
        crate::info!("discovered cluster from SRV"; "srv-server" => self.domain, "endpoints" => urls(&found));
        if self.insecure {
            return Ok(found);
        }
        Ok(self.validate(found))
    }

    fn record_name(&self, service: &str) -> String {
        match self.service_name {
            "" => format!("_{service}._tcp.{}", self.domain),
            name => format!("_{service}-{name}._tcp.{}", self.domain),
        }
    }

    fn validate(&self, found: Vec<Discovered>) -> Vec<Discovered> {
        crate::info!("validating discovered SRV endpoints"; "srv-server" => self.domain, "endpoints" => urls(&found));
        let (valid, failure) = match self.check_authorities() {
            Ok(()) => valid(found, dial),
            Err(error) => (Vec::new(), error),
        };
        if failure.is_empty() {
            crate::info!("using validated discovered SRV endpoints"; "srv-server" => self.domain, "endpoints" => urls(&valid));
        } else {
            crate::warn!("failed to validate discovered endpoints"; "srv-server" => self.domain,
                "endpoints" => urls(&valid), "error" => Text(failure));
        }
        valid
    }

    fn check_authorities(&self) -> Result<(), String> {
        if self.authorities.is_empty() {
            return Ok(());
        }
        let loaded = Authorities::load(self.authorities.as_ref());
        loaded.map(drop).map_err(|error| error.to_string())
    }
}

fn combine(
    secure: Result<Vec<SrvRecord>, String>,
    plain: Result<Vec<SrvRecord>, String>,
) -> Result<Vec<Discovered>, String> {
    if let (Err(first), Err(second)) = (&secure, &plain) {
        return Err(format!("dns lookup errors: {first} and {second}"));
    }
    let of = |scheme: &'static str, records: Result<Vec<SrvRecord>, String>| {
        let records = records.unwrap_or_default().into_iter();
        records.map(move |record| Discovered {
            url: format!("{scheme}://{}", join_host_port(&record.target, record.port)),
            record,
        })
    };
    Ok(of("https", secure).chain(of("http", plain)).collect())
}

/// The valid ones, and what is wrong with the others.
fn valid(
    found: Vec<Discovered>,
    dial: impl Fn(&str) -> Result<(), String>,
) -> (Vec<Discovered>, String) {
    let mut failures = Vec::new();
    let mut valid = found;
    valid.retain(|Discovered { url, .. }| {
        let checked = match url.strip_prefix("https://") {
            None => Err(format!("{url:?} is insecure")),
            Some(address) => {
                dial(address).map_err(|error| format!("{url:?} failed to dial ({error})"))
            }
        };
        checked.map_err(|failure| failures.push(failure)).is_ok()
    });
    (valid, failures.join(","))
}

fn dial(address: &str) -> Result<(), String> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let mut failure = format!("dial tcp: lookup {host}: no such host");
    for address in address.to_socket_addrs().into_iter().flatten() {
        match TcpStream::connect_timeout(&address, DIAL_TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(error) => {
                failure = format!("dial tcp {address}: connect: {}", go_io_error(&error));
            }
        }
    }
    Err(failure)
}

fn urls(found: &[Discovered]) -> Vec<String> {
    found.iter().map(|found| found.url.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(target: &str) -> SrvRecord {
        SrvRecord {
            priority: 0,
            weight: 0,
            port: 2379,
            target: target.to_owned(),
        }
    }

    #[test]
    fn one_of_the_two_services_is_enough() {
        let missing = |name: &str| Err(format!("lookup {name}: no such host"));
        assert_eq!(
            combine(missing("a"), missing("b")),
            Err("dns lookup errors: lookup a: no such host and lookup b: no such host".to_owned())
        );
        let found = combine(missing("a"), Ok(vec![record("m1.example.com.")])).unwrap();
        assert_eq!(urls(&found), ["http://m1.example.com.:2379"]);
        let found = combine(Ok(vec![record("m2.")]), Ok(vec![record("m1.")])).unwrap();
        assert_eq!(urls(&found), ["https://m2.:2379", "http://m1.:2379"]);
    }

    #[test]
    fn what_is_not_valid_is_told() {
        let found = combine(
            Ok(vec![record("up."), record("down.")]),
            Ok(vec![record("plain.")]),
        );
        let dial = |address: &str| match address {
            "up.:2379" => Ok(()),
            _ => Err("refused".to_owned()),
        };
        let (valid, failure) = valid(found.unwrap(), dial);
        assert_eq!(urls(&valid), ["https://up.:2379"]);
        assert_eq!(
            failure,
            "\"https://down.:2379\" failed to dial (refused),\"http://plain.:2379\" is insecure"
        );
    }
}
