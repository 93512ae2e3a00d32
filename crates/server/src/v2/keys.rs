//! `/v2/keys`: reads, writes and watches.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body_util::Full;
use retcd_member::Error;
use retcd_member::v2::Access;
use retcd_state::v2::{self, Answer, Code, Event};
use tokio::time::timeout;

use super::Context;
use super::credentials::login_of;
use super::form::Form;
use super::json::{self, Detail, KEYS};
use super::parameters::{Parameters, refused};
use super::reply::{self, ETCD_INDEX, RAFT_INDEX, RAFT_TERM, Response};
use super::watch::watch;
use crate::clock::timestamp;
use crate::grpc::wire::ResponseBody;

const METHODS: [&str; 5] = ["HEAD", "GET", "PUT", "POST", "DELETE"];

/// Why there is no event.
enum Failure {
    /// What the client has asked for.
    Request(v2::Error),
    /// There is no answer.
    Member(Error),
}

impl From<v2::Error> for Failure {
    fn from(error: v2::Error) -> Failure {
        Failure::Request(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Member(error)
    }
}

/// Answers a request about `key`.
pub(super) async fn keys(mut context: Context<'_>, key: &str) -> Response {
    if let Some(refusal) = reply::refuse_method(context.method(), &METHODS) {
        return refusal;
    }
    match answer(&mut context, key).await {
        Ok(response) => response,
        Err(Failure::Request(error)) => reply::key_error(context.thread, &error),
        Err(Failure::Member(error)) => reply::key_failure(context.thread, error),
    }
}

async fn answer(context: &mut Context<'_>, key: &str) -> Result<Response, Failure> {
    let form = Form::read(context).await?;
    let method = context.method().as_str();
    let parameters = Parameters::of(method, &form)?;
    check_access(context, key, &parameters).await?;
    let path = format!("{KEYS}{key}");
    let detail = match parameters.no_value_on_success {
        true => Detail::Action,
        false => Detail::Full,
    };
    let event = match method {
        "GET" if parameters.quorum => propose(context, "QGET", path, parameters).await?,
        "GET" if parameters.wait => return Ok(watch(context, &path, &parameters)?),
        "GET" | "HEAD" => read(context, path, parameters.recursive).await?,
        method => propose(context, method, path, parameters).await?,
    };
    Ok(respond(context, event, detail).await?)
}

/// Whether whoever asks may do that.
async fn check_access(
    context: &Context<'_>,
    key: &str,
    parameters: &Parameters,
) -> Result<(), Failure> {
    let login = login_of(context.head.headers(), context.head.extensions());
    let access = Access {
        key,
        recursive: parameters.recursive,
        write: !matches!(context.method().as_str(), "GET" | "HEAD"),
    };
    match context.thread.member.v2.auth().may(&login, access).await? {
        true => Ok(()),
        false => Err(refused(Code::Unauthorized, "Insufficient credentials").into()),
    }
}

/// A read of what this member has. That of a subtree may take long.
async fn read(context: &Context<'_>, path: String, recursive: bool) -> Result<Arc<Event>, Failure> {
    let now = timestamp();
    let reader = context.thread.member.v2.reader().clone();
    let read = move || reader.get(&path, recursive, now);
    let event = match recursive {
        false => read(),
        true => context.thread.server.member.workers.run(read).await?,
    };
    Ok(Arc::new(event?))
}

/// A write, or a read of a quorum.
async fn propose(
    context: &Context<'_>,
    method: &str,
    path: String,
    parameters: Parameters,
) -> Result<Arc<Event>, Failure> {
    let request = parameters.request(method, path, timestamp());
    match context.thread.member.v2.propose(request).await?? {
        Answer::Event(event) => Ok(event),
        other => unreachable!("{method} was answered with {other:?}"),
    }
}

/// The answer with an event. The length of a long one is known, and its memory reserved, before it is
/// written.
async fn respond(
    context: &Context<'_>,
    event: Arc<Event>,
    detail: Detail,
) -> Result<Response, Error> {
    let server = &context.thread.server;
    let status = match event.is_created() {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let index = event.store_index;
    let mut measured = json::Measured::default();
    json::event(&mut measured, &event, detail);
    let length = measured.length();
    let patience = server.config.request_timeout();
    let reservation = timeout(patience, server.answers.reserve(length)).await;
    let mut reservation = reservation.map_err(|_| Error::TIMED_OUT)?;
    let write = move || {
        let mut body = Vec::with_capacity(length);
        json::event(&mut body, &event, detail);
        Bytes::from(body)
    };
    let body = match measured.into_short() {
        Some(body) => Bytes::from(body),
        None => server.member.workers.run(write).await?,
    };
    let body = reservation.hold(body).hand_over(context.connection);
    let mut response = reply::json(status, Bytes::new());
    *response.body_mut() = ResponseBody::Page(Full::new(body));
    let (raft_index, term) = context.thread.member.v2.raft_position();
    let headers = response.headers_mut();
    headers.insert(ETCD_INDEX, HeaderValue::from(index));
    headers.insert(RAFT_INDEX, HeaderValue::from(raft_index));
    headers.insert(RAFT_TERM, HeaderValue::from(term));
    Ok(reply::with_cluster(context.thread, response))
}
