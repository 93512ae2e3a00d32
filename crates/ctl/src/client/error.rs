//! What can go wrong between a command and a cluster, in the words that etcd's users know.

use retcd_proto::code;
use tonic::{Code, Status};

use super::{EndpointError, TlsError};

/// Users or roles have changed since it was found out who asks.
pub(super) const OLD_REVISION: &str = "etcdserver: revision of auth store is old";
/// The token is unknown, or its time is over.
pub(super) const INVALID_TOKEN: &str = "etcdserver: invalid auth token";
/// There was no token: authentication was switched on after the client found that it is off.
pub(super) const NO_USER: &str = "etcdserver: user name is empty";

/// A request that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The cluster's answer, or what the transport made of its absence.
    #[error("{}", status_text(.0))]
    Status(Box<Status>),
    /// The time that the command had is over.
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    /// There is nowhere to connect to.
    #[error("etcdclient: no available endpoints")]
    NoEndpoints,
    /// An endpoint that cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// TLS that cannot be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The request is larger than the user allows.
    #[error(
        "rpc error: code = ResourceExhausted desc = trying to send message larger than max ({bytes} vs. {limit})"
    )]
    RequestTooLarge {
        /// The request's size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The answer lacks a part that it must have.
    #[error("the server's answer has no {0}")]
    Incomplete(&'static str),
}

impl From<Status> for ClientError {
    fn from(status: Status) -> ClientError {
        ClientError::Status(Box::new(status))
    }
}

impl ClientError {
    /// The error with its gRPC code even if its text is a known one: streams of snapshots word it so.
    pub fn text_with_code(&self) -> String {
        match self {
            ClientError::Status(status) => text_with_code(status),
            error => error.to_string(),
        }
    }

    /// Whether the cluster answered with exactly this text.
    pub fn is_answer(&self, text: &str) -> bool {
        matches!(self, ClientError::Status(status) if status.message() == text)
    }
}

/// Answers that etcd's client knows print as they are, others with their gRPC code.
fn status_text(status: &Status) -> String {
    if let Some(text) = size_limit_text(status) {
        return text;
    }
    if KNOWN_ANSWERS.contains(&status.message()) {
        return status.message().to_owned();
    }
    text_with_code(status)
}

fn text_with_code(status: &Status) -> String {
    format!(
        "rpc error: code = {} desc = {}",
        code::name(status.code()),
        status.message()
    )
}

/// The text of a bare reason such as a watch's: known ones as they are.
pub fn reason_text(code: Code, reason: &str) -> String {
    status_text(&Status::new(code, reason))
}

/// Responses over the user's limit, which the transport words in its own way.
fn size_limit_text(status: &Status) -> Option<String> {
    let text = status
        .message()
        .strip_prefix("Error, decoded message length too large: found ")?;
    let mut numbers = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|number| !number.is_empty());
    let (found, limit) = (numbers.next()?, numbers.next()?);
    Some(format!(
        "rpc error: code = ResourceExhausted desc = grpc: received message larger than max ({found} vs. {limit})"
    ))
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
        let check = |code, message: &str, text: &str| assert_eq!(reason_text(code, message), text);
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
}
