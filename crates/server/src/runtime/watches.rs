//! The watches of one connection thread.
//!
//! Each thread has a hub of its own, fed by the apply thread's letters: watchers share no lock with
//! anyone, and an event that is encoded by one thread's hub is encoded for all of them.

use std::cell::{RefCell, RefMut};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use retcd_state::Time;
use retcd_state::watch::{Hub, Metrics, RevisionEvents, StreamId};
use tokio::sync::{Notify, watch};

/// What the metrics show of one thread's watches, readable from every thread. It is up to date before anybody
/// hears of what the hub did.
#[derive(Debug, Default)]
pub struct WatchCounts {
    /// Open streams.
    pub streams: AtomicUsize,
    /// Watchers.
    pub watchers: AtomicUsize,
    /// Watchers that are behind.
    pub slow_watchers: AtomicUsize,
    /// Events in queues.
    pub events_pending: AtomicUsize,
}

impl WatchCounts {
    /// Publishes the hub's numbers.
    fn publish(&self, metrics: Metrics) {
        self.streams.store(metrics.streams, Relaxed);
        self.watchers.store(metrics.watchers, Relaxed);
        self.slow_watchers.store(metrics.slow_watchers, Relaxed);
        self.events_pending.store(metrics.events_pending, Relaxed);
    }
}

/// Where a store is when its watches begin.
#[derive(Clone, Copy, Debug)]
pub struct StartPoint {
    /// The current revision.
    pub revision: i64,
    /// The last compacted revision; -1 for none.
    pub compacted: i64,
}

/// A hub and the tasks that wait for it.
pub struct Watches {
    hub: RefCell<Hub>,
    counts: Arc<WatchCounts>,
    wakers: RefCell<HashMap<StreamId, Rc<Notify>>>,
    /// The newest revision that the hub was told of.
    published: watch::Sender<i64>,
}

impl Watches {
    /// Watches on a store that is at `start`; whatever comes later has to be published. `counts` follow.
    pub fn new(start: StartPoint, counts: Arc<WatchCounts>) -> Watches {
        let hub = RefCell::new(Hub::new(
            start.revision,
            start.compacted,
            Default::default(),
        ));
        Watches {
            hub,
            counts,
            wakers: RefCell::default(),
            published: watch::Sender::new(start.revision),
        }
    }

    /// The hub; what it wakes is woken, and what it counts is told, when the guard is dropped.
    pub fn hub(&self) -> HubGuard<'_> {
        HubGuard {
            watches: self,
            hub: self.hub.borrow_mut(),
        }
    }

    /// Opens a stream; `progress_interval` is its own.
    pub fn open(&self, now: Time, progress_interval: Duration) -> (StreamId, StreamWaker) {
        let id = self.hub().open_stream(now, progress_interval);
        let notify = Rc::new(Notify::new());
        self.wakers.borrow_mut().insert(id, Rc::clone(&notify));
        (id, StreamWaker(notify))
    }

    /// Closes a stream.
    pub fn close(&self, id: StreamId) {
        self.hub().close_stream(id);
        self.wakers.borrow_mut().remove(&id);
    }

    /// Whether requests of the stream should be read.
    pub fn accepts_requests(&self, id: StreamId) -> bool {
        self.hub.borrow().accepts_requests(id)
    }

    /// Tells the watchers of new revisions.
    pub fn publish(&self, changes: &[Arc<RevisionEvents>]) {
        let mut hub = self.hub();
        for changes in changes {
            hub.publish(Arc::clone(changes));
        }
        self.published.send_replace(hub.revision());
    }

    /// The keyspace was replaced by one at `revision`, with history from `compacted` on: watchers read from it
    /// what they missed.
    pub fn restore(&self, revision: i64, compacted: i64) {
        self.hub().restore(revision, compacted);
        self.published.send_replace(revision);
    }

    /// Waits until `revision` was published to this thread.
    pub async fn published(&self, revision: i64) {
        let mut published = self.published.subscribe();
        // The sender lives as long as `self`.
        let _ = published.wait_for(|newest| *newest >= revision).await;
    }

    /// Sends the periodic progress that is due.
    pub fn handle_timeout(&self, now: Time) {
        if self
            .hub
            .borrow()
            .poll_timeout()
            .is_some_and(|due| due <= now)
        {
            self.hub().handle_timeout(now);
        }
    }
}

/// The hub while it is worked on.
pub struct HubGuard<'a> {
    watches: &'a Watches,
    hub: RefMut<'a, Hub>,
}

impl std::ops::Deref for HubGuard<'_> {
    type Target = Hub;

    fn deref(&self) -> &Hub {
        &self.hub
    }
}

impl std::ops::DerefMut for HubGuard<'_> {
    fn deref_mut(&mut self) -> &mut Hub {
        &mut self.hub
    }
}

impl Drop for HubGuard<'_> {
    fn drop(&mut self) {
        self.watches.counts.publish(self.hub.metrics());
        let mut woken = Vec::new();
        self.hub.drain_woken(&mut woken);
        let wakers = self.watches.wakers.borrow();
        for waker in woken.iter().filter_map(|stream| wakers.get(stream)) {
            waker.notify_one();
        }
    }
}

/// Wakes the task of one stream.
pub struct StreamWaker(Rc<Notify>);

impl StreamWaker {
    /// Resolves when the hub has had something for the stream since the last call.
    pub async fn woken(&self) {
        self.0.notified().await;
    }
}
