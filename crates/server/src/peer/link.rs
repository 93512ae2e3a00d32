//! One other member, as messages to it are sent: queues, and which of them a message goes into.

use std::sync::Arc;

use parking_lot::Mutex;
use retcd_proto::raftpb::{Message, MessageType};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::codec::StreamKind;
use super::picker::Picker;
use super::status::Status;
use crate::log::Seldom;

/// Messages that wait for a stream, as in etcd.
const STREAM_MESSAGES_MAX: usize = 4096;
/// Messages that wait for the pipeline, as in etcd: about what a short hiccup of the network holds back.
const PIPELINE_MESSAGES_MAX: usize = 64;

/// How well a member is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// By the membership: both sides dial streams.
    Peer,
    /// By its own word or somebody else's: it gets what it must have to learn the rest, over the pipeline.
    Remote,
}

/// One other member.
pub(super) struct Link {
    pub id: u64,
    pub kind: Kind,
    pub picker: Picker,
    pub status: Status,
    /// Times at which the peer's refusal of our POSTs was logged.
    pub refused: Seldom,
    msgapp: Lane,
    message: Lane,
    pipeline: mpsc::Sender<Message>,
}

/// What the pipeline's workers take messages from, together.
pub(super) type PipelineQueue = Arc<tokio::sync::Mutex<mpsc::Receiver<Message>>>;

/// A message that found no room, and where.
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
    /// A link without connections, and its pipeline's other end.
    pub fn new(id: u64, kind: Kind, picker: Picker, status: Status) -> (Link, PipelineQueue) {
        let (pipeline, queue) = mpsc::channel(PIPELINE_MESSAGES_MAX);
        let link = Link {
            id,
            kind,
            picker,
            status,
            refused: Seldom::default(),
            msgapp: Lane::default(),
            message: Lane::default(),
            pipeline,
        };
        (link, Arc::new(tokio::sync::Mutex::new(queue)))
    }

    /// The queue of a stream.
    pub fn lane(&self, kind: StreamKind) -> &Lane {
        match kind {
            StreamKind::MsgApp => &self.msgapp,
            StreamKind::Message => &self.message,
        }
    }

    /// Puts a message into the best queue that has a connection.
    ///
    /// # Errors
    /// When that queue is full. A worse one would only bring the message out of order.
    pub fn send(&self, message: Message) -> Result<(), Box<Overflow>> {
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
    pub fn close(&self) {
        self.msgapp.close();
        self.message.close();
        self.status.end();
    }
}

/// The queue of one stream: there is one while a connection takes from it.
#[derive(Default)]
pub(super) struct Lane(Mutex<Attached>);

#[derive(Default)]
struct Attached {
    /// Counts the connections.
    number: u64,
    sender: Option<mpsc::Sender<Message>>,
    /// The member is gone; no connection may attach any more.
    closed: bool,
}

/// What a connection gets when it attaches to a lane.
pub(super) struct Turn {
    /// Messages for the connection; ends when another one attaches or the member is removed.
    pub queue: mpsc::Receiver<Message>,
    /// Tells the connection from others of the lane.
    pub number: u64,
    /// Whether there was one before.
    pub replaced: bool,
}

enum Unsent {
    NoConnection(Box<Message>),
    Full(Box<Message>),
}

impl Lane {
    /// Gives a new connection a queue of its own; one that was there before ends. `None` once closed.
    pub fn attach(&self) -> Option<Turn> {
        let (sender, queue) = mpsc::channel(STREAM_MESSAGES_MAX);
        let mut attached = self.0.lock();
        if attached.closed {
            return None;
        }
        attached.number += 1;
        Some(Turn {
            queue,
            number: attached.number,
            replaced: attached.sender.replace(sender).is_some(),
        })
    }

    /// Takes the queue from a connection that is gone; `false` if it had none any more.
    pub fn detach(&self, number: u64) -> bool {
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

        let mut messages = link.lane(StreamKind::Message).attach().unwrap().queue;
        send(2);
        assert_eq!(taken(&mut messages), [("MsgApp", 2), ("MsgHeartbeat", 2)]);

        let mut msgapp = link.lane(StreamKind::MsgApp).attach().unwrap();
        assert!(!msgapp.replaced);
        send(3);
        assert_eq!(taken(&mut msgapp.queue), [("MsgApp", 3)]);
        assert_eq!(taken(&mut messages), [("MsgHeartbeat", 3)]);

        let mut newer = link.lane(StreamKind::MsgApp).attach().unwrap();
        assert!(newer.replaced);
        send(4);
        assert_eq!(taken(&mut newer.queue), [("MsgApp", 4)]);
        assert_eq!(taken(&mut msgapp.queue), []);
        let lane = link.lane(StreamKind::MsgApp);
        assert!(!lane.detach(msgapp.number), "was replaced");

        link.close();
        assert!(!lane.detach(newer.number), "was closed");
        assert!(lane.attach().is_none());
        send(5);
        assert_eq!(taken(&mut pipeline), [("MsgApp", 5), ("MsgHeartbeat", 5)]);
    }

    #[test]
    fn a_full_queue_drops_and_does_not_spill_into_another() {
        let (link, _pipeline) = link();
        let _messages = link.lane(StreamKind::Message).attach().unwrap();
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
