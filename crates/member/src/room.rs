//! Room on the disk: how much there is, and who is refused while there still is some.
//!
//! A promise needs room in the log, and what brings room back (deletions, compactions, a
//! defragmentation, a restart) needs some in log and database. So some of the volume is kept for
//! that:
//!
//! ```text
//! free bytes   everybody is served
//! ─ 2 reserves ─▶ the log gives back what it has reserved ahead, and reserves no more
//! ─ 1 reserve ──▶ puts and leases are refused, alarm NOSPACE
//! ─ 0 ──────────▶ the database waits in memory; the log uses up the little that it has kept reserved, then the member ends
//! ```
//!
//! The alarm stops the writes of the whole cluster, as that of the quota does. A member raises it
//! only if its end would not help anybody: if its own files take most of the volume, so that those
//! of the others, which hold the same, will be as full soon; or if the others have no quorum
//! without it. Else somebody else has filled the disk of one member, and the cluster can do without
//! it.
//!
//! Bytes that have been promised to requests under way, or are not in the database yet, count as
//! used: twice, as they go into the log, too. What reaches a follower through its leader does not
//! ask; the reserve is for that as well.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use retcd_storage::disk::{Disk, OpenMode, Volume};

/// The part of a volume that is kept.
const RESERVE_PART: u64 = 8;
/// The most that is kept of a volume, in bytes.
const RESERVE_BYTES_MAX: u64 = 16 << 20;

/// The room on the volumes of a member. Shared by all threads.
pub struct Room {
    disk: Arc<dyn Disk>,
    dirs: [PathBuf; 2],
    /// Free bytes beyond the reserve, on the volume that has fewer of them.
    spare_bytes: AtomicI64,
    /// The reserve of that volume.
    reserve_bytes: AtomicU64,
    /// Bytes of requests under way.
    promised_bytes: AtomicU64,
    /// Whether the member's own files take most of the volume; known when there is little room.
    is_own: AtomicBool,
    /// Whether writes are refused when there is little room.
    is_vital: AtomicBool,
}

/// Room for a request, until dropped.
pub struct Promised<'r> {
    room: &'r Room,
    bytes: u64,
}

impl Drop for Promised<'_> {
    fn drop(&mut self) {
        let before = self.room.promised_bytes.fetch_sub(self.bytes, Relaxed);
        assert!(
            before >= self.bytes,
            "{} of {before} bytes given back",
            self.bytes
        );
    }
}

impl Room {
    /// The room in the directories of the database and of the log.
    pub fn new(disk: Arc<dyn Disk>, dirs: [PathBuf; 2]) -> Room {
        let room = Room {
            disk,
            dirs,
            spare_bytes: AtomicI64::new(i64::MAX),
            reserve_bytes: AtomicU64::new(0),
            promised_bytes: AtomicU64::new(0),
            is_own: AtomicBool::new(false),
            is_vital: AtomicBool::new(false),
        };
        room.look();
        room
    }

    /// Looks how much room there is: some microseconds, but for a disk that hangs.
    pub fn look(&self) {
        // A file system that does not say is taken for one with room.
        let volumes = self
            .dirs
            .iter()
            .filter_map(|dir| self.disk.volume(dir).ok());
        let known = volumes.filter(|volume| volume.bytes > 0);
        let Some((spare, reserve, volume)) = known
            .map(|volume| {
                let reserve = (volume.bytes / RESERVE_PART).min(RESERVE_BYTES_MAX);
                (signed(volume.free_bytes) - signed(reserve), reserve, volume)
            })
            .min_by_key(|(spare, _, _)| *spare)
        else {
            return;
        };
        self.spare_bytes.store(spare, Relaxed);
        self.reserve_bytes.store(reserve, Relaxed);
        if self.is_close() {
            self.is_own.store(self.owns_most(volume), Relaxed);
        }
    }

    /// Whether the member's files take more than half of `volume`.
    fn owns_most(&self, volume: Volume) -> bool {
        let len = |path: &PathBuf| {
            let file = self.disk.open(path, OpenMode::Read).ok()?;
            file.len().ok()
        };
        let paths = self
            .dirs
            .iter()
            .filter_map(|dir| self.disk.read_dir(dir).ok());
        let own: u64 = paths.flatten().filter_map(|path| len(&path)).sum();
        own > volume.bytes / 2
    }

    /// Free bytes beyond the reserve; negative if the reserve is used.
    pub fn spare_bytes(&self) -> i64 {
        self.spare_bytes.load(Relaxed)
    }

