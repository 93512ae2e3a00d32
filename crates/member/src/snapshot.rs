//! Raft snapshots, which let the log go.
//!
//! A snapshot stands for the database, which is a file of its own already. What is written is its
//! index and configuration, and the membership as etcd up to 3.6 reads it. It is taken between two
//! batches, so that all of it is of one moment ([`Applier::snapshot`](crate::Applier::snapshot)).
//!
//! ```text
//! taken ─▶ database committed at or behind the index ─▶ .snap file, synced ─▶ record in the log, synced ─▶ release
//! ```
//! A crash between two steps leaves the earlier ones without effect. If there is no room for the
//! file, nothing is released, and a newer one is tried later.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use retcd_log::Text;
use retcd_node::Input;
use retcd_node::durable::Dirs;
use retcd_proto::raftpb::SnapshotMetadata;
use retcd_state::machine::SnapshotHead;
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
}

/// Writes snapshots.
pub struct Snapshots {
    dirs: Dirs,
    /// Bytes of the data of the one that was written last.
    written_bytes: Cell<u64>,
}

impl Snapshots {
    /// Writes snapshots of the member whose files are in `dirs`.
    pub fn new(dirs: Dirs) -> Snapshots {
        Snapshots {
            dirs,
            written_bytes: Cell::new(0),
        }
    }

    /// Writes the file of a snapshot. `encoded` is called when it is in memory, for who measures.
    ///
    /// # Errors
    /// Any failure but the lack of room; the member must stop.
    pub fn write(
        &self,
        head: &SnapshotHead,
        commit: Commit<'_>,
        encoded: impl FnOnce(),
    ) -> Result<Written, SnapError> {
        const NO_ROOM: &str =
            "no room for a snapshot; the log keeps its segments, and it will be tried again";
        // Without this the snapshot would stand for what the database does not have.
        if let Err(error) = commit() {
            retcd_log::warn!(NO_ROOM; "error" => Text(error), "retry-after" => RETRY_INTERVAL);
            return Ok(Written::NoRoom);
        }
        let snapshot = head.to_snapshot();
        let file = snap::Encoded::of(&snapshot);
        encoded();
        match file.write(&*self.dirs.disk, &self.dirs.snap_dir) {
            Ok(_) => {
                self.written_bytes.set(snapshot.data().len() as u64);
                Ok(Written::Durable(snapshot.metadata.unwrap_or_default()))
            }
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
        Ok(Input::Snapshotted {
            index,
            bytes: self.written_bytes.get(),
        })
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
