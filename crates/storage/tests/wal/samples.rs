//! Logs that etcd 3.3 to 3.7 wrote, with what another reader found in them
//! (`tests/data/wal/index.json`). The zeros at the end of a segment were left out of the files.

use std::io::{IoSlice, Read as _};
use std::path::Path;
use std::sync::Arc;

use prost::Message;
use retcd_proto::etcdserverpb::Metadata;
use retcd_proto::raftpb::{Entry, HardState};
use retcd_proto::walpb;
use retcd_storage::disk::{Disk, MemDisk, OpenMode};
use retcd_storage::wal::{self, Options, Wal, WalError};

use crate::{data_end, dir, head, records};

#[derive(serde::Deserialize)]
struct Sample {
    name: String,
    segment: String,
    /// The segment's length with its zeros.
    bytes: u64,
    records: usize,
    /// Where the last good record ends.
    data_end: usize,
    node_id: String,
    cluster_id: String,
    /// Term, vote, commit index.
    hard_state: (u64, String, u64),
    /// Term and index.
    last_entry: (u64, u64),
    /// Terms and indexes.
    snapshots: Vec<(u64, u64)>,
    /// `torn` or `damaged`.
    fault: Option<String>,
}

fn samples() -> Vec<(Sample, MemDisk)> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/wal");
    let index = std::fs::read(data.join("index.json")).unwrap();
    let samples: Vec<Sample> = serde_json::from_slice(&index).unwrap();
    let load = |sample: Sample| {
        let packed = std::fs::File::open(data.join(format!("{}.wal.gz", sample.name))).unwrap();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(packed)
            .read_to_end(&mut bytes)
            .unwrap();
        let disk = MemDisk::new();
        disk.create_dir_all(dir()).unwrap();
        let path = dir().join(&sample.segment);
        let file = disk
            .open(&path, OpenMode::CreateNew { mode: 0o600 })
            .unwrap();
        file.write_all_at(&[IoSlice::new(&bytes)], 0).unwrap();
        file.set_len(sample.bytes).unwrap();
        (sample, disk)
    };
    samples.into_iter().map(load).collect()
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap()
}

#[test]
fn logs_of_etcd_are_read_to_their_end() {
    let mut read = 0;
    for (sample, disk) in samples() {
        let name = &sample.name;
        if sample.fault.as_deref() == Some("damaged") {
            continue;
        }
        let committed: Vec<(u64, u64)> = wal::snapshots(&disk, dir())
            .unwrap()
            .iter()
            .map(|snapshot| (snapshot.term(), snapshot.index()))
            .collect();
        assert_eq!(committed, sample.snapshots, "{name}");

        let start = wal::last_snapshot(&disk, dir()).unwrap().unwrap();
        let expected = wal::read(&disk, dir(), &start).unwrap();
        let (wal, found) =
            Wal::open(Arc::new(disk.clone()), dir(), &start, Options::default()).unwrap();
        assert_eq!(found.entries, expected.entries, "{name}");
        assert_eq!(found.metadata.node_id(), hex(&sample.node_id), "{name}");
        assert_eq!(
            found.metadata.cluster_id(),
            hex(&sample.cluster_id),
            "{name}"
        );
        let (term, vote, commit) = &sample.hard_state;
        let state = &found.hard_state;
        assert_eq!(
            (state.term(), state.vote(), state.commit()),
            (*term, hex(vote), *commit),
            "{name}"
        );
        assert_eq!(wal.last_index(), sample.last_entry.1, "{name}");
        assert_eq!(
            found.entries.len() as u64,
            sample.last_entry.1 - start.index(),
            "{name}"
        );
        if let Some(last) = found.entries.last() {
            assert_eq!((last.term(), last.index()), sample.last_entry, "{name}");
        }
        assert_eq!(found.torn.is_some(), sample.fault.is_some(), "{name}");
        if let Some(torn) = found.torn {
            assert_eq!(torn.offset, sample.data_end as u64, "{name}");
        }
        drop(wal);
        let left = head(&disk, &sample.segment, sample.data_end + 4096);
        assert_eq!(records(&left).len(), sample.records, "{name}");
        assert_eq!(data_end(&left), sample.data_end, "{name}");
        read += 1;
    }
    assert!(read >= 15, "{read}");
}

#[test]
fn logs_that_etcd_refuses_are_refused() {
    let mut refused = 0;
    for (sample, disk) in samples() {
        if sample.fault.as_deref() != Some("damaged") {
            continue;
        }
        match Wal::open(Arc::new(disk), dir(), &wal::origin(), Options::default()) {
            Err(WalError::Damaged { offset, .. }) => {
                assert_eq!(offset, sample.data_end as u64, "{}", sample.name);
            }
            other => panic!(
                "{}: {:?}",
                sample.name,
                other.map(|(_, found)| found.hard_state)
            ),
        }
        refused += 1;
    }
    assert!(refused >= 3, "{refused}");
}

#[test]
fn the_same_records_give_the_same_bytes() {
    let mut compared = 0;
    for (sample, disk) in samples() {
        let original = head(&disk, &sample.segment, sample.data_end);
        let twin = MemDisk::new();
        if rewrite(&original, &twin) {
            let written = head(&twin, &sample.segment, sample.data_end);
            assert!(written == original, "{}", sample.name);
            compared += 1;
        }
    }
    assert!(compared >= 10, "{compared}");
}

/// Writes the records of a log into a new one on `disk`; `false` when that cannot be: snapshot
/// records of etcd before 3.5 lack what must be in them today, and a backup of API v2 has entries
/// before its snapshot.
fn rewrite(original: &[u8], disk: &MemDisk) -> bool {
    let mut found = records(original).into_iter().map(|(_, record)| record);
    assert_eq!(found.next().unwrap().r#type(), 4);
    let metadata = Metadata::decode(found.next().unwrap().data()).unwrap();
    let mut wal =
        Wal::create(Arc::new(disk.clone()), dir(), &metadata, Options::default()).unwrap();
    assert_eq!(found.next().unwrap().r#type(), 5);
    for record in found {
        match record.r#type() {
            2 => {
                let entry = Entry::decode(record.data.unwrap()).unwrap();
                if entry.index() > wal.last_index() + 1 {
                    return false;
                }
                wal.append(None, &[entry]).unwrap();
            }
            3 => {
                let state = HardState::decode(record.data()).unwrap();
                wal.append(Some(&state), &[]).unwrap();
            }
            5 => {
                let snapshot = walpb::Snapshot::decode(record.data()).unwrap();
                match wal.save_snapshot(&snapshot) {
                    Err(WalError::IncompleteSnapshot { .. }) => return false,
                    other => drop(other.unwrap()),
                }
            }
            other => panic!("a record of type {other}"),
        }
    }
    wal.close().unwrap();
    true
}
