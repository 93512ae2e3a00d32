//! Asks other members for their pages: the requests that are not raft's.
//!
//! | request | for |
//! |---|---|
//! | `GET /members` | joining |
//! | `GET /version` | the cluster's version; joining |
//! | `GET /downgrade/enabled` | joining |
//! | `GET /members/hashkv` | corruption checks |
//! | `POST /leases`, `/leases/internal` | a lease's renewal and time to live, by the leader |
//! | `POST /members/promote/<id>` | promotion, by the leader |
//!
//! Errors have etcd's messages, which are passed on to clients.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use parking_lot::Mutex;
use prost::Message as _;
use retcd_proto::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use retcd_proto::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use retcd_proto::number;
use retcd_state::membership::Member;
use retcd_state::version::Version;
use serde::{Deserialize, Serialize};

use super::IO_TIMEOUT;
use super::dial::Dialer;
use super::headers::{CLUSTER_ID, KEEPS_V2, hex_value, text};
use super::persistent::{ExchangeError, PersistentConnection, RetryPolicy};
use super::protocol::{
    CLUSTER_MISMATCH, COMPACTED, FUTURE_REVISION, HashKvRequest, HashKvResponse, LEARNER_NOT_READY,
    LEASE_NOT_FOUND, MEMBER_NOT_FOUND, NOT_CAUGHT_UP, NOT_LEARNER,
};
use crate::config::url::Url;
use crate::log::{Hex, Text};

/// Bytes of a response; etcd's bound for a lease with all of its keys.
const BODY_BYTES_MAX: usize = 100 << 20;
/// Idle connections that are kept, over all members.
const IDLE_MAX: usize = 64;

/// Why a request to a member failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no response.
    #[error("{0}")]
    Exchange(#[from] ExchangeError),
    /// The response cannot be parsed.
    #[error("{0}")]
    Malformed(String),
    /// The member refused; its message.
    #[error("{0}")]
    Refused(String),
    /// The revision of the hash was compacted.
    #[error("etcdserver: {COMPACTED}")]
    Compacted,
    /// The revision of the hash does not exist yet.
    #[error("etcdserver: {FUTURE_REVISION}")]
    FutureRevision,
    /// The member belongs to another cluster.
    #[error("etcdserver: {CLUSTER_MISMATCH}")]
    ClusterMismatch,
    /// There is no such lease.
    #[error("{LEASE_NOT_FOUND}")]
    LeaseNotFound,
    /// The member has not applied all committed entries.
    #[error("{NOT_CAUGHT_UP}")]
    NotCaughtUp,
    /// There is no such member.
    #[error("{MEMBER_NOT_FOUND}")]
    MemberNotFound,
    /// The member to promote is a voter already.
    #[error("{NOT_LEARNER}")]
    NotLearner,
    /// The member to promote is too far behind.
    #[error("{LEARNER_NOT_READY}")]
    LearnerNotReady,
    /// The promotion took too long.
    #[error("etcdserver: request timed out")]
    Timeout,
}

impl ClientError {
    /// Whether the member would say the same at another of its URLs.
    fn is_answer(&self) -> bool {
        matches!(
            self,
            ClientError::LeaseNotFound
                | ClientError::MemberNotFound
                | ClientError::NotLearner
                | ClientError::LearnerNotReady
        )
    }
}

/// A cluster, as one of its members knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCluster {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The members, by id.
    pub members: Vec<Member>,
}

/// The peer URLs of a member, without those that do not parse, which some versions of etcd allow.
fn peer_urls_of(member: &Member) -> Vec<Url> {
    let urls = member.peer_urls().iter();
    urls.filter_map(|url| Url::parse(url).ok()).collect()
}

/// Asks the URLs of a member in turn until one gives a result, or an error that is the member's
/// answer.
///
/// # Errors
/// The last error; none if the member has no URL.
pub(crate) async fn ask_each_url<T>(
    member: &Member,
    question: impl AsyncFn(&Url) -> Result<T, ClientError>,
) -> Result<T, Option<ClientError>> {
    let mut failure = None;
    for url in peer_urls_of(member) {
        match question(&url).await {
            Err(error) if !error.is_answer() => failure = Some(error),
            result => return result.map_err(Some),
        }
    }
    Err(failure)
}

