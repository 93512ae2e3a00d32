//! Where the log of a stopped member begins: the newest snapshot of which both its log and a file
//! know.

use std::path::Path;

use retcd_proto::raftpb::Snapshot;
use retcd_proto::walpb;
use retcd_storage::{snap, wal};

use super::disk;
use crate::cli::Exit;

/// The newest snapshot of a member, if there is any; `ignore` is told of files that cannot be read.
///
/// # Errors
/// The directories or the log cannot be read.
pub(crate) fn newest_snapshot(
    snap_dir: &Path,
    wal_dir: &Path,
    ignore: impl Fn(&snap::SnapError),
) -> Result<Option<Snapshot>, Exit> {
    let files = snap::list(disk().as_ref(), snap_dir).map_err(Exit::error)?;
    if files.is_empty() {
        return Ok(None);
    }
    let known = wal::snapshots(disk().as_ref(), wal_dir).map_err(Exit::error)?;
    for path in files {
        match snap::read(disk().as_ref(), &path) {
            Err(error) => ignore(&error),
            Ok(snapshot) => {
                let found = mark(&snapshot);
                let same = |known: &walpb::Snapshot| {
                    known.index() == found.index() && known.term() == found.term()
                };
                // The first record of a log is at 0, where there is no snapshot.
                if found.index() > 0 && found.term() > 0 && known.iter().any(same) {
                    return Ok(Some(snapshot));
                }
            }
        }
    }
    Ok(None)
}

/// The record of a snapshot in the log.
pub(crate) fn mark(snapshot: &Snapshot) -> walpb::Snapshot {
    let metadata = snapshot.metadata.clone().unwrap_or_default();
    walpb::Snapshot {
        index: Some(metadata.index()),
        term: Some(metadata.term()),
        conf_state: metadata.conf_state,
    }
}
