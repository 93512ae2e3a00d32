//! Why a request failed, with the texts of etcd's client.

use std::error::Error as StdError;

use retcd_proto::code;
use tonic::{Code, Status};

use crate::transport::{Broken, Unsent};

/// Users or roles have changed since the caller was authenticated.
pub(crate) const OLD_REVISION: &str = "etcdserver: revision of auth store is old";
/// The token is unknown or expired.
pub(crate) const INVALID_TOKEN: &str = "etcdserver: invalid auth token";
/// No token was sent: authentication was enabled after the client had found it disabled.
pub(crate) const NO_USER: &str = "etcdserver: user name is empty";
/// The member is a learner, which does not serve the method.
pub(crate) const LEARNER: &str = "etcdserver: rpc not supported for learner";
/// The member has no leader.
pub(crate) const NO_LEADER: &str = "etcdserver: no leader";
/// The lease has expired, or never existed.
pub(crate) const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";

/// A failed request.
///
/// Displays the text of etcd's Go client: known server errors as they are, others with their gRPC
/// code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The member rejected the request. It had no effect, unless the code leaves that open
    /// (`Unavailable`, `Cancelled`, `DeadlineExceeded`).
    #[error("{}", answer_text(*code, message))]
    Refused {
        /// The gRPC code.
        code: Code,
        /// The member's message.
        message: String,
    },
    /// The request was not sent.
    #[error("{}", text_with_code(Code::Unavailable, message))]
    Unsent {
        /// The reason.
        message: String,
    },
    /// The response was lost. The request may have been executed.
    #[error("{}", text_with_code(*code, message))]
    Broken {
        /// The gRPC code assigned by the transport.
        code: Code,
        /// The failure of the connection.
        message: String,
    },
    /// The caller's deadline expired. Requests that were sent may have been executed.
    #[error("context deadline exceeded")]
    DeadlineExceeded {
        /// The error of the last attempt, if there was one.
        #[source]
        last: Option<Box<Error>>,
    },
    /// No endpoint is connected. A request never fails with this: it is the source of
    /// [`Error::DeadlineExceeded`].
    #[error(
        "rpc error: code = DeadlineExceeded desc = latest balancer error: connection error: desc = {reason:?}"
    )]
    Unreachable {
        /// Why the last attempt to connect failed.
        reason: String,
    },
    /// The request exceeds [`Config::request_bytes_max`](crate::Config::request_bytes_max) and was
    /// not sent.
    #[error(
        "rpc error: code = ResourceExhausted desc = trying to send message larger than max ({bytes} vs. {limit})"
    )]
    RequestTooLarge {
        /// The size of the request in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The response exceeds [`Config::response_bytes_max`](crate::Config::response_bytes_max). The
    /// request was executed.
    #[error(
        "rpc error: code = ResourceExhausted desc = grpc: received message larger than max ({bytes} vs. {limit})"
    )]
    ResponseTooLarge {
        /// The size of the response in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A required part of the response is missing.
    #[error("the server's answer has no {0}")]
    Incomplete(&'static str),
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        let (code, message) = (status.code(), status.message().to_owned());
        let lost = has_source::<Broken>(&status)
            // The response ended prematurely.
            || (code == Code::Unknown && status.source().is_some());
        if has_source::<Unsent>(&status) {
            Error::Unsent { message }
        } else if lost {
            Error::Broken { code, message }
        } else if let Some((bytes, limit)) = sizes(&message) {
            Error::ResponseTooLarge { bytes, limit }
        } else {
            Error::Refused { code, message }
        }
    }
}

impl Error {
    /// The text with its gRPC code, even for a known server error.
    pub fn text_with_code(&self) -> String {
        match self {
            Error::Refused { code, message } => text_with_code(*code, message),
            error => error.to_string(),
        }
    }

    /// Whether a member answered with exactly this text.
    pub fn is_answer(&self, text: &str) -> bool {
        matches!(self, Error::Refused { message, .. } if message == text)
    }
}

fn has_source<E: StdError + 'static>(status: &Status) -> bool {
    status.source().is_some_and(|source| source.is::<E>())
}

/// Like etcd's client, prints known server errors as they are, others with their gRPC code.
pub(crate) fn answer_text(code: Code, message: &str) -> String {
    if KNOWN_ANSWERS.contains(&message) {
        return message.to_owned();
    }
    text_with_code(code, message)
}

