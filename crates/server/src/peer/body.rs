//! The bodies of responses to peers, among them the endless one of a stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use prometheus::IntCounter;
use retcd_proto::raftpb::{Message, MessageType};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::IO_TIMEOUT;
use super::codec::{Encoder, StreamKind};
use super::link::{Attachment, Link};
use super::transport::Shared;
use crate::log::{self, Hex};

/// A chunk gets no more messages beyond this size.
const CHUNK_BYTES_MAX: usize = 512 << 10;
/// Messages that are received from the queue at once.
const BATCH_MESSAGES_MAX: usize = 256;

/// The body of a response to a peer.
pub struct PeerBody(Kind);

enum Kind {
    Full(Full<Bytes>),
    Stream(Box<StreamBody>),
}

impl From<Full<Bytes>> for PeerBody {
    fn from(body: Full<Bytes>) -> PeerBody {
        PeerBody(Kind::Full(body))
    }
}

impl From<StreamBody> for PeerBody {
    fn from(body: StreamBody) -> PeerBody {
        PeerBody(Kind::Stream(Box::new(body)))
    }
}

impl Body for PeerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.0 {
            Kind::Full(body) => Pin::new(body).poll_frame(cx),
            Kind::Stream(body) => body
                .poll_chunk(cx)
                .map(|chunk| Some(Ok(Frame::data(chunk?)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(body) => body.is_end_stream(),
            Kind::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(body) => body.size_hint(),
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}

/// Writes the messages of a stream to the peer that has opened it.
///
/// There is no task or buffer between the queue and the connection: whenever the connection can
/// write, it polls for a chunk and gets all messages that wait.
pub(super) struct StreamBody {
    shared: Arc<Shared>,
    link: Arc<Link>,
    kind: StreamKind,
    /// Identifies this connection among those of the stream.
    number: u64,
    queue: mpsc::Receiver<Message>,
    batch: Vec<Message>,
    encoder: Encoder,
    buffer: BytesMut,
    heartbeat: Interval,
    sent_bytes: IntCounter,
}

impl StreamBody {
    /// Attaches a new connection to a stream, replacing the one before. None if the member was
    /// removed.
    pub(super) fn attach(
        shared: Arc<Shared>,
        link: Arc<Link>,
        kind: StreamKind,
    ) -> Option<StreamBody> {
        let Attachment {
            queue,
            number,
            replaced,
        } = link.stream_queue(kind).attach()?;
        let handles = shared.metrics.peer.handles(shared.local.id, link.id);
        let sent_bytes = handles.sent_bytes();
        let mut heartbeat = interval(IO_TIMEOUT / 3);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick would be due at once.
        heartbeat.reset();
        link.status.activate();
        log::info!("set message encoder";
            "from" => Hex(shared.local.id), "to" => Hex(link.id), "stream-type" => kind.name());
        let body = StreamBody {
            shared,
            link,
            kind,
            number,
            queue,
            batch: Vec::new(),
            encoder: Encoder::new(kind),
            buffer: BytesMut::new(),
            heartbeat,
            sent_bytes,
        };
        if replaced {
            body.log_closed();
        }
        log::info!("established TCP streaming connection with remote peer";
            "stream-writer-type" => kind.name(),
            "local-member-id" => Hex(body.shared.local.id),
            "remote-peer-id" => Hex(body.link.id));
        Some(body)
    }

    /// The next chunk; none once the connection has been replaced.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.heartbeat.poll_tick(cx).is_ready() {
            self.encoder.encode_heartbeat(&mut self.buffer);
            // Registers the task with the timer again.
            let _ = self.heartbeat.poll_tick(cx);
        }
        let mut open = true;
        while open && self.buffer.len() < CHUNK_BYTES_MAX {
            match self
                .queue
                .poll_recv_many(cx, &mut self.batch, BATCH_MESSAGES_MAX)
            {
                Poll::Pending => break,
                Poll::Ready(taken) => open = taken > 0,
            }
            for message in self.batch.drain(..) {
                let started = Instant::now();
                self.encoder.encode(&message, &mut self.buffer);
                if message.r#type() == MessageType::MsgApp {
                    self.link.follower.sent(started.elapsed());
                }
            }
        }
        match (self.buffer.is_empty(), open) {
            (false, _) => {
                self.sent_bytes.inc_by(self.buffer.len() as u64);
                Poll::Ready(Some(self.buffer.split().freeze()))
            }
            (true, true) => Poll::Pending,
            (true, false) => Poll::Ready(None),
        }
    }

    fn log_closed(&self) {
        log::warn!("closed TCP streaming connection with remote peer";
            "stream-writer-type" => self.kind.name(),
            "local-member-id" => Hex(self.shared.local.id),
            "remote-peer-id" => Hex(self.link.id));
    }
}

impl Drop for StreamBody {
    /// The connection was closed. What was in its buffers may be lost, so raft is notified.
    fn drop(&mut self) {
        if !self.link.stream_queue(self.kind).detach(self.number) {
            return;
        }
        self.link
            .status
            .deactivate("write", self.kind.name(), "connection closed");
        log::warn!("lost TCP streaming connection with remote peer";
            "stream-writer-type" => self.kind.name(),
            "local-member-id" => Hex(self.shared.local.id),
            "remote-peer-id" => Hex(self.link.id));
        self.shared.node.report_unreachable(self.link.id);
    }
}
