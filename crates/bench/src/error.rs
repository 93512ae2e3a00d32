//! What can go wrong, told by who is at fault: the command line, the machine, or the server under load.

use std::fmt::Display;
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
    /// There is no connection: the port does not answer, or the handshake failed.
    #[error("cannot connect to {endpoint}: {source}")]
    Connect {
        /// `HOST:PORT`.
        endpoint: String,
        /// Why not.
        source: io::Error,
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
            CallError::Connect { .. } | CallError::Broken(_) | CallError::Unexpected(_) => false,
        }
    }

    /// Whether the server could not do it now, for want of a leader or time: gRPC's code 14, Unavailable.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, CallError::Status { code: 14, .. })
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
    /// Nobody reads the results any more.
    #[error("standard output is closed")]
    Unread,
    /// A call failed.
    #[error("{what}: {source}")]
    Call {
        /// The workload or step that made the call.
        what: String,
        /// Its failure.
        source: CallError,
    },
    /// A certificate, a key or a file of them is unusable.
    #[error("{what}: {reason}")]
    Tls {
        /// The file, or what was made.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A server has lost what it had acknowledged.
    #[error("{lost} of {of} acknowledged puts are not there, among them {example}")]
    Lost {
        /// How many are missing.
        lost: usize,
        /// How many there were.
        of: usize,
        /// The key of one of the missing.
        example: String,
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

    /// For `map_err` on certificates and keys: names the file.
    pub fn tls<E: Display>(what: impl Display) -> impl FnOnce(E) -> Error {
        let what = what.to_string();
        move |reason| Error::Tls {
            what,
            reason: reason.to_string(),
        }
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
