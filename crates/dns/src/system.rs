//! System configuration: `/etc/resolv.conf` and `/etc/hosts`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::Resolver;

const PORT: u16 = 53;
/// The limit of glibc and Go.
const SERVERS_MAX: usize = 3;
const DOTS_MAX: usize = 15;

impl Resolver {
    /// Reads `/etc/resolv.conf`. Without it, the name server on localhost is used.
    pub fn from_system() -> Resolver {
        Resolver::parse(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    /// Parses the text of a `resolv.conf`. Unknown directives are ignored.
    pub fn parse(text: &str) -> Resolver {
        let mut resolver = Resolver {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            hosts: "/etc/hosts".into(),
        };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    if let Some(address) = address
                        && resolver.servers.len() < SERVERS_MAX
                    {
                        resolver.servers.push(SocketAddr::new(address, PORT));
                    }
                }
                Some("domain" | "search") => {
                    let domain = |word: &str| word.trim_matches('.').to_owned();
                    resolver.search = words.map(domain).filter(|word| !word.is_empty()).collect();
                }
                Some("options") => words.for_each(|option| resolver.set(option)),
                _ => {}
            }
        }
        if resolver.servers.is_empty() {
            let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
            resolver.servers.push(SocketAddr::new(localhost, PORT));
        }
        resolver
    }

    fn set(&mut self, option: &str) {
        let Some((name, Ok(value))) = option
            .split_once(':')
            .map(|(name, value)| (name, value.parse::<usize>()))
        else {
            return;
        };
        match name {
            "ndots" => self.ndots = value.min(DOTS_MAX),
            "timeout" => self.timeout = Duration::from_secs(value.max(1) as u64),
            "attempts" => self.attempts = value.max(1),
            _ => {}
        }
    }
}

/// The host names that the hosts file lists for `address`.
pub(crate) fn names_in(hosts: &Path, address: IpAddr) -> Vec<String> {
    let text = fs::read_to_string(hosts).unwrap_or_default();
    let mut names = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let line_address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        if line_address == Some(address) {
            names.extend(words.map(str::to_owned));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_parsed() {
        let resolver = Resolver::parse(
            "# a comment\nnameserver 10.0.0.1\nnameserver nonsense\nnameserver ::1 # another\n\
             search a.example. b.example\noptions ndots:5 timeout:1 attempts:3 rotate\n",
        );
        assert_eq!(
            resolver.servers,
            [
                "10.0.0.1:53".parse().unwrap(),
                "[::1]:53".parse::<SocketAddr>().unwrap()
            ]
        );
        assert_eq!(resolver.search, ["a.example", "b.example"]);
        assert_eq!((resolver.ndots, resolver.attempts), (5, 3));
        assert_eq!(resolver.timeout, Duration::from_secs(1));
        let nothing = Resolver::parse("");
        assert_eq!(nothing.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!((nothing.ndots, nothing.attempts), (1, 2));
    }
}
