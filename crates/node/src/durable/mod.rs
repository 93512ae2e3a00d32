//! What a member keeps on its disk, as one: log, snapshots and database, and how they are opened
//! together.
//!
//! ```text
//! member/wal/*.wal               the log: what was promised
//! member/snap/db                 the database: a checkpoint of what the log's entries did
//! member/snap/TERM-INDEX.snap    where the log may be cut, with the membership at that point
//! member/snap/INDEX.snap.db      a database that a leader sent, until it has replaced `db`
//! ```
//!
//! The database may be ahead of the newest snapshot record in the log, never behind it, with one
//! exception: a member that was stopped between recording a received snapshot and taking over its
//! database does the latter when it is opened again.
//!
//! Whatever is found damaged or contradictory is left as it is, with an error that names it. There
//! are no log lines in here: what the owner should tell is in [`Notice`].

mod force;
mod log;
mod open;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use retcd_state::machine::{Machine, MachineOptions, OpenError, TreeError};
use retcd_storage::backend::{Backend, BackendError};
use retcd_storage::disk::Disk;
use retcd_storage::snap::SnapError;
use retcd_storage::wal::{self, TornTail, WalError};

use crate::Recovered;

pub use log::{Log, LogError};
pub use open::{found, join, reopen};

/// Where things are.
#[derive(Clone)]
pub struct Dirs {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Snapshots and the database's file.
    pub snap_dir: PathBuf,
    /// The log's segments.
    pub wal_dir: PathBuf,
}

impl Dirs {
    /// The database's file.
    pub fn database(&self) -> PathBuf {
        self.snap_dir.join("db")
    }

    /// Whether a member has stored anything here yet: its log.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn has_log(&self) -> Result<bool, StorageError> {
        Ok(wal::exists(&*self.disk, &self.wal_dir)?)
    }
}

/// How log and machine are opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The machine.
    pub machine: MachineOptions,
    /// The log.
    pub wal: wal::Options,
    /// Makes this member the only one of its cluster (`--force-new-cluster`).
    pub force_new_cluster: bool,
}

/// Whose data it is; written into the head of every segment of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The member's id.
    pub member_id: u64,
    /// The cluster's id.
    pub cluster_id: u64,
}

/// Everything durable, open.
pub struct Opened {
    /// Whose data it is.
    pub identity: Identity,
    /// The log, to be appended to.
    pub log: Log,
    /// The database.
    pub backend: Backend,
    /// The state that the database holds.
    pub machine: Machine,
    /// What the node continues from.
    pub recovered: Recovered,
    /// What happened on the way.
    pub notices: Vec<Notice>,
}

/// Something that the member's owner should tell.
#[derive(Debug)]
pub enum Notice {
    /// The last write to the log was interrupted; its torn end was cut off.
    Torn(TornTail),
    /// A file that an interrupted process left was removed.
    Removed(PathBuf),
    /// A received database has taken the place of the own one.
    TookOver(PathBuf),
    /// The entries up to this index are in the database.
    Applied(u64),
    /// Entries behind the commit index were dropped, this many.
    Dropped(usize),
    /// The log ended before what the database holds, and goes on behind it.
    FilledUp {
        /// Index of the log's last entry.
        last: u64,
        /// Index up to which the database is applied.
        applied: u64,
    },
}

/// Why a member cannot start from what is stored.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A directory cannot be used.
    #[error("{what}: {source}")]
    Directory {
        /// What was tried, in etcd's words.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A directory that was asked for cannot be used.
    #[error("{what}: {source}; {remedy}")]
    Unusable {
        /// What was tried, in etcd's words.
        what: String,
        /// Why it failed.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The log is there, the database is not.
    #[error("database file ({}) of the backend is missing", .0.display())]
    DatabaseMissing(PathBuf),
    /// The log starts behind what the database holds.
    #[error(
        "failed to find database snapshot file (snap: snapshot file doesn't exist): \
         the log starts at index {snapshot}, the database ends at {applied}"
    )]
    DatabaseBehind {
        /// Index of the newest snapshot record.
        snapshot: u64,
        /// Index up to which the database is applied.
        applied: u64,
    },
    /// The log ends before what the database holds.
    #[error(
        "the log ends at index {last}, but the database is applied up to {applied}: they are not of one member; \
         what `etcdctl backup` has made is started with --force-new-cluster"
    )]
    LogBehind {
        /// Index of the log's last entry.
        last: u64,
        /// Index up to which the database is applied.
        applied: u64,
    },
    /// The store of API v2 cannot be had.
    #[error(transparent)]
    V2(#[from] TreeError),
    /// A learner has no vote, so it cannot be the only member.
    #[error("cannot force a new cluster from a learner: restore a snapshot with etcdutl instead")]
    ForcedLearner,
    /// A removed member cannot come back, not even alone.
    #[error(
        "cannot force a new cluster from a member that was removed: restore a snapshot with etcdutl instead"
    )]
    ForcedRemoved,
    /// Snapshot files.
    #[error(transparent)]
    Snap(#[from] SnapError),
    /// The log.
    #[error("failed to read WAL: {0}")]
    Wal(#[from] WalError),
    /// Writing the log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The database.
    #[error("failed to open database {}: {source}", path.display())]
    Backend {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        source: BackendError,
    },
    /// The state in the database.
    #[error(transparent)]
    Machine(#[from] OpenError),
}
