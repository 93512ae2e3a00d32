//! `etcdctl`, with one file per command.
//!
//! A command validates its arguments, creates a [`Context`](context::Context) from the global flags
//! and the environment, sends its request, and prints the reply. Its own flags are validated before
//! anything is sent; as in etcd's tool, whether the output format supports the reply is checked
//! afterwards.

mod alarm;
mod auth;
mod check;
mod compaction;
mod context;
mod decode;
mod defrag;
mod del;
mod discovery;
mod downgrade;
mod du;
mod dump;
mod elect;
mod endpoint;
mod environment;
mod exec;
mod get;
mod global_flags;
mod lease;
mod lock;
mod make_mirror;
mod member;
mod migrate_v2;
mod move_leader;
mod next_step;
mod options;
mod output_file;
mod pages;
mod password;
mod put;
mod role;
mod signal;
mod snapshot;
mod top;
mod txn;
mod unchanged;
mod user;
mod version;
mod watch;
mod words;

pub(crate) use context::run as run_async;
pub(crate) use discovery::endpoints as discovered_endpoints;
pub(crate) use exec::Problem as CommandProblem;
pub(crate) use password::ask as ask_password;
pub(crate) use signal::until_interrupted;

use crate::cli::{Command, Program, completion_command, help_command};

const KEYS: &str = "Key-value commands";
const CLUSTER: &str = "Cluster maintenance commands";
const CONCURRENCY: &str = "Concurrency commands";
const AUTH: &str = "Authentication commands";
const UTILITY: &str = "Utility commands";

const COMPLETION_HELP: &str = "\
Prints a script that completes commands and flags in a shell.

  bash:        etcdctl completion bash > /etc/bash_completion.d/etcdctl
  zsh:         etcdctl completion zsh > \"${fpath[1]}/_etcdctl\"
  fish:        etcdctl completion fish > ~/.config/fish/completions/etcdctl.fish
  powershell:  etcdctl completion powershell | Out-String | Invoke-Expression";

const HELP: &str = "\
A command line client for etcd.

Commands of API version 2 have a help of their own: ETCDCTL_API=2 etcdctl --help";

/// The `etcdctl` program.
pub(crate) fn program() -> Program {
    let commands = vec![
        get::command().heading(KEYS),
        put::command().heading(KEYS),
        del::command().heading(KEYS),
        txn::command().heading(KEYS),
        watch::command().heading(KEYS),
        lease::command().heading(KEYS),
        compaction::command().heading(KEYS),
        du::command().beyond_etcd().heading(KEYS),
        dump::export().beyond_etcd().heading(KEYS),
        dump::import().beyond_etcd().heading(KEYS),
        migrate_v2::command().heading(KEYS),
        alarm::command().heading(CLUSTER),
        defrag::command().heading(CLUSTER),
        downgrade::command().heading(CLUSTER),
        top::command().beyond_etcd().heading(CLUSTER),
        endpoint::command().heading(CLUSTER),
        member::command().heading(CLUSTER),
        move_leader::command().heading(CLUSTER),
        snapshot::command().heading(CLUSTER),
        lock::command().heading(CONCURRENCY),
        elect::command().heading(CONCURRENCY),
        auth::command().heading(AUTH),
        role::command().heading(AUTH),
        user::command().heading(AUTH),
        check::command().heading(UTILITY),
        completion_command(UTILITY, COMPLETION_HELP),
        help_command(UTILITY),
        make_mirror::command().heading(UTILITY),
        options::command().heading(UTILITY),
        version::command().heading(UTILITY),
    ];
    Program {
        root: Command::group("etcdctl", "A command line client for etcd.", commands)
            .long(HELP)
            .persistent(global_flags::flags()),
        hint: "Use \"etcdctl options\" for a list of global command-line options (applies to all commands).\n",
        repeats_errors: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_indented_shell_lines() {
        fn check(command: &Command) {
            for line in command.examples.lines() {
                assert!(line.starts_with("  "), "{}: {line:?}", command.name);
            }
            command.children.iter().for_each(check);
        }
        check(&program().root);
    }
}
