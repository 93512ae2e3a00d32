//! Errors, by who is at fault: the command line, the machine, or the server under load.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

/// Why a call did not return the expected response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The server returned a gRPC status other than OK.
    #[error("the server answered with gRPC code {code}: {message}")]
    Status {
        /// The status code, 1 to 16.
        code: u32,
        /// The status message.
        message: String,
    },
    /// The connection or the TLS handshake failed.
    #[error("cannot connect to {endpoint}: {source}")]
    Connect {
        /// `HOST:PORT`.
        endpoint: String,
        /// The reason.
        source: io::Error,
    },
    /// The connection or the stream broke.
    #[error("connection broken: {0}")]
    Broken(#[from] h2::Error),
    /// The connection broke, or the server does not speak HTTP/1.1.
    #[error("connection broken: {0}")]
    BrokenHttp(#[from] hyper::Error),
    /// The server answered a request over HTTP/1.1 with a status other than 2xx.
    #[error("the server answered with HTTP status {status}: {text}")]
    HttpStatus {
        /// The status.
        status: u16,
        /// The body.
        text: String,
    },
    /// The condition of a transaction failed: another client wrote the key between get and put.
    #[error("the key has changed between get and put")]
    Conflict,
    /// The response is not one that etcd would send.
    #[error("unexpected reply: {0}")]
    Unexpected(String),
}

impl CallError {
    /// For a watcher that got `text` where it expected events of this run.
    pub(crate) fn no_event(text: &[u8]) -> CallError {
        let text = String::from_utf8_lossy(text);
        CallError::Unexpected(format!("no event of this run: {text}"))
    }

    /// Whether the server responded properly but refused, so that the client may continue.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            CallError::Status { .. } | CallError::HttpStatus { .. } | CallError::Conflict => true,
            CallError::Connect { .. }
            | CallError::Broken(_)
            | CallError::BrokenHttp(_)
            | CallError::Unexpected(_) => false,
        }
    }

    /// Whether the server refused temporarily, e.g. without a leader: gRPC code 14, Unavailable.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, CallError::Status { code: 14, .. })
    }
}

/// Why a run ended without a result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line is contradictory.
    #[error("{0}")]
    Usage(String),
    /// The operating system reported an error.
    #[error("{what}: {source}")]
    Io {
        /// The operation, with its path or address.
        what: String,
        /// The error.
        source: io::Error,
    },
    /// Standard output is closed.
    #[error("standard output is closed")]
    StdoutClosed,
    /// A call failed.
    #[error("{what}: {source}")]
    Call {
        /// The workload or step that made the call.
        what: String,
        /// The error.
        source: CallError,
    },
    /// A certificate, a key or a PEM file is unusable.
    #[error("{what}: {reason}")]
    Tls {
        /// The file, or the object being created.
        what: String,
        /// The reason.
        reason: String,
    },
    /// A server has lost acknowledged writes.
    #[error("{lost} of {of} acknowledged puts are not there, among them {example}")]
    Lost {
        /// The number of missing keys.
        lost: usize,
        /// The number of acknowledged keys.
        of: usize,
        /// One of the missing keys.
        example: String,
    },
    /// A server did not do what a scenario requires.
    #[error("{}: {reason}{}", binary.display(), quoted(log))]
    Server {
        /// The server's executable.
        binary: PathBuf,
        /// What it did or failed to do.
        reason: String,
        /// An excerpt of its log; may be empty.
        log: String,
    },
}

impl Error {
    /// For `map_err` on I/O; `what` names the operation.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    /// For `map_err` on certificates and keys; `what` names the file.
    pub(crate) fn tls<E: Display>(what: impl Display) -> impl FnOnce(E) -> Error {
        let what = what.to_string();
        move |reason| Error::Tls {
            what,
            reason: reason.to_string(),
        }
    }

    /// For `map_err` on calls; `what` names the caller.
    pub(crate) fn call(what: impl Into<String>) -> impl FnOnce(CallError) -> Error {
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
