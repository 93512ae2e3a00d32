//! Bodies of requests, read whole.

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, Limited};

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is longer than it may be.
    TooLarge,
    /// It does not arrive whole.
    Broken,
}

/// The body, of `bytes_max` at most.
///
/// # Errors
/// It is longer, or broke off.
pub(crate) async fn read<B: Body>(body: B, bytes_max: usize) -> Result<Bytes, Unread> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(Unread::TooLarge);
    }
    // The limit's error is the only one without the body's own error in it.
    let limited = Limited::new(body.map_err(|_| BrokenBody), bytes_max);
    match limited.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<BrokenBody>() => Err(Unread::Broken),
        Err(_) => Err(Unread::TooLarge),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the request's body broke off")]
struct BrokenBody;