/// The versions of a member, as `/version` tells them. The order of the fields is etcd's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Versions {
    /// Of its program.
    #[serde(rename = "etcdserver")]
    pub server: String,
    /// Of the cluster; `not_decided` before there is one.
    #[serde(rename = "etcdcluster")]
    pub cluster: String,
    /// Of its files; `unknown` before there are any, empty before 3.6.
    pub storage: String,
    /// Whether the member says that it keeps API v2, in the header [`KEEPS_V2`].
    #[serde(skip)]
    pub keeps_v2: bool,
}

impl Versions {
    /// Those of this program, and of the cluster and the storage where they are known.
    pub fn of_this_member(cluster: Option<Version>, storage: Option<Version>) -> Versions {
        let or = |version: Option<Version>, unknown: &str| {
            version.map_or(unknown.to_owned(), |version| version.to_string())
        };
        Versions {
            server: crate::VERSION.to_owned(),
            cluster: or(cluster, "not_decided"),
            storage: or(storage, "unknown"),
            keeps_v2: true,
        }
    }
}

/// The hash of a member's keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// The hash of all revisions from the compacted one to the requested one.
    pub hash: u32,
    /// The member's revision at the time.
    pub current_revision: i64,
    /// The compacted revision; -1 before the first compaction.
    pub compact_revision: i64,
    /// The revision of the hash; 0 from members before 3.6, which do not send it.
    pub hash_revision: i64,
}

/// A client of other members. Cheap to clone; clones share their connections.
///
/// Connections are driven by the runtime on which they were opened, so that a client must be used
/// on one runtime only.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    dialer: Dialer,
    timeout: Duration,
    idle: Mutex<Vec<(String, PersistentConnection)>>,
}

impl Client {
    /// `timeout` is for each request.
    pub fn new(dialer: Dialer, timeout: Duration) -> Client {
        Client(Arc::new(Inner {
            dialer,
            timeout,
            idle: Mutex::default(),
        }))
    }

    /// The members of the cluster, from the member at `url`.
    ///
    /// # Errors
    /// [`ClientError`]; also if the list is empty.
    pub async fn members(&self, url: &Url) -> Result<RemoteCluster, ClientError> {
        let response = self.get(url, "/members").await?;
        let members = json_members(response.body())?;
        let cluster_id = number::hexadecimal(text(response.headers(), &CLUSTER_ID))
            .ok_or_else(|| ClientError::Malformed("failed to parse cluster ID".to_owned()))?;
        if members.is_empty() {
            let text = "failed to get raft cluster member(s) from the given URLs";
            return Err(ClientError::Malformed(text.to_owned()));
        }
        Ok(RemoteCluster {
            cluster_id,
            members,
        })
    }

