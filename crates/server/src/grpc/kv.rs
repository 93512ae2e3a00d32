//! Service `KV`.

use std::rc::Rc;

use hyper::Response;
use hyper::body::Incoming;
use retcd_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, InternalRaftRequest, PutRequest,
    RangeRequest, ResponseHeader, TxnRequest,
};
use retcd_state::machine::Reply;
use retcd_state::mvcc::{self, RangeChunk, RangeError, RangeReply};
use retcd_state::{quota, request};
use tokio::sync::mpsc;

use super::status::{self, Code, Status};
use super::wire::{MessageReader, ResponseBody, frame, stream_response};
use super::{Context, Framed, encode, read_request};
use crate::metrics::Operation;
use crate::runtime::Local;

/// Messages of a stream that wait for the client to take them.
const STREAM_BACKLOG: usize = 4;

/// `Range`, answered from memory once this member is known to be up to date.
pub async fn range_call(local: Rc<Local>, request: RangeRequest) -> Framed {
    if !request.serializable && local.member.is_learner() {
        return Err(status::NOT_FOR_LEARNER);
    }
    request::check_range(&request)?;
    if !request.serializable {
        local.linearizable().await?;
    }
    let member = &local.member;
    member.metrics.mvcc.ranges.inc();
    let reply = member.reader.range(&request)?;
    Ok(encode::range(&header(&local, reply.revision), &reply))
}

/// `RangeStream`: the same in chunks, for lists of any length.
pub async fn range_stream(
    context: Context,
    mut reader: MessageReader<Incoming>,
) -> Response<ResponseBody> {
    let opened = async {
        let request: RangeRequest = read_request(&mut reader).await?;
        context.count_received(&request);
        open_range_stream(&context.local, request).await
    };
    let mut chunks = match opened.await {
        Ok(chunks) => chunks,
        Err(status) => return context.fail(status),
    };
    let (sender, receiver) = mpsc::channel(STREAM_BACKLOG);
    tokio::task::spawn_local(async move {
        let header = context.local.member.header();
        let ended = loop {
            let chunk = match chunks.next_chunk() {
                Ok(Some(chunk)) => encode::range_chunk(&header, &chunk),
                Ok(None) => break Ok(()),
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

/// Where the chunks of a stream come from.
enum Chunks {
    /// From the index as it was, piece by piece.
    InOrder(Box<mvcc::RangeStream>),
    /// Sorted by something else than the key, which takes all of them first.
    Sorted(Option<RangeReply>),
}

impl Chunks {
    fn next_chunk(&mut self) -> Result<Option<RangeChunk>, RangeError> {
        match self {
            Chunks::InOrder(stream) => stream.next_chunk(),
            Chunks::Sorted(reply) => Ok(reply.as_mut().map(next_sorted_chunk).inspect(|chunk| {
                if chunk.last.is_some() {
                    *reply = None;
                }
            })),
        }
    }
}

/// Keys per chunk of a sorted stream.
const SORTED_CHUNK_KEYS: usize = 100;

fn next_sorted_chunk(reply: &mut RangeReply) -> RangeChunk {
    let kvs: Vec<_> = reply
        .kvs
        .drain(..SORTED_CHUNK_KEYS.min(reply.kvs.len()))
        .collect();
    let last = reply.kvs.is_empty().then(|| reply.clone());
    RangeChunk {
        kvs,
        projection: reply.projection,
        last,
    }
}

async fn open_range_stream(local: &Rc<Local>, request: RangeRequest) -> Result<Chunks, Status> {
    request::check_range_stream(&request)?;
    if !request.serializable {
        local.linearizable().await?;
    }
    let reader = &local.member.reader;
    if request.sort_target != 0 && !request.count_only {
        // etcd 3.7.1 sorts and cuts every chunk for itself, so that a client gets keys twice and misses
        // others; here it gets what it asked for.
        return Ok(Chunks::Sorted(Some(reader.range(&request)?)));
    }
    Ok(Chunks::InOrder(Box::new(reader.range_stream(
        request,
        local.member.limits.request_bytes_max,
    )?)))
}

/// `Put`.
pub async fn put(local: Rc<Local>, request: PutRequest) -> Framed {
    request::check_put(&request)?;
    local.check_quota(quota::put_cost(&request)).await?;
    let request = InternalRaftRequest {
        put: Some(request),
        ..Default::default()
    };
    match local.propose_timed(Operation::Put, request).await? {
        Reply::Put(reply) => Ok(encode::put(&header(&local, reply.revision), &reply)),
        other => unreachable!("a put was answered with {other:?}"),
    }
}

/// `DeleteRange`.
pub async fn delete_range(local: Rc<Local>, request: DeleteRangeRequest) -> Framed {
    request::check_delete_range(&request)?;
    let request = InternalRaftRequest {
        delete_range: Some(request),
        ..Default::default()
    };
    match local.propose_timed(Operation::DeleteRange, request).await? {
        Reply::DeleteRange(reply) => Ok(encode::delete(&header(&local, reply.revision), &reply)),
        other => unreachable!("a deletion was answered with {other:?}"),
    }
}

/// `Txn`; one that only reads does not go through the log.
pub async fn txn(local: Rc<Local>, request: TxnRequest) -> Framed {
    request::check_txn(&request, local.member.limits.txn_ops_max)?;
    if mvcc::is_read_only(&request) {
        if !mvcc::is_serializable(&request) {
            local.linearizable().await?;
        }
        let reply = local.member.reader.txn(&request)?;
        return Ok(encode::txn(&header(&local, reply.revision), &reply));
    }
    local.check_quota(quota::txn_cost(&request)).await?;
    let request = InternalRaftRequest {
        txn: Some(request),
        ..Default::default()
    };
    match local.propose_timed(Operation::Txn, request).await? {
        Reply::Txn(reply) => Ok(encode::txn(&header(&local, reply.revision), &reply)),
        other => unreachable!("a transaction was answered with {other:?}"),
    }
}

/// `Compact`; a physical one is answered when the space is free and the database committed.
pub async fn compact(local: Rc<Local>, request: CompactionRequest) -> Framed {
    let CompactionRequest { revision, physical } = request;
    let request = InternalRaftRequest {
        compaction: Some(request),
        ..Default::default()
    };
    let reply = match local.propose_timed(Operation::Compaction, request).await? {
        Reply::Compact(reply) => reply,
        other => unreachable!("a compaction was answered with {other:?}"),
    };
    if physical {
        local.member.compaction_finished(revision).await;
        local.member.commit_backend().await;
    }
    Ok(frame(&CompactionResponse {
        header: Some(header(&local, reply.revision)),
    }))
}

fn header(local: &Local, revision: i64) -> ResponseHeader {
    local.member.header_at(revision)
}
