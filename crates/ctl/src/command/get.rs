//! `get`: reads a key or a range of keys.
//!
//! `--decode`, which etcd's tool does not have, shows values as Kubernetes' API server would.

use retcd_client::{from_key_range, prefix_range};
use retcd_proto::etcdserverpb::RangeRequest;
use retcd_proto::etcdserverpb::range_request::{SortOrder, SortTarget};

use super::context::{self, Context, failed};
use super::decode;
use crate::cli::{Arg, Command, Exit, ExitKind, Flag, FlagSet, Invocation};
use crate::go::quote::quote;
use crate::print::{Format, Reply, print_bytes};
use crate::stderr;
use crate::v2;

/// The `get` command.
pub(crate) fn command() -> Command {
    Command::new(
        "get",
        "[options] <key> [range_end]",
        "Read a key or a range of keys",
        run,
    )
    .flags(flags())
    .flags([decode::flag()])
    .examples(EXAMPLES)
}

const EXAMPLES: &str = "  etcdctl get greeting
  etcdctl get --prefix --keys-only /registry/pods/
  etcdctl get --decode /registry/deployments/shop/web
  etcdctl get --decode=json --prefix /registry/pods/shop/ | jq -r .status.podIP";

/// The flags, which `txn` accepts as well.
pub(crate) fn flags() -> Vec<Flag> {
    vec![
        Flag::text("consistency", "l", "linearizable (l) or serializable (s)"),
        Flag::text("order", "", "order of the results: ASCEND or DESCEND"),
        Flag::text(
            "sort-by",
            "",
            "sort by CREATE, KEY, MODIFY, VALUE or VERSION",
        ),
        Flag::int("limit", 0, "maximum number of results (0 means all)"),
        Flag::switch("prefix", "read all keys that start with the key"),
        Flag::switch(
            "from-key",
            "read all keys greater than or equal to the key, in byte order",
        ),
        Flag::int("rev", 0, "read as of this revision (0 means the latest)"),
        Flag::switch("keys-only", "omit the values"),
        Flag::switch("count-only", "only count the keys"),
        Flag::switch(
            "print-value-only",
            "print values without their keys (with the simple format)",
        ),
        Flag::int(
            "min-create-rev",
            0,
            "omit keys created before this revision",
        ),
        Flag::int("max-create-rev", 0, "omit keys created after this revision"),
        Flag::int(
            "min-mod-rev",
            0,
            "omit keys last modified before this revision",
        ),
        Flag::int(
            "max-mod-rev",
            0,
            "omit keys last modified after this revision",
        ),
        Flag::switch("stream", "receive the result in parts"),
    ]
}

/// The request for these flags and arguments.
///
/// # Errors
/// The arguments are invalid.
pub(crate) fn request(flags: &FlagSet, args: &[Arg]) -> Result<RangeRequest, Exit> {
    let usage = "get command needs one argument as key and an optional argument as range_end";
    let key = args.first().ok_or_else(|| Exit::bad_args(usage))?;
    check_exclusive(flags)?;
    if flags.bool("keys-only") && flags.bool("count-only") {
        let text = "`--keys-only` and `--count-only` cannot be set at the same time, choose one";
        return Err(Exit::bad_args(text));
    }
    let serializable = serializable(flags.text("consistency"), flags.text("consistency"))?;
    let (key, range_end) = range(flags, key, args.get(1))?;
    let mut request = RangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        limit: flags.int("limit"),
        revision: flags.int("rev").max(0),
        serializable,
        keys_only: flags.bool("keys-only"),
        count_only: flags.bool("count-only"),
        ..RangeRequest::default()
    };
    request.set_sort_order(sort_order(flags.text("order"))?);
    request.set_sort_target(sort_target(flags.text("sort-by"))?);
    // Ascending order by key is the default.
    if request.sort_order() == SortOrder::Ascend && request.sort_target() == SortTarget::Key {
        request.set_sort_order(SortOrder::None);
    }
    (request.min_create_revision, request.max_create_revision) =
        bounds(flags, "create-rev", "CreateRev")?;
    (request.min_mod_revision, request.max_mod_revision) = bounds(flags, "mod-rev", "ModRev")?;
    Ok(request)
}

