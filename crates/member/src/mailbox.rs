//! How node and machine reach those who wait on a thread.
//!
//! Each thread has one mailbox. A batch of replies is one letter per thread, so that a
//! batch costs one wake-up however many clients it answers. A thread hears of new revisions only while
//! it wants to: without watchers it would be woken for each of them in vain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst, fence};

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
    /// These revisions were written; the thread's watchers hear of them. Only for threads that
    /// [want](Interest) to.
    Published(Arc<[Arc<RevisionEvents>]>),
    /// The keyspace was replaced by one at `revision`, with history from `compacted` on.
    Restored {
        /// The newest revision.
        revision: i64,
        /// The revision of the last compaction, -1 if there was none.
        compacted: i64,
    },
}

/// Whether a thread wants to hear of new revisions. At first it does not.
#[derive(Clone, Default)]
pub struct Interest(Arc<AtomicBool>);

impl Interest {
    /// From now on the thread hears of every revision that readers do not see yet.
    ///
    /// The fence here and that of [`Interest::is_there`], which looks when readers see a revision,
    /// leave no gap: either they find the interest, or whoever reads behind this finds the revision.
    pub(crate) fn begin(&self) {
        self.0.store(true, Relaxed);
        fence(SeqCst);
    }

    /// What is under way may still come.
    pub(crate) fn end(&self) {
        self.0.store(false, Relaxed);
    }

    fn is_there(&self) -> bool {
        fence(SeqCst);
        self.0.load(Relaxed)
    }
}

/// A thread's mailbox, for the thread.
pub struct Mailbox {
    letters: UnboundedReceiver<Mail>,
    interest: Interest,
}

impl Mailbox {
    /// The next letter; `None` when nobody can send any more.
    pub async fn recv(&mut self) -> Option<Mail> {
        self.letters.recv().await
    }

    /// The next letter, if there is one.
    pub fn try_recv(&mut self) -> Option<Mail> {
        self.letters.try_recv().ok()
    }

    /// Through which the thread says whether it wants to hear of new revisions.
    pub fn interest(&self) -> Interest {
        self.interest.clone()
    }
}

/// The mailboxes of all threads.
#[derive(Clone)]
pub struct Mailboxes {
    member_id: u64,
    threads: Vec<(UnboundedSender<Mail>, Interest)>,
}

impl Mailboxes {
    /// Mailboxes for `threads` threads of member `member_id`, and their receiving ends.
    pub fn new(member_id: u64, threads: usize) -> (Mailboxes, Vec<Mailbox>) {
        let mailbox = |_| {
            let (sender, letters) = unbounded_channel();
            let interest = Interest::default();
            ((sender, interest.clone()), Mailbox { letters, interest })
        };
        let (threads, mailboxes) = (0..threads).map(mailbox).unzip();
        (Mailboxes { member_id, threads }, mailboxes)
    }

    /// Delivers to one thread; a thread that has stopped waits for nothing.
    pub fn send(&self, thread: usize, mail: Mail) {
        if let Some((mailbox, _)) = self.threads.get(thread) {
            let _ = mailbox.send(mail);
        }
    }

    /// Tells the threads that want to know of new revisions, which readers see by now.
    pub fn publish(&self, changes: impl ExactSizeIterator<Item = Arc<RevisionEvents>>) {
        if changes.len() == 0 {
            return;
        }
        let interested = self
            .threads
            .iter()
            .filter(|(_, interest)| interest.is_there());
        let mut interested = interested.peekable();
        if interested.peek().is_none() {
            return;
        }
        let changes: Arc<[Arc<RevisionEvents>]> = changes.collect();
        for (mailbox, _) in interested {
            let _ = mailbox.send(Mail::Published(Arc::clone(&changes)));
        }
    }

    /// Tells all threads that the keyspace was replaced.
    pub fn restored(&self, revision: i64, compacted: i64) {
        for thread in 0..self.threads.len() {
            let mail = Mail::Restored {
                revision,
                compacted,
            };
            self.send(thread, mail);
        }
    }

    /// Tells all threads of a compaction.
    pub fn compacted(&self, revision: i64) {
        for thread in 0..self.threads.len() {
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
        let mut split: Vec<Vec<T>> = (0..self.threads.len()).map(|_| Vec::new()).collect();
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

#[cfg(test)]
mod tests {
    use retcd_state::mvcc::{Event, EventKind, Prev, Record};

    use super::*;

    #[test]
    fn only_threads_that_want_to_hear_of_revisions() {
        let (mailboxes, mut threads) = Mailboxes::new(1, 3);
        let publish = |revision| {
            let event = Event {
                kind: EventKind::Delete,
                record: Record::tombstone(b"k", revision),
                prev: Prev::Absent,
            };
            let events = RevisionEvents::new(revision, Arc::new([event]));
            mailboxes.publish([Arc::new(events)].into_iter());
        };
        publish(2);
        threads[1].interest().begin();
        publish(3);
        threads[1].interest().end();
        threads[2].interest().begin();
        publish(4);
        let mut heard = threads.iter_mut().map(|thread| {
            let letters = std::iter::from_fn(|| thread.try_recv());
            let revisions = letters.map(|letter| match letter {
                Mail::Published(changes) => changes[0].revision(),
                _ => unreachable!("nothing else was sent"),
            });
            revisions.collect::<Vec<_>>()
        });
        assert_eq!(heard.next(), Some(vec![]));
        assert_eq!(heard.next(), Some(vec![3]));
        assert_eq!(heard.next(), Some(vec![4]));
    }
}
