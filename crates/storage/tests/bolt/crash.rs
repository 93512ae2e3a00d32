//! Power that goes at every possible moment, and writes and syncs that fail at every possible
//! moment.
//!
//! A short life of a database (creation, commits that grow the file, a defragmentation, a
//! reopening) runs again and again, and each time another operation of the disk is the one where it
//! ends. What is found afterwards is the state before or after the step in which it ended, and it
//! is sound.

use fastrand::Rng;
use retcd_storage::bolt::{BoltError, Db};
use retcd_storage::disk::{Fault, MemDisk};

use super::{Batch, Model, apply, assert_sound, commit, content, open};

#[derive(Clone)]
enum Step {
    Open,
    Commit(Batch),
    Defragment,
}

fn batch(rng: &mut Rng, step: u64) -> Batch {
    let mut batch = Batch::new();
    let key = batch.entry(b"key".to_vec()).or_default();
    for sub in 0..rng.u64(1..25) {
        key.insert(
            (step * 100 + sub).to_be_bytes().to_vec(),
            Some(vec![step as u8; rng.usize(..600)]),
        );
    }
    for old in 0..step * 100 {
        if rng.u64(..150) < step {
            key.insert(old.to_be_bytes().to_vec(), None);
        }
    }
    let meta = batch.entry(b"meta".to_vec()).or_default();
    meta.insert(b"index".to_vec(), Some(step.to_be_bytes().to_vec()));
    batch
}

fn script(seed: u64) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    let mut steps = vec![Step::Open];
    for step in 1..=12 {
        steps.push(Step::Commit(batch(&mut rng, step)));
        match step {
            4 | 9 => steps.push(Step::Defragment),
            6 => steps.push(Step::Open),
            _ => {}
        }
    }
    steps
}

/// How far a script came.
struct Outcome {
    db: Option<Db>,
    /// After the last step that succeeded.
    done: Model,
    /// If the step that failed had succeeded.
    next: Model,
    /// The step that failed, and why.
    failed: Option<(Step, BoltError)>,
}

fn run(disk: &MemDisk, script: &[Step]) -> Outcome {
    let mut outcome = Outcome {
        db: None,
        done: Model::new(),
        next: Model::new(),
        failed: None,
    };
    for step in script {
        if let Step::Commit(batch) = step {
            apply(&mut outcome.next, batch);
        }
        let db = outcome.db.take();
        let result = match (step, db) {
            (Step::Open, db) => {
                drop(db);
                open(disk, 1024).map(|db| outcome.db = Some(db))
            }
            (step, db) => {
                let db = outcome.db.insert(db.expect("opened first"));
                match step {
                    Step::Commit(batch) => commit(db, batch).map(|_| ()),
                    _ => db.defragment().map(|_| ()),
                }
            }
        };
        if let Err(error) = result {
            outcome.failed = Some((step.clone(), error));
            return outcome;
        }
        outcome.done = outcome.next.clone();
    }
    outcome
}

/// Cuts the power, opens the database, and looks for one of the two states that are right.
fn check_after_crash(disk: &MemDisk, outcome: &Outcome, seed: u64, what: &str) {
    let disk = disk.fork();
    disk.crash(seed);
    let db = open(&disk, 1024).unwrap_or_else(|error| panic!("{what}, crash {seed}: {error}"));
    let found = content(&db.read());
    assert_sound(&db.read());
    assert!(
        found == outcome.done || found == outcome.next,
        "{what}, crash {seed}: neither before nor after"
    );
    let mut after = found;
    let more = batch(&mut Rng::with_seed(seed), 50);
    commit(&db, &more).unwrap();
    apply(&mut after, &more);
    assert_eq!(content(&db.read()), after, "{what}, crash {seed}");
    assert_sound(&db.read());
}

fn changes_of(script: &[Step]) -> u64 {
    let disk = MemDisk::new();
    assert!(run(&disk, script).failed.is_none());
    disk.counts().changes
}

#[test]
fn a_loss_of_power_leaves_the_state_before_or_after() {
    for seed in 0..2 {
        let script = script(seed);
        for at in 1..=changes_of(&script) {
            let disk = MemDisk::new();
            disk.inject(Fault::PowerLoss(at));
            let outcome = run(&disk, &script);
            assert!(outcome.failed.is_some(), "the power went at operation {at}");
            for crash in 0..4 {
                check_after_crash(
                    &disk,
                    &outcome,
                    seed * 1000 + at * 10 + crash,
                    &format!("operation {at}"),
                );
            }
        }
    }
}

