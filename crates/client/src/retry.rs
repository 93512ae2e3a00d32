//! Which requests are retried, and where.
//!
//! Two tables decide: whether a method is idempotent (its [`Policy`] in [`calls`](crate::calls)),
//! and what an error says about the request ([`Failure::of`]). Both follow etcd's Go client
//! (client/v3: `retry.go`, `retry_interceptor.go`), except as listed in docs/compatibility.md.
//!
//! | failure | repeatable | at most once |
//! |---|---|---|
//! | not sent | retry | retry |
//! | token outdated | authenticate and retry | authenticate and retry |
//! | rejected by a learner, other endpoints exist | next endpoint | next endpoint |
//! | no leader, other endpoints exist | next endpoint | next endpoint |
//! | no leader | retry | fail |
//! | unavailable, or the connection broke | next endpoint | fail |
//! | the server timed out before the deadline | next endpoint | fail |
//! | anything else | fail | fail |

use tonic::Code;

use crate::error::{Error, INVALID_TOKEN, LEARNER, NO_LEADER, NO_USER, OLD_REVISION};

/// Whether a request may be executed more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Executing it again has no further effect.
    Repeatable,
    /// It must not be executed again.
    AtMostOnce,
}

/// What an error says about the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It was not sent.
    Unsent,
    /// It was rejected because the token or the user's permissions are outdated.
    TokenOutdated,
    /// It was rejected by a learner, which does not serve the method.
    Learner,
    /// It was rejected by a member without a leader.
    NoLeader,
    /// It may have been executed. A retry may succeed.
    Unknown,
    /// It was answered; a retry would fail as well.
    Final,
}

impl Failure {
    /// Classifies `error`.
    pub(crate) fn of(error: &Error) -> Failure {
        let (code, message) = match error {
            Error::Unsent { .. } | Error::Unreachable { .. } => return Failure::Unsent,
            Error::Broken { .. } => return Failure::Unknown,
            Error::Refused { code, message } => (*code, message.as_str()),
            Error::DeadlineExceeded { .. }
            | Error::RequestTooLarge { .. }
            | Error::ResponseTooLarge { .. }
            | Error::Incomplete(_) => return Failure::Final,
        };
        match (code, message) {
            (_, OLD_REVISION | INVALID_TOKEN | NO_USER) => Failure::TokenOutdated,
            (Code::FailedPrecondition, LEARNER) => Failure::Learner,
            (Code::Unavailable, NO_LEADER) => Failure::NoLeader,
            // The server's own timeout: the caller's deadline is checked elsewhere and has not
            // expired.
            (Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded, _) => Failure::Unknown,
            _ => Failure::Final,
        }
    }
}

/// How to proceed after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryAction {
    /// Retry at another endpoint, if there is one.
    OtherEndpoint,
    /// Authenticate and retry.
    Authenticate,
    /// Return the error.
    Fail,
}

/// Implements the table above.
pub(crate) fn decide(policy: Policy, failure: Failure, endpoints: usize) -> RetryAction {
    match (failure, policy) {
        (Failure::Unsent, _) => RetryAction::OtherEndpoint,
        (Failure::TokenOutdated, _) => RetryAction::Authenticate,
        (Failure::Learner | Failure::NoLeader, _) if endpoints > 1 => RetryAction::OtherEndpoint,
        (Failure::NoLeader | Failure::Unknown, Policy::Repeatable) => RetryAction::OtherEndpoint,
        (Failure::Learner | Failure::NoLeader | Failure::Unknown | Failure::Final, _) => {
            RetryAction::Fail
        }
    }
}
