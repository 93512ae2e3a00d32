//! What can be wrong with a log.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a log cannot be created, opened or written.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The disk failed; it says what was tried and where.
    #[error("{source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// There is already a log in the directory.
    #[error("wal: file already exists in {}", dir.display())]
    Exists {
        /// The log's directory.
        dir: PathBuf,
    },
    /// A log is to be created where something else is kept.
    #[error("wal: directory {} holds {}, which does not belong to a log", dir.display(), found.display())]
    Occupied {
        /// The log's directory.
        dir: PathBuf,
        /// What was found in it.
        found: PathBuf,
    },
    /// There are no segments in the directory.
    #[error("wal: file not found in {}", dir.display())]
    NotFound {
        /// The log's directory.
        dir: PathBuf,
    },
    /// All segments begin behind the snapshot from which the log is to be read.
    #[error("wal: file not found which matches the snapshot index '{index}'")]
    NoSegment {
        /// The snapshot's index.
        index: u64,
    },
    /// A segment is missing between two others.
    #[error("wal: file sequence numbers do not increase continuously: {found} follows {previous}")]
    MissingSegment {
        /// The number of a segment.
        previous: u64,
        /// The number of the one behind it.
        found: u64,
    },
    /// Another process uses the log.
    #[error("wal: {} is locked by another process", path.display())]
    Locked {
        /// The segment.
        path: PathBuf,
    },
    /// A record is not what was written, and not by an interrupted write.
    #[error("{damage}: in file '{}' at position: {offset}", file_name(path))]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the record begins, in bytes.
        offset: u64,
        /// What is wrong.
        damage: Damage,
    },
    /// No segment says whose log it is.
    #[error("wal: no metadata found in {}", dir.display())]
    NoMetadata {
        /// The log's directory.
        dir: PathBuf,
    },
    /// The snapshot from which the log is to be read was never recorded in it.
    #[error("wal: snapshot not found: index {index}, term {term}")]
    SnapshotNotFound {
        /// The snapshot's index.
        index: u64,
        /// The snapshot's term.
        term: u64,
    },
    /// Entries that were committed are not in the log.
    #[error("wal: the log ends at index {last}, but index {commit} was committed")]
    CommitBeyondEnd {
        /// The commit index.
        commit: u64,
        /// The last entry's index.
        last: u64,
    },
    /// A snapshot record lacks its index, term or, behind index 0, configuration.
    #[error("wal: incomplete snapshot record at index {index}")]
    IncompleteSnapshot {
        /// The snapshot's index.
        index: u64,
    },
    /// An earlier write or sync failed; what is on the disk is unknown.
    #[error("wal: not usable after an earlier failure")]
    Poisoned,
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The file ends within the record.
    CutShort {
        /// Bytes that the record needs, with its length field and padding.
        needs: u64,
        /// Bytes from the record's start to the end of the file.
        remain: u64,
    },
    /// The length is zero, as at the end of a log, but the record is there.
    MissingLength,
    /// No writer makes such a length field.
    ImpossibleLength(u64),
    /// The frame's length is not that of the record in it.
    LengthContradicted {
        /// Bytes by the frame's length field.
        frame: u64,
        /// Bytes by the record's header.
        record: u64,
    },
    /// The checksum does not match.
    Checksum {
        /// The record's checksum.
        expected: u32,
        /// The checksum of what was read.
        computed: u32,
    },
    /// The bytes are not the message that they should be.
    Undecodable {
        /// The message's name.
        message: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// A record of a type that no version of etcd writes.
    UnknownType(i64),
    /// The log belongs to two members.
    MetadataConflict,
    /// An entry does not follow those before it.
    EntryGap {
        /// The entry's index.
        index: u64,
        /// The highest index that it could have had.
        expected_max: u64,
    },
    /// The snapshot from which the log is read has another term in the log.
    SnapshotMismatch {
        /// The snapshot's index.
        index: u64,
        /// The term in the log.
        found: u64,
        /// The term that was asked for.
        expected: u64,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::CutShort { needs, remain } => {
                write!(
                    f,
                    "unexpected EOF: record of {needs} bytes, but {remain} remain"
                )
            }
            Damage::MissingLength => write!(f, "wal: a record without its length"),
            Damage::ImpossibleLength(field) => write!(f, "wal: impossible length field {field:x}"),
            Damage::LengthContradicted { frame, record } => {
                write!(
                    f,
                    "wal: frame of {frame} bytes around a record of {record} bytes"
                )
            }
            Damage::Checksum { expected, computed } => {
                write!(
                    f,
                    "walpb: crc mismatch: expected: {expected:x} computed: {computed:x}"
                )
            }
            Damage::Undecodable { message, reason } => write!(f, "wal: not a {message}: {reason}"),
            Damage::UnknownType(number) => write!(f, "unexpected block type {number}"),
            Damage::MetadataConflict => write!(f, "wal: conflicting metadata found"),
            Damage::EntryGap {
                index,
                expected_max,
            } => {
                write!(
                    f,
                    "wal: slice bounds out of range: entry {index}, at most {expected_max} expected"
                )
            }
            Damage::SnapshotMismatch {
                index,
                found,
                expected,
            } => {
                write!(
                    f,
                    "wal: snapshot mismatch: index {index} has term {found}, not {expected}"
                )
            }
        }
    }
}

/// A segment's name alone, as etcd prints it.
fn file_name(path: &Path) -> std::path::Display<'_> {
    path.file_name().map_or(path, Path::new).display()
}

/// Names the file in an error of the disk.
pub(super) trait At<T> {
    fn at(self, path: &Path) -> Result<T, WalError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, WalError> {
        self.map_err(|source| WalError::Io {
            path: path.to_owned(),
            source,
        })
    }
}
