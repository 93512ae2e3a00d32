//! What a new member has promised survives a loss of power, and so do the directories that it is
//! in; and who may go on alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use retcd_node::Append;
use retcd_node::bootstrap::InitialMember;
use retcd_node::durable::{self, Dirs, Identity, Notice, Opened, Options, StorageError};
use retcd_proto::etcdserverpb::{InternalRaftRequest, PutRequest};
use retcd_proto::raftpb::{self, ConfChange, ConfChangeType, EntryType};
use retcd_state::Time;
use retcd_storage::backend::Backend;
use retcd_storage::bolt;
use retcd_storage::disk::{Disk, MemDisk};
use retcd_storage::wal;

fn dirs(disk: &MemDisk) -> Dirs {
    let dirs = Dirs {
        disk: Arc::new(disk.clone()),
        snap_dir: PathBuf::from("/data/member/snap"),
        wal_dir: PathBuf::from("/logs/of/member/wal"),
    };
    disk.create_dir_all(&dirs.snap_dir)
        .expect("a disk in memory has room");
    dirs
}

fn new_member(dirs: &Dirs) -> Opened {
    member_of(dirs, &[(1, "http://a")])
}

/// Member 1, which is not necessarily one of the founders.
fn member_of(dirs: &Dirs, members: &[(u64, &str)]) -> Opened {
    let database = dirs.database();
    let backend = Backend::open(Arc::clone(&dirs.disk), &database, bolt::Options::default());
    let identity = Identity {
        member_id: 1,
        cluster_id: 2,
    };
    let members = members.iter().map(|&(id, url)| InitialMember {
        id,
        context: format!(r#"{{"id":{id},"peerURLs":["{url}"]}}"#).into_bytes(),
    });
    durable::found(
        dirs,
        &Options::default(),
        identity,
        members.collect(),
        backend.expect("a new database"),
    )
    .expect("a new log")
}

#[test]
fn a_new_member_is_there_after_a_loss_of_power() {
    for seed in 0..20 {
        let disk = MemDisk::new();
        let dirs = dirs(&disk);
        new_member(&dirs);
        disk.crash(seed);
        assert!(dirs.has_log().unwrap(), "seed {seed}: the log is gone");
        assert!(
            disk.exists(Path::new("/data/member/snap")).unwrap(),
            "seed {seed}: the database's directory is gone"
        );
    }
}

#[test]
fn a_received_snapshot_counts_as_soon_as_it_is_acknowledged() {
    for seed in 0..20 {
        let disk = MemDisk::new();
        let dirs = dirs(&disk);
        let mut log = new_member(&dirs).log;
        let metadata = raftpb::SnapshotMetadata {
            conf_state: Some(raftpb::ConfState::default()),
            index: Some(100),
            term: Some(1),
        };
        // The term is as before: nothing but the commit index tells that the snapshot counts.
        let append = Append {
            number: 1,
            snapshot: Some(raftpb::Snapshot {
                data: None,
                metadata: Some(metadata),
            }),
            hard_state: Some(raftpb::HardState {
                term: Some(1),
                vote: Some(0),
                commit: Some(100),
            }),
            ..Append::default()
        };
        log.append(&append).unwrap();
        log.sync().unwrap();
        drop(log);
        disk.crash(seed);
        let newest = wal::last_snapshot(&disk, &dirs.wal_dir).unwrap();
        let index = newest.map(|snapshot| snapshot.index());
        assert_eq!(index, Some(100), "seed {seed}");
    }
}

/// The entries that the machine does not have yet.
fn unapplied(opened: &Opened) -> Vec<raftpb::Entry> {
    let recovered = &opened.recovered;
    let entries = recovered.entries.iter();
    let unapplied = entries.filter(|entry| entry.index() > recovered.applied);
    unapplied.cloned().collect()
}

/// What a start has in memory of a log does not grow with the log: what is applied stays there, but
/// for the term of each entry.
#[test]
fn a_start_leaves_what_is_applied_to_the_log() {
    let disk = MemDisk::new();
    let dirs = dirs(&disk);
    let mut opened = new_member(&dirs);
    let put = |index| {
        let put = PutRequest {
            key: "k".into(),
            value: vec![7; 10_000].into(),
            ..PutRequest::default()
        };
        let request = InternalRaftRequest {
            id: index,
            put: Some(put),
            ..InternalRaftRequest::default()
        };
        raftpb::Entry {
            term: Some(1 + index / 50),
            index: Some(index),
            data: Some(request.encode_to_vec().into()),
            ..Default::default()
        }
    };
    let entries: Vec<_> = (2..=100).map(put).collect();
    let applied = 90;
    let append = Append {
        hard_state: Some(raftpb::HardState {
            term: Some(3),
            vote: Some(0),
            commit: Some(100),
        }),
        entries: entries.clone(),
        ..Append::default()
    };
    opened.log.append(&append).unwrap();
    opened.log.sync().unwrap();
    let first = &opened.recovered.entries;
    opened.machine.apply(Time::default(), first).unwrap();
    let before = &entries[..applied - 1];
    opened.machine.apply(Time::default(), before).unwrap();
    let backend = close(opened);
    let opened = durable::reopen(&dirs, &Options::default(), || Ok(backend)).unwrap();
    let recovered = &opened.recovered;
    assert_eq!(recovered.entries, entries[applied - 1..]);
    assert_eq!(recovered.earlier.first(), Some(1));
    let last = entries[applied - 2].clone();
    assert_eq!(recovered.earlier.last(), Some((last.index(), last.term())));
    let wanted = wal::Wanted {
        first: 40,
        end: 60,
        bytes_max: usize::MAX,
    };
    let located = opened.log.locate(wanted).expect("the log has them");
    assert_eq!(located.read().unwrap(), entries[38..58]);
}

/// A follower that is behind the newest snapshot is sent what the log has, and the log keeps no more
/// than a segment for that.
#[test]
fn a_snapshot_leaves_one_segment_more_than_a_start_needs() {
    let disk = MemDisk::new();
    let dirs = dirs(&disk);
    let options = Options {
        wal: wal::Options {
            segment_bytes: 10_000,
            ..wal::Options::default()
        },
        ..Options::default()
    };
    let backend = Backend::open(
        Arc::clone(&dirs.disk),
        &dirs.database(),
        bolt::Options::default(),
    );
    let identity = Identity {
        member_id: 1,
        cluster_id: 2,
    };
    let opened = durable::join(&dirs, &options, identity, backend.unwrap()).unwrap();
    let mut log = opened.log;
    for index in 1..=60 {
        let entry = raftpb::Entry {
            term: Some(1),
            index: Some(index),
            data: Some(vec![7; 1000].into()),
            ..Default::default()
        };
        let append = Append {
            number: index,
            hard_state: Some(raftpb::HardState {
                term: Some(1),
                vote: Some(0),
                commit: Some(index),
            }),
            entries: vec![entry],
            ..Append::default()
        };
        log.append(&append).unwrap();
        log.sync().unwrap();
    }
    let segments = || -> Vec<u64> {
        let names = disk.read_dir(&dirs.wal_dir).unwrap();
        let names = names.iter().filter_map(|path| path.file_name()?.to_str());
        let first = names.filter_map(|name| name.strip_suffix(".wal")?.split_once('-'));
        let mut first: Vec<u64> = first
            .map(|(_, index)| u64::from_str_radix(index, 16).unwrap())
            .collect();
        first.sort();
        first
    };
    let all = segments();
    assert!(all.len() > 5, "{all:?}");
    let snapshot = all[4] + 1;
    let metadata = raftpb::SnapshotMetadata {
        conf_state: Some(raftpb::ConfState::default()),
        index: Some(snapshot),
        term: Some(1),
    };
    log.record(metadata).unwrap();
    wal::purge(&disk, &dirs.wal_dir, 1).unwrap();
    assert_eq!(segments(), all[3..]);
    let entries_from = |first| {
        let wanted = wal::Wanted {
            first,
            end: 61,
            bytes_max: 1,
        };
        let located = log.locate(wanted)?;
        let entries = located.read().unwrap();
        Some(entries.iter().map(raftpb::Entry::index).collect::<Vec<_>>())
    };
    assert_eq!(entries_from(all[3]), Some(vec![all[3]]));
    assert_eq!(entries_from(all[3] - 1), None);
}

/// Opens member 1 as the only one of its cluster, after a configuration change.
/// Ends a member; its database stays.
fn close(opened: Opened) -> Backend {
    let Opened {
        log,
        machine,
        backend,
        ..
    } = opened;
    drop((log, machine));
    backend
}

fn force(opened: Opened, dirs: &Dirs, change: Option<ConfChange>) -> Result<Opened, StorageError> {
    let Opened {
        mut log,
        mut machine,
        backend,
        recovered,
        ..
    } = opened;
    machine
        .apply(Time::default(), &recovered.entries)
        .expect("the founders can be added");
    if let Some(change) = change {
        let index = recovered.entries.len() as u64 + 1;
        let entry = raftpb::Entry {
            term: Some(1),
            index: Some(index),
            r#type: Some(EntryType::EntryConfChange as i32),
            data: Some(change.encode_to_vec().into()),
        };
        let append = Append {
            hard_state: Some(raftpb::HardState {
                term: Some(1),
                vote: Some(0),
                commit: Some(index),
            }),
            entries: vec![entry],
            ..Append::default()
        };
        log.append(&append).expect("room for an entry");
        log.sync().expect("a log that can be synced");
    }
    drop((log, machine));
    let options = Options {
        force_new_cluster: true,
        ..Options::default()
    };
    durable::reopen(dirs, &options, || Ok(backend))
}

#[test]
fn a_member_that_its_log_does_not_know_goes_on_alone() {
    let disk = MemDisk::new();
    let dirs = dirs(&disk);
    // One of them has an address that a member gets which has none.
    let founders = [(2, "http://localhost:2380"), (3, "http://c")];
    let mut alone = force(member_of(&dirs, &founders), &dirs, None).unwrap();
    let unapplied = unapplied(&alone);
    alone.machine.apply(Time::default(), &unapplied).unwrap();
    let membership = alone.machine.membership();
    let membership = membership.read();
    let members: Vec<_> = membership
        .members()
        .map(|member| (member.id, member.peer_urls().join(",")))
        .collect();
    let urls = "http://localhost:7001,http://localhost:7002".to_owned();
    assert_eq!(members, [(1, urls)]);
    assert_eq!(membership.conf_state().voters, [1]);
}

#[test]
fn a_learner_and_a_removed_member_do_not_go_on_alone() {
    let change = |kind: ConfChangeType, context: &str| ConfChange {
        id: Some(1),
        r#type: Some(kind as i32),
        node_id: Some(1),
        context: Some(context.to_owned().into()),
    };
    let learner = change(
        ConfChangeType::ConfChangeAddLearnerNode,
        r#"{"id":1,"peerURLs":["http://a"],"isLearner":true}"#,
    );
    let removed = change(ConfChangeType::ConfChangeRemoveNode, "");
    for (founders, change, expected) in [
        (&[(2, "http://b")][..], learner, "from a learner"),
        (
            &[(1, "http://a"), (2, "http://b")],
            removed,
            "that was removed",
        ),
    ] {
        let disk = MemDisk::new();
        let dirs = dirs(&disk);
        let refused = force(member_of(&dirs, founders), &dirs, Some(change)).err();
        let text = refused.expect("it is refused").to_string();
        assert!(text.contains(expected), "{text}");
    }
}

/// As `etcdctl backup --with-v3` of etcd 3.3 leaves it.
#[test]
fn a_log_that_ends_before_the_database_goes_on_behind_it_when_it_is_forced() {
    let disk = MemDisk::new();
    let dirs = dirs(&disk);
    let mut opened = member_of(&dirs, &[(2, "http://b")]);
    let missing = [2, 3].map(|index| raftpb::Entry {
        term: Some(1),
        index: Some(index),
        ..Default::default()
    });
    let mut entries = opened.recovered.entries.clone();
    entries.extend(missing);
    opened.machine.apply(Time::default(), &entries).unwrap();
    let backend = close(opened);
    let reopen = |force_new_cluster| {
        let options = Options {
            force_new_cluster,
            ..Options::default()
        };
        durable::reopen(&dirs, &options, || Ok(backend.clone()))
    };
    let refused = reopen(false).err().expect("it is refused").to_string();
    assert!(
        refused.contains("the log ends at index 1, but"),
        "{refused}"
    );
    assert!(refused.contains("--force-new-cluster"), "{refused}");
    let mut alone = reopen(true).unwrap();
    let filled = |notice: &Notice| {
        matches!(
            notice,
            Notice::FilledUp {
                last: 1,
                applied: 3
            }
        )
    };
    assert!(alone.notices.iter().any(filled), "{:?}", alone.notices);
    assert_eq!(alone.recovered.earlier.last(), Some((1, 1)));
    let indexes = alone.recovered.entries.iter().map(raftpb::Entry::index);
    assert!(indexes.eq(2..=5), "{:?}", alone.recovered.entries);
    let unapplied = unapplied(&alone);
    alone.machine.apply(Time::default(), &unapplied).unwrap();
    drop(alone);
    reopen(false).expect("the log is whole");
}
