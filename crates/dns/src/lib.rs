//! The two questions to name servers that the system's resolver does not ask: where a service is (SRV), and all names of an
//! address (PTR).
//!
//! ```text
//! /etc/resolv.conf ──▶ servers, search list ──▶ query over UDP, over TCP if the answer is cut ──▶ records
//! /etc/hosts ────────▶ names of addresses, before any server is asked
//! ```
//! As Go's own resolver has it, which etcd uses: the same files, timeouts, attempts, order of names, and texts of errors. Calls
//! block, for seconds if servers are silent; who must not wait calls from a thread that may.
//!
//! Deliberately absent: addresses of names (the system does that), caches, DNSSEC, encrypted transports.

mod message;
mod system;
mod transport;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use message::{Answer, Question, Record};

pub use message::Service;

/// Asks name servers.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// Who is asked, in order.
    pub servers: Vec<SocketAddr>,
    /// Domains that are tried behind a name.
    pub search: Vec<String>,
    /// A name with so many dots is first tried as it is.
    pub dots: usize,
    /// How long one server may take.
    pub timeout: Duration,
    /// How often all servers are asked.
    pub attempts: usize,
    /// The file of names that are known without asking.
    pub hosts: PathBuf,
}

/// Why there is no answer; displays Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lookup {name} on {server}: {reason}")]
pub struct LookupError {
    name: String,
    server: SocketAddr,
    reason: Reason,
}

/// What went wrong last.
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
    /// The places of a service, e.g. `_etcd-client._tcp.example.com`, those to be preferred first.
    ///
    /// # Errors
    /// There are none, or no server says.
    pub fn services(&self, name: &str) -> Result<Vec<Service>, LookupError> {
        let records = self.ask_with_search(name, Question::SERVICE)?;
        let mut services: Vec<Service> = records
            .into_iter()
            .filter_map(|record| match record {
                Record::Service(service) => Some(service),
                Record::Pointer(_) => None,
            })
            .collect();
        services.sort_by_key(|service| (service.priority, std::cmp::Reverse(service.weight)));
        Ok(services)
    }

    /// All names of an address, without a dot at their end.
    ///
    /// # Errors
    /// It has none, or no server says.
    pub fn names(&self, address: IpAddr) -> Result<Vec<String>, LookupError> {
        let known = system::names_in(&self.hosts, address);
        if !known.is_empty() {
            return Ok(known);
        }
        let records = self.ask(&message::reverse_name(address), Question::POINTER)?;
        let names = records.into_iter().filter_map(|record| match record {
            Record::Pointer(name) => Some(name.trim_end_matches('.').to_owned()),
            Record::Service(_) => None,
        });
        Ok(names.collect())
    }

    /// Tries the name as it is and behind it the domains of the search list.
    fn ask_with_search(&self, name: &str, kind: u16) -> Result<Vec<Record>, LookupError> {
        let as_it_is = || std::iter::once(name.trim_end_matches('.').to_owned());
        if let Some(whole) = name.strip_suffix('.') {
            return self.ask(whole, kind);
        }
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let names: Vec<String> = if name.matches('.').count() >= self.dots {
            as_it_is().chain(searched).collect()
        } else {
            searched.chain(as_it_is()).collect()
        };
        let mut first = None;
        for candidate in names {
            match self.ask(&candidate, kind) {
                Ok(records) => return Ok(records),
                Err(error) => {
                    let is_final = error.reason != Reason::NoSuchHost;
                    let error = LookupError {
                        name: name.to_owned(),
                        ..error
                    };
                    first.get_or_insert(error);
                    if is_final {
                        break;
                    }
                }
            }
        }
        Err(first.expect("there is at least the name itself"))
    }

    fn ask(&self, name: &str, kind: u16) -> Result<Vec<Record>, LookupError> {
        let mut last = None;
        for _ in 0..self.attempts.max(1) {
            for server in &self.servers {
                let failed = |reason| LookupError {
                    name: name.to_owned(),
                    server: *server,
                    reason,
                };
                let question = Question::new(name, kind);
                let Some(question) = question else {
                    return Err(failed(Reason::NoSuchHost));
                };
                match transport::exchange(*server, &question, self.timeout) {
                    Ok(Answer::Records(records)) if !records.is_empty() => return Ok(records),
                    Ok(Answer::Records(_) | Answer::NoSuchName) => {
                        return Err(failed(Reason::NoSuchHost));
                    }
                    Ok(Answer::Refused) => last = Some(failed(Reason::Misbehaving)),
                    Err(error) => last = Some(failed(reason(&error))),
                }
            }
        }
        Err(last.expect("there is at least one server: of_system adds one"))
    }
}

fn reason(error: &std::io::Error) -> Reason {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => Reason::Timeout,
        _ => Reason::Io(error.to_string()),
    }
}
