//! What survives a loss of power: everything that was synced, and nothing that was never written.

use super::*;

const NEW: OpenMode = OpenMode::CreateNew { mode: 0o600 };

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn write(file: &Arc<dyn File>, data: &[u8], offset: u64) {
    file.write_all_at(&[IoSlice::new(data)], offset).unwrap();
}

fn content(disk: &MemDisk, name: &str) -> Vec<u8> {
    let file = disk.open(path(name), OpenMode::Read).unwrap();
    let mut buf = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut buf, 0).unwrap();
    buf
}

#[test]
fn synced_bytes_and_names_survive_and_others_may_not() {
    let (mut lost, mut kept, mut nameless) = (0, 0, 0);
    for seed in 0..200 {
        let disk = MemDisk::new();
        let durable = disk.open(path("/durable"), NEW).unwrap();
        disk.sync_dir(path("/")).unwrap();
        write(&durable, b"synced", 0);
        durable.sync_data().unwrap();
        write(&durable, b" more", 6);
        let loose = disk.open(path("/loose"), NEW).unwrap();
        write(&loose, b"x", 0);
        loose.sync_data().unwrap();

        disk.crash(seed);
        assert!(durable.len().is_err(), "handles do not outlive the power");
        let found = content(&disk, "/durable");
        match found.as_slice() {
            b"synced" => lost += 1,
            b"synced more" => kept += 1,
            b"synced\0\0\0\0\0" => {}
            other => panic!("seed {seed}: {other:?}"),
        }
        nameless += u32::from(!disk.exists(path("/loose")).unwrap());
    }
    assert!(lost > 0 && kept > 0, "lost {lost}, kept {kept}");
    assert!(nameless > 0 && nameless < 200, "{nameless}");
}

#[test]
fn an_unsynced_write_tears_at_sectors_of_the_file() {
    let mut torn = 0;
    for seed in 0..300 {
        let disk = MemDisk::new();
        let file = disk.open(path("/file"), NEW).unwrap();
        disk.sync_dir(path("/")).unwrap();
        file.allocate(8192).unwrap();
        file.sync_data().unwrap();
        write(&file, &[7; 3000], 100);
        disk.crash(seed);

        let found = content(&disk, "/file");
        assert_eq!(found.len(), 8192);
        let mut sectors = [false; 7];
        for (number, sector) in found[..3584].chunks(512).enumerate() {
            let start = number * 512;
            let written =
                (start..start + 512).map(|at| if (100..3100).contains(&at) { 7 } else { 0 });
            sectors[number] = sector.iter().copied().eq(written);
            assert!(
                sectors[number] || sector.iter().all(|byte| *byte == 0),
                "seed {seed}"
            );
        }
        torn += u32::from(sectors.contains(&true) && sectors.contains(&false));
    }
    assert!(torn > 20, "{torn}");
}

#[test]
fn a_rename_is_atomic_and_carries_the_directory_below_it() {
    let (mut before, mut after) = (0, 0);
    for seed in 0..100 {
        let disk = MemDisk::new();
        disk.create_dir_all(path("/data/wal.tmp")).unwrap();
        let file = disk.open(path("/data/wal.tmp/0.wal"), NEW).unwrap();
        write(&file, b"log", 0);
        file.sync_data().unwrap();
        for dir in ["/", "/data", "/data/wal.tmp"] {
            disk.sync_dir(path(dir)).unwrap();
        }
        disk.rename(path("/data/wal.tmp"), path("/data/wal"))
            .unwrap();
        assert_eq!(disk.read_dir(path("/data")).unwrap(), [path("/data/wal")]);
        disk.crash(seed);
        match disk.exists(path("/data/wal.tmp")).unwrap() {
            true => {
                before += 1;
                assert!(!disk.exists(path("/data/wal")).unwrap());
                assert_eq!(content(&disk, "/data/wal.tmp/0.wal"), b"log");
            }
            false => {
                after += 1;
                assert_eq!(content(&disk, "/data/wal/0.wal"), b"log");
            }
        }
    }
    assert!(before > 0 && after > 0, "before {before}, after {after}");
}

#[test]
fn a_failed_sync_loses_what_it_was_to_save_for_good() {
    let disk = MemDisk::new();
    let file = disk.open(path("/file"), NEW).unwrap();
    disk.sync_dir(path("/")).unwrap();
    write(&file, b"first", 0);
    disk.inject(Fault::Sync(1));
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(content(&disk, "/file"), b"first");
    disk.crash(0);
    assert_eq!(content(&disk, "/file"), b"");
}

