//! Requests on keys: what the cache has to know of them, and the namespace.
//!
//! Without a namespace messages go to a server as they came, and answers come back so. With one they
//! are taken apart, and the client adds and removes the prefix.

use bytes::Bytes;
use prost::Message;
use retcd_client::Client;
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest,
};

use super::cache::{Cache, Cached, ReadId};
use super::call::Call;
use super::error::status_of;
use super::thread::Shared;
use crate::status::{self, Status};

/// `Range`.
pub(super) async fn range(call: &Call, message: Bytes) -> Result<Bytes, Status> {
    let request: RangeRequest = call.decode(message.clone())?;
    let shared = &call.thread.shared;
    let cached = call.token.is_none();
    if cached && request.serializable {
        let found = shared.cache.lock().find(&request);
        let metrics = &shared.metrics.proxy;
        match found {
            Cached::Answer(answer) => {
                metrics.cache_hits.inc();
                return Ok(answer);
            }
            Cached::Compacted => return Err(status::COMPACTED),
            Cached::Nothing => metrics.cache_misses.inc(),
        }
    }
    let read = cached.then(|| CacheRead::begin(shared, &request));
    let answer = match namespaced(call)? {
        None => call.forward(message).await?,
        Some(client) => {
            let answer = client.range(request.clone()).await.map_err(status_of)?;
            answer.encode_to_vec().into()
        }
    };
    if let Some(read) = read {
        read.end(&request, &answer);
    }
    Ok(answer)
}

/// `Put`.
pub(super) async fn put(call: &Call, message: Bytes) -> Result<Bytes, Status> {
    let request: PutRequest = call.decode(message.clone())?;
    let _write = CacheWrite::begin(call, vec![(request.key.clone(), Bytes::new())]);
    match namespaced(call)? {
        None => call.forward(message).await,
        Some(client) => encoded(client.put(request).await),
    }
}

/// `DeleteRange`.
pub(super) async fn delete_range(call: &Call, message: Bytes) -> Result<Bytes, Status> {
    let request: DeleteRangeRequest = call.decode(message.clone())?;
    let range = (request.key.clone(), request.range_end.clone());
    let _write = CacheWrite::begin(call, vec![range]);
    match namespaced(call)? {
        None => call.forward(message).await,
        Some(client) => encoded(client.delete_range(request).await),
    }
}

/// `Txn`.
pub(super) async fn txn(call: &Call, message: Bytes) -> Result<Bytes, Status> {
    let request: TxnRequest = call.decode(message.clone())?;
    let mut written = Vec::new();
    add_written(&request, &mut written);
    let is_read = written.is_empty();
    let _write = CacheWrite::begin(call, written);
    match namespaced(call)? {
        None => {
            let mut forwarded = call.forwarded(message);
            forwarded.is_repeatable = is_read;
            let client = call.client()?;
            client.forward(&forwarded).await.map_err(status_of)
        }
        Some(client) if is_read => encoded(client.repeatable_txn(request).await),
        Some(client) => encoded(client.txn(request).await),
    }
}

/// `Compact`.
pub(super) async fn compact(call: &Call, message: Bytes) -> Result<Bytes, Status> {
    let request: CompactionRequest = call.decode(message.clone())?;
    let answer = call.forward(message).await?;
    call.thread.shared.cache.lock().compact(request.revision);
    Ok(answer)
}

/// `LeaseTimeToLive`, which can list keys.
pub(super) async fn time_to_live(call: &Call, message: Bytes) -> Result<Bytes, Status> {
    match namespaced(call)? {
        None => call.forward(message).await,
        Some(client) => {
            let request: LeaseTimeToLiveRequest = call.decode(message)?;
            encoded(client.lease_time_to_live(request).await)
        }
    }
}

/// Methods after which nothing that is known may be told any more: a lease takes keys with it, and
/// when there are users, not everybody may read.
pub(super) async fn forward_and_forget(call: &Call, message: Bytes) -> Result<Bytes, Status> {
    let _forget = Forget(&call.thread.shared);
    call.forward(message).await
}

/// A client within the namespace, if there is one.
fn namespaced(call: &Call) -> Result<Option<Client>, Status> {
    match call.thread.shared.settings.namespace.as_str() {
        "" => Ok(None),
        namespace => Ok(Some(call.client()?.namespace(namespace.to_owned()))),
    }
}

fn encoded<M: Message>(answer: Result<M, retcd_client::Error>) -> Result<Bytes, Status> {
    let answer = answer.map_err(status_of)?;
    Ok(answer.encode_to_vec().into())
}

/// The keys and ranges that a transaction writes, whichever way it goes.
fn add_written(txn: &TxnRequest, written: &mut Vec<(Bytes, Bytes)>) {
    for RequestOp { request } in txn.success.iter().chain(&txn.failure) {
        match request {
            Some(Request::RequestPut(put)) => written.push((put.key.clone(), Bytes::new())),
            Some(Request::RequestDeleteRange(delete)) => {
                written.push((delete.key.clone(), delete.range_end.clone()));
            }
            Some(Request::RequestTxn(nested)) => nested.visit(|txn| add_written(txn, written)),
            Some(Request::RequestRange(_)) | None => {}
        }
    }
}

/// A read whose answer may be kept.
struct CacheRead<'a> {
    shared: &'a Shared,
    id: ReadId,
}

impl<'a> CacheRead<'a> {
    fn begin(shared: &'a Shared, request: &RangeRequest) -> CacheRead<'a> {
        let id = shared.cache.lock().begin_read(request);
        CacheRead { shared, id }
    }

    fn end(self, request: &RangeRequest, answer: &Bytes) {
        let mut cache = self.shared.cache.lock();
        cache.end_read(self.id, request, answer.clone());
        count_entries(self.shared, &cache);
    }
}

impl Drop for CacheRead<'_> {
    fn drop(&mut self) {
        self.shared.cache.lock().abandon_read(self.id);
    }
}

/// A write that makes entries of the cache old, before it is passed on and when it has ended,
/// however that was.
struct CacheWrite<'a> {
    shared: &'a Shared,
    written: Vec<(Bytes, Bytes)>,
}

impl<'a> CacheWrite<'a> {
    fn begin(call: &'a Call, written: Vec<(Bytes, Bytes)>) -> CacheWrite<'a> {
        let write = CacheWrite {
            shared: &call.thread.shared,
            written,
        };
        write.invalidate();
        write
    }

    fn invalidate(&self) {
        if self.written.is_empty() {
            return;
        }
        let mut cache = self.shared.cache.lock();
        for (key, range_end) in &self.written {
            cache.invalidate(key, range_end);
        }
        count_entries(self.shared, &cache);
    }
}

impl Drop for CacheWrite<'_> {
    fn drop(&mut self) {
        self.invalidate();
    }
}

/// Empties the cache when a request has ended, however that was: one whose client does not wait for
/// the answer may have been executed.
struct Forget<'a>(&'a Shared);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let mut cache = self.0.cache.lock();
        cache.clear();
        count_entries(self.0, &cache);
    }
}

fn count_entries(shared: &Shared, cache: &Cache) {
    let entries = i64::try_from(cache.len()).unwrap_or(i64::MAX);
    shared.metrics.proxy.cache_keys.set(entries);
}
