//! Compares lists of URLs as etcd does: as text, and if they differ with names resolved.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::config::url::{Url, split_host_port};
use crate::log::Text;

/// Time for resolving names, as in etcd.
pub(super) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Resolves a `host:port`.
pub(super) type Resolve<'a> = &'a dyn Fn(&str) -> std::io::Result<SocketAddr>;

pub(super) fn resolve_once(address: &str) -> std::io::Result<SocketAddr> {
    address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| std::io::Error::other("no such host"))
}

/// Resolves by the system, with retries for as long as `timeout` from now. Where members are
/// created together with their DNS records, a record may appear after its member.
pub(super) fn resolve_with_retries(
    timeout: Duration,
) -> impl Fn(&str) -> std::io::Result<SocketAddr> {
    let started = Instant::now();
    move |address| {
        loop {
            match resolve_once(address) {
                Err(error) if started.elapsed() < timeout => {
                    crate::warn!("failed to resolve URL Host"; "host" => address,
                        "retry-interval" => RETRY_INTERVAL, "error" => Text(&error));
                    std::thread::sleep(RETRY_INTERVAL);
                }
                done => return done,
            }
        }
    }
}

/// Compares two sorted lists.
///
/// # Errors
/// Where they differ or which name cannot be resolved, in etcd's words.
pub(super) fn same_addresses(a: &[Url], b: &[Url], resolve: Resolve<'_>) -> Result<(), String> {
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

/// The text of an address, with a canonical spelling of IP addresses.
fn comparable(url: &Url) -> String {
    match split_host_port(&url.address()).map(|(host, port)| (host.parse::<IpAddr>(), port)) {
        Some((Ok(ip), port)) if !url.is_unix() => format!("{:?} {ip} {port}", url.scheme()),
        _ => url.to_string(),
    }
}

/// The addresses with names resolved, sorted. As in etcd, `localhost` stays.
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