    /// Bytes that are kept.
    pub fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes.load(Relaxed)
    }

    /// Whether the reserve is used.
    pub fn is_short(&self) -> bool {
        self.spare_bytes() < 0
    }

    /// Whether it will be soon, so that nobody may reserve for later.
    pub fn is_close(&self) -> bool {
        self.may_not_reserve(0)
    }

    /// Whether so many bytes cannot be reserved for later.
    pub fn may_not_reserve(&self, bytes: u64) -> bool {
        self.spare_bytes() < signed(self.reserve_bytes().saturating_add(bytes))
    }

    /// Whether the member's own files take most of the volume. True only while [`Room::is_close`].
    pub fn is_own(&self) -> bool {
        self.is_own.load(Relaxed)
    }

    /// Says whether writes are to be refused when there is little room.
    pub fn set_vital(&self, is_vital: bool) {
        self.is_vital.store(is_vital, Relaxed);
    }

    /// Promises room to a request of so many bytes, whether or not there is any: see
    /// [`Room::refuses`].
    pub fn promise(&self, bytes: u64) -> Promised<'_> {
        self.promised_bytes.fetch_add(bytes, Relaxed);
        Promised { room: self, bytes }
    }

    /// Whether what has been promised is too much, where `pending_bytes` wait for the database.
    pub fn refuses(&self, pending_bytes: u64) -> bool {
        let promised = self.promised_bytes.load(Relaxed).saturating_mul(2);
        let taken = promised.saturating_add(pending_bytes);
        self.spare_bytes() < signed(taken) && self.is_vital.load(Relaxed)
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    //! What is guarded: requests are refused while there is room left, and the log stops to reserve
    //! before that.

    use std::path::Path;

    use retcd_storage::disk::MemDisk;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn room_of(disk: &MemDisk) -> Room {
        Room::new(Arc::new(disk.clone()), ["/snap".into(), "/wal".into()])
    }

    fn disk_of(bytes: u64) -> MemDisk {
        let disk = MemDisk::new();
        disk.set_capacity(Some(bytes));
        disk.create_dir_all(Path::new("/snap")).unwrap();
        disk.create_dir_all(Path::new("/wal")).unwrap();
        disk
    }

    fn fill(disk: &MemDisk, path: &str, bytes: u64) {
        let mode = OpenMode::Create { mode: 0o600 };
        let file = disk.open(Path::new(path), mode).unwrap();
        file.allocate(bytes).unwrap();
    }

    #[test]
    fn an_eighth_of_a_small_volume_and_sixteen_mebibytes_of_a_large_one_are_kept() {
        let room = room_of(&disk_of(80 * MIB));
        assert_eq!(
            (room.spare_bytes(), room.reserve_bytes()),
            (70 << 20, 10 * MIB)
        );
        let room = room_of(&disk_of(1 << 40));
        assert_eq!(room.reserve_bytes(), 16 * MIB);
        let unbounded = room_of(&MemDisk::new());
        assert!(!unbounded.is_close() && !unbounded.may_not_reserve(1 << 40));
    }

    #[test]
    fn the_log_stops_to_reserve_before_anybody_is_refused() {
        let disk = disk_of(80 * MIB);
        let room = room_of(&disk);
        room.set_vital(true);
        assert!(!room.may_not_reserve(60 * MIB) && room.may_not_reserve(61 * MIB));
        fill(&disk, "/other", 61 * MIB);
        room.look();
        assert!(room.is_close() && !room.is_short() && !room.refuses(0));
        fill(&disk, "/other", 71 * MIB);
        room.look();
        assert!(room.is_short() && room.refuses(0));
        room.set_vital(false);
        assert!(!room.refuses(0), "the cluster can do without it");
    }

    #[test]
    fn what_is_under_way_counts_twice_and_what_waits_for_the_database_once() {
        let room = room_of(&disk_of(80 * MIB));
        room.set_vital(true);
        let first = room.promise(20 * MIB);
        assert!(!room.refuses(30 * MIB) && room.refuses(31 * MIB));
        let second = room.promise(16 * MIB);
        assert!(room.refuses(0));
        drop(first);
        assert!(!room.refuses(0));
        drop(second);
        assert!(!room.refuses(70 * MIB));
    }

    #[test]
    fn whose_files_fill_the_volume_is_known() {
        for (path, is_own) in [
            ("/other", false),
            ("/wal/segment", true),
            ("/snap/db", true),
        ] {
            let disk = disk_of(80 * MIB);
            fill(&disk, path, 75 * MIB);
            assert_eq!(room_of(&disk).is_own(), is_own, "{path}");
        }
    }
}
