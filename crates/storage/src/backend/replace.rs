//! Replacing the whole database by a file that came from elsewhere.
//!
//! ```text
//! open_replacement(file)   the file is locked, checked, read; nothing has changed
//!   └▶ install             commits wait; it takes the database's name, durably
//!        └▶ publish        readers opened from now on see it; what was pending is dropped
//! ```
//! So whoever keeps more in memory than the backend does can read all of it from the new file
//! first, refuse the file without harm, and change over at the moment of its choice. Readers that
//! were opened before keep the old file, which has no name any more, until they are dropped.
//!
//! A crash before the rename is durable leaves the old database and the other file, one after it
//! leaves the new database.

use std::mem;
use std::path::Path;

use parking_lot::MutexGuard;

use super::{Backend, BackendError, Reader, create_buckets};
use crate::bolt::Db;

/// A database file that is to take the place of a backend's. Dropping it leaves everything as it
/// is.
pub struct Replacement {
    db: Db,
}

impl Replacement {
    /// What the file holds.
    pub fn reader(&self) -> Reader {
        Reader::of_file(self.db.read())
    }
}

/// A backend between two files: the new one has the name, and readers still see the old one.
/// Dropping it publishes, too.
#[must_use]
pub struct Installed<'a> {
    backend: &'a Backend,
    /// A commit would bring what is pending of the old state into the new file.
    _no_commit: MutexGuard<'a, ()>,
}

impl Installed<'_> {
    /// Shows the new file to every reader that is opened from now on.
    pub fn publish(self) {}
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        let shared = &self.backend.shared;
        let committed = shared.db.read();
        let mut state = shared.state.write();
        let pending = (mem::take(&mut state.pending), state.committing.take());
        let before = mem::replace(&mut state.committed, committed);
        drop(state);
        // Freeing a large layer takes a while: not under the lock.
        drop((pending, before));
    }
}

impl Backend {
    /// Opens and locks the bolt file at `file`, which lies on the backend's disk in the directory
    /// of its database, to replace that. Buckets that it lacks are created in it.
    ///
    /// # Errors
    /// [`BoltError::Damaged`] if a meta page, the tree of buckets or a branch of a tree is not
    /// sound, or if the file is too short; [`BoltError::Locked`] while another process has it.
    pub fn open_replacement(&self, file: &Path) -> Result<Replacement, BackendError> {
        let db = self.shared.db.open_replacement(file)?;
        create_buckets(&db)?;
        Ok(Replacement { db })
    }

    /// Gives the replacement the name of the database and makes that durable. A commit or
    /// defragmentation under way on another thread is waited for; later commits wait until the new
    /// file is published. Nothing may be written meanwhile: it would be dropped.
    ///
    /// # Errors
    /// As [`Backend::commit`]; after an error of the disk, which of the two files has the name may
    /// be open, and every later commit fails or belongs to the old one.
    pub fn install(&self, replacement: Replacement) -> Result<Installed<'_>, BackendError> {
        let no_commit = self.shared.commit.lock();
        self.shared.db.replace(replacement.db)?;
        Ok(Installed {
            backend: self,
            _no_commit: no_commit,
        })
    }

    /// Replaces the database by the file at `file`, for whoever keeps nothing of it in memory.
    ///
    /// # Errors
    /// As [`Backend::open_replacement`] and [`Backend::install`].
    pub fn replace(&self, file: &Path) -> Result<(), BackendError> {
        self.install(self.open_replacement(file)?)?.publish();
        Ok(())
    }
}
