//! `defrag`: rewrites the database of a stopped member without its free pages.

use std::path::Path;
use std::time::Instant;

use retcd_log::{self as log, ByteSize};
use retcd_storage::backend::Backend;
use retcd_storage::bolt::Access;

use super::input_file::{check_regular, database_text};
use super::{disk, io_text, lock_limit, open_locked, options};
use crate::cli::{Command, Exit, Flag, Invocation};
use crate::progress::Progress;

/// The `defrag` command.
pub(crate) fn command() -> Command {
    let data_dir = Flag::text("data-dir", "", "the member's data directory").required();
    Command::new(
        "defrag",
        "",
        "Defragment the database of a stopped member",
        run,
    )
    .flags([data_dir])
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let dir = invocation.flags.text("data-dir");
    if dir.is_empty() {
        return Err(Exit::bad_args(
            "--data-dir is empty; name the member's data directory",
        ));
    }
    let path = Path::new(dir).join("member/snap/db");
    let failed =
        |reason: String| Exit::error(format!("Failed to defragment etcd data[{dir}] ({reason})"));
    check_regular(&path).map_err(|exit| failed(exit.message.unwrap_or_default()))?;
    // The new database replaces the file itself, not a symbolic link to it.
    let file =
        std::fs::canonicalize(&path).map_err(|error| failed(io_text("stat", &path, &error)))?;
    let open = || Backend::open(disk(), &file, options(Access::Existing));
    let backend = open_locked(lock_limit(invocation), open)
        .map_err(|error| failed(database_text(&path, &error)))?;
    let before = Sizes::of(&backend);
    log::info!(
        "defragmenting";
        "path" => path,
        "current-db-size-bytes" => before.all,
        "current-db-size" => ByteSize(before.all),
        "current-db-size-in-use-bytes" => before.in_use,
        "current-db-size-in-use" => ByteSize(before.in_use)
    );
    let start = Instant::now();
    let mut progress = Progress::new();
    let mut show = |done| progress.show(done, before.in_use, ByteSize(before.in_use));
    backend
        .defragment_with_progress(&mut show)
        .map_err(|error| failed(database_text(&path, &error)))?;
    drop(progress);
    let after = Sizes::of(&backend);
    log::info!(
        "finished defragmenting directory";
        "path" => path,
        "current-db-size-bytes-diff" => after.all.cast_signed() - before.all.cast_signed(),
        "current-db-size-bytes" => after.all,
        "current-db-size" => ByteSize(after.all),
        "current-db-size-in-use-bytes-diff" => after.in_use.cast_signed() - before.in_use.cast_signed(),
        "current-db-size-in-use-bytes" => after.in_use,
        "current-db-size-in-use" => ByteSize(after.in_use),
        "took" => start.elapsed()
    );
    Ok(())
}

/// Bytes of a database: all, and those of pages that are not free.
struct Sizes {
    all: u64,
    in_use: u64,
}

impl Sizes {
    fn of(backend: &Backend) -> Sizes {
        Sizes {
            all: backend.size_bytes(),
            in_use: backend.size_in_use_bytes(),
        }
    }
}
