//! Whether a member's certificate is valid for the address that the member connects from.
//!
//! etcd v3.7: client/pkg/transport/listener_tls.go. A certificate without names and addresses may come from anywhere. One with
//! addresses may come from those; one with DNS names from the hosts of these names, by what DNS says of the address or of
//! the names.

use std::net::IpAddr;

use retcd_tls::Certificate;

/// Checks `certificate` of a connection from `address`.
///
/// # Errors
/// It is not valid for the address; the text is etcd's.
pub async fn check(certificate: &Certificate, address: IpAddr) -> Result<(), String> {
    let address = address.to_canonical();
    let (addresses, names) = (certificate.ip_addresses(), certificate.dns_names());
    if !addresses.is_empty() {
        match certificate.verify_host_name(&address.to_string()) {
            Ok(()) => return Ok(()),
            Err(error) if names.is_empty() => return Err(error.to_string()),
            Err(_) => {}
        }
    }
    if names.is_empty() || is_host_of(address, names).await {
        return Ok(());
    }
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    Err(format!(
        "tls: \"{address}\" does not match any of DNSNames [{}]",
        quoted.join(" ")
    ))
}

async fn is_host_of(address: IpAddr, names: &[String]) -> bool {
    for name in names.iter().filter(|name| !name.starts_with("*.")) {
        let found = tokio::net::lookup_host((name.as_str(), 0)).await;
        let mut found = found.into_iter().flatten();
        if found.any(|found| found.ip().to_canonical() == address) {
            return true;
        }
    }
    false
}