fn text_with_code(code: Code, message: &str) -> String {
    format!("rpc error: code = {} desc = {message}", code::name(code))
}

/// Parses size and limit from the transport's message about a response that is too large.
fn sizes(message: &str) -> Option<(usize, usize)> {
    let text = message.strip_prefix("Error, decoded message length too large: found ")?;
    let mut numbers = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|number| !number.is_empty())
        .map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Server errors that etcd's client recognizes by their text.
const KNOWN_ANSWERS: &[&str] = &[
    "etcdserver: key is not provided",
    "etcdserver: key not found",
    "etcdserver: value is provided",
    "etcdserver: lease is provided",
    "etcdserver: too many operations in txn request",
    "etcdserver: duplicate key given in txn request",
    "etcdserver: invalid client api version",
    "etcdserver: invalid sort option",
    "etcdserver: mvcc: required revision has been compacted",
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: mvcc: database space exceeded",
    "etcdserver: requested lease not found",
    "etcdserver: lease already exists",
    "etcdserver: too large lease TTL",
    "etcdserver: watch canceled",
    "etcdserver: member ID already exist",
    "etcdserver: Peer URLs already exists",
    "etcdserver: re-configuration failed due to not enough started members",
    "etcdserver: given member URLs are invalid",
    "etcdserver: member not found",
    "etcdserver: can only promote a learner member",
    "etcdserver: can only promote a learner member which is in sync with leader",
    "etcdserver: too many learner members in cluster",
    "etcdserver: cluster ID mismatch",
    "etcdserver: request is too large",
    "etcdserver: too many requests",
    "etcdserver: root user does not exist",
    "etcdserver: root user does not have root role",
    "etcdserver: user name already exists",
    "etcdserver: user name is empty",
    "etcdserver: user name not found",
    "etcdserver: role name already exists",
    "etcdserver: role name not found",
    "etcdserver: role name is empty",
    "etcdserver: authentication failed, invalid user ID or password",
    "etcdserver: permission not given",
    "etcdserver: permission denied",
    "etcdserver: role is not granted to the user",
    "etcdserver: permission is not granted to the role",
    "etcdserver: authentication is not enabled",
    "etcdserver: invalid auth token",
    "etcdserver: invalid auth management",
    "etcdserver: revision of auth store is old",
    "etcdserver: no leader",
    "etcdserver: not leader",
    "etcdserver: leader changed",
    "etcdserver: not capable",
    "etcdserver: server stopped",
    "etcdserver: request timed out",
    "etcdserver: request timed out, possibly due to previous leader failure",
    "etcdserver: request timed out, possibly due to connection lost",
    "etcdserver: request timed out, waiting for the applied index took too long",
    "etcdserver: unhealthy cluster",
    "etcdserver: corrupt cluster",
    "etcdserver: rpc not supported for learner",
    "etcdserver: bad leader transferee",
    "etcdserver: wrong downgrade target version format",
    "etcdserver: invalid downgrade target version",
    "etcdserver: cluster version not found during downgrade",
    "etcdserver: cluster has a downgrade job in progress",
    "etcdserver: no inflight downgrade job",
    "etcdserver: request canceled",
    "etcdserver: context deadline exceeded",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_errors_like_etcd() {
        let check = |code, message: &str, text: &str| {
            assert_eq!(Error::from(Status::new(code, message)).to_string(), text)
        };
        check(
            Code::InvalidArgument,
            "etcdserver: key is not provided",
            "etcdserver: key is not provided",
        );
        check(
            Code::Unimplemented,
            "unknown service X",
            "rpc error: code = Unimplemented desc = unknown service X",
        );
        check(
            Code::OutOfRange,
            "Error, decoded message length too large: found 43 bytes, the limit is: 10 bytes",
            "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (43 vs. 10)",
        );
    }

    #[test]
    fn deadline_errors_have_a_source() {
        let last = Error::Unreachable {
            reason: "refused".to_owned(),
        };
        let error = Error::DeadlineExceeded {
            last: Some(Box::new(last)),
        };
        assert_eq!(error.to_string(), "context deadline exceeded");
        let source = error.source().map(ToString::to_string);
        assert!(source.is_some_and(|text| text.ends_with("desc = \"refused\"")));
    }
}
