//! Opens a stream to a peer and reads its messages, and reconnects when it ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use retcd_proto::raftpb::Message;
use tokio::time::{Instant, sleep_until, timeout};

use super::codec::{CodecError, Decoder, StreamKind};
use super::headers::{self, RAFT_TO, SERVER_VERSION, hex_value};
use super::link::Link;
use super::node_sender::Refusal;
use super::persistent::{self, ExchangeError, Outgoing};
use super::reply::REMOVED_MEMBER;
use super::status::Status;
use super::transport::Shared;
use super::{IO_TIMEOUT, Mismatch};
use crate::config::url::Url;
use crate::log::{self, Hex, Text, Throttle};

/// Time between attempts to connect, as in etcd.
const REDIAL: Duration = Duration::from_millis(100);
/// The first version with both streams.
const STREAMS_SINCE: (u64, u64) = (2, 1);
/// Bytes of the body of an error.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Why a stream was not opened.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{0}")]
    Exchange(#[from] ExchangeError),
    #[error("unsupported stream type")]
    Unsupported,
    #[error("{REMOVED_MEMBER}")]
    Removed,
    #[error("peer {peer:x} failed to find local node {local:x}")]
    NotFound { peer: u64, local: u64 },
    #[error("{0}")]
    Mismatch(Mismatch),
    #[error("unhandled error {0:?} when precondition failed")]
    Precondition(String),
    #[error("unhandled http status {0}")]
    Status(u16),
}

/// Why a stream has ended.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("EOF")]
    Closed,
    #[error("i/o timeout")]
    Silent,
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Codec(#[from] CodecError),
    #[error("{0}")]
    Refused(Refusal),
}

/// Reports that a stream is being read until dropped.
struct Reading<'a>(&'a Status);

impl Reading<'_> {
    fn new(status: &Status) -> Reading<'_> {
        status.stream_read();
        Reading(status)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.stream_lost();
    }
}

