//! The command line tools: `etcdctl`, a client of clusters, and `etcdutl`, which works on files.
//!
//! - `cli`: commands, flags and help, compatible with etcd's tools.
//! - `command`: `etcdctl`, one file per command, on top of the crate `client`.
//! - `offline`: `etcdutl`, one file per command.
//! - `print`: output formats.
//! - `go`: text formats of Go's standard library that appear in results and errors.
//!
//! The output on stdout, the error lines and the exit codes are interface, byte for byte. Help
//! texts are not.

#![warn(unreachable_pub)]
#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "`print` and `log` handle closed output"
)]

mod cli;
mod command;
mod go;
mod log;
mod offline;
mod print;
mod urls;

use std::process::ExitCode;

/// Runs the command line of `etcdctl`.
pub fn etcdctl() -> ExitCode {
    command::program().run()
}

/// Runs the command line of `etcdutl`.
pub fn etcdutl() -> ExitCode {
    offline::program().run()
}

/// The version of the tools.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The output of `version`: the tool's version, and the API version, which omits the patch number.
fn version_text(tool: &str) -> String {
    let api = VERSION.rsplit_once('.').map_or(VERSION, |(api, _)| api);
    format!("{tool} version: {VERSION}\nAPI version: {api}")
}
