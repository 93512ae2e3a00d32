//! Watches on one stream, which is opened again when the connection breaks.
//!
//! Each watch remembers the first revision that it has not shown yet, so that a new stream continues where the old one
//! broke. A watch that the server ends is not begun again.

use std::error::Error;
use std::time::Duration;

use retcd_proto::etcdserverpb::watch_request::RequestUnion;
use retcd_proto::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Streaming};

use super::super::session::Session;
use super::exec;
use crate::cli::{Arg, Exit};
use crate::client::{Client, ClientError, reason_text};
use crate::log;
use crate::print::{Reply, print_line};

/// The pause before a broken stream is opened again.
const RESUME_PAUSE: Duration = Duration::from_millis(100);
/// Requests that may wait for a stream to send them, besides one for each watch.
const QUEUED_REQUESTS: usize = 64;
/// Responses for all watches carry this id.
const ALL_WATCHES: i64 = -1;

/// One watch.
pub struct Watch {
    request: WatchCreateRequest,
    exec: Vec<Arg>,
    id: Option<i64>,
}

impl Watch {
    /// A watch that runs `exec`, if it is not empty, for each change.
    pub fn new(request: WatchCreateRequest, exec: Vec<Arg>) -> Watch {
        Watch {
            request,
            exec,
            id: None,
        }
    }

    #[cfg(test)]
    pub fn request(&self) -> &WatchCreateRequest {
        &self.request
    }

    #[cfg(test)]
    pub fn exec(&self) -> &[Arg] {
        &self.exec
    }
}

/// What came of waiting for the stream.
pub enum Outcome {
    /// The stream goes on.
    Going,
    /// A watch ended.
    Ended,
}

struct Open {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

/// All watches of a command.
pub struct Stream<'c> {
    client: &'c Client,
    watches: Vec<Watch>,
    /// Whether progress was asked for and not told yet. A stream that opens meanwhile asks anew.
    wants_progress: bool,
    /// Members that refused in a row only because they are learners.
    learners: usize,
    open: Option<Open>,
}

