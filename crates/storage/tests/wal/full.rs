//! A disk without room: what only serves later may fail, and the log takes entries to the last
//! bytes; what was synced is there when it is opened again on the full disk.

use std::io::ErrorKind;
use std::sync::Arc;

use retcd_storage::disk::{Disk, MemDisk};
use retcd_storage::wal::{self, Recovered, Wal, WalError};

use crate::{content, create, data_end, dir, entry, names, open_file, prepare, segments_of, state};

const FIRST: &str = "0000000000000000-0000000000000000.wal";
const SEGMENT_BYTES: u64 = 4096;
const ENTRY_BYTES: usize = 700;
/// An entry and the head of a segment, with what stands around them.
const STEP_BYTES: u64 = 1000;

fn open(disk: &MemDisk) -> (Wal, Recovered) {
    let (disk, options) = (Arc::new(disk.clone()), segments_of(SEGMENT_BYTES));
    Wal::open(disk, dir(), &wal::origin(), options).unwrap()
}

fn is_full(error: &WalError) -> bool {
    matches!(error, WalError::Io { source, .. } if source.kind() == ErrorKind::StorageFull)
}

/// Appends and syncs entries until the disk is full, as an owner does; returns the last one that
/// was acknowledged.
fn fill(disk: &MemDisk, wal: &mut Wal, first: u64) -> u64 {
    for index in first.. {
        if disk.volume(dir()).unwrap().free_bytes < SEGMENT_BYTES {
            wal.release_reserved(0).unwrap();
        } else if let Err(error) = prepare(wal) {
            assert!(is_full(&error), "{error}");
        }
        wal.append(
            Some(&state(1, 7, index - 1)),
            &[entry(1, index, vec![index as u8; ENTRY_BYTES])],
        )
        .unwrap();
        if let Err(error) = wal.sync() {
            assert!(is_full(&error), "{error}");
            assert!(matches!(wal.sync(), Err(WalError::Poisoned)));
            return index - 1;
        }
    }
    unreachable!("the disk is bounded")
}

#[test]
fn every_byte_of_a_small_disk_takes_entries_and_none_is_lost() {
    for capacity in (5000..30_000).step_by(97) {
        let disk = MemDisk::new();
        disk.set_capacity(Some(capacity));
        let mut wal = create(&disk, segments_of(SEGMENT_BYTES));
        let last = fill(&disk, &mut wal, 1);
        drop(wal);
        assert!(
            disk.used_bytes() + STEP_BYTES > capacity,
            "{} of {capacity} bytes were used",
            disk.used_bytes()
        );
        disk.crash(capacity);
        let (mut wal, recovered) = open(&disk);
        let found = recovered.entries.len() as u64;
        assert!(
            found == last || found == last + 1,
            "{found} entries at {capacity}, {last} acknowledged"
        );
        // And it goes on when there is room, also beside the copy of a torn segment.
        disk.set_capacity(Some(capacity + 20_000));
        assert!(fill(&disk, &mut wal, found + 1) > found + 8);
    }
}

#[test]
fn a_log_is_created_where_a_segment_has_no_room() {
    let disk = MemDisk::new();
    disk.set_capacity(Some(3000));
    let mut wal = create(&disk, segments_of(SEGMENT_BYTES));
    assert!(is_full(&prepare(&mut wal).unwrap_err()));
    assert_eq!(names(&disk), [FIRST], "nothing is left of what failed");
    wal.append(None, &[entry(1, 1, "a")]).unwrap();
    wal.sync().unwrap();
}

#[test]
fn reserved_space_is_given_back() {
    let disk = MemDisk::new();
    let mut wal = create(&disk, segments_of(SEGMENT_BYTES));
    prepare(&mut wal).unwrap();
    wal.append(None, &[entry(1, 1, "a")]).unwrap();
    wal.sync().unwrap();
    assert_eq!(disk.used_bytes(), 2 * SEGMENT_BYTES);
    wal.release_reserved(1000).unwrap();
    let used = disk.used_bytes();
    assert!((1000..1500).contains(&used), "{used}");
    wal.release_reserved(2000).unwrap();
    assert_eq!(disk.used_bytes(), used, "it never reserves");
    // What follows is written all the same.
    wal.append(None, &[entry(1, 2, vec![1; 2000])]).unwrap();
    wal.close().unwrap();
    assert_eq!(open(&disk).1.entries.len(), 2);
}

#[test]
fn a_torn_segment_that_has_no_room_for_a_copy_is_cut_all_the_same() {
    let disk = MemDisk::new();
    let mut wal = create(&disk, segments_of(SEGMENT_BYTES));
    for index in 1..=2 {
        wal.append(None, &[entry(1, index, vec![1; 1500])]).unwrap();
        wal.sync().unwrap();
    }
    let end = data_end(&content(&disk, FIRST));
    drop(wal);
    open_file(&disk, FIRST).set_len(end as u64 - 8).unwrap();
    disk.set_capacity(Some(disk.used_bytes() + 100));
    let (_, recovered) = open(&disk);
    assert_eq!(recovered.entries.len(), 1);
    assert_eq!(recovered.torn.unwrap().copy, None);
    assert_eq!(names(&disk), [FIRST]);
}
