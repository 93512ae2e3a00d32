//! Everything that a log says of itself, damaged or not: for people who decide what to do with it.
//!
//! Other than a reader that goes on from a snapshot, this looks at every segment, and goes on behind
//! damage with the next one, as each carries the checksum with which it begins.

use std::path::{Path, PathBuf};

use retcd_proto::etcdserverpb::Metadata;
use retcd_proto::raftpb::{Entry, HardState};
use retcd_proto::walpb;

use super::TornTail;
use super::decoder::Record;
use super::error::{At, Damage, WalError};
use super::frame::Kind;
use super::replay::{decode, decode_state, scan};
use super::segment::{self, Name, Segment};
use crate::disk::Disk;

/// What [`survey`] found.
#[derive(Debug, Default)]
pub struct Survey {
    /// The segments, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// Whose log it is, as far as a segment tells.
    pub metadata: Option<Metadata>,
    /// The last term, vote and commit index.
    pub hard_state: HardState,
    /// Every snapshot record, in the order in which they were written.
    pub snapshots: Vec<walpb::Snapshot>,
    /// Index and term of the last entry.
    pub last_entry: Option<(u64, u64)>,
    /// The tail that an interrupted write has left.
    pub torn: Option<TornTail>,
    /// What else does not add up.
    pub damages: Vec<WalError>,
}

/// A segment of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its file.
    pub path: PathBuf,
    /// Its running number.
    pub seq: u64,
    /// The index of the first entry that it may hold.
    pub first_index: u64,
    /// The file's length in bytes.
    pub bytes: u64,
}

/// Looks at the whole log in `dir` without locks and without changing anything. A log without
/// segments is an empty one.
///
/// # Errors
/// When the directory cannot be read. What is wrong with the log is in [`Survey::damages`].
pub fn survey(disk: &dyn Disk, dir: &Path) -> Result<Survey, WalError> {
    let names = match segment::list(disk, dir) {
        Err(WalError::NotFound { .. }) => Vec::new(),
        other => other?,
    };
    let mut survey = Survey::default();
    // Each run of segments that follow each other, and can be opened, is scanned as a log.
    let mut run: Vec<Segment> = Vec::new();
    let mut previous: Option<Name> = None;
    for name in names {
        let gap = previous.and_then(|previous| segment::check_sequence(&[previous, name]).err());
        previous = Some(name);
        if let Some(gap) = gap {
            survey.scan(&std::mem::take(&mut run), false);
            survey.damages.push(gap);
        }
        let opened = Segment::read(disk, dir, name).and_then(|segment| {
            let bytes = segment.file.len().at(&segment.path)?;
            Ok((segment, bytes))
        });
        match opened {
            Ok((segment, bytes)) => {
                survey.segments.push(SegmentInfo {
                    path: segment.path.clone(),
                    seq: name.seq,
                    first_index: name.index,
                    bytes,
                });
                run.push(segment);
            }
            Err(error) => {
                survey.scan(&std::mem::take(&mut run), false);
                survey.damages.push(error);
            }
        }
    }
    survey.scan(&run, true);
    Ok(survey)
}

impl Survey {
    /// `is_end`: the last of these segments is the log's last one.
    fn scan(&mut self, mut segments: &[Segment], is_end: bool) {
        while let Some(last) = segments.last() {
            match scan(segments, &mut |record, _| self.record(record)) {
                Ok(end) => {
                    if let Some(damage) = end.torn {
                        let (path, offset) = (last.path.clone(), end.offset);
                        match is_end {
                            true => {
                                self.torn = Some(TornTail {
                                    segment: path,
                                    offset,
                                    damage,
                                    copy: None,
                                });
                            }
                            false => self.damages.push(WalError::Damaged {
                                path,
                                offset,
                                damage,
                            }),
                        }
                    }
                    return;
                }
                Err(error) => {
                    let at = match &error {
                        WalError::Damaged { path, .. } | WalError::Io { path, .. } => {
                            segments.iter().position(|segment| segment.path == *path)
                        }
                        _ => None,
                    };
                    self.damages.push(error);
                    segments = at.map_or(&[], |at| &segments[at + 1..]);
                }
            }
        }
    }

    fn record(&mut self, record: Record) -> Result<(), Damage> {
        match record.kind {
            Kind::Metadata => {
                let metadata = decode::<Metadata>("etcdserverpb.Metadata", record.data)?;
                if self.metadata.is_some_and(|known| known != metadata) {
                    return Err(Damage::MetadataConflict);
                }
                self.metadata = Some(metadata);
            }
            Kind::Entry => {
                let entry = decode::<Entry>("raftpb.Entry", record.data)?;
                self.last_entry = Some((entry.index(), entry.term()));
            }
            Kind::State => self.hard_state = decode_state(record.data)?,
            Kind::Snapshot => {
                self.snapshots.push(decode("walpb.Snapshot", record.data)?);
            }
            Kind::Crc => {}
        }
        Ok(())
    }
}
