//! Answers the requests of other members under `/raft`.
//!
//! | method, path | answer |
//! |---|---|
//! | `POST /raft` | 204 when the message is in the node's queue |
//! | `GET /raft/stream/{message,msgapp}/<id>` | 200 and an endless body with the messages for that member |
//! | `POST /raft/snapshot` | 204 when the database is durable and the node has been notified |
//! | `GET /raft/probing` | 200 and the time |
//!
//! Checks are made in etcd's order (v3.7: server/etcdserver/api/rafthttp/http.go): method,
//! versions, cluster; then, for streams, path, id, whether the sender was removed, whether it is
//! known, and whether the recipient is this member.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use jiff::Timestamp;
use retcd_proto::number;
use tokio::time::timeout;

use super::IO_TIMEOUT;
use super::body::{PeerBody, StreamBody};
use super::codec::{FRAME_BYTES_MAX, StreamKind, decode_message};
use super::headers::{
    self, CLUSTER_ID, Mismatch, PEER_URLS, RAFT_TO, SERVER_FROM, SERVER_VERSION, text,
};
use super::reply;
use super::snapshot;
use super::transport::Shared;
use crate::log::{self, Hex, Throttle};

const STREAM_PREFIX: &str = "/raft/stream/";

/// Handles requests of the peer listener under `/raft`. Cheap to clone.
#[derive(Clone)]
pub struct RaftHandler(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    mismatch: Throttle,
    unknown: Throttle,
    removed: Throttle,
    unreadable: Throttle,
    busy: Throttle,
}

impl RaftHandler {
    pub(super) fn new(shared: Arc<Shared>) -> RaftHandler {
        RaftHandler(Arc::new(Inner {
            shared,
            mismatch: Throttle::default(),
            unknown: Throttle::default(),
            removed: Throttle::default(),
            unreadable: Throttle::default(),
            busy: Throttle::default(),
        }))
    }

    /// Answers a request; none for another path. Needs a runtime with timers.
    ///
    /// The connection must be wrapped in a [`WriteDeadline`](super::WriteDeadline); without it, a
    /// peer that stops reading keeps its stream for minutes.
    pub async fn handle(&self, request: Request<Incoming>) -> Option<Response<PeerBody>> {
        let path = request.uri().path();
        Some(match path {
            "/raft" => self.0.message(request).await,
            "/raft/snapshot" => self.0.snapshot(request).await,
            "/raft/probing" => probing(),
            _ if path.starts_with(STREAM_PREFIX) => self.0.stream(&request),
            _ => return None,
        })
    }
}

impl Inner {
    async fn message(&self, request: Request<Incoming>) -> Response<PeerBody> {
        if request.method() != Method::POST {
            return reply::method_not_allowed(&Method::POST);
        }
        let mut response = self.take_message(request).await;
        self.name_cluster(&mut response);
        response
    }

    async fn take_message(&self, request: Request<Incoming>) -> Response<PeerBody> {
        if let Err(mismatch) = self.check(request.headers()) {
            return refuse(mismatch);
        }
        self.add_remote(request.headers());
        let from = number::hexadecimal(text(request.headers(), &SERVER_FROM)).unwrap_or_default();
        let (peer, local) = (&self.shared.metrics.peer, self.shared.local.id);
        let handles = match self.shared.is_known(from) {
            true => peer.handles(local, from),
            false => peer.unknown_sender(local),
        };
        let body = match read_all(request.into_body()).await {
            Ok(body) => body,
            Err(error) => {
                handles.received_failures().inc();
                return self.unreadable("failed to read Raft message", "reading", &error);
            }
        };
        let bytes = body.len() as u64;
        let message = match decode_message(body) {
            Ok(message) => message,
            Err(error) => {
                handles.received_failures().inc();
                let error = error.to_string();
                return self.unreadable(
                    "failed to unmarshal Raft message",
                    "unmarshalling",
                    &error,
                );
            }
        };
        handles.received_bytes().inc_by(bytes);
        let node = &self.shared.node;
        let taken = node.admit(&message).and_then(|()| node.send(vec![message]));
        let Err(refusal) = taken else {
            return reply::no_content();
        };
        handles.received_failures().inc();
        if self.busy.allow() {
            log::warn!("failed to process Raft message";
                "local-member-id" => Hex(self.shared.local.id),
                "remote-peer-id" => Hex(from),
                "error" => log::Text(refusal));
        }
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let mut response = reply::error(status, "error processing raft message");
        reply::close(&mut response);
        response
    }

    fn unreadable(&self, event: &'static str, doing: &str, error: &str) -> Response<PeerBody> {
        if self.unreadable.allow() {
            log::warn!(event;
                "local-member-id" => Hex(self.shared.local.id), "error" => error);
        }
        let text = format!("error {doing} raft message");
        reply::error(StatusCode::BAD_REQUEST, &text)
    }

    async fn snapshot(&self, request: Request<Incoming>) -> Response<PeerBody> {
        if request.method() != Method::POST {
            self.snapshot_refused();
            return reply::method_not_allowed(&Method::POST);
        }
        let mut response = match self.check(request.headers()) {
            Ok(()) => {
                self.add_remote(request.headers());
                snapshot::receive(&self.shared, request.into_body()).await
            }
            Err(mismatch) => {
                self.snapshot_refused();
                refuse(mismatch)
            }
        };
        self.name_cluster(&mut response);
        response
    }

