//! A file that takes the database's place: for readers of every age, beside commits on other
//! threads, and on a disk that fails at any moment.

use super::*;

/// Where the other file lies.
const RECEIVED: &str = "/0000000000000007.snap.db";

/// Puts a database with batches up to `number` at [`RECEIVED`].
fn receive(disk: &MemDisk, number: u64) {
    let path = Path::new(RECEIVED);
    let other = Backend::open(Arc::new(disk.clone()), path, Options::default()).unwrap();
    (1..=number).for_each(|number| write_number(&other, number));
    other.commit().unwrap();
}

fn overwrite(disk: &MemDisk, change: impl FnOnce(&mut Vec<u8>)) {
    let path = Path::new(RECEIVED);
    let file = disk.open(path, OpenMode::Write).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    change(&mut bytes);
    file.set_len(bytes.len() as u64).unwrap();
    file.write_all_at(&[std::io::IoSlice::new(&bytes)], 0)
        .unwrap();
}

#[test]
fn readers_keep_the_file_that_they_were_opened_on() {
    let disk = MemDisk::new();
    let backend = open(&disk).unwrap();
    write_number(&backend, 1);
    backend.commit().unwrap();
    let committed = backend.reader();
    write_number(&backend, 2);
    let pending = backend.reader();
    receive(&disk, 9);

    let replacement = backend.open_replacement(Path::new(RECEIVED)).unwrap();
    assert_eq!(number(&replacement.reader()), 9);
    let installed = backend.install(replacement).unwrap();
    assert_eq!(number(&backend.reader()), 2, "not published yet");
    installed.publish();
    assert_eq!(number(&backend.reader()), 9);
    assert_eq!((number(&committed), number(&pending)), (1, 2));
    assert_eq!(
        (backend.pending_changes(), backend.pending_bytes()),
        (0, 0),
        "what was pending belongs to the old file"
    );

    write_number(&backend, 10);
    backend.commit().unwrap();
    backend.defragment().unwrap();
    assert_eq!((number(&committed), number(&pending)), (1, 2));
    assert_eq!(backend.open_read_transactions(), 3);
    drop((committed, pending));
    assert_eq!(backend.open_read_transactions(), 1, "the backend's own");
    assert!(!disk.exists(Path::new(RECEIVED)).unwrap());
    assert!(
        matches!(open(&disk).map(|_| ()), Err(BoltError::Locked)),
        "the new file is locked as the old one was"
    );
    drop(backend);
    assert_eq!(number(&open(&disk).unwrap().reader()), 10);
}

#[test]
fn missing_buckets_are_created() {
    let disk = MemDisk::new();
    let backend = open(&disk).unwrap();
    let db = Db::open(
        Arc::new(disk.clone()),
        Path::new(RECEIVED),
        Options::default(),
    )
    .unwrap();
    let run = Run {
        bucket: b"key",
        changes: Vec::new(),
    };
    db.commit(&[run]).unwrap();
    drop(db);
    backend.replace(Path::new(RECEIVED)).unwrap();
    assert_eq!(backend.reader().committed().buckets().count(), 10);
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing() {
    let disk = MemDisk::new();
    let backend = open(&disk).unwrap();
    write_number(&backend, 1);
    let replace = || backend.replace(Path::new(RECEIVED)).unwrap_err();
    assert!(
        matches!(replace(), BoltError::Io(error) if error.kind() == std::io::ErrorKind::NotFound)
    );
    receive(&disk, 9);
    let file = disk.open(Path::new(RECEIVED), OpenMode::Write).unwrap();
    assert!(file.try_lock(crate::disk::Lock::FlockExclusive).unwrap());
    assert!(matches!(replace(), BoltError::Locked));
    drop(file);
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.clear(),
        |bytes| bytes.truncate(3 * 4096),
        |bytes| bytes[..2 * 4096].fill(0),
        // The tree of buckets, wherever it is.
        |bytes| bytes[2 * 4096..].fill(0),
    ];
    for damage in damages {
        disk.remove_file(Path::new(RECEIVED)).unwrap();
        receive(&disk, 9);
        overwrite(&disk, damage);
        let error = replace();
        assert!(matches!(error, BoltError::Damaged(_)), "{error}");
        assert!(disk.exists(Path::new(RECEIVED)).unwrap());
    }
    // A replacement that is not wanted after all.
    disk.remove_file(Path::new(RECEIVED)).unwrap();
    receive(&disk, 9);
    drop(backend.open_replacement(Path::new(RECEIVED)).unwrap());

    write_number(&backend, 2);
    backend.commit().unwrap();
    drop(backend);
    assert_eq!(number(&open(&disk).unwrap().reader()), 2);
}

#[test]
fn a_backend_that_may_not_write_is_not_replaced() {
    let disk = MemDisk::new();
    drop(open(&disk).unwrap());
    receive(&disk, 9);
    let options = Options {
        access: Access::ReadOnly,
        ..Options::default()
    };
    let backend = Backend::open(Arc::new(disk), Path::new("/db"), options).unwrap();
    let error = backend.replace(Path::new(RECEIVED)).unwrap_err();
    assert!(matches!(error, BoltError::ReadOnly));
}

