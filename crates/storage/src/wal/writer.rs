//! Writing a log: its only owner appends, syncs and cuts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use prost::bytes::Bytes;
use retcd_proto::etcdserverpb::Metadata;
use retcd_proto::raftpb::{Entry, HardState};
use retcd_proto::walpb;

use super::encoder::Encoder;
use super::error::{At, WalError};
use super::frame::Kind;
use super::positions::{Located, Place, Positions, Wanted};
use super::prepare::{Preparation, Prepared, reserve_if_possible};
use super::replay::{self, Replay};
use super::segment::{self, Name, Segment};
use super::{Needed, Options, Recovered, TornTail, origin, repair};
use crate::disk::Disk;

/// What files are called that are prepared, in turn.
const PREPARED_NAMES: [&str; 2] = ["0.tmp", "1.tmp"];
/// What a file is called until it is a segment, if none was prepared.
const OWN_NAME: &str = "next.tmp";

// The next file is prepared while the one before may still have its name.
const _: () = assert!(PREPARED_NAMES.len() >= 2);

/// What [`Wal::sync`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncStats {
    /// Bytes written.
    pub bytes: u64,
    /// Whether `fdatasync` was called.
    pub synced: bool,
    /// Whether a new segment was begun.
    pub cut: bool,
}

/// A log that is open for appending. It holds locks on the segments that are still needed.
///
/// Dropping it is like losing the process: what was appended but not synced may be lost.
/// [`Wal::close`] ends it in order.
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    /// The locked segments, oldest first; the last one is the tail. Never empty.
    segments: Vec<Segment>,
    /// Where in them entries are.
    positions: Positions,
    /// Where the next bytes go in the tail.
    offset: u64,
    encoder: Encoder,
    /// The metadata record, repeated at the head of each segment.
    metadata: Bytes,
    /// The last hard state that was appended.
    hard_state: HardState,
    /// The index of the last entry, or of a snapshot ahead of it.
    last_index: u64,
    /// The newest snapshot that was recorded since the log was opened.
    snapshot_index: u64,
    /// Whether something was appended that must be durable before the member answers.
    needs_sync: bool,
    /// The file that becomes the next segment.
    prepared: Option<Prepared>,
    /// How many files were, or are being, prepared; their names alternate.
    prepared_count: usize,
    reserve_segments: bool,
    poisoned: bool,
}

