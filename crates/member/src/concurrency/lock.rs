//! Locks.

use std::rc::Rc;

use bytes::Bytes;
use retcd_proto::etcdserverpb::DeleteRangeRequest;
use retcd_proto::v3lockpb::{LockRequest, UnlockRequest};
use retcd_state::mvcc::StoreRevision;

use super::queue::{KeysBelow, Parts, QueueError, Session};
use crate::Error;
use crate::access::Credentials;
use crate::core::Core;
use crate::space::Space;
use crate::watch::Watches;

/// Locks.
pub struct Locks {
    parts: Parts,
}

/// A lock that a client has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// The key that holds it.
    pub key: Bytes,
    /// A revision at which it was held.
    pub revision: StoreRevision,
}

impl Locks {
    pub(crate) fn new(core: &Rc<Core>, space: &Rc<Space>, watches: &Rc<Watches>) -> Locks {
        Locks {
            parts: Parts::new(core, space, watches),
        }
    }

    /// Waits for a lock. A client that has it already, by the same lease, gets it at once.
    ///
    /// Has to run to its end: when `abandoned` resolves, the client no longer waits, and its key is
    /// deleted.
    ///
    /// # Errors
    /// The client's key is gone; the member stops; as those of the steps.
    pub async fn lock(
        &self,
        credentials: &Credentials,
        request: LockRequest,
        abandoned: impl Future<Output = ()>,
    ) -> Result<Locked, QueueError> {
        let session = Session::open(&self.parts, credentials, request.lease).await?;
        let keys = KeysBelow::of(&request.name);
        let entered = session.enter(&keys, Bytes::new()).await?;
        let revision = match entered.is_first {
            true => entered.revision,
            false => entered.place.wait(abandoned).await?,
        };
        Ok(Locked {
            key: entered.place.key().clone(),
            revision,
        })
    }

    /// Gives a lock back, whoever holds it; the revision behind that.
    ///
    /// # Errors
    /// As [`Kv::delete_range`](crate::kv::Kv::delete_range).
    pub async fn unlock(
        &self,
        credentials: &Credentials,
        request: UnlockRequest,
    ) -> Result<StoreRevision, Error> {
        let request = DeleteRangeRequest {
            key: request.key,
            ..DeleteRangeRequest::default()
        };
        let reply = self.parts.kv.delete_range(credentials, request).await?;
        Ok(reply.revision)
    }
}
