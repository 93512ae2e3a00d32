//! What is written and synced when; segments, locks and leftovers.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
use prost::Message;
use retcd_proto::raftpb::Entry;
use retcd_proto::walpb;
use retcd_storage::disk::{Disk, Fault, MemDisk, OpenMode, OsDisk};
use retcd_storage::wal::{self, Options, SyncStats, Wal, WalError};

use crate::{
    content, create, data_end, dir, entry, frame, metadata, names, prepare, records, segments_of,
    snapshot, state,
};

const FIRST: &str = "0000000000000000-0000000000000000.wal";

fn open(disk: &MemDisk, start: &walpb::Snapshot) -> Result<(Wal, wal::Recovered), WalError> {
    Wal::open(Arc::new(disk.clone()), dir(), start, Options::default())
}

#[test]
fn a_new_log_begins_as_etcd_begins_it() {
    let disk = MemDisk::new();
    create(&disk, Options::default()).close().unwrap();
    let bytes = content(&disk, FIRST);
    assert_eq!(bytes.len(), 64_000_000);
    // The head of a segment that etcd 3.5.30 wrote for the same ids.
    let head = "0400000000000084 0804100000000000 \
        1e00000000000082 080110e485aed606 1a1408f1b9dbaf96 d08f9b5010d890ca ac9182e2e23e0000 \
        0e00000000000082 080510c8c7b2bd0b 1a04080010000000";
    let hex: String = bytes[..80]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hex, head.replace(' ', ""));
    assert!(bytes[80..].iter().all(|byte| *byte == 0));
}

#[test]
fn records_are_encoded_as_prost_encodes_them() {
    let mut rng = Rng::with_seed(11);
    let disk = MemDisk::new();
    let mut wal = create(&disk, Options::default());
    let mut crc = records(&content(&disk, FIRST)).last().unwrap().1.crc();
    let mut expected = content(&disk, FIRST)[..80].to_vec();
    let mut put = |kind: i64, data: Vec<u8>, expected: &mut Vec<u8>| {
        let (bytes, next) = frame(crc, kind, data);
        crc = next;
        expected.extend(bytes);
    };
    let mut term = 0;
    for index in 1..400 {
        let len = match index % 40 {
            0 => 8192,
            1 => rng.usize(8000..40_000),
            _ => rng.usize(..300),
        };
        let bytes: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
        let big = rng.u64(..) >> rng.u32(..64);
        let entry = Entry {
            term: rng.bool().then_some(big),
            index: Some(index),
            r#type: rng.bool().then(|| rng.i32(0..3)),
            data: (index % 7 != 0).then(|| bytes.into()),
        };
        wal.append(None, std::slice::from_ref(&entry)).unwrap();
        put(2, entry.encode_to_vec(), &mut expected);
        if rng.u8(..5) == 0 {
            // Terms go up, so that any vote is one in a new term.
            term = term.max(big).saturating_add(1);
            let state = state(term, rng.u64(..), index - 1);
            wal.append(Some(&state), &[]).unwrap();
            put(3, state.encode_to_vec(), &mut expected);
        }
        if rng.u8(..10) == 0 {
            wal.sync().unwrap();
        }
    }
    wal.save_snapshot(&snapshot(5, 6)).unwrap();
    put(5, snapshot(5, 6).encode_to_vec(), &mut expected);
    assert!(content(&disk, FIRST)[..expected.len()] == expected);
}

