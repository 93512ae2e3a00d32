//! What the parts of a [`Handle`](crate::Handle) are built from.

use std::rc::Rc;
use std::sync::Arc;

use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_state::machine::Reply;
use retcd_state::mvcc::{HashInPieces, KeyspaceHash, StoreRevision};

use crate::Error;
use crate::access::{Access, Credentials};
use crate::clock::Clock;
use crate::peers::Peers;
use crate::proposer::Proposer;
use crate::read_index::ReadIndex;
use crate::request_id::RequestIds;
use crate::shared::Shared;

/// What one thread of a member has once, and each of its parts uses.
pub(crate) struct Core {
    pub shared: Arc<Shared>,
    pub clock: Rc<dyn Clock>,
    pub peers: Rc<dyn Peers>,
    pub proposer: Rc<Proposer>,
    pub read_index: Rc<ReadIndex>,
    pub access: Rc<Access>,
}

impl Core {
    /// For thread `number`.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        number: u8,
        clock: Rc<dyn Clock>,
        peers: Rc<dyn Peers>,
    ) -> Core {
        let ids = Rc::new(RequestIds::new(shared.id, number, clock.unix_ms()));
        let proposer = Proposer::new(shared, &ids, &clock, &peers);
        let read_index = Rc::new(ReadIndex::new(shared, &ids, &clock));
        Core {
            shared: Arc::clone(shared),
            proposer: Rc::new(proposer),
            access: Rc::new(Access::new(shared, &clock, &read_index)),
            read_index,
            clock,
            peers,
        }
    }

    /// Puts a request through the log in the name of who has these credentials.
    ///
    /// # Errors
    /// As [`Proposer::propose`] and [`Access::identify`].
    pub(crate) async fn propose_as(
        &self,
        credentials: &Credentials,
        request: Box<InternalRaftRequest>,
    ) -> Result<Reply, Error> {
        let identity = self.access.identify(credentials).await?;
        self.proposer.propose_by(identity, request).await
    }

    /// The hash of the keyspace at `revision`, 0 for the newest, and the revision of the store that
    /// it was asked of.
    ///
    /// # Errors
    /// The revision is gone or still to come; the database cannot be read; the member stops.
    pub(crate) async fn hash_kv(
        &self,
        revision: i64,
    ) -> Result<(KeyspaceHash, StoreRevision), Error> {
        let hash = self.shared.state.reader.begin_hash_kv(revision)?;
        let workers = &self.shared.workers;
        Ok(workers.run_in_pieces(hash, HashInPieces::step).await??)
    }
}
