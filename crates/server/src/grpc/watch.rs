//! Service `Watch`: the messages of a [`WatchStream`], in chunks.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use retcd_member::Error;
use retcd_member::watch::WatchStream;
use retcd_proto::etcdserverpb::WatchRequest;
use retcd_state::auth::AuthError;
use retcd_state::machine::ApplyError;
use retcd_state::watch::{Origin, Response};

use super::Context;
use super::answer::Patience;
use super::frames;
use super::pieces::WHOLE_MAX;
use super::reply::Reply;
use super::requests::Requests;
use super::wire::{MessageLength, PREFIX_BYTES, Received};
use crate::status::{self, Status};

/// Chunks of responses that wait for the connection to take them.
const CHUNK_BACKLOG: usize = 2;
/// Responses are gathered into chunks of about this size.
const CHUNK_BYTES: usize = 64 << 10;
/// Added to `--max-request-bytes` for the largest response that a fragmenting watch gets, as in
/// etcd.
const FRAGMENT_OVERHEAD_BYTES: usize = 512 << 10;

/// `Watch`.
pub(super) async fn watch(context: Context, mut reader: Requests) -> Reply {
    let (sender, receiver) = frames::channel(CHUNK_BACKLOG);
    tokio::task::spawn_local(async move {
        let interval = context.thread.progress_interval();
        let stream = Stream {
            watches: context.thread.member.watch.open(interval),
            sender: &sender,
        };
        let ended = stream.run(&context, &mut reader).await;
        // It need not hear how it ended.
        drop(stream);
        context.end_stream(&sender, ended).await;
    });
    Reply::Stream(receiver)
}

/// A watch stream and where its chunks go.
///
/// There may be very many of them, most of them at rest: what they do now and then is boxed.
struct Stream<'a> {
    watches: WatchStream,
    sender: &'a frames::Sender,
}

/// What the task of a stream woke up for.
enum Woken {
    Request(Option<Received>),
    ToSend,
}

impl Stream<'_> {
    async fn run(&self, context: &Context, reader: &mut Requests) -> Result<(), Status> {
        let mut leaderless = context.leaderless();
        let leaderless = leaderless.wait();
        let stopped = context.thread.server.member.signals.stopped();
        tokio::pin!(leaderless, stopped);
        let mut half_closed = false;
        loop {
            let reading = !half_closed && self.watches.accepts_requests();
            let woken = tokio::select! {
                request = reader.next(), if reading => Woken::Request(context.stream_request("watch", request)?),
                () = self.watches.woken() => Woken::ToSend,
                () = &mut leaderless => return Err(status::NO_LEADER),
                () = &mut stopped => return Err(status::STOPPED),
                () = self.sender.closed() => return Err(status::WATCH_CANCELED),
            };
            match woken {
                Woken::Request(Some(received)) => {
                    let request: WatchRequest = context.decode(received).await?;
                    let credentials = &context.credentials;
                    Box::pin(self.watches.handle(credentials, request, refusal_text)).await;
                }
                // The client has nothing more to say, and goes on listening.
                Woken::Request(None) => half_closed = true,
                Woken::ToSend => {}
            }
            while let Some(responses) = self.watches.next(CHUNK_BYTES).await? {
                let chunk = Chunk::new(context, responses);
                let size = chunk.measure()?;
                if !self.send_at_once(context, &chunk, size) {
                    Box::pin(self.send_chunk(context, chunk, size)).await?;
                }
            }
        }
    }

    /// Sends the chunk, if it is short and nothing has to be waited for.
    fn send_at_once(&self, context: &Context, chunk: &Chunk, size: Size) -> bool {
        if size.bytes > WHOLE_MAX || !self.sender.has_room() {
            return false;
        }
        let begun = Instant::now();
        let Some(mut reservation) = context.thread.server.answers.try_reserve(size.bytes) else {
            return false;
        };
        let piece = reservation.hold(chunk.encode(size.bytes));
        count_messages(context, size);
        context.recorded.sent(piece.bytes());
        self.sender.push(Ok(piece.hand_over(&context.connection)));
        observe_sent(context, size.events, begun.elapsed());
        true
    }

    /// Sends the chunk as one, or each of its messages for itself if it is long.
    async fn send_chunk(&self, context: &Context, chunk: Chunk, size: Size) -> Result<(), Status> {
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
        let server = &context.thread.server;
        let begun = Instant::now();
        let mut reservation = server.answers.reserve(size.bytes).await;
        let encoded = match size.bytes <= WHOLE_MAX {
            true => chunk.encode(size.bytes),
            false => {
                let encode = move || chunk.encode(size.bytes);
                server.member.workers.run(encode).await?
            }
        };
        count_messages(context, size);
        let pieces = vec![reservation.hold(encoded)];
        let delivered = context.deliver(pieces, Patience::Unbounded, self.sender);
        if !delivered.await? {
            return Err(status::WATCH_CANCELED);
        }
        observe_sent(context, size.events, begun.elapsed());
        Ok(())
    }
}

fn count_messages(context: &Context, size: Size) {
    (0..size.messages).for_each(|_| context.counted.message_sent());
    let sent_bytes = &context.thread.server.metrics.network.client_sent_bytes;
    sent_bytes.inc_by((size.bytes - size.messages * PREFIX_BYTES) as u64);
}

fn observe_sent(context: &Context, events: usize, took: Duration) {
    let watch = &context.thread.server.metrics.watch;
    match events {
        0 => watch.control.observe(took.as_secs_f64()),
        events => watch.sent(events, took),
    }
}

/// Responses that go out together.
struct Chunk {
    responses: Vec<Response>,
    origin: Origin,
    fragment_bytes_max: usize,
}

/// What a chunk will be when it is encoded; bytes with the frames.
#[derive(Clone, Copy, Default)]
struct Size {
    messages: usize,
    events: usize,
    bytes: usize,
}

impl Chunk {
    fn new(context: &Context, responses: Vec<Response>) -> Chunk {
        let member = &context.thread.server.member;
        let request_bytes_max = member.config.limits.request_bytes_max;
        Chunk {
            responses,
            origin: member.origin(),
            fragment_bytes_max: request_bytes_max + FRAGMENT_OVERHEAD_BYTES,
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

    /// What it will be, before anything is allocated for it.
    ///
    /// # Errors
    /// A message is longer than grpc-go sends.
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
fn refusal_text(error: &Error) -> &'static str {
    match error {
        Error::Refused(ApplyError::Auth(AuthError::PermissionDenied)) => {
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
        }
        Error::Refused(ApplyError::Auth(AuthError::UserEmpty)) => {
            "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"
        }
        Error::Refused(ApplyError::Auth(AuthError::OldRevision)) => {
            "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old"
        }
        // Also if it cannot be found out whose token it is: the client gets itself another one.
        _ => "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_gos() {
        for error in [
            AuthError::PermissionDenied.into(),
            AuthError::UserEmpty.into(),
            AuthError::OldRevision.into(),
            Error::InvalidToken,
        ] {
            let text = refusal_text(&error);
            assert_eq!(text, Status::from(error).go_text());
        }
    }
}
