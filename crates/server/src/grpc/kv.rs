//! Service `KV`.

use std::rc::Rc;
use std::time::Instant;

use hyper::Response;
use hyper::body::Incoming;
use prost::Message;
use retcd_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, InternalRaftRequest, PutRequest,
    RangeRequest, TxnRequest,
};
use retcd_state::auth::{Access, AuthError, AuthStore, Caller};
use retcd_state::machine::Reply;
use retcd_state::mvcc::{self, RangeReply, RangeStream};
use retcd_state::{quota, request};
use tokio::sync::mpsc;

use super::header::header;
use super::status::{self, Code, Status};
use super::wire::{MessageReader, ResponseBody, frame, stream_response};
use super::{Context, Framed, encode, read_request};
use crate::auth::Credentials;
use crate::metrics::Operation;
use crate::runtime::{Local, Permit};

/// Messages of a stream that wait for the client to take them.
const STREAM_BACKLOG: usize = 4;

/// `Range`, answered from memory once this member is known to be up to date.
pub async fn range_call(
    local: Rc<Local>,
    credentials: Credentials,
    request: RangeRequest,
) -> Framed {
    if !request.serializable && local.member.is_learner() {
        return Err(status::NOT_FOR_LEARNER);
    }
    request::check_range(&request)?;
    let started = Instant::now();
    let reply = range(&local, &credentials, &request).await;
    local.observe(Operation::Range, started, reply.is_ok());
    let reply = reply?;
    Ok(encode::range(local.member.origin(), &reply))
}

async fn range(
    local: &Local,
    credentials: &Credentials,
    request: &RangeRequest,
) -> Result<RangeReply, Status> {
    if !request.serializable {
        local.linearizable().await?;
    }
    let read = || {
        local.member.metrics.mvcc.ranges.inc();
        Ok(local.member.reader.range(request)?)
    };
    local.read_as(credentials, may_read(request), read).await
}

fn may_read(
    request: &RangeRequest,
) -> impl FnOnce(&AuthStore, Caller<'_>) -> Result<(), AuthError> {
    move |store, who| store.check_keys(who, Access::Read, &request.key, &request.range_end)
}

/// `RangeStream`: the same in chunks, for lists of any length.
pub async fn range_stream(
    context: Context,
    mut reader: MessageReader<Incoming>,
) -> Response<ResponseBody> {
    let opened = async {
        let request: RangeRequest = read_request(&mut reader).await?;
        context.count_received(&request);
        open_range_stream(&context, request).await
    };
    let (mut chunks, permit) = match opened.await {
        Ok(opened) => opened,
        Err(status) => return context.fail(status),
    };
    let origin = context.local.member.origin();
    let (sender, receiver) = mpsc::channel(STREAM_BACKLOG);
    tokio::task::spawn_local(async move {
        let ended = loop {
            let chunk = match chunks.next_chunk() {
                Ok(Some(chunk)) => encode::range_chunk(origin, &chunk),
                Ok(None) => break context.local.confirm(permit),
                Err(error) => break Err(Status::from(error)),
            };
            context.call.message_sent();
            context
                .local
                .member
                .metrics
                .network
                .client_sent_bytes
                .inc_by(chunk.len() as u64);
            if sender.send(Ok(chunk)).await.is_err() {
                return; // The client is gone; dropping the call counts it as cancelled.
            }
        };
        let code = ended
            .as_ref()
            .map_or_else(|status: &Status| status.code, |()| Code::Ok);
        context.call.end(code);
        if let Err(status) = ended {
            let _ = sender.send(Err(status)).await;
        }
    });
    stream_response(receiver)
}

async fn open_range_stream(
    context: &Context,
    request: RangeRequest,
) -> Result<(RangeStream, Permit), Status> {
    request::check_range_stream(&request)?;
    let local = &context.local;
    if !request.serializable {
        local.linearizable().await?;
    }
    let permit = local
        .permit(&context.credentials, may_read(&request))
        .await?;
    let chunk_bytes = local.member.limits.request_bytes_max;
    let stream = local.member.reader.range_stream(request, chunk_bytes)?;
    Ok((stream, permit))
}

