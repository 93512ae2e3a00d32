//! `snapshot status`: describes a backup, or the database of a stopped member.
//!
//! The hash is CRC-32C over the name of each bucket followed by its keys and values. The SHA-256 at
//! the end of a backup is not verified; the pages of the database are.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crc32c::crc32c_append;
use prost::Message;
use retcd_log::{self as log, ByteSize};
use retcd_proto::mvccpb::KeyValue;
use retcd_state::mvcc::Revision;
use retcd_storage::backend::Bucket;
use retcd_storage::bolt::{Access, BoltError, Db, ReadTx};
use rustix::io::Errno;

use super::format::{self, Column, Raw};
use super::input_file::{NO_DATABASE, check_regular, database_text, is_no_database};
use super::{disk, io_text, lock_limit, open_locked, options};
use crate::cli::{Command, Exit, Invocation};

const LONG: &str = "\
Checks the database of a backup and describes it. With the simple format the columns are: hash, revision, total keys, \
total size, version.";

/// The `status` command.
pub(crate) fn command() -> Command {
    Command::new("status", "<filename>", "Describe a backup", run).long(LONG)
}

#[derive(Default)]
struct Status {
    hash: u32,
    revision: i64,
    keys: HashSet<Vec<u8>>,
    bytes: u64,
    version: String,
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let texts = invocation.texts();
    let [path] = texts.as_slice() else {
        return Err(Exit::bad_args(
            "snapshot status requires exactly one argument",
        ));
    };
    let path = PathBuf::from(path);
    if check_regular(&path)?.len() == 0 {
        // etcd's tool takes an empty file for a new database, and may not write it.
        log::error!("the file is empty"; "path" => path);
        let unwritable = io::Error::from(Errno::BADF);
        return Err(Exit::error(io_text("write", &path, &unwritable)));
    }
    let status = read(&path, lock_limit(invocation))?;
    let number = |number: u64| Raw::Number(i64::try_from(number).unwrap_or(i64::MAX));
    let keys = status.keys.len() as u64;
    let columns = [
        (
            "HASH",
            "Hash",
            "hash",
            format!("{:x}", status.hash),
            number(status.hash.into()),
        ),
        (
            "REVISION",
            "Revision",
            "revision",
            status.revision.to_string(),
            Raw::Number(status.revision),
        ),
        (
            "TOTAL KEYS",
            "Keys",
            "totalKey",
            keys.to_string(),
            number(keys),
        ),
        (
            "TOTAL SIZE",
            "Size",
            "totalSize",
            ByteSize(status.bytes).to_string(),
            number(status.bytes),
        ),
        (
            "VERSION",
            "Version",
            "version",
            status.version.clone(),
            Raw::Text(status.version),
        ),
    ]
    .map(|(heading, field, name, shown, raw)| Column {
        heading,
        field,
        name,
        shown,
        raw,
    });
    format::print(invocation.flags.text("write-out"), &columns)
}

fn read(path: &Path, lock_limit: Option<Duration>) -> Result<Status, Exit> {
    let failed = |error: BoltError| {
        Exit::error(match is_no_database(&error) {
            // The command names no other file.
            true => NO_DATABASE.to_owned(),
            false => database_text(path, &error),
        })
    };
    let open = || Db::open(disk(), path, options(Access::ReadOnly));
    let db = open_locked(lock_limit, open).map_err(failed)?;
    let view = db.read();
    let damages = view.check().map_err(failed)?;
    if !damages.is_empty() {
        let lines: Vec<String> = damages.iter().map(ToString::to_string).collect();
        let head = format!(
            "snapshot file integrity check failed. {} errors found.",
            damages.len()
        );
        return Err(Exit::error(format!("{head}\n{}", lines.join("\n"))));
    }
    let mut status = Status {
        bytes: view.size_bytes(),
        version: storage_version(&view).map_err(failed)?,
        ..Status::default()
    };
    for bucket in view.buckets() {
        status.hash = crc32c_append(status.hash, bucket);
        for entry in view.range(bucket, b"", None) {
            let entry = entry.map_err(failed)?;
            status.hash = crc32c_append(crc32c_append(status.hash, entry.key()), entry.value());
            if bucket == Bucket::Key.name() {
                status.count(entry.key(), entry.value())?;
            }
        }
    }
    Ok(status)
}

fn storage_version(view: &ReadTx) -> Result<String, BoltError> {
    let version = view.get(Bucket::Meta.name(), b"storageVersion")?;
    Ok(version
        .map(|entry| String::from_utf8_lossy(entry.value()).into_owned())
        .unwrap_or_default())
}

impl Status {
    /// Tracks the live keys: a put adds one, a tombstone removes it.
    fn count(&mut self, key: &[u8], value: &[u8]) -> Result<(), Exit> {
        let damaged = |what: &str| Exit::error(format!("bucket key: {key:02x?} is no {what}"));
        let (revision, tombstone) = Revision::from_key(key).ok_or_else(|| damaged("revision"))?;
        let record = KeyValue::decode(value).map_err(|_| damaged("record"))?;
        self.revision = revision.main;
        if tombstone {
            self.keys.remove(&record.key[..]);
        } else {
            self.keys.insert(record.key.to_vec());
        }
        Ok(())
    }
}
