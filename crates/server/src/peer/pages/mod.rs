//! The pages of the peer listener: what members ask each other beside raft's messages.
//! [`Client`](super::Client) asks.
//!
//! | request | answer |
//! |---|---|
//! | `GET /version` | versions of program, cluster and storage |
//! | `GET /members` | the members, for one that joins |
//! | `POST /members/promote/ID` | the members after a learner got its vote; the leader knows whether it is ready |
//! | `GET /members/hashkv` with `{"revision":N}` | the hash of the keyspace, to compare |
//! | `GET /downgrade/enabled` | `true` or `false`, after a linearizable read |
//! | `POST /leases`, `/leases/internal` with protobuf | renewal, remaining time: the leader alone keeps deadlines |
//!
//! Ids in JSON are numbers of 64 bits, in headers lower case hexadecimal digits. Errors are text
//! with a newline.

mod route;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body::Body;
use prost::Message;
use retcd_member::Error;
use retcd_member::access::Credentials;
use retcd_proto::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveResponse,
};
use retcd_proto::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use retcd_proto::number;
use retcd_state::machine::ApplyError;
use retcd_state::membership::{Member, MemberError, ReconfigError};
use retcd_state::mvcc::KeyspaceHash;
use tokio::time::timeout;

use super::IO_TIMEOUT;
use super::client::Versions;
use super::headers::{CLUSTER_ID, KEEPS_V2};
use super::protocol::{
    CLUSTER_MISMATCH, HashKvHeader, HashKvRequest, HashKvResponse, LEARNER_NOT_READY,
    LEASE_NOT_FOUND, MEMBER_NOT_FOUND, NOT_CAUGHT_UP, NOT_LEARNER,
};
use crate::auth::credentials_of;
use crate::log::{Hex, Text};
use crate::net_http::body::{self, Unread};
use crate::net_http::{Response, reply};
use crate::status::text;
use route::Route;

/// Bytes of a request's body; real ones have a few dozen.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What other members ask of this one.
// Pages are answered on the connection's own thread, so nothing in here has to be `Send`.
#[allow(async_fn_in_trait)]
pub trait PeerProbe {
    /// The versions of program, cluster and storage.
    fn versions(&self) -> Versions;

    /// The cluster's id.
    fn cluster_id(&self) -> u64;

    /// All members, in order of their ids.
    fn members(&self) -> Vec<Member>;

    /// Whether a downgrade is under way, as the cluster knows it now.
    async fn downgrade_enabled(&self) -> Result<bool, Error>;

    /// Gives a learner its vote on behalf of a client; returns the members after it.
    async fn promote(&self, id: u64, credentials: &Credentials) -> Result<Vec<Member>, Error>;

    /// The hash of the keyspace at a revision, 0 for the newest, with the newest revision.
    async fn hash_kv(&self, revision: i64) -> Result<(KeyspaceHash, i64), Error>;

    /// Gives a lease its full time again; returns it in seconds.
    async fn renew_lease(&self, id: i64) -> Result<i64, Error>;