/// Reads a stream of a peer.
pub(super) struct Reader {
    shared: Arc<Shared>,
    link: Arc<Link>,
    kind: StreamKind,
    refused: Throttle,
    overloaded: Throttle,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, link: Arc<Link>, kind: StreamKind) -> Reader {
        Reader {
            shared,
            link,
            kind,
            refused: Throttle::default(),
            overloaded: Throttle::default(),
        }
    }

    /// Runs until the task is aborted.
    pub(super) async fn run(self) {
        let name = self.kind.name();
        let (local, peer) = (Hex(self.shared.local.id), Hex(self.link.id));
        log::info!("started stream reader with remote peer";
            "stream-reader-type" => name, "local-member-id" => local, "remote-peer-id" => peer);
        let mut next = Instant::now();
        loop {
            sleep_until(next).await;
            next = Instant::now() + REDIAL;
            let body = match self.dial().await {
                Ok(body) => body,
                Err(DialError::Unsupported) => continue,
                Err(error) => {
                    self.link.status.deactivate("dial", name, &error);
                    continue;
                }
            };
            let reading = Reading::new(&self.link.status);
            log::info!("established TCP streaming connection with remote peer";
                "stream-reader-type" => name, "local-member-id" => local, "remote-peer-id" => peer);
            let Err(error) = self.read(body).await;
            drop(reading);
            log::warn!("lost TCP streaming connection with remote peer";
                "stream-reader-type" => name, "local-member-id" => local, "remote-peer-id" => peer,
                "error" => Text(&error));
            match error {
                ReadError::Closed => {}
                error => self.link.status.deactivate("read", name, &error),
            }
        }
    }

    async fn dial(&self) -> Result<Incoming, DialError> {
        let url = self.link.picker.pick();
        let result = match timeout(IO_TIMEOUT, self.request(&url)).await {
            Ok(result) => result,
            Err(_) => Err(ExchangeError::Timeout.into()),
        };
        if let Err(error) = &result {
            self.link.picker.unreachable(&url);
            self.report(error);
        }
        result
    }

    async fn request(&self, url: &Url) -> Result<Incoming, DialError> {
        let local = self.shared.local.id;
        let mut request = Request::new(Outgoing::whole(Bytes::new()));
        *request.uri_mut() = format!("/raft/stream/{}/{local:x}", self.kind.path())
            .parse()
            .expect("words and hexadecimal digits make a path");
        *request.headers_mut() = self.shared.headers.clone();
        request
            .headers_mut()
            .insert(RAFT_TO, hex_value(self.link.id));
        persistent::address(url, &mut request);
        let mut sender = persistent::connect(&self.shared.dialer, url, IO_TIMEOUT).await?;
        let response = sender
            .send_request(request)
            .await
            .map_err(ExchangeError::Http)?;
        if is_too_old(response.headers()) {
            return Err(DialError::Unsupported);
        }
        match response.status() {
            StatusCode::OK => Ok(response.into_body()),
            StatusCode::GONE => Err(DialError::Removed),
            StatusCode::NOT_FOUND => Err(DialError::NotFound {
                peer: self.link.id,
                local,
            }),
            StatusCode::PRECONDITION_FAILED => {
                let response = persistent::collect(response, ERROR_BYTES_MAX).await?;
                Err(precondition(response.body()))
            }
            other => Err(DialError::Status(other.as_u16())),
        }
    }

    fn report(&self, error: &DialError) {
        let (local, peer) = (Hex(self.shared.local.id), Hex(self.link.id));
        match error {
            DialError::Removed => (self.shared.removed_by_cluster)(),
            DialError::Mismatch(mismatch) if self.refused.allow() => {
                let message = match mismatch {
                    Mismatch::Version => {
                        "request sent was ignored by remote peer due to server version incompatibility"
                    }
                    Mismatch::Cluster => {
                        "request sent was ignored by remote peer due to cluster ID mismatch"
                    }
                };
                log::warn!(message;
                    "local-member-id" => local,
                    "local-member-cluster-id" => Hex(self.shared.local.cluster_id),
                    "remote-peer-id" => peer,
                    "error" => Text(mismatch));
            }
            _ => {}
        }
    }

    async fn read(&self, mut body: Incoming) -> Result<std::convert::Infallible, ReadError> {
        let local = self.shared.local.id;
        let handles = self.shared.metrics.peer.handles(local, self.link.id);
        let received_bytes = handles.received_bytes();
        let mut decoder = Decoder::new(self.kind, local, self.link.id);
        loop {
            let frame = timeout(IO_TIMEOUT, body.frame())
                .await
                .map_err(|_| ReadError::Silent)?
                .ok_or(ReadError::Closed)?
                .map_err(end_of_connection)?;
            let Some(bytes) = frame.data_ref() else {
                continue;
            };
            received_bytes.inc_by(bytes.len() as u64);
            decoder.push(bytes);
            let (messages, end) = self.decode(&mut decoder);
            self.send_to_node(messages)?;
            end?;
        }
    }

    /// The complete messages that may be sent to the node, and whether more can follow.
    fn decode(&self, decoder: &mut Decoder) -> (Vec<Message>, Result<(), CodecError>) {
        let mut messages = Vec::new();
        loop {
            match decoder.next_message() {
                // Refused ones were told to the log.
                Ok(Some(message)) if self.shared.node.admit(&message).is_err() => {
                    self.count_failures(1);
                }
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return (messages, Ok(())),
                Err(error) => return (messages, Err(error)),
            }
        }
    }

    fn send_to_node(&self, messages: Vec<Message>) -> Result<(), ReadError> {
        let count = messages.len();
        let Err(refusal) = self.shared.node.send(messages) else {
            return Ok(());
        };
        self.count_failures(count);
        if refusal == Refusal::Stopped {
            return Err(ReadError::Refused(refusal));
        }
        if self.overloaded.allow() {
            log::warn!(
                "dropped internal Raft message since receiving buffer is full (overloaded network)";
                "local-member-id" => Hex(self.shared.local.id),
                "from" => Hex(self.link.id),
                "messages" => count,
                "remote-peer-id" => Hex(self.link.id),
                "remote-peer-active" => self.link.status.is_active());
        }
        Ok(())
    }

    fn count_failures(&self, messages: usize) {
        let local = self.shared.local.id;
        let handles = self.shared.metrics.peer.handles(local, self.link.id);
        handles.received_failures().inc_by(messages as u64);
    }
}

/// A connection that the other side closed in the middle is as good as one that it closed at the
/// end: members that stop do not always get to the end.
fn end_of_connection(error: hyper::Error) -> ReadError {
    let source = std::error::Error::source(&error);
    let closed = source
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof);
    match closed || error.is_incomplete_message() {
        true => ReadError::Closed,
        false => ReadError::Http(error),
    }
}

fn is_too_old(response: &HeaderMap) -> bool {
    let version = headers::version_text(response, &SERVER_VERSION);
    headers::major_minor(version).is_some_and(|version| version < STREAMS_SINCE)
}

fn precondition(body: &[u8]) -> DialError {
    match Mismatch::from_text(body) {
        Some(mismatch) => DialError::Mismatch(mismatch),
        None => DialError::Precondition(String::from_utf8_lossy(body).into_owned()),
    }
}
