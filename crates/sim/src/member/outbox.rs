//! What the tasks of a process send, until the process passes it on into the world.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use retcd_member::{CommitQueue, Committed, NodeQueue, Work, Workers};
use retcd_node::Input;

use super::peers::{Ask, ReturnAddress, Told};
use super::watch::{Opened, Session};
use crate::history::{OperationId, Outcome};
use crate::request::tree::Judged;

/// What the member's own code puts into queues.
#[derive(Default)]
pub struct Queued {
    /// For the node.
    pub inputs: Vec<Input>,
    /// For the workers.
    pub work: Vec<Work>,
    /// For the database.
    pub commits: Vec<Committed>,
}

/// The queues of a process.
#[derive(Clone, Default)]
pub struct Queues(Arc<Mutex<Queued>>);

impl Queues {
    fn with<T>(&self, change: impl FnOnce(&mut Queued) -> T) -> T {
        change(&mut self.0.lock().expect("nobody panics with it"))
    }

    /// Takes out what is in them.
    pub fn take(&self) -> Queued {
        self.with(std::mem::take)
    }

    /// The node's.
    pub fn node(&self) -> NodeQueue {
        let queues = self.clone();
        NodeQueue::new(move |input| {
            queues.with(|queued| queued.inputs.push(input));
            Ok(())
        })
    }

    /// The workers'.
    pub fn workers(&self) -> Workers {
        let queues = self.clone();
        Workers::new(move |work| queues.with(|queued| queued.work.push(work)))
    }

    /// The database's.
    pub fn commits(&self) -> CommitQueue {
        let queues = self.clone();
        Box::new(move |committed| queues.with(|queued| queued.commits.push(committed)))
    }
}

/// How an operation ended, and where its member stood.
pub struct Ended {
    /// The operation.
    pub operation: OperationId,
    /// What its client is told.
    pub outcome: Outcome,
    /// The last entry that was applied when it was found out who asks and what is permitted.
    pub judged_at: u64,
    /// What was found of the client's rights, of a request of API v2.
    pub tree_judged: Option<Judged>,
}

/// Something that leaves the process.
pub enum Sent {
    /// The end of an operation, to its client.
    Ended(Ended),
    /// A question to another member.
    Question {
        /// The member.
        to: u64,
        /// Comes back with the answer, so that it finds who waits.
        number: u64,
        /// What is asked.
        ask: Ask,
    },
    /// The answer to another member's question.
    Told {
        /// Who asked.
        to: ReturnAddress,
        /// The answer.
        told: Told,
    },
    /// A watch was opened, or refused.
    Opened(Opened),
    /// Something for a watcher.
    Watched {
        /// Its connection.
        session: Session,
        /// The encoded response.
        bytes: Bytes,
    },
    /// Clients can be served.
    Ready,
}

/// What leaves a process, in order.
#[derive(Clone, Default)]
pub struct Outbox(Rc<RefCell<Vec<Sent>>>);

impl Outbox {
    /// Sends something.
    pub fn send(&self, sent: Sent) {
        self.0.borrow_mut().push(sent);
    }

    /// Takes out what was sent.
    pub fn take(&self) -> Vec<Sent> {
        self.0.take()
    }
}
