//! The backend as its owner sees it, on a disk in memory: against a map per bucket, with readers of
//! every age, a loss of power, and other threads.

mod replace;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use fastrand::Rng;

use super::*;
use crate::bolt::Access;
use crate::disk::{Fault, OpenMode, OsDisk};

type Pairs = BTreeMap<(Bucket, Vec<u8>), Vec<u8>>;

fn put(backend: &Backend, bucket: Bucket, key: &[u8], value: &[u8]) {
    let mut batch = WriteBatch::default();
    batch.put(bucket, key, value.into());
    backend.write(batch);
}

fn open(disk: &MemDisk) -> Result<Backend, BackendError> {
    Backend::open(Arc::new(disk.clone()), Path::new("/db"), Options::default())
}

fn pairs(reader: &Reader) -> Pairs {
    let scan = |bucket: Bucket| {
        let pairs = reader
            .range(bucket, &[], None)
            .map(|pair| pair.expect("a sound file"));
        pairs.map(move |(key, value)| ((bucket, key.to_vec()), value.to_vec()))
    };
    Bucket::ALL.into_iter().flat_map(scan).collect()
}

#[test]
fn a_reader_sees_what_was_written_before_it_and_nothing_after() {
    let backend = Backend::default();
    put(&backend, Bucket::Meta, b"a", b"1");
    let before = backend.reader();
    put(&backend, Bucket::Meta, b"a", b"2");
    put(&backend, Bucket::Meta, b"b", b"2");
    let pending = backend.reader();
    backend.commit().unwrap();
    put(&backend, Bucket::Meta, b"a", b"3");
    backend.commit().unwrap();
    for _ in 0..2 {
        assert_eq!(
            pairs(&before),
            Pairs::from([((Bucket::Meta, b"a".to_vec()), b"1".to_vec())])
        );
        assert_eq!(
            pending.get(Bucket::Meta, b"a").unwrap().as_deref(),
            Some(b"2".as_slice())
        );
        assert_eq!(pairs(&pending).len(), 2);
        assert_eq!(
            backend.reader().get(Bucket::Meta, b"a").unwrap().as_deref(),
            Some(b"3".as_slice())
        );
        backend.defragment().unwrap();
    }
}

struct World {
    disk: MemDisk,
    backend: Backend,
    model: Pairs,
    readers: Vec<(Reader, Pairs)>,
    rng: Rng,
}

impl World {
    fn write(&mut self) {
        let mut batch = WriteBatch::default();
        for _ in 0..self.rng.usize(1..20) {
            let bucket = [Bucket::Key, Bucket::Lease, Bucket::Meta][self.rng.usize(..3)];
            let mut key = self.rng.u16(..300).to_be_bytes().to_vec();
            if self.rng.u8(..10) == 0 {
                key.resize(60, 0);
            }
            if self.rng.u8(..3) == 0 {
                batch.delete(bucket, &key);
                self.model.remove(&(bucket, key));
            } else {
                let value = vec![self.rng.u8(..); self.rng.usize(..300)];
                batch.put(bucket, &key, value.as_slice().into());
                self.model.insert((bucket, key), value);
            }
        }
        self.backend.write(batch);
    }

    fn check(&mut self, reader: &Reader, model: &Pairs) {
        assert_eq!(&pairs(reader), model);
        let bucket = [Bucket::Key, Bucket::Lease][self.rng.usize(..2)];
        let (start, end) = (
            self.rng.u16(..300).to_be_bytes(),
            self.rng.u16(..300).to_be_bytes(),
        );
        let found = reader
            .range(bucket, &start, Some(&end))
            .map(|pair| pair.unwrap().0.to_vec());
        let inside = |key: &&(Bucket, Vec<u8>)| {
            key.0 == bucket && key.1[..] >= start[..] && key.1[..] < end[..]
        };
        assert!(found.eq(model.keys().filter(inside).map(|key| key.1.clone())));
        let key = (bucket, start.to_vec());
        assert_eq!(
            reader
                .get(bucket, &start)
                .unwrap()
                .map(|value| value.to_vec()),
            model.get(&key).cloned()
        );
    }

