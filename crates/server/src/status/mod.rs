//! gRPC status: the one table that turns our errors into etcd's codes and exact texts.
//!
//! Clients match on these texts, so they are interface. Two of etcd's errors go out as `Unknown`
//! although a better code exists for them; that is matched, too (see `TOO_MANY_REQUESTS`).

mod errors;

use std::borrow::Cow;

use http::HeaderValue;
use retcd_member::Error;
pub(crate) use tonic::Code;

/// Bytes of the largest message that grpc-go, and so etcd, sends.
pub(crate) const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// What a call failed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// The code.
    pub code: Code,
    /// The text, as etcd words it.
    pub message: Cow<'static, str>,
}

/// A status with a constant text.
pub(crate) const fn status(code: Code, message: &'static str) -> Status {
    Status {
        code,
        message: Cow::Borrowed(message),
    }
}

/// A key is empty.
pub(crate) const EMPTY_KEY: Status =
    status(Code::InvalidArgument, "etcdserver: key is not provided");
/// A key that must exist does not; also an operation of a transaction without content.
pub(crate) const KEY_NOT_FOUND: Status = status(Code::InvalidArgument, "etcdserver: key not found");
/// `ignore_value` came with a value.
pub(crate) const VALUE_PROVIDED: Status =
    status(Code::InvalidArgument, "etcdserver: value is provided");
/// `ignore_lease` came with a lease.
pub(crate) const LEASE_PROVIDED: Status =
    status(Code::InvalidArgument, "etcdserver: lease is provided");
/// More operations than `--max-txn-ops`.
pub(crate) const TOO_MANY_OPS: Status = status(
    Code::InvalidArgument,
    "etcdserver: too many operations in txn request",
);
/// A transaction writes a key twice.
pub(crate) const DUPLICATE_KEY: Status = status(
    Code::InvalidArgument,
    "etcdserver: duplicate key given in txn request",
);
/// Unknown sort order or target.
pub(crate) const INVALID_SORT_OPTION: Status =
    status(Code::InvalidArgument, "etcdserver: invalid sort option");
/// Metadata `client-api-version` is not UTF-8.
pub(crate) const INVALID_CLIENT_API_VERSION: Status = status(
    Code::InvalidArgument,
    "etcdserver: invalid client api version",
);
/// The revision is gone.
pub(crate) const COMPACTED: Status = status(
    Code::OutOfRange,
    "etcdserver: mvcc: required revision has been compacted",
);
/// The revision does not exist yet.
pub(crate) const FUTURE_REV: Status = status(
    Code::OutOfRange,
    "etcdserver: mvcc: required revision is a future revision",
);
/// The quota is used up.
pub(crate) const NO_SPACE: Status = status(
    Code::ResourceExhausted,
    "etcdserver: mvcc: database space exceeded",
);
/// No such lease.
pub(crate) const LEASE_NOT_FOUND: Status =
    status(Code::NotFound, "etcdserver: requested lease not found");
/// The lease id is taken.
pub(crate) const LEASE_EXISTS: Status =
    status(Code::FailedPrecondition, "etcdserver: lease already exists");
/// The time to live is above the maximum.
pub(crate) const LEASE_TTL_TOO_LARGE: Status =
    status(Code::OutOfRange, "etcdserver: too large lease TTL");
