//! Raft snapshots, which let the log go.
//!
//! A snapshot stands for the database, which is a file of its own already. What is written is its
//! index and configuration, and the membership as etcd up to 3.6 reads it.
//!
//! ```text
//! database committed at or behind the index ─▶ .snap file, synced ─▶ record in the log, synced ─▶ release
//! ```
//! A crash between two steps leaves the earlier ones without effect. If there is no room for the
//! file, nothing is released, and it is tried again; the newest snapshot that is wanted counts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use retcd_log::Text;
use retcd_node::durable::Dirs;
use retcd_node::{Input, SnapshotPoint};
use retcd_proto::raftpb::{ConfState, SnapshotMetadata};
use retcd_state::machine::SharedMembership;
use retcd_storage::disk::{Disk, is_full};
use retcd_storage::snap::{self, SnapError};
use retcd_storage::wal;

use crate::schema::Commit;

/// How long after a snapshot found no room it is tried again; there is a line in the log each time.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// What became of a snapshot.
#[derive(Debug)]
pub enum Written {
    /// Its file is there; the log is to record this.
    Durable(SnapshotMetadata),
    /// There was no room for it.
    NoRoom,
    /// The members have changed since: a newer one is wanted instead ([`Input::SnapshotWanted`]).
    Outdated,
}

/// Writes snapshots.
pub struct Snapshots {
    dirs: Dirs,
    membership: SharedMembership,
}

impl Snapshots {
    /// Writes snapshots of the member whose `membership` this is.
    pub fn new(dirs: Dirs, membership: SharedMembership) -> Snapshots {
        Snapshots { dirs, membership }
    }

    /// Writes the file of a snapshot at `point`.
    ///
    /// It holds the members of now. If they are others than at `point`, etcd 3.4 and 3.5 would meet
    /// a change that the file has made already, and refuse it.
    ///
    /// # Errors
    /// Any failure but the lack of room; the member must stop.
    pub fn write(&self, point: &SnapshotPoint, commit: Commit<'_>) -> Result<Written, SnapError> {
        const NO_ROOM: &str =
            "no room for a snapshot; the log keeps its segments, and it will be tried again";
        // Without this the snapshot would stand for what the database does not have.
        if let Err(error) = commit() {
            retcd_log::warn!(NO_ROOM; "error" => Text(error), "retry-after" => RETRY_INTERVAL);
            return Ok(Written::NoRoom);
        }
        let document = {
            let membership = self.membership.read();
            if !is_same(membership.conf_state(), &point.conf_state) {
                return Ok(Written::Outdated);
            }
            membership.to_document()
        };
        let snapshot = point.to_snapshot(document);
        let written = snapshot.metadata.as_ref().map(SnapshotMetadata::index);
        assert!(
            written == Some(point.index) && point.index > 0,
            "a snapshot of {written:?} at {}",
            point.index
        );
        match snap::write(&*self.dirs.disk, &self.dirs.snap_dir, &snapshot) {
            Ok(_) => Ok(Written::Durable(snapshot.metadata.unwrap_or_default())),
            Err(SnapError::Io { path, source }) if is_full(&source) => {
                retcd_log::warn!(NO_ROOM; "path" => &path, "error" => Text(&source),
                    "retry-after" => RETRY_INTERVAL);
                Ok(Written::NoRoom)
            }
            Err(error) => Err(error),
        }
    }

    /// The log has recorded the snapshot at `index`; what the node is to hear.
    ///
    /// # Errors
    /// Databases that were received before could not be removed.
    pub fn recorded(&self, index: u64) -> Result<Input, SnapError> {
        snap::remove_databases_before(&*self.dirs.disk, &self.dirs.snap_dir, index)?;
        retcd_log::info!("saved snapshot to disk"; "snapshot-index" => index);
        Ok(Input::Snapshotted { index })
    }

    /// Removes files that nobody needs, but for so many of each kind; 0 keeps all.
    ///
    /// # Errors
    /// The directory could not be read or a file not removed, in words.
    pub fn purge(&self, wals_max: usize, snaps_max: usize) -> Result<(), String> {
        let disk = &*self.dirs.disk;
        purge_dir(disk, &self.dirs.wal_dir, wals_max, wal::purge)?;
        purge_dir(disk, &self.dirs.snap_dir, snaps_max, snap::purge)
    }
}

fn is_same(one: &ConfState, other: &ConfState) -> bool {
    let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
    let sets = |state: &ConfState| (set(&state.voters), set(&state.learners));
    sets(one) == sets(other)
}

fn purge_dir<E: std::fmt::Display>(
    disk: &dyn Disk,
    dir: &Path,
    keep: usize,
    purge: impl Fn(&dyn Disk, &Path, usize) -> Result<Vec<PathBuf>, E>,
) -> Result<(), String> {
    if keep == 0 {
        return Ok(());
    }
    let purged = purge(disk, dir, keep).map_err(|error| error.to_string())?;
    for path in purged {
        retcd_log::info!("purged"; "path" => &path.display().to_string());
    }
    Ok(())
}
