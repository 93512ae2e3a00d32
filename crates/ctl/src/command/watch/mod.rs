//! `watch`: prints the events of keys, and runs a command for each.

mod arguments;
mod interactive;
mod stream;

use super::context::{self, Context};
use crate::cli::{Command, Exit, ExitKind, Flag, Invocation};
use arguments::Environment;
use stream::{Outcome, Stream};

const LONG: &str = "\
Watches a key, a range, or with --prefix all keys that start with it. A command after two dashes is run for
each event, with ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY and ETCD_WATCH_VALUE in its
environment:
  $ etcdctl watch foo -- sh -c 'echo $ETCD_WATCH_VALUE'

With --interactive, each line of standard input starts a watch or requests progress:
  watch foo --prev-kv
  progress";

/// The `watch` command.
pub(crate) fn command() -> Command {
    Command::new(
        "watch",
        "[options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
        "Follow the changes of keys",
        run,
    )
    .long(LONG)
    .flags(flags())
}

/// The flags, which interactive lines accept as well.
fn flags() -> Vec<Flag> {
    vec![
        Flag::switch("interactive", "read watches from standard input").short('i'),
        Flag::switch("prefix", "watch all keys that start with the key"),
        Flag::int(
            "rev",
            0,
            "start with the changes of this revision (0 means from now on)",
        ),
        Flag::switch(
            "prev-kv",
            "print the records as they were before the changes",
        ),
        Flag::switch("progress-notify", "request periodic progress notifications"),
    ]
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let environment = Environment::read()?;
    if invocation.flags.bool("interactive") {
        let context = Context::new(invocation, true)?;
        return context::run(interactive::run(&context, &environment));
    }
    let watch = arguments::parse(
        &invocation.flags,
        &invocation.args,
        &invocation.raw,
        &environment,
    )?;
    let context = Context::new(invocation, true)?;
    let watch = watch.into_watch().map_err(Exit::bad_args)?;
    context::run(async {
        let client = context.client().await?;
        let mut stream = Stream::new(&client);
        stream.add(watch);
        loop {
            if let Outcome::Ended = stream.next(&context).await? {
                return Err(Exit::new(
                    ExitKind::Interrupted,
                    "watch is canceled by the server",
                ));
            }
        }
    })
}
