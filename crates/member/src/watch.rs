//! The watches of one thread.
//!
//! Each thread has a hub of its own, fed by its mailbox: watchers share no lock with anyone, and an
//! event that one thread's hub has encoded is encoded for all of them. While nobody on the thread
//! listens, its mailbox tells of no revisions, and the hub stands still.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use prost::Message;
use retcd_proto::etcdserverpb::watch_request::RequestUnion;
use retcd_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use retcd_proto::mvccpb::Event;
use retcd_state::Time;
use retcd_state::auth::{self, AuthStore, Caller};
use retcd_state::machine::ApplyError;
use retcd_state::mvcc::Reader;
use retcd_state::watch::{
    Body, EventSet, Hub, Limits, Metrics, Poll, Response, RevisionEvents, StreamId,
};
use tokio::sync::{Notify, watch};

use crate::Error;
use crate::access::Credentials;
use crate::core::Core;
use crate::mailbox::Interest;

/// What the metrics show of one thread's watches, readable from every thread. It is up to date
/// before anybody hears of what the hub did.
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

/// A hub and the tasks that wait for it.
pub struct Watches {
    reader: Reader,
    interest: Interest,
    /// The streams, and those who wait for a revision. Without any the hub stands still.
    listeners: Cell<usize>,
    hub: RefCell<Hub>,
    counts: Arc<WatchCounts>,
    wakers: RefCell<BTreeMap<StreamId, Rc<Notify>>>,
    /// The newest revision that the hub was told of.
    published: watch::Sender<i64>,
}

impl Watches {
    /// Watches on the store of `reader`; what is written while there is `interest` has to be
    /// published. `counts` follow.
    pub fn new(
        reader: Reader,
        interest: Interest,
        limits: Limits,
        counts: Arc<WatchCounts>,
    ) -> Watches {
        let (revision, compacted) = position(&reader);
        Watches {
            reader,
            interest,
            listeners: Cell::new(0),
            hub: Hub::new(revision, compacted, limits).into(),
            counts,
            wakers: RefCell::default(),
            published: watch::Sender::new(revision),
        }
    }

    /// Makes the hub follow the store, if it does not, until the listener is dropped.
    fn listen(self: &Rc<Self>) -> Listener {
        if self.listeners.get() == 0 {
            // In this order: no revision is missed.
            self.interest.begin();
            let (revision, compacted) = position(&self.reader);
            self.hub().go_on(revision, compacted);
            self.note_published();
        }
        self.listeners.set(self.listeners.get() + 1);
        Listener(Rc::clone(self))
    }

    fn note_published(&self) {
        let (before, now) = (*self.published.borrow(), self.hub.borrow().revision());
        assert!(before <= now, "revision {now} published after {before}");
        self.published.send_replace(now);
    }

    /// The hub; what it wakes is woken, and what it counts is told, when the guard is dropped.
    fn hub(&self) -> HubGuard<'_> {
        HubGuard {
            watches: self,
            hub: self.hub.borrow_mut(),
        }
    }

    /// History below `revision` is gone.
    pub(crate) fn compact(&self, revision: i64) {
        self.hub().compact(revision);
    }

    /// Tells the watchers of new revisions.
    pub fn publish(&self, changes: &[Arc<RevisionEvents>]) {
        if self.listeners.get() == 0 {
            // Sent before the last one has gone.
            return;
        }
        let mut hub = self.hub();
        for changes in changes {
            hub.publish(Arc::clone(changes));
        }
        drop(hub);
        self.note_published();
    }

    /// The keyspace was replaced by one at `revision`, with history from `compacted` on: watchers
    /// read from it what they missed.
    pub fn restore(&self, revision: i64, compacted: i64) {
        self.hub().restore(revision, compacted);
        self.note_published();
    }

    /// Waits until `revision` was published to this thread.
    pub async fn published(self: &Rc<Self>, revision: i64) {
        if *self.published.borrow() >= revision {
            return;
        }
        let _listener = self.listen();
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

/// The revision of the store, and that of its last compaction, of one moment.
fn position(reader: &Reader) -> (i64, i64) {
    let view = reader.view();
    (view.revision().get(), view.compacted_revision())
}

/// Somebody for whom the hub follows the store.
struct Listener(Rc<Watches>);

impl Drop for Listener {
    fn drop(&mut self) {
        let left = self.0.listeners.get() - 1;
        self.0.listeners.set(left);
        if left == 0 {
            self.0.interest.end();
        }
    }
}

/// The hub while it is worked on.
struct HubGuard<'a> {
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

/// Opens streams of watches.
pub struct WatchService {
    core: Rc<Core>,
    watches: Rc<Watches>,
}

impl WatchService {
    pub(crate) fn new(core: &Rc<Core>, watches: &Rc<Watches>) -> WatchService {
        WatchService {
            core: Rc::clone(core),
            watches: Rc::clone(watches),
        }
    }

    /// Follows the changes of a range, not empty, from a revision that is not negative.
    ///
    /// # Errors
    /// The caller may not read it; as [`Access::identify`](crate::access::Access::identify).
    pub(crate) async fn follow(
        &self,
        credentials: &Credentials,
        request: &WatchCreateRequest,
    ) -> Result<Changes, Error> {
        // No watcher of it asks for progress.
        const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
        let stream = self.open(PROGRESS_INTERVAL);
        stream.permit(credentials, request).await?;
        self.watches.hub().create(stream.id, request);
        Ok(Changes {
            stream,
            pending: VecDeque::new(),
        })
    }

    /// Opens a stream, whose watchers hear of progress every `progress_interval`.
    pub fn open(&self, progress_interval: Duration) -> WatchStream {
        let now = self.core.clock.time();
        let listener = self.watches.listen();
        let id = self.watches.hub().open_stream(now, progress_interval);
        let notify = Rc::new(Notify::new());
        let wakers = &self.watches.wakers;
        wakers.borrow_mut().insert(id, Rc::clone(&notify));
        WatchStream {
            core: Rc::clone(&self.core),
            watches: Rc::clone(&self.watches),
            id,
            notify,
            _listener: listener,
        }
    }
}

/// The changes of one range, for those parts of a member that follow them on behalf of a client.
/// Dropping it forgets the watcher.
pub(crate) struct Changes {
    stream: WatchStream,
    pending: VecDeque<Response>,
}

impl Changes {
    /// Responses are taken from the hub in portions of about this size.
    const PORTION_BYTES: usize = 64 << 10;

    /// The next events, all of a revision at once, and the revision of the response.
    ///
    /// # Errors
    /// [`ApplyError::Compacted`] if history that is needed is gone; as [`WatchStream::next`].
    pub(crate) async fn next(&mut self) -> Result<(Vec<Event>, i64), Error> {
        loop {
            while let Some(response) = self.pending.pop_front() {
                match response.body {
                    Body::Events { events, .. } => {
                        return Ok((decode(&events), response.revision.get()));
                    }
                    Body::Compacted { .. } => return Err(ApplyError::Compacted.into()),
                    Body::Created | Body::Progress => {}
                    Body::Refused(_) | Body::Canceled => {
                        unreachable!("nobody asked for {:?}", response.body)
                    }
                }
            }
            match self.stream.next(Self::PORTION_BYTES).await? {
                Some(responses) => self.pending.extend(responses),
                None => self.stream.woken().await,
            }
        }
    }
}

fn decode(events: &EventSet) -> Vec<Event> {
    let encoded: Vec<u8> = events.slices().flatten().collect();
    let response = WatchResponse::decode(&encoded[..]);
    response.expect("events are encoded by the hub").events
}

/// A client's stream of watches: requests go into the hub, responses come out of it. Dropping it
/// forgets its watchers.
///
/// Whoever serves it does one thing at a time: [`WatchStream::handle`] a request while
/// [`WatchStream::accepts_requests`], or send what [`WatchStream::next`] has once
/// [`WatchStream::woken`]. While the client takes nothing it does neither; the hub bounds what
/// waits meanwhile.
pub struct WatchStream {
    core: Rc<Core>,
    watches: Rc<Watches>,
    id: StreamId,
    notify: Rc<Notify>,
    _listener: Listener,
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.watches.hub().close_stream(self.id);
        self.watches.wakers.borrow_mut().remove(&self.id);
    }
}