/// The client ended its watch stream.
pub(crate) const WATCH_CANCELED: Status = status(Code::Cancelled, "etcdserver: watch canceled");
/// No such member.
pub(crate) const MEMBER_NOT_FOUND: Status = status(Code::NotFound, "etcdserver: member not found");
/// The member id is taken.
pub(crate) const MEMBER_EXISTS: Status = status(
    Code::FailedPrecondition,
    "etcdserver: member ID already exist",
);
/// The peer URL is taken.
pub(crate) const PEER_URL_EXISTS: Status = status(
    Code::FailedPrecondition,
    "etcdserver: Peer URLs already exists",
);
/// The cluster has as many learners as it may have.
pub(crate) const TOO_MANY_LEARNERS: Status = status(
    Code::FailedPrecondition,
    "etcdserver: too many learner members in cluster",
);
/// The member votes already.
pub(crate) const MEMBER_NOT_LEARNER: Status = status(
    Code::FailedPrecondition,
    "etcdserver: can only promote a learner member",
);
/// The learner is too far behind to get a vote.
pub(crate) const LEARNER_NOT_READY: Status = status(
    Code::FailedPrecondition,
    "etcdserver: can only promote a learner member which is in sync with leader",
);
/// The change would leave too few members that have started; `FailedPrecondition` in etcd's table,
/// yet `Unknown` on etcd's wire.
pub(crate) const NOT_ENOUGH_STARTED: Status = status(
    Code::Unknown,
    "etcdserver: re-configuration failed due to not enough started members",
);
/// A peer URL is none.
pub(crate) const BAD_MEMBER_URLS: Status = status(
    Code::InvalidArgument,
    "etcdserver: given member URLs are invalid",
);
/// The change would leave too few members that can be talked to.
pub(crate) const UNHEALTHY: Status = status(Code::Unavailable, "etcdserver: unhealthy cluster");
/// What a member without a vote does not answer.
pub(crate) const NOT_FOR_LEARNER: Status = status(
    Code::FailedPrecondition,
    "etcdserver: rpc not supported for learner",
);
/// The request does not fit into a log entry.
pub(crate) const REQUEST_TOO_LARGE: Status =
    status(Code::InvalidArgument, "etcdserver: request is too large");
/// The member is behind; `ResourceExhausted` in etcd's table, yet `Unknown` on etcd's wire.
pub(crate) const TOO_MANY_REQUESTS: Status = status(Code::Unknown, "etcdserver: too many requests");
/// Nobody leads.
pub(crate) const NO_LEADER: Status = status(Code::Unavailable, "etcdserver: no leader");
/// This member does not lead.
pub(crate) const NOT_LEADER: Status = status(Code::FailedPrecondition, "etcdserver: not leader");
/// The leader changed while the request was under way.
pub(crate) const LEADER_CHANGED: Status = status(Code::Unavailable, "etcdserver: leader changed");
/// The target of a leader transfer cannot lead.
pub(crate) const BAD_LEADER_TRANSFEREE: Status = status(
    Code::FailedPrecondition,
    "etcdserver: bad leader transferee",
);
/// The member is stopping.
pub(crate) const STOPPED: Status = status(Code::Unavailable, "etcdserver: server stopped");
/// The client is gone, or has given its call up.
pub(crate) const CLIENT_GONE: Status = status(Code::Cancelled, "context canceled");
/// The client has taken nothing of a snapshot for long.
pub(crate) const UNREAD: Status = status(
    Code::Aborted,
    "etcdserver: snapshot is not read by the client",
);
/// No answer in time.
pub(crate) const TIMEOUT: Status = status(Code::Unavailable, "etcdserver: request timed out");
/// No answer in time, and this member or the leader could not be talked to meanwhile.
pub(crate) const TIMEOUT_CONNECTION_LOST: Status = status(
    Code::Unavailable,
    "etcdserver: request timed out, possibly due to connection lost",
);
/// What is committed was not applied in time.
pub(crate) const TIMEOUT_APPLYING: Status = status(
    Code::Unavailable,
    "etcdserver: request timed out, waiting for the applied index took too long",
);
/// The new leader did not take over in time.
pub(crate) const TIMEOUT_LEADER_TRANSFER: Status = status(
    Code::Unknown,
    "etcdserver: request timed out, leader transfer took too long",
);
/// Leases are renewed by the leader alone, which this member was.
pub(crate) const NOT_PRIMARY: Status = status(Code::Unknown, "not a primary lessor");
/// The CORRUPT alarm is active.
pub(crate) const CORRUPT: Status = status(Code::DataLoss, "etcdserver: corrupt cluster");
/// Authentication is off.
pub(crate) const AUTH_NOT_ENABLED: Status = status(
    Code::FailedPrecondition,
    "etcdserver: authentication is not enabled",
);
/// Authentication cannot be switched on without the user `root`.
pub(crate) const ROOT_USER_NOT_FOUND: Status = status(
    Code::FailedPrecondition,
    "etcdserver: root user does not exist",
);
/// Nor without its role.
pub(crate) const ROOT_ROLE_NOT_GRANTED: Status = status(
    Code::FailedPrecondition,
    "etcdserver: root user does not have root role",
);
/// The user's name is taken.
pub(crate) const USER_EXISTS: Status = status(
    Code::FailedPrecondition,
    "etcdserver: user name already exists",
);
/// The user has no name; also: nobody has logged in.
pub(crate) const USER_EMPTY: Status =
    status(Code::InvalidArgument, "etcdserver: user name is empty");
