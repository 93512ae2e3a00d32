//! Files that Go has written, and files as Go would see them.

use std::path::Path;
use std::sync::Arc;

use retcd_storage::bolt::{Access, BoltError, Db, Options, ReadTx};
use retcd_storage::disk::MemDisk;

use super::{Batch, PATH, apply, assert_sound, bytes_of, commit, content, disk_with, open};

const GO_FILES: [(&str, &[u8], u32, u64); 4] = [
    // Name, bytes, hash as `snapshot status` of Go prints it, transaction.
    (
        "3.7.1-small",
        include_bytes!("../data/bolt/3.7.1-small.db"),
        455_943_769,
        13,
    ),
    (
        "3.5.30-empty",
        include_bytes!("../data/bolt/3.5.30-empty.db"),
        1_887_468_954,
        7,
    ),
    (
        "3.4.23-auth",
        include_bytes!("../data/bolt/3.4.23-auth.db"),
        498_309_159,
        16,
    ),
    (
        "small pages",
        include_bytes!("../data/bolt/bbolt-1.5.0-small-pages-stored-freelist.db"),
        2_107_718_607,
        4,
    ),
];

fn hash(tx: &ReadTx) -> u32 {
    content(tx).iter().fold(0, |hash, (bucket, pairs)| {
        let hash = crc32c::crc32c_append(hash, bucket);
        let pair = |hash, (key, value): (&Vec<u8>, &Vec<u8>)| {
            crc32c::crc32c_append(crc32c::crc32c_append(hash, key), value)
        };
        pairs.iter().fold(hash, pair)
    })
}

fn read_only() -> Options {
    Options {
        access: Access::ReadOnly,
        ..Options::default()
    }
}

#[test]
fn files_of_go_are_read() {
    for (name, bytes, expected, txid) in GO_FILES {
        let db = Db::open(Arc::new(disk_with(bytes)), Path::new(PATH), read_only()).unwrap();
        let tx = db.read();
        assert_sound(&tx);
        assert_eq!((hash(&tx), tx.txid()), (expected, txid), "{name}");
    }
}

#[test]
fn files_of_go_are_continued() {
    for (name, bytes, _, txid) in GO_FILES {
        let disk = disk_with(bytes);
        let db = open(&disk, 4096).unwrap();
        let mut model = content(&db.read());
        for step in 0..40u32 {
            let mut batch = Batch::new();
            for (bucket, pairs) in &model {
                let changes = batch.entry(bucket.clone()).or_default();
                changes.insert(
                    step.to_be_bytes().to_vec(),
                    Some(vec![step as u8; step as usize * 20]),
                );
                changes.extend(pairs.keys().step_by(9).map(|key| (key.clone(), None)));
            }
            commit(&db, &batch).unwrap();
            apply(&mut model, &batch);
        }
        assert_eq!(db.read().txid(), txid + 40);
        drop(db);
        let db = open(&disk, 4096).unwrap();
        assert_sound(&db.read());
        assert_eq!(content(&db.read()), model, "{name}");
        db.defragment().unwrap();
        assert_eq!(content(&db.read()), model, "{name}");
    }
}

#[test]
fn a_stored_freelist_is_left_alone_until_none_is_needed() {
    let (_, bytes, ..) = GO_FILES[3];
    // Meta page: the freelist's page at 48, the transaction at 64.
    let field = |slot: usize, at: usize| {
        u64::from_le_bytes(bytes[slot * 1024 + at..][..8].try_into().unwrap())
    };
    let newest = usize::from(field(1, 64) > field(0, 64));
    let freelist = field(newest, 48);
    let page = freelist as usize * 1024..(freelist as usize + 1) * 1024;
    assert_eq!(
        u16::from_le_bytes(bytes[page.start + 8..page.start + 10].try_into().unwrap()),
        0x10
    );
    let disk = disk_with(bytes);
    let db = open(&disk, 1024).unwrap();
    let fill = |step: u32| {
        let changes = (0..30u32)
            .map(|key| ((step * 30 + key).to_be_bytes().to_vec(), Some(vec![1; 500])))
            .collect();
        commit(&db, &Batch::from([(b"filler".to_vec(), changes)])).unwrap();
    };
    fill(0);
    assert!(
        bytes_of(&disk)[page.clone()] == bytes[page.clone()],
        "the meta page before still names it"
    );
    (1..10).for_each(fill);
    assert!(
        bytes_of(&disk)[page.clone()] != bytes[page],
        "it is free then"
    );
}

