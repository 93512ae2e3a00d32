//! Random histories: whatever is committed, pinned, reopened and defragmented, the file holds what
//! a map holds, and no page is lost.

use std::io::Read;
use std::path::Path;

use fastrand::Rng;
use retcd_storage::bolt::{Db, ReadTx};
use retcd_storage::disk::{Disk, MemDisk, OpenMode};

use super::{Batch, Model, PATH, apply, assert_sound, commit, content, disk_with, open};

struct World {
    disk: MemDisk,
    page_size: u32,
    db: Option<Db>,
    model: Model,
    readers: Vec<(ReadTx, Model)>,
    rng: Rng,
    next_key: u64,
}

impl World {
    fn new(seed: u64, page_size: u32) -> World {
        let disk = MemDisk::new();
        let db = open(&disk, page_size).unwrap();
        let (model, readers, rng) = (Model::new(), Vec::new(), Rng::with_seed(seed));
        World {
            disk,
            page_size,
            db: Some(db),
            model,
            readers,
            rng,
            next_key: 0,
        }
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("only gone while it is reopened")
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.rng.u8(..60) {
            0 => self.rng.usize(..5 * self.page_size as usize),
            1..5 => self.rng.usize(..self.page_size as usize),
            _ => self.rng.usize(..80),
        };
        let byte = self.rng.u8(..);
        vec![byte; len]
    }

    /// Ascending keys, of which an early part is deleted from time to time, as in etcd's bucket
    /// `key`.
    fn change_history(&mut self, batch: &mut Batch) {
        let bucket = batch.entry(b"history".to_vec()).or_default();
        if self.rng.u8(..8) == 0 {
            let old = self.model.get(b"history".as_slice()).into_iter().flatten();
            let rng = &mut self.rng;
            for (key, _) in old.take(rng.usize(..800)) {
                if rng.u8(..10) > 0 {
                    bucket.insert(key.clone(), None);
                }
            }
        }
        for _ in 0..self.rng.usize(..60) {
            self.next_key += 1;
            let (key, value) = (self.next_key.to_be_bytes().to_vec(), self.value());
            batch
                .entry(b"history".to_vec())
                .or_default()
                .insert(key, Some(value));
        }
    }

    /// Keys from a small space, set and deleted at random.
    fn change_random(&mut self, batch: &mut Batch, bucket: &[u8], keys: u32) {
        for _ in 0..self.rng.usize(..40) {
            let number = self.rng.u32(..keys);
            // Some keys are longer than a small page.
            let mut key =
                format!("{:08}", number.wrapping_mul(0x9e37_79b9) % 100_000_000).into_bytes();
            key.resize(
                key.len()
                    + if number.is_multiple_of(97) {
                        1500
                    } else {
                        number as usize % 20
                    },
                b'k',
            );
            let value = match self.rng.u8(..5) {
                0..2 => None,
                _ => Some(self.value()),
            };
            batch.entry(bucket.to_vec()).or_default().insert(key, value);
        }
    }

    /// Deletes a range of a bucket, or all of it.
    fn clear(&mut self, batch: &mut Batch) {
        let Some((bucket, pairs)) = self
            .model
            .iter()
            .nth(self.rng.usize(..self.model.len().max(1)))
        else {
            return;
        };
        let skip = self
            .rng
            .choice([0, 0, pairs.len() / 3])
            .expect("there are some");
        let take = self
            .rng
            .choice([pairs.len(), pairs.len() / 2])
            .expect("there are some");
        let keys = pairs.keys().skip(skip).take(take);
        batch
            .entry(bucket.clone())
            .or_default()
            .extend(keys.map(|key| (key.clone(), None)));
    }

    fn commit(&mut self) {
        let mut batch = Batch::new();
        match self.rng.u8(..20) {
            0 => self.clear(&mut batch),
            1..8 => self.change_random(&mut batch, b"random", 600),
            8..12 => self.change_random(&mut batch, b"few", 6),
            12 => self.change_random(
                &mut batch,
                format!("bucket {}", self.next_key % 9).as_bytes(),
                30,
            ),
            _ => self.change_history(&mut batch),
        }
        commit(self.db(), &batch).unwrap();
        apply(&mut self.model, &batch);
    }

