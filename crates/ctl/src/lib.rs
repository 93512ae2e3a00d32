//! The command line tools: `etcdctl`, a client of clusters, and `etcdutl`, which works on files.
//!
//! - `cli`: commands, flags and help, compatible with etcd's tools.
//! - `command`: `etcdctl`, one file per command, on top of the crate `client`.
//! - `v2`: `etcdctl` for API version 2.
//! - `offline`: `etcdutl`, one file per command.
//! - `print`: output formats.
//! - `kubernetes`: values as Kubernetes stores them, as the JSON that it shows for them.
//! - `go`: text formats of Go's standard library that appear in results and errors.
//!
//! The output on stdout, the error lines and the exit codes are interface, byte for byte. Help
//! texts are not.

#![warn(unreachable_pub)]
#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "`print` and `stderr` handle closed output"
)]

mod cli;
mod command;
mod go;
mod kubernetes;
mod offline;
mod print;
mod progress;
mod stderr;
mod urls;
mod v2;

use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use cli::{Arg, Exit};

/// Runs the command line of `etcdctl`.
pub fn etcdctl() -> ExitCode {
    let args: Vec<Arg> = std::env::args_os()
        .skip(1)
        .map(OsStringExt::into_vec)
        .collect();
    let result = match v2::version(&args) {
        v2::Version::V3 => return command::program().run(),
        v2::Version::Show => print::print_line(&version_text("etcdctl")),
        v2::Version::V2 => v2::execute(&args),
        v2::Version::V2WithNote(name) => {
            stderr::write_line(format_args!(
                "Note: {name} is a command of API version 2 and runs as such (ETCDCTL_API=2)."
            ));
            v2::execute(&args)
        }
        v2::Version::Unsupported(version) => Err(Exit {
            code: 1,
            message: Some(format!("unsupported API version {version}")),
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            exit.message.iter().for_each(stderr::write_line);
            ExitCode::from(exit.code)
        }
    }
}

/// Runs the command line of `etcdutl`.
pub fn etcdutl() -> ExitCode {
    let options = retcd_log::Options {
        format: retcd_log::Format::Console,
        times: retcd_log::Times::Seconds,
        ..retcd_log::Options::default()
    };
    retcd_log::init(&options).expect("stderr needs no opening");
    offline::program().run()
}

/// The version of the tools.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The output of `version`: the tool's version, and the API version, which omits the patch number.
fn version_text(tool: &str) -> String {
    let api = VERSION.rsplit_once('.').map_or(VERSION, |(api, _)| api);
    format!("{tool} version: {VERSION}\nAPI version: {api}")
}
