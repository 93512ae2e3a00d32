//! Exit codes and errors of commands.

/// The exit codes of etcd's tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitKind {
    /// The request failed, or the command line is invalid.
    Error = 1,
    /// The client could not be created.
    BadConnection = 2,
    /// Standard input is invalid.
    InvalidInput = 3,
    /// A flag has an unsupported value.
    BadFeature = 4,
    /// A watch or snapshot ended early.
    Interrupted = 5,
    /// The arguments are invalid.
    BadArgs = 128,
}

/// The exit of a failed command: its code and an optional error line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The process's exit code.
    pub(crate) code: u8,
    /// Printed after `Error: `; the whole text in API version 2.
    pub(crate) message: Option<String>,
}

impl Exit {
    /// An exit with an error line.
    pub(crate) fn new(kind: ExitKind, message: impl ToString) -> Exit {
        Exit {
            code: kind as u8,
            message: Some(message.to_string()),
        }
    }

    /// An exit whose error has already been printed.
    pub(crate) fn silent(code: u8) -> Exit {
        Exit {
            code,
            message: None,
        }
    }

    /// Invalid arguments.
    pub(crate) fn bad_args(message: impl ToString) -> Exit {
        Exit::new(ExitKind::BadArgs, message)
    }

    /// A failed request.
    pub(crate) fn error(message: impl ToString) -> Exit {
        Exit::new(ExitKind::Error, message)
    }
}
