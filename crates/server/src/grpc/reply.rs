//! What a call is answered with, before it is known over what.

use bytes::Bytes;
use http::Response;

use super::frames;
use super::wire::{ResponseBody, error_response, stream_response, unary_response};
use crate::status::Status;

/// The answer of a method.
pub(crate) enum Reply {
    /// A failure, before anything else was sent.
    Failed(Status),
    /// One framed message, in one piece.
    Message(Bytes),
    /// Frames from a task, in pieces; the last item is the status of the call. A unary method
    /// answers so when its message is long.
    Stream(frames::Receiver),
}

impl From<Reply> for Response<ResponseBody> {
    fn from(reply: Reply) -> Response<ResponseBody> {
        match reply {
            Reply::Failed(status) => error_response(&status),
            Reply::Message(message) => unary_response(message),
            Reply::Stream(messages) => stream_response(messages),
        }
    }
}
