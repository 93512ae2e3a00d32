//! etcd's buckets.
//!
//! A write is visible to readers as soon as [`Backend::write`] returns and durable after the next
//! [`Backend::commit`]; the write-ahead log is what makes it safe in between.
//!
//! ```text
//!   write ──▶ pending layer          readers look from the top down;
//!             committing layer       commit moves the pending layer down one step,
//!             file (bolt)            and into the file as one transaction
//! ```
//! Invariants: a batch is in the file as a whole or not at all; nobody waits for the disk but
//! who commits, takes a snapshot or defragments; a reader sees the same pairs as long as it lives.
//!
//! The file as a whole can be replaced by another, as a member does that has received a leader's:
//! see [`Replacement`].
//!
//! Lock order: the right to commit, the state of the backend, then a layer's. Neither is held while
//! the disk is used, but for the committing layer's, which nobody writes to any more.

mod bucket;
mod hash;
mod key;
mod layer;
mod reader;
mod replace;

#[cfg(test)]
mod tests;

use std::mem;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::bolt::{BoltError, CommitStats, Db, DefragStats, FileCopy, Options, ReadTx, Run};
use crate::disk::{Disk, MemDisk};
use layer::Layer;

pub use crate::bolt::Cached;
pub use bucket::Bucket;
pub use hash::HashInPieces;
pub use key::Key;
pub use reader::{Lookup, Reader, Row, Rows, Scan};
pub use replace::{Installed, Replacement};

/// A stored value, shared by everyone who holds it.
pub type Value = Arc<[u8]>;

/// What can go wrong below the buckets.
pub type BackendError = BoltError;

/// The longest key that a bucket can hold, in bytes.
pub const KEY_BYTES_MAX: usize = 32768;

const _: () = assert!(KEY_BYTES_MAX == crate::bolt::KEY_BYTES_MAX);

/// Changes that become visible, and later durable, together.
#[derive(Debug, Default)]
pub struct WriteBatch {
    changes: Vec<(Bucket, Key, Option<Value>)>,
}

impl WriteBatch {
    /// Sets `key` in `bucket`.
    ///
    /// # Panics
    /// If the key is empty or longer than [`KEY_BYTES_MAX`]: the file cannot hold it, and whoever
    /// accepted it should have known.
    pub fn put(&mut self, bucket: Bucket, key: &[u8], value: Value) {
        let len = key.len();
        assert!(
            (1..=KEY_BYTES_MAX).contains(&len),
            "a key of {len} bytes, not 1 to {KEY_BYTES_MAX}"
        );
        self.changes.push((bucket, key.into(), Some(value)));
    }

    /// Deletes `key` from `bucket`; an absent key is not an error.
    ///
    /// # Panics
    /// As [`WriteBatch::put`].
    pub fn delete(&mut self, bucket: Bucket, key: &[u8]) {
        let len = key.len();
        assert!(
            (1..=KEY_BYTES_MAX).contains(&len),
            "a key of {len} bytes, not 1 to {KEY_BYTES_MAX}"
        );
        self.changes.push((bucket, key.into(), None));
    }

    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }
}

/// A handle on the database; clones share it.
#[derive(Clone)]
pub struct Backend {
    shared: Arc<Shared>,
}

struct Shared {
    db: Db,
    state: RwLock<State>,
    /// Held by the one commit.
    commit: Mutex<()>,
}

struct State {
    pending: Arc<Layer>,
    /// What a commit is bringing to the file, or failed to; the next commit begins with it.
    committing: Option<Arc<Layer>>,
    committed: ReadTx,
}

impl Default for Backend {
    /// An empty database on a disk in memory.
    fn default() -> Backend {
        let disk = Arc::new(MemDisk::new());
        Backend::open(disk, Path::new("/db"), Options::default())
            .expect("an empty disk in memory does not fail")
    }
}

