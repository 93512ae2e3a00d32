//! Watches on a stream that is reopened when the connection breaks.
//!
//! Each watch keeps the first revision not yet delivered to the caller, and a new stream resumes
//! there: no event is lost or delivered twice. A watch that the server cancels is not resumed.
//!
//! No task reads the stream; the caller's polling does. If the caller does not poll, the stream's
//! flow control window fills up (4 MiB) and the server buffers further events.

use std::collections::VecDeque;
use std::time::Duration;

use retcd_proto::etcdserverpb::watch_client::WatchClient;
use retcd_proto::etcdserverpb::watch_request::RequestUnion;
use retcd_proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::time::Instant;
use tonic::Code;

use crate::client::Client;
use crate::error::{Error, NO_LEADER, answer_text};
use crate::retry::Failure;
use crate::stream::{Exchange, StreamFailure};

/// The pause before a broken stream is reopened.
const RESUME_PAUSE: Duration = Duration::from_millis(100);
/// The watch id in responses that concern all watches.
const ALL_WATCHES: i64 = -1;

/// Identifies a watch of a [`Watcher`], across reopened streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatchId(u64);

/// How to handle a member that has no leader, and so cannot tell whether there are new events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutLeader {
    /// Resume at another member, or at this one once it has a leader.
    #[default]
    Resume,
    /// End the watches with [`WatchError::Stream`].
    End,
}

/// An event of a [`Watcher`].
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// The server has created the watch; not repeated when it resumes.
    Created(WatchId, WatchResponse),
    /// Events of complete revisions; or, without events, a progress notification: all events up to
    /// the revision of the header have been delivered.
    Response(WatchId, WatchResponse),
    /// The watch has ended.
    Ended {
        /// The watch that ended.
        watch: WatchId,
        /// The reason.
        error: WatchError,
        /// The server's last response, if the server ended the watch.
        response: WatchResponse,
    },
}

/// Why a watch ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The next revision to deliver has been compacted.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted {
        /// The oldest revision from which a watch can start.
        compact_revision: i64,
    },
    /// The server rejected the watch.
    #[error("{reason}")]
    Refused {
        /// The server's reason.
        reason: String,
    },
    /// The server canceled the watch.
    #[error("{}", answer_text(Code::FailedPrecondition, reason))]
    Canceled {
        /// The server's reason.
        reason: String,
    },
    /// The server rejected the stream.
    #[error(transparent)]
    Stream(#[from] Error),
}

struct Watch {
    id: WatchId,
    /// Its start revision is updated with each delivery.
    request: WatchCreateRequest,
    /// The server's id on the open stream, once it has created the watch.
    server_id: Option<i64>,
    /// Whether the caller has been told that the watch was created.
    is_announced: bool,
    /// Whether the caller has canceled the watch before the server created it; it is canceled when
    /// created.
    is_canceled: bool,
    /// The fragments received so far of a response.
    fragments: Option<WatchResponse>,
}

/// Watches that share a stream.
pub struct Watcher {
    client: Client,
    without_leader: WithoutLeader,
    watches: Vec<Watch>,
    last_id: u64,
    /// Whether a progress request is unanswered. It is repeated on a reopened stream.
    wants_progress: bool,
    /// The number of consecutive rejections by learners.
    learners: usize,
    /// Whether the stream uses a new token, because the last one was rejected.
    has_new_login: bool,
    stream: Option<Exchange<WatchRequest, WatchResponse>>,
    /// When to reopen a broken stream.
    resume_at: Option<Instant>,
    /// Received events that have not been returned yet.
    events: VecDeque<WatchEvent>,
}

impl Client {
    /// Creates a watcher without watches; see [`Watcher`].
    pub fn watcher(&self, without_leader: WithoutLeader) -> Watcher {
        Watcher {
            // The deadline does not apply to waiting for events.
            client: self.without_deadline(),
            without_leader,
            watches: Vec::new(),
            last_id: 0,
            wants_progress: false,
            learners: 0,
            has_new_login: false,
            stream: None,
            resume_at: None,
            events: VecDeque::new(),
        }
    }

    /// Creates a watch with its own stream, which resumes at another member if one has no leader.
    pub fn watch(&self, request: WatchCreateRequest) -> SingleWatch {
        let mut watcher = self.watcher(WithoutLeader::Resume);
        watcher.add(request);
        SingleWatch(watcher)
    }
}

