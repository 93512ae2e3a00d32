//! Connection limits, from the number of file descriptors.
//!
//! A member that has none left cannot begin a segment of its log, and ends. So clients get all but some of them
//! ([`ConnectionLimit`]): a connection has a permit from accept to close, and when all are taken, newcomers wait in the listener's
//! queue. The listeners for metrics have a limit of their own, so that a member that is full can be looked at, and cannot be filled
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

/// The limit of all clients' connections, or of those for metrics.
#[derive(Clone, Debug)]
pub struct ConnectionLimit(Arc<Semaphore>);

/// A connection's permit; free again when this is dropped.
#[derive(Debug, Default)]
pub struct ConnectionPermit {
    _permit: Option<OwnedSemaphorePermit>,
}

impl ConnectionLimit {
    /// As many as this process may have, after the limit was raised as far as that is allowed: Go's programs do so, and
    /// most services are started with a low limit that they may raise.
    ///
    /// # Errors
    /// There are not enough.
    pub fn of_process() -> Result<ConnectionLimit, TooFewDescriptors> {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        // If it may not be raised, it stays what it is.
        let _ = setrlimit(Resource::Nofile, raised);
        ConnectionLimit::of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    /// Those of the listeners for metrics.
    pub fn for_metrics() -> ConnectionLimit {
        ConnectionLimit(Arc::new(Semaphore::new(FOR_METRICS)))
    }

    fn of(limit: u64) -> Result<ConnectionLimit, TooFewDescriptors> {
        let count = limit.saturating_sub(RESERVED);
        if count == 0 {
            return Err(TooFewDescriptors { limit });
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let count = count.min(Semaphore::MAX_PERMITS);
        Ok(ConnectionLimit(Arc::new(Semaphore::new(count))))
    }

    /// Waits for a free one.
    pub async fn acquire(&self) -> ConnectionPermit {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        ConnectionPermit {
            _permit: Some(permit.expect("the semaphore is never closed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clients_get_what_the_member_does_not_need() {
        assert!(ConnectionLimit::of(RESERVED).is_err());
        assert!(ConnectionLimit::of(u64::MAX).is_ok());
        let limit = ConnectionLimit::of(RESERVED + 2).unwrap();
        let (first, _second) = (limit.acquire().await, limit.acquire().await);
        let mut third = Box::pin(limit.acquire());
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
