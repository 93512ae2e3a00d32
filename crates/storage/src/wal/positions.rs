//! Where in the segments entries are, and reading them from there.
//!
//! A log that is open remembers where every so many bytes an entry begins, and the checksum up to
//! there. From such a place entries can be read without what comes before, and the checksum of each
//! is still that of the whole log.
//!
//! ```text
//! segment   …┃ 7 ┃ 8 ┃ 9 ┃10 ┃11 ┃ 9 ┃10 ┃…      9 and what followed it was replaced
//! positions  ▲ 7                 ▲ 9
//! ```
//! Where an entry replaces others there always is a position: between two positions every entry that
//! lies before the index of the later one counts.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use retcd_proto::raftpb::Entry;

use super::decoder::{Decoder, Fault};
use super::error::{At, Damage, WalError};
use super::frame::Kind;
use super::replay::decode;
use super::segment::Segment;
use crate::disk::File;

/// Bytes between two positions, at least.
const SPACING_BYTES: u64 = 256 << 10;

/// A place in a log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The segment's running number.
    pub(super) seq: u64,
    /// Where in the segment, in bytes.
    pub(super) offset: u64,
    /// The checksum up to there.
    pub(super) crc: u32,
}

#[derive(Clone, Copy, Debug)]
struct Position {
    index: u64,
    place: Place,
}

/// Where entries begin, ascending in index and place.
#[derive(Debug, Default)]
pub(super) struct Positions {
    positions: VecDeque<Position>,
    /// The index behind the last entry.
    end: u64,
}

impl Positions {
    /// The entry `index` is at `place`, behind all that were noted.
    pub(super) fn note(&mut self, index: u64, place: Place) {
        if index > self.end {
            // A received snapshot stands for what is missing, and for all before.
            self.clear();
        }
        let replaces = index < self.end;
        while self
            .positions
            .back()
            .is_some_and(|last| last.index >= index)
        {
            self.positions.pop_back();
        }
        let is_near = self.positions.back().is_some_and(|last| {
            let last = last.place;
            last.seq == place.seq && place.offset - last.offset < SPACING_BYTES
        });
        if replaces || !is_near {
            self.positions.push_back(Position { index, place });
        }
        self.end = index + 1;
    }

    pub(super) fn clear(&mut self) {
        self.positions.clear();
    }

    /// Forgets what lies before the segment `seq`.
    pub(super) fn forget_before(&mut self, seq: u64) {
        while self
            .positions
            .pop_front_if(|position| position.place.seq < seq)
            .is_some()
        {}
    }

    /// See [`Wal::locate`](super::Wal::locate).
    pub(super) fn locate(&self, wanted: Wanted, segments: &[Segment]) -> Option<Located> {
        let Wanted { first, end, .. } = wanted;
        if first >= end || end > self.end {
            return None;
        }
        let behind = self.positions.partition_point(|p| p.index <= first);
        let from = behind.checked_sub(1)?;
        let ends = self.positions.range(behind..).map(|next| next.index);
        let parts = self.positions.range(from..).zip(ends.chain([self.end]));
        let parts = parts.take_while(|(position, _)| position.index < end);
        let parts = parts.take(wanted.parts_max()).map(|(position, part_end)| {
            let Place { seq, offset, crc } = position.place;
            let segment = segments.iter().find(|segment| segment.name.seq == seq)?;
            Some(Part {
                file: Arc::clone(&segment.file),
                path: segment.path.clone(),
                offset,
                crc,
                end: part_end.min(end),
            })
        });
        let parts = parts.collect::<Option<_>>()?;
        Some(Located { wanted, parts })
    }
}

/// Entries that somebody wants to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The index of the first one.
    pub first: u64,
    /// The index behind the last one.
    pub end: u64,
    /// How many bytes of their data are enough. It is exceeded by one entry at most.
    pub bytes_max: usize,
}

impl Wanted {
    /// How many positions reach for so many bytes, as a rule, and one for the end of a segment.
    fn parts_max(&self) -> usize {
        self.bytes_max / SPACING_BYTES as usize + 2
    }
}

/// Where wanted entries are; whoever has time to wait for the disk reads them. The segments stay as
/// they are meanwhile.
pub struct Located {
    wanted: Wanted,
    parts: Vec<Part>,
}

/// Entries that lie one behind the other.
struct Part {
    file: Arc<dyn File>,
    path: PathBuf,
    offset: u64,
    crc: u32,
    /// The index behind its last entry.
    end: u64,
}

impl Located {
    /// What is wanted.
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Reads the entries from the first one on, one at least. Who wants more asks again: where many
    /// were replaced, or segments are small, they are fewer than would be enough.
    ///
    /// # Errors
    /// The disk fails, or the log is damaged.
    pub fn read(self) -> Result<Vec<Entry>, WalError> {
        let mut entries: Vec<Entry> = Vec::new();
        let (mut next, mut bytes) = (self.wanted.first, 0);
        for part in &self.parts {
            let mut decoder = part.decoder().at(&part.path)?;
            while next < part.end {
                let entry = part.next_entry(&mut decoder)?;
                if entry.index() < next {
                    continue;
                }
                if entry.index() > next {
                    let (index, expected_max) = (entry.index(), next);
                    let damage = Damage::EntryGap {
                        index,
                        expected_max,
                    };
                    return Err(part.damaged(&decoder, damage));
                }
                bytes += entry.data().len();
                entries.push(entry);
                next += 1;
                if bytes >= self.wanted.bytes_max {
                    return Ok(entries);
                }
            }
        }
        Ok(entries)
    }
}

impl Part {
    fn decoder(&self) -> io::Result<Decoder> {
        Decoder::starting_at(Arc::clone(&self.file), self.offset, self.crc)
    }

    fn next_entry(&self, decoder: &mut Decoder) -> Result<Entry, WalError> {
        loop {
            match decoder.next() {
                Ok(Some(record)) if record.kind == Kind::Entry => {
                    let entry = decode("raftpb.Entry", record.data);
                    return entry.map_err(|damage| self.damaged(decoder, damage));
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    let remain = 0;
                    let needs = super::frame::LENGTH_BYTES;
                    return Err(self.damaged(decoder, Damage::CutShort { needs, remain }));
                }
                Err(Fault::Damaged { damage, .. }) => return Err(self.damaged(decoder, damage)),
                Err(Fault::Io(source)) => return Err(source).at(&self.path),
            }
        }
    }

    fn damaged(&self, decoder: &Decoder, damage: Damage) -> WalError {
        WalError::Damaged {
            path: self.path.clone(),
            offset: decoder.offset(),
            damage,
        }
    }
}
