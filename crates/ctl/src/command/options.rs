//! `options`: lists the global flags.

use crate::cli::{Command, Exit, Invocation, flag_table};
use crate::print::print_bytes;

/// The `options` command.
pub(crate) fn command() -> Command {
    Command::new("options", "", "List the global flags", run)
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let table = flag_table(&invocation.program.root);
    print_bytes(
        format!("The following options can be passed to any command:\n\n{table}").as_bytes(),
    )
}
