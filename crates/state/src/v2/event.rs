//! What happened to a node, in the form in which clients see it.

use std::sync::Arc;

use super::timestamp::Timestamp;
use super::{Code, Path};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A read.
    Get,
    /// A node where there was none.
    Create,
    /// A node, whatever was there.
    Set,
    /// Another value or lifetime of a node that was there.
    Update,
    /// A removal.
    Delete,
    /// An update under a condition.
    CompareAndSwap,
    /// A removal under a condition.
    CompareAndDelete,
    /// A removal since the time had come.
    Expire,
}

impl Action {
    const ALL: [Action; 8] = [
        Action::Get,
        Action::Create,
        Action::Set,
        Action::Update,
        Action::Delete,
        Action::CompareAndSwap,
        Action::CompareAndDelete,
        Action::Expire,
    ];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Get => "get",
            Action::Create => "create",
            Action::Set => "set",
            Action::Update => "update",
            Action::Delete => "delete",
            Action::CompareAndSwap => "compareAndSwap",
            Action::CompareAndDelete => "compareAndDelete",
            Action::Expire => "expire",
        }
    }

    /// The action of that name.
    pub(super) fn from_name(name: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// A change, or the answer to a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What was done.
    pub action: Action,
    /// The node as it is afterwards.
    pub node: Node,
    /// The node as it was before, without its children; for what replaces, changes or removes one.
    pub prev_node: Option<Node>,
    /// Whether only the lifetime changed: such events are kept, but watchers hear of none.
    pub refresh: bool,
    /// The store's index after the change, or at the read.
    pub store_index: u64,
}

impl Event {
    /// The index of the change.
    pub fn index(&self) -> u64 {
        self.node.modified_index
    }

    /// Whether there is a node now where there was none: the answer to a write is "created" then.
    pub fn is_created(&self) -> bool {
        match self.action {
            Action::Create => true,
            Action::Set => self.prev_node.is_none(),
            _ => false,
        }
    }
}

/// A node as an event shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The whole path.
    pub key: Path,
    /// The value of a file; none where the file is gone.
    pub value: Option<Arc<str>>,
    /// Whether it is a directory.
    pub dir: bool,
    /// When it expires.
    pub expiration: Option<Timestamp>,
    /// Seconds until then, rounded up, as the member saw it that made the event; may be negative,
    /// and 0 stands for none.
    pub ttl: i64,
    /// A directory's children, sorted, without hidden ones; only in answers to reads.
    pub nodes: Vec<Node>,
    /// The index of the last change; 0 for what was there from the beginning.
    pub modified_index: u64,
    /// The index of the creation.
    pub created_index: u64,
}

/// A failure that does not know the store's index yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) cause: String,
}

impl Failure {
    pub(super) fn new(code: Code, cause: impl ToString) -> Failure {
        let cause = cause.to_string();
        Failure { code, cause }
    }

    pub(super) fn at(self, index: u64) -> super::Error {
        let Failure { code, cause } = self;
        super::Error { code, cause, index }
    }
}
