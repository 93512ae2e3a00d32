//! What a member says went wrong, in etcd's codes and words. Nothing decides by them.

use retcd_member::Error;
use retcd_member::concurrency::{ElectionError, QueueError};
use retcd_state::auth::AuthError;
use retcd_state::machine::ApplyError;
use retcd_state::membership::{MemberError, ReconfigError};
use retcd_state::request::RequestError;

use super::{Code, Status};
use crate::status;

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        match error {
            Error::Request(error) => request_status(error),
            Error::RequestTooLarge => status::REQUEST_TOO_LARGE,
            Error::Refused(error) => apply_status(error),
            Error::InvalidToken => status::INVALID_AUTH_TOKEN,
            Error::PasswordTooLong => {
                Status::new(Code::Unknown, "bcrypt: password length exceeds 72 bytes")
            }
            Error::BadPeerUrls => status::BAD_MEMBER_URLS,
            Error::BadTransferee => status::BAD_LEADER_TRANSFEREE,
            Error::BadDowngradeTarget => status::INVALID_DOWNGRADE_TARGET,
            Error::NoLeader => status::NO_LEADER,
            Error::LeaderChanged => status::LEADER_CHANGED,
            Error::Reconfig(error) => reconfig_status(error),
            Error::TransferTimedOut => status::TIMEOUT_LEADER_TRANSFER,
            Error::ClusterVersionUnknown => status::CLUSTER_VERSION_UNAVAILABLE,
            // No request of gRPC writes through API v2.
            error @ (Error::V2Unknown { .. } | Error::V2Unsure { .. }) => {
                Status::new(Code::FailedPrecondition, error.to_string())
            }
            Error::DowngradeInProgress => status::DOWNGRADE_IN_PROCESS,
            Error::NoDowngrade => status::NO_INFLIGHT_DOWNGRADE,
            Error::NotLeader => status::NOT_LEADER,
            Error::NotPrimary => status::NOT_PRIMARY,
            Error::NotForLearner => status::NOT_FOR_LEARNER,
            Error::Overloaded => status::TOO_MANY_REQUESTS,
            Error::TimedOut { cut_off: false } => status::TIMEOUT,
            Error::TimedOut { cut_off: true } => status::TIMEOUT_CONNECTION_LOST,
            Error::ApplyTimedOut => status::TIMEOUT_APPLYING,
            Error::NoTokens => status::AUTH_FAILED,
            Error::VerifyOnly => status::TOKEN_VERIFY_ONLY,
            Error::SigningFailed => Status::new(Code::Unknown, "key is invalid"),
            Error::Unreadable(reason) => Status::new(Code::Unknown, reason),
            Error::Stopped => status::STOPPED,
        }
    }
}

impl From<QueueError> for Status {
    fn from(error: QueueError) -> Status {
        match error {
            QueueError::Gone => status::LOCK_SESSION_EXPIRED,
            QueueError::Abandoned => status::CLIENT_GONE,
            QueueError::Request(error) => Status::of_step(error),
        }
    }
}

impl From<ElectionError> for Status {
    fn from(error: ElectionError) -> Status {
        match error {
            ElectionError::NotLeader => status::ELECTION_NOT_LEADER,
            ElectionError::NoLeader => status::ELECTION_NO_LEADER,
            ElectionError::LeaderMissing => status::LEADER_MISSING,
            ElectionError::Abandoned => status::CLIENT_GONE,
            ElectionError::Request(error) => Status::of_step(error),
        }
    }
}

fn request_status(error: RequestError) -> Status {
    match error {
        RequestError::EmptyKey => status::EMPTY_KEY,
        RequestError::EmptyOp => status::KEY_NOT_FOUND,
        RequestError::ValueProvided => status::VALUE_PROVIDED,
        RequestError::LeaseProvided => status::LEASE_PROVIDED,
        RequestError::InvalidSortOption => status::INVALID_SORT_OPTION,
        RequestError::TooManyOps => status::TOO_MANY_OPS,
        RequestError::DuplicateKey => status::DUPLICATE_KEY,
        RequestError::StreamSorted => Status::new(
            Code::Unimplemented,
            "RangeStream does not support custom sort orders",
        ),
        RequestError::StreamFiltered => Status::new(
            Code::Unimplemented,
            "RangeStream does not support revision filters",
        ),
    }
}

fn apply_status(error: ApplyError) -> Status {
    match error {
        ApplyError::Compacted => status::COMPACTED,
        ApplyError::FutureRevision => status::FUTURE_REV,
        ApplyError::ReplyTooLarge(bytes) => Status::message_too_large(bytes),
        ApplyError::KeyNotFound => status::KEY_NOT_FOUND,
        ApplyError::LeaseNotFound => status::LEASE_NOT_FOUND,
        ApplyError::LeaseExists => status::LEASE_EXISTS,
        ApplyError::LeaseTtlTooLarge => status::LEASE_TTL_TOO_LARGE,
        ApplyError::NoSpace => status::NO_SPACE,
        ApplyError::Corrupt => status::CORRUPT,
        ApplyError::Member(error) => member_status(error),
        ApplyError::Auth(error) => auth_status(error),
    }
}

fn auth_status(error: AuthError) -> Status {
    match error {
        AuthError::RootUserNotFound => status::ROOT_USER_NOT_FOUND,
        AuthError::RootRoleNotGranted => status::ROOT_ROLE_NOT_GRANTED,
        AuthError::UserExists => status::USER_EXISTS,
        AuthError::UserEmpty => status::USER_EMPTY,
        AuthError::UserNotFound => status::USER_NOT_FOUND,
        AuthError::RoleExists => status::ROLE_EXISTS,
        AuthError::RoleNotFound => status::ROLE_NOT_FOUND,
        AuthError::RoleEmpty => status::ROLE_EMPTY,
        AuthError::PermissionNotGiven => status::PERMISSION_NOT_GIVEN,
        AuthError::BadPasswordHash | AuthError::NoPasswordUser => status::NO_PASSWORD_USER,
        AuthError::RoleNotGranted => status::ROLE_NOT_GRANTED,
        AuthError::PermissionNotGranted => status::PERMISSION_NOT_GRANTED,
        AuthError::NotEnabled => status::AUTH_NOT_ENABLED,
        AuthError::InvalidManagement => status::INVALID_AUTH_MANAGEMENT,
        AuthError::Failed => status::AUTH_FAILED,
        AuthError::PermissionDenied => status::PERMISSION_DENIED,
        AuthError::OldRevision => status::AUTH_OLD_REVISION,
        AuthError::NameTooLong => status::REQUEST_TOO_LARGE,
    }
}

fn member_status(error: MemberError) -> Status {
    match error {
        MemberError::IdRemoved | MemberError::IdNotFound => status::MEMBER_NOT_FOUND,
        MemberError::IdExists => status::MEMBER_EXISTS,
        MemberError::PeerUrlExists => status::PEER_URL_EXISTS,
        MemberError::NotLearner => status::MEMBER_NOT_LEARNER,
        MemberError::TooManyLearners => status::TOO_MANY_LEARNERS,
        // What etcd says to it where strict reconfiguration is on.
        MemberError::LastVoter => status::NOT_ENOUGH_STARTED,
    }
}

fn reconfig_status(error: ReconfigError) -> Status {
    match error {
        ReconfigError::NotEnoughStarted => status::NOT_ENOUGH_STARTED,
        ReconfigError::Unhealthy => status::UNHEALTHY,
        ReconfigError::LearnerNotReady => status::LEARNER_NOT_READY,
    }
}
