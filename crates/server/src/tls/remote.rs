//! Whether a member's certificate is valid for the address from which the member connects.
//!
//! A certificate without DNS names and IP addresses is valid everywhere. Otherwise the address must
//! be among its IP addresses, or a host of one of its DNS names, by a look-up of the address or of
//! the names. etcd v3.7: `client/pkg/transport/listener_tls.go`.

use std::net::IpAddr;

use retcd_dns::Resolver;
use retcd_tls::Certificate;

use crate::workers::Workers;

/// Checks a certificate that is used from `address`. DNS is asked by `workers`.
///
/// # Errors
/// It is not valid there; the message is etcd's.
pub(super) async fn check(
    certificate: &Certificate,
    address: IpAddr,
    workers: &Workers,
) -> Result<(), String> {
    let address = address.to_canonical();
    let (addresses, names) = (certificate.ip_addresses(), certificate.dns_names());
    if !addresses.is_empty() {
        match certificate.verify_host_name(&address.to_string()) {
            Ok(()) => return Ok(()),
            Err(error) if names.is_empty() => return Err(error.to_string()),
            Err(_) => {}
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    let Err(reason) = is_host_of(address, names, workers).await else {
        return Ok(());
    };
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    Err(format!(
        "tls: \"{address}\" does not match any of DNSNames [{}]{reason}",
        quoted.join(" ")
    ))
}

/// Looks up the names of the address, and then the addresses of the names. A name `*.DOMAIN`
/// matches all names in the domain. The error for an address that does not match is the last error
/// of DNS in parentheses, or empty.
async fn is_host_of(address: IpAddr, names: &[String], workers: &Workers) -> Result<(), String> {
    let look_up = move || {
        Resolver::from_system()
            .lookup_addr(address)
            .unwrap_or_default()
    };
    let own = workers.look_up(look_up).await;
    let own = own.unwrap_or_default();
    if own
        .iter()
        .any(|own| names.iter().any(|name| matches(name, own)))
    {
        return Ok(());
    }
    let mut reason = String::new();
    for name in names.iter().filter(|name| !name.starts_with("*.")) {
        match workers.addresses(&format!("{name}:0")).await {
            Ok(found) => {
                if found
                    .iter()
                    .any(|found| found.ip().to_canonical() == address)
                {
                    return Ok(());
                }
            }
            Err(error) => reason = format!(" (lookup {name}: {error})"),
        }
    }
    Err(reason)
}

fn matches(name: &str, own: &str) -> bool {
    match name.strip_prefix('*') {
        Some(domain) if domain.starts_with('.') => own.ends_with(domain),
        _ => name == own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_a_domain() {
        for (name, own, expected) in [
            ("a.example", "a.example", true),
            ("a.example", "b.example", false),
            ("*.example", "a.example", true),
            ("*.example", "a.b.example", true),
            ("*.example", "example", false),
            ("*.example", "badexample", false),
            ("*", "*", true),
        ] {
            assert_eq!(matches(name, own), expected, "{name} {own}");
        }
    }
}
