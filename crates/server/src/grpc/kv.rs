//! Service `KV`.

use std::pin::pin;
use std::rc::Rc;

use retcd_member::access::Credentials;
use retcd_member::kv::{PreparedTxn, RangeChunks};
use retcd_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, PutRequest, RangeRequest,
};
use retcd_state::mvcc::{DeleteReply, PutReply};
use retcd_state::watch::Origin;

use super::Context;
use super::answer::{Answer, Patience, answer, answer_in_parts, answer_read};
use super::encode::{Headed, Plain, TxnAnswer};
use super::frames;
use super::header::header;
use super::reply::Reply;
use super::requests::Requests;
use crate::server::ServerThread;
use crate::status::Status;

/// Pieces of a stream's chunk that wait for the client to take them.
const STREAM_BACKLOG: usize = 1;

/// `Range`.
pub(super) async fn range(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: RangeRequest,
) -> Result<Answer, Status> {
    let reply = thread.member.kv.range(&credentials, &request).await?;
    answer_in_parts(&thread, Headed(thread.server.member.origin(), reply)).await
}

/// `RangeStream`: a list in chunks, so that it may have any length.
pub(super) async fn range_stream(context: Context, mut reader: Requests) -> Reply {
    let opened = async {
        let request = context.read_request(&mut reader).await?;
        let kv = &context.thread.member.kv;
        let opened = pin!(kv.range_stream(&context.credentials, request));
        Ok::<_, Status>(context.traced.within(opened).await?)
    };
    let chunks = match opened.await {
        Ok(chunks) => chunks,
        Err(status) => return context.fail(status),
    };
    let origin = context.thread.server.member.origin();
    let (sender, receiver) = frames::channel(STREAM_BACKLOG);
    tokio::task::spawn_local(async move {
        let ended = match send_chunks(&context, origin, chunks, &sender).await {
            Ok(true) => Ok(()),
            // Dropping the call counts it as cancelled.
            Ok(false) => return,
            Err(status) => Err(status),
        };
        context.end_stream(&sender, ended).await;
    });
    Reply::Stream(receiver)
}

/// Sends one chunk after the other; the next is made when the connection has taken this one.
/// `false` if the client is gone.
async fn send_chunks(
    context: &Context,
    origin: Origin,
    mut chunks: RangeChunks,
    sender: &frames::Sender,
) -> Result<bool, Status> {
    while let Some(chunk) = chunks.next_chunk().await? {
        let chunk = answer_in_parts(&context.thread, Headed(origin, chunk)).await?;
        context.count_sent(chunk.len());
        let pieces = chunk.into_pieces();
        if !context.deliver(pieces, Patience::Bounded, sender).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `Put`.
pub(super) async fn put(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: PutRequest,
) -> Result<Headed<PutReply>, Status> {
    let reply = thread.member.kv.put(&credentials, request).await?;
    Ok(Headed(thread.server.member.origin(), reply))
}

/// `DeleteRange`.
pub(super) async fn delete_range(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: DeleteRangeRequest,
) -> Result<Headed<DeleteReply>, Status> {
    let reply = thread.member.kv.delete_range(&credentials, request).await?;
    Ok(Headed(thread.server.member.origin(), reply))
}

/// `Txn`.
pub(super) async fn txn(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: PreparedTxn,
) -> Result<Answer, Status> {
    let kv = &thread.member.kv;
    let headed = |reply| TxnAnswer::new(thread.server.member.origin(), reply);
    match request {
        PreparedTxn::ReadOnly(request) => {
            let read = async || Ok(headed(kv.read_only_txn(&credentials, &request).await?));
            answer_read(&thread, read).await
        }
        PreparedTxn::Write(txn) => {
            let reply = kv.txn(&credentials, txn).await?;
            answer(&thread, headed(reply)).await
        }
    }
}

/// `Compact`.
pub(super) async fn compact(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: CompactionRequest,
) -> Result<Plain<CompactionResponse>, Status> {
    let reply = thread.member.kv.compact(&credentials, request).await?;
    Ok(Plain(CompactionResponse {
        header: Some(header(thread.server.member.origin(), reply.revision)),
    }))
}
