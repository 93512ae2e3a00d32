//! What the parts of a [`Handle`](crate::Handle) are built from.

use std::rc::Rc;
use std::sync::Arc;

use crate::access::Access;
use crate::clock::Clock;
use crate::peers::Peers;
use crate::proposer::Proposer;
use crate::read_index::ReadIndex;
use crate::request_id::RequestIds;
use crate::shared::Shared;

/// What one thread of a member has once. A part keeps clones of what it uses.
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
}
