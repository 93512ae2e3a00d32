//! `/v2/members` and `/v2/machines`.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use retcd_member::Error;
use retcd_member::access::Credentials;
use retcd_proto::go_json::{self, Object};
use retcd_state::machine::ApplyError;
use retcd_state::membership::{Member, MemberError};
use serde::Serialize;

use super::Context;
use super::credentials::login_of;
use super::document;
use super::form::{BROKEN, read_all};
use super::reply::{self, Response, message, page};
use crate::auth::CommonName;
use crate::config::url::Url;
use crate::net_http;
use crate::net_http::body::Unread;
use crate::server::ServerThread;

/// A member as clients of API v2 see it.
#[derive(Serialize)]
struct MemberDocument<'a> {
    id: String,
    name: &'a str,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "clientURLs")]
    client_urls: &'a [String],
}

#[derive(Serialize)]
struct MembersDocument<'a> {
    members: Vec<MemberDocument<'a>>,
}

impl MemberDocument<'_> {
    fn of(member: &Member) -> MemberDocument<'_> {
        MemberDocument {
            id: format!("{:x}", member.id),
            name: &member.name,
            peer_urls: member.peer_urls(),
            client_urls: member.client_urls(),
        }
    }
}

fn document_of(status: StatusCode, value: &impl Serialize) -> Response {
    reply::json(status, document::to_json(value) + "\n")
}

/// `/v2/machines`.
pub(super) fn machines(context: &Context<'_>) -> Response {
    if let Some(refusal) = reply::refuse_method(context.method(), &["GET", "HEAD"]) {
        return refusal;
    }
    let membership = context.thread.server.member.state.membership.read();
    let urls = membership.members().flat_map(Member::client_urls);
    let mut urls: Vec<&str> = urls.map(String::as_str).collect();
    urls.sort_unstable();
    page(net_http::reply::ok(net_http::reply::TEXT, urls.join(", ")))
}

/// `/v2/members` and `rest` behind it.
pub(super) async fn members(mut context: Context<'_>, rest: &str) -> Response {
    const METHODS: [&str; 4] = ["GET", "POST", "DELETE", "PUT"];
    if let Some(refusal) = reply::refuse_method(context.method(), &METHODS) {
        return refusal;
    }
    let response = match context.method().as_str() {
        "GET" => show(context.thread, rest),
        _ => {
            // Whoever may not change anything is not told the cluster's id either, as in etcd 3.3.
            if let Err(refusal) = check_root(&context).await {
                return refusal;
            }
            change(&mut context, rest).await.unwrap_or_else(|e| e)
        }
    };
    reply::with_cluster(context.thread, response)
}

fn show(thread: &ServerThread, rest: &str) -> Response {
    let member = &thread.server.member;
    let membership = member.state.membership.read();
    match rest {
        "" => {
            let members = membership.members().map(MemberDocument::of).collect();
            document_of(StatusCode::OK, &MembersDocument { members })
        }
        "leader" => match membership.member(member.leadership.leader()) {
            Some(leader) => document_of(StatusCode::OK, &MemberDocument::of(leader)),
            None => message(StatusCode::SERVICE_UNAVAILABLE, "During election"),
        },
        _ => message(StatusCode::NOT_FOUND, "Not found"),
    }
}

/// Whether whoever asks has the role of root, or nobody needs it.
async fn check_root(context: &Context<'_>) -> Result<(), Response> {
    let login = login_of(context.head.headers(), context.head.extensions());
    let is_root = context.thread.member.v2.auth().is_root(&login).await;
    match is_root.map_err(|error| reply::failure(&error))? {
        true => Ok(()),
        false => Err(reply::unauthorized()),
    }
}

