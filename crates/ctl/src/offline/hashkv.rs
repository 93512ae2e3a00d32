//! `hashkv`: prints the hash of a database's key-value store, as a server with the same data
//! computes it.
//!
//! The file is opened read-only, so that a backup keeps its checksum. (etcd's tool writes to it.)

use std::path::Path;

use retcd_state::machine::Machine;
use retcd_state::mvcc::RangeError;
use retcd_storage::backend::Backend;
use retcd_storage::bolt::Access;

use super::format::{self, Column, Raw};
use super::input_file::{check_regular, database_text};
use super::{disk, lock_limit, machine_options, open_locked, options};
use crate::cli::{Command, Exit, Flag, Invocation, Positional};

/// The `hashkv` command.
pub(crate) fn command() -> Command {
    Command::new(
        "hashkv",
        "<filename>",
        "Show the hash of a database's keyspace",
        run,
    )
    .positional(Positional::Exactly(1))
    .flags([Flag::int(
        "rev",
        0,
        "hash up to this revision (0 means the latest)",
    )])
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let texts = invocation.texts();
    let path = Path::new(&texts[0]);
    check_regular(path)?;
    let open = || Backend::open(disk(), path, options(Access::ReadOnly));
    let backend = open_locked(lock_limit(invocation), open)
        .map_err(|error| Exit::error(database_text(path, &error)))?;
    let machine = Machine::open(backend, machine_options())
        .map_err(|error| Exit::error(format!("{}: {error}", path.display())))?;
    let (hash, _) = machine
        .reader()
        .hash_kv(invocation.flags.int("rev"))
        .map_err(|error| match error {
            RangeError::Compacted => Exit::error("mvcc: required revision has been compacted"),
            RangeError::FutureRevision => {
                Exit::error("mvcc: required revision is a future revision")
            }
            error => Exit::error(error),
        })?;
    let columns = [
        ("HASH", "Hash", "hash", i64::from(hash.hash)),
        (
            "HASH REVISION",
            "Hash revision",
            "hashRevision",
            hash.revision,
        ),
        (
            "COMPACT REVISION",
            "Compact revision",
            "compactRevision",
            hash.compact_revision,
        ),
    ]
    .map(|(heading, field, name, number)| Column {
        heading,
        field,
        name,
        shown: number.to_string(),
        raw: Raw::Number(number),
    });
    format::print(invocation.flags.text("write-out"), &columns)
}
