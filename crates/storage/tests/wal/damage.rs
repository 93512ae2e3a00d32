//! Torn tails are cut off and kept aside; everything else that is wrong is refused, and nothing
//! changed.

use std::sync::Arc;

use fastrand::Rng;
use prost::Message;
use retcd_proto::walpb;
use retcd_storage::disk::{Disk, MemDisk};
use retcd_storage::wal::{self, Damage, Options, Recovered, Wal, WalError};
use std::io::IoSlice;

use crate::{
    content, create, data_end, dir, entry, frame, names, open_file, records, segments_of, snapshot,
    state,
};

const FIRST: &str = "0000000000000000-0000000000000000.wal";

fn open(disk: &MemDisk) -> Result<(Wal, Recovered), WalError> {
    Wal::open(
        Arc::new(disk.clone()),
        dir(),
        &wal::origin(),
        segments_of(4096),
    )
}

fn damage_of<T>(result: Result<T, WalError>) -> (u64, Damage) {
    match result {
        Err(WalError::Damaged {
            path,
            offset,
            damage,
        }) => {
            assert_eq!(path, dir().join(FIRST));
            (offset, damage)
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("accepted"),
    }
}

fn overwrite(disk: &MemDisk, name: &str, bytes: &[u8], offset: u64) {
    open_file(disk, name)
        .write_all_at(&[IoSlice::new(bytes)], offset)
        .unwrap();
}

/// A log of one segment whose last record is an entry of some sectors, and where that record
/// begins.
fn sample() -> (MemDisk, usize) {
    sample_with(700)
}

/// The same with a second entry of so many bytes, which moves the last record.
fn sample_with(len: usize) -> (MemDisk, usize) {
    let mut rng = Rng::with_seed(3);
    let mut payload = |len: usize| (0..len).map(|_| rng.u8(1..)).collect::<Vec<u8>>();
    let disk = MemDisk::new();
    let mut wal = create(&disk, segments_of(8192));
    wal.append(
        Some(&state(1, 7, 1)),
        &[entry(1, 1, payload(20)), entry(1, 2, payload(len))],
    )
    .unwrap();
    wal.sync().unwrap();
    wal.append(Some(&state(2, 7, 2)), &[entry(2, 3, payload(3))])
        .unwrap();
    wal.append(None, &[entry(2, 4, payload(1500))]).unwrap();
    wal.close().unwrap();
    let last = records(&content(&disk, FIRST)).last().unwrap().0;
    (disk, last)
}

/// Opens a log whose last record is torn, checks what is left, and that the log continues.
fn check_torn(disk: &MemDisk, last: usize) {
    let before = content(disk, FIRST);
    let read = wal::read(disk, dir(), &wal::origin()).unwrap();
    assert_eq!(read.torn.as_ref().unwrap().copy, None);
    assert_eq!(content(disk, FIRST), before, "reading changes nothing");

    let (mut wal, found) = open(disk).unwrap();
    assert_eq!((found.entries.len(), found.hard_state.commit()), (3, 2));
    assert_eq!(found.entries, read.entries);
    let torn = found.torn.unwrap();
    assert_eq!(
        (torn.offset, &torn.segment),
        (last as u64, &dir().join(FIRST))
    );
    assert_eq!(torn.copy, Some(dir().join(format!("{FIRST}.broken"))));
    assert_eq!(content(disk, &format!("{FIRST}.broken")), before);
    assert_eq!(content(disk, FIRST), before[..last]);

    wal.append(None, &[entry(2, 4, "again")]).unwrap();
    wal.close().unwrap();
    let (_, found) = open(disk).unwrap();
    assert_eq!(found.entries[3], entry(2, 4, "again"));
    assert_eq!(found.torn, None);
}

#[test]
fn a_last_record_that_is_cut_anywhere_is_torn() {
    let (original, last) = sample();
    let end = data_end(&content(&original, FIRST));
    for len in (last + 1..end)
        .step_by(13)
        .chain(last + 1..last + 20)
        .chain(end - 9..end)
    {
        let disk = original.fork();
        open_file(&disk, FIRST).set_len(len as u64).unwrap();
        check_torn(&disk, last);
    }
}

#[test]
fn a_last_record_that_lost_a_sector_is_torn() {
    // Wherever the record lies among the sectors: their borders cut its header at every place.
    for len in (700..700 + 512).step_by(8) {
        let (original, last) = sample_with(len);
        let end = data_end(&content(&original, FIRST));
        let first = (last + 8).next_multiple_of(512);
        let sectors: Vec<usize> = (first..end).step_by(512).collect();
        assert!(sectors.len() >= 2);
        for &sector in &sectors {
            let one = original.fork();
            overwrite(&one, FIRST, &vec![0; 512.min(end - sector)], sector as u64);
            check_torn(&one, last);

            let rest = original.fork();
            overwrite(&rest, FIRST, &vec![0; end - sector], sector as u64);
            check_torn(&rest, last);
        }
    }
}

#[test]
fn a_lost_sector_with_a_length_ends_the_log_and_what_follows_is_cleared() {
    let disk = MemDisk::new();
    let mut wal = create(&disk, segments_of(8192));
    // With head and padding, this fills the first two sectors.
    wal.append(None, &[entry(1, 1, vec![1; 918])]).unwrap();
    wal.append(None, &[entry(1, 2, vec![2; 2000])]).unwrap();
    wal.close().unwrap();
    let second = records(&content(&disk, FIRST)).last().unwrap().0;
    assert_eq!(second % 512, 0, "the second entry begins a sector");

    overwrite(&disk, FIRST, &[0; 512], second as u64);
    let (mut wal, found) = open(&disk).unwrap();
    assert_eq!((found.entries.len(), found.torn), (1, None));
    assert!(
        content(&disk, FIRST)[second..]
            .iter()
            .all(|byte| *byte == 0)
    );
    assert_eq!(
        content(&disk, FIRST).len(),
        8192,
        "the space stays reserved"
    );
    wal.append(None, &[entry(1, 2, "x")]).unwrap();
    wal.close().unwrap();
    assert_eq!(open(&disk).unwrap().1.entries.len(), 2);
}

#[test]
fn every_changed_bit_is_refused_or_without_meaning() {
    let (original, _) = sample();
    let (_, intact) = open(&original.fork()).unwrap();
    let bytes = content(&original, FIRST);
    let found = records(&bytes);
    let mut unnoticed = 0;
    for (at, byte) in bytes.iter().enumerate().take(data_end(&bytes)) {
        let record = found
            .iter()
            .rev()
            .find(|(start, _)| *start <= at)
            .unwrap()
            .0 as u64;
        for bit in 0..8 {
            let disk = original.fork();
            overwrite(&disk, FIRST, &[byte ^ 1 << bit], at as u64);
            match open(&disk) {
                // The record itself, or the next one, which must continue it.
                Err(WalError::Damaged { offset, .. }) => assert!(offset >= record, "{at}.{bit}"),
                Err(WalError::SnapshotNotFound { .. } | WalError::NoMetadata { .. }) => {}
                Err(error) => panic!("{at}.{bit}: {error}"),
                Ok((_, found)) => {
                    assert!(found == intact, "{at}.{bit}");
                    unnoticed += 1;
                }
            }
            assert_eq!(names(&disk), [FIRST]);
        }
    }
    // Only padding has no meaning.
    let padding: usize = found.len() * 7 * 8;
    assert!(unnoticed <= padding, "{unnoticed}");
}

#[test]
fn a_changed_payload_is_refused_with_its_offset() {
    let (disk, last) = sample();
    let at = last + 300;
    let byte = content(&disk, FIRST)[at];
    overwrite(&disk, FIRST, &[byte ^ 0x10], at as u64);
    let before = content(&disk, FIRST);
    let (offset, damage) = damage_of(open(&disk));
    assert_eq!(offset, last as u64);
    assert!(matches!(damage, Damage::Checksum { .. }));
    assert_eq!(
        content(&disk, FIRST),
        before,
        "a refused log is not touched"
    );
    let text = open(&disk).err().unwrap().to_string();
    assert!(
        text.starts_with("walpb: crc mismatch: expected: "),
        "{text}"
    );
    assert!(
        text.ends_with(&format!("in file '{FIRST}' at position: {last}")),
        "{text}"
    );
}

#[test]
fn a_length_that_is_wrong_is_not_taken_for_torn() {
    // Reaching into the zeros behind the data, or behind the end of the file: a reader that
    // believes the length sees a torn record and would drop the entry.
    for bit in [12, 13, 40] {
        let (disk, last) = sample();
        let field = u64::from_le_bytes(content(&disk, FIRST)[last..last + 8].try_into().unwrap());
        overwrite(&disk, FIRST, &(field ^ 1 << bit).to_le_bytes(), last as u64);
        let (offset, damage) = damage_of(open(&disk));
        assert_eq!(offset, last as u64);
        assert!(
            matches!(damage, Damage::LengthContradicted { .. }),
            "{bit}: {damage:?}"
        );
    }
}

#[test]
fn nothing_is_torn_before_the_last_segment() {
    let disk = MemDisk::new();
    let mut wal = create(&disk, segments_of(1024));
    for index in 1..4 {
        wal.append(None, &[entry(1, index, vec![1; 1000])]).unwrap();
        wal.sync().unwrap();
    }
    wal.close().unwrap();
    assert_eq!(names(&disk).len(), 4);
    let (last, _) = records(&content(&disk, FIRST)).pop().unwrap();
    for cut in [true, false] {
        let disk = disk.fork();
        match cut {
            true => open_file(&disk, FIRST).set_len(last as u64 + 30).unwrap(),
            false => overwrite(&disk, FIRST, &[0; 512], 512),
        }
        assert_eq!(damage_of(open(&disk)).0, last as u64);
        assert_eq!(damage_of(wal::snapshots(&disk, dir())).0, last as u64);
    }
    // A whole record less: the checksum that the next segment carries over does not fit.
    open_file(&disk, FIRST).set_len(last as u64).unwrap();
    match open(&disk) {
        Err(WalError::Damaged {
            path,
            offset: 0,
            damage: Damage::Checksum { .. },
        }) => {
            assert_eq!(path, dir().join(&names(&disk)[1]));
        }
        other => panic!("{:?}", other.map(|(_, found)| found)),
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let disk = MemDisk::new();
    let mut wal = create(&disk, segments_of(1024));
    for index in 1..4 {
        wal.append(None, &[entry(1, index, vec![1; 1000])]).unwrap();
        wal.sync().unwrap();
    }
    wal.close().unwrap();
    let all = names(&disk);
    let path = dir().join(&all[1]);
    disk.remove_file(&path).unwrap();
    assert!(matches!(
        open(&disk),
        Err(WalError::MissingSegment {
            previous: 0,
            found: 2
        })
    ));
    disk.remove_file(&dir().join(&all[0])).unwrap();
    assert!(matches!(open(&disk), Err(WalError::NoSegment { index: 0 })));
    for name in &all[2..] {
        disk.remove_file(&dir().join(name)).unwrap();
    }
    assert!(matches!(open(&disk), Err(WalError::NotFound { .. })));
}

#[test]
fn a_log_that_ends_before_its_commit_index_is_refused() {
    let disk = MemDisk::new();
    let mut wal = create(&disk, Options::default());
    wal.append(Some(&state(1, 7, 1)), &[entry(1, 1, "a")])
        .unwrap();
    wal.close().unwrap();
    // What no writer of ours leaves.
    let bytes = content(&disk, FIRST);
    let crc = records(&bytes).last().unwrap().1.crc();
    let (beyond, _) = frame(crc, 3, state(1, 7, 5).encode_to_vec());
    overwrite(&disk, FIRST, &beyond, data_end(&bytes) as u64);
    assert!(matches!(
        open(&disk),
        Err(WalError::CommitBeyondEnd { commit: 5, last: 1 })
    ));
    assert_eq!(
        wal::read(&disk, dir(), &wal::origin())
            .unwrap()
            .entries
            .len(),
        1
    );
}

#[test]
fn a_start_that_the_log_does_not_know_is_refused() {
    let (disk, _) = sample();
    let open = |start: &walpb::Snapshot| {
        Wal::open(Arc::new(disk.clone()), dir(), start, Options::default()).map(|_| ())
    };
    assert!(matches!(
        open(&snapshot(2, 9)),
        Err(WalError::SnapshotNotFound { index: 2, term: 9 })
    ));
    assert!(matches!(
        open(&snapshot(9, 1)),
        Err(WalError::SnapshotNotFound { index: 9, term: 1 })
    ));
    let (_, damage) = damage_of(open(&walpb::Snapshot {
        term: Some(1),
        ..wal::origin()
    }));
    assert_eq!(
        damage,
        Damage::SnapshotMismatch {
            index: 0,
            found: 0,
            expected: 1
        }
    );
}

#[test]
fn a_replaced_tail_stays_replaced_when_a_snapshot_covers_the_place() {
    // Entries 3 to 5 were never committed; a new leader replaced 2, so that they are gone.
    let disk = MemDisk::new();
    let mut wal = create(&disk, Options::default());
    let old: Vec<_> = (1..=5).map(|index| entry(1, index, "old")).collect();
    wal.append(Some(&state(1, 7, 1)), &old).unwrap();
    wal.append(Some(&state(2, 7, 2)), &[entry(2, 2, "new")])
        .unwrap();
    wal.save_snapshot(&snapshot(2, 2)).unwrap();
    wal.close().unwrap();
    let start = wal::last_snapshot(&disk, dir()).unwrap().unwrap();
    assert_eq!(start, snapshot(2, 2));
    assert_eq!(wal::read(&disk, dir(), &start).unwrap().entries, []);
}

#[test]
fn entries_in_conflict_with_a_leaders_snapshot_are_forgotten() {
    let disk = MemDisk::new();
    let mut wal = create(&disk, Options::default());
    let old: Vec<_> = (1..=5).map(|index| entry(1, index, "old")).collect();
    wal.append(Some(&state(1, 7, 1)), &old).unwrap();
    wal.save_snapshot(&snapshot(3, 2)).unwrap();
    wal.append(Some(&state(2, 7, 3)), &[]).unwrap();
    wal.close().unwrap();
    let read = |start: &walpb::Snapshot| wal::read(&disk, dir(), start).unwrap().entries;
    assert_eq!(read(&snapshot(3, 2)), []);
    assert_eq!(
        read(&wal::origin()),
        old,
        "without the snapshot they are what there is"
    );
}
