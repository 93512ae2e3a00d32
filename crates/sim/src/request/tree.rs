//! What clients ask of API v2, and what they are answered.
//!
//! How long a node has left is not in here: every member tells that by its own clock.

use std::fmt;

use retcd_member::v2::{RoleChange, UserChange};
use retcd_proto::etcdserverpb;
use retcd_state::v2;

use crate::model::tree_users::Purpose;

/// A request that goes through the log.
#[derive(Clone, Debug, PartialEq)]
pub struct TreeRequest {
    /// The request, without what its member adds.
    pub request: etcdserverpb::Request,
    /// In how many seconds by its member's clock the node is to expire.
    pub ttl_secs: Option<u32>,
}

/// A change of users or roles, which may take several entries of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsersRequest {
    /// Make or change a user.
    PutUser(&'static str, UserChange),
    /// Remove a user.
    DeleteUser(&'static str),
    /// Make or change a role.
    PutRole(&'static str, RoleChange),
    /// Remove a role.
    DeleteRole(&'static str),
    /// Judge requests from now on.
    Enable,
    /// Judge them no more.
    Disable,
}

/// What a member has found of a client's rights before it did what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What the client wanted.
    pub purpose: Purpose,
    /// The index of the tree when the member began to look at users and roles.
    pub from: u64,
    /// The same when it had.
    pub until: u64,
    /// Whether it was permitted.
    pub is_permitted: bool,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The whole path.
    pub key: String,
    /// Whether it is a directory.
    pub dir: bool,
    /// A file's value.
    pub value: Option<String>,
    /// When it expires, in nanoseconds since 1970.
    pub expiration: Option<i64>,
    /// The index of its creation.
    pub created: u64,
    /// The index of its last change.
    pub modified: u64,
}

/// A change, or the answer to a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What was done.
    pub action: &'static str,
    /// The node as it is afterwards.
    pub node: Node,
    /// The node as it was before.
    pub prev: Option<Node>,
    /// What a directory shows when it is read, each directory before what is in it.
    pub nodes: Vec<Node>,
    /// Whether watchers hear nothing of it.
    pub refresh: bool,
    /// The index of the tree.
    pub store_index: u64,
}

/// What a stream has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streamed {
    /// The index of the tree when it began.
    pub start: u64,
    /// The events.
    pub events: Vec<Event>,
    /// The index of the tree up to which there are no others; 0 if the member has ended it.
    pub until: u64,
}

/// What the tree refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The number of the reason.
    pub code: u16,
    /// The index of the tree.
    pub index: u64,
}

/// What a client is answered.
pub type Answer = Result<Box<Event>, Refusal>;

/// What a member has answered to a request that went through the log.
pub fn of_answer(answer: Result<v2::Answer, v2::Error>) -> Answer {
    match answer {
        Ok(v2::Answer::Event(event)) => Ok(Box::new(of_event(&event))),
        Ok(other) => unreachable!("no client asks for {other:?}"),
        Err(error) => Err(of_error(&error)),
    }
}

/// What a member has refused.
pub fn of_error(error: &v2::Error) -> Refusal {
    Refusal {
        code: error.code.number(),
        index: error.index,
    }
}

/// An event of a member's tree.
pub fn of_event(event: &v2::Event) -> Event {
    let mut nodes = Vec::new();
    event
        .node
        .nodes
        .iter()
        .for_each(|node| flatten(node, &mut nodes));
    Event {
        action: event.action.name(),
        node: of_node(&event.node),
        prev: event.prev_node.as_ref().map(of_node),
        nodes,
        refresh: event.refresh,
        store_index: event.store_index,
    }
}

fn flatten(node: &v2::Node, nodes: &mut Vec<Node>) {
    nodes.push(of_node(node));
    node.nodes.iter().for_each(|node| flatten(node, nodes));
}

fn of_node(node: &v2::Node) -> Node {
    Node {
        key: node.key.as_str().to_owned(),
        dir: node.dir,
        value: node.value.as_deref().map(str::to_owned),
        expiration: node.expiration.map(|end| end.0),
        created: node.created_index,
        modified: node.modified_index,
    }
}

impl fmt::Display for TreeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = &self.request;
        write!(f, "v2 {} {}", r.method(), r.path())?;
        if r.val.is_some() {
            write!(f, "={}", r.val())?;
        }
        for (name, is_set) in [
            ("dir", r.dir()),
            ("recursive", r.recursive()),
            ("refresh", r.refresh()),
        ] {
            if is_set {
                write!(f, " {name}")?;
            }
        }
        if let Some(exists) = r.prev_exist {
            write!(f, " if there: {exists}")?;
        }
        if !r.prev_value().is_empty() {
            write!(f, " if it is {}", r.prev_value())?;
        }
        if r.prev_index() != 0 {
            write!(f, " if it is of {}", r.prev_index())?;
        }
        match self.ttl_secs {
            Some(ttl) => write!(f, " for {ttl} s"),
            None => Ok(()),
        }
    }
}
