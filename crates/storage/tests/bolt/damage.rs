//! Damaged files: whatever is wrong, there is an error or a result, and never a panic, an endless
//! walk or a request for more memory than the file justifies.

use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
use retcd_storage::bolt::{Access, BoltError, Damage, Db, Options, Reason};

use super::{Batch, PATH, bytes_of, commit, disk_with, open};

const GO_FILES: [&[u8]; 2] = [
    include_bytes!("../data/bolt/3.7.1-small.db"),
    include_bytes!("../data/bolt/bbolt-1.5.0-small-pages-stored-freelist.db"),
];

/// A file with trees of some levels, inline buckets and nodes of several pages.
fn sound_file(page_size: u32) -> Vec<u8> {
    let disk = retcd_storage::disk::MemDisk::new();
    let db = open(&disk, page_size).unwrap();
    for step in 0..10u32 {
        let keys = (0..40u32).map(|key| (key * 10 + step).to_be_bytes().to_vec());
        let many = keys.map(|key| (key, Some(vec![step as u8; 60]))).collect();
        let large = [(vec![step as u8 + 1], Some(vec![1; 3000]))].into();
        let few = [(b"index".to_vec(), Some(vec![step as u8]))].into();
        let batch = [
            (b"many".to_vec(), many),
            (b"large".to_vec(), large),
            (b"few".to_vec(), few),
        ];
        commit(&db, &Batch::from(batch)).unwrap();
    }
    let used = db.size_bytes() as usize;
    drop(db);
    let mut bytes = bytes_of(&disk);
    bytes.truncate(used);
    bytes
}

