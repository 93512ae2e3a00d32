//! `etcdutl`, with one file per command. It reads and writes files and never connects to a server.

mod check;
mod cluster;
mod created_files;
mod defrag;
mod format;
mod hashkv;
mod input_file;
mod log_start;
mod migrate;
mod restore;
mod status;

pub(crate) use created_files::CreatedFiles;
pub(crate) use input_file::database_text;
pub(crate) use log_start::{mark, newest_snapshot};

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use retcd_log::{GoDuration, go_io_error};
use retcd_state::machine::MachineOptions;
use retcd_storage::bolt::{Access, BoltError, Options};
use retcd_storage::disk::OsDisk;

use crate::cli::{Command, Exit, Flag, Invocation, Program, completion_command, help_command};
use crate::print::print_line;

/// The interval between attempts to lock a file.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The `etcdutl` program.
pub(crate) fn program() -> Program {
    let completion = "Prints a script that completes commands and flags in a shell.";
    let commands = vec![
        check::command(),
        completion_command("", completion),
        defrag::command(),
        hashkv::command(),
        help_command(""),
        migrate::command(),
        Command::group(
            "snapshot",
            "Inspect and restore backups",
            vec![restore::command(), status::command()],
        ),
        Command::new("version", "", "Show the version of etcdutl", version),
    ];
    let timeout = "timeout for locking a database (0 means none)";
    let root = Command::group(
        "etcdutl",
        "An administration tool for the files of stopped etcd members.",
        commands,
    )
    .persistent([
        Flag::text(
            "write-out",
            "simple",
            "output format: fields, json, protobuf, simple or table",
        )
        .short('w'),
        Flag::duration("timeout", GoDuration::from_secs(10), timeout),
    ]);
    Program {
        root,
        hint: "",
        repeats_errors: true,
    }
}

fn version(_: &mut Invocation<'_>) -> Result<(), Exit> {
    print_line(&crate::version_text("etcdutl"))
}

pub(crate) fn disk() -> Arc<OsDisk> {
    Arc::new(OsDisk)
}

/// Opens something that another process may have locked; waits until `limit`, or indefinitely.
pub(crate) fn open_locked<T>(
    limit: Option<Duration>,
    open: impl Fn() -> Result<T, BoltError>,
) -> Result<T, BoltError> {
    let start = Instant::now();
    loop {
        match open() {
            Err(BoltError::Locked) if limit.is_none_or(|limit| start.elapsed() < limit) => {
                std::thread::sleep(LOCK_PAUSE);
            }
            result => return result,
        }
    }
}

pub(crate) fn options(access: Access) -> Options {
    Options {
        access,
        ..Options::default()
    }
}

/// `ACTION PATH: REASON` for an error of the operating system.
/// How a database's state is read: its values, which may be more than fits into memory, are looked at
/// where they are needed.
pub(crate) fn machine_options() -> MachineOptions {
    MachineOptions {
        value_bytes_max: 0,
        ..MachineOptions::default()
    }
}

pub(crate) fn io_text(action: &str, path: &Path, error: &io::Error) -> String {
    format!("{action} {}: {}", path.display(), go_io_error(error))
}

fn lock_limit(invocation: &Invocation<'_>) -> Option<Duration> {
    invocation.flags.duration("timeout").limit()
}
