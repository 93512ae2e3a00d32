//! `etcdctl` for API version 2, compatible with etcd 3.3's (`ETCDCTL_API=2`).
//!
//! ```text
//! dispatch ──▶ program ──▶ keys, watch, health, member, user, role, auth, backup
//!                                    │ Action
//!                                    ▼
//!               settings ──▶ cluster (endpoints in turn) ──▶ http ──▶ client::Dialer
//! ```
//! - `dispatch`: which version a line is for. `program`, `options`, `help`: command lines as the
//!   library of etcd 3.3 takes them.
//! - `settings`: global options and variables. `failure`: error lines and exit codes.
//! - `store`: requests for keys. `output`: how they are printed.
//! - `hint`: a look at version 2 when version 3 does not find a key. `source`: the whole tree, for
//!   `etcdctl migrate-v2`. `page`: other pages of members, for `etcdctl top`.
//!
//! Output, errors, exit codes and the order of checks are etcd 3.3's. Help has its structure in
//! other words. Endpoints are tried in the given order, not in a random one.

mod auth;
mod backup;
mod cluster;
mod debug;
mod dispatch;
mod endpoint;
mod failure;
mod health;
mod help;
mod hint;
mod http;
mod keys;
mod member;
mod options;
mod output;
mod page;
mod program;
mod role;
mod settings;
mod source;
mod store;
mod user;
mod watch;

pub(crate) use dispatch::{Version, is_unset, version};
pub(crate) use hint::{has_key, with_scheme};
pub(crate) use http::{Action, Http};
pub(crate) use page::PageReader;
pub(crate) use source::Source;
pub(crate) use store::Node;

use crate::VERSION;
use crate::cli::{Arg, Exit};
use program::Command;

/// The commands, in the order of the help.
const COMMANDS: &[Command] = &[
    backup::COMMAND,
    health::COMMAND,
    keys::MK,
    keys::MKDIR,
    keys::RM,
    keys::RMDIR,
    keys::GET,
    keys::LS,
    keys::SET,
    keys::SETDIR,
    keys::UPDATE,
    keys::UPDATEDIR,
    watch::WATCH,
    watch::EXEC_WATCH,
    member::COMMAND,
    user::COMMAND,
    role::COMMAND,
    auth::COMMAND,
];

/// Commands that version 3 has, too.
const SHARED_COMMANDS: &[&str] = &["get", "watch", "member", "user", "role", "auth"];

/// Runs a command line.
///
/// # Errors
/// The line is wrong, or the command fails. The message is the whole text for stderr.
pub(crate) fn execute(args: &[Arg]) -> Result<(), Exit> {
    program::execute(COMMANDS, settings::FLAGS, args)
}

fn version_text() -> String {
    format!("etcdctl version: {VERSION}\nAPI version: 2\n")
}