/// `Put`.
pub async fn put(local: Rc<Local>, credentials: Credentials, request: PutRequest) -> Framed {
    request::check_put(&request)?;
    let _promised = local.check_space(quota::put_cost(&request)).await?;
    let request = InternalRaftRequest {
        put: Some(request),
        ..Default::default()
    };
    match local
        .propose_as(&credentials, Operation::Put, request)
        .await?
    {
        Reply::Put(reply) => Ok(encode::put(local.member.origin(), &reply)),
        other => unreachable!("a put was answered with {other:?}"),
    }
}

/// `DeleteRange`.
pub async fn delete_range(
    local: Rc<Local>,
    credentials: Credentials,
    request: DeleteRangeRequest,
) -> Framed {
    request::check_delete_range(&request)?;
    let request = InternalRaftRequest {
        delete_range: Some(request),
        ..Default::default()
    };
    match local
        .propose_as(&credentials, Operation::DeleteRange, request)
        .await?
    {
        Reply::DeleteRange(reply) => Ok(encode::delete(local.member.origin(), &reply)),
        other => unreachable!("a deletion was answered with {other:?}"),
    }
}

/// `Txn`; one that only reads does not go through the log.
///
/// What it costs to refuse one grows from check to check: form and size are looked at first, then who asks,
/// and then only whether keys are named twice.
pub async fn txn(local: Rc<Local>, credentials: Credentials, request: TxnRequest) -> Framed {
    let ops = request::check_txn(&request, local.member.limits.txn_ops_max)?;
    if mvcc::is_read_only(&request) {
        return read_only_txn(&local, &credentials, &request).await;
    }
    if request.encoded_len() > local.member.limits.request_bytes_max {
        return Err(status::REQUEST_TOO_LARGE);
    }
    let identity = local.identify(&credentials).await?;
    if identity.is_none() {
        // What nobody may do is refused where it is applied; no need to go on until there.
        let store = local.member.auth.read();
        store.check_txn(Caller::default(), &request, &local.member.lessor)?;
    }
    let request = check_duplicates(&local, request, ops).await?;
    let _promised = local.check_space(quota::txn_cost(&request)).await?;
    match local.propose_txn(identity, request, ops).await? {
        Reply::Txn(reply) => Ok(encode::txn(local.member.origin(), &reply)),
        other => unreachable!("a transaction was answered with {other:?}"),
    }
}

async fn read_only_txn(local: &Local, credentials: &Credentials, request: &TxnRequest) -> Framed {
    if !mvcc::is_serializable(request) {
        local.linearizable().await?;
    }
    let started = Instant::now();
    let lessor = &local.member.lessor;
    let may_read = |store: &AuthStore, who: Caller<'_>| store.check_txn(who, request, lessor);
    let read = || Ok(local.member.reader.txn(request)?);
    let reply = local.read_as(credentials, may_read, read).await;
    local.observe(Operation::ReadonlyTxn, started, reply.is_ok());
    let reply = reply?;
    Ok(encode::txn(local.member.origin(), &reply))
}

/// Refuses a transaction that puts a key twice, or puts and deletes it.
async fn check_duplicates(
    local: &Local,
    request: TxnRequest,
    ops: usize,
) -> Result<TxnRequest, Status> {
    if ops <= Local::INLINE_OPS_MAX {
        request::check_duplicates(&request)?;
        return Ok(request);
    }
    let check = move || request::check_duplicates(&request).map(|()| request);
    Ok(local.member.workers.run(check).await??)
}

/// `Compact`; a physical one is answered when the space is free and the database committed.
pub async fn compact(
    local: Rc<Local>,
    credentials: Credentials,
    request: CompactionRequest,
) -> Framed {
    let CompactionRequest { revision, physical } = request;
    let request = InternalRaftRequest {
        compaction: Some(request),
        ..Default::default()
    };
    let reply = match local
        .propose_as(&credentials, Operation::Compaction, request)
        .await?
    {
        Reply::Compact(reply) => reply,
        other => unreachable!("a compaction was answered with {other:?}"),
    };
    if physical {
        local.member.compaction_finished(revision).await;
        local
            .member
            .commit_backend()
            .await
            .map_err(|_| status::NO_SPACE)?;
    }
    Ok(frame(&CompactionResponse {
        header: Some(header(local.member.origin(), reply.revision)),
    }))
}