#[test]
fn one_write_and_one_sync_cover_all_that_was_appended() {
    let disk = MemDisk::new();
    let mut wal = create(&disk, Options::default());
    let mut index = 0;
    // How many writes and syncs each batch of appends takes.
    let mut check = |wal: &mut Wal, state: Option<_>, entries: u64, writes: u64, syncs: u64| {
        let before = disk.counts();
        let first = index + 1;
        index += entries;
        for index in first..=index {
            wal.append(None, &[entry(1, index, vec![1; 9000])]).unwrap();
        }
        wal.append(state.as_ref(), &[]).unwrap();
        assert_eq!(wal.needs_sync(), syncs > 0);
        assert_eq!(disk.counts(), before, "nothing is written before the sync");
        let bytes = wal.pending_bytes();
        let stats = wal.sync().unwrap();
        assert_eq!(
            stats,
            SyncStats {
                bytes,
                synced: syncs > 0,
                cut: false
            }
        );
        let after = disk.counts();
        assert_eq!(
            (after.writes - before.writes, after.syncs - before.syncs),
            (writes, syncs)
        );
        assert_eq!(after.bytes_written - before.bytes_written, bytes);
    };
    check(&mut wal, Some(state(1, 0, 0)), 30, 1, 1);
    check(&mut wal, Some(state(1, 0, 30)), 0, 1, 0); // the commit index alone
    check(&mut wal, None, 0, 0, 0);
    check(&mut wal, Some(state(0, 0, 0)), 0, 0, 0); // an empty state is none
    check(&mut wal, Some(state(1, 8, 30)), 0, 1, 1); // a vote
    check(&mut wal, Some(state(2, 8, 30)), 0, 1, 1); // a term
    check(&mut wal, None, 1, 1, 1);
    wal.close().unwrap();
}

#[test]
fn without_fsync_nothing_is_synced_but_heads() {
    let disk = MemDisk::new();
    let options = Options {
        unsafe_no_fsync: true,
        ..Options::default()
    };
    let mut wal = create(&disk, options);
    let before = disk.counts().syncs;
    wal.append(Some(&state(1, 7, 1)), &[entry(1, 1, "a")])
        .unwrap();
    assert!(!wal.sync().unwrap().synced);
    assert_eq!(disk.counts().syncs, before);
    wal.close().unwrap();
    assert_eq!(open(&disk, &wal::origin()).unwrap().1.entries.len(), 1);
}

#[test]
fn a_failed_write_or_sync_is_final() {
    for fault in [Fault::Write(1), Fault::Sync(1)] {
        let disk = MemDisk::new();
        let mut wal = create(&disk, Options::default());
        wal.append(None, &[entry(1, 1, "a")]).unwrap();
        disk.inject(fault);
        assert!(matches!(wal.sync(), Err(WalError::Io { .. })), "{fault:?}");
        assert!(matches!(wal.sync(), Err(WalError::Poisoned)));
        assert!(matches!(
            wal.append(None, &[entry(1, 2, "b")]),
            Err(WalError::Poisoned)
        ));
        assert!(matches!(
            wal.save_snapshot(&snapshot(1, 1)),
            Err(WalError::Poisoned)
        ));
        assert!(matches!(wal.close(), Err(WalError::Poisoned)));
    }
}

/// Wherever in a sector it breaks off: else the member, which has to stop, would not start again.
#[test]
fn a_log_is_read_again_behind_a_write_that_failed_halfway() {
    for bytes in [0, 1, 50, 400, 600, 5000] {
        let disk = MemDisk::new();
        let mut wal = create(&disk, Options::default());
        wal.append(None, &[entry(1, 1, "a")]).unwrap();
        wal.sync().unwrap();
        disk.inject(Fault::Write(1));
        let lost = vec![b'l'; bytes];
        wal.append(None, &[entry(1, 2, lost)]).unwrap();
        assert!(matches!(wal.sync(), Err(WalError::Io { .. })));
        drop(wal);
        let (mut wal, recovered) = open(&disk, &wal::origin()).unwrap();
        assert_eq!(recovered.entries, [entry(1, 1, "a")], "{bytes}");
        wal.append(None, &[entry(1, 2, "b")]).unwrap();
        wal.close().unwrap();
        let recovered = open(&disk, &wal::origin()).unwrap().1;
        assert_eq!(recovered.entries, [entry(1, 1, "a"), entry(1, 2, "b")]);
    }
}