#[test]
fn faults_hit_the_operation_they_name() {
    let disk = MemDisk::new();
    let file = disk.open(path("/file"), NEW).unwrap();
    disk.inject(Fault::Write(2));
    disk.inject(Fault::Read(1));
    write(&file, b"abcd", 0);
    assert!(file.write_all_at(&[IoSlice::new(b"efgh")], 4).is_err());
    assert!(file.read_at(&mut [0; 4], 0).is_err());
    assert_eq!(
        content(&disk, "/file"),
        b"abcdef",
        "half of the failed write"
    );

    disk.set_capacity(Some(10));
    assert_eq!(
        file.allocate(11).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    let full = file.write_all_at(&[IoSlice::new(b"ghijk")], 6);
    assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
    write(&file, b"ghij", 6);
    disk.remove_file(path("/file")).unwrap();
    drop(file);
    disk.sync_dir(path("/")).unwrap();
    disk.open(path("/other"), NEW)
        .unwrap()
        .allocate(10)
        .unwrap();
}

#[test]
fn after_a_loss_of_power_nothing_works_until_the_crash() {
    let disk = MemDisk::new();
    let file = disk.open(path("/file"), NEW).unwrap();
    disk.sync_dir(path("/")).unwrap();
    let changes = disk.counts().changes;
    disk.inject(Fault::PowerLoss(2));
    write(&file, b"a", 0);
    assert!(file.write_all_at(&[IoSlice::new(b"b")], 1).is_err());
    assert!(file.sync_data().is_err());
    assert!(disk.exists(path("/file")).is_err());
    assert!(disk.open(path("/new"), NEW).is_err());
    assert_eq!(disk.counts().changes, changes + 2);
    disk.crash(3);
    assert!(disk.exists(path("/file")).unwrap());
}

#[test]
fn locks_are_held_by_handles() {
    let disk = MemDisk::new();
    let first = disk.open(path("/file"), NEW).unwrap();
    let second = disk.open(path("/file"), OpenMode::Write).unwrap();
    assert!(first.try_lock(Lock::OfdExclusive).unwrap());
    assert!(first.try_lock(Lock::OfdExclusive).unwrap());
    assert!(!second.try_lock(Lock::OfdExclusive).unwrap());
    assert!(second.try_lock(Lock::FlockShared).unwrap());
    assert!(first.try_lock(Lock::FlockShared).unwrap());
    assert!(!first.try_lock(Lock::FlockExclusive).unwrap());
    drop(first);
    assert!(second.try_lock(Lock::OfdExclusive).unwrap());
}

#[test]
fn a_fork_goes_its_own_way() {
    let disk = MemDisk::new();
    let file = disk.open(path("/file"), NEW).unwrap();
    disk.sync_dir(path("/")).unwrap();
    write(&file, b"one", 0);
    assert!(file.try_lock(Lock::FlockExclusive).unwrap());
    let fork = disk.fork();
    write(&file, b"two", 0);
    assert_eq!(content(&fork, "/file"), b"one");
    assert_eq!(content(&disk, "/file"), b"two");
    let other = fork.open(path("/file"), OpenMode::Write).unwrap();
    assert!(other.try_lock(Lock::FlockExclusive).unwrap());
}

#[test]
fn content_agrees_with_a_plain_vector() {
    let mut rng = Rng::with_seed(1);
    let disk = MemDisk::new();
    let file = disk.open(path("/file"), NEW).unwrap();
    let mut model: Vec<u8> = Vec::new();
    for _ in 0..500 {
        match rng.u8(..5) {
            0 => {
                let len = rng.usize(..20_000);
                file.set_len(len as u64).unwrap();
                model.resize(len, 0);
            }
            1 => {
                file.sync_data().unwrap();
                let twin = disk.fork();
                twin.crash(rng.u64(..));
                if twin.exists(path("/file")).unwrap() {
                    assert_eq!(content(&twin, "/file"), model);
                }
            }
            _ => {
                let offset = rng.usize(..20_000);
                let data = vec![rng.u8(..); rng.usize(..6000)];
                write(&file, &data, offset as u64);
                model.resize(model.len().max(offset + data.len()), 0);
                model[offset..offset + data.len()].copy_from_slice(&data);
            }
        }
        assert_eq!(content(&disk, "/file"), model);
    }
}

#[test]
fn a_flipped_bit_stays_flipped() {
    let disk = MemDisk::new();
    let file = disk.open(path("/file"), NEW).unwrap();
    disk.sync_dir(path("/")).unwrap();
    write(&file, b"abc", 0);
    file.sync_data().unwrap();
    disk.flip_bit(path("/file"), 1, 0).unwrap();
    assert_eq!(content(&disk, "/file"), b"acc");
    disk.crash(1);
    assert_eq!(content(&disk, "/file"), b"acc");
    assert!(disk.flip_bit(path("/file"), 3, 0).is_err());
    assert_eq!(disk.used_bytes(), 3);
}