impl Wal {
    /// Creates a log in `dir`, which must not hold one. It appears whole or not at all, as it is
    /// built in `DIR.tmp` and renamed. The directory above must be made durable by the caller if it
    /// is new.
    ///
    /// # Errors
    /// When there is a log, or something else, in `dir`, or the disk fails.
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        metadata: &Metadata,
        options: Options,
    ) -> Result<Wal, WalError> {
        remove_empty(disk.as_ref(), dir)?;
        let building = suffixed(dir, ".tmp");
        if disk.exists(&building).at(&building)? {
            disk.remove_dir_all(&building).at(&building)?;
        }
        let wal = Wal::build(Arc::clone(&disk), dir, &building, metadata, options);
        if wal.is_err() {
            // The first error is the one to report, and the next attempt removes what is left.
            let _ = disk.remove_dir_all(&building);
        }
        wal
    }

    fn build(
        disk: Arc<dyn Disk>,
        dir: &Path,
        building: &Path,
        metadata: &Metadata,
        options: Options,
    ) -> Result<Wal, WalError> {
        disk.create_dir_all(building).at(building)?;
        let name = Name { seq: 0, index: 0 };
        let first = building.join(name.to_string());
        let Prepared { file, .. } =
            Preparation::new(&disk, first, options.segment_bytes).make_or_unreserved()?;
        let metadata = Bytes::from(metadata.encode_to_vec());
        let mut encoder = Encoder::new(0);
        encoder.put_crc();
        encoder.put_bytes(Kind::Metadata, &metadata);
        encoder.put_message(Kind::Snapshot, &origin());
        let offset = encoder.write_to(file.as_ref(), 0).at(building)?;
        file.sync_data().at(building)?;
        disk.sync_dir(building).at(building)?;

        disk.rename(building, dir).at(dir)?;
        let above = match dir.parent() {
            Some(above) if above != Path::new("") => above,
            _ => Path::new("."),
        };
        disk.sync_dir(above).at(above)?;
        let tail = Segment {
            name,
            path: dir.join(name.to_string()),
            file,
        };
        Ok(Wal {
            dir: dir.to_owned(),
            disk,
            options,
            segments: vec![tail],
            positions: Positions::default(),
            offset,
            encoder,
            metadata,
            hard_state: HardState::default(),
            last_index: 0,
            snapshot_index: 0,
            needs_sync: false,
            prepared: None,
            prepared_count: 0,
            reserve_segments: true,
            poisoned: false,
        })
    }

    /// Opens the log in `dir` and reads what follows the snapshot `start`, which the log must have
    /// recorded. A torn tail is cut off, after a copy of its segment was made.
    ///
    /// # Errors
    /// When another process holds the log, it is missing or damaged, the snapshot is not in it,
    /// committed entries are missing, or the disk fails. Nothing was changed then, unless the disk
    /// failed.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        start: &walpb::Snapshot,
        options: Options,
    ) -> Result<(Wal, Recovered), WalError> {
        Wal::open_with(disk, dir, start, options, Needed::ALL)
    }

    /// The same, but gives only those entries that are `needed`.
    ///
    /// # Errors
    /// As [`Wal::open`].
    pub fn open_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        start: &walpb::Snapshot,
        options: Options,
        needed: Needed<'_>,
    ) -> Result<(Wal, Recovered), WalError> {
        let segments = segment::list_from(disk.as_ref(), dir, start.index())?
            .into_iter()
            .map(|name| Segment::lock(disk.as_ref(), dir, name))
            .collect::<Result<Vec<_>, _>>()?;
        let mut replay = Replay::new(start, needed);
        let end = replay::scan(&segments, &mut |record, place| replay.record(record, place))?;
        replay.check_commit()?;
        let last_index = replay.last_index;
        let metadata = replay.metadata.clone().unwrap_or_default();
        let positions = std::mem::take(&mut replay.positions);
        let mut recovered = replay.finish(dir)?;

        let mut wal = Wal {
            segments,
            positions,
            dir: dir.to_owned(),
            disk,
            options,
            offset: end.offset,
            encoder: Encoder::new(end.crc),
            metadata,
            hard_state: recovered.hard_state,
            last_index,
            snapshot_index: 0,
            needs_sync: false,
            prepared: None,
            prepared_count: 0,
            reserve_segments: true,
            poisoned: false,
        };
        if let Some(damage) = end.torn {
            let tail = wal.tail();
            let copy = repair::copy(wal.disk.as_ref(), tail)?;
            recovered.torn = Some(TornTail {
                segment: tail.path.clone(),
                offset: end.offset,
                damage,
                copy,
            });
        }
        wal.clear_tail(recovered.torn.is_some())?;
        wal.remove_leftovers()?;
        Ok((wal, recovered))
    }

    /// Encodes `entries` and then `hard_state`; nothing is written before [`Wal::sync`]. Entries
    /// follow or replace what is there. An empty hard state (all zero) is not recorded.
    ///
    /// # Errors
    /// Only [`WalError::Poisoned`].
    ///
    /// # Panics
    /// If an entry leaves a gap or replaces a committed one, or the hard state takes something
    /// back: raft never does.
    pub fn append(
        &mut self,
        hard_state: Option<&HardState>,
        entries: &[Entry],
    ) -> Result<(), WalError> {
        self.check()?;
        for entry in entries {
            let (index, last) = (entry.index(), self.last_index);
            assert!(
                index <= last + 1,
                "entry {index} behind {last} leaves a gap"
            );
            let commit = self.hard_state.commit();
            assert!(
                index > commit,
                "entry {index} replaces one that is committed, up to {commit}"
            );
            let place = Place {
                seq: self.tail().name.seq,
                offset: self.offset + self.encoder.len(),
                crc: self.encoder.crc(),
            };
            self.encoder.put_entry(entry);
            self.positions.note(index, place);
            self.last_index = index;
            self.needs_sync = true;
        }
        let Some(state) = hard_state.filter(|state| !is_empty(state)) else {
            return Ok(());
        };
        let (old, new) = (&self.hard_state, state);
        assert_follows(old, new, self.last_index);
        self.needs_sync |= old.term() != new.term() || old.vote() != new.vote();
        // A snapshot counts only from the commit index on that covers it.
        let covers = old.commit() < self.snapshot_index && self.snapshot_index <= new.commit();
        self.needs_sync |= covers;
        self.hard_state = *state;
        self.encoder.put_message(Kind::State, state);
        Ok(())
    }

    /// Writes everything that was appended, with one write, and makes it durable with one
    /// `fdatasync`. When only the commit index changed, and covers no recorded snapshot for the
    /// first time, it is written but need not be durable. Begins a new segment when the current one
    /// is full.
    ///
    /// # Errors
    /// When the disk fails; then and ever after the log must not be used.
    pub fn sync(&mut self) -> Result<SyncStats, WalError> {
        self.check()?;
        // Until everything went well, nothing may follow.
        self.poisoned = true;
        let stats = self.flush()?;
        assert_eq!(self.encoder.len(), 0, "bytes that wait after a sync");
        self.poisoned = false;
        Ok(stats)
    }

    /// Records a snapshot and makes it durable, together with everything that was appended before.
    ///
    /// # Errors
    /// When the record is incomplete, or as [`Wal::sync`].
    pub fn save_snapshot(&mut self, snapshot: &walpb::Snapshot) -> Result<SyncStats, WalError> {
        self.check()?;
        let index = snapshot.index();
        let complete = snapshot.index.is_some() && snapshot.term.is_some();
        if !complete || (index > 0 && snapshot.conf_state.is_none()) {
            return Err(WalError::IncompleteSnapshot { index });
        }
        assert!(index > 0, "a log begins with the snapshot at 0");
        self.encoder.put_message(Kind::Snapshot, snapshot);
        self.last_index = self.last_index.max(index);
        self.snapshot_index = self.snapshot_index.max(index);
        self.needs_sync = true;
        self.sync()
    }

    /// What has to be made so that the next segment is there when it is needed; nothing if it is
    /// there. The owner has it made wherever there is time to wait for the disk, and gives the
    /// result to [`Wal::put_prepared`]; until then it does not ask again. Whatever is not there in
    /// time, the log makes itself.
    pub fn prepare(&mut self) -> Option<Preparation> {
        match self.prepared {
            Some(_) => None,
            None => {
                let name = PREPARED_NAMES[self.prepared_count % PREPARED_NAMES.len()];
                self.prepared_count += 1;
                let (path, bytes) = (self.dir.join(name), self.options.segment_bytes);
                Some(Preparation::new(&self.disk, path, bytes))
            }
        }
    }

    /// Takes the file that becomes the next segment.
    pub fn put_prepared(&mut self, prepared: Prepared) {
        let path = &prepared.path;
        assert!(
            self.prepared.is_none(),
            "{} was prepared, and there is one already",
            path.display()
        );
        assert_eq!(path.parent(), Some(&*self.dir), "of another log");
        self.prepared = Some(prepared);
    }

    /// Whether a segment that the log makes itself, as none was prepared, gets its space at once.
    /// It does at first.
    pub fn reserve_segments(&mut self, reserve: bool) {
        self.reserve_segments = reserve;
    }

    /// Gives back space that is reserved for later: the next segment, and what is left in the
    /// current one but for `keep_bytes`. The log gets it again, or goes on without, as it grows.
    ///
    /// # Errors
    /// When the disk fails; the log stays usable.
    pub fn release_reserved(&mut self, keep_bytes: u64) -> Result<(), WalError> {
        self.check()?;
        if let Some(Prepared { path, .. }) = self.prepared.take() {
            self.disk.remove_file(&path).at(&path)?;
        }
        let tail = self.tail();
        let kept = self.offset + keep_bytes;
        if tail.file.len().at(&tail.path)? > kept {
            tail.file.set_len(kept).at(&tail.path)?;
        }
        Ok(())
    }

    /// Unlocks the segments that are not needed to read what follows the snapshot at `index`, so
    /// that [`purge`](super::purge) may remove them.
    pub fn release_to(&mut self, index: u64) {
        let behind = self
            .segments
            .iter()
            .position(|segment| segment.name.index >= index);
        let released = behind.unwrap_or(self.segments.len()).saturating_sub(1);
        self.segments.drain(..released);
        let first = self.segments.first().expect("a log has a tail").name;
        assert!(
            released == 0 || first.index <= index,
            "segments up to {first} were released for the snapshot at {index}"
        );
        self.positions.forget_before(first.seq);
    }

    /// The index of the first entry that may be in the segment before those that are needed to read
    /// what follows `index`.
    pub fn segment_before(&self, index: u64) -> u64 {
        let needed = self.segments.iter().rposition(|s| s.name.index <= index);
        let before = needed.unwrap_or(0).saturating_sub(1);
        self.segments[before].name.index
    }

    /// Where the wanted entries are, which were written; nothing if their segments were released.
    pub fn locate(&self, wanted: Wanted) -> Option<Located> {
        self.positions.locate(wanted, &self.segments)
    }

    /// Makes everything durable that was appended and gives the log up.
    ///
    /// # Errors
    /// As [`Wal::sync`].
    pub fn close(mut self) -> Result<(), WalError> {
        self.needs_sync = true;
        self.sync()?;
        self.remove_leftovers()
    }

    /// The last hard state that was appended or recovered.
    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// The index of the last entry that was appended or recovered, or of a snapshot ahead of it.
    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    /// Bytes that were appended and wait for [`Wal::sync`].
    pub fn pending_bytes(&self) -> u64 {
        self.encoder.len()
    }

    /// Whether something was appended that [`Wal::sync`] must make durable, and not only write.
    pub fn needs_sync(&self) -> bool {
        self.needs_sync
    }

    fn check(&self) -> Result<(), WalError> {
        match self.poisoned {
            true => Err(WalError::Poisoned),
            false => Ok(()),
        }
    }

    fn tail(&self) -> &Segment {
        self.segments.last().expect("a log has a tail")
    }

    fn flush(&mut self) -> Result<SyncStats, WalError> {
        let mut stats = SyncStats {
            bytes: self.write()?,
            ..SyncStats::default()
        };
        if self.offset >= self.options.segment_bytes {
            stats.bytes += self.cut()?;
            stats.cut = true;
            stats.synced = true;
        } else if self.needs_sync {
            stats.synced = self.sync_tail()?;
        }
        self.needs_sync = false;
        Ok(stats)
    }

    /// Writes what waits to the tail.
    fn write(&mut self) -> Result<u64, WalError> {
        let waiting = self.encoder.len();
        if waiting == 0 {
            return Ok(0);
        }
        let tail = self.segments.last().expect("a log has a tail");
        let written = self.encoder.write_to(tail.file.as_ref(), self.offset);
        let bytes = written
            .inspect_err(|_| {
                // Half of a record would be taken for damage, and is nothing that was acknowledged.
                let _ = tail.file.set_len(self.offset);
            })
            .at(&tail.path)?;
        assert_eq!(bytes, waiting, "everything that waits is written");
        self.offset += bytes;
        Ok(bytes)
    }

    fn sync_tail(&self) -> Result<bool, WalError> {
        if self.options.unsafe_no_fsync {
            return Ok(false);
        }
        let tail = self.tail();
        tail.file.sync_data().at(&tail.path)?;
        Ok(true)
    }

    /// Ends the tail at its exact length and begins the next segment, which gets its name only when
    /// its head is durable. Returns the bytes of the head.
    fn cut(&mut self) -> Result<u64, WalError> {
        let tail = self.tail();
        tail.file.set_len(self.offset).at(&tail.path)?;
        self.sync_tail()?;

        let Prepared {
            path: prepared,
            file,
        } = match self.prepared.take() {
            Some(prepared) => prepared,
            None => {
                // One that is being prepared has another name.
                let path = self.dir.join(OWN_NAME);
                let bytes = match self.reserve_segments {
                    true => self.options.segment_bytes,
                    false => 0,
                };
                Preparation::new(&self.disk, path, bytes).make_or_unreserved()?
            }
        };
        self.put_head();
        let bytes = self.encoder.write_to(file.as_ref(), 0).at(&prepared)?;
        file.sync_data().at(&prepared)?;
        let name = Name {
            seq: self.tail().name.seq + 1,
            index: self.last_index + 1,
        };
        let path = self.dir.join(name.to_string());
        assert_eq!(Name::parse(&path), Some(name), "a segment is found again");
        self.disk.rename(&prepared, &path).at(&path)?;
        self.disk.sync_dir(&self.dir).at(&self.dir)?;
        self.segments.push(Segment { name, path, file });
        self.offset = bytes;
        Ok(bytes)
    }

    /// Encodes what a segment behind the first begins with.
    fn put_head(&mut self) {
        assert_eq!(self.encoder.len(), 0, "a head is the first of a segment");
        self.encoder.put_crc();
        self.encoder.put_bytes(Kind::Metadata, &self.metadata);
        if !is_empty(&self.hard_state) {
            self.encoder.put_message(Kind::State, &self.hard_state);
        }
    }

    /// Zeros everything behind the last record, so that remains of an interrupted write can never
    /// follow a new record. The space stays reserved, as long as there is room for it, but not in a
    /// segment that was torn: etcd lets that grow.
    fn clear_tail(&mut self, torn: bool) -> Result<(), WalError> {
        let tail = self.tail();
        let reserved = tail.file.len().at(&tail.path)?;
        tail.file.set_len(self.offset).at(&tail.path)?;
        if !torn {
            reserve_if_possible(&*tail.file, reserved).at(&tail.path)?;
        }
        tail.file.sync_data().at(&tail.path)?;
        // A segment that lost even its head gets a new one, so that it can be read from its start.
        if self.offset == 0 {
            self.put_head();
            self.needs_sync = true;
            self.flush()?;
        }
        Ok(())
    }

    /// Removes files that were prepared and not used.
    fn remove_leftovers(&mut self) -> Result<(), WalError> {
        self.prepared = None;
        for name in PREPARED_NAMES.into_iter().chain([OWN_NAME]) {
            let path = self.dir.join(name);
            if self.disk.exists(&path).at(&path)? {
                self.disk.remove_file(&path).at(&path)?;
            }
        }
        Ok(())
    }
}