    fn reopen(&mut self) {
        self.readers.clear();
        let unused = self.db().read().unused_pages();
        self.db = None;
        self.db = Some(open(&self.disk, self.page_size).unwrap());
        assert_eq!(
            self.db().read().unused_pages(),
            unused,
            "pages got lost or were freed too early"
        );
    }

    fn check_newest(&mut self) {
        let tx = self.db().read();
        assert_sound(&tx);
        assert_eq!(content(&tx), self.model);
    }

    fn check_lookups(&mut self) {
        let tx = self.db().read();
        for (name, pairs) in &self.model {
            for (key, value) in pairs.iter().skip(self.rng.usize(..7)).step_by(11) {
                let entry = tx.get(name, key).unwrap().expect("the key is there");
                assert_eq!(entry.value(), value);
                let mut absent = key.clone();
                absent.push(0);
                assert!(tx.get(name, &absent).unwrap().is_none());
            }
            let bound = self.rng.u32(..).to_be_bytes();
            let (start, end) = (
                &bound[..self.rng.usize(..4)],
                self.rng.u8(..).to_string().into_bytes(),
            );
            let found = tx
                .range(name, start, Some(&end))
                .map(|entry| entry.unwrap().key().to_vec());
            let expected = pairs
                .keys()
                .filter(|key| key.as_slice() >= start && **key < end);
            assert!(
                found.eq(expected.cloned()),
                "{name:?} from {start:?} to {end:?}"
            );
        }
    }

    fn check_reader(&mut self) {
        if self.readers.is_empty() {
            return;
        }
        let (tx, model) = self
            .readers
            .swap_remove(self.rng.usize(..self.readers.len()));
        assert_eq!(content(&tx), model);
        assert_sound(&tx);
    }

    fn step(&mut self) {
        match self.rng.u8(..100) {
            0..3 => self.reopen(),
            3..5 => _ = self.db().defragment().unwrap(),
            5..20 => self.readers.push((self.db().read(), self.model.clone())),
            20..32 => self.check_reader(),
            32..36 => self.check_newest(),
            36..40 => self.check_lookups(),
            _ => self.commit(),
        }
    }
}

fn run(seed: u64, page_size: u32, steps: usize) {
    let mut world = World::new(seed, page_size);
    for _ in 0..steps {
        world.step();
    }
    world.check_newest();
    world.reopen();
    world.check_newest();
    assert_eq!(world.db().open_read_transactions(), 0);
}

#[test]
fn small_pages_make_deep_trees() {
    (0..6).for_each(|seed| run(seed, 1024, 300));
}

#[test]
fn usual_pages() {
    (10..16).for_each(|seed| run(seed, 4096, 300));
}

#[test]
fn large_pages() {
    (20..22).for_each(|seed| run(seed, 65536, 200));
}

#[test]
fn deleting_gives_space_back_and_the_file_is_cut() {
    let disk = MemDisk::new();
    let db = open(&disk, 4096).unwrap();
    let commit_all = |value: Option<Vec<u8>>| {
        for step in 0..100u32 {
            let keys = (0..10u32).map(|key| (step * 10 + key).to_be_bytes().to_vec());
            let changes = keys.map(|key| (key, value.clone())).collect();
            commit(&db, &Batch::from([(b"key".to_vec(), changes)])).unwrap();
        }
    };
    commit_all(Some(vec![7; 100_000]));
    let file_bytes = || file_len(&disk);
    assert!(
        db.size_in_use_bytes() > 100_000_000,
        "{}",
        db.size_in_use_bytes()
    );
    assert!(file_bytes() > 100_000_000);
    commit_all(None);
    // The last commits' own pages are still in between.
    commit_all(None);
    assert!(
        db.size_in_use_bytes() < 100_000,
        "{}",
        db.size_in_use_bytes()
    );
    assert!(db.size_bytes() < 1_000_000, "{}", db.size_bytes());
    assert!(file_bytes() < 40_000_000, "{}", file_bytes());
    assert_sound(&db.read());
}

