//! Which failed request is made again, and where.
//!
//! Two tables decide: what may be done twice (the [`Policy`] of each method in
//! [`calls`](crate::calls)), and what a failure says about whether it was done ([`Failure::of`]).
//! Both are those of etcd's Go client (client/v3: `retry.go`, `retry_interceptor.go`), but for what
//! stands in docs/compatibility.md.
//!
//! | failure | repeatable | at most once |
//! |---|---|---|
//! | never sent | again | again |
//! | the login is too old | again, with a new one | again, with a new one |
//! | a learner refuses, and there are other endpoints | at the next | at the next |
//! | no leader, and there are other endpoints | at the next | at the next |
//! | no leader | again | the end |
//! | unavailable, or the connection broke | at the next | the end |
//! | the server gave up, though there is time left | at the next | the end |
//! | anything else | the end | the end |

use tonic::Code;

use crate::error::{Error, INVALID_TOKEN, LEARNER, NO_LEADER, NO_USER, OLD_REVISION};

/// Whether a request may be executed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The second time changes nothing that matters.
    Repeatable,
    /// The caller asked for it once.
    AtMostOnce,
}

/// What a failure says about the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It never left.
    Unsent,
    /// It was refused for its token, or for what was known of the user.
    LoginOutdated,
    /// It was refused by a learner, which does not do such things. Others do.
    Learner,
    /// It was refused by a member that knows of no leader. Others may.
    NoLeader,
    /// It may have been executed. Asking once more may succeed.
    Unknown,
    /// That was the answer.
    Final,
}

impl Failure {
    /// What `error` says.
    pub fn of(error: &Error) -> Failure {
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
            (_, OLD_REVISION | INVALID_TOKEN | NO_USER) => Failure::LoginOutdated,
            (Code::FailedPrecondition, LEARNER) => Failure::Learner,
            (Code::Unavailable, NO_LEADER) => Failure::NoLeader,
            // The time that the caller gave is looked after elsewhere, so it is not over.
            (Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded, _) => Failure::Unknown,
            _ => Failure::Final,
        }
    }
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask again, at another endpoint if there is one.
    Elsewhere,
    /// Log in and ask again.
    LogIn,
    /// Tell the caller.
    GiveUp,
}

/// The table above.
pub(crate) fn next(policy: Policy, failure: Failure, endpoints: usize) -> Next {
    match (failure, policy) {
        (Failure::Unsent, _) => Next::Elsewhere,
        (Failure::LoginOutdated, _) => Next::LogIn,
        (Failure::Learner | Failure::NoLeader, _) if endpoints > 1 => Next::Elsewhere,
        (Failure::NoLeader | Failure::Unknown, Policy::Repeatable) => Next::Elsewhere,
        (Failure::Learner | Failure::NoLeader | Failure::Unknown | Failure::Final, _) => {
            Next::GiveUp
        }
    }
}
