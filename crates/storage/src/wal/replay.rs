//! Reading a log: what its records add up to.

use std::path::Path;
use std::sync::Arc;

use prost::Message;
use prost::bytes::Bytes;
use retcd_proto::etcdserverpb::Metadata;
use retcd_proto::raftpb::{Entry, HardState};
use retcd_proto::walpb;

use super::decoder::{Decoder, Fault, Record};
use super::error::{At, Damage, WalError};
use super::frame::Kind;
use super::positions::{Place, Positions};
use super::segment::{self, Segment};
use super::{Needed, Recovered, Terms, TornTail};
use crate::disk::Disk;

/// Where a log ends.
pub(super) struct End {
    /// The checksum with which the next record continues.
    pub(super) crc: u32,
    /// Where the next record goes in the last segment, in bytes.
    pub(super) offset: u64,
    /// What follows there, if it is more than zeros.
    pub(super) torn: Option<Damage>,
}

/// Hands every record of `segments`, which follow each other, to `visit`. A torn record ends the
/// log if it is in the last segment, as does a length of zero.
pub(super) fn scan(
    segments: &[Segment],
    visit: &mut dyn FnMut(Record, Place) -> Result<(), Damage>,
) -> Result<End, WalError> {
    let mut end = End {
        crc: 0,
        offset: 0,
        torn: None,
    };
    for (position, segment) in segments.iter().enumerate() {
        let is_last = position + 1 == segments.len();
        let mut decoder = Decoder::new(Arc::clone(&segment.file), end.crc).at(&segment.path)?;
        loop {
            let place = Place {
                seq: segment.name.seq,
                offset: decoder.offset(),
                crc: decoder.crc(),
            };
            let damaged = |damage| WalError::Damaged {
                path: segment.path.clone(),
                offset: place.offset,
                damage,
            };
            match decoder.next() {
                Ok(Some(record)) => visit(record, place).map_err(damaged)?,
                Ok(None) => break,
                Err(Fault::Damaged { damage, torn: true }) if is_last => {
                    end.torn = Some(damage);
                    break;
                }
                Err(Fault::Damaged { damage, .. }) => return Err(damaged(damage)),
                Err(Fault::Io(source)) => return Err(source).at(&segment.path),
            }
        }
        end.crc = decoder.crc();
        end.offset = decoder.offset();
    }
    Ok(end)
}

/// Builds the state behind a snapshot from records.
pub(super) struct Replay<'a> {
    start: walpb::Snapshot,
    needed: Needed<'a>,
    start_found: bool,
    /// The term of the entry at the start's index, if the log holds that entry.
    start_entry_term: Option<u64>,
    /// The metadata record, as it was written.
    pub(super) metadata: Option<Bytes>,
    /// The last hard state.
    pub(super) hard_state: HardState,
    /// Entries that are not needed: their terms.
    earlier: Terms,
    /// Those of them that are.
    kept: Vec<Entry>,
    /// What follows them.
    entries: Vec<Entry>,
    /// Where entries are.
    pub(super) positions: Positions,
    /// The index of the last entry, or of a snapshot ahead of it.
    pub(super) last_index: u64,
}

