//! What is refused and what a refusal leaves; crashes; readers on other threads.

use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message;
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{InternalRaftRequest, PutRequest, RequestOp, TxnRequest};
use retcd_proto::raftpb::EntryType;
use retcd_state::machine::{CopyError, OpenError};
use retcd_storage::backend::{Bucket, WriteBatch};
use retcd_storage::disk::Fault;

use super::entries::Log;
use super::*;

/// A log of some length that touches everything.
fn log() -> Log {
    let mut log = Log::new(77);
    (0..200).for_each(|_| log.grow());
    log
}

/// A member that has applied, and committed, the first `count` entries of a log.
fn member(log: &Log, count: usize) -> Member {
    let mut member = Member::new();
    member.apply(log.behind(0, count));
    member.backend.commit().unwrap();
    member
}

/// Checks that a refused restore has changed nothing, and that the member goes on.
fn check_unharmed(mut member: Member, before: State, log: &Log) {
    assert_eq!(member.state(), before);
    member.apply(log.behind(member.index(), usize::MAX));
    let expected = self::member(log, usize::MAX).state();
    assert_eq!(member.state(), expected);
    member.backend.commit().unwrap();
    assert_eq!(member.crash(1).state(), expected);
}

#[test]
fn only_a_later_state_of_the_same_history_is_taken() {
    let log = log();
    for (have, received) in [(100, 100), (100, 99), (100, 1)] {
        let (mut behind, other) = (member(&log, have), member(&log, received));
        let before = behind.state();
        let refused = behind.restore_from(&other).unwrap_err();
        let expected = format!("the received database is at index {received}, not above {have}");
        assert_eq!(refused.to_string(), expected);
        let left = snap::database_path(Path::new(SNAP_DIR), received as u64);
        assert!(behind.disk.exists(&left).unwrap());
        check_unharmed(behind, before, &log);
    }

    let mut nothing = Member::new();
    let empty = |index| Entry {
        index: Some(index),
        term: Some(1),
        ..Default::default()
    };
    nothing.apply(&(1..=150).map(empty).collect::<Vec<_>>());
    let mut behind = member(&log, 100);
    let before = behind.state();
    let refused = behind.restore_from(&nothing).unwrap_err();
    assert!(
        matches!(refused, RestoreError::OtherHistory { received: 1, .. }),
        "{refused}"
    );
    check_unharmed(behind, before, &log);
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing() {
    let log = log();
    type Damage = (&'static str, fn(&mut WriteBatch));
    let damages: [Damage; 6] = [
        ("version", |batch| {
            let version = b"3.9.0".as_slice().into();
            batch.put(Bucket::Meta, b"storageVersion", version);
        }),
        ("index", |batch| {
            batch.put(Bucket::Meta, b"consistent_index", b"7"[..].into());
        }),
        ("key", |batch| {
            batch.put(Bucket::Key, b"\xffno revision", b"7"[..].into());
        }),
        ("lease", |batch| {
            batch.put(Bucket::Lease, b"\xff", b"\xff"[..].into());
        }),
        ("alarm", |batch| {
            batch.put(Bucket::Alarm, b"\xff", b""[..].into());
        }),
        ("members", |batch| {
            batch.put(Bucket::Members, b"7", b"no json"[..].into());
        }),
    ];
    for (name, damage) in damages {
        let (mut behind, other) = (member(&log, 100), member(&log, 150));
        let mut copy = DatabaseCopy::take(&other.backend, &other.machine.v2_reader()).unwrap();
        let path = behind.receive(&mut copy);
        let disk = Arc::new(behind.disk.clone());
        let file = Backend::open(disk, &path, Options::default()).unwrap();
        let mut batch = WriteBatch::default();
        damage(&mut batch);
        file.write(batch);
        file.commit().unwrap();
        drop(file);
        let before = behind.state();
        let refused = behind.machine.restore(&path);
        assert!(
            matches!(refused, Err(RestoreError::Unusable(_))),
            "{name}: {refused:?}"
        );
        check_unharmed(behind, before, &log);
    }
    let mut behind = member(&log, 100);
    let before = behind.state();
    let refused = behind.machine.restore(Path::new("/snap/absent.snap.db"));
    assert!(matches!(
        refused,
        Err(RestoreError::Unusable(OpenError::Backend(_)))
    ));
    check_unharmed(behind, before, &log);
}

/// A new member has yet to write the first revision of users.
#[test]
fn what_was_to_be_written_to_the_old_database_is_not_written_to_the_new_one() {
    let other = member(&log(), 150);
    let revision = other.auth.read().revision();
    assert!(revision > 1, "nobody has changed users");
    let mut new = Member::new();
    new.restore_from(&other).unwrap();
    let applied = other.machine.applied();
    let empty = Entry {
        index: Some(applied.index + 1),
        term: Some(applied.term),
        ..Default::default()
    };
    new.apply(&[empty]);
    new.backend.commit().unwrap();
    assert_eq!(new.crash(1).auth.read().revision(), revision);
}

/// A database that the Go etcd wrote, with the digest of a backup behind it, as a file may have
/// more bytes than the database needs.
#[test]
fn a_database_of_go_is_taken() {
    let bytes = include_bytes!("../../../storage/tests/data/bolt/3.7.1-small.db");
    let mut behind = Member::new();
    let path = snap::database_path(Path::new(SNAP_DIR), 20);
    let mode = OpenMode::CreateNew { mode: 0o600 };
    let file = behind.disk.open(&path, mode).unwrap();
    file.write_all_at(&[IoSlice::new(bytes)], 0).unwrap();
    file.sync_data().unwrap();
    drop(file);
    let restored = behind.machine.restore(&path).unwrap();
    assert_eq!(behind.backend.hash(false).unwrap(), 455_943_769);
    let membership = behind.membership.read().clone();
    assert_eq!(membership.conf_state(), &restored.conf_state);
    assert_eq!(membership.voters().count(), 1);
    assert_eq!(behind.machine.applied(), restored.applied);
    let next = pair(restored.applied.index + 1);
    behind.apply(&[next]);
    assert_eq!(behind.reader.revision(), restored.revision + 1);
    let state = behind.state();
    behind.backend.commit().unwrap();
    assert_eq!(behind.crash(3).state(), state);
}

#[test]
fn there_is_no_copy_of_nothing() {
    let member = Member::new();
    let copy = DatabaseCopy::take(&member.backend, &member.machine.v2_reader());
    assert!(matches!(copy.map(|_| ()), Err(CopyError::Empty)));
}

#[test]
fn the_copys_snapshot_tells_what_the_copy_holds() {
    let log = log();
    let other = member(&log, 150);
    let copy = DatabaseCopy::take(&other.backend, &other.machine.v2_reader()).unwrap();
    let snapshot = copy.head.to_snapshot();
    let metadata = snapshot.metadata.unwrap();
    assert_eq!((metadata.index(), metadata.term()), (150, 4));
    let conf_state = metadata.conf_state.unwrap();
    assert_eq!(&conf_state, other.membership.read().conf_state());
    assert!(conf_state.voters.is_sorted() && !conf_state.voters.is_empty());

    let document = snap::Membership::from_document(&snapshot.data.unwrap()).unwrap();
    let membership = other.membership.read();
    let mut ids: Vec<u64> = document.members.iter().map(|member| member.id).collect();
    ids.sort_unstable();
    assert!(ids.iter().eq(membership.members().map(|member| &member.id)));
    for found in &document.members {
        let member = membership.member(found.id).unwrap();
        assert_eq!(found.peer_urls, member.peer_urls());
        assert_eq!(found.client_urls, member.client_urls());
        assert_eq!(
            (&found.name, found.is_learner),
            (&member.name, member.is_learner)
        );
    }
    let mut removed = document.removed;
    removed.sort_unstable();
    assert!(removed.iter().copied().eq(membership.removed()));
    assert_eq!(document.version.as_deref(), Some("3.7.0"));
}

#[test]
fn a_crash_leaves_the_old_state_or_the_new_one() {
    let log = log();
    let other = member(&log, 150);
    let mut outcomes = [0, 0];
    for at in 1.. {
        let mut behind = member(&log, 100);
        let mut copy = DatabaseCopy::take(&other.backend, &other.machine.v2_reader()).unwrap();
        let path = behind.receive(&mut copy);
        // Applied but not committed: of the old state only.
        let (committed, pending) = (behind.state(), log.behind(100, 10));
        behind.apply(pending);
        behind.disk.inject(Fault::PowerLoss(at));
        let result = behind.machine.restore(&path);
        let done = result.is_ok();
        if !done {
            assert!(matches!(
                result,
                Err(RestoreError::Unusable(_) | RestoreError::Replace(_))
            ));
        }
        let mut behind = behind.crash(at);
        let found = behind.state();
        let new = found == other.state();
        outcomes[usize::from(new)] += 1;
        assert!(new || !done && found == committed, "operation {at}");
        if !new {
            behind.machine.restore(&path).unwrap();
            assert_eq!(behind.state(), other.state());
        }
        if done {
            break;
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

/// An entry that writes its number to two keys.
fn pair(number: u64) -> Entry {
    let op = |key: &'static str| RequestOp {
        request: Some(Request::RequestPut(PutRequest {
            key: key.into(),
            value: number.to_string().into(),
            ..Default::default()
        })),
    };
    let request = InternalRaftRequest {
        txn: Some(TxnRequest {
            success: vec![op("a"), op("b")],
            ..Default::default()
        }),
        ..Default::default()
    };
    Entry {
        index: Some(number),
        term: Some(1),
        r#type: Some(EntryType::EntryNormal as i32),
        data: Some(request.encode_to_vec().into()),
    }
}

#[test]
fn readers_on_other_threads_see_one_state_or_the_other() {
    const ENTRIES: u64 = 600;
    let entries: Vec<Entry> = (1..=ENTRIES).map(pair).collect();
    let (mut ahead, mut behind) = (Member::new(), Member::new());
    let (reader, backend) = (behind.reader.clone(), behind.backend.clone());
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut last = 1;
            while !done.load(Ordering::Relaxed) {
                let view = reader.view();
                let revision = view.revision().get();
                assert!(revision >= last, "{revision} after {last}");
                last = revision;
                for at in [0, (revision - 3).max(1)] {
                    let kvs = all(&view, at).kvs;
                    let seen = if at == 0 { revision } else { at };
                    let value = (seen - 1).to_string();
                    for kv in kvs.iter() {
                        assert_eq!(kv.unwrap().value(), value.as_bytes(), "at {seen}");
                    }
                    assert_eq!(kvs.len(), if seen == 1 { 0 } else { 2 });
                }
                assert_eq!(reader.hash_kv(0).unwrap().0.compact_revision, -1);
            }
        });
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                _ = backend.commit().unwrap();
            }
        });
        for round in entries.chunks(30) {
            let (own, missed) = round.split_at(15);
            behind.apply(own);
            ahead.apply(own);
            ahead.apply(missed);
            behind.restore_from(&ahead).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(behind.state(), ahead.state());
    assert_eq!(behind.index(), ENTRIES);
}
