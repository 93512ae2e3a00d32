//! What can go wrong, told by who is at fault: the command line, the machine, or the server under load.

use std::io;
use std::path::PathBuf;

/// A call that did not bring the expected reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server answered with a gRPC status other than OK.
    #[error("the server answered with gRPC code {code}: {message}")]
    Status {
        /// The status code, 1 to 16.
        code: u32,
        /// The text that came with it.
        message: String,
    },
    /// The connection or the stream broke.
    #[error("connection broken: {0}")]
    Broken(#[from] h2::Error),
    /// The condition of a transaction did not hold: somebody else wrote the key between get and put.
    #[error("the key has changed between get and put")]
    Conflict,
    /// The server answered with something that etcd would not say.
    #[error("unexpected reply: {0}")]
    Unexpected(String),
}

impl CallError {
    /// Whether the server answered in order, only not as wished, so that the client may go on.
    pub fn is_refusal(&self) -> bool {
        match self {
            CallError::Status { .. } | CallError::Conflict => true,
            CallError::Broken(_) | CallError::Unexpected(_) => false,
        }
    }
}

/// Why a run ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with its path or address.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A call failed.
    #[error("{what}: {source}")]
    Call {
        /// The workload or step that made the call.
        what: String,
        /// Its failure.
        source: CallError,
    },
    /// A server did not do what a scenario needs of it.
    #[error("{}: {reason}{}", binary.display(), quoted(log))]
    Server {
        /// The server's executable.
        binary: PathBuf,
        /// What it did or failed to do.
        reason: String,
        /// An excerpt of what it logged, empty if there is nothing.
        log: String,
    },
}

impl Error {
    /// For `map_err` on I/O: names what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    /// For `map_err` on calls: names who called.
    pub fn call(what: impl Into<String>) -> impl FnOnce(CallError) -> Error {
        let what = what.into();
        move |source| Error::Call { what, source }
    }
}

fn quoted(log: &str) -> String {
    if log.is_empty() {
        return String::new();
    }
    format!("\nits log:\n  {}", log.trim_end().replace('\n', "\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_error_quotes_the_log() {
        let error = Error::Server {
            binary: PathBuf::from("etcd"),
            reason: "ended at start".into(),
            log: "one\ntwo\n".into(),
        };
        assert_eq!(
            error.to_string(),
            "etcd: ended at start\nits log:\n  one\n  two"
        );
    }
}