/// How far [`run`] came.
struct Came {
    /// The numbers that the database may have after a crash.
    may_be: Vec<u64>,
    error: bool,
}

/// A life with a replacement in its middle: 3 batches, of which the last is never committed, then a
/// file with 9, then a tenth.
fn run(backend: &Backend) -> Came {
    let mut came = Came {
        may_be: vec![2],
        error: true,
    };
    let mut work = || -> Result<(), BackendError> {
        write_number(backend, 3);
        came.may_be.push(9);
        backend.replace(Path::new(RECEIVED))?;
        came.may_be.remove(0);
        write_number(backend, 10);
        came.may_be.push(10);
        backend.commit()?;
        came.may_be.remove(0);
        Ok(())
    };
    came.error = work().is_err();
    came
}

fn prepared() -> (MemDisk, Backend) {
    let disk = MemDisk::new();
    let backend = open(&disk).unwrap();
    write_number(&backend, 1);
    write_number(&backend, 2);
    backend.commit().unwrap();
    receive(&disk, 9);
    (disk, backend)
}

#[test]
fn a_crash_leaves_the_old_database_or_the_new_one() {
    let (disk, backend) = prepared();
    let before = disk.counts().changes;
    let whole = run(&backend);
    assert_eq!((whole.may_be, whole.error), (vec![10], false));
    let operations = disk.counts().changes - before;
    assert!(operations > 5, "{operations}");
    for at in 1..=operations {
        let (disk, backend) = prepared();
        disk.inject(Fault::PowerLoss(at));
        let came = run(&backend);
        assert!(came.error, "the power went at operation {at}");
        for seed in 0..6 {
            let disk = disk.fork();
            disk.crash(at * 10 + seed);
            let backend = open(&disk).unwrap();
            let found = number(&backend.reader());
            assert!(
                came.may_be.contains(&found),
                "operation {at}: {found} of {:?}",
                came.may_be
            );
            assert_eq!(backend.reader().committed().check().unwrap(), []);
            // The old one can still be replaced.
            if found == 2 {
                backend.replace(Path::new(RECEIVED)).unwrap();
                assert_eq!(number(&backend.reader()), 9);
            }
        }
    }
}

#[test]
fn a_disk_that_fails_leaves_a_usable_or_a_stopped_backend_and_a_whole_file() {
    for fault in [Fault::Write as fn(u64) -> Fault, Fault::Sync] {
        let mut failures = 0;
        for at in 1..10 {
            let (disk, backend) = prepared();
            disk.inject(fault(at));
            let came = run(&backend);
            failures += u64::from(came.error);
            let seen = number(&backend.reader());
            assert!([3, 10].contains(&seen), "{:?}: sees {seen}", fault(at));
            let after = backend.commit();
            let stopped = matches!(after, Err(BoltError::Poisoned));
            assert!(after.is_ok() || stopped, "{:?}: {after:?}", fault(at));
            disk.crash(at);
            let found = number(&open(&disk).unwrap().reader());
            let expected = match stopped {
                true => came.may_be,
                false => vec![seen],
            };
            assert!(
                expected.contains(&found),
                "{:?}: {found} of {expected:?}",
                fault(at)
            );
        }
        assert!(failures > 1, "{failures} operations of this kind");
    }
}

#[test]
fn threads_see_whole_databases_whatever_is_under_way() {
    const ROUNDS: u64 = 30;
    let disk = MemDisk::new();
    let backend = open(&disk).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                let reader = backend.reader();
                let found = number(&reader);
                assert!(found >= last, "{found} after {last}");
                last = found;
                assert_eq!(number(&reader), found);
            }
        });
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                _ = backend.commit().unwrap();
            }
        });
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                _ = backend.defragment().unwrap();
            }
        });
        for round in 1..=ROUNDS {
            receive(&disk, round * 10);
            backend.replace(Path::new(RECEIVED)).unwrap();
            (1..10).for_each(|more| write_number(&backend, round * 10 + more));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(number(&backend.reader()), ROUNDS * 10 + 9);
    backend.commit().unwrap();
    drop(backend);
    assert_eq!(number(&open(&disk).unwrap().reader()), ROUNDS * 10 + 9);
}

#[test]
fn what_found_no_room_belongs_to_the_old_file() {
    let disk = MemDisk::new();
    let backend = open(&disk).unwrap();
    receive(&disk, 9);
    disk.set_capacity(Some(disk.used_bytes()));
    let mut batch = WriteBatch::default();
    batch.put(Bucket::Key, b"large", Arc::from(vec![1; 4 << 20]));
    backend.write(batch);
    write_number(&backend, 1);
    assert!(matches!(backend.commit(), Err(BoltError::Full(_))));

    disk.set_capacity(None);
    backend.replace(Path::new(RECEIVED)).unwrap();
    assert_eq!(number(&backend.reader()), 9);
    assert_eq!((backend.pending_changes(), backend.pending_bytes()), (0, 0));
}
