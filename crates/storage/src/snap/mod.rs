//! etcd's `.snap` files: where raft's log was cut, and the membership at that point.
//!
//! A file `TERM-INDEX.snap` (two numbers of 16 hex digits) holds one message in another:
//!
//! ```text
//! snappb.Snapshot { 1: CRC32C of 2, 2: raftpb.Snapshot { 1: data, 2: { ConfState, index, term } } }
//! ```
//!
//! `data` is the membership as a JSON document of etcd's old store ([`Membership`]); the keys and
//! values are in the database. etcd 3.4 and 3.5 take their members from it, 3.6 checks it, 3.7 only
//! writes it.
//!
//! A file is built under a name that starts with `tmp` and renamed when it is durable, so that a
//! reader finds it whole or not at all (etcd writes under the final name and sorts out broken files
//! later).
//!
//! Beside them lie the database (`db`) and databases that came from a leader (`INDEX.snap.db`);
//! only their names are known here.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use prost::Message;
use prost::bytes::Bytes;
use retcd_proto::{number, raftpb, snappb};

use crate::disk::{Disk, OpenMode};

mod membership;

pub use membership::{DocumentError, Member, Membership};

/// Why a snapshot file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapError {
    /// The disk failed; it says what was tried and where.
    #[error("{source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The file holds no snapshot.
    #[error("snap: empty snapshot: {}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The checksum does not match.
    #[error("snap: crc mismatch: {} has {computed:x}, expected {expected:x}", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The checksum in the file.
        expected: u32,
        /// The checksum of its data.
        computed: u32,
    },
    /// The bytes are not a snapshot.
    #[error("snap: not a snapshot: {}: {reason}", path.display())]
    Undecodable {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },
}

trait At<T> {
    fn at(self, path: &Path) -> Result<T, SnapError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, SnapError> {
        self.map_err(|source| SnapError::Io {
            path: path.to_owned(),
            source,
        })
    }
}

/// What [`load`] found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The newest snapshot that was accepted.
    pub snapshot: Option<raftpb::Snapshot>,
    /// The files that were passed over because they could not be read, and are now
    /// `NAME.snap.broken`.
    pub broken: Vec<SnapError>,
}

/// Where the database that a leader sent for the snapshot at `index` is kept.
pub fn database_path(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("{index:016x}.snap.db"))
}

/// The database that a leader sent for the snapshot at `index`, if it is there. A member whose log
/// goes on from that snapshot while its database has not got there stopped before the one took the
/// other's place: see [`Backend::replace`](crate::backend::Backend::replace).
///
/// # Errors
/// When the disk fails.
pub fn find_database(
    disk: &dyn Disk,
    dir: &Path,
    index: u64,
) -> Result<Option<PathBuf>, SnapError> {
    let path = database_path(dir, index);
    Ok(disk.exists(&path).at(&path)?.then_some(path))
}

/// [`Encoded::write`] of `snapshot`.
///
/// # Errors
/// When the disk fails.
///
/// # Panics
/// As [`Encoded::of`].
pub fn write(
    disk: &dyn Disk,
    dir: &Path,
    snapshot: &raftpb::Snapshot,
) -> Result<PathBuf, SnapError> {
    Encoded::of(snapshot).write(disk, dir)
}

/// The bytes of a snapshot file.
pub struct Encoded {
    term: u64,
    index: u64,
    head: Vec<u8>,
    data: Vec<u8>,
}

impl Encoded {
    /// The file of `snapshot`.
    ///
    /// # Panics
    /// If the snapshot's index is 0: there is nothing to keep then.
    pub fn of(snapshot: &raftpb::Snapshot) -> Encoded {
        let (term, index) = match &snapshot.metadata {
            Some(metadata) => (metadata.term(), metadata.index()),
            None => (0, 0),
        };
        assert!(
            index > 0 && term > 0,
            "a snapshot of term {term} at index {index} is empty"
        );
        let data = snapshot.encode_to_vec();
        let mut head = vec![0x08];
        prost::encode_length_delimiter(crc32c::crc32c(&data) as usize, &mut head)
            .expect("a Vec grows as needed");
        head.push(0x12);
        prost::encode_length_delimiter(data.len(), &mut head).expect("a Vec grows as needed");
        Encoded {
            term,
            index,
            head,
            data,
        }
    }

    /// Writes the file into `dir`, makes it durable and returns its path. A file for the same term and
    /// index is replaced.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<PathBuf, SnapError> {
        let (term, index) = (self.term, self.index);
        let path = dir.join(format!("{term:016x}-{index:016x}.snap"));
        let building = dir.join(format!("tmp.{term:016x}-{index:016x}"));
        let bytes = [IoSlice::new(&self.head), IoSlice::new(&self.data)];
        let written =
            write_file(disk, &building, &bytes).and_then(|()| disk.rename(&building, &path));
        if written.is_err() {
            // The first error is the one to report, and the next start removes what is left.
            let _ = disk.remove_file(&building);
        }
        written.at(&path)?;
        disk.sync_dir(dir).at(dir)?;
        Ok(path)
    }
}

