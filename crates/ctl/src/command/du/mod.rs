//! `du`: what takes the space of the keyspace.
//!
//! - `usage`: adds up keys, in memory that does not grow with their number. `layout`: which group a
//!   key belongs to. `report`: what is printed.
//!
//! What old revisions take cannot be asked for key by key: the database's own size stands beside the
//! sum of the live keys.

mod layout;
mod report;
mod usage;

use retcd_client::{Client, prefix_range};
use retcd_proto::etcdserverpb::StatusRequest;

use self::layout::Layout;
use self::report::{Output, Report};
use self::usage::{Database, Usages};
use super::context::{self, Context};
use super::pages::Pages;
use crate::cli::{Command, Exit, ExitKind, Flag, FlagSet, Invocation};
use crate::progress::Progress;

const LONG: &str = "\
Adds up the keys with a prefix, or all keys: by the parts of their names, and below /registry by resource and namespace
of Kubernetes. Bytes are those of key and value as of one revision. Versions are how often the keys were written since they
were created; what old revisions take until they are compacted shows in the size of the database.

Prints a chart on a terminal, JSON elsewhere, and tables with -w table or -w simple.";

const EXAMPLES: &str = "  etcdctl du
  etcdctl du /registry/ --limit=0
  etcdctl du /app/ --depth=2 --largest=50
  etcdctl du -w json | jq '.resources[] | select(.bytes > 1e6) | .name'";

/// The `du` command.
pub(crate) fn command() -> Command {
    Command::new(
        "du",
        "[options] [prefix]",
        "Show what takes the space, by prefix",
        run,
    )
    .long(LONG)
    .examples(EXAMPLES)
    .flags([
        Flag::uint(
            "depth",
            1,
            "parts of a key behind the prefix that make a group",
        ),
        Flag::text("separator", "/", "what stands between the parts of a key"),
        Flag::text(
            "kubernetes-prefix",
            "/registry",
            "where Kubernetes keeps its objects; empty if it does not",
        ),
        Flag::uint("limit", 20, "rows of each chart (0 means all)"),
        Flag::uint("largest", 10, "number of the largest keys to list"),
        Flag::int("rev", 0, "read as of this revision (0 means the latest)"),
    ])
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let prefix = match invocation.args.as_slice() {
        [] => Vec::new(),
        [prefix] => prefix.clone(),
        _ => return Err(Exit::bad_args("du takes one prefix; run it once for each")),
    };
    let context = Context::new(invocation, false)?;
    let flags = &invocation.flags;
    let layout = layout(flags, &prefix)?;
    let count = |name| usize::try_from(flags.uint(name)).unwrap_or(usize::MAX);
    let (format, format_given) = (context.printer.format, flags.given("write-out"));
    let output = Output::new(format, format_given, count("limit")).ok_or_else(|| {
        let text = format!("{} not supported as output format", format.name());
        Exit::new(ExitKind::BadFeature, text)
    })?;
    let mut usages = Usages::new(layout, count("largest"));
    let (revision, database) = context::run(async {
        let client = context.client().await?;
        let range = prefix_range(&prefix);
        let mut pages = Pages::new(
            &client,
            context.command_timeout,
            range,
            flags.int("rev").max(0),
        );
        add_up(&mut pages, &mut usages).await?;
        Ok((pages.revision(), database(&client, &context).await))
    })?;
    Report::new(prefix, revision, database, usages).print(output)
}

fn layout(flags: &FlagSet, prefix: &[u8]) -> Result<Layout, Exit> {
    let depth = usize::try_from(flags.uint("depth")).unwrap_or(usize::MAX);
    if depth == 0 {
        return Err(Exit::bad_args("--depth must be at least 1"));
    }
    let separator = flags.text("separator").as_bytes().to_vec();
    if separator.is_empty() {
        return Err(Exit::bad_args("--separator must not be empty"));
    }
    Ok(Layout::new(
        prefix,
        separator,
        depth,
        flags.text("kubernetes-prefix"),
    ))
}

async fn add_up(pages: &mut Pages, usages: &mut Usages) -> Result<(), Exit> {
    let mut progress = Progress::new();
    let mut done = 0;
    while let Some(page) = pages.next().await? {
        done += page.kvs.len() as u64;
        page.kvs.iter().for_each(|kv| usages.add(kv));
        let all = done + page.left;
        progress.show(done, all, format_args!("{all} keys"));
    }
    Ok(())
}

/// The size of the database of the member that answers first; `None` if it does not tell.
async fn database(client: &Client, context: &Context) -> Option<Database> {
    let client = client.with_timeout(context.command_timeout);
    let status = client.status(StatusRequest::default()).await.ok()?;
    let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    Some(Database {
        size: bytes(status.db_size),
        in_use: bytes(status.db_size_in_use),
        quota: bytes(status.db_size_quota),
    })
}
