//! `etcdutl`: one command per file. It reads and writes files and never talks to a server.

use crate::cli::{Command, Exit, Invocation, Program, completion_command, help_command};
use crate::print::print_line;

/// The program.
pub fn program() -> Program {
    let commands = vec![
        completion_command("", "Prints a script that completes commands and flags in a shell."),
        help_command(""),
        Command::new("version", "", "Show the version of etcdutl", version),
    ];
    Program { root: Command::group("etcdutl", "Work on the files of etcd members that are not running.", commands), hint: "", repeats_errors: true }
}

fn version(_: &mut Invocation<'_>) -> Result<(), Exit> {
    print_line(&crate::version_text("etcdutl"))
}
