//! A client's watch stream.
//!
//! Ids are the stream's own, from 0 on; a `watch_id` in a request is ignored, as in etcd's proxy.
//! Before a watcher begins, a member is asked whether its client may read the range: the events it
//! will get may come of a watch that somebody else's token has opened.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::{FutureExt, LocalBoxFuture, ready};
use futures_util::stream::{FuturesOrdered, StreamExt};
use http::Response;
use prost::Message;
use retcd_client::Error;
use retcd_proto::etcdserverpb::watch_request::RequestUnion;
use retcd_proto::etcdserverpb::{
    RangeRequest, ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;

use super::broadcasts::{Range, WatcherId};
use super::hub::{Ask, Delivery, Late, QueuedBytes};
use super::response::{Events, Wants};
use crate::grpc::wire::ResponseBody;
use crate::proxy::grpc::call::{Call, Frames, Messages};
use crate::proxy::grpc::error::status_of;
use crate::status::{self, Status};

/// Deliveries that wait for the client, as many as in etcd's proxy.
const QUEUE_MAX: usize = 1024;
/// Responses are gathered into chunks of about this size.
const CHUNK_BYTES: usize = 64 << 10;
/// Watchers whose permission is being asked for.
const BEGINNINGS_MAX: usize = 128;
/// The id in responses to requests for which there is no watcher.
const NO_WATCH: i64 = -1;
/// What Go's error of a compacted revision reads like.
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// `Watch`.
pub(in crate::proxy::grpc) fn serve(call: Call, messages: Messages) -> Response<ResponseBody> {
    call.stream_response(async move |call, frames| {
        let (queue, deliveries) = mpsc::channel(QUEUE_MAX);
        let (late, latecomers) = mpsc::unbounded_channel();
        let stream = Stream {
            call,
            frames,
            queue,
            queued: Arc::default(),
            late,
            watchers: HashMap::new(),
            ids: HashMap::new(),
            next_id: 0,
            last_header: ResponseHeader::default(),
        };
        stream.run(messages, deliveries, latecomers).await
    })
}

struct Stream<'a> {
    call: &'a Call,
    frames: &'a Frames,
    /// For the hub to fill.
    queue: mpsc::Sender<Delivery>,
    queued: Arc<QueuedBytes>,
    late: mpsc::UnboundedSender<Late>,
    watchers: HashMap<WatcherId, Watcher>,
    ids: HashMap<i64, WatcherId>,
    next_id: i64,
    last_header: ResponseHeader,
}

struct Watcher {
    id: i64,
    range: Range,
    wants: Wants,
}

/// What has become of a request for a watcher.
enum Begun {
    Allowed(WatchCreateRequest, ResponseHeader),
    Refused(String),
}

type Beginnings<'a> = FuturesOrdered<LocalBoxFuture<'a, Result<Begun, Status>>>;

impl<'a> Stream<'a> {
    async fn run(
        mut self,
        mut messages: Messages,
        mut deliveries: mpsc::Receiver<Delivery>,
        mut latecomers: mpsc::UnboundedReceiver<Late>,
    ) -> Result<(), Status> {
        let mut beginnings = Beginnings::new();
        let mut half_closed = false;
        let leader = &self.call.thread.shared.leader;
        let leaderless = leader.wait(self.call.requires_leader);
        tokio::pin!(leaderless);
        loop {
            let reads = !half_closed && beginnings.len() < BEGINNINGS_MAX;
            tokio::select! {
                message = self.call.next(&mut messages), if reads => match message? {
                    Some(message) => self.handle_request(message, &mut beginnings).await?,
                    // The client has nothing more to say, and goes on listening.
                    None => half_closed = true,
                },
                Some(begun) = beginnings.next() => self.begin(begun?).await?,
                Some(delivery) = deliveries.recv() => {
                    self.deliver(delivery, &mut deliveries).await?;
                }
                Some(late) = latecomers.recv(), if deliveries.is_empty() => {
                    // What has come since the wait began, and before it.
                    for _ in 0..deliveries.len() {
                        if let Ok(delivery) = deliveries.try_recv() {
                            self.deliver(delivery, &mut deliveries).await?;
                        }
                    }
                    self.handle_late(late).await?;
                }
                () = &mut leaderless => return Err(status::NO_LEADER),
                () = self.frames.closed() => return Err(status::WATCH_CANCELED),
            }
        }
    }

