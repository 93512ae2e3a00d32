//! `defrag`: rewrites the database of a stopped member without its free pages.

use std::path::Path;

use retcd_storage::backend::Backend;
use retcd_storage::bolt::Access;

use super::input_file::{check_regular, database_text};
use super::{disk, io_text, lock_limit, open_locked, options};
use crate::cli::{Command, Exit, Flag, Invocation};
use crate::log;

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
    log::console_line(
        "info",
        "defragmenting",
        &[("path", path.display().to_string())],
    );
    // The new database replaces the file itself, not a symbolic link to it.
    let file =
        std::fs::canonicalize(&path).map_err(|error| failed(io_text("stat", &path, &error)))?;
    let open = || Backend::open(disk(), &file, options(Access::Existing));
    let backend = open_locked(lock_limit(invocation), open)
        .map_err(|error| failed(database_text(&path, &error)))?;
    let before = backend.size_bytes();
    backend
        .defragment()
        .map_err(|error| failed(database_text(&path, &error)))?;
    let fields = [
        ("path", path.display().to_string()),
        ("size-before-bytes", before.to_string()),
        ("size-after-bytes", backend.size_bytes().to_string()),
    ];
    log::console_line("info", "finished defragmenting directory", &fields);
    Ok(())
}