/// No such user.
pub(crate) const USER_NOT_FOUND: Status =
    status(Code::FailedPrecondition, "etcdserver: user name not found");
/// The role's name is taken.
pub(crate) const ROLE_EXISTS: Status = status(
    Code::FailedPrecondition,
    "etcdserver: role name already exists",
);
/// No such role.
pub(crate) const ROLE_NOT_FOUND: Status =
    status(Code::FailedPrecondition, "etcdserver: role name not found");
/// The role has no name.
pub(crate) const ROLE_EMPTY: Status =
    status(Code::InvalidArgument, "etcdserver: role name is empty");
/// No such user, or not the password.
pub(crate) const AUTH_FAILED: Status = status(
    Code::InvalidArgument,
    "etcdserver: authentication failed, invalid user ID or password",
);
/// The user has no password; also etcd's word for a hash that is none. Unmapped in etcd's table.
pub(crate) const NO_PASSWORD_USER: Status = status(
    Code::Unknown,
    "auth: authentication failed, password was given for no password user",
);
/// Somebody else gives out tokens. Unmapped in etcd's table.
pub(crate) const TOKEN_VERIFY_ONLY: Status = status(
    Code::Unknown,
    "auth: token signing attempted with verify-only key",
);
/// A permission to grant is missing.
pub(crate) const PERMISSION_NOT_GIVEN: Status =
    status(Code::InvalidArgument, "etcdserver: permission not given");
/// The user may not do that.
pub(crate) const PERMISSION_DENIED: Status =
    status(Code::PermissionDenied, "etcdserver: permission denied");
/// The user does not have the role.
pub(crate) const ROLE_NOT_GRANTED: Status = status(
    Code::FailedPrecondition,
    "etcdserver: role is not granted to the user",
);
/// The role does not have the permission.
pub(crate) const PERMISSION_NOT_GRANTED: Status = status(
    Code::FailedPrecondition,
    "etcdserver: permission is not granted to the role",
);
/// The token is nobody's.
pub(crate) const INVALID_AUTH_TOKEN: Status =
    status(Code::Unauthenticated, "etcdserver: invalid auth token");
/// Nobody could undo that.
pub(crate) const INVALID_AUTH_MANAGEMENT: Status =
    status(Code::InvalidArgument, "etcdserver: invalid auth management");
