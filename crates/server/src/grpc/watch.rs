//! Service `Watch`: a stream's requests go into the thread's hub, its responses come out of it.
//!
//! The task of a stream does one thing at a time: it reads a request, or sends what the hub has for it,
//! and while the client takes nothing it does neither. The hub bounds what waits meanwhile.

use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::Incoming;
use retcd_proto::etcdserverpb::watch_request::RequestUnion;
use retcd_proto::etcdserverpb::{WatchCreateRequest, WatchRequest};
use retcd_state::auth::{Access, AuthStore, Caller};
use retcd_state::watch::{CatchupJob, Caught, Origin, Poll, Response, StreamId};
use tokio::sync::mpsc;

use super::Context;
use super::answer::Patience;
use super::pieces::WHOLE_MAX;
use super::status::{self, Code, Status};
use super::wire::{
    MessageLength, MessageReader, PREFIX_BYTES, Received, ResponseBody, stream_response,
};
use crate::log::Text;
use crate::runtime::{Local, StreamWaker};

/// Chunks of responses that wait for the connection to take them.
const CHUNK_BACKLOG: usize = 2;
/// Responses are gathered into chunks of about this size.
const CHUNK_BYTES: usize = 64 << 10;
/// Added to `--max-request-bytes` for the largest response that a fragmenting watch gets, as in etcd.
const FRAGMENT_OVERHEAD_BYTES: usize = 512 << 10;

/// `Watch`.
pub async fn watch(
    context: Context,
    reader: MessageReader<Incoming>,
) -> hyper::Response<ResponseBody> {
    let (sender, receiver) = mpsc::channel(CHUNK_BACKLOG);
    tokio::task::spawn_local(async move {
        let stream = Stream::open(&context.local, sender.clone());
        let ended = stream.run(&context, reader).await;
        // It need not hear how it ended.
        drop(stream);
        context.end_stream(&sender, ended).await;
    });
    stream_response(receiver)
}

/// A watch stream; closing it forgets its watchers.
struct Stream {
    local: Rc<Local>,
    id: StreamId,
    waker: StreamWaker,
    sender: mpsc::Sender<Result<Bytes, Status>>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.local.watches.close(self.id);
    }
}

/// What the task of a stream woke up for.
enum Woken {
    Request(Option<Received>),
    ToSend,
}

impl Stream {
    fn open(local: &Rc<Local>, sender: mpsc::Sender<Result<Bytes, Status>>) -> Stream {
        let (id, waker) = local
            .watches
            .open(local.member.clock.time(), local.progress_interval());
        Stream {
            local: Rc::clone(local),
            id,
            waker,
            sender,
        }
    }

    async fn run(
        &self,
        context: &Context,
        mut reader: MessageReader<Incoming>,
    ) -> Result<(), Status> {
        let mut leaderless = context.leaderless();
        let leaderless = leaderless.wait();
        let stopped = self.local.member.stopped();
        tokio::pin!(leaderless, stopped);
        let mut half_closed = false;
        loop {
            let reading = !half_closed && self.local.watches.accepts_requests(self.id);
            let woken = tokio::select! {
                request = reader.next(), if reading => Woken::Request(request?),
                () = self.waker.woken() => Woken::ToSend,
                () = &mut leaderless => return Err(status::NO_LEADER),
                () = &mut stopped => return Err(status::STOPPED),
                () = self.sender.closed() => return Err(status::WATCH_CANCELED),
            };
            match woken {
                Woken::Request(Some(received)) => {
                    let request = context.decode(received).await?;
                    self.handle(context, request).await;
                }
                // The client has nothing more to say, and goes on listening.
                Woken::Request(None) => half_closed = true,
                Woken::ToSend => {}
            }
            self.send(context).await?;
        }
    }

