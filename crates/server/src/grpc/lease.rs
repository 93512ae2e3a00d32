//! Service `Lease`.

use std::rc::Rc;

use bytes::Bytes;
use retcd_member::access::Credentials;
use retcd_member::lease::{KeepAliveAnswer, LeaseRevision};
use retcd_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, ResponseHeader,
};
use retcd_state::lease::TimeToLive;

use super::Context;
use super::encode::Plain;
use super::frames;
use super::header::{header, of_leaders_revision};
use super::reply::Reply;
use super::requests::Requests;
use crate::server::ServerThread;
use crate::status::{self, Status};

/// Replies that wait for a client to take them before its next keep-alive is read.
const KEEP_ALIVE_BACKLOG: usize = 16;

/// `LeaseGrant`.
pub(super) async fn grant(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: LeaseGrantRequest,
) -> Result<Plain<LeaseGrantResponse>, Status> {
    let reply = thread.member.leases.grant(&credentials, request).await?;
    Ok(Plain(LeaseGrantResponse {
        header: Some(header(thread.server.member.origin(), reply.revision)),
        id: reply.id,
        ttl: reply.ttl,
        error: String::new(),
    }))
}

/// `LeaseRevoke`.
pub(super) async fn revoke(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: LeaseRevokeRequest,
) -> Result<Plain<LeaseRevokeResponse>, Status> {
    let leases = &thread.member.leases;
    let revision = leases.revoke(&credentials, request.id).await?;
    Ok(Plain(LeaseRevokeResponse {
        header: Some(header(thread.server.member.origin(), revision)),
    }))
}

/// `LeaseTimeToLive`.
pub(super) async fn time_to_live(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: LeaseTimeToLiveRequest,
) -> Result<Plain<LeaseTimeToLiveResponse>, Status> {
    let LeaseTimeToLiveRequest { id, keys } = request;
    let leases = &thread.member.leases;
    let answer = leases.time_to_live(&credentials, id, keys).await?;
    let origin = thread.server.member.origin();
    let header = match answer.revision {
        LeaseRevision::Own(revision) => header(origin, revision),
        LeaseRevision::Leaders(revision) => of_leaders_revision(origin, revision),
    };
    Ok(Plain(time_to_live_response(header, id, answer.found)))
}

/// What is said of a lease, to clients and other members; one that does not exist has -1 seconds
/// left.
pub(crate) fn time_to_live_response(
    header: ResponseHeader,
    id: i64,
    found: Option<TimeToLive>,
) -> LeaseTimeToLiveResponse {
    let Some(found) = found else {
        return LeaseTimeToLiveResponse {
            header: Some(header),
            id,
            ttl: -1,
            ..LeaseTimeToLiveResponse::default()
        };
    };
    let keys = found.keys.iter();
    LeaseTimeToLiveResponse {
        header: Some(header),
        id,
        ttl: found.ttl,
        granted_ttl: found.granted_ttl,
        keys: keys.map(|key| Bytes::copy_from_slice(key)).collect(),
    }
}

/// `LeaseLeases`.
pub(super) async fn leases(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    _request: LeaseLeasesRequest,
) -> Result<Plain<LeaseLeasesResponse>, Status> {
    let (ids, revision) = thread.member.leases.list(&credentials).await?;
    Ok(Plain(LeaseLeasesResponse {
        header: Some(header(thread.server.member.origin(), revision)),
        leases: ids.into_iter().map(|id| LeaseStatus { id }).collect(),
    }))
}

/// `LeaseKeepAlive`: a reply to each request, until the client ends its half.
pub(super) async fn keep_alive(context: Context, mut reader: Requests) -> Reply {
    let (sender, receiver) = frames::channel(KEEP_ALIVE_BACKLOG);
    tokio::task::spawn_local(async move {
        let thread = Rc::clone(&context.thread);
        let mut leaderless = context.leaderless();
        let ended = tokio::select! {
            ended = keep_alive_loop(&context, &mut reader, &sender) => ended,
            () = leaderless.wait() => Err(status::NO_LEADER),
            () = thread.server.member.signals.stopped() => Err(status::STOPPED),
        };
        context.end_stream(&sender, ended).await;
    });
    Reply::Stream(receiver)
}

async fn keep_alive_loop(
    context: &Context,
    reader: &mut Requests,
    sender: &frames::Sender,
) -> Result<(), Status> {
    let (leases, member) = (&context.thread.member.leases, &context.thread.server.member);
    while let Some(received) = context.stream_request("lease-keepalive", reader.next().await)? {
        let request: LeaseKeepAliveRequest = context.decode(received).await?;
        // Boxed, so that a stream at rest does not have the room for it.
        let mut renewed = Box::pin(leases.keep_alive(&context.credentials, request.id));
        let answer = context.traced.within(renewed.as_mut()).await?;
        context.traced.end_operation();
        let KeepAliveAnswer { id, ttl, revision } = answer;
        let response = LeaseKeepAliveResponse {
            header: Some(header(member.origin(), revision)),
            id,
            ttl,
        };
        context.send(sender, &response).await?;
    }
    Ok(())
}