    fn step(&mut self) {
        match self.rng.u8(..20) {
            0..8 => self.write(),
            8..11 => _ = self.backend.commit().unwrap(),
            11..14 => self
                .readers
                .push((self.backend.reader(), self.model.clone())),
            14..18 if !self.readers.is_empty() => {
                let (reader, model) = self
                    .readers
                    .swap_remove(self.rng.usize(..self.readers.len()));
                self.check(&reader, &model);
            }
            18 if self.rng.u8(..5) == 0 => _ = self.backend.defragment().unwrap(),
            19 if self.rng.u8(..5) == 0 => {
                self.backend.commit().unwrap();
                self.readers.clear();
                self.backend = Backend::default();
                self.backend = open(&self.disk).unwrap();
            }
            _ => {
                let (reader, model) = (self.backend.reader(), self.model.clone());
                self.check(&reader, &model);
            }
        }
    }
}

#[test]
fn agrees_with_a_map_whatever_is_pending_committing_or_in_the_file() {
    for seed in 0..8 {
        let disk = MemDisk::new();
        let backend = open(&disk).unwrap();
        let rng = Rng::with_seed(seed);
        let mut world = World {
            disk,
            backend,
            model: Pairs::new(),
            readers: Vec::new(),
            rng,
        };
        for _ in 0..400 {
            world.step();
        }
        world.readers.clear();
        assert_eq!(
            world.backend.open_read_transactions(),
            1,
            "the backend's own"
        );
    }
}

/// Batch `n` writes `n` to these places; whoever sees two different numbers sees half a batch.
const PLACES: [(Bucket, &[u8]); 4] = [
    (Bucket::Alarm, b"a"),
    (Bucket::Key, b"k"),
    (Bucket::Meta, b"consistent_index"),
    (Bucket::Meta, b"term"),
];

fn write_number(backend: &Backend, number: u64) {
    let mut batch = WriteBatch::default();
    for (bucket, key) in PLACES {
        batch.put(bucket, key, number.to_be_bytes().as_slice().into());
    }
    batch.put(
        Bucket::Key,
        &number.to_be_bytes(),
        [7; 100].as_slice().into(),
    );
    backend.write(batch);
}

/// The number of the newest batch that a reader sees, 0 for none.
fn number(reader: &Reader) -> u64 {
    let numbers = PLACES.map(|(bucket, key)| {
        let value = reader.get(bucket, key).unwrap();
        value.map_or(0, |value| u64::from_be_bytes((*value).try_into().unwrap()))
    });
    assert!(
        numbers.iter().all(|number| *number == numbers[0]),
        "{numbers:?}"
    );
    let history = reader.range(Bucket::Key, &[0], Some(b"k")).count() as u64;
    assert_eq!(history, numbers[0], "batches in the history");
    numbers[0]
}

#[test]
fn a_crash_never_splits_a_batch_nor_loses_a_committed_one() {
    let script = |disk: &MemDisk| {
        let (mut written, mut committed) = (0, 0);
        let mut work = || -> Result<(), BackendError> {
            let backend = open(disk)?;
            for round in 1..=10u64 {
                for _ in 0..round {
                    written += 1;
                    write_number(&backend, written);
                }
                backend.commit()?;
                committed = written;
                if round == 5 {
                    backend.defragment()?;
                }
            }
            Ok(())
        };
        _ = work();
        (written, committed)
    };
    let whole = MemDisk::new();
    assert_eq!(script(&whole), (55, 55));
    for at in 1..=whole.counts().changes {
        let disk = MemDisk::new();
        disk.inject(Fault::PowerLoss(at));
        let (written, committed) = script(&disk);
        for seed in 0..3 {
            let disk = disk.fork();
            disk.crash(at * 10 + seed);
            let found = number(&open(&disk).unwrap().reader());
            assert!(
                found == committed || found == written,
                "{found} of {committed} or {written}"
            );
        }
    }
}

