//! `version`: prints the version of etcdctl.

use crate::cli::{Command, Exit, Invocation};
use crate::print::print_line;

/// The `version` command.
pub(crate) fn command() -> Command {
    Command::new("version", "", "Show the version of etcdctl", run)
}

fn run(_: &mut Invocation<'_>) -> Result<(), Exit> {
    print_line(&crate::version_text("etcdctl"))
}
