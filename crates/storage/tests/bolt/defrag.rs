//! Writing the file anew while it is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use retcd_storage::disk::{Disk, MemDisk};

use super::{Batch, Model, PATH, apply, assert_sound, commit, content, open};

/// Far beyond what anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn history(step: u64) -> Batch {
    let mut batch = Batch::new();
    let key = batch.entry(b"key".to_vec()).or_default();
    for sub in 0..20 {
        key.insert(
            (step * 20 + sub).to_be_bytes().to_vec(),
            Some(vec![step as u8; 200]),
        );
        // All but every tenth of what was written fifty steps before.
        if step > 50 && sub % 10 > 0 {
            key.insert(((step - 50) * 20 + sub).to_be_bytes().to_vec(), None);
        }
    }
    batch
        .entry(b"meta".to_vec())
        .or_default()
        .insert(b"step".to_vec(), Some(step.to_be_bytes().to_vec()));
    batch
}

#[test]
fn free_pages_are_gone_afterwards() {
    let disk = MemDisk::new();
    let db = open(&disk, 4096).unwrap();
    let mut model = Model::new();
    for step in 0..400 {
        let mut batch = history(step);
        if step == 200 {
            let large = (0..200u64).map(|key| (key.to_be_bytes().to_vec(), Some(vec![9; 20_000])));
            batch.entry(b"large".to_vec()).or_default().extend(large);
        }
        if step == 300 {
            let gone = (0..200u64).map(|key| (key.to_be_bytes().to_vec(), None));
            batch.entry(b"large".to_vec()).or_default().extend(gone);
        }
        commit(&db, &batch).unwrap();
        apply(&mut model, &batch);
    }
    let in_use = db.size_in_use_bytes();
    let stats = db.defragment().unwrap();
    assert!(stats.bytes_after < stats.bytes_before, "{stats:?}");
    assert_eq!(stats.bytes_after, db.size_bytes());
    assert!(
        db.size_bytes() <= in_use + 20_000,
        "{} after, {in_use} in use before",
        db.size_bytes()
    );
    assert_eq!(content(&db.read()), model);
    assert_sound(&db.read());
    assert_eq!(
        disk.read_dir(std::path::Path::new("/")).unwrap(),
        [std::path::Path::new(PATH)]
    );
}

#[test]
fn readers_of_the_old_file_keep_it() {
    let disk = MemDisk::new();
    let db = open(&disk, 4096).unwrap();
    (0..60).for_each(|step| _ = commit(&db, &history(step)).unwrap());
    let before = db.read();
    let seen = content(&before);
    db.defragment().unwrap();
    (60..120).for_each(|step| _ = commit(&db, &history(step)).unwrap());
    db.defragment().unwrap();
    assert_eq!(content(&before), seen);
    assert_eq!(db.open_read_transactions(), 1);
}

#[test]
fn commits_go_on_meanwhile() {
    let disk = MemDisk::new();
    let db = Arc::new(open(&disk, 4096).unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let (written, writer) = channel();
    std::thread::spawn({
        let (db, stop) = (Arc::clone(&db), Arc::clone(&stop));
        move || {
            let mut model = Model::new();
            let mut step = 0;
            while !stop.load(Ordering::Relaxed) || step < 200 {
                let batch = history(step);
                commit(&db, &batch).unwrap();
                apply(&mut model, &batch);
                step += 1;
            }
            drop(db);
            let _ = written.send(model);
        }
    });
    for _ in 0..10 {
        db.defragment().unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let model = writer.recv_timeout(PATIENCE).expect("a writer that ends");
    assert_eq!(content(&db.read()), model);
    assert_sound(&db.read());
    drop(db);
    assert_eq!(content(&open(&disk, 4096).unwrap().read()), model);
}

#[test]
fn leftovers_are_removed_at_open() {
    use retcd_storage::disk::OpenMode;
    let disk = MemDisk::new();
    drop(open(&disk, 4096).unwrap());
    for name in ["/db.tmp.defrag", "/db.tmp.123456", "/db.part"] {
        disk.open(
            std::path::Path::new(name),
            OpenMode::CreateNew { mode: 0o600 },
        )
        .unwrap();
    }
    drop(open(&disk, 4096).unwrap());
    let left = disk.read_dir(std::path::Path::new("/")).unwrap();
    assert_eq!(
        left,
        [std::path::Path::new(PATH), std::path::Path::new("/db.part")]
    );
}
