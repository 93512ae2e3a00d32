//! Limits on connections, so that clients do not use up the file descriptors.
//!
//! A member without a free descriptor cannot open the next segment of its log, and stops. So all
//! but [`RESERVED`] descriptors are for clients: a connection takes a permit when it is accepted
//! and returns it when it is closed. While there is none, new connections wait in the listener's
//! backlog.
//!
//! Listeners for metrics have a limit of their own, so that an overloaded member can be looked at,
//! and clients cannot get around their limit. Connections of other members are not limited.

use std::sync::Arc;

use rustix::process::Resource;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rlimit::raise_limit;

/// Descriptors for the member's files and for other members, as in etcd.
const RESERVED: u64 = 150;

/// Concurrent connections to the listeners for metrics; taken from what is reserved.
const METRICS_CONNECTIONS_MAX: usize = 32;

/// No descriptor is left for clients.
#[derive(Debug, thiserror::Error)]
#[error("{limit} descriptors are allowed, and the member keeps {RESERVED} for itself")]
pub(crate) struct TooFewDescriptors {
    limit: u64,
}

/// A limit on concurrent connections.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionLimit(Arc<Semaphore>);

/// The right to one connection, returned when dropped. The default is that of a connection that is
/// not limited.
#[derive(Debug, Default)]
pub(crate) struct ConnectionPermit {
    _permit: Option<OwnedSemaphorePermit>,
}

impl ConnectionLimit {
    /// The limit for clients. Raises the soft limit on descriptors to the hard one first, as Go's
    /// runtime does: most services are started with a low soft limit.
    ///
    /// # Errors
    /// The limit on descriptors leaves none for clients.
    pub(crate) fn for_clients() -> Result<ConnectionLimit, TooFewDescriptors> {
        ConnectionLimit::of_descriptors(raise_limit(Resource::Nofile).unwrap_or(u64::MAX))
    }

    pub(crate) fn for_metrics() -> ConnectionLimit {
        ConnectionLimit(Arc::new(Semaphore::new(METRICS_CONNECTIONS_MAX)))
    }

    fn of_descriptors(limit: u64) -> Result<ConnectionLimit, TooFewDescriptors> {
        let count = limit.saturating_sub(RESERVED);
        if count == 0 {
            return Err(TooFewDescriptors { limit });
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let count = count.min(Semaphore::MAX_PERMITS);
        Ok(ConnectionLimit(Arc::new(Semaphore::new(count))))
    }

    /// Waits until a connection is allowed.
    pub(crate) async fn acquire(&self) -> ConnectionPermit {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        ConnectionPermit {
            _permit: Some(permit.expect("the semaphore is never closed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn clients_get_the_descriptors_that_are_not_reserved() {
        assert!(ConnectionLimit::of_descriptors(RESERVED).is_err());
        assert!(ConnectionLimit::of_descriptors(u64::MAX).is_ok());
        let limit = ConnectionLimit::of_descriptors(RESERVED + 2).unwrap();
        let acquire = || limit.acquire().now_or_never();
        let (first, _second) = (acquire().unwrap(), acquire().unwrap());
        assert!(acquire().is_none());
        drop(first);
        assert!(acquire().is_some());
    }
}