fn checksum_metas(bytes: &mut [u8], page_size: usize) {
    for slot in [0, page_size] {
        let Some(meta) = bytes.get_mut(slot + 16..slot + 80) else {
            return;
        };
        let sum = meta[..56]
            .iter()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        meta[56..].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Does everything that can be done with a file and tells whether all of it went well.
fn use_file(bytes: &[u8]) -> Result<(), BoltError> {
    let disk = disk_with(bytes);
    let read_only = Options {
        access: Access::ReadOnly,
        ..Options::default()
    };
    {
        let db = Db::open(Arc::new(disk.clone()), Path::new(PATH), read_only)?;
        let tx = db.read();
        if let Some(damage) = tx.check()?.first() {
            // What check finds, reading may stumble over or not, but must survive.
            let _ = scan(&db);
            let _ = change(bytes);
            return Err((*damage).into());
        }
        scan(&db)?;
    }
    change(bytes)
}

fn scan(db: &Db) -> Result<(), BoltError> {
    let tx = db.read();
    for bucket in tx.buckets() {
        for entry in tx.range(bucket, &[], None) {
            let entry = entry?;
            tx.get(bucket, entry.key())?;
        }
    }
    Ok(())
}

fn change(bytes: &[u8]) -> Result<(), BoltError> {
    let disk = disk_with(bytes);
    let options = Options {
        access: Access::Existing,
        ..Options::default()
    };
    let db = Db::open(Arc::new(disk), Path::new(PATH), options)?;
    for step in 0..4u32 {
        let keys = (0..30u32).map(|key| (key * 13 + step).to_be_bytes().to_vec());
        let changes = keys
            .map(|key| (key, (step % 2 == 0).then(|| vec![1; 50])))
            .collect();
        commit(&db, &Batch::from([(b"many".to_vec(), changes)]))?;
    }
    db.defragment()?;
    Ok(())
}

fn damage_file(bytes: &mut Vec<u8>, page_size: usize, rng: &mut Rng) {
    let pages = bytes.len() / page_size;
    for _ in 0..rng.usize(1..4) {
        let page = rng.usize(..pages) * page_size;
        match rng.u8(..9) {
            0 => bytes[page + rng.usize(..16)] = rng.u8(..),
            1 => bytes[page + 16 + rng.usize(..200)] = rng.u8(..),
            2 => bytes[page + rng.usize(..page_size)] ^= 1 << rng.u8(..8),
            3 => {
                bytes[page + rng.usize(..page_size)] =
                    rng.choice([0, 1, 2, 0x7F, 0xFF]).expect("some")
            }
            4 => {
                // A reference, or what is taken for one, to another page.
                let at = page + 16 + 8 * rng.usize(..20);
                bytes[at..at + 8].copy_from_slice(&rng.u64(..pages as u64 + 2).to_le_bytes());
            }
            5 => {
                // A page in place of another, under the right number.
                let from = rng.usize(..pages) * page_size;
                bytes.copy_within(from..from + page_size, page);
                let id = ((page / page_size) as u64).to_le_bytes();
                bytes[page..page + 8].copy_from_slice(&id);
            }
            6 => bytes[page + 12..page + 16]
                .copy_from_slice(&rng.u32(..pages as u32 * 2).to_le_bytes()),
            7 => {
                let field = 16 + 8 * rng.usize(..8);
                let value = if rng.bool() {
                    rng.u64(..)
                } else {
                    rng.u64(..pages as u64 * 2)
                };
                let slot = rng.usize(..2) * page_size;
                bytes[slot + field..slot + field + 8].copy_from_slice(&value.to_le_bytes());
            }
            _ => bytes[page..page + page_size].fill(rng.choice([0, 0xFF]).expect("some")),
        }
    }
    if rng.u8(..4) > 0 {
        checksum_metas(bytes, page_size);
    }
    if rng.u8(..10) == 0 {
        bytes.truncate(rng.usize(..bytes.len()));
    }
}

fn fuzz(sound: &[u8], page_size: usize, seeds: std::ops::Range<u64>) {
    use_file(sound).unwrap();
    let mut refused = 0;
    for seed in seeds.clone() {
        let mut bytes = sound.to_vec();
        damage_file(&mut bytes, page_size, &mut Rng::with_seed(seed));
        let outcome = std::panic::catch_unwind(|| use_file(&bytes));
        match outcome {
            Ok(result) => refused += u64::from(result.is_err()),
            Err(_) => panic!("panic with seed {seed} on a file of pages of {page_size} bytes"),
        }
    }
    let all = seeds.end - seeds.start;
    assert!(
        refused > all / 4 && refused < all,
        "{refused} of {all} refused"
    );
}

#[test]
fn damage_gives_errors() {
    fuzz(&sound_file(1024), 1024, 0..1500);
    fuzz(&sound_file(4096), 4096, 2000..2500);
}

#[test]
fn damage_in_files_of_go_gives_errors() {
    fuzz(GO_FILES[0], 4096, 0..500);
    fuzz(GO_FILES[1], 1024, 1000..2000);
}

#[test]
fn every_cut_of_a_file_is_refused() {
    let sound = sound_file(1024);
    for len in (1..sound.len()).step_by(509) {
        assert!(
            use_file(&sound[..len]).is_err(),
            "{len} of {} bytes",
            sound.len()
        );
    }
}

#[test]
fn check_names_page_and_reason() {
    let file = sound_file(1024);
    let check = |bytes: &[u8]| {
        let options = Options {
            access: Access::ReadOnly,
            ..Options::default()
        };
        let db = Db::open(Arc::new(disk_with(bytes)), Path::new(PATH), options).unwrap();
        db.read().check().unwrap()
    };
    assert_eq!(check(&file), []);
    let leaf = leaf_with(&file, &77u32.to_be_bytes());
    let mut bytes = file.clone();
    bytes[leaf * 1024] ^= 0xFF;
    let wrong = Reason::WrongId(leaf as u64 ^ 0xFF);
    let damage = |reason| Damage {
        page: leaf as u64,
        reason,
    };
    assert_eq!(check(&bytes), [damage(wrong)]);
    assert_eq!(
        damage(wrong).to_string(),
        format!("page {leaf}: calls itself page {}", leaf ^ 0xFF)
    );

    let mut bytes = file.clone();
    bytes[leaf * 1024 + 8] = 0x10;
    assert_eq!(check(&bytes), [damage(Reason::Flags(0x10))]);

    let mut bytes = file.clone();
    bytes[leaf * 1024 + 16 + 8..leaf * 1024 + 16 + 12].fill(0);
    assert_eq!(check(&bytes), [damage(Reason::EmptyKey(0))]);

    // The first key of the leaf made the smallest of all.
    let mut bytes = file.clone();
    let pos = u32::from_le_bytes(
        bytes[leaf * 1024 + 20..leaf * 1024 + 24]
            .try_into()
            .unwrap(),
    ) as usize;
    bytes[leaf * 1024 + 16 + pos..][..4].fill(0);
    assert_eq!(check(&bytes), [damage(Reason::KeyRange(0))]);
}

/// The page of the leaf that holds a key of four bytes behind its first element.
fn leaf_with(file: &[u8], key: &[u8; 4]) -> usize {
    let is_leaf = |page: &[u8]| page[8..10] == [2, 0];
    let holds = |page: &[u8]| page.windows(4).skip(100).any(|window| window == key);
    let newest = file
        .chunks(1024)
        .enumerate()
        .skip(2)
        .filter(|(number, page)| {
            let id = u64::from_le_bytes(page[..8].try_into().unwrap());
            id == *number as u64 && is_leaf(page) && holds(page)
        });
    // Older copies of the leaf lie in free pages; damage there is not found, and the test would
    // fail.
    newest
        .map(|(number, _)| number)
        .find(|page| is_reachable(file, *page))
        .expect("the key is there")
}

fn is_reachable(file: &[u8], page: usize) -> bool {
    let mut bytes = file.to_vec();
    bytes[page * 1024] ^= 0xFF;
    use_file(&bytes).is_err()
}
