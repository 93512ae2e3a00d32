//! The command line tools: `etcdctl` talks to a cluster, `etcdutl` works on files.
//!
//! - [`cli`]: commands, flags and help, with the spellings and error texts of etcd's tools.
//! - [`command`]: `etcdctl`, one command per file, on the crate `client`.
//! - [`offline`]: `etcdutl`, one command per file.
//! - [`print`]: the output formats.
//! - [`go`]: the text formats of Go's standard library that show in results and errors.
//!
//! What they print on stdout, their error lines and their exit codes are interface, byte for byte. Help texts are not.

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "`print` and `log` know what to do when nobody reads any more"
)]

pub mod cli;
pub mod command;
pub mod go;
mod log;
pub mod offline;
pub mod print;
mod urls;

/// The version that the tools report.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The text of `version`: the tool's version, and the API's, which is the version without its patch.
fn version_text(tool: &str) -> String {
    let api = VERSION.rsplit_once('.').map_or(VERSION, |(api, _)| api);
    format!("{tool} version: {VERSION}\nAPI version: {api}")
}