impl<'c> Stream<'c> {
    /// No watches yet.
    pub fn new(client: &'c Client) -> Stream<'c> {
        Stream {
            client,
            watches: Vec::new(),
            wants_progress: false,
            learners: 0,
            open: None,
        }
    }

    /// Whether there is something to wait for.
    pub fn has_watches(&self) -> bool {
        !self.watches.is_empty()
    }

    /// Begins a further watch.
    pub async fn add(&mut self, watch: Watch) {
        let request = create(&watch);
        self.watches.push(watch);
        self.send(request).await;
    }

    /// Asks the server how far the watches have come, if there are any.
    pub async fn request_progress(&mut self) {
        self.wants_progress = self.has_watches();
        if self.wants_progress {
            self.send(progress()).await;
        }
    }

    /// Sends a request if the stream is open. A stream that is about to open begins with all that is
    /// wanted.
    async fn send(&mut self, request: WatchRequest) {
        if let Some(open) = &self.open
            && open.requests.send(request).await.is_err()
        {
            self.open = None;
        }
    }

    /// Waits for the next response and shows it. Dropping the future while it waits loses nothing.
    ///
    /// # Errors
    /// It cannot be printed, or the command that it runs fails.
    pub async fn next(&mut self, session: &Session) -> Result<Outcome, Exit> {
        if self.open.is_none() {
            match open(self.client, &mut self.watches, self.wants_progress).await {
                Ok(opened) => self.open = Some(opened),
                Err(error) => return self.handle_failure(session, &error).await,
            }
        }
        let open = self.open.as_mut().expect("opened above");
        match open.responses.message().await {
            Ok(Some(response)) => {
                self.learners = 0;
                self.handle_response(session, response)
            }
            Ok(None) => {
                self.handle_failure(session, &ClientError::Incomplete("watch response"))
                    .await
            }
            Err(status) => self.handle_failure(session, &status.into()).await,
        }
    }

    /// A stream that broke is opened again, one that was refused ends its watches.
    async fn handle_failure(
        &mut self,
        session: &Session,
        error: &ClientError,
    ) -> Result<Outcome, Exit> {
        self.open = None;
        if self.client.is_learner_among_others(error, self.learners) {
            self.learners += 1;
            self.client.move_on();
            return Ok(Outcome::Going);
        }
        let refused = match error {
            ClientError::Status(status) => {
                let broken = match status.code() {
                    Code::Unavailable | Code::Internal => true,
                    // No answer, but what the transport says of a stream that broke off.
                    Code::Unknown => status.source().is_some(),
                    _ => false,
                };
                !broken || error.is_answer("etcdserver: no leader")
            }
            _ => false,
        };
        if refused {
            for _ in self.watches.drain(..) {
                show_end(
                    session,
                    &WatchResponse {
                        canceled: true,
                        ..Default::default()
                    },
                    &error.to_string(),
                )?;
            }
            return Ok(Outcome::Ended);
        }
        self.client.move_on();
        self.client.forget_login();
        tokio::time::sleep(RESUME_PAUSE).await;
        Ok(Outcome::Going)
    }

    fn handle_response(
        &mut self,
        session: &Session,
        response: WatchResponse,
    ) -> Result<Outcome, Exit> {
        if response.created {
            return self.handle_created(session, &response);
        }
        if response.watch_id == ALL_WATCHES {
            self.wants_progress = false;
            for watch in &mut self.watches {
                show(session, watch, &response)?;
            }
            return Ok(Outcome::Going);
        }
        let Some(index) = self
            .watches
            .iter()
            .position(|watch| watch.id == Some(response.watch_id))
        else {
            return Ok(Outcome::Going);
        };
        if response.canceled {
            let watch = self.watches.remove(index);
            drop(watch);
            let reason = match response.compact_revision {
                0 => reason_text(Code::FailedPrecondition, &response.cancel_reason),
                _ => "etcdserver: mvcc: required revision has been compacted".to_owned(),
            };
            show_end(session, &response, &reason)?;
            return Ok(Outcome::Ended);
        }
        show(session, &mut self.watches[index], &response)?;
        Ok(Outcome::Going)
    }

    /// The server answers in the order of the requests.
    fn handle_created(
        &mut self,
        session: &Session,
        response: &WatchResponse,
    ) -> Result<Outcome, Exit> {
        let Some(index) = self.watches.iter().position(|watch| watch.id.is_none()) else {
            return Ok(Outcome::Going);
        };
        if response.canceled {
            self.watches.remove(index);
            let shown = WatchResponse {
                canceled: true,
                ..Default::default()
            };
            show_end(session, &shown, &response.cancel_reason)?;
            return Ok(Outcome::Ended);
        }
        let watch = &mut self.watches[index];
        watch.id = Some(response.watch_id);
        if watch.request.start_revision == 0 {
            watch.request.start_revision = response.header.map_or(0, |header| header.revision + 1);
        }
        Ok(Outcome::Going)
    }
}

fn create(watch: &Watch) -> WatchRequest {
    WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(watch.request.clone())),
    }
}

fn progress() -> WatchRequest {
    WatchRequest {
        request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
    }
}

/// Opens a stream that begins all watches, and asks for their progress if that is wanted.
async fn open(
    client: &Client,
    watches: &mut [Watch],
    wants_progress: bool,
) -> Result<Open, ClientError> {
    let (requests, receiver) = mpsc::channel(watches.len() + QUEUED_REQUESTS);
    for watch in watches {
        watch.id = None;
        requests
            .try_send(create(watch))
            .expect("the channel has room for every watch");
    }
    if wants_progress {
        requests
            .try_send(progress())
            .expect("the channel has room for more than the watches");
    }
    let mut request = Request::new(ReceiverStream::new(receiver));
    // A member without a leader shall say so instead of staying silent.
    request
        .metadata_mut()
        .insert("hasleader", MetadataValue::from_static("true"));
    let responses = client.watch().await?.watch(request).await?.into_inner();
    Ok(Open {
        requests,
        responses,
    })
}

/// Shows a response and remembers what comes after it.
fn show(session: &Session, watch: &mut Watch, response: &WatchResponse) -> Result<(), Exit> {
    let revision = response.header.map_or(0, |header| header.revision);
    if response.events.is_empty() && revision != 0 {
        print_line(&format!("progress notify: {revision}"))?;
        watch.request.start_revision = revision + 1;
    }
    session.print(&Reply::Watch(response))?;
    for event in &response.events {
        exec::run(&watch.exec, revision, event)?;
    }
    if let Some(kv) = response.events.last().and_then(|event| event.kv.as_ref()) {
        watch.request.start_revision = kv.mod_revision + 1;
    }
    Ok(())
}

fn show_end(session: &Session, response: &WatchResponse, reason: &str) -> Result<(), Exit> {
    log::tell(format_args!("watch was canceled ({reason})"));
    session.print(&Reply::Watch(response))
}
