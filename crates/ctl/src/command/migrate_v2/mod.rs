//! `migrate-v2`: writes the keys of API v2 to API v3.
//!
//! etcd up to 3.5 does that on the data directory of each member while it is stopped. This reads
//! and writes through members that run, so that every member gets the same through the log, and
//! the source may be another cluster.
//!
//! - `plan`: from trees of API v2 to keys. `write`: the transactions. `report`: what is printed.
//!
//! Nothing is removed from either API.

mod plan;
mod report;
mod write;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use self::plan::{KeyRule, Plan, Ttl, batches, normalized};
use self::report::Report;
use self::write::{Item, Migration};
use super::context::{self, Context};
use super::unchanged::BATCH_BYTES_MAX;
use crate::cli::{Command, Exit, ExitKind, Flag, FlagSet, Invocation};
use crate::print::Format;
use crate::progress::Progress;
use crate::v2::Source;

/// How long a member may take to answer with the whole tree, unless `--command-timeout` is longer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

const LONG: &str = "\
Writes the keys of API v2, or those below a path, to API v3 under the same names with the same values.

Keys that API v3 has with another value are left as they are and listed, and the exit code is 1; with --overwrite
they are replaced. Running it again writes only what is new. Nothing is removed from either API.

A key that expires, by itself or with a directory above it, gets a lease; all keys with the same time to live, in
seconds, share one.

Hidden keys, which have a name on their path that starts with _, are not listed by API v2: name each of them, or
the hidden directory, with --also.";

const EXAMPLES: &str = "  etcdctl migrate-v2 --dry-run
  etcdctl migrate-v2 /registry --also /registry/_internal
  etcdctl migrate-v2 --from http://old:2379 --v2-username reader /config --strip-prefix /config --add-prefix /app";

/// The `migrate-v2` command.
pub(crate) fn command() -> Command {
    Command::new(
        "migrate-v2",
        "[options] [path]",
        "Write the keys of API v2 to API v3",
        run,
    )
    .long(LONG)
    .examples(EXAMPLES)
    .flags([
        Flag::list(
            "from",
            &[],
            "client URLs of the members to read from (default: --endpoints)",
        ),
        Flag::text(
            "v2-username",
            "",
            "name[:password] of a user of API v2 (prompts for a missing password)",
        ),
        Flag::text(
            "prefix",
            "",
            "path in API v2 to read, instead of an argument",
        ),
        Flag::list("also", &[], "further paths to read, such as hidden ones"),
        Flag::text("strip-prefix", "", "path to remove from the start of keys"),
        Flag::text(
            "add-prefix",
            "",
            "text to put before keys, after all other changes",
        ),
        Flag::boolean(
            "keep-leading-slash",
            true,
            "whether keys start with a slash, as in API v2",
        ),
        Flag::switch("dirs", "write an empty key for each empty directory"),
        Flag::switch("overwrite", "replace keys that have another value"),
        Flag::switch("dry-run", "write nothing, and show what would be written"),
        Flag::uint(
            "batch",
            100,
            "maximum number of keys in a transaction (--max-txn-ops of the members)",
        ),
    ])
}

/// What the flags and arguments say.
struct Options {
    /// The paths to read.
    paths: Vec<String>,
    from: Vec<String>,
    rule: KeyRule,
    batch_max: usize,
}

fn options(flags: &FlagSet, args: &[String]) -> Result<Options, Exit> {
    let path = match (args, flags.text("prefix")) {
        ([], prefix) => prefix,
        ([path], "") => path,
        ([_], _) => {
            return Err(Exit::bad_args(
                "give the path as an argument or as --prefix, not both",
            ));
        }
        _ => {
            return Err(Exit::bad_args(
                "migrate-v2 takes one path; name others with --also",
            ));
        }
    };
    let batch_max = usize::try_from(flags.uint("batch")).unwrap_or(usize::MAX);
    if batch_max == 0 {
        return Err(Exit::bad_args("--batch must be at least 1"));
    }
    let paths = [path]
        .into_iter()
        .chain(flags.list("also").iter().map(String::as_str));
    Ok(Options {
        paths: paths.map(normalized).collect(),
        from: flags.list("from").to_vec(),
        rule: KeyRule {
            strip_prefix: normalized(flags.text("strip-prefix")),
            keeps_leading_slash: flags.bool("keep-leading-slash"),
            add_prefix: flags.text("add-prefix").to_owned(),
        },
        batch_max,
    })
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let options = options(&invocation.flags, &invocation.texts())?;
    let context = Context::new(invocation, false)?;
    let format = context.printer.format;
    if matches!(format, Format::Fields | Format::Protobuf) {
        let text = format!("{} not supported as output format", format.name());
        return Err(Exit::new(ExitKind::BadFeature, text));
    }
    let report = context::run(migrate(&context, &invocation.flags, &options))?;
    report.print(format, report.dry_run && std::io::stdout().is_terminal())?;
    match report.conflicts() {
        0 => Ok(()),
        count => Err(Exit::error(format!(
            "keys that have another value in API v3: {count}\nCompare them; then replace them with \
             --overwrite, or write elsewhere with --add-prefix."
        ))),
    }
}

async fn migrate(context: &Context, flags: &FlagSet, options: &Options) -> Result<Report, Exit> {
    let from = match options.from.is_empty() {
        true => &context.config.endpoints,
        false => &options.from,
    };
    let timeout = context.command_timeout.max(READ_TIMEOUT);
    let source = Source::new(
        from,
        &context.config.tls,
        flags.text("v2-username"),
        timeout,
    )?;
    let plan = read(&source, options, flags.bool("dirs")).await?;
    let read_at = Instant::now();

    let client = context.client().await?;
    let report = Report::new(&plan, flags.bool("dry-run"));
    let mut migration = Migration::new(context, client, read_at, flags.bool("overwrite"), report);
    let items: Vec<Item<'_>> = plan.keys.iter().collect();
    let size = |(key, planned): &Item<'_>| key.len() + planned.value.len();
    let mut progress = Progress::new();
    let mut done = 0;
    for batch in batches(&items, size, options.batch_max, BATCH_BYTES_MAX) {
        migration
            .write(batch)
            .await
            .map_err(|exit| stopped(exit, done, items.len()))?;
        done += batch.len();
        progress.show(
            done as u64,
            items.len() as u64,
            format_args!("{} keys", items.len()),
        );
    }
    drop(progress);
    Ok(migration.report)
}

async fn read(source: &Source, options: &Options, keeps_directories: bool) -> Result<Plan, Exit> {
    let mut plan = Plan::default();
    for path in &options.paths {
        let above = source.directories_above(path).await?;
        let above = above.iter().map(Ttl::of).min().unwrap_or(Ttl::Unlimited);
        let tree = source.tree(path).await?;
        let added = plan.add(tree, above, &options.rule, keeps_directories);
        added.map_err(Exit::error)?;
    }
    Ok(plan)
}

/// Says how far it came: what has been written stays.
fn stopped(exit: Exit, done: usize, all: usize) -> Exit {
    let note = |text: String| {
        format!("{text}\n{done} of {all} keys are done; the same command goes on with the others.")
    };
    Exit {
        message: exit.message.map(note),
        ..exit
    }
}