impl Backend {
    /// Opens the database at `path`, whose directory must exist. Buckets that are missing are
    /// created, unless the file is opened to be read.
    ///
    /// # Errors
    /// [`BoltError::Locked`] while another process has the file: whether to wait is the caller's
    /// choice.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        options: Options,
    ) -> Result<Backend, BackendError> {
        let db = Db::open(disk, path, options)?;
        if options.access != crate::bolt::Access::ReadOnly {
            create_buckets(&db)?;
        }
        let state = State {
            pending: Arc::default(),
            committing: None,
            committed: db.read(),
        };
        let shared = Shared {
            db,
            state: RwLock::new(state),
            commit: Mutex::new(()),
        };
        Ok(Backend {
            shared: Arc::new(shared),
        })
    }

    /// Whether [`Backend::open`] has created the file.
    pub fn created(&self) -> bool {
        self.shared.db.created()
    }

    /// Makes `batch` visible to every reader that is opened from now on.
    pub fn write(&self, batch: WriteBatch) {
        // The lock keeps a commit from taking the layer away in the middle of the batch.
        self.shared.state.read().pending.write(batch);
    }

    /// A consistent view of everything written so far; later writes do not show in it.
    pub fn reader(&self) -> Reader {
        let state = self.shared.state.read();
        Reader::new(&state.pending, state.committing.as_ref(), &state.committed)
    }

    /// The number of changes that are not in the file yet.
    pub fn pending_changes(&self) -> usize {
        let state = self.shared.state.read();
        let committing = state.committing.as_ref().map_or(0, |layer| layer.changes());
        state.pending.changes() + committing
    }

    /// Bytes of the keys and values that were put and are not in the file yet.
    pub fn pending_bytes(&self) -> u64 {
        let state = self.shared.state.read();
        let committing = state
            .committing
            .as_ref()
            .map_or(0, |layer| layer.put_bytes());
        state.pending.put_bytes() + committing
    }

    /// Makes everything durable that was written before the call. Writes and reads go on meanwhile.
    /// With nothing to do it returns at once, with zeros.
    ///
    /// # Errors
    /// What was written stays visible. After [`BoltError::Full`] it waits for a later commit, which
    /// may find room; after any other error every later commit fails.
    pub fn commit(&self) -> Result<CommitStats, BackendError> {
        let _only_one = self.shared.commit.lock();
        // What found no room before, then what was written since.
        let held = self.shared.state.read().committing.clone();
        let held = held.map(|layer| self.commit_layer(&layer)).transpose()?;
        let held = held.unwrap_or_default();
        let Some(layer) = self.commit_take() else {
            return Ok(held);
        };
        let stats = self.commit_layer(&layer)?;
        Ok(CommitStats {
            txid: stats.txid,
            pages: held.pages + stats.pages,
            bytes: held.bytes + stats.bytes,
        })
    }

    fn commit_layer(&self, layer: &Layer) -> Result<CommitStats, BackendError> {
        let stats = layer.with_runs(|runs| self.shared.db.commit(runs))?;
        let mut state = self.shared.state.write();
        let done = state.committing.take();
        let before = mem::replace(&mut state.committed, self.shared.db.read());
        drop(state);
        assert!(
            done.as_ref()
                .is_some_and(|done| std::ptr::eq(&**done, layer)),
            "the layer that was committed is the one that goes"
        );
        // Freeing a large layer takes a while: not under the lock.
        drop((done, before));
        Ok(stats)
    }

    /// Takes what is pending off the writers' hands.
    fn commit_take(&self) -> Option<Arc<Layer>> {
        let mut state = self.shared.state.write();
        if state.pending.changes() == 0 {
            return None;
        }
        assert!(
            state.committing.is_none(),
            "a layer is being committed already"
        );
        let layer = mem::take(&mut state.pending);
        state.committing = Some(Arc::clone(&layer));
        Some(layer)
    }

    /// Commits, then gives the whole file as a stream of a known length. Writes and commits go on
    /// while it is read.
    ///
    /// # Errors
    /// As [`Backend::commit`].
    pub fn snapshot(&self) -> Result<FileCopy, BackendError> {
        self.commit()?;
        Ok(self.shared.db.read().copy())
    }

    /// Commits, then gives a view of the file alone, which [`ReadTx::copy`] makes a copy of:
    /// `view.committed().clone().copy()` holds exactly what the view shows.
    ///
    /// # Errors
    /// As [`Backend::commit`].
    pub fn committed_reader(&self) -> Result<Reader, BackendError> {
        self.commit()?;
        Ok(Reader::of_file(self.shared.db.read()))
    }

    /// Commits, then writes the file anew without free pages. Writes, reads and commits go on
    /// meanwhile; commits are held up for a moment at the end.
    ///
    /// # Errors
    /// As [`Backend::commit`]; if only the defragmentation failed, the database can be used on,
    /// unless it was the directory that could not be synced at the very end.
    pub fn defragment(&self) -> Result<DefragStats, BackendError> {
        self.defragment_with_progress(&mut |_| ())
    }

    /// The same; `progress` is told behind each step of some megabytes how many bytes the new file has,
    /// and may take its time.
    ///
    /// # Errors
    /// As [`Backend::defragment`].
    pub fn defragment_with_progress(
        &self,
        progress: &mut dyn FnMut(u64),
    ) -> Result<DefragStats, BackendError> {
        self.commit()?;
        let stats = self.shared.db.defragment_with_progress(progress)?;
        // If the file is being replaced, its new view must not come before the new layers.
        let _only_one = self.shared.commit.lock();
        // The view of the old file would keep it open until the next commit.
        let mut state = self.shared.state.write();
        let before = mem::replace(&mut state.committed, self.shared.db.read());
        drop(state);
        drop(before);
        Ok(stats)
    }

    /// [`Reader::hash`] of everything written so far.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn hash(&self, skip_meta: bool) -> Result<u32, BackendError> {
        self.reader().hash(skip_meta)
    }

    /// Bytes of the file's used part, free pages included: the length of a snapshot.
    pub fn size_bytes(&self) -> u64 {
        self.shared.db.size_bytes()
    }

    /// The same without free pages.
    pub fn size_in_use_bytes(&self) -> u64 {
        self.shared.db.size_in_use_bytes()
    }

    /// How many views of the file are open. The backend itself always has one.
    pub fn open_read_transactions(&self) -> usize {
        self.shared.db.open_read_transactions()
    }
}

fn create_buckets(db: &Db) -> Result<(), BackendError> {
    let tx = db.read();
    let missing = Bucket::ALL
        .into_iter()
        .filter(|bucket| !tx.buckets().any(|name| name == bucket.name()));
    let runs: Vec<Run<'_>> = missing
        .map(|bucket| Run {
            bucket: bucket.name(),
            changes: Vec::new(),
        })
        .collect();
    if !runs.is_empty() {
        db.commit(&runs)?;
    }
    Ok(())
}
