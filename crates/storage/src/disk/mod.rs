//! The hardware: files, directories and locks, as the rest of the project sees them.
//!
//! This is the only room that touches files. The traits stand where the hardware is, so that the
//! same log and database run on a real disk and on one that loses power in the middle of a write.
//!
//! Writes go to an explicit offset and are durable only after [`File::sync_data`] (contents and
//! length) returned; a rename, creation or removal only after [`Disk::sync_dir`] of its directory.
//! A failed sync is final: the caller must stop, as the pages that failed may be lost without a
//! trace.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod blocks;
mod mem;
mod os;
mod overlay;

pub use mem::{Counts, Fault, MemDisk};
pub use os::OsDisk;
pub use overlay::OverlayDisk;

/// Whether an operation failed for lack of room: the volume is full, a quota is used up, or the
/// file may not be longer.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// The room on the volume that a file lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// All bytes.
    pub bytes: u64,
    /// Bytes that this process may still use.
    pub free_bytes: u64,
}

/// How [`Disk::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, to be read.
    Read,
    /// An existing file, to be read and written.
    Write,
    /// A file that must not exist yet; readable and writable, with the given permission bits.
    CreateNew {
        /// Unix permission bits, before the umask.
        mode: u32,
    },
    /// Read and write, created with the given permission bits when it does not exist.
    Create {
        /// Unix permission bits, before the umask.
        mode: u32,
    },
}

/// Which lock [`File::try_lock`] takes. A Go etcd on the same files sees and respects both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// `flock(LOCK_EX)`, as bbolt takes it on the database.
    FlockExclusive,
    /// `flock(LOCK_SH)`, as bbolt takes it on a database opened to be read.
    FlockShared,
    /// An open-file-description write lock, as etcd takes it on log segments.
    OfdExclusive,
}

/// A directory tree.
pub trait Disk: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Creates a directory and its missing parents, each with mode 0700.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The entries of a directory, in the order of their names.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Renames a file or directory, replacing a file at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and everything below it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Whether something is at `path`.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// The volume that holds `path`.
    fn volume(&self, path: &Path) -> io::Result<Volume>;
    /// Makes creations, removals and renames in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// An open file. Positions are explicit, so that one handle serves any number of readers.
pub trait File: Send + Sync {
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Fills `buf` from `offset`, or fails with [`io::ErrorKind::UnexpectedEof`].
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self.read_at(buf, offset)? {
            n if n == buf.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    /// Fills `buf` from `offset` if the system has all of it in memory, so that nothing waits for
    /// the disk; `false` if it has not, or cannot tell.
    fn try_read_exact_at(&self, _buf: &mut [u8], _offset: u64) -> io::Result<bool> {
        Ok(false)
    }
    /// Writes all of `bufs`, one behind the other, from `offset` on.
    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes contents and length durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space so that later writes up to `len` change no metadata and find room; the file
    /// reads as zeros there. Where the file system cannot reserve, the file only gets its length.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Takes a lock, held until the file is closed; `false` when another process holds it.
    fn try_lock(&self, lock: Lock) -> io::Result<bool>;
}
