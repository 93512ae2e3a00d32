//! DNS lookups that the standard library does not offer: SRV records, and the host names of an
//! address (PTR).
//!
//! ```text
//! /etc/resolv.conf ──▶ servers, search list ──▶ query over UDP, over TCP if truncated ──▶ records
//! /etc/hosts ────────▶ names of addresses, consulted before any server
//! ```
//! [`Resolver::lookup_client_endpoints`] knows the names under which etcd's servers are listed.
//!
//! The behaviour is that of Go's resolver, which etcd uses: the same files, timeouts, attempts,
//! order of names and error texts. Calls block, for seconds if servers do not respond; call from a
//! thread that may block.
//!
//! Deliberately absent: address lookups (the system resolver does those), caching, DNSSEC,
//! encrypted transports.

#![warn(unreachable_pub)]

mod message;
mod services;
mod system;
mod transport;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use message::{Answer, Query, Record};

pub use message::SrvRecord;
pub use services::{ClientEndpoint, ClientEndpointsError};

/// A blocking DNS resolver.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// Name servers, in the order in which they are tried.
    pub servers: Vec<SocketAddr>,
    /// Domains appended to names that are not fully qualified.
    pub search: Vec<String>,
    /// A name with at least this many dots is tried as it is before the search list.
    pub ndots: usize,
    /// Timeout of one query to one server.
    pub timeout: Duration,
    /// How many times the list of servers is tried.
    pub attempts: usize,
    /// The hosts file.
    pub hosts: PathBuf,
}

/// Why a lookup failed. Displays the text that Go's resolver reports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lookup {name} on {server}: {reason}")]
pub struct LookupError {
    name: String,
    server: SocketAddr,
    reason: Reason,
}

/// The last failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("no such host")]
    NoSuchHost,
    #[error("server misbehaving")]
    Misbehaving,
    #[error("i/o timeout")]
    Timeout,
    #[error("{0}")]
    Io(String),
}

impl Resolver {
    /// Looks up the SRV records of `name`, e.g. `_etcd-client._tcp.example.com`, sorted by priority
    /// and, within a priority, by descending weight.
    ///
    /// # Errors
    /// There are no such records, or no server answered.
    pub fn lookup_srv(&self, name: &str) -> Result<Vec<SrvRecord>, LookupError> {
        let records = self.query_with_search(name, Query::SRV)?;
        let mut services: Vec<SrvRecord> = records
            .into_iter()
            .filter_map(|record| match record {
                Record::Srv(service) => Some(service),
                Record::Ptr(_) => None,
            })
            .collect();
        services.sort_by_key(|service| (service.priority, std::cmp::Reverse(service.weight)));
        Ok(services)
    }

    /// Looks up the host names of `address`, without a trailing dot.
    ///
    /// # Errors
    /// There are no names, or no server answered.
    pub fn lookup_addr(&self, address: IpAddr) -> Result<Vec<String>, LookupError> {
        let known = system::names_in(&self.hosts, address);
        if !known.is_empty() {
            return Ok(known);
        }
        let records = self.query(&message::reverse_name(address), Query::PTR)?;
        let names = records.into_iter().filter_map(|record| match record {
            Record::Ptr(name) => Some(name.trim_end_matches('.').to_owned()),
            Record::Srv(_) => None,
        });
        Ok(names.collect())
    }

    /// Queries `name` as it is and with each domain of the search list appended, in Go's order.
    fn query_with_search(&self, name: &str, kind: u16) -> Result<Vec<Record>, LookupError> {
        let unchanged = || std::iter::once(name.trim_end_matches('.').to_owned());
        if let Some(whole) = name.strip_suffix('.') {
            return self.query(whole, kind);
        }
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let names: Vec<String> = if name.matches('.').count() >= self.ndots {
            unchanged().chain(searched).collect()
        } else {
            searched.chain(unchanged()).collect()
        };
        let mut first = None;
        for candidate in names {
            match self.query(&candidate, kind) {
                Ok(records) => return Ok(records),
                Err(error) => {
                    let is_permanent = error.reason != Reason::NoSuchHost;
                    let error = LookupError {
                        name: name.to_owned(),
                        ..error
                    };
                    first.get_or_insert(error);
                    if is_permanent {
                        break;
                    }
                }
            }
        }
        Err(first.expect("there is at least the name itself"))
    }

    fn query(&self, name: &str, kind: u16) -> Result<Vec<Record>, LookupError> {
        let mut last = None;
        for _ in 0..self.attempts.max(1) {
            for server in &self.servers {
                let failed = |reason| LookupError {
                    name: name.to_owned(),
                    server: *server,
                    reason,
                };
                let query = Query::new(name, kind);
                let Some(query) = query else {
                    return Err(failed(Reason::NoSuchHost));
                };
                match transport::exchange(*server, &query, self.timeout) {
                    Ok(Answer::Records(records)) if !records.is_empty() => return Ok(records),
                    Ok(Answer::Records(_) | Answer::NoSuchName) => {
                        return Err(failed(Reason::NoSuchHost));
                    }
                    Ok(Answer::Refused) => last = Some(failed(Reason::Misbehaving)),
                    Err(error) => last = Some(failed(reason(&error))),
                }
            }
        }
        Err(last.expect("there is at least one server: from_system adds one"))
    }
}

fn reason(error: &std::io::Error) -> Reason {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => Reason::Timeout,
        _ => Reason::Io(error.to_string()),
    }
}
