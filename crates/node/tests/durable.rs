//! What a new member has promised survives a loss of power, and so do the directories that it is
//! in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use retcd_node::Append;
use retcd_node::bootstrap::InitialMember;
use retcd_node::durable::{self, Dirs, Identity, Opened, Options};
use retcd_proto::raftpb;
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
    let database = dirs.database();
    let backend = Backend::open(Arc::clone(&dirs.disk), &database, bolt::Options::default());
    let identity = Identity {
        member_id: 1,
        cluster_id: 2,
    };
    let members = vec![InitialMember {
        id: 1,
        context: b"{}".to_vec(),
    }];
    durable::found(
        dirs,
        &Options::default(),
        identity,
        members,
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
