//! The tree of API v2 in a machine: it follows the cluster, starts from snapshots and the log, and
//! has the same index at all members, wherever they started.

#![cfg(test)]

use prost::Message;
use retcd_proto::etcdserverpb::{InternalRaftRequest, PutRequest, Request};
use retcd_proto::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest,
};
use retcd_proto::raftpb::{ConfChange, ConfChangeType, Entry, EntryType};
use retcd_state::Time;
use retcd_state::machine::{DatabaseCopy, Machine, MachineOptions, Reply, TreeError};
use retcd_state::membership::{ConfChangeContext, Member};
use retcd_state::v2::{Action, Answer, Store, Timestamp};
use retcd_storage::backend::Backend;

/// A log that is written entry by entry.
#[derive(Default)]
struct Log(Vec<Entry>);

impl Log {
    fn push(&mut self, kind: EntryType, data: Vec<u8>) {
        self.0.push(Entry {
            index: Some(self.0.len() as u64 + 1),
            term: Some(1),
            r#type: Some(kind as i32),
            data: Some(data.into()),
        });
    }

    fn change(&mut self, kind: ConfChangeType, id: u64) {
        self.change_named(kind, id, String::new());
    }

    /// A member of the first ones, which are known by name.
    fn found(&mut self, id: u64) {
        self.change_named(ConfChangeType::ConfChangeAddNode, id, format!("m{id:x}"));
    }

    fn change_named(&mut self, kind: ConfChangeType, id: u64, name: String) {
        let context = ConfChangeContext {
            member: Member {
                id,
                peer_urls: Some(vec![format!("http://{id:x}")]),
                name,
                ..Member::default()
            },
            is_promote: false,
        };
        let change = ConfChange {
            id: Some(1),
            r#type: Some(kind as i32),
            node_id: Some(id),
            context: Some(context.to_json().into()),
        };
        self.push(EntryType::EntryConfChange, change.encode_to_vec());
    }

    fn request(&mut self, request: InternalRaftRequest) {
        self.push(EntryType::EntryNormal, request.encode_to_vec());
    }

    fn attributes(&mut self, member_id: u64) {
        let attributes = Attributes {
            name: format!("m{member_id:x}"),
            client_urls: vec![format!("http://client-{member_id:x}")],
        };
        self.request(InternalRaftRequest {
            cluster_member_attr_set: Some(ClusterMemberAttrSetRequest {
                member_id,
                member_attributes: Some(attributes),
            }),
            ..Default::default()
        });
    }

    fn version(&mut self, version: &str) {
        self.request(InternalRaftRequest {
            cluster_version_set: Some(ClusterVersionSetRequest {
                ver: version.to_owned(),
            }),
            ..Default::default()
        });
    }

    /// A record of the cluster, as members up to 3.4 wrote it.
    fn told(&mut self, record: &str, value: &str) {
        self.v2_at("PUT", format!("/0/{record}"), value);
    }

    fn v2(&mut self, method: &str, key: &str, value: &str) {
        self.v2_at(method, format!("/1/{key}"), value);
    }

    fn v2_at(&mut self, method: &str, path: String, value: &str) {
        let request = Request {
            method: Some(method.to_owned()),
            path: Some(path),
            val: Some(value.to_owned()),
            ..Default::default()
        };
        self.push(EntryType::EntryNormal, request.encode_to_vec());
    }

    fn v3(&mut self) {
        self.request(InternalRaftRequest {
            put: Some(PutRequest {
                key: "k".into(),
                ..Default::default()
            }),
            ..Default::default()
        });
    }

    /// The beginning of a cluster of one.
    fn founded(version: &str) -> Log {
        let mut log = Log::default();
        log.change(ConfChangeType::ConfChangeAddNode, 0xa);
        log.push(EntryType::EntryNormal, vec![]);
        log.attributes(0xa);
        log.version(version);
        log
    }
}

fn machine(entries: &[Entry]) -> (Backend, Machine) {
    let backend = Backend::default();
    let mut machine = Machine::open(backend.clone(), MachineOptions::default()).unwrap();
    machine.apply(Time::default(), entries).unwrap();
    (backend, machine)
}

fn data(machine: &Machine) -> Vec<u8> {
    machine.snapshot_head().to_snapshot().data.unwrap().to_vec()
}

