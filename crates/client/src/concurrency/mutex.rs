//! A distributed lock.

use bytes::Bytes;
use retcd_proto::etcdserverpb::Compare;

use super::queue::{QueueError, QueueKey};
use super::session::Session;
use crate::error::Error;

/// A named lock.
pub struct Mutex {
    session: Session,
    prefix: Bytes,
}

/// A lock that is held. Dropping it unlocks in the background; [`MutexGuard::unlock`] reports the
/// outcome.
pub struct MutexGuard {
    key: QueueKey,
    revision: i64,
}

impl Mutex {
    /// The lock called `name`, for this session. The lock is reentrant within a session, as in
    /// etcd's Go client.
    pub fn new(session: &Session, name: impl AsRef<[u8]>) -> Mutex {
        Mutex {
            session: session.clone(),
            prefix: [name.as_ref(), b"/"].concat().into(),
        }
    }

    /// Waits for the lock. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// The session expired, or a request failed permanently.
    pub async fn lock(&self) -> Result<MutexGuard, QueueError> {
        let enqueued = QueueKey::enqueue(&self.session, &self.prefix, Bytes::new()).await?;
        let revision = match enqueued.is_first() {
            true => enqueued.header.revision,
            false => {
                let own = enqueued.key.wait().await?;
                own.header.map_or(0, |header| header.revision)
            }
        };
        Ok(MutexGuard {
            key: enqueued.key,
            revision,
        })
    }

    /// Acquires the lock if the queue is empty.
    ///
    /// # Errors
    /// [`QueueError::Taken`]; the session expired; a request failed permanently.
    pub async fn try_lock(&self) -> Result<MutexGuard, QueueError> {
        let enqueued = QueueKey::enqueue(&self.session, &self.prefix, Bytes::new()).await?;
        if !enqueued.is_first() {
            enqueued.key.delete().await?;
            return Err(QueueError::Taken);
        }
        Ok(MutexGuard {
            revision: enqueued.header.revision,
            key: enqueued.key,
        })
    }
}

impl MutexGuard {
    /// The key of this holder.
    pub fn key(&self) -> &Bytes {
        self.key.key()
    }

    /// The store's revision at which the lock was acquired. A later holder has a larger one: usable
    /// as a fencing token.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// A comparison that holds in a transaction while the lock is held.
    pub fn is_held(&self) -> Compare {
        self.key.is_held()
    }

    /// Releases the lock.
    ///
    /// # Errors
    /// No endpoint could be reached: the lock is released when the session expires.
    pub async fn unlock(self) -> Result<(), Error> {
        self.key.delete().await.map(drop)
    }
}