/// Users or roles have changed since the sender was identified.
pub(crate) const AUTH_OLD_REVISION: Status = status(
    Code::InvalidArgument,
    "etcdserver: revision of auth store is old",
);
/// A downgrade's target is no `major.minor`.
pub(crate) const WRONG_DOWNGRADE_FORMAT: Status = status(
    Code::InvalidArgument,
    "etcdserver: wrong downgrade target version format",
);
/// A downgrade's target is not one minor version below the cluster's.
pub(crate) const INVALID_DOWNGRADE_TARGET: Status = status(
    Code::InvalidArgument,
    "etcdserver: invalid downgrade target version",
);
/// The cluster's version is not decided yet.
pub(crate) const CLUSTER_VERSION_UNAVAILABLE: Status = status(
    Code::FailedPrecondition,
    "etcdserver: cluster version not found during downgrade",
);
/// A downgrade is under way.
pub(crate) const DOWNGRADE_IN_PROCESS: Status = status(
    Code::FailedPrecondition,
    "etcdserver: cluster has a downgrade job in progress",
);
/// There is no downgrade to cancel.
pub(crate) const NO_INFLIGHT_DOWNGRADE: Status = status(
    Code::FailedPrecondition,
    "etcdserver: no inflight downgrade job",
);
/// A downgrade's action is none of the known ones.
pub(crate) const UNKNOWN_METHOD: Status = status(Code::Unknown, "etcdserver: unknown method");
/// A contender's key was deleted while it waited for the lock.
pub(crate) const LOCK_SESSION_EXPIRED: Status = status(Code::Unknown, "mutex: session is expired");
/// The caller does not lead the election, or no longer.
pub(crate) const ELECTION_NOT_LEADER: Status = status(Code::Unknown, "election: not leader");
/// Nobody leads the election.
pub(crate) const ELECTION_NO_LEADER: Status = status(Code::Unknown, "election: no leader");
/// A request about a leadership does not say which.
pub(crate) const LEADER_MISSING: Status =
    status(Code::Unknown, "\"leader\" field must be provided");
/// The client has taken nothing of a long answer for a while, and others need the memory.
pub(crate) const NOT_TAKEN: Status = status(
    Code::ResourceExhausted,
    "etcdserver: the answer was not taken in time",
);
/// The client's deadline passed.
pub(crate) const DEADLINE_EXCEEDED: Status =
    status(Code::DeadlineExceeded, "context deadline exceeded");

/// What a gRPC client would be told of `error`.
pub(crate) fn text(error: Error) -> String {
    Status::from(error).message.into_owned()
}

impl Status {
    /// A status with a text made up on the spot.
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Status {
        Status {
            code,
            message: message.into(),
        }
    }

    /// grpc-go's error for an answer of `bytes`, or one that was given up at so many.
    pub(crate) fn message_too_large(bytes: usize) -> Status {
        let text = format!(
            "grpc: trying to send message larger than max ({bytes} vs. {MESSAGE_BYTES_MAX})"
        );
        Status::new(Code::ResourceExhausted, text)
    }

    /// How etcd's locks and elections pass the errors of their steps on: the text alone. Who asks a
    /// member that stops is to ask another one.
    pub(crate) fn of_step(error: Error) -> Status {
        match error {
            Error::Stopped => STOPPED,
            error => Status::new(Code::Unknown, text(error)),
        }
    }

    /// The text that Go shows for this status. Cancel reasons are constants that must equal it.
    pub(crate) fn go_text(&self) -> String {
        let code = retcd_proto::code::name(self.code);
        format!("rpc error: code = {code} desc = {}", self.message)
    }

    /// The value of the `grpc-message` header: percent-encoded outside of printable ASCII.
    pub(crate) fn message_header(&self) -> HeaderValue {
        let mut out = String::with_capacity(self.message.len());
        for &byte in self.message.as_bytes() {
            match byte {
                b' '..=b'~' if byte != b'%' => out.push(byte as char),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
        HeaderValue::from_str(&out).expect("printable ASCII is a valid header value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded_for_the_header() {
        let status = Status::new(Code::Unknown, "100% \u{e4}\n");
        assert_eq!(status.message_header(), "100%25 %C3%A4%0A");
    }

    #[test]
    fn cancel_reasons_read_as_gos() {
        assert_eq!(
            COMPACTED.go_text(),
            "rpc error: code = OutOfRange desc = etcdserver: mvcc: required revision has been compacted"
        );
    }
}
