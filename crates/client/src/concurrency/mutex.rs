//! A lock that one process at a time has.

use bytes::Bytes;
use retcd_proto::etcdserverpb::Compare;

use super::queue::{Place, QueueError};
use super::session::Session;
use crate::error::Error;

/// A lock of the cluster, by name.
pub struct Mutex {
    session: Session,
    prefix: Bytes,
}

/// A lock that is had. Dropping it gives it back in the background; [`MutexGuard::unlock`] says how
/// that ends.
pub struct MutexGuard {
    place: Place,
    revision: i64,
}

impl Mutex {
    /// The lock `name`, for this session. Two locks of the same name and the same session are one:
    /// whoever has it gets it again.
    pub fn new(session: &Session, name: impl AsRef<[u8]>) -> Mutex {
        Mutex {
            session: session.clone(),
            prefix: [name.as_ref(), b"/"].concat().into(),
        }
    }

    /// Waits for the lock. Who drops the future leaves the queue.
    ///
    /// # Errors
    /// The session ended; a request failed for good.
    pub async fn lock(&self) -> Result<MutexGuard, QueueError> {
        let entered = Place::enter(&self.session, &self.prefix, Bytes::new()).await?;
        let revision = match entered.is_first() {
            true => entered.header.revision,
            false => {
                let own = entered.place.wait().await?;
                own.header.map_or(0, |header| header.revision)
            }
        };
        Ok(MutexGuard {
            place: entered.place,
            revision,
        })
    }

    /// Takes the lock if nobody has it or waits for it.
    ///
    /// # Errors
    /// [`QueueError::Taken`]; the session ended; a request failed for good.
    pub async fn try_lock(&self) -> Result<MutexGuard, QueueError> {
        let entered = Place::enter(&self.session, &self.prefix, Bytes::new()).await?;
        if !entered.is_first() {
            entered.place.leave().await?;
            return Err(QueueError::Taken);
        }
        Ok(MutexGuard {
            revision: entered.header.revision,
            place: entered.place,
        })
    }
}

impl MutexGuard {
    /// The key that stands for the lock.
    pub fn key(&self) -> &Bytes {
        self.place.key()
    }

    /// The store's revision when the lock was got. A later holder has a larger one.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// A comparison that holds in a transaction exactly as long as the lock is had.
    pub fn is_held(&self) -> Compare {
        self.place.is_held()
    }

    /// Gives the lock back.
    ///
    /// # Errors
    /// Nobody could be reached: the lock ends with the session.
    pub async fn unlock(self) -> Result<(), Error> {
        self.place.leave().await.map(drop)
    }
}
