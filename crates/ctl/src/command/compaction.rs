//! `compaction`: compacts the key history.

use retcd_proto::etcdserverpb::CompactionRequest;

use super::context::{self, Context, failed};
use crate::cli::{Command, Exit, Flag, Invocation};
use crate::go::number::parse_int;
use crate::print::print_line;

/// The `compaction` command.
pub(crate) fn command() -> Command {
    Command::new(
        "compaction",
        "[options] <revision>",
        "Compact the history before a revision",
        run,
    )
    .flags([Flag::switch(
        "physical",
        "wait until the old records are removed from the database",
    )])
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let texts = invocation.texts();
    let [revision] = texts.as_slice() else {
        return Err(Exit::bad_args("compaction command needs 1 argument"));
    };
    let revision = parse_int(revision, 10).map_err(Exit::error)?;
    let request = CompactionRequest {
        revision,
        physical: invocation.flags.bool("physical"),
    };
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.limited_client().await?;
        client.compact(request).await.map_err(failed)?;
        print_line(&format!("compacted revision {revision}"))
    })
}
