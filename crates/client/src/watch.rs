//! Watches on one stream, which is opened again when the connection breaks.
//!
//! Each watch remembers the first revision that its owner has not been given yet, so that a new
//! stream continues where the old one broke: nothing is missed and nothing comes twice. A watch
//! that the server ends is not begun again.
//!
//! A watcher is read by whoever wants its events; no task runs for it. If nobody reads, the
//! stream's window fills up (4 MiB), and the server keeps what comes then.

use std::collections::VecDeque;
use std::time::Duration;

use retcd_proto::etcdserverpb::watch_client::WatchClient;
use retcd_proto::etcdserverpb::watch_request::RequestUnion;
use retcd_proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Streaming};

use crate::client::{Client, Route};
use crate::error::{Error, NO_LEADER, answer_text};
use crate::retry::Failure;
use crate::stream::with_leader;

/// The pause before a broken stream is opened again.
const RESUME_PAUSE: Duration = Duration::from_millis(100);
/// Responses for all watches carry this id.
const ALL_WATCHES: i64 = -1;

/// A watch of a [`Watcher`]; stays the same when the stream is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatchId(u64);

/// What becomes of watches when a member says that it knows of no leader: it cannot tell whether
/// there is anything new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutLeader {
    /// They go on at another member, or at this one when it has a leader.
    #[default]
    Resume,
    /// They end with [`WatchError::Stream`].
    End,
}

/// What a [`Watcher`] tells.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// The server has begun the watch; only the first time.
    Created(WatchId, WatchResponse),
    /// Changes, all of them complete revisions; or, without changes, how far the watch has come:
    /// its header's revision.
    Response(WatchId, WatchResponse),
    /// The watch has ended.
    Ended {
        /// Which.
        watch: WatchId,
        /// Why.
        error: WatchError,
        /// What the server said last, if it ended the watch.
        response: WatchResponse,
    },
}

/// Why a watch ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// What was to be told next is forgotten.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted {
        /// The oldest revision from which a watch can go on.
        compact_revision: i64,
    },
    /// The server did not begin the watch.
    #[error("{reason}")]
    Refused {
        /// Why not.
        reason: String,
    },
    /// The server ended the watch.
    #[error("{}", answer_text(Code::FailedPrecondition, reason))]
    Canceled {
        /// Why.
        reason: String,
    },
    /// The server refused the stream.
    #[error(transparent)]
    Stream(#[from] Error),
}

struct Watch {
    id: WatchId,
    /// Says always where to go on.
    request: WatchCreateRequest,
    /// The server's name for it on the open stream, once that has begun it.
    server_id: Option<i64>,
    /// Whether its owner has heard that it was begun.
    is_told: bool,
    /// Whether nobody wants it any more; it is taken away when the server has begun it.
    is_unwanted: bool,
    /// The first fragments of a response.
    fragments: Option<WatchResponse>,
}

struct Open {
    requests: mpsc::UnboundedSender<WatchRequest>,
    responses: Streaming<WatchResponse>,
    route: Route,
}

/// Watches that share a stream.
pub struct Watcher {
    client: Client,
    without_leader: WithoutLeader,
    watches: Vec<Watch>,
    last_id: u64,
    /// Whether progress was asked for and not told yet. A stream that opens meanwhile asks anew.
    wants_progress: bool,
    /// Members that refused in a row only because they are learners.
    learners: usize,
    /// Whether the stream has a new token, because the last one was refused.
    has_new_login: bool,
    open: Option<Open>,
    /// When a broken stream is opened again.
    resume_at: Option<Instant>,
    /// What has come and was not taken yet.
    events: VecDeque<WatchEvent>,
}

impl Client {
    /// A watcher without watches; see [`Watcher`].
    pub fn watcher(&self, without_leader: WithoutLeader) -> Watcher {
        Watcher {
            // How long events are waited for is a matter of whoever reads them.
            client: self.without_deadline(),
            without_leader,
            watches: Vec::new(),
            last_id: 0,
            wants_progress: false,
            learners: 0,
            has_new_login: false,
            open: None,
            resume_at: None,
            events: VecDeque::new(),
        }
    }

    /// One watch, on a stream of its own, that goes on at another member when one has no leader.
    pub fn watch(&self, request: WatchCreateRequest) -> SingleWatch {
        let mut watcher = self.watcher(WithoutLeader::Resume);
        watcher.add(request);
        SingleWatch(watcher)
    }
}

/// One watch; see [`Client::watch`].
pub struct SingleWatch(Watcher);

impl SingleWatch {
    /// Waits for the next changes, or for how far the watch has come: see [`WatchEvent::Response`].
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// The watch has ended. What follows is [`WatchError::Canceled`].
    pub async fn next(&mut self) -> Result<WatchResponse, WatchError> {
        loop {
            match self.0.next().await {
                Some(WatchEvent::Created(..)) => {}
                Some(WatchEvent::Response(_, response)) => return Ok(response),
                Some(WatchEvent::Ended { error, .. }) => return Err(error),
                None => {
                    let reason = "etcdserver: watch canceled".to_owned();
                    return Err(WatchError::Canceled { reason });
                }
            }
        }
    }
}

