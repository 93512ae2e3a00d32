//! How node and machine reach those who wait on a thread.
//!
//! Each thread has one mailbox. A batch of replies is one letter per thread, so that a
//! batch costs one wake-up however many clients it answers.

use std::sync::Arc;

use retcd_node::{Inspection, RejectReason};
use retcd_state::machine::{ApplyError, Reply};
use retcd_state::watch::RevisionEvents;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::observer::Stages;
use crate::request_id::{is_of_member, thread_of};

/// What the machine made of a request.
pub type Outcome = Result<Reply, ApplyError>;

/// A letter to a thread.
pub enum Mail {
    /// The machine applied these requests, which went this way.
    Replies(Vec<(u64, Outcome)>, Stages),
    /// These requests did not enter the log.
    Rejected(Vec<u64>, RejectReason),
    /// These reads may be answered; the term in which this member leads, if it does.
    ReadsReady(Vec<u64>, Option<u64>),
    /// These reads cannot be answered.
    ReadsRejected(Vec<u64>, RejectReason),
    /// Where the member stands, for the one who asked under this name.
    Inspected(u64, Inspection),
    /// History below this revision is gone.
    Compacted(i64),
    /// These revisions were written; the thread's watchers hear of them.
    Published(Arc<[Arc<RevisionEvents>]>),
    /// The keyspace was replaced by one at `revision`, with history from `compacted` on.
    Restored {
        /// The newest revision.
        revision: i64,
        /// The revision of the last compaction, -1 if there was none.
        compacted: i64,
    },
}

/// The mailboxes of all threads.
#[derive(Clone)]
pub struct Mailboxes {
    member_id: u64,
    senders: Vec<UnboundedSender<Mail>>,
}

impl Mailboxes {
    /// Mailboxes for `threads` threads of member `member_id`, and their receiving ends.
    pub fn new(member_id: u64, threads: usize) -> (Mailboxes, Vec<UnboundedReceiver<Mail>>) {
        let (senders, receivers) = (0..threads).map(|_| unbounded_channel()).unzip();
        (Mailboxes { member_id, senders }, receivers)
    }

    /// Delivers to one thread; a thread that has stopped waits for nothing.
    pub fn send(&self, thread: usize, mail: Mail) {
        if let Some(mailbox) = self.senders.get(thread) {
            let _ = mailbox.send(mail);
        }
    }

    /// Tells all threads of new revisions.
    pub fn publish(&self, changes: Vec<Arc<RevisionEvents>>) {
        if changes.is_empty() {
            return;
        }
        let changes: Arc<[Arc<RevisionEvents>]> = changes.into();
        for thread in 0..self.senders.len() {
            self.send(thread, Mail::Published(Arc::clone(&changes)));
        }
    }

    /// Tells all threads that the keyspace was replaced.
    pub fn restored(&self, revision: i64, compacted: i64) {
        for thread in 0..self.senders.len() {
            let mail = Mail::Restored {
                revision,
                compacted,
            };
            self.send(thread, mail);
        }
    }

    /// Tells all threads of a compaction.
    pub fn compacted(&self, revision: i64) {
        for thread in 0..self.senders.len() {
            self.send(thread, Mail::Compacted(revision));
        }
    }

    /// Splits `items` by the thread that `request` of each routes to and delivers one letter to
    /// each.
    pub fn send_split<T>(
        &self,
        items: Vec<T>,
        request: impl Fn(&T) -> u64,
        letter: impl Fn(Vec<T>) -> Mail,
    ) {
        let mut split: Vec<Vec<T>> = (0..self.senders.len()).map(|_| Vec::new()).collect();
        for item in items {
            let request = request(&item);
            // Requests of other members are in the log, too; nobody here waits for them.
            if !is_of_member(request, self.member_id) {
                continue;
            }
            if let Some(items) = split.get_mut(thread_of(request)) {
                items.push(item);
            }
        }
        for (thread, items) in split.into_iter().enumerate() {
            if !items.is_empty() {
                self.send(thread, letter(items));
            }
        }
    }
}
