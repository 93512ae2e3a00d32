//! `etcd gateway start`: forwards TCP connections to the servers of a cluster.
//!
//! Bytes pass as they are, TLS too. When either direction of a connection ends, both sockets are
//! closed, as in etcd: the protocols of etcd have no use for half of a connection. [`balance`]
//! says where a connection goes, [`forward`] carries it. Each processor has a thread that accepts
//! and carries connections.

mod balance;
mod forward;

use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;

use rustix::process::Resource;

use super::discovery::{DOMAIN_FLAG, Discovery, INSECURE_FLAG, SERVICE_FLAG};
use super::flags::{Command, Kind, Values, flag};
use super::{Refusal, command_line, listen_address};
use crate::accept::{SocketOptions, bind_tcp};
use crate::config::url::split_host_port;
use crate::rlimit::raise_limit;
use crate::runtime::spawn_runtime_thread;
use crate::systemd;
use crate::workers::Workers;
use balance::{Balance, Endpoint};
use forward::Gateway;

pub(super) const COMMAND: Command = Command {
    name: "gateway",
    about: "gateway related command",
    about_start: "start the gateway",
    flags: &[
        DOMAIN_FLAG,
        SERVICE_FLAG,
        flag(
            "endpoints",
            Kind::Texts,
            "127.0.0.1:2379",
            "servers to forward to, as host:port, separated by commas",
        ),
        INSECURE_FLAG,
        flag(
            "listen-addr",
            Kind::Text,
            "127.0.0.1:23790",
            "address where clients connect",
        ),
        flag(
            "retry-delay",
            Kind::Duration,
            "1m0s",
            "time between attempts to reach a server that was down",
        ),
        flag(
            "trusted-ca-file",
            Kind::Text,
            "",
            "authorities for the validation of SRV records",
        ),
    ],
};

/// Serves until the process is ended; returns only if it cannot.
pub(super) fn run(values: &Values) -> Refusal {
    match start(values) {
        Ok(never) => match never {},
        Err(refusal) => refusal,
    }
}

fn start(values: &Values) -> Result<std::convert::Infallible, Refusal> {
    crate::info!("Running: "; "args" => &command_line());
    let endpoints = endpoints(values)?;
    let listen = values.text("listen-addr");
    check(listen, &endpoints)?;
    if endpoints.is_empty() {
        return Err(Refusal::stdout("no endpoints found"));
    }
    let address = listen_address(listen).map_err(Refusal::stderr)?;
    let listener = bind_tcp(address, SocketOptions::default()).map_err(Refusal::stderr)?;
    // As Go's runtime does: each connection takes two descriptors, and most services are started with
    // a low soft limit. Without the right to, there are fewer.
    let _ = raise_limit(Resource::Nofile);
    let system = |error: std::io::Error| Refusal::stderr(error);
    let workers = Workers::start().map_err(system)?;
    systemd::notify_ready();
    let gateway = Arc::new(Gateway::new(
        Balance::new(endpoints),
        values.duration("retry-delay"),
        workers,
    ));
    gateway.announce();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut threads = Vec::new();
    for number in 0..processors {
        let gateway = Arc::clone(&gateway);
        let listener = listener.try_clone().map_err(system)?;
        let run = move || gateway.run(listener, number == 0);
        threads.push(spawn_runtime_thread(format!("conn-{number}"), run).map_err(system)?);
    }
    for thread in threads {
        // A panic ends the process at once, so that a join never fails.
        let _ = thread.join();
    }
    Err(Refusal::stderr("the listener failed"))
}

fn endpoints(values: &Values) -> Result<Vec<Endpoint>, Refusal> {
    let discovery = Discovery {
        domain: values.text("discovery-srv"),
        service_name: values.text("discovery-srv-name"),
        insecure: values.bool("insecure-discovery"),
        authorities: values.text("trusted-ca-file"),
    };
    let discovered = discovery.discover()?;
    if !discovered.is_empty() {
        let endpoint = |record: &retcd_dns::SrvRecord| Endpoint {
            address: super::join_host_port(&record.target, record.port),
            priority: record.priority,
            weight: record.weight,
            is_active: true,
        };
        return Ok(discovered
            .iter()
            .map(|found| endpoint(&found.record))
            .collect());
    }
    values
        .texts("endpoints")
        .iter()
        .map(|text| endpoint(text))
        .collect()
}

/// A URL counts by its host and port.
fn endpoint(text: &str) -> Result<Endpoint, Refusal> {
    let authority = match text.split_once("://") {
        Some((_, rest)) if !rest.starts_with('/') => rest.split('/').next().unwrap_or(rest),
        _ => text,
    };
    let Some((host, port)) = split_host_port(authority) else {
        return Err(Refusal {
            stdout: format!("error parsing endpoint {authority:?}"),
            stderr: String::new(),
        });
    };
    Ok(Endpoint {
        address: super::join_host_port(host, port.parse().unwrap_or(0)),
        priority: 0,
        weight: 0,
        is_active: true,
    })
}

/// Whether every host is known, and none of the endpoints is the gateway itself.
fn check(listen: &str, endpoints: &[Endpoint]) -> Result<(), Refusal> {
    let Some((host, port)) = split_host_port(listen) else {
        return Err(Refusal::stdout(format_args!(
            "failed to validate listen address: {listen}"
        )));
    };
    let own = look_up(host)
        .ok_or_else(|| Refusal::stdout(format_args!("failed to resolve listen host: {host}")))?;
    for endpoint in endpoints {
        let (target, target_port) = split_host_port(&endpoint.address).expect("it was joined");
        let addresses = look_up(target).ok_or_else(|| {
            Refusal::stdout(format_args!("failed to resolve endpoint host: {target}"))
        })?;
        if target_port != port {
            continue;
        }
        if let Some(same) = addresses.iter().find(|address| own.contains(address)) {
            return Err(Refusal::stdout(format_args!(
                "SRV or endpoint ({target}:{port}->{same}:{port}) should not resolve to the gateway listen addr ({listen})"
            )));
        }
    }
    Ok(())
}

fn look_up(host: &str) -> Option<Vec<IpAddr>> {
    if host.is_empty() {
        return None;
    }
    let addresses = (host, 0).to_socket_addrs().ok()?;
    Some(addresses.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_or_addresses() {
        let address = |text| endpoint(text).map(|endpoint| endpoint.address);
        assert_eq!(address("127.0.0.1:1"), Ok("127.0.0.1:1".to_owned()));
        assert_eq!(address("https://a.b:1/path"), Ok("a.b:1".to_owned()));
        assert_eq!(address("http://[::1]:1"), Ok("[::1]:1".to_owned()));
        let refusal = address("http://127.0.0.1").expect_err("no port");
        assert_eq!(refusal.stdout, "error parsing endpoint \"127.0.0.1\"");
    }
}
