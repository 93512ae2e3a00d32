//! Results on standard output.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stdout};

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
