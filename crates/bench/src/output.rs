//! Results on standard output and in files.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{ErrorKind, Write, stdout};
use std::path::Path;

use crate::error::Error;

/// Prints a line.
///
/// # Errors
/// [`Error::StdoutClosed`] if standard output is closed, [`Error::Io`] for other failures.
pub(crate) fn line(text: impl Display) -> Result<(), Error> {
    writeln!(stdout(), "{text}").map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Error::StdoutClosed,
        _ => Error::io("cannot write to standard output")(error),
    })
}

/// Writes a file of results, over an earlier one.
///
/// # Errors
/// [`Error::Io`] if it cannot be written.
pub(crate) fn file(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(cannot_write(path))
}

/// Checks that [`file`] can write to `path`, and leaves what is there.
///
/// # Errors
/// [`Error::Io`] if it cannot.
pub(crate) fn check_file(path: &Path) -> Result<(), Error> {
    let opened = File::options().create(true).append(true).open(path);
    opened.map(drop).map_err(cannot_write(path))
}

fn cannot_write(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    Error::io(format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_checked_without_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.md");
        file(&path, "earlier").unwrap();
        check_file(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "earlier");
        let absent = directory.path().join("absent/results.md");
        let error = check_file(&absent).unwrap_err().to_string();
        assert!(
            error.contains("cannot write") && error.contains("absent"),
            "{error}"
        );
    }
}
