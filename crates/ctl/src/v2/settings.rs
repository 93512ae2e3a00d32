//! The global options, their environment variables, and the cluster that they lead to.

use std::path::PathBuf;
use std::time::Duration;

use retcd_client::{Dialer, TlsConfig, TlsError};
use retcd_log::GoDuration;

use super::cluster::{Cluster, ClusterError};
use super::http::Http;
use super::options::{Flag, Kind, Options};
use super::output::Format;
use super::program::Invocation;
use super::{debug, endpoint, failure};
use crate::cli::Exit;
use crate::command::{ask_password, discovered_endpoints};
use crate::stderr;
use crate::urls::{MemberUrl, UrlError};

const DEFAULT_ENDPOINTS: &str = "http://127.0.0.1:2379,http://127.0.0.1:4001";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const TOTAL_TIMEOUT: GoDuration = GoDuration::from_secs(5);

/// The options before the command, in the order in which help lists them.
pub(super) const FLAGS: &[Flag] = &[
    Flag::switch(&["debug"], "show every request as a cURL command"),
    Flag::switch(
        &["no-sync"],
        "use the endpoints as given, without asking for the members",
    ),
    Flag::text(
        &["output", "o"],
        "format of the output: simple, extended or json",
    )
    .value_name("simple")
    .default("\"simple\""),
    Flag::text(
        &["discovery-srv", "D"],
        "domain whose SRV records list the endpoints",
    ),
    Flag::switch(
        &["insecure-discovery"],
        "accept endpoints without TLS from SRV records",
    ),
    Flag::text(&["peers", "C"], "DEPRECATED: use --endpoints"),
    Flag::text(&["endpoint"], "DEPRECATED: use --endpoints"),
    Flag::text(
        &["endpoints"],
        "client URLs of the members, separated by commas",
    )
    .default("\"http://127.0.0.1:2379,http://127.0.0.1:4001\""),
    Flag::text(&["cert-file"], "file with the client's TLS certificate"),
    Flag::text(&["key-file"], "file with the client's TLS key"),
    Flag::text(&["ca-file"], "file with the trusted CA certificates"),
    Flag::text(&["username", "u"], "name[:password] to authenticate with"),
    Flag::text(&["timeout"], "timeout of a request")
        .kind(Kind::Duration)
        .default("2s"),
    Flag::text(&["total-timeout"], "timeout of a command, but for watches")
        .kind(Kind::Duration)
        .default("5s"),
    Flag::switch(&["version", "v"], "show the version"),
];

impl Invocation {
    /// The format of the output.
    pub(super) fn format(&self) -> Format {
        Format::parse(self.globals.text("output"))
    }

    /// The cluster, with the client URLs of its members as endpoints unless that is switched off.
    ///
    /// # Errors
    /// The options are wrong, or no endpoint can be reached.
    pub(super) async fn cluster(&self) -> Result<Cluster, Exit> {
        let mut cluster = self.given_cluster()?;
        let debug = self.globals.switch("debug");
        if !self.globals.switch("no-sync") {
            if debug {
                let before = "start to sync cluster using endpoints(";
                debug::show_endpoints(before, &cluster.endpoints, ")");
            }
            match cluster.sync().await {
                Err(error @ ClusterError::NoEndpoints) => {
                    let given = cluster.endpoints.join(",");
                    stderr::write_line("etcd cluster has no published client endpoints.");
                    stderr::write_line(format_args!(
                        "Try '--no-sync' if you want to access non-published client \
                         endpoints({given})."
                    ));
                    return Err(failure::request(&error));
                }
                Err(error) if error.is_connection() => return Err(failure::sync(&error)),
                // Whatever else is wrong, the request itself will tell.
                Err(_) | Ok(()) => {}
            }
            if debug {
                debug::show_endpoints("got endpoints(", &cluster.endpoints, ") after sync");
            }
        }
        if debug {
            debug::show_cluster(&cluster.endpoints);
        }
        Ok(cluster)
    }

    /// Connects as the options say.
    ///
    /// # Errors
    /// A certificate or key cannot be used.
    pub(super) fn dialer(&self) -> Result<Dialer, TlsError> {
        Dialer::new(&tls(&self.globals))
    }

    /// The cluster as the options name it.
    ///
    /// # Errors
    /// The options are wrong.
    pub(super) fn given_cluster(&self) -> Result<Cluster, Exit> {
        let globals = &self.globals;
        let endpoints = endpoints(globals)?;
        let dialer = self.dialer().map_err(failure::plain)?;
        let credentials = credentials(globals)?;
        let request_timeout = globals.duration("timeout");
        let request_timeout = request_timeout.map_or(REQUEST_TIMEOUT, GoDuration::std);
        let total_timeout = globals.duration("total-timeout").unwrap_or(TOTAL_TIMEOUT);
        let http = Http::new(
            dialer,
            request_timeout,
            credentials.as_ref(),
            globals.switch("debug"),
        );
        let http = match total_timeout {
            // etcd 3.3 has no limit for connections then.
            GoDuration(0) => http,
            total_timeout => http.with_dial_timeout(total_timeout.std()),
        };
        Ok(Cluster::new(http, endpoints, total_timeout.std()))
    }
}

