//! The messages of a call's request, whatever they came over.

use bytes::Bytes;
use futures_util::stream::{LocalBoxStream, StreamExt};
use hyper::body::Incoming;

use super::wire::{MessageReader, Received};
use crate::status::Status;

/// Where the messages of a call come from.
pub(crate) enum Requests {
    /// Framed, over HTTP/2.
    Framed(MessageReader<Incoming>),
    /// Encoded messages that something else was made of.
    Messages {
        /// They end where the client's half of the call does.
        messages: LocalBoxStream<'static, Result<Bytes, Status>>,
        /// The length of the longest that is accepted.
        message_bytes_max: usize,
    },
}

impl Requests {
    /// The next message, `None` at the end of the client's half. Nothing is lost if the future is
    /// dropped.
    ///
    /// # Errors
    /// A message that is too long or was not understood.
    pub(super) async fn next(&mut self) -> Result<Option<Received>, Status> {
        match self {
            Requests::Framed(reader) => reader.next().await,
            Requests::Messages {
                messages,
                message_bytes_max,
            } => {
                let message = messages.next().await.transpose()?;
                let received = message.map(|bytes| Received::of(bytes, *message_bytes_max));
                received.transpose()
            }
        }
    }
}
