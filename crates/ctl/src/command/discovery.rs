//! Endpoint discovery by DNS SRV records: `--discovery-srv`.

use retcd_dns::Resolver;

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
    let found = Resolver::from_system().lookup_client_endpoints(domain, suffix);
    let found = found.map_err(Exit::error)?;
    let urls = found.into_iter().map(|endpoint| endpoint.url);
    if insecure {
        return Ok(urls.collect());
    }
    let (plain, secure): (Vec<_>, Vec<_>) = urls.partition(|url| url.starts_with("http://"));
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