fn write_file(disk: &dyn Disk, path: &Path, bytes: &[IoSlice<'_>]) -> io::Result<()> {
    let file = disk.open(path, OpenMode::Create { mode: 0o666 })?;
    file.set_len(0)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()
}

/// Reads the snapshot file at `path`.
///
/// # Errors
/// When it is empty, damaged, or cannot be read.
pub fn read(disk: &dyn Disk, path: &Path) -> Result<raftpb::Snapshot, SnapError> {
    let file = disk.open(path, OpenMode::Read).at(path)?;
    let mut bytes = vec![0; file.len().at(path)? as usize];
    file.read_exact_at(&mut bytes, 0).at(path)?;
    let envelope: snappb::Snapshot = decode(Bytes::from(bytes), path)?;
    let expected = envelope.crc();
    let data = envelope.data.unwrap_or_default();
    // etcd takes a checksum of 0 for a missing one.
    if data.is_empty() || expected == 0 {
        return Err(SnapError::Empty {
            path: path.to_owned(),
        });
    }
    let computed = crc32c::crc32c(&data);
    if computed != expected {
        return Err(SnapError::Checksum {
            path: path.to_owned(),
            expected,
            computed,
        });
    }
    decode(data, path)
}

fn decode<M: Message + Default>(bytes: Bytes, path: &Path) -> Result<M, SnapError> {
    M::decode(bytes).map_err(|error| SnapError::Undecodable {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// The snapshot files in `dir`, newest first.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, SnapError> {
    let mut paths = matching(disk, dir, |name| name.ends_with(".snap"))?;
    paths.reverse();
    Ok(paths)
}

/// The newest snapshot in `dir` that `accept` takes (those that the log knows of: see
/// [`wal::snapshots`](crate::wal::snapshots)). Files that cannot be decoded on the way are renamed
/// to `NAME.snap.broken`.
///
/// # Errors
/// When the disk fails.
pub fn load(
    disk: &dyn Disk,
    dir: &Path,
    mut accept: impl FnMut(&raftpb::Snapshot) -> bool,
) -> Result<Loaded, SnapError> {
    let mut loaded = Loaded::default();
    for path in list(disk, dir)? {
        match read(disk, &path) {
            Ok(snapshot) if accept(&snapshot) => {
                loaded.snapshot = Some(snapshot);
                break;
            }
            Ok(_) => {}
            Err(error @ SnapError::Io { .. }) => return Err(error),
            Err(error) => {
                let mut aside = OsString::from(&path);
                aside.push(".broken");
                disk.rename(&path, Path::new(&aside)).at(&path)?;
                loaded.broken.push(error);
            }
        }
    }
    Ok(loaded)
}

/// Removes the oldest snapshot files in `dir` until `keep` are left, and returns what it removed.
///
/// # Errors
/// When the directory cannot be read or a file not removed.
pub fn purge(disk: &dyn Disk, dir: &Path, keep: usize) -> Result<Vec<PathBuf>, SnapError> {
    let mut surplus = list(disk, dir)?;
    surplus.drain(..keep.min(surplus.len()));
    surplus.reverse();
    remove(disk, surplus)
}

/// Removes the databases that leaders sent for snapshots before `index`, and returns what it
/// removed.
///
/// # Errors
/// When the directory cannot be read or a file not removed.
pub fn remove_databases_before(
    disk: &dyn Disk,
    dir: &Path,
    index: u64,
) -> Result<Vec<PathBuf>, SnapError> {
    let old = matching(disk, dir, |name| {
        let digits = name.strip_suffix(".snap.db");
        digits
            .and_then(number::hexadecimal)
            .is_some_and(|of| of < index)
    })?;
    remove(disk, old)
}

/// Removes what an interrupted process left in `dir`: downloads, snapshot files that were being
/// written (`tmp…`) and databases that were being defragmented (`db.tmp…`). Returns what it
/// removed.
///
/// # Errors
/// When the directory cannot be read or a file not removed.
pub fn remove_leftovers(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, SnapError> {
    let leftovers = matching(disk, dir, |name| {
        name.starts_with("tmp") || name.starts_with("db.tmp")
    })?;
    remove(disk, leftovers)
}

/// The paths in `dir` whose name is `wanted`, in the order of their names.
fn matching(
    disk: &dyn Disk,
    dir: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<PathBuf>, SnapError> {
    let mut paths = disk.read_dir(dir).at(dir)?;
    paths.retain(|path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(&wanted)
    });
    Ok(paths)
}

fn remove(disk: &dyn Disk, paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, SnapError> {
    for path in &paths {
        disk.remove_file(path).at(path)?;
    }
    Ok(paths)
}

#[cfg(test)]
mod tests;
