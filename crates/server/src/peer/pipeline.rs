//! Messages one by one, by POST: for members without streams, or until streams are there.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use prost::Message as _;
use retcd_proto::raftpb::{Message, MessageType};

use super::headers::{CLUSTER_ID, text};
use super::line::{ExchangeError, Line, Repeat};
use super::link::{Link, PipelineQueue};
use super::reply::REMOVED_MEMBER;
use super::transport::Shared;
use super::{IO_TIMEOUT, Mismatch};
use crate::log::{self, Hex};

/// Workers per member, as in etcd: connections, and messages under way.
pub(super) const WORKERS: usize = 4;
/// Time for one message. A proposal may wait at the other end until there is a leader.
const POST_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an error's text.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Why a POST did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    /// There is no answer.
    #[error("{0}")]
    Exchange(#[from] ExchangeError),
    /// Version or cluster are not the peer's.
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
        /// In words.
        reason: &'static str,
        /// Where to.
        url: String,
    },
    /// What was to be sent could not be read.
    #[error("{0}")]
    Source(std::io::Error),
}

/// Posts what comes out of the queue, until the task is ended.
pub(super) async fn run(shared: Arc<Shared>, link: Arc<Link>, queue: PipelineQueue) {
    let mut line = Line::new(shared.dialer.clone(), IO_TIMEOUT);
    loop {
        let next = queue.lock().await.recv().await;
        let Some(message) = next else {
            return;
        };
        let bytes = message.encoded_len() as u64;
        let handles = shared.metrics.peer.handles(shared.identity.id, link.id);
        match post(&shared, &link, &mut line, &message).await {
            Ok(()) => {
                link.status.activate();
                handles.sent_bytes().inc_by(bytes);
            }
            Err(error) => {
                link.status.deactivate("write", "pipeline", &error);
                handles.sent_failures().inc();
                shared.inbox.report_unreachable(link.id);
                let unsent = matches!(error, PostError::Exchange(ExchangeError::Dial { .. }));
                if unsent && message.r#type() == MessageType::MsgProp {
                    shared.inbox.give_back(message);
                }
            }
        }
    }
}

async fn post(
    shared: &Shared,
    link: &Link,
    line: &mut Line,
    message: &Message,
) -> Result<(), PostError> {
    let url = link.picker.pick();
    let mut body = BytesMut::with_capacity(message.encoded_len());
    message.encode_raw(&mut body);
    let request = request(shared, "/raft", "application/protobuf", body.freeze());
    let repeat = match message.r#type() {
        // A proposal that arrives twice is applied twice.
        MessageType::MsgProp => Repeat::Never,
        _ => Repeat::Harmless,
    };
    let result = line
        .exchange(&url, request, repeat, POST_TIMEOUT, ERROR_BYTES_MAX)
        .await
        .map_err(PostError::from)
        .and_then(|response| check(shared, link, &response, || format!("{url}/raft")));
    if result.is_err() {
        link.picker.unreachable(&url);
    }
    result
}

/// A POST to a member with our headers.
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

/// What the answer to a POST means.
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
                if link.refused.now() {
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
            "local-member-cluster-id" => Hex(shared.identity.cluster_id)),
    }
}
