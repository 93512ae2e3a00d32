//! `--discovery-srv` of both proxies: the servers as the SRV records of a domain list them.
//!
//! Unless `--insecure-discovery` is given they are validated, which keeps the https records whose
//! targets accept connections. As in etcd that makes no handshake: whom a certificate names is found
//! out by whoever speaks TLS to the target.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use retcd_dns::{ClientEndpoint, Resolver};
use retcd_tls::Authorities;

use super::Refusal;
use super::flags::{Flag, Kind, flag};
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

impl Discovery<'_> {
    /// Asks name servers; blocks. Nothing is left if nothing is valid.
    ///
    /// # Errors
    /// DNS lists neither kind of servers.
    pub(super) fn discover(&self) -> Result<Vec<ClientEndpoint>, Refusal> {
        if self.domain.is_empty() {
            return Ok(Vec::new());
        }
        let resolver = Resolver::from_system();
        let found = resolver.lookup_client_endpoints(self.domain, self.service_name);
        let found = found.map_err(Refusal::stderr)?;
        crate::info!("discovered cluster from SRV"; "srv-server" => self.domain, "endpoints" => urls(&found));
        if self.insecure {
            return Ok(found);
        }
        Ok(self.validate(found))
    }

    fn validate(&self, found: Vec<ClientEndpoint>) -> Vec<ClientEndpoint> {
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

/// The valid ones, and what is wrong with the others.
fn valid(
    found: Vec<ClientEndpoint>,
    dial: impl Fn(&str) -> Result<(), String>,
) -> (Vec<ClientEndpoint>, String) {
    let mut failures = Vec::new();
    let mut valid = found;
    valid.retain(|ClientEndpoint { url, .. }| {
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

fn urls(found: &[ClientEndpoint]) -> Vec<String> {
    found.iter().map(|found| found.url.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use retcd_dns::SrvRecord;

    fn found(url: &str) -> ClientEndpoint {
        ClientEndpoint {
            url: url.to_owned(),
            record: SrvRecord {
                priority: 0,
                weight: 0,
                port: 2379,
                target: String::new(),
            },
        }
    }

    #[test]
    fn what_is_not_valid_is_told() {
        let found = vec![
            found("https://up.:2379"),
            found("https://down.:2379"),
            found("http://plain.:2379"),
        ];
        let dial = |address: &str| match address {
            "up.:2379" => Ok(()),
            _ => Err("refused".to_owned()),
        };
        let (valid, failure) = valid(found, dial);
        assert_eq!(urls(&valid), ["https://up.:2379"]);
        assert_eq!(
            failure,
            "\"https://down.:2379\" failed to dial (refused),\"http://plain.:2379\" is insecure"
        );
    }
}
