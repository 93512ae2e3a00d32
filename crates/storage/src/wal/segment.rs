//! The segments of a log: their names, which of them a reader needs, and which nobody needs any
//! more.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{At, WalError};
use crate::disk::{Disk, File, Lock, OpenMode};

/// A segment's name: `SEQ-INDEX.wal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// The running number, from 0.
    pub(super) seq: u64,
    /// The index of the first entry that the segment may hold.
    pub(super) index: u64,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.wal", self.seq, self.index)
    }
}

impl Name {
    /// The name in `path`; nothing if it is not a segment's.
    pub(super) fn parse(path: &Path) -> Option<Name> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".wal")?;
        let (seq, index) = stem.split_once('-')?;
        let number = |digits: &str| {
            let plain = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            u64::from_str_radix(digits, 16).ok().filter(|_| plain)
        };
        Some(Name {
            seq: number(seq)?,
            index: number(index)?,
        })
    }
}

/// An open segment.
pub(super) struct Segment {
    pub(super) name: Name,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
}

impl Segment {
    /// Opens a segment to be read.
    pub(super) fn read(disk: &dyn Disk, dir: &Path, name: Name) -> Result<Segment, WalError> {
        let path = dir.join(name.to_string());
        let file = disk.open(&path, OpenMode::Read).at(&path)?;
        Ok(Segment { name, path, file })
    }

    /// Opens a segment to be written, and locks it.
    pub(super) fn lock(disk: &dyn Disk, dir: &Path, name: Name) -> Result<Segment, WalError> {
        let path = dir.join(name.to_string());
        let file = disk.open(&path, OpenMode::Write).at(&path)?;
        match file.try_lock(Lock::OfdExclusive).at(&path)? {
            true => Ok(Segment { name, path, file }),
            false => Err(WalError::Locked { path }),
        }
    }
}

/// Whether there is a log in `dir`, which need not exist.
///
/// # Errors
/// When the directory is there but cannot be read.
pub fn exists(disk: &dyn Disk, dir: &Path) -> Result<bool, WalError> {
    match disk.read_dir(dir) {
        Ok(paths) => Ok(paths
            .iter()
            .any(|path| path.extension().is_some_and(|ext| ext == "wal"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(WalError::Io {
            path: dir.to_owned(),
            source,
        }),
    }
}

/// All segments in `dir`, oldest first; at least one.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<Name>, WalError> {
    let paths = match disk.read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.at(dir)?,
    };
    let mut names: Vec<Name> = paths.iter().filter_map(|path| Name::parse(path)).collect();
    names.sort_unstable();
    match names.is_empty() {
        true => Err(WalError::NotFound {
            dir: dir.to_owned(),
        }),
        false => Ok(names),
    }
}

/// The segments that hold what follows the entry `index`: the last one that begins at or before it,
/// and all behind that.
pub(super) fn list_from(disk: &dyn Disk, dir: &Path, index: u64) -> Result<Vec<Name>, WalError> {
    let mut names = list(disk, dir)?;
    let first = names
        .iter()
        .rposition(|name| name.index <= index)
        .ok_or(WalError::NoSegment { index })?;
    names.drain(..first);
    check_sequence(&names)?;
    Ok(names)
}

/// Refuses segments of which one is missing in between.
pub(super) fn check_sequence(names: &[Name]) -> Result<(), WalError> {
    match names
        .windows(2)
        .find(|pair| pair[0].seq.checked_add(1) != Some(pair[1].seq))
    {
        Some(pair) => Err(WalError::MissingSegment {
            previous: pair[0].seq,
            found: pair[1].seq,
        }),
        None => Ok(()),
    }
}

/// Removes the oldest segments in `dir` until `keep` are left, but none that is still locked, nor
/// any behind it, and returns what it removed. Call [`Wal::release_to`](super::Wal::release_to)
/// before. It may run beside the log's owner.
///
/// # Errors
/// When the directory cannot be read or a file not removed.
pub fn purge(disk: &dyn Disk, dir: &Path, keep: usize) -> Result<Vec<PathBuf>, WalError> {
    let names = list(disk, dir)?;
    let surplus = names.len().saturating_sub(keep);
    let mut removed = Vec::new();
    for name in names.into_iter().take(surplus) {
        let segment = match Segment::lock(disk, dir, name) {
            Err(WalError::Locked { .. }) => break,
            other => other?,
        };
        disk.remove_file(&segment.path).at(&segment.path)?;
        removed.push(segment.path);
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_segments_are_names() {
        let name = Name {
            seq: 1,
            index: 0x33,
        };
        assert_eq!(name.to_string(), "0000000000000001-0000000000000033.wal");
        assert_eq!(Name::parse(Path::new(&format!("/wal/{name}"))), Some(name));
        for other in [
            "0.tmp",
            "0000000000000001-0000000000000033.wal.broken",
            "000000000000001-0000000000000033.wal",
            "+000000000000001-0000000000000033.wal",
            "0000000000000001.wal",
            "",
        ] {
            assert_eq!(Name::parse(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn missing_segments_are_noticed() {
        let name = |seq| Name { seq, index: 0 };
        check_sequence(&[name(3), name(4), name(5)]).unwrap();
        let error = check_sequence(&[name(3), name(5)]).unwrap_err();
        assert!(matches!(
            error,
            WalError::MissingSegment {
                previous: 3,
                found: 5
            }
        ));
    }
}
