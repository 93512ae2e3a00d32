//! `backup` of API version 2: what becomes of a member's files.
//!
//! The source is written here, as a member of etcd 3.3 leaves it: with requests of both versions,
//! changes of the membership and, in one case, a snapshot.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod harness;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness::{Done, etcdctl, run};
use prost::Message;
use retcd_proto::etcdserverpb::{InternalRaftRequest, Metadata, PutRequest, Request};
use retcd_proto::raftpb::{ConfState, Entry, EntryType, HardState, Snapshot, SnapshotMetadata};
use retcd_proto::walpb;
use retcd_state::v2::Store;
use retcd_storage::backend::{Backend, Bucket, WriteBatch};
use retcd_storage::bolt::Options;
use retcd_storage::disk::OsDisk;
use retcd_storage::snap;
use retcd_storage::wal::{self, Recovered, Wal};
use tempfile::TempDir;

const TERM: u64 = 2;
const NODE: Metadata = Metadata {
    node_id: Some(0xa1),
    cluster_id: Some(0xc1),
};
/// The index up to which the source's database is written.
const APPLIED: u64 = 7;

fn disk() -> Arc<OsDisk> {
    Arc::new(OsDisk)
}

fn entry(index: u64, kind: EntryType, data: Vec<u8>) -> Entry {
    Entry {
        term: Some(TERM),
        index: Some(index),
        r#type: Some(kind.into()),
        data: Some(data.into()),
    }
}

fn put_v2(path: &str) -> Vec<u8> {
    let request = Request {
        id: Some(1),
        method: Some("PUT".to_owned()),
        path: Some(path.to_owned()),
        val: Some("v".to_owned()),
        ..Request::default()
    };
    request.encode_to_vec()
}

fn put_v3() -> Vec<u8> {
    let put = PutRequest {
        key: b"k".to_vec().into(),
        ..PutRequest::default()
    };
    let request = InternalRaftRequest {
        put: Some(put),
        ..InternalRaftRequest::default()
    };
    request.encode_to_vec()
}

/// A member's log: its own birth, its attributes, and requests of both versions.
fn entries() -> Vec<Entry> {
    let normal = EntryType::EntryNormal;
    vec![
        entry(1, EntryType::EntryConfChange, Vec::new()),
        entry(2, normal, Vec::new()),
        entry(3, normal, put_v2("/0/members/a1/attributes")),
        entry(4, normal, put_v2("/1/a")),
        entry(5, normal, put_v3()),
        entry(6, normal, put_v2("/1/b")),
        entry(7, normal, put_v3()),
        entry(8, normal, put_v3()),
    ]
}

fn mark(index: u64) -> walpb::Snapshot {
    walpb::Snapshot {
        index: Some(index),
        term: Some(TERM),
        conf_state: Some(ConfState {
            voters: vec![0xa1],
            ..ConfState::default()
        }),
    }
}

struct Source(TempDir);

/// The store of a cluster that has agreed to a version.
fn document(version: &str) -> Vec<u8> {
    let mut store = Store::new();
    store.set_cluster_version(version).unwrap();
    store.publish(1);
    store.to_document()
}

impl Source {
    /// Writes the files, without a snapshot.
    fn write() -> Source {
        Source::write_with(None)
    }

