//! Sends messages one by one with POST, to members without streams or until these are connected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use prost::Message as _;
use retcd_proto::raftpb::{Message, MessageType};

use super::headers::{CLUSTER_ID, text};
use super::link::{Link, PipelineQueue};
use super::persistent::{ExchangeError, PersistentConnection, RetryPolicy};
use super::reply::REMOVED_MEMBER;
use super::transport::Shared;
use super::{IO_TIMEOUT, Mismatch};
use crate::log::{self, Hex};

/// Workers per member, as in etcd. Each has a connection and sends one message at a time.
pub(super) const WORKERS: usize = 4;
/// Time for a message. A proposal may wait at the other end until there is a leader.
const POST_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the body of an error.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Why a POST failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    /// There is no response.
    #[error("{0}")]
    Exchange(#[from] ExchangeError),
    /// The peer has another cluster or an incompatible version.
    #[error("{0}")]
    Mismatch(Mismatch),
    /// This member was removed.
    #[error("{REMOVED_MEMBER}")]
    Removed,
    /// Status 412 with another text.
    #[error("unhandled error {0:?} when precondition failed")]
    Precondition(String),
    /// Any other status.
    #[error("unexpected http status {reason} while posting to {url:?}")]
    Status {
        /// The text of the status.
        reason: &'static str,
        /// Of the request.
        url: String,
    },
    /// The snapshot to send could not be read.
    #[error("{0}")]
    Source(std::io::Error),
}

/// Sends the messages of the queue until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>, link: Arc<Link>, queue: PipelineQueue) {
    let mut connection = PersistentConnection::new(shared.dialer.clone(), IO_TIMEOUT);
    loop {
        let next = queue.lock().await.recv().await;
        let Some(message) = next else {
            return;
        };
        let bytes = message.encoded_len() as u64;
        let handles = shared.metrics.peer.handles(shared.local.id, link.id);
        let (started, is_append) = (Instant::now(), message.r#type() == MessageType::MsgApp);
        match post(&shared, &link, &mut connection, &message).await {
            Ok(()) => {
                if is_append {
                    link.follower.sent(started.elapsed());
                }
                link.status.activate();
                handles.sent_bytes().inc_by(bytes);
            }
            Err(error) => {
                if is_append {
                    link.follower.failed();
                }
                link.status.deactivate("write", "pipeline", &error);
                handles.sent_failures().inc();
                shared.node.report_unreachable(link.id);
                let unsent = matches!(error, PostError::Exchange(ExchangeError::Dial { .. }));
                if unsent && message.r#type() == MessageType::MsgProp {
                    shared.node.return_proposals(message);
                }
            }
        }
    }
}

async fn post(
    shared: &Shared,
    link: &Link,
    connection: &mut PersistentConnection,
    message: &Message,
) -> Result<(), PostError> {
    let url = link.picker.pick();
    let mut body = BytesMut::with_capacity(message.encoded_len());
    message.encode_raw(&mut body);
    let request = request(shared, "/raft", "application/protobuf", body.freeze());
    let retry = match message.r#type() {
        // A proposal that is received twice is applied twice.
        MessageType::MsgProp => RetryPolicy::NonRepeatable,
        _ => RetryPolicy::Repeatable,
    };
    let result = connection
        .exchange(&url, request, retry, POST_TIMEOUT, ERROR_BYTES_MAX)
        .await
        .map_err(PostError::from)
        .and_then(|response| check(shared, link, &response, || format!("{url}/raft")));
    if result.is_err() {
        link.picker.unreachable(&url);
    }
    result
}

/// A POST with this member's headers.
pub(super) fn request<B>(
    shared: &Shared,
    path: &'static str,
    content_type: &'static str,
    body: B,
) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    *request.headers_mut() = shared.headers.clone();
    let content_type = HeaderValue::from_static(content_type);
    request.headers_mut().insert(CONTENT_TYPE, content_type);
    request
}

/// Checks the response to a POST.
pub(super) fn check(
    shared: &Shared,
    link: &Link,
    response: &Response<Bytes>,
    url: impl FnOnce() -> String,
) -> Result<(), PostError> {
    match response.status() {
        StatusCode::NO_CONTENT => Ok(()),
        StatusCode::FORBIDDEN => {
            (shared.removed_by_cluster)();
            Err(PostError::Removed)
        }
        StatusCode::PRECONDITION_FAILED => match Mismatch::from_text(response.body()) {
            Some(mismatch) => {
                if link.refused.allow() {
                    log_mismatch(shared, link, response, mismatch);
                }
                Err(PostError::Mismatch(mismatch))
            }
            None => {
                let text = String::from_utf8_lossy(response.body());
                Err(PostError::Precondition(text.into_owned()))
            }
        },
        other => Err(PostError::Status {
            reason: other.canonical_reason().unwrap_or_default(),
            url: url(),
        }),
    }
}

fn log_mismatch(shared: &Shared, link: &Link, response: &Response<impl Sized>, mismatch: Mismatch) {
    match mismatch {
        Mismatch::Version => log::error!("request sent was ignored by peer";
            "remote-peer-id" => Hex(link.id)),
        Mismatch::Cluster => log::error!("request sent was ignored due to cluster ID mismatch";
            "remote-peer-id" => Hex(link.id),
            "remote-peer-cluster-id" => text(response.headers(), &CLUSTER_ID),
            "local-member-cluster-id" => Hex(shared.local.cluster_id)),
    }
}