/// The option or, if it was not given, the environment variable.
fn setting(globals: &Options, name: &str) -> String {
    let given = globals.text(name);
    if !given.is_empty() {
        return given.to_owned();
    }
    let variable = format!("ETCDCTL_{}", name.to_uppercase().replace('-', "_"));
    let value = std::env::var_os(variable).unwrap_or_default();
    value.to_string_lossy().into_owned()
}

fn insecure_discovery(globals: &Options) -> bool {
    globals.switch("insecure-discovery") || !setting(globals, "insecure-discovery").is_empty()
}

fn endpoints(globals: &Options) -> Result<Vec<String>, Exit> {
    let domain = setting(globals, "discovery-srv");
    let insecure = insecure_discovery(globals);
    let found = discovered_endpoints(&domain, "", insecure);
    let mut endpoints = found.map_err(|exit| failure::plain(exit.message.unwrap_or_default()))?;
    if endpoints.is_empty() {
        let names = ["endpoints", "endpoint", "peers"];
        let mut given = names.iter().map(|name| setting(globals, name));
        let given = given.find(|given| !given.is_empty());
        let given = given.unwrap_or_else(|| DEFAULT_ENDPOINTS.to_owned());
        endpoints = given.split(',').map(str::to_owned).collect();
    }
    let lenient = super::dispatch::is_unset();
    let checked = endpoints.iter().map(|endpoint| {
        let endpoint = check(endpoint, lenient)?;
        endpoint::normalize(&endpoint).map_err(failure::plain)
    });
    checked.collect()
}

/// An endpoint with a scheme.
///
/// # Errors
/// It is no URL. `127.0.0.1:2379`, as version 3 has it, is one only if `lenient`.
fn check(endpoint: &str, lenient: bool) -> Result<String, Exit> {
    if endpoint.contains("://") && !endpoint.starts_with(' ') {
        return Ok(endpoint.to_owned());
    }
    if lenient || !endpoint.contains(':') {
        return Ok(format!("http://{}", endpoint.trim()));
    }
    match MemberUrl::parse(endpoint) {
        Err(error @ UrlError::Syntax { .. }) => Err(failure::plain(error)),
        // Such as `localhost:2379`, whose scheme is refused when it is used.
        _ => Ok(endpoint.to_owned()),
    }
}

fn tls(globals: &Options) -> TlsConfig {
    let file = |name| {
        Some(setting(globals, name))
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    };
    let domain = setting(globals, "discovery-srv");
    let verified = !domain.is_empty() && !insecure_discovery(globals);
    TlsConfig {
        cert: file("cert-file"),
        key: file("key-file"),
        authorities: file("ca-file"),
        // Discovered host names are not authenticated.
        server_name: verified.then_some(domain),
        skip_verify: false,
        required: false,
    }
}

fn credentials(globals: &Options) -> Result<Option<(String, String)>, Exit> {
    match setting(globals, "username") {
        user if user.is_empty() => Ok(None),
        user => name_and_password("Password: ", &user).map(Some),
    }
}

/// Splits `name:password`; prompts for a missing password.
///
/// # Errors
/// The password cannot be read.
pub(super) fn name_and_password(prompt: &str, user: &str) -> Result<(String, String), Exit> {
    match user.split_once(':') {
        Some((name, password)) => Ok((name.to_owned(), password.to_owned())),
        None => Ok((user.to_owned(), read_password(prompt)?)),
    }
}

/// Prompts for a password.
///
/// # Errors
/// It cannot be read.
pub(super) fn read_password(prompt: &str) -> Result<String, Exit> {
    let password = ask_password(prompt);
    password.map_err(|error| failure::plain(format!("Error reading password: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_version_3_are_accepted_only_where_the_version_is_open() {
        let text = |endpoint: &str, lenient| check(endpoint, lenient).map_err(|exit| exit.message);
        let same = |endpoint: &str| Ok(endpoint.to_owned());
        assert_eq!(text("http://a:1", false), same("http://a:1"));
        assert_eq!(text("a", false), same("http://a"));
        assert_eq!(text("127.0.0.1:1", true), same("http://127.0.0.1:1"));
        let refusal = "parse \"127.0.0.1:1\": first path segment in URL cannot contain colon";
        assert_eq!(text("127.0.0.1:1", false), Err(Some(refusal.to_owned())));
        assert_eq!(text("localhost:1", false), same("localhost:1"));
    }
}
