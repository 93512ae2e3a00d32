//! A consistent copy of the database for a member that is too far behind.

use std::thread;

use retcd_proto::raftpb::{ConfState, Snapshot, SnapshotMetadata};
use retcd_storage::backend::{Backend, BackendError};
use retcd_storage::bolt::FileCopy;

use crate::membership::{Membership, MembershipLoadError};
use crate::meta::{self, AppliedIndex, MetaError};
use crate::v2;

use super::v2::snapshot_data;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The applied index is damaged.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The membership is damaged.
    #[error(transparent)]
    Membership(#[from] MembershipLoadError),
    /// No entry has been applied, so that there is nothing to be ahead with.
    #[error("the database has no applied entry")]
    Empty,
}

/// What a raft snapshot says beside the database, all of one moment.
#[derive(Clone)]
pub struct SnapshotHead {
    /// The last entry that it covers.
    pub applied: AppliedIndex,
    /// The raft configuration behind that entry.
    pub conf_state: ConfState,
    /// The membership.
    pub membership: Membership,
    /// The tree of API v2.
    pub tree: v2::Document,
}

/// The database as one commit left it, and what goes with it to a follower. Everything in here is
/// read from the state that the copy has: whatever is applied or committed meanwhile shows in none
/// of it.
///
/// While it lives, the pages that it copies are not written again.
pub struct DatabaseCopy {
    /// What the copy is of.
    pub head: SnapshotHead,
    /// The bolt file as a stream of a known length.
    pub file: FileCopy,
}

impl DatabaseCopy {
    /// Commits what the backend has pending, which waits for the disk, and pins the result.
    pub fn take(backend: &Backend, tree: &v2::Reader) -> Result<DatabaseCopy, CopyError> {
        let trees = tree.keep();
        let (reader, applied, tree) = loop {
            let reader = backend.committed_reader()?;
            let applied = meta::applied(&reader)?;
            if applied.index == 0 {
                return Err(CopyError::Empty);
            }
            if let Some(tree) = trees.at(applied.index) {
                break (reader, applied, tree);
            }
            // The machine has just shown the tree of a later entry (`Machine::flush`), and is about
            // to write the rest of it.
            thread::yield_now();
        };
        let membership = Membership::open(&reader, 0)?;
        Ok(DatabaseCopy {
            head: SnapshotHead {
                applied,
                conf_state: membership.conf_state().clone(),
                membership,
                tree,
            },
            file: reader.committed().clone().copy(),
        })
    }
}

impl SnapshotHead {
    /// As raft has it: with the membership and the tree as etcd up to 3.6 takes them from its
    /// data.
    pub fn to_snapshot(&self) -> Snapshot {
        Snapshot {
            data: Some(snapshot_data(&self.tree, &self.membership).into()),
            metadata: Some(SnapshotMetadata {
                conf_state: Some(self.conf_state.clone()),
                index: Some(self.applied.index),
                term: Some(self.applied.term),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use retcd_proto::etcdserverpb::Request;
    use retcd_storage::backend::WriteBatch;

    use super::*;
    use crate::v2::{Store, Timestamp};

    fn write_applied(backend: &Backend, index: u64) {
        let mut batch = WriteBatch::default();
        meta::put_applied(AppliedIndex { index, term: 1 }, &mut batch);
        backend.write(batch);
    }

    /// The tree of an entry is shown before the rest of it is written.
    #[test]
    fn a_copy_that_begins_in_between_waits_for_the_rest() {
        let backend = Backend::default();
        write_applied(&backend, 1);
        let mut store = Store::new();
        let put = Request {
            method: Some("PUT".into()),
            path: Some("/1/a".into()),
            val: Some("1".into()),
            ..Request::default()
        };
        store.apply(Timestamp(0), &put).unwrap();
        store.publish(2);
        let tree = store.reader();
        thread::scope(|scope| {
            let copy = scope.spawn(|| DatabaseCopy::take(&backend, &tree));
            // It has the tree of the second entry then, and the database of the first.
            while backend.pending_changes() > 0 {
                thread::yield_now();
            }
            write_applied(&backend, 2);
            let head = copy.join().unwrap().unwrap().head;
            assert_eq!((head.applied.index, head.tree.index()), (2, 1));
        });
    }
}
