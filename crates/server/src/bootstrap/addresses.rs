//! Whether two lists of URLs lead to the same places, as etcd decides it: by text, then with names resolved.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::config::url::{Url, split_host_port};
use crate::log::Text;

/// How long etcd looks for a name before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Finds the address of a `host:port`.
pub type Resolve<'a> = &'a dyn Fn(&str) -> std::io::Result<SocketAddr>;

/// Asks the system for the address of a `host:port`.
///
/// # Errors
/// When the name has none.
pub fn resolve_by_system(address: &str) -> std::io::Result<SocketAddr> {
    address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| std::io::Error::other("no such host"))
}

/// Asks the system again and again for as long as `patience` from now: where members are started together with their
/// names, a name may come after its member.
pub fn resolve_patiently(patience: Duration) -> impl Fn(&str) -> std::io::Result<SocketAddr> {
    let started = Instant::now();
    move |address| {
        loop {
            match resolve_by_system(address) {
                Err(error) if started.elapsed() < patience => {
                    crate::warn!("failed to resolve URL Host"; "host" => address,
                        "retry-interval" => RETRY_INTERVAL, "error" => Text(&error));
                    std::thread::sleep(RETRY_INTERVAL);
                }
                done => return done,
            }
        }
    }
}

/// Whether both lists, each sorted, name the same addresses.
///
/// # Errors
/// Where they differ, or what cannot be resolved, in etcd's words.
pub fn same_addresses(a: &[Url], b: &[Url], resolve: Resolve<'_>) -> Result<(), String> {
    if a.len() != b.len() {
        let list = |urls: &[Url]| {
            urls.iter()
                .map(|url| format!("{:?}", url.as_str()))
                .collect::<Vec<_>>()
                .join(" ")
        };
        return Err(format!("len([{}]) != len([{}])", list(a), list(b)));
    }
    if a.iter().zip(b).all(|(a, b)| comparable(a) == comparable(b)) {
        return Ok(());
    }
    let (a, b) = (resolved(a, resolve)?, resolved(b, resolve)?);
    match a.iter().zip(&b).find(|(a, b)| a != b) {
        Some((a, b)) => Err(format!("resolved urls: {a:?} != {b:?}")),
        None => Ok(()),
    }
}

/// The text of an address with one spelling per IP.
fn comparable(url: &Url) -> String {
    match split_host_port(&url.address()).map(|(host, port)| (host.parse::<IpAddr>(), port)) {
        Some((Ok(ip), port)) if !url.is_unix() => format!("{:?} {ip} {port}", url.scheme()),
        _ => url.to_string(),
    }
}

/// The addresses with names replaced by what they stand for, sorted. `localhost` is left as it is.
fn resolved(urls: &[Url], resolve: Resolve<'_>) -> Result<Vec<String>, String> {
    let mut texts = Vec::with_capacity(urls.len());
    for url in urls {
        if url.is_unix() || url.host() == "localhost" {
            texts.push(url.to_string());
            continue;
        }
        let address = resolve(&url.address())
            .map_err(|error| format!("failed to resolve {:?} ({error})", url.as_str()))?;
        texts.push(url.with_authority(&address.to_string()).to_string());
    }
    texts.sort();
    Ok(texts)
}
