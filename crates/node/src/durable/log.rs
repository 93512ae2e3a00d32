//! The log and the snapshot files that cut it.

use retcd_proto::raftpb::SnapshotMetadata;
use retcd_proto::walpb;
use retcd_storage::snap::{self, SnapError};
use retcd_storage::wal::{Located, Preparation, Prepared, SyncStats, Wal, WalError, Wanted};

use super::Dirs;
use crate::Append;

/// Why the log could not be written. What the disk holds is unknown then: the member must stop.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log itself.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A snapshot file.
    #[error(transparent)]
    Snap(#[from] SnapError),
}

/// The log, open to be appended to.
pub struct Log {
    wal: Wal,
    dirs: Dirs,
}

impl Log {
    pub(super) fn new(wal: Wal, dirs: Dirs) -> Log {
        Log { wal, dirs }
    }

    /// Takes in what the node decided; durable after [`Log::sync`].
    ///
    /// A received snapshot is recorded first, file before record: from then on the log starts
    /// behind it.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn append(&mut self, append: &Append) -> Result<(), LogError> {
        if let Some(snapshot) = &append.snapshot {
            snap::write(&*self.dirs.disk, &self.dirs.snap_dir, snapshot)?;
            let metadata = snapshot.metadata.clone().unwrap_or_default();
            self.wal.save_snapshot(&record_of(metadata))?;
        }
        Ok(self
            .wal
            .append(append.hard_state.as_ref(), &append.entries)?)
    }

    /// Makes everything that was appended durable, with one write and one `fdatasync`.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn sync(&mut self) -> Result<SyncStats, LogError> {
        Ok(self.wal.sync()?)
    }

    /// See [`Wal::prepare`].
    pub fn prepare(&mut self) -> Option<Preparation> {
        self.wal.prepare()
    }

    /// See [`Wal::put_prepared`].
    pub fn put_prepared(&mut self, prepared: Prepared) {
        self.wal.put_prepared(prepared);
    }

    /// See [`Wal::reserve_segments`].
    pub fn reserve_segments(&mut self, reserve: bool) {
        self.wal.reserve_segments(reserve);
    }

    /// See [`Wal::release_reserved`].
    ///
    /// # Errors
    /// See [`LogError`]; the log stays usable.
    pub fn release_reserved(&mut self, keep_bytes: u64) -> Result<(), LogError> {
        Ok(self.wal.release_reserved(keep_bytes)?)
    }

    /// Where the wanted entries are, if the log has them: see [`Wal::locate`].
    pub fn locate(&self, wanted: Wanted) -> Option<Located> {
        self.wal.locate(wanted)
    }

    /// Records a snapshot whose file is durable, and lets go of the segments that it covers, but for
    /// one: followers that are slow need what comes before.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn record(&mut self, metadata: SnapshotMetadata) -> Result<(), LogError> {
        let record = record_of(metadata);
        self.wal.save_snapshot(&record)?;
        let kept = self.wal.segment_before(record.index());
        self.wal.release_to(record.index().min(kept + 1));
        Ok(())
    }

    /// Lets go of the segments before a received snapshot, whose database has been taken over.
    pub fn release_to(&mut self, index: u64) {
        self.wal.release_to(index);
    }

    /// Makes everything durable and gives the log up.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn close(self) -> Result<(), LogError> {
        Ok(self.wal.close()?)
    }

    /// The log itself.
    pub fn wal(&self) -> &Wal {
        &self.wal
    }
}

fn record_of(metadata: SnapshotMetadata) -> walpb::Snapshot {
    walpb::Snapshot {
        index: metadata.index,
        term: metadata.term,
        conf_state: metadata.conf_state,
    }
}