#[test]
fn a_full_segment_is_cut_at_its_exact_length() {
    let disk = MemDisk::new();
    let mut wal = create(&disk, segments_of(4096));
    prepare(&mut wal).unwrap();
    prepare(&mut wal).unwrap();
    assert_eq!(names(&disk), ["0.tmp", FIRST]);
    wal.append(Some(&state(3, 7, 0)), &[entry(3, 1, vec![1; 3900])])
        .unwrap();
    assert!(!wal.sync().unwrap().cut);
    wal.append(None, &[entry(3, 2, vec![2; 5000]), entry(3, 3, "")])
        .unwrap();
    assert!(wal.sync().unwrap().cut);
    prepare(&mut wal).unwrap();
    let second = "0000000000000001-0000000000000004.wal";
    assert_eq!(names(&disk), [FIRST, second, "1.tmp"]);

    let bytes = content(&disk, FIRST);
    assert_eq!(bytes.len(), data_end(&bytes));
    let carried = records(&bytes).last().unwrap().1.crc();
    let bytes = content(&disk, second);
    assert_eq!(bytes.len(), 4096);
    let head = records(&bytes);
    let kinds: Vec<i64> = head.iter().map(|(_, record)| record.r#type()).collect();
    assert_eq!(kinds, [4, 1, 3], "checksum, metadata, hard state");
    assert_eq!(head[0].1.crc(), carried);
    assert_eq!(head[1].1.data(), metadata().encode_to_vec());
    assert_eq!(head[2].1.data(), state(3, 7, 0).encode_to_vec());

    wal.append(None, &[entry(3, 4, "x")]).unwrap();
    wal.close().unwrap();
    assert_eq!(
        names(&disk),
        [FIRST, second],
        "a prepared segment goes with the close"
    );
    let (wal, found) = open(&disk, &wal::origin()).unwrap();
    assert_eq!((found.entries.len(), wal.last_index()), (4, 4));
    assert_eq!(found.hard_state, state(3, 7, 0));
}

#[test]
fn segments_are_purged_once_they_are_released() {
    let disk = MemDisk::new();
    let mut wal = create(&disk, segments_of(1024));
    for index in 1..=5 {
        wal.append(Some(&state(1, 7, index)), &[entry(1, index, vec![1; 1000])])
            .unwrap();
        wal.sync().unwrap();
    }
    let all = names(&disk);
    assert_eq!(all.len(), 6);
    assert!(
        wal::purge(&disk, dir(), 1).unwrap().is_empty(),
        "all are locked"
    );

    wal.save_snapshot(&snapshot(3, 1)).unwrap();
    wal.release_to(3);
    let removed = wal::purge(&disk, dir(), 5).unwrap();
    assert_eq!(removed, [dir().join(&all[0])]);
    // The segment that begins at 3 is behind the one that the snapshot still needs.
    wal::purge(&disk, dir(), 1).unwrap();
    assert_eq!(names(&disk), all[1..]);
    wal.release_to(4);
    wal.release_to(4);
    wal::purge(&disk, dir(), 1).unwrap();
    assert_eq!(names(&disk), all[2..]);
    drop(wal);

    let start = wal::last_snapshot(&disk, dir()).unwrap().unwrap();
    assert_eq!(start, snapshot(3, 1));
    let (_wal, found) = open(&disk, &start).unwrap();
    let indexes: Vec<u64> = found.entries.iter().map(Entry::index).collect();
    assert_eq!(indexes, [4, 5]);
    assert!(matches!(open(&disk, &start), Err(WalError::Locked { .. })));
}

#[test]
fn snapshots_are_listed_when_they_are_committed() {
    let disk = MemDisk::new();
    let mut wal = create(&disk, segments_of(1024));
    wal.append(
        Some(&state(1, 7, 2)),
        &[entry(1, 1, vec![1; 900]), entry(1, 2, "")],
    )
    .unwrap();
    wal.save_snapshot(&snapshot(2, 1)).unwrap();
    wal.save_snapshot(&snapshot(9, 1)).unwrap();
    assert_eq!(wal.last_index(), 9);
    drop(wal);
    assert_eq!(
        wal::snapshots(&disk, dir()).unwrap(),
        [wal::origin(), snapshot(2, 1)]
    );
    assert_eq!(
        wal::last_snapshot(&disk, dir()).unwrap(),
        Some(snapshot(2, 1))
    );

    let (mut wal, _) = open(&disk, &snapshot(2, 1)).unwrap();
    let incomplete = walpb::Snapshot {
        conf_state: None,
        ..snapshot(3, 1)
    };
    let error = wal.save_snapshot(&incomplete).unwrap_err();
    assert!(matches!(error, WalError::IncompleteSnapshot { index: 3 }));
    wal.append(Some(&state(1, 7, 9)), &[]).unwrap();
    wal.close().unwrap();
    assert_eq!(
        wal::last_snapshot(&disk, dir()).unwrap(),
        Some(snapshot(9, 1))
    );
}

#[test]
#[should_panic(expected = "entry 3 behind 1 leaves a gap")]
fn a_gap_is_a_bug_of_the_caller() {
    let mut wal = create(&MemDisk::new(), Options::default());
    wal.append(None, &[entry(1, 1, "a"), entry(1, 3, "c")])
        .unwrap();
}

#[test]
fn a_log_is_created_once_and_over_nothing_else() {
    let disk = MemDisk::new();
    let make = || {
        Wal::create(
            Arc::new(disk.clone()),
            dir(),
            &metadata(),
            segments_of(1024),
        )
    };
    let put = |path: &str| {
        let file = disk
            .open(Path::new(path), OpenMode::CreateNew { mode: 0o600 })
            .unwrap();
        file.write_all_at(&[IoSlice::new(b"x")], 0).unwrap();
    };
    disk.create_dir_all(dir()).unwrap();
    put("/wal/notes.txt");
    assert!(matches!(make(), Err(WalError::Occupied { .. })));
    assert!(disk.exists(Path::new("/wal/notes.txt")).unwrap());
    disk.remove_file(Path::new("/wal/notes.txt")).unwrap();

    // What an interrupted creation left does not matter.
    disk.create_dir_all(Path::new("/wal.tmp")).unwrap();
    put(&format!("/wal.tmp/{FIRST}"));
    put("/wal/0.tmp");
    assert!(!wal::exists(&disk, dir()).unwrap());
    drop(make().unwrap());
    assert!(wal::exists(&disk, dir()).unwrap());
    assert_eq!(disk.read_dir(Path::new("/")).unwrap(), [dir()]);
    assert!(matches!(make(), Err(WalError::Exists { .. })));
    assert!(!wal::exists(&disk, Path::new("/nowhere")).unwrap());

    // A failed creation leaves nothing.
    let full = MemDisk::new();
    full.set_capacity(Some(50));
    let failed = Wal::create(
        Arc::new(full.clone()),
        dir(),
        &metadata(),
        Options::default(),
    );
    assert!(matches!(failed, Err(WalError::Io { .. })));
    assert_eq!(full.read_dir(Path::new("/")).unwrap(), [] as [&Path; 0]);
}

#[test]
fn a_log_lives_on_a_real_disk() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("member/wal");
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let options = segments_of(64 * 1024);
    let mut wal = Wal::create(Arc::clone(&disk), &dir, &metadata(), options).unwrap();
    for index in 1..=20 {
        wal.append(
            Some(&state(1, 7, index)),
            &[entry(1, index, vec![index as u8; 9000])],
        )
        .unwrap();
        wal.sync().unwrap();
        prepare(&mut wal).unwrap();
    }
    let again = Wal::open(Arc::clone(&disk), &dir, &wal::origin(), options);
    assert!(matches!(again, Err(WalError::Locked { .. })));
    wal.save_snapshot(&snapshot(15, 1)).unwrap();
    wal.release_to(15);
    assert_eq!(wal::purge(disk.as_ref(), &dir, 1).unwrap().len(), 1);
    wal.close().unwrap();

    let start = wal::last_snapshot(disk.as_ref(), &dir).unwrap().unwrap();
    let (_, found) = Wal::open(disk, &dir, &start, options).unwrap();
    assert_eq!(found.entries.len(), 5);
    assert_eq!(found.entries[4], entry(1, 20, vec![20; 9000]));
}