/// After an operation failed: reads see the last state, and no commit is accepted unless only a
/// defragmentation was given up.
fn check_after_failure(outcome: &Outcome, what: &str) {
    let Some((step, _)) = &outcome.failed else {
        return;
    };
    let Some(db) = &outcome.db else { return };
    assert_eq!(content(&db.read()), outcome.done, "{what}");
    let again = commit(db, &Batch::new());
    match step {
        Step::Commit(_) => assert!(
            matches!(again, Err(BoltError::Poisoned)),
            "{what}: {again:?}"
        ),
        _ => assert!(
            matches!(again, Ok(_) | Err(BoltError::Poisoned)),
            "{what}: {again:?}"
        ),
    }
}

#[test]
fn a_failed_write_or_sync_is_the_last() {
    let script = script(7);
    let changes = changes_of(&script);
    for fault in [
        Fault::Write as fn(u64) -> Fault,
        Fault::Sync as fn(u64) -> Fault,
    ] {
        let mut failures = 0;
        for at in 1..=changes {
            let disk = MemDisk::new();
            disk.inject(fault(at));
            let outcome = run(&disk, &script);
            let what = format!("{:?}", fault(at));
            check_after_failure(&outcome, &what);
            failures += u64::from(outcome.failed.is_some());
            let lost = outcome.db.is_none();
            if !lost {
                check_after_crash(&disk, &outcome, at, &what);
            }
        }
        assert!(failures > 20, "only {failures} operations of this kind");
    }
}

#[test]
fn a_defragmentation_that_fails_early_changes_nothing() {
    let disk = MemDisk::new();
    let db = open(&disk, 1024).unwrap();
    let mut model = Model::new();
    let first = batch(&mut Rng::with_seed(1), 5);
    commit(&db, &first).unwrap();
    apply(&mut model, &first);
    disk.inject(Fault::Write(3));
    assert!(db.defragment().is_err());
    let second = batch(&mut Rng::with_seed(2), 6);
    commit(&db, &second).unwrap();
    apply(&mut model, &second);
    db.defragment().unwrap();
    assert_eq!(content(&db.read()), model);
}

#[test]
fn a_commit_that_finds_no_room_changes_nothing_and_can_be_tried_again() {
    for capacity in (60_000..400_000).step_by(7777) {
        let disk = MemDisk::new();
        let db = open(&disk, 4096).unwrap();
        disk.set_capacity(Some(capacity));
        let mut model = Model::new();
        let mut rng = Rng::with_seed(capacity);
        let mut refused = 0;
        let waiting = loop {
            let key = rng.u64(..1000).to_be_bytes().to_vec();
            let value = vec![rng.u8(..); rng.usize(..9000)];
            let next = Batch::from([(b"key".to_vec(), [(key, Some(value))].into())]);
            match commit(&db, &next) {
                Ok(_) => apply(&mut model, &next),
                Err(error) => {
                    assert!(is_full(&error), "{error}");
                    assert_eq!(content(&db.read()), model);
                    refused += 1;
                }
            }
            if refused == 3 {
                break next;
            }
        };
        assert!(disk.used_bytes() + 20_000 > capacity);
        // Deletions take a few pages before they make room; what a reader sees stays.
        let (pinned, before) = (db.read(), model.clone());
        disk.set_capacity(Some(capacity + 40_000));
        let deleted = model[&b"key".to_vec()].keys();
        let deleted = deleted.map(|key| (key.clone(), None)).collect();
        let all = Batch::from([(b"key".to_vec(), deleted)]);
        commit(&db, &all).unwrap();
        apply(&mut model, &all);
        assert_eq!(content(&pinned), before);
        drop(pinned);
        commit(&db, &waiting).unwrap();
        apply(&mut model, &waiting);
        assert_eq!(content(&db.read()), model);
        drop(db);
        assert_eq!(content(&open(&disk, 4096).unwrap().read()), model);
    }
}

fn is_full(error: &BoltError) -> bool {
    matches!(error, BoltError::Full(error) if error.kind() == std::io::ErrorKind::StorageFull)
}
