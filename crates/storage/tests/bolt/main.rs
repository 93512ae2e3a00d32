//! The bolt engine, from outside.
//!
//! - `model`: whatever is committed, pinned and reopened, the file holds what a map holds.
//! - `crash`: power that goes, and writes and syncs that fail, at every possible moment.
//! - `damage`: changed bytes give errors, never a panic.
//! - `defrag`: the file written anew while it is in use.
//! - `files`: files that Go has written, locks, the bytes of a new file.

// Clippy takes only functions with `#[test]` for tests, and not what they share.
#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod defrag;
mod files;
mod model;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use retcd_storage::bolt::{Access, BoltError, Change, CommitStats, Db, Options, ReadTx, Run};
use retcd_storage::disk::{Disk, MemDisk, OpenMode};

/// Where the tests have their database.
const PATH: &str = "/db";

/// What a database is to hold: buckets, keys, values.
type Model = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

/// Changes of one commit: bucket and key, and the value to set.
type Batch = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

fn options(page_size: u32) -> Options {
    // A small cache, so that pages are read again.
    Options {
        access: Access::Create,
        page_size,
        cache_bytes_max: 64 << 10,
    }
}

fn open(disk: &MemDisk, page_size: u32) -> Result<Db, BoltError> {
    Db::open(Arc::new(disk.clone()), Path::new(PATH), options(page_size))
}

fn commit(db: &Db, batch: &Batch) -> Result<CommitStats, BoltError> {
    let runs: Vec<Run<'_>> = batch
        .iter()
        .map(|(bucket, changes)| Run {
            bucket,
            changes: changes
                .iter()
                .map(|(key, value)| Change {
                    key,
                    value: value.as_deref(),
                })
                .collect(),
        })
        .collect();
    db.commit(&runs)
}

fn apply(model: &mut Model, batch: &Batch) {
    for (bucket, changes) in batch {
        let pairs = model.entry(bucket.clone()).or_default();
        for (key, value) in changes {
            match value {
                Some(value) => _ = pairs.insert(key.clone(), value.clone()),
                None => _ = pairs.remove(key),
            }
        }
    }
}

/// Everything that a read transaction sees.
fn content(tx: &ReadTx) -> Model {
    let pairs = |bucket: &[u8]| {
        let entries = tx
            .range(bucket, &[], None)
            .map(|entry| entry.expect("a sound file"));
        entries
            .map(|entry| (entry.key().to_vec(), entry.value().to_vec()))
            .collect()
    };
    tx.buckets()
        .map(|bucket| (bucket.to_vec(), pairs(bucket)))
        .collect()
}

fn assert_sound(tx: &ReadTx) {
    let found = tx.check().expect("the disk works");
    assert!(found.is_empty(), "{found:?}");
}

/// A disk with one file.
fn disk_with(bytes: &[u8]) -> MemDisk {
    let disk = MemDisk::new();
    let file = disk
        .open(Path::new(PATH), OpenMode::Create { mode: 0o600 })
        .expect("a new file");
    file.write_all_at(&[std::io::IoSlice::new(bytes)], 0)
        .expect("room");
    file.sync_data().expect("a working disk");
    disk.sync_dir(Path::new("/")).expect("a working disk");
    disk
}

/// All bytes of a disk's database.
fn bytes_of(disk: &MemDisk) -> Vec<u8> {
    let file = disk.open(Path::new(PATH), OpenMode::Read).expect("a file");
    let mut bytes = vec![0; file.len().expect("a length") as usize];
    file.read_exact_at(&mut bytes, 0).expect("that many bytes");
    bytes
}
