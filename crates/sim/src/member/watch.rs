//! Watches: a task for every watcher that is connected, which serves the member's own stream.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use retcd_member::access::Credentials;
use retcd_member::watch::WatchStream;
use retcd_member::{Clock, Error, Handle};
use retcd_proto::etcdserverpb::watch_request::RequestUnion;
use retcd_proto::etcdserverpb::{WatchCreateRequest, WatchProgressRequest, WatchRequest};
use retcd_state::watch::{Limits, Response};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Process;
use super::executor::TaskId;
use super::outbox::{Outbox, Sent};
use super::time::Time;
use crate::context::{Context, Event};
use crate::sabotage::Sabotage;
use crate::users;

/// Small, so that watchers fall behind.
pub const LIMITS: Limits = Limits {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    /// The watcher, by its number.
    pub watcher: usize,
    /// Counts its connections.
    pub number: u32,
}

/// What became of the request to watch.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What the client says that it is.
    pub credentials: users::Credentials,
    /// The keys.
    pub interval: (bytes::Bytes, bytes::Bytes),
    /// The last entry that was applied then.
    pub judged_at: u64,
    /// Whether it is refused.
    pub is_refused: bool,
    /// The newest revision that the member had acknowledged when it was asked.
    pub acknowledged: i64,
    /// The revision that the watch begins behind, as it says.
    pub revision: i64,
}

/// A watcher's stream, as the process knows it.
pub struct Stream {
    task: TaskId,
    requests: UnboundedSender<WatchRequest>,
    /// Nothing arrives before this.
    arrived: Duration,
}

/// A watcher's stream, as its task knows it.
struct Serving {
    handle: Rc<Handle>,
    time: Time,
    outbox: Outbox,
    session: Session,
    credentials: Credentials,
    /// What was acknowledged by now.
    acknowledged: Rc<Cell<i64>>,
    requests: UnboundedReceiver<WatchRequest>,
    /// How long the watcher takes for a response.
    pauses_us: Vec<u64>,
}

impl Process {
    /// A watcher connects. What it may see is decided here once.
    pub fn watch(
        &mut self,
        session: Session,
        credentials: &users::Credentials,
        request: &WatchCreateRequest,
        cx: &mut Context,
    ) {
        if !self.is_ready {
            let delay = cx.network.delay(&mut cx.rng);
            return cx.after(delay, Event::WatchBroken { session });
        }
        self.wake_up(cx);
        let before = self.streams.keys().copied();
        let before: Vec<Session> = before
            .filter(|other| other.watcher == session.watcher)
            .collect();
        if before.iter().any(|other| other.number > session.number) {
            // It was overtaken by the request that followed it.
            return cx.after(Duration::ZERO, Event::WatchBroken { session });
        }
        for stream in before.iter().filter_map(|other| self.streams.remove(other)) {
            self.executor.cancel(stream.task);
        }
        let (requests, receiver) = unbounded_channel();
        let serving = Serving {
            handle: Rc::clone(self.handle(session.watcher)),
            time: self.time.clone(),
            outbox: self.outbox.clone(),
            session,
            credentials: credentials.shown(),
            acknowledged: Rc::clone(&self.acknowledged),
            requests: receiver,
            pauses_us: (0..8).map(|_| pause_us(session.watcher, cx)).collect(),
        };
        let (credentials, request) = (credentials.clone(), request.clone());
        let task = self.executor.spawn(Box::pin(async move {
            // Who cannot be served any more sees the connection break with the process.
            let _ = serving.run(credentials, request).await;
        }));
        let arrived = cx.now;
        let stream = Stream {
            task,
            requests,
            arrived,
        };
        self.streams.insert(session, stream);
        self.settle(cx);
    }

    /// A watcher asks how far it is.
    pub fn watch_progress(&mut self, session: Session, cx: &mut Context) {
        self.wake_up(cx);
        if let Some(stream) = self.streams.get(&session) {
            let request_union = RequestUnion::ProgressRequest(WatchProgressRequest {});
            let _ = stream.requests.send(WatchRequest {
                request_union: Some(request_union),
            });
        }
        self.settle(cx);
    }

