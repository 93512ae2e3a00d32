//! `put`: sets a key.

use std::io::Read;

use retcd_proto::etcdserverpb::PutRequest;

use super::context::{self, Context, failed};
use crate::cli::{Arg, Command, Exit, Flag, FlagSet, Invocation};
use crate::go::number::parse_int;
use crate::print::Reply;

const LONG: &str = "\
Sets a key to a value and prints OK.

Without a value on the command line, all of standard input is the value:
  $ cat file | etcdctl put key

A value that starts with a dash must follow two dashes:
  $ etcdctl put key -- -value";

const USAGE: &str = "put command needs 1 argument and input from stdin or 2 arguments";

/// The `put` command.
pub(crate) fn command() -> Command {
    Command::new(
        "put",
        "[options] <key> <value> (<value> can also be given from stdin)",
        "Set a key",
        run,
    )
    .long(LONG)
    .flags(flags())
}

/// The flags, which `txn` accepts as well.
pub(crate) fn flags() -> Vec<Flag> {
    vec![
        Flag::text(
            "lease",
            "0",
            "id of the lease to attach to the key, in hexadecimal",
        ),
        Flag::switch("prev-kv", "print the replaced key-value pair"),
        Flag::switch("ignore-value", "keep the key's value"),
        Flag::switch("ignore-lease", "keep the key's lease"),
    ]
}

/// Where the value comes from if it is not an argument.
#[derive(Clone, Copy)]
pub(crate) enum ValueSource {
    /// The value is all of standard input.
    Stdin,
    /// Nowhere: standard input contains the commands of a transaction.
    Nothing,
}

/// The request for these flags and arguments.
///
/// # Errors
/// The arguments are invalid, or there is no value.
pub(crate) fn request(
    flags: &FlagSet,
    args: &[Arg],
    source: ValueSource,
) -> Result<PutRequest, Exit> {
    let key = args.first().ok_or_else(|| Exit::bad_args(USAGE))?;
    let ignore_value = flags.bool("ignore-value");
    if ignore_value && args.len() > 1 {
        return Err(Exit::bad_args(
            "put command needs only 1 argument when 'ignore-value' is set",
        ));
    }
    let value = match args.get(1) {
        _ if ignore_value => Vec::new(),
        Some(value) => value.clone(),
        None => source.value()?,
    };
    let lease = parse_int(flags.text("lease"), 16)
        .map_err(|error| Exit::bad_args(format!("bad lease ID ({error}), expecting ID in Hex")))?;
    Ok(PutRequest {
        key: key.clone().into(),
        value: value.into(),
        lease,
        prev_kv: flags.bool("prev-kv"),
        ignore_value,
        ignore_lease: flags.bool("ignore-lease"),
    })
}

impl ValueSource {
    fn value(self) -> Result<Vec<u8>, Exit> {
        let mut value = Vec::new();
        if let ValueSource::Stdin = self {
            let read = std::io::stdin().lock().read_to_end(&mut value);
            read.map_err(|_| Exit::bad_args(USAGE))?;
        }
        match value.is_empty() {
            true => Err(Exit::bad_args(USAGE)),
            false => Ok(value),
        }
    }
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let request = request(&invocation.flags, &invocation.args, ValueSource::Stdin)?;
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.limited_client().await?;
        let response = client.put(request).await.map_err(failed)?;
        context.print(&Reply::Put(&response))
    })
}