    /// Writes the files, with a snapshot: its index, and the data.
    fn write_with(snapshot: Option<(u64, &[u8])>) -> Source {
        let source = Source(tempfile::tempdir().unwrap());
        let snap_dir = source.path("data/member/snap");
        std::fs::create_dir_all(&snap_dir).unwrap();
        let wal_dir = source.path("data/member/wal");
        let mut log = Wal::create(disk(), &wal_dir, &NODE, wal::Options::default()).unwrap();
        let state = HardState {
            term: Some(TERM),
            vote: Some(0xa1),
            commit: Some(8),
        };
        log.append(Some(&state), &entries()).unwrap();
        log.sync().unwrap();
        if let Some((index, data)) = snapshot {
            let mark = mark(index);
            log.save_snapshot(&mark).unwrap();
            let metadata = SnapshotMetadata {
                conf_state: mark.conf_state,
                index: mark.index,
                term: mark.term,
            };
            let file = Snapshot {
                data: Some(data.to_vec().into()),
                metadata: Some(metadata),
            };
            snap::write(disk().as_ref(), &snap_dir, &file).unwrap();
        }
        log.close().unwrap();
        let backend = open(&snap_dir.join("db"));
        let mut batch = WriteBatch::default();
        batch.put(
            Bucket::Meta,
            b"consistent_index",
            APPLIED.to_be_bytes()[..].into(),
        );
        batch.put(Bucket::Members, b"a1", b"{}"[..].into());
        batch.put(Bucket::Key, b"revision", b"record"[..].into());
        backend.write(batch);
        backend.commit().unwrap();
        source
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn back_up(&self, more: &[&str]) -> Done {
        let mut command = etcdctl(&["backup", "--data-dir=data", "--backup-dir=backup"]);
        command.args(more).env("ETCDCTL_API", "2");
        run_in(self.0.path(), command)
    }

    fn log(&self, dir: &str, start: &walpb::Snapshot) -> Recovered {
        wal::read(disk().as_ref(), &self.path(dir), start).unwrap()
    }
}

fn run_in(dir: &Path, mut command: std::process::Command) -> Done {
    command.current_dir(dir);
    run(command, "")
}

fn open(path: &Path) -> Backend {
    Backend::open(disk(), path, Options::default()).unwrap()
}

fn consistent_index(backend: &Backend) -> u64 {
    let index = backend.reader().get(Bucket::Meta, b"consistent_index");
    u64::from_be_bytes(index.unwrap().unwrap()[..].try_into().unwrap())
}

/// The lines without their time.
fn told(done: &Done) -> Vec<String> {
    let lines = done.stderr.lines();
    lines
        .map(|line| line.split(" | ").nth(1).unwrap_or(line).to_owned())
        .collect()
}

#[test]
fn without_version_3_only_keys_of_version_2_are_left() {
    let source = Source::write();
    let done = source.back_up(&[]);
    assert!(done.status.success(), "{done:?}");
    let lines = [
        "ignoring EntryConfChange raft entry",
        "ignoring member attribute update on /0/members/a1/attributes",
        "ignoring v3 raft entry",
        "ignoring v3 raft entry",
        "ignoring v3 raft entry",
    ];
    assert_eq!(
        (told(&done), done.stdout.as_str()),
        (lines.map(str::to_owned).into(), "")
    );

    let log = source.log("backup/member/wal", &wal::origin());
    let old = entries();
    let kept = [(1, &old[1]), (2, &old[3]), (3, &old[5])];
    let kept = kept.map(|(index, entry)| Entry {
        index: Some(index),
        ..entry.clone()
    });
    assert_eq!(log.entries, kept);
    assert_eq!(log.hard_state.commit(), 3);
    assert_ne!(log.metadata.node_id(), NODE.node_id());
    assert_ne!(log.metadata.cluster_id(), NODE.cluster_id());

    let database = open(&source.path("backup/member/snap/db"));
    assert_eq!(consistent_index(&database), 3);
    assert_eq!(database.reader().range(Bucket::Key, b"", None).count(), 0);
}

#[test]
fn with_version_3_the_database_goes_on_where_its_log_does() {
    let source = Source::write();
    let done = source.back_up(&["--with-v3", "--backup-wal-dir=log"]);
    assert_eq!(
        (done.status.code(), told(&done).len()),
        (Some(0), 2),
        "{done:?}"
    );
    let log = source.log("log", &wal::origin());
    assert_eq!(log.entries.len(), 6);
    assert_eq!(log.hard_state.commit(), 6);
    let database = open(&source.path("backup/member/snap/db"));
    // Two entries before the one at APPLIED are gone; the last one is still to be executed.
    assert_eq!(consistent_index(&database), APPLIED - 2);
    let reader = database.reader();
    assert_eq!(reader.range(Bucket::Members, b"", None).count(), 0);
    assert_eq!(reader.range(Bucket::Key, b"", None).count(), 1);
}

#[test]
fn the_log_begins_behind_the_newest_snapshot() {
    let source = Source::write_with(Some((4, &document("3.5.0"))));
    // A snapshot that the log does not know of, as when a member stopped in between.
    let newer = source.path("data/member/snap/0000000000000002-0000000000000007.snap");
    let older = source.path("data/member/snap/0000000000000002-0000000000000004.snap");
    std::fs::copy(&older, newer).unwrap();
    let damaged = source.path("data/member/snap/0000000000000009-0000000000000009.snap");
    std::fs::write(damaged, "junk").unwrap();

    let done = source.back_up(&[]);
    assert!(done.status.success(), "{done:?}");
    let snapshots = snap::list(disk().as_ref(), &source.path("backup/member/snap")).unwrap();
    assert_eq!(snapshots.len(), 1, "{snapshots:?}");
    let file = snap::read(disk().as_ref(), &snapshots[0]).unwrap();
    assert_eq!(file.data(), document("3.5.0"));
    let log = source.log("backup/member/wal", &mark(4));
    assert_eq!(log.entries.len(), 1);
    assert_eq!(log.entries[0].index(), 5);
    assert_eq!(log.hard_state.commit(), 5);
}

/// etcd up to 3.5 ends where the cluster has agreed to a version behind its own.
#[test]
fn a_version_that_does_not_know_version_2_is_left_out() {
    let source = Source::write_with(Some((4, &document("3.7.0"))));
    let done = source.back_up(&[]);
    assert!(done.status.success(), "{done:?}");
    let snapshots = snap::list(disk().as_ref(), &source.path("backup/member/snap")).unwrap();
    let file = snap::read(disk().as_ref(), &snapshots[0]).unwrap();
    let document = Store::from_document(file.data()).unwrap().document();
    assert_eq!((document.cluster_version(), document.index()), (None, 1));
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let source = Source::write();
    std::fs::remove_dir_all(source.path("data/member/wal")).unwrap();
    let done = source.back_up(&[]);
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(
        told(&done),
        ["open data/member/wal: no such file or directory"]
    );
    assert!(!source.path("backup").exists());

    // What was there is left alone.
    let source = Source::write();
    std::fs::create_dir_all(source.path("backup/member/snap/kept")).unwrap();
    let done = source.back_up(&[]);
    assert_eq!(done.status.code(), Some(1));
    let refusal = "failed creating backup snapshot dir backup/member/snap: expected \
                   \"backup/member/snap\" to be empty";
    assert_eq!(told(&done), [refusal]);
    assert!(source.path("backup/member/snap/kept").exists());
}
