//! How a command ends when it does not succeed.

/// The exit codes that etcd's tools use, by what went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitKind {
    /// A failed request or a wrong command line.
    Error = 1,
    /// No client could be made.
    BadConnection = 2,
    /// Standard input cannot be understood.
    InvalidInput = 3,
    /// A known flag with an unsupported value.
    BadFeature = 4,
    /// A watch or a snapshot that ended early.
    Interrupted = 5,
    /// Wrong arguments.
    BadArgs = 128,
}

/// The end of a command that did not succeed: its code and, if there is more to say, one line for stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The process's exit code.
    pub code: u8,
    /// Printed behind `Error: `.
    pub message: Option<String>,
}

impl Exit {
    /// An end with a line on stderr.
    pub fn new(kind: ExitKind, message: impl ToString) -> Exit {
        Exit {
            code: kind as u8,
            message: Some(message.to_string()),
        }
    }

    /// An end about which everything has been said.
    pub fn silent(code: u8) -> Exit {
        Exit {
            code,
            message: None,
        }
    }

    /// Wrong arguments.
    pub fn bad_args(message: impl ToString) -> Exit {
        Exit::new(ExitKind::BadArgs, message)
    }

    /// A failed request.
    pub fn error(message: impl ToString) -> Exit {
        Exit::new(ExitKind::Error, message)
    }
}
