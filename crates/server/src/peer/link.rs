//! The queues of messages to one other member.

use std::sync::Arc;

use parking_lot::Mutex;
use retcd_proto::raftpb::{Message, MessageType};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::codec::StreamKind;
use super::picker::Picker;
use super::statistics::Follower;
use super::status::Status;
use crate::log::Throttle;

/// Messages in the queue of a stream, as in etcd.
const STREAM_MESSAGES_MAX: usize = 4096;
/// Messages in the queue of the pipeline, as in etcd: enough for a short interruption of the
/// network.
const PIPELINE_MESSAGES_MAX: usize = 64;

/// How a member is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is in the membership: both sides open streams.
    Peer,
    /// Only by its own request or another member's answer. It gets what it needs to catch up, over
    /// the pipeline.
    Remote,
}

/// The connections with one other member.
pub(super) struct Link {
    pub id: u64,
    pub kind: Kind,
    pub picker: Picker,
    pub status: Status,
    pub follower: Follower,
    /// Limits logging of refused POSTs.
    pub refused: Throttle,
    msgapp: StreamQueue,
    message: StreamQueue,
    pipeline: mpsc::Sender<Message>,
}

/// The receiving end that the workers of a pipeline share.
pub(super) type PipelineQueue = Arc<tokio::sync::Mutex<mpsc::Receiver<Message>>>;

/// A message that was dropped, and the queue that is full.
#[derive(Debug)]
pub(super) struct Overflow {
    pub message: Message,
    pub queue: &'static str,
}

impl Overflow {
    fn boxed(message: Message, queue: &'static str) -> Box<Overflow> {
        Box::new(Overflow { message, queue })
    }
}

impl Link {
    /// Returns the receiving end of the pipeline, too.
    pub(super) fn new(
        id: u64,
        kind: Kind,
        picker: Picker,
        status: Status,
    ) -> (Link, PipelineQueue) {
        let (pipeline, queue) = mpsc::channel(PIPELINE_MESSAGES_MAX);
        let link = Link {
            id,
            kind,
            picker,
            status,
            follower: Follower::default(),
            refused: Throttle::default(),
            msgapp: StreamQueue::default(),
            message: StreamQueue::default(),
            pipeline,
        };
        (link, Arc::new(tokio::sync::Mutex::new(queue)))
    }

    pub(super) fn stream_queue(&self, kind: StreamKind) -> &StreamQueue {
        match kind {
            StreamKind::MsgApp => &self.msgapp,
            StreamKind::Message => &self.message,
        }
    }

    /// Sends a message to the first queue with a connection, in the order of streams and pipeline.
    ///
    /// # Errors
    /// That queue is full. Another one would only reorder the message.
    pub(super) fn send(&self, message: Message) -> Result<(), Box<Overflow>> {
        let mut message = message;
        if message.r#type() == MessageType::MsgApp {
            match self.msgapp.send(message) {
                Ok(()) => return Ok(()),
                Err(Unsent::Full(message)) => {
                    let queue = StreamKind::MsgApp.name();
                    return Err(Overflow::boxed(*message, queue));
                }
                Err(Unsent::NoConnection(back)) => message = *back,
            }
        }
        match self.message.send(message) {
            Ok(()) => return Ok(()),
            Err(Unsent::Full(message)) => {
                let queue = StreamKind::Message.name();
                return Err(Overflow::boxed(*message, queue));
            }
            Err(Unsent::NoConnection(back)) => message = *back,
        }
        self.pipeline
            .try_send(message)
            .map_err(|error| Overflow::boxed(error.into_inner(), "pipeline"))
    }

    /// Ends the streams.
    pub(super) fn close(&self) {
        self.msgapp.close();
        self.message.close();
        self.status.end();
    }
}

/// The queue of a stream, which exists while a connection is attached.
#[derive(Default)]
pub(super) struct StreamQueue(Mutex<Attached>);

#[derive(Default)]
struct Attached {
    /// Counts connections.
    number: u64,
    sender: Option<mpsc::Sender<Message>>,
    /// The member was removed; no connection may attach.
    closed: bool,
}

/// What a connection gets when it attaches to a queue.
pub(super) struct Attachment {
    /// Closed when another connection attaches or the member is removed.
    pub queue: mpsc::Receiver<Message>,
    /// Tells the connection from others of the queue.
    pub number: u64,
    /// Whether another connection has been replaced.
    pub replaced: bool,
}

enum Unsent {
    NoConnection(Box<Message>),
    Full(Box<Message>),
}