#[test]
fn threads_see_whole_batches_that_never_go_back() {
    const BATCHES: u64 = 3000;
    let disk = MemDisk::new();
    let backend = open(&disk).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                let mut last = 0;
                while last < BATCHES {
                    let reader = backend.reader();
                    let found = number(&reader);
                    assert!(found >= last, "{found} after {last}");
                    last = found;
                    assert_eq!(number(&reader), found);
                }
            });
        }
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                backend.commit().unwrap();
            }
        });
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                backend.defragment().unwrap();
            }
        });
        (1..=BATCHES).for_each(|number| write_number(&backend, number));
        done.store(true, Ordering::Relaxed);
    });
    backend.commit().unwrap();
    drop(backend);
    assert_eq!(number(&open(&disk).unwrap().reader()), BATCHES);
}

#[test]
fn after_a_failed_commit_nothing_is_lost_from_view_and_none_is_accepted() {
    let disk = MemDisk::new();
    let backend = open(&disk).unwrap();
    write_number(&backend, 1);
    disk.inject(Fault::Sync(2));
    assert!(matches!(backend.commit(), Err(BoltError::Io(_))));
    write_number(&backend, 2);
    assert!(matches!(backend.commit(), Err(BoltError::Poisoned)));
    assert!(matches!(
        backend.snapshot().map(|_| ()),
        Err(BoltError::Poisoned)
    ));
    assert!(matches!(backend.defragment(), Err(BoltError::Poisoned)));
    assert_eq!(number(&backend.reader()), 2);
}

#[test]
fn what_finds_no_room_is_seen_and_committed_when_there_is_room() {
    let disk = MemDisk::new();
    let backend = open(&disk).unwrap();
    backend.commit().unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let mut batch = WriteBatch::default();
    let large = Arc::from(vec![1; 4 << 20]);
    batch.put(Bucket::Key, b"large", large);
    backend.write(batch);
    for last in 1..=3 {
        write_number(&backend, last);
        assert!(matches!(backend.commit(), Err(BoltError::Full(_))));
        assert_eq!(number(&backend.reader()), last);
    }
    disk.set_capacity(None);
    backend.commit().unwrap();
    assert_eq!((backend.pending_changes(), backend.pending_bytes()), (0, 0));
    drop(backend);
    let reader = open(&disk).unwrap().reader();
    assert_eq!(number(&reader), 3);
    assert!(reader.get(Bucket::Key, b"large").unwrap().is_some());
}

#[test]
fn only_what_is_not_in_the_file_is_pending() {
    let backend = Backend::default();
    assert_eq!(backend.commit().unwrap(), CommitStats::default());
    backend.write(WriteBatch::default());
    assert_eq!(backend.pending_changes(), 0);
    write_number(&backend, 1);
    write_number(&backend, 2);
    assert_eq!(
        backend.pending_changes(),
        10,
        "changes of the same key count, too"
    );
    let stats = backend.commit().unwrap();
    assert_eq!(backend.pending_changes(), 0);
    // Everything is inline in the tree of buckets.
    assert_eq!((stats.pages, stats.bytes), (1, 4096));
}

#[test]
fn a_snapshot_holds_what_was_written_before_it() {
    let backend = Backend::default();
    (1..50).for_each(|number| write_number(&backend, number));
    let mut snapshot = backend.snapshot().unwrap();
    assert_eq!(snapshot.len(), backend.size_bytes());
    (50..100).for_each(|number| write_number(&backend, number));
    backend.commit().unwrap();
    let mut bytes = Vec::new();
    snapshot.read_to_end(&mut bytes).unwrap();
    assert_eq!(
        (bytes.len() as u64, snapshot.remaining_bytes()),
        (snapshot.len(), 0)
    );
    let disk = MemDisk::new();
    let file = disk
        .open(Path::new("/db"), OpenMode::CreateNew { mode: 0o600 })
        .unwrap();
    file.write_all_at(&[std::io::IoSlice::new(&bytes)], 0)
        .unwrap();
    drop(file);
    assert_eq!(number(&open(&disk).unwrap().reader()), 49);
}