/// A change of the membership; the error is an answer, too.
async fn change(context: &mut Context<'_>, rest: &str) -> Result<Response, Response> {
    // API v3 knows nobody by a password; where its users are on, it has a word, too.
    let certificate = context.head.extensions().get::<CommonName>();
    let credentials = Credentials {
        token: None,
        certificate: certificate.map(|CommonName(name)| name.clone()),
    };
    let cluster = &context.thread.member.cluster;
    if context.method() == "POST" {
        let urls = peer_urls(context).await?;
        let added = cluster.add(&credentials, &urls, false).await;
        let (member, _) = added.map_err(|error| refusal(&error, rest))?;
        let added = MemberDocument::of(&member);
        return Ok(document_of(StatusCode::CREATED, &added));
    }
    if rest.is_empty() {
        return Err(reply::method_not_allowed());
    }
    let id = u64::from_str_radix(rest, 16).ok();
    let id = id.filter(|_| !rest.starts_with('+'));
    let id = id.ok_or_else(|| no_such_member(rest))?;
    let changed = match context.method().as_str() {
        "PUT" => {
            let urls = peer_urls(context).await?;
            cluster.update(&credentials, id, urls).await
        }
        _ => cluster.remove(&credentials, id).await,
    };
    changed.map_err(|error| refusal(&error, rest))?;
    let mut response = http::Response::new(crate::grpc::wire::ResponseBody::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// The peer URLs in the body, sorted.
async fn peer_urls(context: &mut Context<'_>) -> Result<Vec<String>, Response> {
    let bad = |text: &str| message(StatusCode::BAD_REQUEST, text);
    let found = body_type(context.head.headers());
    if found != "application/json" {
        return Err(message(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            &format!("Bad Content-Type {found}, accept application/json"),
        ));
    }
    let body = read_all(context.body).await;
    let body = body.map_err(|unread| match unread {
        Unread::TooLarge => bad("http: request body too large"),
        Unread::Broken => bad(BROKEN),
    })?;
    let texts = go_json::parse(&body).and_then(|value| {
        let document = Object::of(
            &value,
            "struct { PeerURLs []string \"json:\\\"peerURLs\\\"\" }",
        )?;
        document.strings("peerURLs")
    });
    let texts = texts.map_err(|error| bad(&error.to_string()))?;
    let texts = texts.unwrap_or_default();
    if texts.is_empty() {
        return Err(bad("no valid URLs given"));
    }
    let urls: Result<Vec<Url>, _> = texts.iter().map(|text| Url::parse(text)).collect();
    let mut urls = urls.map_err(|error| bad(&error.to_string()))?;
    urls.sort();
    Ok(urls.iter().map(ToString::to_string).collect())
}

/// The type of the body, as etcd takes it from the header.
fn body_type(headers: &HeaderMap) -> String {
    let header = headers.get(CONTENT_TYPE);
    let header = header.and_then(|value| value.to_str().ok());
    let header = header.unwrap_or_default();
    match header.split_once(';') {
        Some((found, _)) => found.to_ascii_lowercase().trim().to_owned(),
        None => header.to_owned(),
    }
}

fn no_such_member(id: &str) -> Response {
    message(StatusCode::NOT_FOUND, &format!("No such member: {id}"))
}

/// Why the membership was not changed.
fn refusal(error: &Error, id: &str) -> Response {
    match error {
        Error::Refused(ApplyError::Member(MemberError::IdExists)) => {
            message(StatusCode::CONFLICT, "membership: ID exists")
        }
        Error::Refused(ApplyError::Member(MemberError::PeerUrlExists)) => {
            message(StatusCode::CONFLICT, "membership: peerURL exists")
        }
        Error::Refused(ApplyError::Member(MemberError::IdRemoved)) => message(
            StatusCode::GONE,
            &format!("Member permanently removed: {id}"),
        ),
        Error::Refused(ApplyError::Member(MemberError::IdNotFound)) => no_such_member(id),
        Error::Refused(ApplyError::Auth(_)) => reply::unauthorized(),
        error => reply::failure(error),
    }
}