/// Removes `dir` if it is there and holds nothing but leftovers of a log.
fn remove_empty(disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
    if !disk.exists(dir).at(dir)? {
        return Ok(());
    }
    if segment::exists(disk, dir)? {
        return Err(WalError::Exists {
            dir: dir.to_owned(),
        });
    }
    let leftover = |path: &&PathBuf| {
        !path
            .extension()
            .is_some_and(|extension| extension == "tmp" || extension == "broken")
    };
    if let Some(found) = disk.read_dir(dir).at(dir)?.iter().find(leftover) {
        return Err(WalError::Occupied {
            dir: dir.to_owned(),
            found: found.clone(),
        });
    }
    disk.remove_dir_all(dir).at(dir)
}

/// Term and commit index never go back, a vote is given once in a term, and what is committed is in
/// the log. Where that does not hold, two leaders of one term or the loss of acknowledged entries
/// are possible.
fn assert_follows(old: &HardState, new: &HardState, last_index: u64) {
    let (before, after) = (old.term(), new.term());
    assert!(before <= after, "the term went back, {before} to {after}");
    let (voted, votes) = (old.vote(), new.vote());
    assert!(
        before < after || voted == 0 || voted == votes,
        "two votes in term {after}: for {voted:x} and for {votes:x}"
    );
    let (committed, commit) = (old.commit(), new.commit());
    assert!(
        committed <= commit && commit <= last_index,
        "committed {commit} after {committed}, with a log up to {last_index}"
    );
}

fn is_empty(state: &HardState) -> bool {
    state.term() == 0 && state.vote() == 0 && state.commit() == 0
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