/// A watch with its own stream; see [`Client::watch`].
pub struct SingleWatch(Watcher);

impl SingleWatch {
    /// Waits for the next events or progress notification: see [`WatchEvent::Response`]. Cancel
    /// safe.
    ///
    /// # Errors
    /// The watch has ended. Further calls return [`WatchError::Canceled`].
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
    /// Adds a watch, whose events [`Watcher::next`] returns. The server assigns ids: a `watch_id`
    /// in the request has no effect.
    pub fn add(&mut self, mut request: WatchCreateRequest) -> WatchId {
        self.client.namespace.prefix_watch(&mut request);
        request.watch_id = 0;
        self.last_id += 1;
        let watch = Watch {
            id: WatchId(self.last_id),
            request,
            server_id: None,
            is_announced: false,
            is_canceled: false,
            fragments: None,
        };
        self.send(create(&watch));
        let id = watch.id;
        self.watches.push(watch);
        id
    }

    /// Cancels a watch. [`Watcher::next`] returns no further events of it. Does nothing for an
    /// unknown watch.
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
            // Creations are matched with their responses by order, so it must stay in the list.
            None if self.stream.is_some() => self.watches[at].is_canceled = true,
            None => drop(self.watches.remove(at)),
        }
    }

    /// Goes on with another client of the same cluster: the stream is reopened with it, and no event
    /// is lost or delivered twice.
    pub fn set_client(&mut self, client: &Client) {
        self.client = client.without_deadline();
        self.stream = None;
        self.resume_at = None;
    }

    /// Requests a progress notification for each watch, if there are any.
    pub fn request_progress(&mut self) {
        self.wants_progress = !self.watches.is_empty();
        if self.wants_progress {
            self.send(progress());
        }
    }

    /// Whether there is neither a watch nor an event left.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.watches.iter().all(|watch| watch.is_canceled)
    }

    /// Sends a request if there is a stream. A stream that is opened later starts with all pending
    /// requests.
    fn send(&mut self, request: WatchRequest) {
        if let Some(stream) = &self.stream
            && !stream.send(request)
        {
            self.stream = None;
        }
    }

    /// Waits for the next event; `None` if there is no watch. Cancel safe.
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

    /// Receives one response, on a stream that is opened if there is none.
    async fn advance(&mut self) {
        if let Some(at) = self.resume_at {
            tokio::time::sleep_until(at).await;
            self.resume_at = None;
        }
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let opening = self.open_stream();
                self.stream.insert(opening)
            }
        };
        match stream.next().await {
            Ok(response) => {
                self.learners = 0;
                self.handle_response(response);
            }
            Err(failure) => {
                self.stream = None;
                self.handle_failure(failure);
            }
        }
    }

    /// Opens a stream, creates all watches on it, and repeats a pending progress request.
    fn open_stream(&mut self) -> Exchange<WatchRequest, WatchResponse> {
        self.watches.retain(|watch| !watch.is_canceled);
        for watch in &mut self.watches {
            watch.server_id = None;
            watch.fragments = None;
        }
        let creations = self.watches.iter().map(create);
        let progress = self.wants_progress.then(progress);
        let response_bytes_max = self.client.shared.config.response_bytes_max;
        let first = creations.chain(progress);
        Exchange::open(&self.client, first, move |service, requests| async move {
            let stub = WatchClient::new(service);
            let mut stub = stub.max_decoding_message_size(response_bytes_max);
            stub.watch(requests).await
        })
    }

    /// Reopens a broken stream; ends the watches of a rejected one.
    fn handle_failure(&mut self, failure: StreamFailure) {
        let StreamFailure { error, route } = failure;
        if let Some(route) = &route {
            self.client.leave(route, &error);
        }
        if Failure::of(&error) == Failure::Learner && self.learners + 1 < self.client.endpoints() {
            self.learners += 1;
            return;
        }
        if self.is_broken(&error) || self.authenticates_again(&error) {
            self.resume_at = Some(Instant::now() + RESUME_PAUSE);
            return;
        }
        for watch in self.watches.drain(..).filter(|watch| !watch.is_canceled) {
            self.events.push_back(WatchEvent::Ended {
                watch: watch.id,
                error: WatchError::Stream(error.clone()),
                response: WatchResponse::default(),
            });
        }
    }

    /// Whether only the token was rejected, and it was not a new one.
    fn authenticates_again(&mut self, error: &Error) -> bool {
        let is_outdated = Failure::of(error) == Failure::TokenOutdated;
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
            // Watches not yet created may start at older revisions.
            let begun = |watch: &&mut Watch| watch.server_id.is_some();
            for watch in self.watches.iter_mut().filter(begun) {
                deliver(&mut self.events, watch, response.clone());
            }
            return;
        }
        let has_id = |watch: &Watch| watch.server_id == Some(response.watch_id);
        let Some(at) = self.watches.iter().position(has_id) else {
            // A watch canceled here while the server's response was under way.
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
        let Some(mut response) = watch.assemble(response) else {
            return;
        };
        self.client.namespace.unprefix_events(&mut response.events);
        deliver(&mut self.events, watch, response);
    }

    /// The server responds in the order of the requests.
    fn handle_created(&mut self, response: WatchResponse) {
        let is_next = |watch: &Watch| watch.server_id.is_none();
        let Some(at) = self.watches.iter().position(is_next) else {
            return;
        };
        if self.watches[at].is_canceled {
            self.watches.remove(at);
            if !response.canceled {
                self.send(cancel(response.watch_id));
            }
            return;
        }
        if response.canceled {
            let refusal = refusal(&response.cancel_reason);
            if self.authenticates_again(&refusal)
                && let Some(route) = self.stream.take().and_then(Exchange::into_route)
            {
                self.client.leave(&route, &refusal);
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
        if !watch.is_announced {
            watch.is_announced = true;
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
    /// Assembles a fragmented response; `None` until the last fragment. If the stream breaks in
    /// between, the server sends the whole response again.
    fn assemble(&mut self, mut response: WatchResponse) -> Option<WatchResponse> {
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

/// Delivers a response, and advances the start revision past it.
fn deliver(events: &mut VecDeque<WatchEvent>, watch: &mut Watch, response: WatchResponse) {
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    let last_change = response.events.last().and_then(|event| event.kv.as_ref());
    if let Some(kv) = last_change {
        watch.request.start_revision = kv.mod_revision + 1;
    } else if revision >= watch.request.start_revision {
        // A watch may start in the future, which progress must not take back.
        watch.request.start_revision = revision + 1;
    }
    if !watch.is_canceled {
        events.push_back(WatchEvent::Response(watch.id, response));
    }
}

/// The error of a rejected watch. The reason is the text of a status, with or without its code.
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

#[cfg(test)]
mod tests {
    use retcd_proto::etcdserverpb::ResponseHeader;
    use retcd_proto::mvccpb::{Event, KeyValue};

    use super::*;

    /// The revision at which a watch from `start` resumes after a response at `revision`, with an
    /// event of each revision in `changes`.
    fn resumes_at(start: i64, revision: i64, changes: &[i64]) -> i64 {
        let mut watch = Watch {
            id: WatchId(1),
            request: WatchCreateRequest {
                start_revision: start,
                ..WatchCreateRequest::default()
            },
            server_id: Some(0),
            is_announced: true,
            is_canceled: false,
            fragments: None,
        };
        let event = |&mod_revision: &i64| Event {
            kv: Some(KeyValue {
                mod_revision,
                ..KeyValue::default()
            }),
            ..Event::default()
        };
        let response = WatchResponse {
            header: Some(ResponseHeader {
                revision,
                ..ResponseHeader::default()
            }),
            events: changes.iter().map(event).collect(),
            ..WatchResponse::default()
        };
        let mut events = VecDeque::new();
        deliver(&mut events, &mut watch, response.clone());
        assert_eq!(events, [WatchEvent::Response(WatchId(1), response)]);
        watch.request.start_revision
    }

    #[test]
    fn a_watch_resumes_after_what_it_has_delivered() {
        assert_eq!(resumes_at(3, 9, &[4, 7]), 8);
        assert_eq!(resumes_at(3, 9, &[]), 10);
        assert_eq!(resumes_at(9, 9, &[]), 10);
    }

    #[test]
    fn progress_does_not_take_back_a_watch_from_the_future() {
        assert_eq!(resumes_at(10, 9, &[]), 10);
        assert_eq!(resumes_at(100, 9, &[]), 100);
    }
}
