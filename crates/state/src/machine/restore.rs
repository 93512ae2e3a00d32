//! Going on with a database that the leader has sent.
//!
//! Everything is read from the received file while the machine still stands on its own: a file that
//! cannot be used changes nothing, and whoever reads is served meanwhile. Then the file takes the
//! database's place, and the parts follow behind the handles that others share, leases before the
//! keyspace as in etcd (v3.7: `server/etcdserver/server.go`, `applySnapshot`).

use std::path::Path;

use retcd_proto::raftpb::ConfState;
use retcd_storage::backend::BackendError;

use super::load::Loaded;
use super::{Machine, OpenError};
use crate::meta::AppliedIndex;

/// Where a machine stands after [`Machine::restore`].
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    /// The last entry that the database has.
    pub applied: AppliedIndex,
    /// The newest revision, for [`Hub::restore`](crate::watch::Hub::restore).
    pub revision: i64,
    /// The last compaction, -1 if there was none; for the same.
    pub compacted: i64,
    /// The raft configuration that the members make up.
    pub conf_state: ConfState,
    /// Whether rows wait to be removed by [`Machine::compaction_step`].
    pub compacting: bool,
}

/// Why a machine was not restored. But for the last case it is as before, and so is the file.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file cannot be used.
    #[error(transparent)]
    Unusable(#[from] OpenError),
    /// The file has nothing that the machine does not have.
    #[error("the received database is at index {received}, not above {applied}")]
    NotNewer {
        /// The last entry applied here.
        applied: u64,
        /// The last entry that the file has.
        received: u64,
    },
    /// The file has a later index but an older revision: it is of another history.
    #[error("the received database is at revision {received}, below {revision}")]
    OtherHistory {
        /// The revision here.
        revision: i64,
        /// The revision in the file.
        received: i64,
    },
    /// The file could not be put in place: stop, for a crash may bring up either database.
    #[error("the received database cannot be put in place: {0}")]
    Replace(#[source] BackendError),
}

impl Machine {
    /// Replaces the database by the file at `file`, which lies beside it, and all state by what the
    /// file holds, behind the handles that were given out. The file must be durable; it is gone
    /// afterwards.
    ///
    /// Readers and views that were taken before stay as they are. Leases are everlasting until the
    /// lessor is promoted. A commit under way on another thread is waited for, and nobody else may
    /// write to the backend.
    pub fn restore(&mut self, file: &Path) -> Result<Restored, RestoreError> {
        let replacement = self
            .backend
            .open_replacement(file)
            .map_err(OpenError::from)?;
        let mut loaded = Loaded::read(&replacement.reader(), self.options)?;
        self.judge(&loaded)?;
        let restored = Restored {
            applied: loaded.applied,
            revision: loaded.keyspace.revision,
            compacted: loaded.keyspace.compacted,
            conf_state: loaded.membership.conf_state().clone(),
            compacting: loaded.keyspace.is_compacting(),
        };
        let backend = self.backend.clone();
        let installed = backend
            .install(replacement)
            .map_err(RestoreError::Replace)?;
        // Whoever looks at the leases now waits until readers show the new state, too.
        loaded.lessor.changed_at(loaded.keyspace.revision);
        *self.lessor.lock() = loaded.lessor;
        let index = loaded.applied.index;
        self.keyspace.restore(loaded.keyspace, index, installed);
        *self.alarms.write() = loaded.alarms;
        *self.auth.write() = loaded.auth;
        *self.membership.write() = loaded.membership;
        (self.applied, self.flushed) = (loaded.applied, loaded.applied);
        self.batch = loaded.batch;
        Ok(restored)
    }

    fn judge(&self, loaded: &Loaded) -> Result<(), RestoreError> {
        let (applied, received) = (self.applied.index, loaded.applied.index);
        if received <= applied {
            return Err(RestoreError::NotNewer { applied, received });
        }
        let (revision, received) = (self.keyspace.revision(), loaded.keyspace.revision);
        if received < revision {
            return Err(RestoreError::OtherHistory { revision, received });
        }
        Ok(())
    }
}
