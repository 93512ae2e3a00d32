//! Endpoint discovery by DNS SRV records: `--discovery-srv`.

use retcd_dns::{LookupError, Resolver, SrvRecord};

use crate::cli::{Exit, FlagSet};
use crate::stderr;

/// The endpoints that DNS lists for `domain`; empty without a domain, or if no endpoint may be used.
/// `suffix` is that of the service. Unless `insecure`, endpoints without TLS are ignored.
///
/// # Errors
/// DNS has neither TLS nor plaintext endpoints.
pub(crate) fn endpoints(domain: &str, suffix: &str, insecure: bool) -> Result<Vec<String>, Exit> {
    if domain.is_empty() {
        return Ok(Vec::new());
    }
    let resolver = Resolver::from_system();
    let look_up = |service| resolver.lookup_srv(&name(service, suffix, domain));
    let found = combine(look_up("etcd-client-ssl"), look_up("etcd-client"))?;
    if insecure {
        return Ok(found);
    }
    let (plain, secure): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|url| url.starts_with("http://"));
    for url in plain {
        stderr::write_line(format_args!(
            "ignoring discovered insecure endpoint {url:?}"
        ));
    }
    Ok(secure)
}

/// The domain that server certificates must be valid for. DNS answers are not authenticated, so
/// verifying the discovered host names proves nothing.
pub(crate) fn server_name(flags: &FlagSet) -> Option<String> {
    let domain = flags.text("discovery-srv");
    let wanted = !domain.is_empty() && !flags.bool("insecure-discovery");
    wanted.then(|| domain.to_owned())
}

fn name(service: &str, suffix: &str, domain: &str) -> String {
    if suffix.is_empty() {
        format!("_{service}._tcp.{domain}")
    } else {
        format!("_{service}-{suffix}._tcp.{domain}")
    }
}

fn combine(
    secure: Result<Vec<SrvRecord>, LookupError>,
    plain: Result<Vec<SrvRecord>, LookupError>,
) -> Result<Vec<String>, Exit> {
    if let (Err(first), Err(second)) = (&secure, &plain) {
        return Err(Exit::error(format!(
            "dns lookup errors: {first} and {second}"
        )));
    }
    let url = |scheme: &str, service: &SrvRecord| {
        format!("{scheme}://{}:{}", service.target, service.port)
    };
    let secure = secure.unwrap_or_default();
    let plain = plain.unwrap_or_default();
    let secure = secure.iter().map(|service| url("https", service));
    let plain = plain.iter().map(|service| url("http", service));
    Ok(secure.chain(plain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_suffix_behind_the_service() {
        assert_eq!(name("etcd-client", "", "a.b"), "_etcd-client._tcp.a.b");
        assert_eq!(
            name("etcd-client-ssl", "x", "a.b"),
            "_etcd-client-ssl-x._tcp.a.b"
        );
    }

    #[test]
    fn endpoints_with_tls_come_first() {
        let service = |target: &str| SrvRecord {
            priority: 0,
            weight: 0,
            port: 2379,
            target: target.to_owned(),
        };
        let found = combine(Ok(vec![service("a.")]), Ok(vec![service("b.")]));
        let found = found.unwrap_or_default();
        assert_eq!(found, ["https://a.:2379", "http://b.:2379"]);
    }
}
