//! What the floors below say, in etcd's words.

use retcd_state::auth::AuthError;
use retcd_state::machine::ApplyError;
use retcd_state::membership::MemberError;
use retcd_state::mvcc::{RangeError, StorageError};
use retcd_state::request::RequestError;

use super::status::{self, Code, Status};
use super::wire::MessageLength;

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Status {
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
}

impl From<RangeError> for Status {
    fn from(error: RangeError) -> Status {
        match error {
            RangeError::Compacted => status::COMPACTED,
            RangeError::FutureRevision => status::FUTURE_REV,
            RangeError::ReplyTooLarge(bytes) => MessageLength::too_large(bytes),
            RangeError::Storage(error) => error.into(),
        }
    }
}

impl From<StorageError> for Status {
    fn from(error: StorageError) -> Status {
        crate::error!("the database could not be read"; "error" => &error.to_string());
        Status::new(Code::Unknown, error.to_string())
    }
}

impl From<&ApplyError> for Status {
    fn from(error: &ApplyError) -> Status {
        match error {
            ApplyError::Compacted => status::COMPACTED,
            ApplyError::FutureRevision => status::FUTURE_REV,
            ApplyError::ReplyTooLarge(bytes) => MessageLength::too_large(*bytes),
            ApplyError::KeyNotFound => status::KEY_NOT_FOUND,
            ApplyError::LeaseNotFound => status::LEASE_NOT_FOUND,
            ApplyError::LeaseExists => status::LEASE_EXISTS,
            ApplyError::LeaseTtlTooLarge => status::LEASE_TTL_TOO_LARGE,
            ApplyError::NoSpace => status::NO_SPACE,
            ApplyError::Corrupt => status::CORRUPT,
            ApplyError::Member(error) => member_status(*error),
            ApplyError::Auth(error) => (*error).into(),
        }
    }
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Status {
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
