//! API v2 as one thread uses it: the tree, read and watched here, and changed through the log.

use std::rc::Rc;

use retcd_proto::etcdserverpb::Request;
use retcd_state::machine::Reply;
use retcd_state::v2::{self, Answer, Reader};

use crate::Error;
use crate::core::Core;

/// The tree of API v2.
pub struct V2 {
    core: Rc<Core>,
}

impl V2 {
    pub(crate) fn new(core: &Rc<Core>) -> V2 {
        V2 {
            core: Rc::clone(core),
        }
    }

    /// Puts a write, or a read of a quorum (method `QGET`), through the log.
    ///
    /// # Errors
    /// Nobody applied it in time; this member stops, or is overwhelmed. What the tree refuses is
    /// an answer.
    pub async fn propose(&self, request: Request) -> Result<Result<Answer, v2::Error>, Error> {
        match self.core.proposer.propose_v2(request).await? {
            Reply::V2(answer) => Ok(answer),
            other => unreachable!("a request of API v2 was answered with {other:?}"),
        }
    }

    /// Reads and watches what this member has applied.
    pub fn reader(&self) -> &Reader {
        &self.core.shared.state.v2
    }

    /// The index of the last committed entry and the term that this member knows, for headers.
    pub fn raft_position(&self) -> (u64, u64) {
        let shared = &self.core.shared;
        (shared.progress.committed(), shared.leadership.term())
    }

    /// Whether API v3 knows users: API v2 does not know these.
    pub fn is_v3_auth_enabled(&self) -> bool {
        self.core.shared.state.auth.read().is_enabled()
    }
}