    /// What is left of a lease, with the revision of the store that this is of in the header.
    async fn lease_time_to_live(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<LeaseTimeToLiveResponse, Error>;
}

/// Answers one request of another member.
pub async fn page<P: PeerProbe, B: Body>(probe: &P, request: Request<B>) -> Response {
    let route = Route::of(request.uri());
    if let Some(refusal) = refuse_method(&route, request.method()) {
        return refusal;
    }
    match route {
        Route::Version => {
            let mut response = reply::json(&probe.versions());
            let keeps = HeaderValue::from_static("true");
            response.headers_mut().insert(KEEPS_V2, keeps);
            response
        }
        Route::Members => members(probe, &probe.members()),
        Route::Promote(id) => {
            let credentials = credentials_of(request.headers(), request.extensions());
            promote(probe, &id, &credentials).await
        }
        Route::HashKv => hash_kv(probe, request).await,
        Route::DowngradeEnabled => downgrade_enabled(probe).await,
        Route::Renew => renew(probe, request.into_body()).await,
        Route::TimeToLive => time_to_live(probe, request.into_body()).await,
        Route::Redirect(location) => reply::moved(request.method(), &location),
        Route::Malformed => reply::bad_request(),
        Route::NotFound => reply::not_found(),
    }
}

fn refuse_method(route: &Route, method: &Method) -> Option<Response> {
    let (allowed, told) = match route {
        Route::Redirect(_) | Route::Malformed | Route::NotFound => return None,
        Route::Promote(_) => (Method::POST, true),
        // etcd v3.7: server/lease/leasehttp does not say which methods it allows.
        Route::Renew | Route::TimeToLive => (Method::POST, false),
        _ => (Method::GET, true),
    };
    if *method == allowed {
        return None;
    }
    Some(match told {
        true => reply::method_not_allowed(&allowed),
        false => reply::error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
    })
}

fn members(probe: &impl PeerProbe, members: &[Member]) -> Response {
    let page = reply::ok("application/json", reply::to_json(&members) + "\n");
    of_cluster(probe, page)
}

/// The page with the cluster's id in its header.
fn of_cluster(probe: &impl PeerProbe, mut page: Response) -> Response {
    let id = HeaderValue::from_str(&format!("{:x}", probe.cluster_id()));
    let id = id.expect("hexadecimal digits are valid");
    page.headers_mut().insert(CLUSTER_ID, id);
    page
}

async fn promote(probe: &impl PeerProbe, id: &str, credentials: &Credentials) -> Response {
    let page = match number::decimal(id) {
        None => reply::error(
            StatusCode::NOT_FOUND,
            &format!("member {id} not found in cluster"),
        ),
        Some(id) => match probe.promote(id, credentials).await {
            Ok(all) => return members(probe, &all),
            Err(error) => {
                crate::warn!("failed to promote a member";
                    "member-id" => Hex(id), "error" => Text(&error));
                promote_error(error)
            }
        },
    };
    of_cluster(probe, page)
}

fn promote_error(error: Error) -> Response {
    let (status, text) = match error {
        Error::Refused(ApplyError::Member(MemberError::IdNotFound | MemberError::IdRemoved)) => {
            (StatusCode::NOT_FOUND, MEMBER_NOT_FOUND)
        }
        Error::Refused(ApplyError::Member(MemberError::NotLearner)) => {
            (StatusCode::PRECONDITION_FAILED, NOT_LEARNER)
        }
        Error::Reconfig(ReconfigError::LearnerNotReady) => {
            (StatusCode::PRECONDITION_FAILED, LEARNER_NOT_READY)
        }
        _ => {
            let mut page = reply::ok("application/json", r#"{"message":"Internal Server Error"}"#);
            *page.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return page;
        }
    };
    reply::error(status, text)
}

async fn hash_kv<B: Body>(probe: &impl PeerProbe, request: Request<B>) -> Response {
    let asked_of = request.headers().get(CLUSTER_ID);
    let own = format!("{:x}", probe.cluster_id());
    if asked_of.is_some_and(|id| !id.is_empty() && id.as_bytes() != own.as_bytes()) {
        return reply::error(StatusCode::PRECONDITION_FAILED, CLUSTER_MISMATCH);
    }
    let Ok(body) = read(request.into_body()).await else {
        return reply::error(StatusCode::BAD_REQUEST, "error reading body");
    };
    let Ok(request) = serde_json::from_slice::<HashKvRequest>(&body) else {
        return unreadable();
    };
    match probe.hash_kv(request.revision).await {
        Err(error) => {
            let text = hash_error(error);
            crate::warn!("failed to get hashKV";
                "requested-revision" => request.revision, "error" => &text);
            reply::error(StatusCode::BAD_REQUEST, &text)
        }
        Ok((hash, revision)) => {
            let response = HashKvResponse {
                header: HashKvHeader { revision },
                hash: hash.hash,
                compact_revision: hash.compact_revision,
                hash_revision: hash.revision,
            };
            of_cluster(probe, reply::json(&response))
        }
    }
}

/// Members look for these texts.
fn hash_error(error: Error) -> String {
    let text = text(error);
    match text.strip_prefix("etcdserver: ") {
        Some(mvcc) if mvcc.starts_with("mvcc: ") => mvcc.to_owned(),
        _ => text,
    }
}

async fn downgrade_enabled(probe: &impl PeerProbe) -> Response {
    let page = match probe.downgrade_enabled().await {
        Ok(enabled) => reply::ok("text/plain", enabled.to_string()),
        Err(error) => reply::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("failed linearized read: {}", text(error)),
        ),
    };
    of_cluster(probe, page)
}

async fn renew<B: Body>(probe: &impl PeerProbe, body: B) -> Response {
    let request: LeaseKeepAliveRequest = match decode(body).await {
        Ok(request) => request,
        Err(refusal) => return refusal,
    };
    match probe.renew_lease(request.id).await {
        Ok(ttl) => protobuf(&LeaseKeepAliveResponse {
            header: None,
            id: request.id,
            ttl,
        }),
        Err(error) => lease_error(error, StatusCode::BAD_REQUEST),
    }
}

async fn time_to_live<B: Body>(probe: &impl PeerProbe, body: B) -> Response {
    let request: LeaseInternalRequest = match decode(body).await {
        Ok(request) => request,
        Err(refusal) => return refusal,
    };
    let Some(request) = request.lease_time_to_live_request else {
        return unreadable();
    };
    match probe.lease_time_to_live(request.id, request.keys).await {
        Ok(found) => protobuf(&LeaseInternalResponse {
            lease_time_to_live_response: Some(found),
        }),
        Err(error) => lease_error(error, StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// `not_primary` is what a member that does not lead says: the two pages differ.
fn lease_error(error: Error, not_primary: StatusCode) -> Response {
    match error {
        Error::Refused(ApplyError::LeaseNotFound) => {
            reply::error(StatusCode::NOT_FOUND, LEASE_NOT_FOUND)
        }
        Error::ApplyTimedOut => reply::error(StatusCode::REQUEST_TIMEOUT, NOT_CAUGHT_UP),
        other => reply::error(not_primary, &text(other)),
    }
}

fn protobuf(message: &impl Message) -> Response {
    reply::ok("application/protobuf", message.encode_to_vec())
}

fn unreadable() -> Response {
    reply::error(StatusCode::BAD_REQUEST, "error unmarshalling request")
}

/// A body; one that does not arrive within [`IO_TIMEOUT`] is broken.
async fn read<B: Body>(body: B) -> Result<Bytes, Unread> {
    let read = body::read(body, BODY_BYTES_MAX);
    timeout(IO_TIMEOUT, read)
        .await
        .unwrap_or(Err(Unread::Broken))
}

async fn decode<B: Body, T: Message + Default>(body: B) -> Result<T, Response> {
    let body = read(body).await.map_err(|unread| match unread {
        Unread::TooLarge => reply::error(StatusCode::PAYLOAD_TOO_LARGE, "request body too large"),
        Unread::Broken => reply::error(StatusCode::BAD_REQUEST, "error reading body"),
    })?;
    T::decode(body).map_err(|_| unreadable())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_is_given_up() {
        let silent = futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>();
        let result = read(StreamBody::new(silent)).await;
        assert!(matches!(result, Err(Unread::Broken)));
    }
}
