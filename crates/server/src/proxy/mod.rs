//! `etcd gateway` and `etcd grpc-proxy`: what stands before the members of a cluster.
//!
//! - [`flags`]: their command lines. [`discovery`]: their servers by DNS.
//! - [`gateway`]: forwards bytes, and chooses who gets a connection.
//! - [`grpc`]: forwards calls, and shares watches, keep-alives and answers between clients.
//!
//! Neither has data. Both end at once when a signal asks for it, as in etcd.

mod discovery;
mod flags;
mod gateway;
mod grpc;

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;

use crate::config::url::split_host_port;
use flags::{Command, Parsed, Values};

/// Why a proxy does not start, as it is printed.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    stdout: String,
    stderr: String,
}

impl Refusal {
    /// A line on standard output.
    fn stdout(text: impl std::fmt::Display) -> Refusal {
        Refusal {
            stdout: format!("{text}\n"),
            stderr: String::new(),
        }
    }

    /// A line on standard error.
    fn stderr(text: impl std::fmt::Display) -> Refusal {
        Refusal {
            stdout: String::new(),
            stderr: format!("{text}\n"),
        }
    }
}

/// Runs the proxy that the command line of this process asks for, and returns the exit code; none
/// if it asks for a member.
pub fn run_process() -> Option<ExitCode> {
    let args = command_line();
    let start: fn(&Values) -> Refusal;
    let command: &Command = match args.get(1).map(String::as_str) {
        Some("gateway") => {
            start = gateway::run;
            &gateway::COMMAND
        }
        Some("grpc-proxy") => {
            start = grpc::run;
            &grpc::COMMAND
        }
        _ => return None,
    };
    Some(match command.parse(&args[2..]) {
        Parsed::Help(text) => {
            print(&text, "");
            ExitCode::SUCCESS
        }
        Parsed::Mistake { reason, usage } => {
            print("", &format!("Error: {reason}\n{usage}\n{reason}"));
            ExitCode::FAILURE
        }
        Parsed::Start(values) => {
            let Refusal { stdout, stderr } = start(&values);
            print(&stdout, &stderr);
            ExitCode::FAILURE
        }
    })
}

/// The command line of this process; what is not UTF-8 in it is replaced.
fn command_line() -> Vec<String> {
    let args = std::env::args_os();
    args.map(|arg| arg.to_string_lossy().into_owned()).collect()
}

fn print(stdout: &str, stderr: &str) {
    // If these are closed, there is nowhere to report it.
    let _ = io::stderr().write_all(stderr.as_bytes());
    let _ = io::stdout().write_all(stdout.as_bytes());
}

/// Go's `net.JoinHostPort`.
fn join_host_port(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// What `net.Listen("tcp", address)` binds; without a host, every interface.
///
/// # Errors
/// In Go's words.
fn listen_address(address: &str) -> Result<SocketAddr, String> {
    let Some((host, port)) = split_host_port(address) else {
        return Err(format!(
            "listen tcp: address {address}: missing port in address"
        ));
    };
    let port: u16 = match port {
        "" => 0,
        port => port
            .parse()
            .map_err(|_| format!("listen tcp: address {port}: invalid port"))?,
    };
    if host.is_empty() {
        return Ok(SocketAddr::from(([0; 8], port)));
    }
    let mut addresses = (host, port).to_socket_addrs().into_iter().flatten();
    let first = addresses.next();
    first.ok_or_else(|| format!("listen tcp: lookup {host}: no such host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on() {
        let text = |address| match listen_address(address) {
            Ok(address) => address.to_string(),
            Err(error) => error,
        };
        assert_eq!(text("127.0.0.1:23790"), "127.0.0.1:23790");
        assert_eq!(text("[::1]:1"), "[::1]:1");
        assert_eq!(text(":23790"), "[::]:23790");
        assert_eq!(
            text("127.0.0.1"),
            "listen tcp: address 127.0.0.1: missing port in address"
        );
        assert_eq!(
            text("127.0.0.1:99999"),
            "listen tcp: address 99999: invalid port"
        );
    }
}