    /// The versions of the member at `url`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn version(&self, url: &Url) -> Result<Versions, ClientError> {
        let response = self.get(url, "/version").await?;
        Ok(Versions {
            keeps_v2: response.headers().contains_key(KEEPS_V2),
            ..from_json(response.body())?
        })
    }

    /// The versions of `member`, from the first of its URLs that answers. Failures are logged.
    ///
    /// # Errors
    /// The last failure; none if the member has no URL.
    pub async fn versions_of(&self, member: &Member) -> Result<Versions, Option<ClientError>> {
        let ask = async |url: &Url| {
            self.version(url).await.inspect_err(|error| {
                crate::warn!("failed to get version"; "address" => url.as_str(),
                    "remote-member-id" => Hex(member.id), "error" => Text(error));
            })
        };
        ask_each_url(member, ask).await
    }

    /// Whether the cluster is being downgraded.
    ///
    /// # Errors
    /// [`ClientError`]; also from members before 3.5.
    pub async fn downgrade_enabled(&self, url: &Url) -> Result<bool, ClientError> {
        let response = self.get(url, "/downgrade/enabled").await?;
        match response.body().as_ref() {
            b"true" => Ok(true),
            b"false" => Ok(false),
            other => Err(ClientError::Malformed(format!(
                "strconv.ParseBool: parsing {:?}: invalid syntax",
                String::from_utf8_lossy(other)
            ))),
        }
    }

    /// The hash of the keyspace at `revision`, from the member at `url`; 0 stands for the newest.
    ///
    /// # Errors
    /// [`ClientError::Compacted`], [`ClientError::FutureRevision`],
    /// [`ClientError::ClusterMismatch`], and those of any request.
    pub async fn hash_kv(
        &self,
        url: &Url,
        cluster_id: u64,
        revision: i64,
    ) -> Result<HashKv, ClientError> {
        let body = serde_json::to_string(&HashKvRequest { revision })
            .expect("a plain number has a JSON form");
        let mut request = request(Method::GET, "/members/hashkv", body);
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CLUSTER_ID, hex_value(cluster_id));
        let response = self.exchange(url, request, RetryPolicy::Repeatable).await?;
        let body = String::from_utf8_lossy(response.body());
        match response.status() {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST if body.contains(COMPACTED) => {
                return Err(ClientError::Compacted);
            }
            StatusCode::BAD_REQUEST if body.contains(FUTURE_REVISION) => {
                return Err(ClientError::FutureRevision);
            }
            StatusCode::PRECONDITION_FAILED if body.contains(CLUSTER_MISMATCH) => {
                return Err(ClientError::ClusterMismatch);
            }
            _ => return Err(ClientError::Refused(format!("unknown error: {body}"))),
        }
        let answer: HashKvResponse = from_json(response.body())?;
        Ok(HashKv {
            hash: answer.hash,
            current_revision: answer.header.revision,
            compact_revision: answer.compact_revision,
            hash_revision: answer.hash_revision,
        })
    }

    /// Renews a lease at the leader, which must be at `url`. Returns its time to live in seconds.
    ///
    /// # Errors
    /// [`ClientError::LeaseNotFound`], [`ClientError::NotCaughtUp`], [`ClientError::Refused`] if
    /// the member is not the leader, and those of any request.
    pub async fn lease_renew(&self, url: &Url, id: i64) -> Result<i64, ClientError> {
        let request = LeaseKeepAliveRequest { id };
        let body = self.lease(url, "/leases", request.encode_to_vec()).await?;
        let answer: LeaseKeepAliveResponse = from_proto(&body)?;
        if answer.id != id {
            return Err(ClientError::Malformed(
                "lease: renew id mismatch".to_owned(),
            ));
        }
        Ok(answer.ttl)
    }

    /// The time that a lease has left, and its keys if they are asked for, from the leader.
    ///
    /// # Errors
    /// As [`Client::lease_renew`].
    pub async fn lease_time_to_live(
        &self,
        url: &Url,
        id: i64,
        keys: bool,
    ) -> Result<LeaseTimeToLiveResponse, ClientError> {
        let request = LeaseInternalRequest {
            lease_time_to_live_request: Some(LeaseTimeToLiveRequest { id, keys }),
        };
        let path = "/leases/internal";
        let body = self.lease(url, path, request.encode_to_vec()).await?;
        let answer: LeaseInternalResponse = from_proto(&body)?;
        let answer = answer.lease_time_to_live_response.unwrap_or_default();
        if answer.id != id {
            return Err(ClientError::Malformed("lease: TTL id mismatch".to_owned()));
        }
        Ok(answer)
    }

    /// Asks the leader to promote a learner. `token` is the caller's, if there is authentication.
    ///
    /// # Errors
    /// [`ClientError::NotLearner`], [`ClientError::LearnerNotReady`],
    /// [`ClientError::MemberNotFound`], [`ClientError::Timeout`], and what any request may meet.
    pub async fn promote_member(
        &self,
        url: &Url,
        id: u64,
        token: Option<&str>,
    ) -> Result<Vec<Member>, ClientError> {
        let path = format!("/members/promote/{id}");
        let mut request = request(Method::POST, &path, Bytes::new());
        if let Some(token) = token.and_then(|token| HeaderValue::from_str(token).ok()) {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        let none = HeaderValue::from_static("0");
        request.headers_mut().insert(CONTENT_LENGTH, none);
        let response = self
            .exchange(url, request, RetryPolicy::NonRepeatable)
            .await?;
        let body = String::from_utf8_lossy(response.body());
        match response.status() {
            StatusCode::OK => json_members(response.body()),
            StatusCode::REQUEST_TIMEOUT => Err(ClientError::Timeout),
            StatusCode::NOT_FOUND => Err(ClientError::MemberNotFound),
            StatusCode::PRECONDITION_FAILED if body.contains(LEARNER_NOT_READY) => {
                Err(ClientError::LearnerNotReady)
            }
            StatusCode::PRECONDITION_FAILED if body.contains(NOT_LEARNER) => {
                Err(ClientError::NotLearner)
            }
            _ => Err(ClientError::Refused(format!(
                "member promote: unknown error({body})"
            ))),
        }
    }

    async fn lease(&self, url: &Url, path: &str, body: Vec<u8>) -> Result<Bytes, ClientError> {
        let mut request = request(Method::POST, path, body);
        let content_type = HeaderValue::from_static("application/protobuf");
        request.headers_mut().insert(CONTENT_TYPE, content_type);
        let response = self.exchange(url, request, RetryPolicy::Repeatable).await?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body()),
            StatusCode::REQUEST_TIMEOUT => Err(ClientError::NotCaughtUp),
            StatusCode::NOT_FOUND => Err(ClientError::LeaseNotFound),
            _ => Err(ClientError::Refused(format!(
                "lease: unknown error({})",
                String::from_utf8_lossy(response.body())
            ))),
        }
    }

    /// A page that answers 200.
    async fn get(&self, url: &Url, path: &str) -> Result<Response<Bytes>, ClientError> {
        let request = request(Method::GET, path, Bytes::new());
        let response = self.exchange(url, request, RetryPolicy::Repeatable).await?;
        match response.status() {
            StatusCode::OK => Ok(response),
            _ => {
                let text = String::from_utf8_lossy(response.body());
                Err(ClientError::Refused(text.trim_end().to_owned()))
            }
        }
    }

    async fn exchange(
        &self,
        url: &Url,
        request: Request<Bytes>,
        retry: RetryPolicy,
    ) -> Result<Response<Bytes>, ExchangeError> {
        let mut connection = self.take_connection(url);
        let limit = self.0.timeout;
        let response = connection
            .exchange(url, request, retry, limit, BODY_BYTES_MAX)
            .await?;
        let mut idle = self.0.idle.lock();
        if idle.len() >= IDLE_MAX {
            idle.remove(0);
        }
        idle.push((url.as_str().to_owned(), connection));
        Ok(response)
    }

    /// The connection to `url` that was used last, or a new one.
    fn take_connection(&self, url: &Url) -> PersistentConnection {
        let mut idle = self.0.idle.lock();
        let kept = idle.iter().rposition(|(kept, _)| kept == url.as_str());
        match kept {
            Some(at) => idle.remove(at).1,
            None => PersistentConnection::new(self.0.dialer.clone(), IO_TIMEOUT),
        }
    }
}

fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    let mut request = Request::new(body.into());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse::<Uri>().expect("words and digits make a path");
    request
}

fn from_json<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Malformed(error.to_string()))
}

fn json_members(body: &[u8]) -> Result<Vec<Member>, ClientError> {
    from_json(body)
}

fn from_proto<T: prost::Message + Default>(body: &Bytes) -> Result<T, ClientError> {
    T::decode(body.clone()).map_err(|error| ClientError::Malformed(format!("lease: {error}")))
}