    fn snapshot_refused(&self) {
        let peer = &self.shared.metrics.peer;
        let handles = peer.unknown_snapshot_sender(self.shared.local.id);
        handles.snapshot_receive_failures().inc();
    }

    fn stream(&self, request: &Request<Incoming>) -> Response<PeerBody> {
        if request.method() != Method::GET {
            return reply::method_not_allowed(&Method::GET);
        }
        let mut response = self
            .open_stream(request.uri().path(), request.headers())
            .unwrap_or_else(|refused| *refused);
        let version = http::HeaderValue::from_static(crate::VERSION);
        response.headers_mut().insert(SERVER_VERSION, version);
        self.name_cluster(&mut response);
        response
    }

    fn open_stream(
        &self,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Response<PeerBody>, Box<Response<PeerBody>>> {
        self.check(headers)
            .map_err(|mismatch| Box::new(refuse(mismatch)))?;
        let refuse = |status, text| Err(Box::new(reply::error(status, text)));
        let local = Hex(self.shared.local.id);
        let Some((kind, id)) = split_path(path) else {
            return refuse(StatusCode::NOT_FOUND, "invalid path");
        };
        let Some(from) = number::hexadecimal(id) else {
            if self.unknown.allow() {
                log::warn!("failed to parse path into ID"; "local-member-id" => local, "path" => id);
            }
            return refuse(StatusCode::NOT_FOUND, "invalid from");
        };
        if self.shared.node.is_removed(from) {
            if self.removed.allow() {
                log::warn!("rejected stream from remote peer because it was removed";
                    "local-member-id" => local, "remote-peer-id-from" => Hex(from));
            }
            return refuse(StatusCode::GONE, "removed member");
        }
        let not_found = || {
            if self.unknown.allow() {
                log::warn!("failed to find remote peer in cluster";
                    "local-member-id" => local,
                    "remote-peer-id-from" => Hex(from),
                    "cluster-id" => Hex(self.shared.local.cluster_id));
            }
            refuse(StatusCode::NOT_FOUND, "error sender not found")
        };
        let Some(link) = self.shared.peer(from) else {
            // If the log of this member is behind, the sender may be the one to catch it up.
            self.shared.add_remote_from(from, text(headers, &PEER_URLS));
            return not_found();
        };
        let meant = text(headers, &RAFT_TO);
        if meant != format!("{:x}", self.shared.local.id) {
            if self.unknown.allow() {
                log::warn!("ignored streaming request; ID mismatch";
                    "local-member-id" => local,
                    "remote-peer-id-header" => meant,
                    "remote-peer-id-from" => Hex(from),
                    "cluster-id" => Hex(self.shared.local.cluster_id));
            }
            return refuse(StatusCode::PRECONDITION_FAILED, "to field mismatch");
        }
        match StreamBody::attach(Arc::clone(&self.shared), link, kind) {
            Some(body) => Ok(Response::new(body.into())),
            None => not_found(),
        }
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Mismatch> {
        headers::check(&self.shared.local, headers, || self.mismatch.allow())
    }

    fn add_remote(&self, headers: &HeaderMap) {
        if let Some(from) = number::hexadecimal(text(headers, &SERVER_FROM)) {
            self.shared.add_remote_from(from, text(headers, &PEER_URLS));
        }
    }

    fn name_cluster(&self, response: &mut Response<PeerBody>) {
        let id = headers::hex_value(self.shared.local.cluster_id);
        response.headers_mut().insert(CLUSTER_ID, id);
    }
}

fn refuse(mismatch: Mismatch) -> Response<PeerBody> {
    reply::error(StatusCode::PRECONDITION_FAILED, &mismatch.to_string())
}

/// The stream and the id in a path.
fn split_path(path: &str) -> Option<(StreamKind, &str)> {
    let (kind, id) = path.strip_prefix(STREAM_PREFIX)?.split_once('/')?;
    let kind = [StreamKind::MsgApp, StreamKind::Message]
        .into_iter()
        .find(|known| known.path() == kind)?;
    (!id.contains('/')).then_some((kind, id))
}

/// Reads a body of up to [`FRAME_BYTES_MAX`] bytes, with a timeout for each read.
async fn read_all(mut body: Incoming) -> Result<Bytes, String> {
    let mut all = BytesMut::new();
    loop {
        let frame = timeout(IO_TIMEOUT, body.frame())
            .await
            .map_err(|_| "i/o timeout".to_owned())?;
        let Some(frame) = frame else {
            return Ok(all.freeze());
        };
        let frame = frame.map_err(|error| error.to_string())?;
        if let Some(bytes) = frame.data_ref() {
            if all.len() as u64 + bytes.len() as u64 > FRAME_BYTES_MAX {
                return Err("request body too large".to_owned());
            }
            all.extend_from_slice(bytes);
        }
    }
}

fn probing() -> Response<PeerBody> {
    reply::text(format!(
        "{{\"OK\":true,\"Now\":\"{}\"}}\n",
        Timestamp::now()
    ))
}
