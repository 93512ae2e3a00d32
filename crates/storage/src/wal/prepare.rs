//! Files that become segments, made ahead of their time.
//!
//! A segment's space is reserved when it is created, so that appending to it changes no metadata
//! and finds room. That can take as long as writing all of it, and can fail, while the log has no
//! need of the file for a good while. So a [`Preparation`] is independent of the log: it can be
//! made on another thread, and if that fails nothing has happened. When the log needs a segment and
//! has none, it makes one itself, and if there is no room to reserve, one that grows as it is
//! written.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::{At, WalError};
use crate::disk::{Disk, File, Lock, OpenMode, is_full};

const FILE_MODE: u32 = 0o600;

/// A file that is to be made.
pub struct Preparation {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    segment_bytes: u64,
}

/// A file that can become a segment: locked, empty, its space reserved.
pub struct Prepared {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
}

impl Preparation {
    pub(super) fn new(disk: &Arc<dyn Disk>, path: PathBuf, segment_bytes: u64) -> Preparation {
        Preparation {
            disk: Arc::clone(disk),
            path,
            segment_bytes,
        }
    }

    /// Makes the file. Nothing is left of one that failed.
    ///
    /// # Errors
    /// When the disk fails or has no room.
    pub fn make(self) -> Result<Prepared, WalError> {
        let file = self.create()?;
        let reserved = file.allocate(self.segment_bytes);
        self.keep_if(reserved, file)
    }

    /// Makes the file, without reserving space if there is no room.
    pub(super) fn make_or_unreserved(self) -> Result<Prepared, WalError> {
        let file = self.create()?;
        let reserved = reserve_if_possible(&*file, self.segment_bytes);
        self.keep_if(reserved, file)
    }

    fn create(&self) -> Result<Arc<dyn File>, WalError> {
        let (disk, path) = (&self.disk, &self.path);
        if disk.exists(path).at(path)? {
            disk.remove_file(path).at(path)?;
        }
        let mode = OpenMode::CreateNew { mode: FILE_MODE };
        let file = disk.open(path, mode).at(path)?;
        match file.try_lock(Lock::OfdExclusive).at(path)? {
            true => Ok(file),
            false => Err(WalError::Locked { path: path.clone() }),
        }
    }

    fn keep_if(self, result: io::Result<()>, file: Arc<dyn File>) -> Result<Prepared, WalError> {
        if result.is_err() {
            // What cannot be removed now is removed by the next attempt or the next start.
            let _ = self.disk.remove_file(&self.path);
        }
        result.at(&self.path)?;
        Ok(Prepared {
            path: self.path,
            file,
        })
    }
}

/// Reserves the first `bytes` of a file, if there is room; else leaves its length as it is.
pub(super) fn reserve_if_possible(file: &dyn File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let len = file.len()?;
    match file.allocate(bytes) {
        // Part of the space may have been reserved.
        Err(error) if is_full(&error) => file.set_len(len),
        other => other,
    }
}