impl<'a> Replay<'a> {
    pub(super) fn new(start: &walpb::Snapshot, needed: Needed<'a>) -> Replay<'a> {
        Replay {
            start: start.clone(),
            needed,
            start_found: false,
            start_entry_term: None,
            metadata: None,
            hard_state: HardState::default(),
            earlier: Terms::default(),
            kept: Vec::new(),
            entries: Vec::new(),
            positions: Positions::default(),
            last_index: 0,
        }
    }

    pub(super) fn record(&mut self, record: Record, place: Place) -> Result<(), Damage> {
        match record.kind {
            Kind::Metadata => self.metadata(record.data),
            Kind::Entry => {
                let entry: Entry = decode("raftpb.Entry", record.data)?;
                let index = entry.index();
                self.entry(entry)?;
                self.positions.note(index, place);
                Ok(())
            }
            Kind::State => {
                self.hard_state = decode_state(record.data)?;
                Ok(())
            }
            Kind::Snapshot => self.snapshot(&decode("walpb.Snapshot", record.data)?),
            Kind::Crc => Ok(()),
        }
    }

    fn metadata(&mut self, data: Bytes) -> Result<(), Damage> {
        match &self.metadata {
            Some(known) if *known != data => Err(Damage::MetadataConflict),
            _ => {
                // A copy, as it would keep the whole chunk of the file in memory.
                self.metadata = Some(Bytes::copy_from_slice(&data));
                Ok(())
            }
        }
    }

    /// An entry replaces what was at its index and everything behind. That holds for entries that
    /// the start covers as well: etcd passes over those, so that a tail which was replaced comes
    /// back to life when a snapshot is taken behind the place of replacement.
    fn entry(&mut self, entry: Entry) -> Result<(), Damage> {
        let index = entry.index();
        let start = self.start.index();
        self.last_index = index;
        if index <= start {
            self.clear();
            self.start_entry_term = (index == start).then_some(entry.term());
            return Ok(());
        }
        let expected_max = self.last() + 1;
        if index > expected_max {
            return Err(Damage::EntryGap {
                index,
                expected_max,
            });
        }
        self.truncate(index);
        if index > self.needed.behind {
            self.entries.push(entry);
            return Ok(());
        }
        self.earlier.push(index, entry.term());
        if (self.needed.also)(&entry) {
            self.kept.push(entry);
        }
        Ok(())
    }

    /// The index of the last entry behind the start, or the start's.
    fn last(&self) -> u64 {
        self.start.index() + self.earlier.len() + self.entries.len() as u64
    }

    /// Forgets the entries from `index` on.
    fn truncate(&mut self, index: u64) {
        let earlier = self.start.index() + self.earlier.len();
        let keep = (index - 1).saturating_sub(earlier);
        self.entries.truncate(keep as usize);
        if index <= earlier {
            self.earlier.truncate(index);
            self.kept.retain(|entry| entry.index() < index);
        }
    }

    fn clear(&mut self) {
        self.earlier = Terms::default();
        self.kept.clear();
        self.entries.clear();
    }

    fn snapshot(&mut self, snapshot: &walpb::Snapshot) -> Result<(), Damage> {
        self.last_index = self.last_index.max(snapshot.index());
        if snapshot.index() != self.start.index() {
            return Ok(());
        }
        if snapshot.term() != self.start.term() {
            return Err(Damage::SnapshotMismatch {
                index: snapshot.index(),
                found: snapshot.term(),
                expected: self.start.term(),
            });
        }
        // A log that has another entry there conflicted with the snapshot, which a leader sent to
        // replace it; raft then forgets all entries.
        if self
            .start_entry_term
            .is_some_and(|term| term != snapshot.term())
        {
            self.clear();
        }
        self.start_found = true;
        Ok(())
    }

    /// Refuses a log whose committed entries are not all there: something was cut off that had been
    /// acknowledged.
    pub(super) fn check_commit(&self) -> Result<(), WalError> {
        let last = self.last();
        let commit = self.hard_state.commit();
        if commit > last {
            return Err(WalError::CommitBeyondEnd { commit, last });
        }
        Ok(())
    }

    /// Refuses a log that knows nothing of the start. Its record can lie in an earlier segment than
    /// those that were read: when a leader's snapshot was recorded, but the power was lost before
    /// it was committed, and its entries came one by one after all. Then the entry itself stands
    /// for it.
    fn check_start(&self) -> Result<(), WalError> {
        let (index, term) = (self.start.index(), self.start.term());
        match self.start_found || self.start_entry_term == Some(term) {
            true => Ok(()),
            false => Err(WalError::SnapshotNotFound { index, term }),
        }
    }

    /// What was read from the log in `dir`.
    pub(super) fn finish(self, dir: &Path) -> Result<Recovered, WalError> {
        self.check_start()?;
        let (start, last) = (self.start.index(), self.last());
        assert!(
            last == start || last <= self.last_index,
            "entries behind {start} up to {last}, the last one is {}",
            self.last_index
        );
        let metadata = self.metadata.ok_or_else(|| WalError::NoMetadata {
            dir: dir.to_owned(),
        })?;
        Ok(Recovered {
            metadata: decode_metadata(metadata, dir)?,
            hard_state: self.hard_state,
            earlier: self.earlier,
            kept: self.kept,
            entries: self.entries,
            torn: None,
        })
    }
}

fn decode_metadata(data: Bytes, dir: &Path) -> Result<Metadata, WalError> {
    decode("etcdserverpb.Metadata", data).map_err(|damage| WalError::Damaged {
        path: dir.to_owned(),
        offset: 0,
        damage,
    })
}

/// A hard state. The checksum does not cover a record's type, and an entry decodes as a hard state
/// but for its payload, so the payload must not be passed over.
pub(super) fn decode_state(data: Bytes) -> Result<HardState, Damage> {
    let bytes = data.len();
    let state: HardState = decode("raftpb.HardState", data)?;
    match state.encoded_len() == bytes {
        true => Ok(state),
        false => {
            let reason = "unknown fields".to_owned();
            Err(Damage::Undecodable {
                message: "raftpb.HardState",
                reason,
            })
        }
    }
}

pub(super) fn decode<M: Message + Default>(
    message: &'static str,
    data: Bytes,
) -> Result<M, Damage> {
    M::decode(data).map_err(|error| Damage::Undecodable {
        message,
        reason: error.to_string(),
    })
}

pub(super) fn read(
    disk: &dyn Disk,
    dir: &Path,
    start: &walpb::Snapshot,
) -> Result<Recovered, WalError> {
    let names = segment::list_from(disk, dir, start.index())?;
    let segments = names
        .into_iter()
        .map(|name| Segment::read(disk, dir, name))
        .collect::<Result<Vec<_>, _>>()?;
    let mut replay = Replay::new(start, Needed::ALL);
    let end = scan(&segments, &mut |record, place| replay.record(record, place))?;
    let mut recovered = replay.finish(dir)?;
    recovered.torn = end.torn.map(|damage| TornTail {
        segment: segments
            .last()
            .expect("a list of segments is never empty")
            .path
            .clone(),
        offset: end.offset,
        damage,
        copy: None,
    });
    Ok(recovered)
}

/// The snapshot records and the last hard state of some segments.
fn scan_snapshots(
    segments: &[Segment],
) -> Result<(Vec<walpb::Snapshot>, Option<HardState>), WalError> {
    let mut snapshots = Vec::new();
    let mut state = None;
    scan(segments, &mut |record, _| {
        match record.kind {
            Kind::Snapshot => snapshots.push(decode("walpb.Snapshot", record.data)?),
            Kind::State => state = Some(decode_state(record.data)?),
            Kind::Metadata | Kind::Entry | Kind::Crc => {}
        }
        Ok(())
    })?;
    Ok((snapshots, state))
}

pub(super) fn snapshots(disk: &dyn Disk, dir: &Path) -> Result<Vec<walpb::Snapshot>, WalError> {
    let names = segment::list(disk, dir)?;
    segment::check_sequence(&names)?;
    let segments = names
        .into_iter()
        .map(|name| Segment::read(disk, dir, name))
        .collect::<Result<Vec<_>, _>>()?;
    let (mut snapshots, state) = scan_snapshots(&segments)?;
    let commit = state.unwrap_or_default().commit();
    snapshots.retain(|snapshot| snapshot.index() <= commit);
    Ok(snapshots)
}

pub(super) fn last_snapshot(
    disk: &dyn Disk,
    dir: &Path,
) -> Result<Option<walpb::Snapshot>, WalError> {
    let names = segment::list(disk, dir)?;
    segment::check_sequence(&names)?;
    let mut commit = None;
    // Snapshot records that were found before any hard state was.
    let mut newer = Vec::new();
    for name in names.into_iter().rev() {
        let (mut found, state) = scan_snapshots(&[Segment::read(disk, dir, name)?])?;
        commit = commit.or(state.map(|state| state.commit()));
        found.append(&mut newer);
        match commit {
            Some(commit) => {
                if let Some(snapshot) = found.into_iter().rfind(|found| found.index() <= commit) {
                    return Ok(Some(snapshot));
                }
            }
            None => newer = found,
        }
    }
    Ok(newer.into_iter().rfind(|snapshot| snapshot.index() == 0))
}
