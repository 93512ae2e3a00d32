//! A client that waits for events.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::Event;
use super::hub::{Shared, Ticket};

/// How many events may wait for the client of a stream; with one more the stream ends.
pub const EVENTS_MAX: usize = 100;

/// What is between the hub and one watcher.
#[derive(Default)]
pub(super) struct Queue {
    events: VecDeque<Arc<Event>>,
    /// Whether nothing will be added.
    closed: bool,
    waker: Option<Waker>,
}

impl Queue {
    /// Adds an event, or closes the queue if it is full.
    pub(super) fn push(&mut self, event: &Arc<Event>) {
        assert!(!self.closed, "an event for a closed watcher");
        match self.events.len() < EVENTS_MAX {
            true => self.events.push_back(Arc::clone(event)),
            false => self.closed = true,
        }
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whom to wake now that something has changed.
    pub(super) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }
}

/// A watch; ends when it is dropped.
pub struct Watcher {
    queue: Arc<Mutex<Queue>>,
    start_index: u64,
    /// None: it got its event from the history, and waits for no other.
    registered: Option<(Arc<Shared>, Ticket)>,
}

impl Watcher {
    /// A watcher that has its event already.
    pub(super) fn with_event(event: Arc<Event>, stream: bool, start_index: u64) -> Watcher {
        let queue = Queue {
            events: VecDeque::from([event]),
            closed: !stream,
            waker: None,
        };
        Watcher {
            queue: Arc::new(Mutex::new(queue)),
            start_index,
            registered: None,
        }
    }

    /// A watcher that the hub knows.
    pub(super) fn registered(
        queue: Arc<Mutex<Queue>>,
        start_index: u64,
        shared: Arc<Shared>,
        ticket: Ticket,
    ) -> Watcher {
        Watcher {
            queue,
            start_index,
            registered: Some((shared, ticket)),
        }
    }

    /// The store's index when the watch began.
    pub fn start_index(&self) -> u64 {
        self.start_index
    }

    /// The next event. `Ready(None)`: there will be no more, since the watch was for one event, the
    /// client was too slow, or the store was replaced. A stream that found its first event in the
    /// history gets no other, and does not end either, as in etcd 3.3 (`store/watcher_hub.go`).
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Arc<Event>>> {
        let mut queue = self.queue.lock();
        if let Some(event) = queue.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        match &mut queue.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// The next event; see [`Watcher::poll_next`]. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        poll_fn(|context| self.poll_next(context)).await
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some((shared, ticket)) = self.registered.take() {
            shared.cancel(&ticket);
        }
    }
}