impl Watcher {
    /// Begins a further watch. Its events come out of [`Watcher::next`]. The server chooses its own
    /// ids: one in the request has no effect.
    pub fn add(&mut self, mut request: WatchCreateRequest) -> WatchId {
        self.client.namespace.enter_watch(&mut request);
        request.watch_id = 0;
        self.last_id += 1;
        let watch = Watch {
            id: WatchId(self.last_id),
            request,
            server_id: None,
            is_told: false,
            is_unwanted: false,
            fragments: None,
        };
        self.send(create(&watch));
        let id = watch.id;
        self.watches.push(watch);
        id
    }

    /// Ends a watch. No more events of it come out of [`Watcher::next`]; of one that is not there,
    /// nothing happens.
    pub fn cancel(&mut self, id: WatchId) {
        self.events.retain(|event| event.watch() != id);
        let Some(at) = self.watches.iter().position(|watch| watch.id == id) else {
            return;
        };
        match self.watches[at].server_id {
            Some(server_id) => {
                self.watches.remove(at);
                self.send(cancel(server_id));
            }
            // The server's next answers are told apart by their order.
            None if self.open.is_some() => self.watches[at].is_unwanted = true,
            None => drop(self.watches.remove(at)),
        }
    }

    /// Asks the server how far the watches have come, if there are any: each gets a response
    /// without changes.
    pub fn request_progress(&mut self) {
        self.wants_progress = !self.watches.is_empty();
        if self.wants_progress {
            self.send(progress());
        }
    }

    /// Whether there is nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.watches.iter().all(|watch| watch.is_unwanted)
    }

    /// Sends a request if the stream is open. A stream that is about to open begins with all that
    /// is wanted.
    fn send(&mut self, request: WatchRequest) {
        if let Some(open) = &self.open
            && open.requests.send(request).is_err()
        {
            self.open = None;
        }
    }

    /// Waits for what comes next; none if there is no watch. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.is_empty() {
                return None;
            }
            self.advance().await;
        }
    }

    /// Opens the stream, or takes one response from it.
    async fn advance(&mut self) {
        if let Some(at) = self.resume_at {
            tokio::time::sleep_until(at).await;
            self.resume_at = None;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => match self.open_stream().await {
                Ok(open) => {
                    self.open = Some(open);
                    return;
                }
                Err((error, route)) => return self.handle_failure(error, route),
            },
        };
        let error = match open.responses.message().await {
            Ok(Some(response)) => {
                self.learners = 0;
                return self.handle_response(response);
            }
            Ok(None) => Error::Broken {
                code: Code::Unknown,
                message: "the server closed the stream".to_owned(),
            },
            Err(status) => status.into(),
        };
        let route = self.open.take().map(|open| open.route);
        self.handle_failure(error, route);
    }

    /// Opens a stream that begins all watches, and asks for their progress if that is wanted.
    async fn open_stream(&mut self) -> Result<Open, (Error, Option<Route>)> {
        let route = self.client.route().await.map_err(|error| (error, None))?;
        self.watches.retain(|watch| !watch.is_unwanted);
        let (requests, receiver) = mpsc::unbounded_channel();
        let send = |request| {
            requests.send(request).expect("the receiver is here");
        };
        for watch in &mut self.watches {
            watch.server_id = None;
            watch.fragments = None;
            send(create(watch));
        }
        if self.wants_progress {
            send(progress());
        }
        let stub = WatchClient::new(route.service());
        let mut stub = stub.max_decoding_message_size(self.client.shared.config.response_bytes_max);
        let request = with_leader(UnboundedReceiverStream::new(receiver));
        match stub.watch(request).await {
            Ok(response) => Ok(Open {
                requests,
                responses: response.into_inner(),
                route,
            }),
            Err(status) => Err((status.into(), Some(route))),
        }
    }

    /// A stream that broke is opened again, one that was refused ends its watches.
    fn handle_failure(&mut self, error: Error, route: Option<Route>) {
        if let Some(route) = &route {
            self.client.leave(route, &error);
        }
        if Failure::of(&error) == Failure::Learner && self.learners + 1 < self.client.endpoints() {
            self.learners += 1;
            return;
        }
        if self.is_broken(&error) || self.logs_in_again(&error) {
            self.resume_at = Some(Instant::now() + RESUME_PAUSE);
            return;
        }
        for watch in self.watches.drain(..).filter(|watch| !watch.is_unwanted) {
            self.events.push_back(WatchEvent::Ended {
                watch: watch.id,
                error: WatchError::Stream(error.clone()),
                response: WatchResponse::default(),
            });
        }
    }

    /// Whether nothing is wrong but the token, and the last one was not new.
    fn logs_in_again(&mut self, error: &Error) -> bool {
        let is_outdated = Failure::of(error) == Failure::LoginOutdated;
        is_outdated
            && self.client.may_reopen(error)
            && !std::mem::replace(&mut self.has_new_login, true)
    }

    fn is_broken(&self, error: &Error) -> bool {
        match error {
            Error::Unsent { .. } | Error::Broken { .. } => true,
            Error::Refused { message, .. } if message == NO_LEADER => {
                self.without_leader == WithoutLeader::Resume
            }
            Error::Refused { code, .. } => matches!(code, Code::Unavailable | Code::Internal),
            _ => false,
        }
    }

    fn handle_response(&mut self, response: WatchResponse) {
        if response.created {
            return self.handle_created(response);
        }
        if response.watch_id == ALL_WATCHES {
            self.wants_progress = false;
            // Those that are not begun yet may have to begin with older revisions.
            let begun = |watch: &&mut Watch| watch.server_id.is_some();
            for watch in self.watches.iter_mut().filter(begun) {
                deliver(&mut self.events, watch, response.clone());
            }
            return;
        }
        let has_id = |watch: &Watch| watch.server_id == Some(response.watch_id);
        let Some(at) = self.watches.iter().position(has_id) else {
            // A watch that was cancelled here, of which the server does not know yet.
            return;
        };
        if response.canceled {
            let watch = self.watches.remove(at).id;
            let error = match response.compact_revision {
                0 => WatchError::Canceled {
                    reason: response.cancel_reason.clone(),
                },
                compact_revision => WatchError::Compacted { compact_revision },
            };
            self.events.push_back(WatchEvent::Ended {
                watch,
                error,
                response,
            });
            return;
        }
        let watch = &mut self.watches[at];
        let Some(mut response) = watch.put_together(response) else {
            return;
        };
        self.client.namespace.leave_events(&mut response.events);
        deliver(&mut self.events, watch, response);
    }

    /// The server answers in the order of the requests.
    fn handle_created(&mut self, response: WatchResponse) {
        let is_next = |watch: &Watch| watch.server_id.is_none();
        let Some(at) = self.watches.iter().position(is_next) else {
            return;
        };
        if self.watches[at].is_unwanted {
            self.watches.remove(at);
            if !response.canceled {
                self.send(cancel(response.watch_id));
            }
            return;
        }
        if response.canceled {
            let refusal = refusal(&response.cancel_reason);
            if self.logs_in_again(&refusal)
                && let Some(open) = self.open.take()
            {
                self.client.leave(&open.route, &refusal);
                return;
            }
            let watch = self.watches.remove(at).id;
            let error = WatchError::Refused {
                reason: response.cancel_reason.clone(),
            };
            self.events.push_back(WatchEvent::Ended {
                watch,
                error,
                response,
            });
            return;
        }
        self.has_new_login = false;
        let watch = &mut self.watches[at];
        watch.server_id = Some(response.watch_id);
        if watch.request.start_revision == 0
            && let Some(header) = &response.header
        {
            watch.request.start_revision = header.revision + 1;
        }
        if !watch.is_told {
            watch.is_told = true;
            let event = WatchEvent::Created(watch.id, response);
            self.events.push_back(event);
        }
    }
}