#[test]
fn a_new_file_has_the_format_of_go() {
    let disk = MemDisk::new();
    let db = open(&disk, 4096).unwrap();
    commit(&db, &Batch::from([(b"key".to_vec(), Default::default())])).unwrap();
    let bytes = bytes_of(&disk);
    for slot in 0..2 {
        let page = &bytes[slot * 4096..];
        assert_eq!(
            page[0..16],
            [slot as u8, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0],
            "header of meta {slot}"
        );
        assert_eq!(
            page[16..32],
            [0xED, 0xDA, 0x0C, 0xED, 2, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0],
            "meta {slot}"
        );
        assert_eq!(page[48..56], [0xFF; 8], "no freelist in meta {slot}");
    }
    // Page 3: a leaf with one element, a bucket "key" that is inline and empty.
    let leaf = &bytes[3 * 4096..3 * 4096 + 67];
    let expected: [&[u8]; 7] = [
        &[3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 16, 0, 0, 0, 3, 0, 0, 0, 32, 0, 0, 0],
        b"key",
        &[0; 8],
        &[0; 8],
        &[0; 8],
        &[2, 0, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(leaf, expected.concat());
}

#[test]
fn a_file_is_locked_while_it_is_used() {
    let disk = MemDisk::new();
    let db = open(&disk, 4096).unwrap();
    let again = |options| Db::open(Arc::new(disk.clone()), Path::new(PATH), options);
    assert!(matches!(again(Options::default()), Err(BoltError::Locked)));
    assert!(matches!(again(read_only()), Err(BoltError::Locked)));
    db.defragment().unwrap();
    assert!(matches!(again(Options::default()), Err(BoltError::Locked)));
    drop(db);
    let (one, two) = (again(read_only()).unwrap(), again(read_only()).unwrap());
    assert!(matches!(one.commit(&[]), Err(BoltError::ReadOnly)));
    assert!(matches!(two.defragment(), Err(BoltError::ReadOnly)));
    assert!(matches!(again(Options::default()), Err(BoltError::Locked)));
}

#[test]
fn what_does_not_exist_is_created_only_if_asked_for() {
    let disk = MemDisk::new();
    let with = |access| {
        Db::open(
            Arc::new(disk.clone()),
            Path::new(PATH),
            Options {
                access,
                ..Options::default()
            },
        )
    };
    assert!(matches!(with(Access::ReadOnly), Err(BoltError::Io(_))));
    assert!(matches!(with(Access::Existing), Err(BoltError::Io(_))));
    assert!(with(Access::Create).unwrap().created());
    assert!(!with(Access::Create).unwrap().created());
    let empty = disk_with(&[]);
    assert!(
        open(&empty, 4096).unwrap().created(),
        "a creation that Go did not finish"
    );
    assert!(!open(&empty, 4096).unwrap().created());
}

#[test]
fn keys_that_the_format_cannot_hold_are_refused_and_do_no_harm() {
    let disk = MemDisk::new();
    let db = open(&disk, 4096).unwrap();
    let put = |key: &[u8]| {
        commit(
            &db,
            &Batch::from([(b"b".to_vec(), [(key.to_vec(), Some(vec![1]))].into())]),
        )
    };
    assert!(matches!(put(&[]), Err(BoltError::KeyLength { len: 0 })));
    assert!(matches!(
        put(&[1; 32769]),
        Err(BoltError::KeyLength { len: 32769 })
    ));
    put(&[1; 32768]).unwrap();
    assert_sound(&db.read());
}

/// So that the state before stays whole until the new one is durable, and Go's library finds the
/// newest where it looks for it.
#[test]
fn a_commit_writes_the_meta_page_of_its_number_and_leaves_the_other() {
    let disk = MemDisk::new();
    let db = open(&disk, 4096).unwrap();
    let metas = || {
        let bytes = bytes_of(&disk);
        [bytes[..4096].to_vec(), bytes[4096..8192].to_vec()]
    };
    for number in 2..8u64 {
        let before = metas();
        let batch = Batch::from([(b"b".to_vec(), [(vec![1], Some(vec![number as u8]))].into())]);
        assert_eq!(commit(&db, &batch).unwrap().txid, number);
        let after = metas();
        let (own, other) = ((number % 2) as usize, (number + 1) as usize % 2);
        assert_eq!(after[own][64..72], number.to_le_bytes(), "its transaction");
        assert_eq!(after[other], before[other]);
    }
}

#[test]
fn a_small_last_leaf_joins_the_one_before() {
    let disk = MemDisk::new();
    let db = open(&disk, 4096).unwrap();
    let key = |number: u8| vec![b'k', number];
    let changes = |numbers: std::ops::Range<u8>, value: Option<Vec<u8>>| {
        let changes = numbers.map(|number| (key(number), value.clone()));
        Batch::from([(b"b".to_vec(), changes.collect())])
    };
    commit(&db, &changes(0..80, Some(vec![1; 50]))).unwrap();
    let pages = || db.size_in_use_bytes() / 4096;
    assert_eq!(pages(), 6, "meta pages, buckets, a branch and two leaves");
    commit(&db, &changes(56..80, None)).unwrap();
    assert_eq!(pages(), 4, "one leaf is enough");
    assert_sound(&db.read());
}