impl StreamQueue {
    /// Attaches a new connection, replacing the one before. None once closed.
    pub(super) fn attach(&self) -> Option<Attachment> {
        let (sender, queue) = mpsc::channel(STREAM_MESSAGES_MAX);
        let mut attached = self.0.lock();
        if attached.closed {
            return None;
        }
        attached.number += 1;
        Some(Attachment {
            queue,
            number: attached.number,
            replaced: attached.sender.replace(sender).is_some(),
        })
    }

    /// Detaches a connection that is gone; false if it has been replaced already.
    pub(super) fn detach(&self, number: u64) -> bool {
        let mut attached = self.0.lock();
        attached.number == number && attached.sender.take().is_some()
    }

    fn close(&self) {
        let mut attached = self.0.lock();
        attached.sender = None;
        attached.closed = true;
    }

    fn send(&self, message: Message) -> Result<(), Unsent> {
        let mut attached = self.0.lock();
        let Some(sender) = &attached.sender else {
            return Err(Unsent::NoConnection(Box::new(message)));
        };
        match sender.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(message)) => Err(Unsent::Full(Box::new(message))),
            Err(TrySendError::Closed(message)) => {
                attached.sender = None;
                Err(Unsent::NoConnection(Box::new(message)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::url::Url;
    use crate::metrics::{Detail, Metrics};

    fn link() -> (Link, PipelineQueue) {
        let url = Url::parse("http://127.0.0.1:1").unwrap();
        let metrics = Arc::new(Metrics::new(Detail::Basic));
        let picker = Picker::new(vec![url]).unwrap();
        Link::new(2, Kind::Peer, picker, Status::new(1, 2, metrics))
    }

    fn message(kind: MessageType, index: u64) -> Message {
        Message {
            r#type: Some(kind as i32),
            index: Some(index),
            ..Message::default()
        }
    }

    #[test]
    fn a_message_takes_the_best_way_that_is_open() {
        let (link, pipeline) = link();
        let mut pipeline = pipeline.try_lock().unwrap();
        let send = |index| {
            link.send(message(MessageType::MsgApp, index)).unwrap();
            link.send(message(MessageType::MsgHeartbeat, index))
                .unwrap();
        };
        let taken = |queue: &mut mpsc::Receiver<Message>| {
            std::iter::from_fn(|| queue.try_recv().ok())
                .map(|message| (message.r#type().as_str_name(), message.index()))
                .collect::<Vec<_>>()
        };
        send(1);
        assert_eq!(taken(&mut pipeline), [("MsgApp", 1), ("MsgHeartbeat", 1)]);

        let mut messages = link
            .stream_queue(StreamKind::Message)
            .attach()
            .unwrap()
            .queue;
        send(2);
        assert_eq!(taken(&mut messages), [("MsgApp", 2), ("MsgHeartbeat", 2)]);

        let mut msgapp = link.stream_queue(StreamKind::MsgApp).attach().unwrap();
        assert!(!msgapp.replaced);
        send(3);
        assert_eq!(taken(&mut msgapp.queue), [("MsgApp", 3)]);
        assert_eq!(taken(&mut messages), [("MsgHeartbeat", 3)]);

        let mut newer = link.stream_queue(StreamKind::MsgApp).attach().unwrap();
        assert!(newer.replaced);
        send(4);
        assert_eq!(taken(&mut newer.queue), [("MsgApp", 4)]);
        assert_eq!(taken(&mut msgapp.queue), []);
        let queue = link.stream_queue(StreamKind::MsgApp);
        assert!(!queue.detach(msgapp.number), "was replaced");

        link.close();
        assert!(!queue.detach(newer.number), "was closed");
        assert!(queue.attach().is_none());
        send(5);
        assert_eq!(taken(&mut pipeline), [("MsgApp", 5), ("MsgHeartbeat", 5)]);
    }

    #[test]
    fn a_full_queue_drops_and_does_not_spill_into_another() {
        let (link, _pipeline) = link();
        let _messages = link.stream_queue(StreamKind::Message).attach().unwrap();
        for index in 0..STREAM_MESSAGES_MAX as u64 {
            link.send(message(MessageType::MsgHeartbeat, index))
                .unwrap();
        }
        let overflow = link
            .send(message(MessageType::MsgHeartbeat, 9))
            .unwrap_err();
        assert_eq!(
            (overflow.queue, overflow.message.index()),
            ("stream Message", 9)
        );

        link.close();
        for index in 0..PIPELINE_MESSAGES_MAX as u64 {
            link.send(message(MessageType::MsgApp, index)).unwrap();
        }
        let overflow = link.send(message(MessageType::MsgApp, 9)).unwrap_err();
        assert_eq!(overflow.queue, "pipeline");
    }
}
