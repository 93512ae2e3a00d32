//! Service `KV`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
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
use retcd_state::watch::Origin;
use retcd_state::{quota, request};
use tokio::sync::mpsc;

use super::answer::{Answer, Patience, answer, answer_read};
use super::encode::{Headed, TxnAnswer};
use super::header::header;
use super::status::{self, Status};
use super::wire::{MessageReader, ResponseBody, frame, stream_response};
use super::{Context, Framed};
use crate::auth::Credentials;
use crate::metrics::Operation;
use crate::runtime::{Limits, Local, Permit};

/// Pieces of a stream's chunk that wait for the client to take them.
const STREAM_BACKLOG: usize = 1;

/// `Range`, answered from memory once this member is known to be up to date.
pub async fn range_call(
    local: Rc<Local>,
    credentials: Credentials,
    request: RangeRequest,
) -> Result<Answer, Status> {
    if !request.serializable && local.member.is_learner() {
        return Err(status::NOT_FOR_LEARNER);
    }
    request::check_range(&request)?;
    let read = async || {
        let started = Instant::now();
        let reply = range(&local, &credentials, &request).await;
        local.observe(Operation::Range, started, reply.is_ok());
        Ok(Headed(local.member.origin(), reply?))
    };
    answer_read(&local, read).await
}

async fn range(
    local: &Local,
    credentials: &Credentials,
    request: &RangeRequest,
) -> Result<RangeReply, Status> {
    if !request.serializable {
        local.linearizable().await?;
    }
    let read = async || Ok(local.member.range(request).await?);
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
        let request = context.read_request(&mut reader).await?;
        open_range_stream(&context, request).await
    };
    let (mut chunks, permit) = match opened.await {
        Ok(opened) => opened,
        Err(status) => return context.fail(status),
    };
    let origin = context.local.member.origin();
    let (sender, receiver) = mpsc::channel(STREAM_BACKLOG);
    tokio::task::spawn_local(async move {
        let sent = send_chunks(&context, origin, &mut chunks, &sender).await;
        let ended = match sent {
            Ok(true) => context.local.confirm(permit),
            // Dropping the call counts it as cancelled.
            Ok(false) => return,
            Err(status) => Err(status),
        };
        // The state of the store that it shows is not kept for a client that does not read how it ended.
        drop(chunks);
        context.end_stream(&sender, ended).await;
    });
    stream_response(receiver)
}

/// Sends one chunk after the other; the next is made when the connection has taken this one. `false` if
/// the client is gone.
async fn send_chunks(
    context: &Context,
    origin: Origin,
    chunks: &mut RangeStream,
    sender: &mpsc::Sender<Result<Bytes, Status>>,
) -> Result<bool, Status> {
    let local = &context.local;
    while let Some(chunk) = chunks.next_chunk()? {
        let chunk = answer(local, Headed(origin, chunk)).await?;
        context.count_sent(chunk.len());
        let pieces = chunk.into_pieces();
        if !context.deliver(pieces, Patience::Bounded, sender).await? {
            return Ok(false);
        }
    }
    Ok(true)
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
pub async fn put(
    local: Rc<Local>,
    credentials: Credentials,
    request: PutRequest,
) -> Result<Answer, Status> {
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
        Reply::Put(reply) => answer(&local, Headed(local.member.origin(), reply)).await,
        other => unreachable!("a put was answered with {other:?}"),
    }
}

/// `DeleteRange`.
pub async fn delete_range(
    local: Rc<Local>,
    credentials: Credentials,
    request: DeleteRangeRequest,
) -> Result<Answer, Status> {
    request::check_delete_range(&request)?;
    let request = InternalRaftRequest {
        delete_range: Some(request),
        ..Default::default()
    };
    match local
        .propose_as(&credentials, Operation::DeleteRange, request)
        .await?
    {
        Reply::DeleteRange(reply) => answer(&local, Headed(local.member.origin(), reply)).await,
        other => unreachable!("a deletion was answered with {other:?}"),
    }
}

/// A transaction of the right form.
pub enum PreparedTxn {
    /// It only reads, and does not go through the log.
    ReadOnly(Arc<TxnRequest>),
    /// It is small enough to be proposed.
    Write(WriteTxn),
}

/// A transaction and what proposing it takes.
pub struct WriteTxn {
    request: TxnRequest,
    /// Compares and operations, nested ones too.
    ops: usize,
    /// See [`quota::txn_cost`].
    cost: u64,
}

impl PreparedTxn {
    /// Looks `request` through, once.
    ///
    /// # Errors
    /// Its form is wrong; it is too large.
    pub fn new(request: TxnRequest, limits: Limits) -> Result<PreparedTxn, Status> {
        let ops = request::check_txn(&request, limits.txn_ops_max)?;
        if mvcc::is_read_only(&request) {
            return Ok(PreparedTxn::ReadOnly(request.into()));
        }
        if request.encoded_len() > limits.request_bytes_max {
            return Err(status::REQUEST_TOO_LARGE);
        }
        if ops <= Local::INLINE_OPS_MAX {
            // Cheap, so that whoever gets several things wrong hears of them in etcd's order.
            request::check_duplicates(&request)?;
        }
        let cost = quota::txn_cost(&request);
        Ok(PreparedTxn::Write(WriteTxn { request, ops, cost }))
    }
}

/// `Txn`.
///
/// What it costs to refuse one grows from check to check: form and size are looked at first; then, if it has many
/// operations, who asks, and then only whether keys are named twice.
pub async fn txn(
    local: Rc<Local>,
    credentials: Credentials,
    request: PreparedTxn,
) -> Result<Answer, Status> {
    let WriteTxn { request, ops, cost } = match request {
        PreparedTxn::ReadOnly(request) => {
            return read_only_txn(&local, &credentials, &request).await;
        }
        PreparedTxn::Write(txn) => txn,
    };
    let identity = local.identify(&credentials).await?;
    let request = match ops <= Local::INLINE_OPS_MAX {
        true => request,
        false => check_many(&local, identity.is_none(), request).await?,
    };
    let _promised = local.check_space(cost).await?;
    match local.propose_txn(identity, request, ops).await? {
        Reply::Txn(reply) => answer(&local, TxnAnswer::new(local.member.origin(), reply)).await,
        other => unreachable!("a transaction was answered with {other:?}"),
    }
}

async fn read_only_txn(
    local: &Local,
    credentials: &Credentials,
    request: &Arc<TxnRequest>,
) -> Result<Answer, Status> {
    let lessor = &local.member.lessor;
    let may_read = |store: &AuthStore, who: Caller<'_>| store.check_txn(who, request, lessor);
    let read = async || {
        if !mvcc::is_serializable(request) {
            local.linearizable().await?;
        }
        let started = Instant::now();
        let read = async || Ok(local.member.txn(Arc::clone(request)).await?);
        let reply = local.read_as(credentials, may_read, read).await;
        local.observe(Operation::ReadonlyTxn, started, reply.is_ok());
        Ok(TxnAnswer::new(local.member.origin(), reply?))
    };
    answer_read(local, read).await
}

/// Refuses a transaction of many operations that puts a key twice, or puts and deletes it.
async fn check_many(
    local: &Local,
    is_nobody: bool,
    request: TxnRequest,
) -> Result<TxnRequest, Status> {
    if is_nobody {
        // What nobody may do is refused where it is applied; no need to go on until there.
        let store = local.member.auth.read();
        store.check_txn(Caller::default(), &request, &local.member.lessor)?;
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
    frame(&CompactionResponse {
        header: Some(header(local.member.origin(), reply.revision)),
    })
}
