//! Input files: backups and databases.
//!
//! The file type is checked before opening: opening a FIFO blocks until there is a writer, and a
//! directory can be opened but not read. Errors name the file, because commands also open files
//! that the user did not name.

use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use retcd_storage::bolt::{BoltError, Reason};

use super::io_text;
use crate::cli::Exit;

/// Returns the metadata of a regular file.
///
/// # Errors
/// The file does not exist, or is not a regular file.
pub(crate) fn check_regular(path: &Path) -> Result<Metadata, Exit> {
    check_regular_for("stat", path)
}

/// The same for a command that etcd's tool begins with another `action` on the file, which errors
/// name.
///
/// # Errors
/// As [`check_regular`].
pub(crate) fn check_regular_for(action: &str, path: &Path) -> Result<Metadata, Exit> {
    let metadata =
        fs::metadata(path).map_err(|error| Exit::error(io_text(action, path, &error)))?;
    match kind(metadata.file_type()) {
        None => Ok(metadata),
        Some(kind) => Err(Exit::error(format!(
            "{} is {kind}, not a file with a database",
            path.display()
        ))),
    }
}

/// The kind of a file that is not regular.
pub(crate) fn kind(file_type: FileType) -> Option<&'static str> {
    if file_type.is_file() {
        None
    } else if file_type.is_dir() {
        Some("a directory")
    } else if file_type.is_fifo() {
        Some("a FIFO")
    } else if file_type.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

/// What etcd says of a file that holds no database.
pub(crate) const NO_DATABASE: &str = "invalid database";

/// Whether a file holds no database at all.
pub(crate) fn is_no_database(error: &BoltError) -> bool {
    match error {
        BoltError::Io(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        BoltError::Damaged(damage) => damage.reason == Reason::NoMeta,
        _ => false,
    }
}

/// The text for a database that cannot be used. I/O errors already name the file.
pub(crate) fn database_text(path: &Path, error: &BoltError) -> String {
    let reason = match error {
        error if is_no_database(error) => NO_DATABASE.to_owned(),
        BoltError::Io(error) | BoltError::Full(error) => return error.to_string(),
        BoltError::Locked => {
            "the database is in use; stop its member first, or take a backup with `etcdctl snapshot save`"
                .to_owned()
        }
        error => error.to_string(),
    };
    format!("{}: {reason}", path.display())
}