#[test]
fn the_hash_is_that_of_go() {
    let disk = MemDisk::new();
    let file = disk
        .open(Path::new("/db"), OpenMode::CreateNew { mode: 0o600 })
        .unwrap();
    let bytes = include_bytes!("../../../tests/data/bolt/3.7.1-small.db");
    file.write_all_at(&[std::io::IoSlice::new(bytes)], 0)
        .unwrap();
    drop(file);
    let options = Options {
        access: Access::ReadOnly,
        ..Options::default()
    };
    let backend = Backend::open(Arc::new(disk), Path::new("/db"), options).unwrap();
    assert!(!backend.created());
    assert_eq!(
        backend.hash(false).unwrap(),
        455_943_769,
        "as `snapshot status` prints it"
    );
    let without_meta = backend.hash(true).unwrap();
    let skipped = [b"consistent_index".as_slice(), b"term", b"storageVersion"];
    for key in skipped {
        assert!(backend.reader().get(Bucket::Meta, key).unwrap().is_some());
        put(&backend, Bucket::Meta, key, b"other");
    }
    assert_eq!(backend.hash(true).unwrap(), without_meta);
    assert_ne!(backend.hash(false).unwrap(), 455_943_769);
    put(&backend, Bucket::Meta, b"confState", b"other");
    assert_ne!(backend.hash(true).unwrap(), without_meta);
}

#[test]
fn a_new_database_has_all_buckets() {
    let disk = MemDisk::new();
    let backend = open(&disk).unwrap();
    assert!(backend.created());
    let names = |backend: &Backend| {
        backend
            .reader()
            .committed()
            .buckets()
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&backend),
        Bucket::ALL.map(|bucket| bucket.name().to_vec())
    );
    assert_eq!(backend.size_bytes(), 4 * 4096);
    drop(backend);
    let backend = open(&disk).unwrap();
    assert!(!backend.created());
    assert_eq!(names(&backend).len(), 10);
}

#[test]
fn keys_compare_as_their_bytes() {
    let mut rng = Rng::with_seed(3);
    let mut keys: Vec<Vec<u8>> = (0..500)
        .map(|_| vec![rng.u8(..4); rng.usize(1..50)])
        .collect();
    let mut same: Vec<Key> = keys.iter().map(|key| key.as_slice().into()).collect();
    keys.sort();
    same.sort();
    assert!(
        keys.iter()
            .zip(&same)
            .all(|(bytes, key)| bytes[..] == key[..])
    );
}

/// What memory tells is what the file would, and of a file that was just opened it tells nothing.
#[test]
fn what_is_in_memory_is_told_without_the_file() {
    let disk = MemDisk::new();
    let backend = open(&disk).unwrap();
    let mut rng = Rng::with_seed(4);
    let keys: Vec<[u8; 2]> = (0..4000_u16).map(u16::to_be_bytes).collect();
    for round in 0..20 {
        for _ in 0..200 {
            put(&backend, Bucket::Key, &keys[rng.usize(..4000)], &[7; 300]);
        }
        if round % 3 == 0 {
            backend.commit().unwrap();
        }
        let reader = backend.reader();
        for key in &keys {
            if let Cached::Known(found) = reader.get_cached(Bucket::Key, key).unwrap() {
                assert_eq!(found, reader.get(Bucket::Key, key).unwrap());
            }
        }
    }
    backend.commit().unwrap();
    drop(backend);
    let reader = open(&disk).unwrap().reader();
    let mut known = 0;
    for key in &keys {
        let before = reader.get_cached(Bucket::Key, key).unwrap();
        known += usize::from(before != Cached::Unknown);
        let truth = reader.get(Bucket::Key, key).unwrap();
        let after = reader.get_cached(Bucket::Key, key).unwrap();
        assert_eq!(after, Cached::Known(truth));
    }
    // A page has a dozen keys, of which the first one brings it to memory.
    assert!((3000..3900).contains(&known), "{known}");
}

