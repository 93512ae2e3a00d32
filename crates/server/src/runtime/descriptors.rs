//! How many file descriptors there are, and for whom.
//!
//! A member that has none left cannot begin a segment of its log, and ends. So clients get all but some of them
//! ([`Seats`]): a connection has a seat from accept to close, and when all are taken, newcomers wait in the listener's
//! queue. The listeners for metrics have seats of their own, so that a member that is full can be looked at, and cannot be filled
//! through them. Other members are not counted.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a member needs for its files and for other members, as in etcd.
const RESERVED: u64 = 150;

/// Connections to the listeners for metrics at a time, out of what is reserved.
const FOR_METRICS: usize = 32;

/// There are not enough for a single client.
#[derive(Debug, thiserror::Error)]
#[error("{limit} descriptors are allowed, and the member keeps {RESERVED} for itself")]
pub struct TooFewDescriptors {
    limit: u64,
}

/// The seats of all clients' connections, or of those for metrics.
#[derive(Clone, Debug)]
pub struct Seats(Arc<Semaphore>);

/// A connection's seat; free again when this is dropped.
#[derive(Debug, Default)]
pub struct Seat {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Seats {
    /// As many as this process may have, after the limit was raised as far as that is allowed: Go's programs do so, and
    /// most services are started with a low limit that they may raise.
    ///
    /// # Errors
    /// There are not enough.
    pub fn of_process() -> Result<Seats, TooFewDescriptors> {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        // If it may not be raised, it stays what it is.
        let _ = setrlimit(Resource::Nofile, raised);
        Seats::of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    /// Those of the listeners for metrics.
    pub fn for_metrics() -> Seats {
        Seats(Arc::new(Semaphore::new(FOR_METRICS)))
    }

    fn of(limit: u64) -> Result<Seats, TooFewDescriptors> {
        let count = limit.saturating_sub(RESERVED);
        if count == 0 {
            return Err(TooFewDescriptors { limit });
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let count = count.min(Semaphore::MAX_PERMITS);
        Ok(Seats(Arc::new(Semaphore::new(count))))
    }

    /// Waits for a free one.
    pub async fn take(&self) -> Seat {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        Seat {
            _permit: Some(permit.expect("the semaphore is never closed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clients_get_what_the_member_does_not_need() {
        assert!(Seats::of(RESERVED).is_err());
        assert!(Seats::of(u64::MAX).is_ok());
        let seats = Seats::of(RESERVED + 2).unwrap();
        let (first, _second) = (seats.take().await, seats.take().await);
        let mut third = Box::pin(seats.take());
        assert!(has_to_wait(&mut third).await);
        drop(first);
        third.await;
    }

    /// Whether `future` has to wait.
    async fn has_to_wait<F: Future + Unpin>(future: &mut F) -> bool {
        let poll = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())
        });
        poll.await
    }
}
