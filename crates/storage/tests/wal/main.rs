//! The write-ahead log, from outside.
//!
//! - `model`: whatever happens to the power, a log comes back as a prefix of what was appended that
//!   holds everything that was synced.
//! - `damage`: interrupted writes are repaired, changed bits are refused.
//! - `writing`: what is written and synced when, segments, locks, leftovers.
//! - `full`: a disk without room.
//! - `survey`: what a log says of itself.
//! - `samples`: directories that etcd wrote.

// Clippy takes only functions with `#[test]` for tests, and not what they share.
#![allow(clippy::unwrap_used)]

mod damage;
mod full;
mod model;
mod samples;
mod survey;
mod writing;

use std::path::Path;
use std::sync::Arc;

use prost::Message;
use prost::bytes::Bytes;
use retcd_proto::etcdserverpb::Metadata;
use retcd_proto::raftpb::{ConfState, Entry, HardState};
use retcd_proto::walpb;
use retcd_storage::disk::{Disk, File, MemDisk, OpenMode};
use retcd_storage::wal::{Options, Wal, WalError};

fn dir() -> &'static Path {
    Path::new("/wal")
}

fn metadata() -> Metadata {
    Metadata {
        node_id: Some(0x5036_3e81_65f6_dcf1),
        cluster_id: Some(0x3ec5_8811_1592_8858),
    }
}

fn entry(term: u64, index: u64, data: impl Into<Bytes>) -> Entry {
    Entry {
        term: Some(term),
        index: Some(index),
        r#type: None,
        data: Some(data.into()),
    }
}

fn state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState {
        term: Some(term),
        vote: Some(vote),
        commit: Some(commit),
    }
}

fn snapshot(index: u64, term: u64) -> walpb::Snapshot {
    let conf_state = ConfState {
        voters: vec![7],
        auto_leave: Some(false),
        ..ConfState::default()
    };
    walpb::Snapshot {
        index: Some(index),
        term: Some(term),
        conf_state: Some(conf_state),
    }
}

fn segments_of(segment_bytes: u64) -> Options {
    Options {
        segment_bytes,
        ..Options::default()
    }
}

fn create(disk: &MemDisk, options: Options) -> Wal {
    Wal::create(Arc::new(disk.clone()), dir(), &metadata(), options).unwrap()
}

/// Prepares the next segment, if it is not there.
fn prepare(wal: &mut Wal) -> Result<(), WalError> {
    if let Some(preparation) = wal.prepare() {
        wal.put_prepared(preparation.make()?);
    }
    Ok(())
}

/// The records in a segment's bytes, each with its offset: what a reader of its own finds, which
/// trusts lengths and checks nothing.
fn records(bytes: &[u8]) -> Vec<(usize, walpb::Record)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + 8 <= bytes.len() {
        let field = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let len = (field & 0xff_ffff) as usize;
        if len == 0 {
            break;
        }
        found.push((
            at,
            walpb::Record::decode(&bytes[at + 8..at + 8 + len]).unwrap(),
        ));
        at += 8 + len.next_multiple_of(8);
    }
    found
}

/// A record that follows one with the checksum `crc`, as a writer of its own makes it; its own
/// checksum.
fn frame(crc: u32, kind: i64, data: Vec<u8>) -> (Vec<u8>, u32) {
    let crc = crc32c::crc32c_append(crc, &data);
    let record = walpb::Record {
        r#type: Some(kind),
        crc: Some(crc),
        data: Some(data.into()),
    };
    let record = record.encode_to_vec();
    let pad = record.len().next_multiple_of(8) - record.len();
    let top = if pad == 0 { 0 } else { 0x80 | pad as u64 };
    let mut bytes = (record.len() as u64 | top << 56).to_le_bytes().to_vec();
    bytes.extend(record);
    bytes.extend(vec![0; pad]);
    (bytes, crc)
}

/// Where the last record of a segment ends.
fn data_end(bytes: &[u8]) -> usize {
    records(bytes).last().map_or(0, |(at, record)| {
        at + 8 + record.encoded_len().next_multiple_of(8)
    })
}

/// The names in the log's directory.
fn names(disk: &dyn Disk) -> Vec<String> {
    let name = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    disk.read_dir(dir()).unwrap().iter().map(name).collect()
}

fn open_file(disk: &dyn Disk, name: &str) -> Arc<dyn File> {
    disk.open(&dir().join(name), OpenMode::Write).unwrap()
}

fn content(disk: &dyn Disk, name: &str) -> Vec<u8> {
    head(disk, name, usize::MAX)
}

/// The first bytes of a file, up to `len`.
fn head(disk: &dyn Disk, name: &str, len: usize) -> Vec<u8> {
    let file = open_file(disk, name);
    let mut bytes = vec![0; len.min(file.len().unwrap() as usize)];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}