    async fn handle(&self, context: &Context, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => {
                // Whatever this client has seen acknowledged lies before "now".
                self.local
                    .watches
                    .published(self.local.member.reader.revision())
                    .await;
                match self.refusal(context, &request).await {
                    None => drop(self.local.watches.hub().create(self.id, &request)),
                    Some(reason) => self.local.watches.hub().refuse(self.id, reason),
                }
            }
            Some(RequestUnion::CancelRequest(request)) => {
                self.local.watches.hub().cancel(self.id, request.watch_id)
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.local
                    .watches
                    .published(self.local.member.reader.revision())
                    .await;
                self.local.watches.hub().request_progress(self.id);
            }
            None => {}
        }
    }

    /// Why the client may not watch what it asks for. What it may is decided here once: the watch goes
    /// on when users or roles change, as in etcd.
    async fn refusal(
        &self,
        context: &Context,
        request: &WatchCreateRequest,
    ) -> Option<&'static str> {
        // The hub answers these.
        if request.start_revision < 0 {
            return None;
        }
        let key: &[u8] = match &request.key[..] {
            [] => b"\0",
            key => key,
        };
        let may_read = |store: &AuthStore, who: Caller<'_>| {
            store.check_keys(who, Access::Read, key, &request.range_end)
        };
        let permit = self.local.permit(&context.credentials, may_read).await;
        permit.err().map(|status| refusal_text(&status))
    }

    /// Sends until the hub has nothing more for this stream.
    async fn send(&self, context: &Context) -> Result<(), Status> {
        loop {
            let polled = self.local.watches.hub().poll(self.id, CHUNK_BYTES);
            match polled {
                Poll::Idle => return Ok(()),
                Poll::Catchup(job) => {
                    let caught = self.catch_up(job).await?;
                    self.local.watches.hub().complete_catchup(caught);
                }
                Poll::Responses(responses) => {
                    let chunk = Chunk::new(&self.local, responses);
                    self.send_chunk(context, chunk).await?;
                }
            }
        }
    }

    /// Reads history, a turn of the workers for each step.
    async fn catch_up(&self, job: CatchupJob) -> Result<Caught, Status> {
        let member = &self.local.member;
        let reader = member.reader.clone();
        member
            .workers
            .run(move || job.run(&reader.view()))
            .await?
            .map_err(|error| {
                crate::error!("history could not be read"; "error" => Text(&error));
                Status::new(Code::Unknown, error.to_string())
            })
    }

    /// Sends the chunk as one, or each of its messages for itself if it is long.
    async fn send_chunk(&self, context: &Context, chunk: Chunk) -> Result<(), Status> {
        let size = chunk.measure()?;
        if size.bytes <= WHOLE_MAX {
            return self.send_measured(context, chunk, size).await;
        }
        for message in chunk.into_messages() {
            let size = message.measure()?;
            self.send_measured(context, message, size).await?;
        }
        Ok(())
    }

    async fn send_measured(
        &self,
        context: &Context,
        chunk: Chunk,
        size: Size,
    ) -> Result<(), Status> {
        let member = &self.local.member;
        let mut room = member.answers.take(size.bytes).await;
        let encoded = match size.bytes <= WHOLE_MAX {
            true => chunk.encode(size.bytes),
            false => {
                let encode = move || chunk.encode(size.bytes);
                member.workers.run(encode).await?
            }
        };
        member.metrics.watch.events.inc_by(size.events as u64);
        (0..size.messages).for_each(|_| context.call.message_sent());
        let sent_bytes = &member.metrics.network.client_sent_bytes;
        sent_bytes.inc_by(size.bytes as u64);
        let pieces = vec![room.hold(encoded)];
        let delivered = context.deliver(pieces, Patience::Unbounded, &self.sender);
        match delivered.await? {
            true => Ok(()),
            false => Err(status::WATCH_CANCELED),
        }
    }
}

/// Responses that go out together.
struct Chunk {
    responses: Vec<Response>,
    origin: Origin,
    fragment_bytes_max: usize,
}

/// What a chunk comes to.
#[derive(Clone, Copy, Default)]
struct Size {
    messages: usize,
    events: usize,
    bytes: usize,
}

impl Chunk {
    fn new(local: &Local, responses: Vec<Response>) -> Chunk {
        let member = &local.member;
        Chunk {
            responses,
            origin: member.origin(),
            fragment_bytes_max: member.limits.request_bytes_max + FRAGMENT_OVERHEAD_BYTES,
        }
    }

    /// Each message as a chunk.
    fn into_messages(self) -> impl Iterator<Item = Chunk> {
        let mut messages = Vec::new();
        self.for_each_message(|message| messages.push(message.clone()));
        let (origin, fragment_bytes_max) = (self.origin, self.fragment_bytes_max);
        messages.into_iter().map(move |message| Chunk {
            responses: vec![message],
            origin,
            fragment_bytes_max,
        })
    }

    /// Before anything is allocated for it.
    fn measure(&self) -> Result<Size, Status> {
        let mut size = Size::default();
        let mut too_large = None;
        self.for_each_message(|message| {
            match MessageLength::of(message.encoded_len(&self.origin)) {
                Ok(length) => size.bytes += PREFIX_BYTES + length.bytes(),
                Err(status) => too_large = Some(status),
            }
            size.messages += 1;
            size.events += message.events().map_or(0, |events| events.count());
        });
        too_large.map_or(Ok(size), Err)
    }

    fn encode(&self, bytes: usize) -> Bytes {
        let mut chunk = BytesMut::with_capacity(bytes);
        self.for_each_message(|message| {
            let length = MessageLength::of(message.encoded_len(&self.origin));
            chunk.put_slice(&length.expect("it was measured").prefix());
            message.encode(&self.origin, &mut chunk);
        });
        chunk.freeze()
    }

    fn for_each_message(&self, mut act: impl FnMut(&Response)) {
        for response in &self.responses {
            response.for_each_fragment(&self.origin, self.fragment_bytes_max, &mut act);
        }
    }
}

/// etcd's `cancel_reason` for a watch that is not permitted: the error as Go prints it.
fn refusal_text(status: &Status) -> &'static str {
    if *status == status::PERMISSION_DENIED {
        "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    } else if *status == status::USER_EMPTY {
        "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"
    } else if *status == status::AUTH_OLD_REVISION {
        "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old"
    } else {
        // Also if it cannot be found out whose token it is: the client gets itself another one.
        "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_gos() {
        for status in [
            status::PERMISSION_DENIED,
            status::USER_EMPTY,
            status::AUTH_OLD_REVISION,
            status::INVALID_AUTH_TOKEN,
        ] {
            assert_eq!(refusal_text(&status), status.go_text());
        }
    }
}
