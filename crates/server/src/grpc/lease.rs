//! Service `Lease`.
//!
//! Grants and revocations go through the log. Keep-alives do not: the leader alone keeps deadlines, and
//! a new one gives every lease its full time again. A member that does not lead asks the one that does.

use std::rc::Rc;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Incoming;
use retcd_proto::etcdserverpb::{
    InternalRaftRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
};
use retcd_state::auth::{Access, AuthError, AuthStore, Caller};
use retcd_state::lease::Lessor;
use retcd_state::machine::Reply;
use retcd_state::quota;
use tokio::sync::mpsc;

use super::answer::{Answer, answer};
use super::encode::Plain;
use super::header::header;
use super::status::{self, Code, Status};
use super::wire::{MessageReader, ResponseBody, frame, stream_response};
use super::{Context, Framed};
use crate::auth::Credentials;
use crate::metrics::Operation;
use crate::runtime::Local;

/// Replies that wait for a client to take them before its next keep-alive is read.
const KEEP_ALIVE_BACKLOG: usize = 16;

/// `LeaseGrant`; id 0 lets this member choose one.
pub async fn grant(
    local: Rc<Local>,
    credentials: Credentials,
    mut request: LeaseGrantRequest,
) -> Framed {
    while request.id == 0 {
        request.id = (local.next_id() & i64::MAX as u64) as i64;
    }
    let _promised = local.check_space(quota::LEASE_GRANT_COST).await?;
    let request = InternalRaftRequest {
        lease_grant: Some(request),
        ..Default::default()
    };
    match local
        .propose_as(&credentials, Operation::LeaseGrant, request)
        .await?
    {
        Reply::LeaseGrant(reply) => {
            local.member.metrics.lease.granted.inc();
            local.member.metrics.lease.ttl.observe(reply.ttl as f64);
            frame(&LeaseGrantResponse {
                header: Some(header(local.member.origin(), reply.revision)),
                id: reply.id,
                ttl: reply.ttl,
                error: String::new(),
            })
        }
        other => unreachable!("a grant was answered with {other:?}"),
    }
}

/// `LeaseRevoke`.
pub async fn revoke(
    local: Rc<Local>,
    credentials: Credentials,
    request: LeaseRevokeRequest,
) -> Framed {
    let request = InternalRaftRequest {
        lease_revoke: Some(request),
        ..Default::default()
    };
    match local
        .propose_as(&credentials, Operation::LeaseRevoke, request)
        .await?
    {
        Reply::LeaseRevoke { revision } => {
            local.member.metrics.lease.revoked.inc();
            frame(&LeaseRevokeResponse {
                header: Some(header(local.member.origin(), revision)),
            })
        }
        other => unreachable!("a revocation was answered with {other:?}"),
    }
}

/// `LeaseTimeToLive`; a lease that does not exist has -1 seconds left.
pub async fn time_to_live(
    local: Rc<Local>,
    credentials: Credentials,
    request: LeaseTimeToLiveRequest,
) -> Result<Answer, Status> {
    let response = local.lease_time_to_live(request).await?;
    // These keys, not those that the lease has a moment earlier or later.
    let keys = response.keys.iter();
    let may_read = |store: &AuthStore, who: Caller<'_>| may_read_all(store, who, keys);
    local.require(&credentials, may_read).await?;
    answer(&local, Plain(response)).await
}

fn may_read_all<'a>(
    store: &AuthStore,
    who: Caller<'_>,
    mut keys: impl Iterator<Item = &'a Bytes>,
) -> Result<(), AuthError> {
    if store.check_admin(who).is_ok() {
        return Ok(());
    }
    keys.try_for_each(|key| store.check_keys(who, Access::Read, key, b""))
}

/// `LeaseLeases`, for those who may read all keys of all leases.
pub async fn leases(
    local: Rc<Local>,
    credentials: Credentials,
    _request: LeaseLeasesRequest,
) -> Result<Answer, Status> {
    let (mut leases, revision) = local.look_at_leases(Lessor::list).await;
    let lessor = &local.member.lessor;
    leases.sort_unstable();
    let ids: Vec<i64> = leases.into_iter().map(|(_, id)| id).collect();
    let may_read = |store: &AuthStore, who: Caller<'_>| {
        ids.iter()
            .try_for_each(|id| store.check_lease(who, Access::Read, *id, lessor))
    };
    local.require(&credentials, may_read).await?;
    let leases = ids.into_iter().map(|id| LeaseStatus { id }).collect();
    let header = Some(header(local.member.origin(), revision));
    answer(&local, Plain(LeaseLeasesResponse { header, leases })).await
}

/// `LeaseKeepAlive`: a reply to each request, until the client ends its half.
pub async fn keep_alive(
    context: Context,
    mut reader: MessageReader<Incoming>,
) -> Response<ResponseBody> {
    let (sender, receiver) = mpsc::channel(KEEP_ALIVE_BACKLOG);
    tokio::task::spawn_local(async move {
        let local = Rc::clone(&context.local);
        let mut leaderless = context.leaderless();
        let ended = tokio::select! {
            ended = keep_alive_loop(&context, &mut reader, &sender) => ended,
            () = leaderless.wait() => Err(status::NO_LEADER),
            () = local.member.stopped() => Err(status::STOPPED),
        };
        context.end_stream(&sender, ended).await;
    });
    stream_response(receiver)
}

async fn keep_alive_loop(
    context: &Context,
    reader: &mut MessageReader<Incoming>,
    sender: &mpsc::Sender<Result<bytes::Bytes, Status>>,
) -> Result<(), Status> {
    while let Some(received) = reader.next().await? {
        let request: LeaseKeepAliveRequest = context.decode(received).await?;
        let response = renew(context, request.id).await?;
        context.call.message_sent();
        if sender.send(frame(&response)).await.is_err() {
            return Err(Status::new(Code::Cancelled, "context canceled"));
        }
    }
    Ok(())
}

/// Who keeps a lease alive must be able to write its keys.
async fn check_renewal(context: &Context, id: i64) -> Result<(), Status> {
    let (local, credentials) = (&context.local, &context.credentials);
    if !local.member.auth.read().is_enabled() {
        return Ok(());
    }
    local.require_user(credentials).await?;
    let lessor = &local.member.lessor;
    if !lessor.lock().contains(id) {
        // Granted a moment ago, it may not be applied here yet, nor may its keys.
        local.linearizable().await?;
    }
    let may_write =
        |store: &AuthStore, who: Caller<'_>| store.check_lease(who, Access::Write, id, lessor);
    local.require(credentials, may_write).await
}

/// A lease that does not exist is answered with 0 seconds, not with an error.
async fn renew(context: &Context, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
    let local = &context.local;
    // Of before the renewal, so that it is none at which the lease may be gone.
    let ((), before) = local.look_at_leases(|_| ()).await;
    check_renewal(context, id).await?;
    let ttl = local.renew_lease(id).await?;
    let revision = match ttl {
        0 => local.revision_behind_all().await?,
        _ => before,
    };
    Ok(LeaseKeepAliveResponse {
        header: Some(header(local.member.origin(), revision)),
        id,
        ttl,
    })
}
