//! What clients did and heard, and what else was worth a line.

use std::time::Duration;

use crate::request::tree::Judged;
use crate::request::{Answer, Request};
use crate::users::Credentials;

/// How an operation ended for its client.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// There was an answer.
    Answered(Answer),
    /// The member promised that nothing was done.
    Refused(&'static str),
    /// Nobody knows: the operation may take effect at any time, or never.
    Unknown(&'static str),
}

/// Why a request is refused whose token does not count.
pub const INVALID_TOKEN: &str = "invalid auth token";

/// Why a client does not know how its operation ended: it has not waited for it.
pub const NO_PATIENCE: &str = "timeout";

/// One operation of a client.
pub struct Operation {
    /// Who asked.
    pub client: usize,
    /// Which host was asked.
    pub host: usize,
    /// What was asked.
    pub request: Request,
    /// In whose name.
    pub credentials: Credentials,
    /// The last entry that the member had applied when the request came.
    pub arrived_at: u64,
    /// The same when it was found out who asks and what is permitted: when it was put into the log,
    /// or answered without.
    pub judged_at: u64,
    /// The same when it was answered.
    pub answered_at: u64,
    /// When it was asked.
    pub invoked: Duration,
    /// When the client heard; nothing while it waits.
    pub returned: Option<Duration>,
    /// What it heard.
    pub outcome: Outcome,
    /// The id under which it is in the log.
    pub request_id: u64,
    /// What had been answered to anybody when it was invoked.
    pub floor: Floor,
    /// The last entry that the slowest member had applied then.
    pub slowest: u64,
    /// The index of the tree of API v2 that the member had shown when the request came.
    pub tree_floor: u64,
    /// What the member has found of the client's rights, of a request of API v2.
    pub tree_judged: Option<Judged>,
}

impl Operation {
    /// An operation that begins now.
    pub fn new(
        client: usize,
        host: usize,
        request: Request,
        credentials: Credentials,
        now: Duration,
        floor: Floor,
    ) -> Operation {
        Operation {
            client,
            host,
            request,
            credentials,
            arrived_at: 0,
            judged_at: 0,
            answered_at: 0,
            invoked: now,
            returned: None,
            outcome: Outcome::Unknown("still waiting"),
            request_id: 0,
            floor,
            slowest: 0,
            tree_floor: 0,
            tree_judged: None,
        }
    }
}

/// What must be visible to an operation that begins now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// The newest revision that an answer spoke of.
    pub revision: i64,
    /// The newest entry of the log that was answered.
    pub index: u64,
}

/// Names an operation.
pub type OperationId = usize;

/// Everything that happened, for the checkers at the end and for who reads a failure.
#[derive(Default)]
pub struct History {
    /// The operations in the order of their invocation.
    pub operations: Vec<Operation>,
    /// Elections, crashes, faults.
    pub notes: Vec<(Duration, String)>,
}

impl History {
    /// Writes down what happened.
    pub fn note(&mut self, now: Duration, text: impl Into<String>) {
        self.notes.push((now, text.into()));
    }
}
