//! `del`: deletes a key or a range of keys.

use std::time::Duration;

use retcd_proto::etcdserverpb::DeleteRangeRequest;

use super::context::{self, Context, failed};
use super::get::{check_exclusive, range};
use crate::cli::{Arg, Command, Exit, Flag, FlagSet, Invocation};
use crate::go::quote::quote;
use crate::print::Reply;
use crate::stderr;

/// How long the user may abort the deletion of a range.
const ABORT_PERIOD: Duration = Duration::from_secs(2);

/// The `del` command.
pub(crate) fn command() -> Command {
    Command::new(
        "del",
        "[options] <key> [range_end]",
        "Delete a key or a range of keys",
        run,
    )
    .flags(flags())
}

/// The flags, which `txn` accepts as well.
pub(crate) fn flags() -> Vec<Flag> {
    vec![
        Flag::switch("prefix", "delete all keys that start with the key"),
        Flag::switch("prev-kv", "print the deleted key-value pairs"),
        Flag::switch(
            "from-key",
            "delete all keys greater than or equal to the key, in byte order",
        ),
        Flag::switch("range", "delete the keys up to range_end without a delay"),
    ]
}

/// The request for these flags and arguments. A range without `--range` is announced two seconds in
/// advance.
///
/// # Errors
/// The arguments are invalid.
pub(crate) fn request(flags: &FlagSet, args: &[Arg]) -> Result<DeleteRangeRequest, Exit> {
    let (key, end) = match args {
        [key] => (key, None),
        [key, end] => (key, Some(end)),
        _ => {
            let text =
                "del command needs one argument as key and an optional argument as range_end";
            return Err(Exit::bad_args(text));
        }
    };
    check_exclusive(flags)?;
    let (range_key, range_end) = range(flags, key, end)?;
    if let Some(end) = end
        && !flags.bool("range")
    {
        stderr::write_line(format_args!(
            "Warning: Keys between {} and {} will be deleted. Please interrupt the command within next 2 seconds to \
             cancel. You can provide `--range` flag to avoid the delay.",
            quote(key),
            quote(end)
        ));
        std::thread::sleep(ABORT_PERIOD);
    }
    Ok(DeleteRangeRequest {
        key: range_key.into(),
        range_end: range_end.into(),
        prev_kv: flags.bool("prev-kv"),
    })
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let request = request(&invocation.flags, &invocation.args)?;
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.limited_client().await?;
        let deleted = client.delete_range(request).await.map_err(failed)?;
        context.print(&Reply::Delete(&deleted))
    })
}