impl WatchEvent {
    fn watch(&self) -> WatchId {
        match self {
            WatchEvent::Created(watch, _) | WatchEvent::Response(watch, _) => *watch,
            WatchEvent::Ended { watch, .. } => *watch,
        }
    }
}

impl Watch {
    /// A response, with the fragments that came before it; none if there are more to come. Where a
    /// stream breaks between two fragments, the whole response comes again.
    fn put_together(&mut self, mut response: WatchResponse) -> Option<WatchResponse> {
        if let Some(mut whole) = self.fragments.take() {
            whole.events.append(&mut response.events);
            response.events = whole.events;
        }
        if response.fragment {
            self.fragments = Some(response);
            return None;
        }
        Some(response)
    }
}

/// Hands a response over, and remembers what comes after it.
fn deliver(events: &mut VecDeque<WatchEvent>, watch: &mut Watch, response: WatchResponse) {
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    let last_change = response.events.last().and_then(|event| event.kv.as_ref());
    if let Some(kv) = last_change {
        watch.request.start_revision = kv.mod_revision + 1;
    } else if revision != 0 {
        watch.request.start_revision = revision + 1;
    }
    if !watch.is_unwanted {
        events.push_back(WatchEvent::Response(watch.id, response));
    }
}

/// The reason of a refused watch, which is the text of a status with or without its code.
fn refusal(reason: &str) -> Error {
    let message = reason
        .split_once(" desc = ")
        .map_or(reason, |(_, text)| text);
    Error::Refused {
        code: Code::FailedPrecondition,
        message: message.to_owned(),
    }
}

fn create(watch: &Watch) -> WatchRequest {
    WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(watch.request.clone())),
    }
}

fn cancel(watch_id: i64) -> WatchRequest {
    WatchRequest {
        request_union: Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })),
    }
}

fn progress() -> WatchRequest {
    WatchRequest {
        request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
    }
}
