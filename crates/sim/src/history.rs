//! What clients did and heard, and what else was worth a line.

use std::time::Duration;

use crate::request::{Answer, Request};

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

/// One operation of a client.
pub struct Operation {
    /// Who asked.
    pub client: usize,
    /// Which host was asked.
    pub host: usize,
    /// What was asked.
    pub request: Request,
    /// When.
    pub invoked: Duration,
    /// When the client heard; nothing while it waits.
    pub returned: Option<Duration>,
    /// What it heard.
    pub outcome: Outcome,
    /// The id under which it is in the log.
    pub request_id: u64,
    /// What had been answered to anybody when it was invoked.
    pub floor: Floor,
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