#[test]
fn a_file_that_became_sparse_shrinks_while_it_is_used() {
    let disk = MemDisk::new();
    let db = open(&disk, 4096).unwrap();
    let change = |keys: std::ops::Range<u32>, value: Option<Vec<u8>>| {
        let changes = keys
            .map(|key| (key.to_be_bytes().to_vec(), value.clone()))
            .collect();
        commit(&db, &Batch::from([(b"key".to_vec(), changes)])).unwrap();
    };
    // The last tenth, which stays, lies at the end; some of its nodes are larger than a page.
    (0..200).for_each(|step| change(step * 100..step * 100 + 100, Some(vec![1; 300])));
    change(1_000_000..1_000_050, Some(vec![2; 9000]));
    change(0..18_000, None);
    let model = content(&db.read());
    let before = db.size_bytes();
    let mut written = 0;
    for _ in 0..30 {
        written += commit(&db, &Batch::new()).unwrap().bytes;
    }
    let (size, in_use) = (db.size_bytes(), db.size_in_use_bytes());
    assert!(
        size < 2 * in_use && size < before / 3,
        "{before} before, {size} now, {in_use} in use"
    );
    assert!(
        written < 3 * in_use,
        "{written} bytes written to move {in_use}"
    );
    assert_eq!(content(&db.read()), model);
    assert_sound(&db.read());
    // The directory only: nothing is left to be moved.
    assert_eq!(commit(&db, &Batch::new()).unwrap().pages, 1);
}

fn file_len(disk: &MemDisk) -> u64 {
    disk.open(Path::new(PATH), OpenMode::Read)
        .unwrap()
        .len()
        .unwrap()
}

#[test]
fn ascending_keys_fill_their_pages() {
    let disk = MemDisk::new();
    let db = open(&disk, 4096).unwrap();
    let mut written = 0;
    for step in 0..300u32 {
        let keys = (0..9u32).map(|key| (step * 9 + key).to_be_bytes().to_vec());
        written += 9 * (16 + 4 + 250);
        let changes = keys.map(|key| (key, Some(vec![1; 250]))).collect();
        commit(&db, &Batch::from([(b"key".to_vec(), changes)])).unwrap();
    }
    let in_use = db.size_in_use_bytes();
    assert!(in_use * 84 / 100 < written, "{written} bytes take {in_use}");
}

#[test]
fn a_reader_that_stays_holds_only_what_it_sees() {
    let disk = MemDisk::new();
    let db = open(&disk, 4096).unwrap();
    let overwrite = |byte: u8| {
        let changes = (0..100u32)
            .map(|key| (key.to_be_bytes().to_vec(), Some(vec![byte; 1000])))
            .collect();
        commit(&db, &Batch::from([(b"key".to_vec(), changes)])).unwrap();
    };
    overwrite(0);
    let reader = db.read();
    let seen = content(&reader);
    (1..100).for_each(overwrite);
    // Its own pages, the newest ones, and those that the next commit writes.
    assert!(
        db.size_bytes() < 4 * reader.size_in_use_bytes(),
        "{} bytes",
        db.size_bytes()
    );
    assert_eq!(content(&reader), seen);
}

#[test]
fn a_copy_of_a_pinned_state_is_a_database() {
    let mut world = World::new(77, 4096);
    for _ in 0..150 {
        world.step();
    }
    let (mut copy, model) = (world.db().read().copy(), world.model.clone());
    let len = copy.len();
    // Half of it before, half of it after what is committed meanwhile.
    let mut bytes = Vec::new();
    copy.by_ref().take(len / 2).read_to_end(&mut bytes).unwrap();
    (0..100).for_each(|_| world.commit());
    copy.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, len);
    let restored = open(&disk_with(&bytes), 4096).unwrap();
    assert_sound(&restored.read());
    assert_eq!(content(&restored.read()), model);
}