/// The index that the next write gets.
fn next_index(machine: &mut Machine, log: &mut Log) -> u64 {
    log.v2("PUT", "key", "value");
    let entry = log.0.last().cloned().unwrap();
    let applied = machine.apply(Time::default(), &[entry]).unwrap();
    match &applied.replies[..] {
        [(_, Ok(Reply::V2(Ok(Answer::Event(event)))))] => event.index(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_write_follows_what_the_cluster_wrote() {
    for version in ["3.4.0", "3.7.0"] {
        let mut log = Log::founded(version);
        let (_, mut machine) = machine(&log.0);
        assert_eq!(machine.v2_reader().view().index(), 3, "{version}");
        assert_eq!(next_index(&mut machine, &mut log), 4, "{version}");
    }
}

#[test]
fn members_that_started_from_different_snapshots_agree_on_the_index() {
    let mut log = Log::founded("3.7.0");
    for id in [0xb, 0xc, 0xd] {
        log.change(ConfChangeType::ConfChangeAddNode, id);
        log.attributes(id);
    }
    log.change(ConfChangeType::ConfChangeRemoveNode, 0xc);
    log.change(ConfChangeType::ConfChangeUpdateNode, 0xd);
    let mut indexes = Vec::new();
    for snapshot in 4..=log.0.len() {
        let (backend, first) = machine(&log.0[..snapshot]);
        let document = data(&first);
        drop(first);
        let mut second = Machine::open(backend, MachineOptions::default()).unwrap();
        let at = snapshot as u64;
        second.recover_v2(Some(&document), at, &[]).unwrap();
        second.apply(Time::default(), &log.0[snapshot..]).unwrap();
        let mut log = Log(log.0.clone());
        indexes.push(next_index(&mut second, &mut log));
    }
    let (_, mut from_the_beginning) = machine(&log.0);
    let index = next_index(&mut from_the_beginning, &mut log);
    assert!(
        indexes.iter().all(|other| *other == index),
        "{index}: {indexes:?}"
    );
}

/// Founders have names from the beginning, and tell them one after the other; the version may be
/// decided before, in between and after.
#[test]
fn a_member_that_is_named_and_has_told_nothing_takes_one_index() {
    for told_before in 0..=3 {
        let mut log = Log::default();
        let ids = [0xa, 0xb, 0xc];
        ids.iter().for_each(|id| log.found(*id));
        let (before, after) = ids.split_at(told_before);
        before.iter().for_each(|id| log.attributes(*id));
        log.version("3.7.0");
        for told_after in 0..=after.len() {
            let mut log = Log(log.0.clone());
            after[..told_after]
                .iter()
                .for_each(|id| log.attributes(*id));
            let (backend, first) = machine(&log.0);
            let index = first.v2_reader().view().index();
            let document = data(&first);
            drop(first);
            let mut second = Machine::open(backend, MachineOptions::default()).unwrap();
            let at = log.0.len() as u64;
            second.recover_v2(Some(&document), at, &[]).unwrap();
            let recovered = second.v2_reader().view().index();
            assert_eq!(
                recovered, index,
                "{told_before} told before, {told_after} after"
            );
            // The first write makes it a tree of its own.
            assert_eq!(next_index(&mut second, &mut log), index + 1);
            let document = String::from_utf8(data(&second)).unwrap();
            assert!(document.contains("/1/key"), "{document}");
        }
    }
}

/// Such an entry follows from no newer member, but it is applied like any other.
#[test]
fn a_derived_tree_stays_one_when_a_member_tells_of_the_cluster_by_api_v2() {
    let attributes = r#"{"name":"ma","clientURLs":["http://client-a"]}"#;
    for (path, value) in [
        ("version", "3.7.0"),
        ("members/a/attributes", attributes),
        ("members/b/attributes", r#"{"name":"mb"}"#),
    ] {
        let mut log = Log::founded("3.7.0");
        log.change(ConfChangeType::ConfChangeAddNode, 0xb);
        for _ in 0..3 {
            log.told(path, value);
        }
        log.change(ConfChangeType::ConfChangeAddNode, 0xc);
        log.attributes(0xc);
        let (_, mut machine) = machine(&log.0);
        assert_eq!(machine.v2_reader().view().index(), 6, "{path}");
        assert_eq!(next_index(&mut machine, &mut log), 7, "{path}");
        let document = String::from_utf8(data(&machine)).unwrap();
        let history = r#""StartIndex":1,"LastIndex":7"#;
        assert!(document.contains(history), "{document}");
    }
}

/// Whatever the snapshot is of, and however far the database is, the same tree comes out.
#[test]
fn a_start_finds_the_tree_in_the_snapshot_and_behind_it() {
    for version in ["3.4.0", "3.7.0"] {
        let mut log = Log::founded(version);
        log.v2("PUT", "a", "1");
        log.v3();
        log.v2("PUT", "dir/b", "2");
        log.change(ConfChangeType::ConfChangeAddLearnerNode, 0xb);
        log.v2("POST", "queue", "3");
        // A change that is refused.
        log.change(ConfChangeType::ConfChangeAddNode, 0xb);
        log.v2("DELETE", "a", "");
        log.change(ConfChangeType::ConfChangeRemoveNode, 0xb);
        log.v2("PUT", "c", "4");
        let (_, whole) = machine(&log.0);
        let expected = String::from_utf8(data(&whole)).unwrap();
        for applied in 1..=log.0.len() {
            let (backend, _) = machine(&log.0[..applied]);
            for snapshot in 0..=applied {
                let document = match snapshot {
                    0 => None,
                    _ => Some(data(&machine(&log.0[..snapshot]).1)),
                };
                let copy = Backend::default();
                copy_rows(&backend, &copy, b"");
                let mut machine = Machine::open(copy, MachineOptions::default()).unwrap();
                machine
                    .recover_v2(document.as_deref(), snapshot as u64, &log.0[snapshot..])
                    .unwrap();
                machine.apply(Time::default(), &log.0[applied..]).unwrap();
                let found = String::from_utf8(data(&machine)).unwrap();
                assert_eq!(
                    without_reads(&found),
                    without_reads(&expected),
                    "{version}: snapshot {snapshot}, applied {applied}"
                );
            }
        }
    }
}

/// A backup of the database comes without the tree that users had written to.
#[test]
fn a_restored_database_has_a_tree_that_nobody_has_written_to() {
    let mut log = Log::founded("3.7.0");
    let document = data(&machine(&log.0).1);
    log.v2("PUT", "a", "1");
    let (backend, first) = machine(&log.0);
    assert!(first.v2_reader().view().is_written());
    drop(first);
    let mut restored = Machine::open(backend, MachineOptions::default()).unwrap();
    let at = log.0.len() as u64;
    restored.recover_v2(Some(&document), at, &[]).unwrap();
    let view = restored.v2_reader().view();
    assert!(!view.is_written() && view.index() == 3, "{}", view.index());
}

/// Watches from an old index, and later snapshots, tell what is left of a TTL by a clock that goes.
#[test]
fn a_start_counts_ttls_from_now() {
    const SECOND: i64 = 1_000_000_000;
    let now = 1_800_000_000 * SECOND;
    let mut log = Log::founded("3.7.0");
    let request = Request {
        method: Some("PUT".to_owned()),
        path: Some("/1/short".to_owned()),
        expiration: Some(now + 10 * SECOND),
        ..Default::default()
    };
    log.push(EntryType::EntryNormal, request.encode_to_vec());
    let (backend, _) = machine(&log.0);
    let options = MachineOptions {
        started: Timestamp(now),
        ..MachineOptions::default()
    };
    let mut again = Machine::open(backend, options).unwrap();
    again.recover_v2(None, 0, &log.0).unwrap();
    let document = String::from_utf8(data(&again)).unwrap();
    assert!(document.contains(r#""ttl":10,"#), "{document}");
}

/// The statistics count each member's own reads.
fn without_reads(document: &str) -> &str {
    document.split("\"Stats\"").next().unwrap()
}

fn copy_rows(from: &Backend, to: &Backend, but_for: &[u8]) {
    use retcd_storage::backend::{Bucket, WriteBatch};
    let (reader, mut batch) = (from.reader(), WriteBatch::default());
    for bucket in Bucket::ALL {
        for row in reader.range(bucket, b"", None) {
            let (key, value) = row.unwrap();
            if &*key != but_for {
                batch.put(bucket, &key, value);
            }
        }
    }
    to.write(batch);
}

#[test]
fn a_write_behind_a_snapshot_that_cannot_be_read_is_not_passed_over() {
    let mut log = Log::founded("3.7.0");
    log.v3();
    let snapshot = log.0.len() as u64;
    log.v3();
    let (backend, _) = machine(&log.0);
    let mut without = Machine::open(backend, MachineOptions::default()).unwrap();
    let behind = &log.0[snapshot as usize..];
    without.recover_v2(None, snapshot, behind).unwrap();
    assert_eq!(without.v2_reader().view().index(), 3);

    log.v2("PUT", "a", "1");
    let (backend, _) = machine(&log.0[..log.0.len() - 1]);
    let mut with = Machine::open(backend.clone(), MachineOptions::default()).unwrap();
    let behind = &log.0[snapshot as usize..];
    with.recover_v2(None, snapshot, behind).unwrap();
    let entry = log.0.last().cloned().unwrap();
    with.apply(Time::default(), &[entry]).unwrap();
    let mut again = Machine::open(backend, MachineOptions::default()).unwrap();
    let later = log.0.len() as u64;
    let unreadable = again.recover_v2(None, later, &[]).unwrap_err();
    assert!(
        matches!(unreadable, TreeError::Unreadable { snapshot: 7 }),
        "{unreadable}"
    );
    assert!(again.v2_reader().view().is_written());

    // As in a database that another program has written.
    let (written, _) = machine(&log.0);
    let backend = Backend::default();
    copy_rows(&written, &backend, b"v2Written");
    let mut with = Machine::open(backend, MachineOptions::default()).unwrap();
    let behind = &log.0[snapshot as usize..];
    let lost = with.recover_v2(None, snapshot, behind).unwrap_err();
    assert_eq!(
        lost.to_string(),
        "the snapshot file at 5 cannot be read, and entry 7 writes to the store of API v2 that it holds: \
         put the file back, or start this member anew from the others"
    );
}

/// Nobody can ask for such entries; a member that applied them could not start again.
#[test]
fn records_of_the_cluster_are_not_for_clients() {
    let mut log = Log::founded("3.4.0");
    let (_, first) = machine(&log.0);
    let before = data(&first);
    for (method, path) in [
        ("PUT", "/0/members/zz/x"),
        ("PUT", "/0/members/c/attributes"),
        ("DELETE", "/0/members"),
        ("POST", "/1/../0/members"),
        ("PUT", "//0/version"),
    ] {
        let request = Request {
            method: Some(method.to_owned()),
            path: Some(path.to_owned()),
            val: Some("{}".to_owned()),
            recursive: Some(true),
            ..Default::default()
        };
        log.push(EntryType::EntryNormal, request.encode_to_vec());
    }
    let (backend, second) = machine(&log.0);
    let after = data(&second);
    let text = |data: &[u8]| String::from_utf8(data.to_vec()).unwrap();
    assert_eq!(without_reads(&text(&before)), without_reads(&text(&after)));
    let mut again = Machine::open(backend, MachineOptions::default()).unwrap();
    again
        .recover_v2(Some(&after), log.0.len() as u64, &[])
        .unwrap();
}

/// A copy of the database goes with the tree of the same entry, whatever is applied meanwhile.
#[test]
fn a_copy_has_the_tree_of_its_index() {
    let mut log = Log::founded("3.7.0");
    log.v2("PUT", "a", "1");
    let (backend, mut machine) = machine(&log.0);
    let reader = machine.v2_reader();
    let trees = reader.keep();
    let before = machine.applied().index;
    log.v2("PUT", "a", "2");
    let entry = log.0.last().cloned().unwrap();
    machine.apply(Time::default(), &[entry]).unwrap();
    assert_eq!(trees.at(before).unwrap().index(), 4);
    assert_eq!(trees.at(before + 1).unwrap().index(), 5);
    drop(trees);
    let copy = DatabaseCopy::take(&backend, &reader).unwrap();
    let snapshot = copy.head.to_snapshot();
    let store = Store::from_document(&snapshot.data.unwrap()).unwrap();
    assert_eq!(
        (snapshot.metadata.unwrap().index(), store.index()),
        (before + 1, 5)
    );
    let found = store
        .reader()
        .view()
        .get("/1/a", false, retcd_state::v2::Timestamp(0));
    let found = found.unwrap();
    assert_eq!(
        (found.action, found.node.value.as_deref()),
        (Action::Get, Some("2"))
    );
}
