//! The requests that a connection thread is answering.
//!
//! A member that stops lets them end. It cannot go by the connections: a client that is frozen, or whose network is gone, never
//! says that it has heard of the end, and its idle connection would take all the time that requests have.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

/// The running requests of a thread.
#[derive(Default)]
pub struct Running(Rc<Count>);

#[derive(Default)]
struct Count {
    requests: Cell<usize>,
    ended: Notify,
}

/// A request, until it is dropped.
pub struct Request(Rc<Count>);

impl Running {
    /// Counts a request.
    pub fn begin(&self) -> Request {
        self.0.requests.set(self.0.requests.get() + 1);
        Request(Rc::clone(&self.0))
    }

    /// Whether any request runs.
    pub fn any(&self) -> bool {
        self.0.requests.get() > 0
    }

    /// Resolves as soon as no request runs.
    pub async fn none(&self) {
        while self.any() {
            self.0.ended.notified().await;
        }
    }
}

impl Request {
    /// The request runs until the whole answer has been taken, or is given up.
    pub fn answered<B>(self, response: Response<B>) -> Response<Answer<B>> {
        response.map(|body| Answer {
            body,
            _request: self,
        })
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let left = self.0.requests.get() - 1;
        self.0.requests.set(left);
        if left == 0 {
            self.0.ended.notify_one();
        }
    }
}

/// The answer to a request.
pub struct Answer<B> {
    body: B,
    _request: Request,
}

impl<B: Body + Unpin> Body for Answer<B> {
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
    fn none_runs_when_all_have_been_answered() {
        let running = Running::default();
        assert_eq!(running.none().now_or_never(), Some(()));
        let (first, second) = (running.begin(), running.begin());
        let mut none = Box::pin(running.none());
        assert_eq!((&mut none).now_or_never(), None);
        drop(first);
        assert_eq!((&mut none).now_or_never(), None);
        let answer = second.answered(Response::new(String::new()));
        assert_eq!((&mut none).now_or_never(), None);
        drop(answer);
        assert_eq!(none.now_or_never(), Some(()));
    }
}