    /// What was found out about a watch.
    pub(super) fn watch_opened(&self, opened: &Opened, cx: &mut Context) {
        let verdict = cx.log.watch_opened(self.id, opened);
        cx.check(verdict);
    }

    pub(super) fn send_to_watcher(
        &mut self,
        session: Session,
        bytes: bytes::Bytes,
        cx: &mut Context,
    ) {
        self.watched += 1;
        let is_dropped = self.watched.is_multiple_of(DROPPED_EVERY);
        if is_dropped && self.is_broken(Sabotage::DropWatchEvent) {
            return;
        }
        let Some(stream) = self.streams.get_mut(&session) else {
            return;
        };
        // A connection keeps the order.
        stream.arrived = stream.arrived.max(cx.now + cx.network.delay(&mut cx.rng));
        cx.queue
            .push(stream.arrived, Event::Watched { session, bytes });
    }

    /// All watchers see their connections break.
    pub(super) fn hang_up_on_watchers(&mut self, cx: &mut Context) {
        for (session, stream) in std::mem::take(&mut self.streams) {
            let at = stream.arrived.max(cx.now + cx.network.delay(&mut cx.rng));
            cx.queue.push(at, Event::WatchBroken { session });
        }
    }
}

/// Most clients read at once, some take their time.
fn pause_us(watcher: usize, cx: &mut Context) -> u64 {
    match (watcher % 3, cx.rng.u8(..4)) {
        (0, 0) => cx.rng.u64(1_000..900_000),
        _ => cx.rng.u64(10..500),
    }
}

impl Serving {
    async fn run(
        mut self,
        credentials: users::Credentials,
        request: WatchCreateRequest,
    ) -> Result<(), Error> {
        let stream = self.handle.watch.open(PROGRESS_INTERVAL);
        let acknowledged = self.acknowledged.get();
        let interval = (request.key.clone(), request.range_end.clone());
        let create = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(request)),
        };
        self.handle_request(&stream, create).await;
        let mut unopened = Some(Opened {
            credentials,
            interval,
            judged_at: self.handle.shared().progress.applied(),
            is_refused: false,
            acknowledged,
            revision: 0,
        });
        let mut taken = 0;
        loop {
            let request = {
                let woken = pin!(stream.woken());
                let request = pin!(self.requests.recv());
                match stream.accepts_requests() {
                    true => match select(woken, request).await {
                        Either::Left(((), _)) => None,
                        Either::Right((request, _)) => Some(request),
                    },
                    false => {
                        woken.await;
                        None
                    }
                }
            };
            match request {
                Some(None) => return Ok(()),
                Some(Some(request)) => self.handle_request(&stream, request).await,
                None => {
                    while let Some(responses) = stream.next(TAKEN_BYTES).await? {
                        self.send(&responses, &mut unopened);
                        let pause = self.pauses_us[taken % self.pauses_us.len()];
                        taken += 1;
                        let clock: &dyn Clock = &self.time;
                        clock.sleep(Duration::from_micros(pause)).await;
                    }
                }
            }
        }
    }

    async fn handle_request(&self, stream: &WatchStream, request: WatchRequest) {
        let refusal = |_: &Error| NOT_PERMITTED;
        stream.handle(&self.credentials, request, refusal).await;
    }

    fn send(&self, responses: &[Response], unopened: &mut Option<Opened>) {
        let origin = self.handle.shared().origin();
        for response in responses {
            let mut bytes = Vec::with_capacity(response.encoded_len(&origin));
            response.encode(&origin, &mut bytes);
            let bytes = bytes::Bytes::from(bytes);
            if let Some(mut opened) = unopened.take() {
                let response = super::decode_response(&bytes);
                opened.is_refused = response.canceled && response.cancel_reason == NOT_PERMITTED;
                opened.revision = response.header.map_or(0, |header| header.revision);
                self.outbox.send(Sent::Opened(opened));
            }
            self.outbox.send(Sent::Watched {
                session: self.session,
                bytes,
            });
        }
    }
}
