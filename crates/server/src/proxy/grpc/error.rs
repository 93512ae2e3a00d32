//! What a client of the proxy is told when a server refuses a request or none can be reached.

use retcd_client::Error;

use crate::status::{self, Code, Status};

/// The status that the server gave, where one did. etcd's proxy makes code `Unknown` of some of
/// them.
pub(super) fn status_of(error: Error) -> Status {
    match error {
        Error::Refused { code, message } => Status::new(code, message),
        Error::Broken { message, .. } | Error::Unsent { message } => {
            Status::new(Code::Unavailable, message)
        }
        Error::Unreachable { reason } => Status::new(Code::Unavailable, reason),
        Error::DeadlineExceeded { .. } => status::DEADLINE_EXCEEDED,
        Error::RequestTooLarge { bytes, limit } => Status::new(
            Code::ResourceExhausted,
            format!("trying to send message larger than max ({bytes} vs. {limit})"),
        ),
        Error::ResponseTooLarge { bytes, limit } => Status::new(
            Code::ResourceExhausted,
            format!("grpc: received message larger than max ({bytes} vs. {limit})"),
        ),
        error @ Error::Incomplete(_) => Status::new(Code::Internal, error.to_string()),
    }
}
