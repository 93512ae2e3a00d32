//! Disk measurements: the latency of a small append with `fdatasync`, a lower bound for every put.
//!
//! As in a write-ahead log, entries are appended to one file whose first 64 MiB are preallocated.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statfs, syncfs};

use crate::error::Error;
use crate::stats::Latencies;

const ALLOCATED: u64 = 64 << 20;
/// About the size of the log entry of a put with a 256-byte value.
pub(crate) const ENTRY_LEN: usize = 320;
/// Enough samples for a p99.
pub(crate) const SYNCS_MAX: usize = 2_000;
const TIME_MAX: Duration = Duration::from_secs(3);

/// Times up to `count` writes with `fdatasync`, fewer on a slow disk, in a new file in `directory`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub(crate) fn measure_syncs(directory: &Path, count: usize) -> Result<Latencies, Error> {
    let mut appender = Appender::new(directory)?;
    let mut latencies = Latencies::default();
    let began = Instant::now();
    for _ in 0..count {
        latencies.record(appender.append()?);
        if began.elapsed() > TIME_MAX {
            break;
        }
    }
    Ok(latencies)
}

/// A file to which entries are appended, as to a log. It goes with the value.
pub(crate) struct Appender {
    file: File,
    path: PathBuf,
}

impl Appender {
    /// Creates the file in `directory`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created.
    pub(crate) fn new(directory: &Path) -> Result<Self, Error> {
        let path = directory.join("fdatasync");
        let file = File::create(&path).map_err(failed(&path))?;
        // Where it is not supported (some network file systems), each write also grows the file.
        let _ = fallocate(&file, FallocateFlags::empty(), 0, ALLOCATED);
        Ok(Self { file, path })
    }

    /// Appends an entry with `fdatasync`; returns the time taken.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub(crate) fn append(&mut self) -> Result<Duration, Error> {
        let start = Instant::now();
        let written = self.file.write_all(&[0x5a; ENTRY_LEN]);
        let synced = written.and_then(|()| self.file.sync_data());
        synced.map_err(failed(&self.path))?;
        Ok(start.elapsed())
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        // Its directory is temporary as well.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    Error::io(format!("cannot measure the disk with {}", path.display()))
}

/// Syncs the file system of `directory`, so that the next run does not pay for the dirty pages of
/// earlier ones.
///
/// # Errors
/// [`Error::Io`] if the file system reports a failed write.
pub(crate) fn settle(directory: &Path) -> Result<(), Error> {
    let synced = File::open(directory).and_then(|directory| Ok(syncfs(directory)?));
    synced.map_err(Error::io(format!(
        "cannot sync the file system of {}",
        directory.display()
    )))
}

/// Whether `directory` is on a memory file system, where a sync costs nothing.
pub(crate) fn is_in_memory(directory: &Path) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    statfs(directory).is_ok_and(|system| system.f_type as u64 == TMPFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measuring_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let latencies = measure_syncs(directory.path(), 3).unwrap();
        assert!(latencies.count() == 3 && latencies.max() > Duration::ZERO);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_does_not_exist_is_an_error_with_its_name() {
        let error = measure_syncs(Path::new("/nowhere/at/all"), 3)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("/nowhere/at/all"), "{error}");
    }
}