    async fn handle_request(
        &mut self,
        message: Bytes,
        beginnings: &mut Beginnings<'a>,
    ) -> Result<(), Status> {
        let request: WatchRequest = self.call.decode(message)?;
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => {
                beginnings.push_back(self.check(request));
                Ok(())
            }
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => {
                crate::error!("not supported request type by gRPC proxy"; "request" => "progress_request:{}");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Finds out whether a watcher may begin.
    fn check(&self, request: WatchCreateRequest) -> LocalBoxFuture<'a, Result<Begun, Status>> {
        if request.start_revision < 0 {
            return ready(Ok(Begun::Refused(COMPACTED.to_owned()))).boxed_local();
        }
        let (key, end) = (&request.key, &request.range_end);
        if !end.is_empty() && end.as_ref() != b"\0" && end <= key {
            return ready(Ok(Begun::Refused(String::new()))).boxed_local();
        }
        let call = self.call;
        let ask = async move {
            let namespace = &call.thread.shared.settings.namespace;
            let client = call.client()?.without_deadline();
            let client = client.namespace(namespace.clone());
            let range = RangeRequest {
                // The first key, as watches have it.
                key: match request.key.is_empty() {
                    true => Bytes::from_static(b"\0"),
                    false => request.key.clone(),
                },
                range_end: request.range_end.clone(),
                count_only: true,
                // Who begins now has to know what now is.
                serializable: request.start_revision > 0,
                ..RangeRequest::default()
            };
            match client.range(range).await {
                Ok(answer) => Ok(Begun::Allowed(request, answer.header.unwrap_or_default())),
                Err(error @ Error::Refused { .. }) => Ok(Begun::Refused(error.to_string())),
                Err(error) => Err(status_of(error)),
            }
        };
        ask.boxed_local()
    }

    async fn begin(&mut self, begun: Begun) -> Result<(), Status> {
        let (request, header) = match begun {
            Begun::Allowed(request, header) => (request, header),
            Begun::Refused(cancel_reason) => {
                let refusal = WatchResponse {
                    header: Some(ResponseHeader::default()),
                    watch_id: NO_WATCH,
                    created: true,
                    canceled: true,
                    cancel_reason,
                    ..WatchResponse::default()
                };
                return self.send(refusal).await;
            }
        };
        let id = self.next_id;
        self.next_id += 1;
        let from = match request.start_revision {
            0 => header.revision + 1,
            revision => revision,
        };
        let mut wants = Wants {
            previous: request.prev_kv,
            progress: request.progress_notify,
            ..Wants::default()
        };
        wants.set_filters(&request.filters);
        self.last_header = header;
        let created = WatchResponse {
            header: Some(header),
            watch_id: id,
            created: true,
            ..WatchResponse::default()
        };
        self.send(created).await?;
        let watcher = self.call.thread.joins.new_watcher();
        let range = (request.key, request.range_end);
        self.join(watcher, range.clone(), from);
        self.ids.insert(id, watcher);
        self.watchers.insert(watcher, Watcher { id, range, wants });
        Ok(())
    }

    fn join(&self, watcher: WatcherId, range: Range, from: i64) {
        self.call.thread.joins.ask(Ask::Join {
            watcher,
            range,
            from,
            token: self.call.token.clone(),
            queue: self.queue.clone(),
            queued: Arc::clone(&self.queued),
            late: self.late.clone(),
        });
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Status> {
        let Some(watcher) = self.ids.remove(&id) else {
            return Ok(());
        };
        self.watchers.remove(&watcher);
        self.call.thread.joins.ask(Ask::Leave(watcher));
        let canceled = WatchResponse {
            header: Some(self.last_header),
            watch_id: id,
            canceled: true,
            ..WatchResponse::default()
        };
        self.send(canceled).await
    }

    /// Sends what waits for the client, in chunks: a response for itself would cost more than what is
    /// in it.
    async fn deliver(
        &mut self,
        first: Delivery,
        deliveries: &mut mpsc::Receiver<Delivery>,
    ) -> Result<(), Status> {
        let mut chunk = BytesMut::new();
        let mut next = Some(first);
        while let Some(delivery) = next {
            self.queued.remove(delivery.bytes());
            match delivery {
                Delivery::Events {
                    watcher,
                    from,
                    events,
                } => self.append(watcher, from, &events, &mut chunk)?,
                Delivery::Canceled { watcher, response } => {
                    let before = chunk.split().freeze();
                    self.call.send_framed(self.frames, before).await?;
                    self.end(watcher, response).await?;
                }
            }
            next = match chunk.len() < CHUNK_BYTES {
                true => deliveries.try_recv().ok(),
                false => None,
            };
        }
        self.call.send_framed(self.frames, chunk.freeze()).await
    }

    fn append(
        &mut self,
        watcher: WatcherId,
        from: i64,
        events: &Events,
        chunk: &mut BytesMut,
    ) -> Result<(), Status> {
        // What is not there has been canceled meanwhile.
        let Some(watcher) = self.watchers.get(&watcher) else {
            return Ok(());
        };
        if let Some(header) = events.header() {
            self.last_header = *header;
        }
        let message = events.append_response(watcher.id, from, &watcher.wants, chunk)?;
        if let Some(message) = message {
            self.call.count_sent(&chunk[message..]);
        }
        Ok(())
    }

    async fn handle_late(&mut self, late: Late) -> Result<(), Status> {
        match late {
            Late::Behind { watcher, from } => {
                if let Some(behind) = self.watchers.get(&watcher) {
                    self.join(watcher, behind.range.clone(), from);
                }
                Ok(())
            }
            Late::Canceled { watcher, response } => self.end(watcher, response).await,
        }
    }

    /// A server has ended a watch.
    async fn end(&mut self, watcher: WatcherId, response: WatchResponse) -> Result<(), Status> {
        let Some(ended) = self.watchers.remove(&watcher) else {
            return Ok(());
        };
        self.ids.remove(&ended.id);
        let header = response.header.unwrap_or(self.last_header);
        self.send(WatchResponse {
            header: Some(header),
            watch_id: ended.id,
            ..response
        })
        .await
    }

    async fn send(&self, response: WatchResponse) -> Result<(), Status> {
        let encoded = response.encode_to_vec().into();
        self.call.send(self.frames, &encoded).await
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        for watcher in self.watchers.keys() {
            self.call.thread.joins.ask(Ask::Leave(*watcher));
        }
    }
}
