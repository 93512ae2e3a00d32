//! A survey tells what is there, whatever is wrong with it, and changes nothing.

use std::io::IoSlice;

use retcd_storage::disk::{Disk, MemDisk};
use retcd_storage::wal::{Damage, Survey, WalError, survey};

use crate::{
    content, create, data_end, dir, entry, metadata, names, open_file, segments_of, snapshot, state,
};

/// A log of four segments or more, with entries 1 to 40 of term 2 and a snapshot at 20.
fn sample() -> MemDisk {
    let disk = MemDisk::new();
    let mut wal = create(&disk, segments_of(4096));
    for index in 1..=40 {
        let entries = [entry(2, index, vec![b'x'; 400])];
        wal.append(Some(&state(2, 7, index - 1)), &entries).unwrap();
        wal.sync().unwrap();
        if index == 30 {
            wal.save_snapshot(&snapshot(20, 2)).unwrap();
        }
    }
    wal.close().unwrap();
    assert!(names(&disk).len() >= 4, "{:?}", names(&disk));
    disk
}

fn look(disk: &MemDisk) -> Survey {
    let changes = disk.counts().changes;
    let found = survey(disk, dir()).unwrap();
    assert_eq!(disk.counts().changes, changes);
    found
}

fn texts(found: &Survey) -> Vec<String> {
    found.damages.iter().map(WalError::to_string).collect()
}

#[test]
fn a_sound_log_is_described() {
    let disk = sample();
    let found = look(&disk);
    assert_eq!(texts(&found), [""; 0]);
    assert_eq!(found.torn, None);
    assert_eq!(found.metadata, Some(metadata()));
    assert_eq!(found.hard_state, state(2, 7, 39));
    assert_eq!(found.last_entry, Some((40, 2)));
    let snapshots: Vec<u64> = found.snapshots.iter().map(|found| found.index()).collect();
    assert_eq!(snapshots, [0, 20]);
    let segments: Vec<String> = found
        .segments
        .iter()
        .map(|segment| format!("{:016x}-{:016x}.wal", segment.seq, segment.first_index))
        .collect();
    assert_eq!(segments, names(&disk));
    assert_eq!(found.segments[0].seq, 0);
    assert!(found.segments.iter().all(|segment| segment.bytes > 0));
}

#[test]
fn damage_does_not_hide_what_lies_behind() {
    let disk = sample();
    let (first, third) = (names(&disk)[0].clone(), names(&disk)[2].clone());
    for name in [&first, &third] {
        disk.flip_bit(&dir().join(name), 600, 3).unwrap();
    }
    let found = look(&disk);
    let damaged: Vec<_> = found
        .damages
        .iter()
        .map(|damage| match damage {
            WalError::Damaged { path, damage, .. } => {
                assert!(matches!(damage, Damage::Checksum { .. }), "{damage}");
                path.clone()
            }
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(damaged, [dir().join(&first), dir().join(&third)]);
    assert_eq!(found.last_entry, Some((40, 2)));
    assert_eq!(found.hard_state, state(2, 7, 39));
}

#[test]
fn a_missing_segment_is_named() {
    let disk = sample();
    disk.remove_file(&dir().join(&names(&disk)[1])).unwrap();
    let found = look(&disk);
    let expected = "wal: file sequence numbers do not increase continuously: 2 follows 0";
    assert_eq!(texts(&found), [expected]);
    assert_eq!(found.last_entry, Some((40, 2)));
}

#[test]
fn a_torn_end_is_no_damage() {
    let disk = sample();
    let last = names(&disk).pop().unwrap();
    let end = data_end(&content(&disk, &last)) as u64;
    let file = open_file(&disk, &last);
    file.write_all_at(&[IoSlice::new(&[0x80, 1, 0, 0, 0, 0, 0, 0x00])], end)
        .unwrap();
    let found = look(&disk);
    assert_eq!(texts(&found), [""; 0]);
    let torn = found.torn.expect("a frame that is all zero");
    assert_eq!((torn.segment, torn.copy), (dir().join(last), None));
    assert_eq!(torn.offset, end);
}

#[test]
fn nothing_is_no_damage() {
    let disk = MemDisk::new();
    disk.create_dir_all(dir()).unwrap();
    let found = look(&disk);
    assert!(found.segments.is_empty() && found.damages.is_empty());
}