/// The system's memory counts, too, where the file system tells of it; a long value is not read from
/// there by whoever must not wait.
#[test]
fn what_the_system_has_in_memory_is_told_without_a_wait() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let open = || Backend::open(Arc::new(OsDisk), &path, Options::default()).unwrap();
    let values = [vec![1; 300], vec![2; 30_000], vec![3; 300_000]];
    let backend = open();
    for (key, value) in (0..).zip(&values) {
        put(&backend, Bucket::Key, &[key], value);
    }
    backend.commit().unwrap();
    drop(backend);
    let tells = OsDisk
        .open(&path, OpenMode::Read)
        .and_then(|file| file.try_read_exact_at(&mut [0; 1000], 0))
        .unwrap();
    for (key, value) in (0..).zip(&values) {
        let reader = open().reader();
        let expected = match tells && value.len() < 50_000 {
            true => Cached::Known(Some(Value::from(&**value))),
            false => Cached::Unknown,
        };
        let found = reader.get_cached(Bucket::Key, &[key]).unwrap();
        assert!(found == expected, "a value of {} bytes", value.len());
    }
}

/// Whether a key is on the leaf of the one before, on another, above the file, or nowhere.
#[test]
fn a_lookup_finds_what_a_get_finds() {
    let backend = Backend::default();
    let mut rng = Rng::with_seed(5);
    for round in 0..6 {
        let mut batch = WriteBatch::default();
        for _ in 0..1500 {
            let key = rng.u16(..9000).to_be_bytes();
            match rng.u8(..4) {
                0 => batch.delete(Bucket::Key, &key),
                _ => batch.put(Bucket::Key, &key, [rng.u8(..); 100][..].into()),
            }
        }
        backend.write(batch);
        if round % 2 == 0 {
            backend.commit().unwrap();
        }
        let reader = backend.reader();
        let (mut lookup, mut found) = (reader.lookup(Bucket::Key), 0);
        for _ in 0..100 {
            let first = rng.u16(..9000);
            for key in first..first + rng.u16(..50) {
                let value = lookup.get(&key.to_be_bytes()).unwrap();
                found += usize::from(value.is_some());
                assert_eq!(value, reader.get(Bucket::Key, &key.to_be_bytes()).unwrap());
            }
        }
        assert!(found > 200, "{found}");
        assert_eq!(reader.lookup(Bucket::Lease).get(b"k").unwrap(), None);
    }
}

#[test]
fn a_bucket_is_split_into_parts_of_about_one_size() {
    let backend = Backend::default();
    let mut batch = WriteBatch::default();
    for number in 0..20_000_u32 {
        batch.put(Bucket::Key, &number.to_be_bytes(), [1; 60][..].into());
    }
    backend.write(batch);
    assert!(backend.reader().split(Bucket::Key, 4).unwrap().is_empty());
    backend.commit().unwrap();
    let reader = backend.reader();
    for parts in [1, 2, 3, 8] {
        let cuts = reader.split(Bucket::Key, parts).unwrap();
        assert_eq!(cuts.len(), parts - 1);
        let starts = [&[][..]].into_iter().chain(cuts.iter().map(|cut| &**cut));
        let ends = cuts.iter().map(|cut| Some(&**cut)).chain([None]);
        for (start, end) in starts.zip(ends) {
            let count = reader.range(Bucket::Key, start, end).count();
            let share = 20_000 / parts;
            let range = share * 7 / 10..share * 13 / 10;
            assert!(range.contains(&count), "{count} of {parts} parts");
        }
    }
}
