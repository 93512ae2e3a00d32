//! Keeping a copy of a torn segment before its tail is cut off.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use super::error::{At, WalError};
use super::segment::Segment;
use crate::disk::{Disk, File, OpenMode, is_full};

/// Bytes that are copied at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// Copies `segment` to `NAME.wal.broken`, replacing an older copy, and returns that path; nothing
/// if there is no room for it. The copy is for people: a member whose disk is full has to start
/// without.
pub(super) fn copy(disk: &dyn Disk, segment: &Segment) -> Result<Option<PathBuf>, WalError> {
    let mut path = OsString::from(&segment.path);
    path.push(".broken");
    let path = PathBuf::from(path);
    match copy_to(disk, segment.file.as_ref(), &path) {
        Err(error) if is_full(&error) => {
            disk.remove_file(&path).at(&path)?;
            return Ok(None);
        }
        other => other.at(&path)?,
    }
    let dir = path.parent().expect("a segment lies in a directory");
    disk.sync_dir(dir).at(dir)?;
    Ok(Some(path))
}

fn copy_to(disk: &dyn Disk, from: &dyn File, path: &Path) -> io::Result<()> {
    let to = disk.open(path, OpenMode::Create { mode: 0o600 })?;
    to.set_len(0)?;
    let bytes = from.len()?;
    let mut chunk = vec![0; CHUNK_BYTES.min(bytes) as usize];
    let mut offset = 0;
    while offset < bytes {
        let len = CHUNK_BYTES.min(bytes - offset) as usize;
        from.read_exact_at(&mut chunk[..len], offset)?;
        // The zeros of the preallocated tail need no space.
        if chunk[..len].iter().any(|byte| *byte != 0) {
            to.write_all_at(&[IoSlice::new(&chunk[..len])], offset)?;
        }
        offset += len as u64;
    }
    to.set_len(bytes)?;
    to.sync_data()
}
