//! Watches: one hub per process, and a stream for every watcher that is connected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use retcd_proto::etcdserverpb::WatchCreateRequest;
use retcd_state::mvcc::Event as Change;
use retcd_state::watch::{Hub, Limits, Origin, Poll, RevisionEvents, StreamId};

use super::{Process, Stop, Work};
use crate::context::{Context, Event};
use crate::sabotage::Sabotage;
use crate::users::Credentials;

/// Small, so that watchers fall behind.
const LIMITS: Limits = Limits {
    queue_responses: 6,
    queue_bytes: 4096,
    queue_replies: 16,
    catchup_revisions: 7,
    catchup_bytes: 600,
    catchup_watchers: 2,
    recent_revisions: 10,
    recent_bytes: 2000,
};
/// Bytes of responses that a connection takes at once.
const TAKEN_BYTES: usize = 500;
/// What a watcher is told that may not watch.
pub const NOT_PERMITTED: &str = "not permitted";
const PROGRESS_INTERVAL: Duration = Duration::from_secs(3);
/// Which response is lost by a member that is broken that way.
const DROPPED_EVERY: u64 = 40;

/// The connection of a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose.
    pub watcher: usize,
    /// Counts its connections.
    pub number: u32,
}

struct Stream {
    session: Session,
    /// Whether it is about to be polled.
    due: bool,
    /// Nothing arrives before this.
    arrived: Duration,
}

/// The watches of a process.
pub struct Watches {
    hub: Hub,
    streams: BTreeMap<StreamId, Stream>,
    sent: u64,
}

impl Watches {
    /// Watches on a store at `revision` with history from `compacted`.
    pub fn new(revision: i64, compacted: i64) -> Watches {
        Watches {
            hub: Hub::new(revision, compacted, LIMITS),
            streams: BTreeMap::new(),
            sent: 0,
        }
    }
}

impl Process {
    /// A watcher connects. What it may see is decided here once.
    pub fn watch(
        &mut self,
        session: Session,
        credentials: &Credentials,
        request: &WatchCreateRequest,
        cx: &mut Context,
    ) {
        let now = self.time(cx);
        let permitted = self.check_watch(credentials, (&request.key, &request.range_end), cx);
        let hub = &mut self.watches.hub;
        let id = hub.open_stream(now, PROGRESS_INTERVAL);
        match permitted {
            Ok(()) => drop(hub.create(id, request)),
            Err(_) => hub.refuse(id, NOT_PERMITTED),
        }
        let stream = Stream {
            session,
            due: false,
            arrived: cx.now,
        };
        self.watches.streams.insert(id, stream);
        self.wake_streams(cx);
    }

    /// A watcher asks how far it is.
    pub fn watch_progress(&mut self, session: Session, cx: &mut Context) {
        let streams = &self.watches.streams;
        let found = streams.iter().find(|(_, stream)| stream.session == session);
        if let Some((&id, _)) = found {
            self.watches.hub.request_progress(id);
            self.wake_streams(cx);
        }
    }

    pub(super) fn publish(&mut self, events: Vec<(i64, Arc<[Change]>)>, cx: &mut Context) {
        for (revision, events) in events {
            let events = RevisionEvents::new(revision, events);
            self.watches.hub.publish(Arc::new(events));
        }
        self.wake_streams(cx);
    }

    pub(super) fn history_compacted(&mut self, revision: i64, cx: &mut Context) {
        self.watches.hub.compact(revision);
        self.wake_streams(cx);
    }

    pub(super) fn history_restored(&mut self, revision: i64, compacted: i64, cx: &mut Context) {
        self.watches.hub.restore(revision, compacted);
        self.wake_streams(cx);
    }

    pub(super) fn tell_progress(&mut self, cx: &mut Context) {
        let now = self.time(cx);
        self.watches.hub.handle_timeout(now);
        self.wake_streams(cx);
    }

    fn wake_streams(&mut self, cx: &mut Context) {
        let mut woken = Vec::new();
        self.watches.hub.drain_woken(&mut woken);
        for id in woken {
            self.poll_later(id, cx);
        }
    }

    /// Most clients read at once, some take their time.
    fn poll_later(&mut self, id: StreamId, cx: &mut Context) {
        let Some(stream) = self.watches.streams.get_mut(&id) else {
            return;
        };
        if stream.due {
            return;
        }
        stream.due = true;
        let watcher = stream.session.watcher;
        let delay = match (watcher % 3, cx.rng.u8(..4)) {
            (0, 0) => cx.between_us(1_000, 900_000),
            _ => cx.between_us(10, 500),
        };
        self.work_after(delay, Work::Watch(id), cx);
    }

    /// What a stream has goes to its watcher; history is read for it.
    pub(super) fn poll_watch(&mut self, id: StreamId, cx: &mut Context) -> Result<(), Stop> {
        let Some(stream) = self.watches.streams.get_mut(&id) else {
            return Ok(());
        };
        stream.due = false;
        match self.watches.hub.poll(id, TAKEN_BYTES) {
            Poll::Idle => return Ok(()),
            Poll::Catchup(job) => {
                let caught = job
                    .run(&self.reader.view())
                    .map_err(|error| Stop::disk("history cannot be read", error))?;
                self.watches.hub.complete_catchup(caught);
            }
            Poll::Responses(responses) => {
                for response in responses {
                    self.watches.sent += 1;
                    let dropped = self.watches.sent.is_multiple_of(DROPPED_EVERY);
                    if dropped && self.is_broken(cx, Sabotage::DropWatchEvent) {
                        continue;
                    }
                    let origin = Origin::default();
                    let mut bytes = Vec::with_capacity(response.encoded_len(&origin));
                    response.encode(&origin, &mut bytes);
                    self.send_to_watcher(id, bytes, cx);
                }
            }
        }
        self.poll_later(id, cx);
        self.wake_streams(cx);
        Ok(())
    }

    fn send_to_watcher(&mut self, id: StreamId, bytes: Vec<u8>, cx: &mut Context) {
        let Some(stream) = self.watches.streams.get_mut(&id) else {
            return;
        };
        // A connection keeps the order.
        stream.arrived = stream.arrived.max(cx.now + cx.network.delay(&mut cx.rng));
        let event = Event::Watched {
            session: stream.session,
            bytes: bytes.into(),
        };
        cx.queue.push(stream.arrived, event);
    }

    /// All watchers see their connections break.
    pub(super) fn hang_up_on_watchers(&mut self, cx: &mut Context) {
        let streams = std::mem::take(&mut self.watches.streams);
        for stream in streams.into_values() {
            let at = stream.arrived.max(cx.now + cx.network.delay(&mut cx.rng));
            let session = stream.session;
            cx.queue.push(at, Event::WatchBroken { session });
        }
    }
}
