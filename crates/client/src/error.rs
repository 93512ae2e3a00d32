//! What can become of a request, in the words that etcd's users know.

use std::error::Error as StdError;

use retcd_proto::code;
use tonic::{Code, Status};

use crate::transport::{Broken, Unsent};

/// Users or roles have changed since it was found out who asks.
pub(crate) const OLD_REVISION: &str = "etcdserver: revision of auth store is old";
/// The token is unknown, or its time is over.
pub(crate) const INVALID_TOKEN: &str = "etcdserver: invalid auth token";
/// There was no token: authentication was switched on after the client found that it is off.
pub(crate) const NO_USER: &str = "etcdserver: user name is empty";
/// The member is a learner, which answers little.
pub(crate) const LEARNER: &str = "etcdserver: rpc not supported for learner";
/// The member knows of no leader.
pub(crate) const NO_LEADER: &str = "etcdserver: no leader";
/// A lease has ended, or never was.
pub(crate) const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";

/// A request that did not succeed.
///
/// The text of each is that of etcd's Go client: answers that it knows stand alone, all others
/// behind their gRPC code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A member's answer; the request has had no effect, unless the code says that the member does
    /// not know either (`Unavailable`, `Cancelled`, `DeadlineExceeded`).
    #[error("{}", answer_text(*code, message))]
    Refused {
        /// The gRPC code.
        code: Code,
        /// The text, as the member sent it.
        message: String,
    },
    /// The request did not get to a member.
    #[error("{}", text_with_code(Code::Unavailable, message))]
    Unsent {
        /// Why not.
        message: String,
    },
    /// The answer was lost. The request may have been executed.
    #[error("{}", text_with_code(*code, message))]
    Broken {
        /// The gRPC code that the transport gives it.
        code: Code,
        /// What happened to the connection.
        message: String,
    },
    /// The time that the caller gave is over. Requests that were sent may have been executed.
    #[error("context deadline exceeded")]
    DeadlineExceeded {
        /// What the last attempt ended with, if there was one.
        #[source]
        last: Option<Box<Error>>,
    },
    /// No endpoint accepts a connection: never the end of a request by itself, but what was waited
    /// for when its time was over.
    #[error(
        "rpc error: code = DeadlineExceeded desc = latest balancer error: last connection error: connection error: desc = {reason:?}"
    )]
    Unreachable {
        /// Why the last attempt to connect failed.
        reason: String,
    },
    /// The request is larger than [`Config::request_bytes_max`](crate::Config::request_bytes_max);
    /// it was not sent.
    #[error(
        "rpc error: code = ResourceExhausted desc = trying to send message larger than max ({bytes} vs. {limit})"
    )]
    RequestTooLarge {
        /// The request's size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The answer is larger than [`Config::response_bytes_max`](crate::Config::response_bytes_max).
    /// The request was executed.
    #[error(
        "rpc error: code = ResourceExhausted desc = grpc: received message larger than max ({bytes} vs. {limit})"
    )]
    ResponseTooLarge {
        /// The answer's size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The answer lacks a part that it must have.
    #[error("the server's answer has no {0}")]
    Incomplete(&'static str),
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        let (code, message) = (status.code(), status.message().to_owned());
        let lost = has_source::<Broken>(&status)
            // The answer broke off.
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
    /// The error with its gRPC code even if its text is a known one.
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

/// Answers that etcd's client knows print as they are, others with their gRPC code.
pub(crate) fn answer_text(code: Code, message: &str) -> String {
    if KNOWN_ANSWERS.contains(&message) {
        return message.to_owned();
    }
    text_with_code(code, message)
}

fn text_with_code(code: Code, message: &str) -> String {
    format!("rpc error: code = {} desc = {message}", code::name(code))
}

/// Size and limit of an answer over the limit, which the transport tells in words.
fn sizes(message: &str) -> Option<(usize, usize)> {
    let text = message.strip_prefix("Error, decoded message length too large: found ")?;
    let mut numbers = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|number| !number.is_empty())
        .map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Answers that etcd's client recognises by their text.
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
    fn words_answers_as_etcd_does() {
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
    fn an_end_for_lack_of_time_says_what_was_waited_for() {
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
