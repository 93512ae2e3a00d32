//! The write-ahead log, in etcd's format: what a member has promised, before it answers.
//!
//! A log is a directory of segments `SEQ-INDEX.wal` (two numbers of 16 hex digits: a running
//! number, and the index of the first entry that the segment may hold), each a sequence of frames:
//!
//! ```text
//!        8 bytes                      n bytes                pad
//! ┌────────────────────┬───────────────────────────────────┬─────┐
//! │ length, u64 little │ walpb.Record {type, crc, data}    │ 0…7 │  to the next multiple of 8
//! └────────────────────┴───────────────────────────────────┴─────┘
//!  bits 0…55: n             crc: CRC32C over the data of all records so far, this one included
//!  top byte: 0x80 | pad, or 0 without padding
//! ```
//!
//! A segment begins with a crc record (the checksum carried over), the metadata, and, in the first
//! one, the snapshot record 0/0, in later ones the last hard state. Segments are preallocated with
//! zeros, so a length of 0 ends them. A later entry replaces an earlier one with the same index and
//! all behind it.
//!
//! # Torn and damaged
//!
//! A write that was interrupted by a loss of power leaves a *torn* tail: the last segment ends
//! within a record, or a whole 512-byte sector of it is still zero. What follows was never
//! acknowledged, so [`Wal::open`] keeps a copy of the segment (`.broken`) and cuts the tail off.
//! Everything else that does not add up is *damage*, and the log is refused, naming file and
//! offset. That is stricter than etcd in one point: a length that contradicts what lies in the same
//! sector (the record's own header, or a record behind a length of zero) cannot come from a torn
//! write, and cutting there would drop acknowledged entries. What no reader can notice is a changed
//! bit in a record that has an empty sector of its own, as that looks torn.
//!
//! # What is durable when
//!
//! [`Wal::append`] only encodes. [`Wal::sync`] brings everything that was appended to the disk with
//! one write and one `fdatasync`; the owner appends all batches that wait and then syncs once. A
//! change of the commit index alone is written without `fdatasync`, as it can be learned again. A
//! write or sync that failed poisons the log: what is on the disk is unknown, and the member must
//! stop. What a failed write may have left is cut off if that is possible, so that the log can be
//! read again.
//!
//! # When there is no room
//!
//! What only serves later may fail: reserving space for the next segment ([`Preparation`]), in a
//! new segment, in the tail when the log is opened, and the copy of a torn segment. The log then
//! goes on without, and grows as it is written. What a promise rests on may not: a record, the head
//! of a segment, its length and its name. If one of these finds no room the log is poisoned, as
//! part of it may be on the disk and the next record must not follow it. So the owner of the log
//! stops taking in what can be refused well before (see [`Wal::release_reserved`]).
//!
//! Not here: clocks, threads, metrics and log lines (the owner times [`Wal::sync`] and prints what
//! [`Recovered::torn`] and [`purge`] report), and the meaning of the entries.

use std::path::{Path, PathBuf};

use retcd_proto::etcdserverpb::Metadata;
use retcd_proto::raftpb::{Entry, HardState};
use retcd_proto::walpb;

use crate::disk::Disk;

mod decoder;
mod encoder;
mod error;
mod frame;
mod positions;
mod prepare;
mod repair;
mod replay;
mod segment;
mod survey;
mod terms;
mod writer;

pub use error::{Damage, WalError};
pub use positions::{Located, Wanted};
pub use prepare::{Preparation, Prepared};
pub use segment::{exists, purge};
pub use survey::{SegmentInfo, Survey, survey};
pub use terms::Terms;
pub use writer::{SyncStats, Wal};

/// Bytes to which a segment is preallocated, and after which the next one is begun.
pub const SEGMENT_BYTES: u64 = 64_000_000;

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes to which a segment is preallocated, and after which the next one is begun. Only tests
    /// have a reason to change it.
    pub segment_bytes: u64,
    /// Never calls `fdatasync` when entries are appended: a loss of power may then lose
    /// acknowledged entries (`--unsafe-no-fsync`).
    pub unsafe_no_fsync: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: SEGMENT_BYTES,
            unsafe_no_fsync: false,
        }
    }
}

/// What a log holds behind the snapshot from which it was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// Whose log it is.
    pub metadata: Metadata,
    /// The last term, vote and commit index.
    pub hard_state: HardState,
    /// The terms of the entries behind the snapshot that the reader has no need of: see
    /// [`Needed`].
    pub earlier: Terms,
    /// Those of them that the reader needs all the same.
    pub kept: Vec<Entry>,
    /// The entries behind the snapshot, or behind the earlier ones, without gaps. Those with an
    /// index above the hard state's commit may still be replaced.
    pub entries: Vec<Entry>,
    /// The tail that was cut off, if the last write was interrupted.
    pub torn: Option<TornTail>,
}

impl Recovered {
    /// Index and term of the last entry, if there is one behind the snapshot.
    pub fn last(&self) -> Option<(u64, u64)> {
        let last = self.entries.last();
        last.map(|entry| (entry.index(), entry.term()))
            .or_else(|| self.earlier.last())
    }
}

/// Which entries whoever opens a log needs: a log may be larger than memory.
#[derive(Clone, Copy)]
pub struct Needed<'a> {
    /// All behind this index.
    pub behind: u64,
    /// And those of the others that this says.
    pub also: &'a dyn Fn(&Entry) -> bool,
}

impl Needed<'_> {
    /// All of them.
    pub const ALL: Needed<'static> = Needed {
        behind: 0,
        also: &|_| false,
    };
}

/// The end of a log whose last write was interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub segment: PathBuf,
    /// Where its last whole record ends, in bytes.
    pub offset: u64,
    /// What is wrong behind it.
    pub damage: Damage,
    /// Where the segment was copied before the tail was cut off; nothing when it was only read, or
    /// when there was no room for a copy.
    pub copy: Option<PathBuf>,
}

/// Reads the log in `dir` behind the snapshot `start` without locks and without changing anything.
///
/// # Errors
/// As [`Wal::open`], but for locks. A commit index behind the last entry is accepted here.
pub fn read(disk: &dyn Disk, dir: &Path, start: &walpb::Snapshot) -> Result<Recovered, WalError> {
    replay::read(disk, dir, start)
}

/// The snapshot records in `dir` whose index is committed, in the order in which they were written.
///
/// # Errors
/// When the log is missing or damaged, or cannot be read.
pub fn snapshots(disk: &dyn Disk, dir: &Path) -> Result<Vec<walpb::Snapshot>, WalError> {
    replay::snapshots(disk, dir)
}

/// The last of [`snapshots`], found from the newest segment backwards, so that older segments need
/// not be read.
///
/// # Errors
/// When the log is missing or one of the segments that it read is damaged or cannot be read.
pub fn last_snapshot(disk: &dyn Disk, dir: &Path) -> Result<Option<walpb::Snapshot>, WalError> {
    replay::last_snapshot(disk, dir)
}

/// The snapshot at index 0, from which a log that has never been compacted is read.
pub fn origin() -> walpb::Snapshot {
    walpb::Snapshot {
        index: Some(0),
        term: Some(0),
        conf_state: None,
    }
}
