//! The requests in flight on one connection thread.
//!
//! A stopping member waits for them and not for its connections: a client that is frozen or cut off
//! never reacts to GOAWAY, and its idle connection would use up the time that requests have.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

/// Counts the requests of a thread.
#[derive(Default)]
pub(crate) struct RequestsInFlight(Rc<Count>);

#[derive(Default)]
struct Count {
    requests: Cell<usize>,
    ended: Notify,
}

/// Counts one request until it is dropped.
pub(crate) struct RequestGuard(Rc<Count>);

impl RequestsInFlight {
    pub(crate) fn begin(&self) -> RequestGuard {
        self.0.requests.set(self.0.requests.get() + 1);
        RequestGuard(Rc::clone(&self.0))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.requests.get() == 0
    }

    /// Waits until there are none.
    pub(crate) async fn drained(&self) {
        while !self.is_empty() {
            self.0.ended.notified().await;
        }
    }
}

impl RequestGuard {
    /// Counts the request until the whole body of its response has been taken or dropped.
    pub(crate) fn guard<B>(self, response: Response<B>) -> Response<GuardedBody<B>> {
        response.map(|body| GuardedBody { body, _guard: self })
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let left = self.0.requests.get() - 1;
        self.0.requests.set(left);
        if left == 0 {
            self.0.ended.notify_one();
        }
    }
}

/// The body of a response whose request is in flight.
pub(crate) struct GuardedBody<B> {
    body: B,
    _guard: RequestGuard,
}

impl<B: Body + Unpin> Body for GuardedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn drained_when_all_responses_have_been_taken() {
        let requests = RequestsInFlight::default();
        assert_eq!(requests.drained().now_or_never(), Some(()));
        let (first, second) = (requests.begin(), requests.begin());
        let mut drained = Box::pin(requests.drained());
        assert_eq!((&mut drained).now_or_never(), None);
        drop(first);
        assert_eq!((&mut drained).now_or_never(), None);
        let response = second.guard(Response::new(String::new()));
        assert_eq!((&mut drained).now_or_never(), None);
        drop(response);
        assert_eq!(drained.now_or_never(), Some(()));
    }
}