impl WatchStream {
    /// Whether requests should be read.
    pub fn accepts_requests(&self) -> bool {
        self.watches.hub.borrow().accepts_requests(self.id)
    }

    /// Resolves when the hub has had something for the stream since the last call.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }

    /// Does what the client asks for. `refusal` words why it may not watch something.
    pub async fn handle(
        &self,
        credentials: &Credentials,
        request: WatchRequest,
        refusal: impl FnOnce(&Error) -> &'static str,
    ) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => {
                let permitted = self.permit(credentials, &request).await;
                let mut hub = self.watches.hub();
                match permitted {
                    Ok(()) => drop(hub.create(self.id, &request)),
                    Err(error) => hub.refuse(self.id, refusal(&error)),
                }
            }
            Some(RequestUnion::CancelRequest(request)) => {
                self.watches.hub().cancel(self.id, request.watch_id);
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.watches
                    .published(self.core.shared.state.reader.revision())
                    .await;
                self.watches.hub().request_progress(self.id);
            }
            None => {}
        }
    }

    /// What precedes the creation of a watcher.
    async fn permit(
        &self,
        credentials: &Credentials,
        request: &WatchCreateRequest,
    ) -> Result<(), Error> {
        // Whatever this client has seen acknowledged lies before "now".
        let revision = self.core.shared.state.reader.revision();
        self.watches.published(revision).await;
        self.check(credentials, request).await
    }

    /// Whether the client may watch what it asks for. That is decided here once: the watch goes on
    /// when users or roles change, as in etcd.
    async fn check(
        &self,
        credentials: &Credentials,
        request: &WatchCreateRequest,
    ) -> Result<(), Error> {
        // The hub answers these.
        if request.start_revision < 0 {
            return Ok(());
        }
        let key: &[u8] = match &request.key[..] {
            [] => b"\0",
            key => key,
        };
        let may_read = |store: &AuthStore, who: Caller<'_>| {
            store.check_keys(who, auth::Access::Read, key, &request.range_end)
        };
        self.core
            .access
            .require(credentials, may_read)
            .await
            .map(drop)
    }

    /// The next responses, some `bytes` of them; `None` if there are none for now. History that a
    /// watcher has missed is read by the workers.
    ///
    /// # Errors
    /// The database cannot be read; the member stops.
    pub async fn next(&self, bytes: usize) -> Result<Option<Vec<Response>>, Error> {
        loop {
            let polled = self.watches.hub().poll(self.id, bytes);
            match polled {
                Poll::Idle => return Ok(None),
                Poll::Responses(responses) => return Ok(Some(responses)),
                Poll::Catchup(job) => {
                    let reader = self.core.shared.state.reader.clone();
                    let caught = self
                        .core
                        .shared
                        .workers
                        .run(move || job.run(&reader.view()))
                        .await??;
                    self.watches.hub().complete_catchup(caught);
                }
            }
        }
    }
}