/// Rejects the combination of `--prefix` and `--from-key`, for `get` and `del`.
///
/// # Errors
/// Both are set.
pub(crate) fn check_exclusive(flags: &FlagSet) -> Result<(), Exit> {
    if flags.bool("prefix") && flags.bool("from-key") {
        return Err(Exit::bad_args(
            "`--prefix` and `--from-key` cannot be set at the same time, choose one",
        ));
    }
    Ok(())
}

/// Key and range end, given by `--prefix`, `--from-key` or a second argument.
///
/// # Errors
/// There is a second argument together with one of the flags.
pub(crate) fn range(
    flags: &FlagSet,
    key: &[u8],
    end: Option<&Arg>,
) -> Result<(Vec<u8>, Vec<u8>), Exit> {
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    match end {
        Some(_) if prefix || from_key => Err(Exit::bad_args(
            "too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
        )),
        Some(end) => Ok((key.to_vec(), end.clone())),
        None if prefix => Ok(prefix_range(key)),
        None if from_key => Ok(from_key_range(key)),
        None => Ok((key.to_vec(), Vec::new())),
    }
}

/// Parses a consistency; `shown` is the value named in the error text.
///
/// # Errors
/// It is neither `l` nor `s`.
pub(crate) fn serializable(consistency: &str, shown: &str) -> Result<bool, Exit> {
    match consistency {
        "s" => Ok(true),
        "l" => Ok(false),
        _ => {
            let text = format!("unknown consistency flag {}", quote(shown.as_bytes()));
            Err(Exit::new(ExitKind::BadFeature, text))
        }
    }
}

fn sort_order(text: &str) -> Result<SortOrder, Exit> {
    Ok(match text.to_uppercase().as_str() {
        "" => SortOrder::None,
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        _ => {
            return Err(Exit::new(
                ExitKind::BadFeature,
                format!("bad sort order {text}"),
            ));
        }
    })
}

fn sort_target(text: &str) -> Result<SortTarget, Exit> {
    Ok(match text.to_uppercase().as_str() {
        "" | "KEY" => SortTarget::Key,
        "CREATE" => SortTarget::Create,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => {
            return Err(Exit::new(
                ExitKind::BadFeature,
                format!("bad sort target {text}"),
            ));
        }
    })
}

/// The revision bounds of `--min-*` and `--max-*`; 0 means none.
fn bounds(flags: &FlagSet, flag: &str, shown: &str) -> Result<(i64, i64), Exit> {
    let (min, max) = (
        flags.int(&format!("min-{flag}")),
        flags.int(&format!("max-{flag}")),
    );
    if max > 0 && min > max {
        let text = format!("getMin{shown}(={min}) > getMax{shown}(={max})");
        return Err(Exit::new(ExitKind::BadFeature, text));
    }
    Ok((min.max(0), max.max(0)))
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let request = request(&invocation.flags, &invocation.args)?;
    let mut context = Context::new(invocation, false)?;
    let flags = &invocation.flags;
    let decoded = decode::form(flags, context.printer.format)?;
    let key = request.range_end.is_empty().then(|| request.key.clone());
    let response = context::run(async {
        let client = context.limited_client().await?;
        let response = match flags.bool("stream") {
            true => client.range_stream(request).await,
            false => client.range(request).await,
        };
        response.map_err(failed)
    })?;
    // Like etcdctl, checks these only after the request.
    if flags.bool("count-only") && context.printer.format != Format::Fields {
        return Err(Exit::bad_args(
            "--count-only is only for `--write-out=fields`",
        ));
    }
    if flags.bool("print-value-only") {
        if context.printer.format != Format::Simple {
            return Err(Exit::bad_args(
                "print-value-only is only for `--write-out=simple`",
            ));
        }
        context.printer.values_only = true;
    }
    match decoded {
        Some(form) => print_bytes(decode::render(&response.kvs, form).as_bytes())?,
        None => context.print(&Reply::Get(&response))?,
    }
    match key {
        Some(key) if response.kvs.is_empty() => note_version_2(&context, &key),
        _ => Ok(()),
    }
}

/// Says so if a key that was not found is one of API version 2, whose keys are separate.
fn note_version_2(context: &Context, key: &[u8]) -> Result<(), Exit> {
    let is_there =
        v2::is_unset() && context::run(async { Ok(v2::has_key(&context.config, key).await) })?;
    if is_there {
        stderr::write_line(format_args!(
            "Note: {} is a key of API version 2 only; read it with ETCDCTL_API=2 etcdctl get",
            quote(key)
        ));
    }
    Ok(())
}
