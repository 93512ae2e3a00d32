//! What a new member has promised survives a loss of power, and so do the directories that it is in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use retcd_node::bootstrap::InitialMember;
use retcd_node::durable::{self, Dirs, Identity, Options};
use retcd_storage::backend::Backend;
use retcd_storage::bolt;
use retcd_storage::disk::{Disk, MemDisk};

#[test]
fn a_new_member_is_there_after_a_loss_of_power() {
    for seed in 0..20 {
        let disk = MemDisk::new();
        let dirs = Dirs {
            disk: Arc::new(disk.clone()),
            snap_dir: PathBuf::from("/data/member/snap"),
            wal_dir: PathBuf::from("/logs/of/member/wal"),
        };
        disk.create_dir_all(&dirs.snap_dir).unwrap();
        let backend = Backend::open(
            Arc::clone(&dirs.disk),
            &dirs.database(),
            bolt::Options::default(),
        );
        let identity = Identity {
            member_id: 1,
            cluster_id: 2,
        };
        let members = vec![InitialMember {
            id: 1,
            context: b"{}".to_vec(),
        }];
        let options = Options::default();
        durable::found(&dirs, &options, identity, members, backend.unwrap()).unwrap();
        disk.crash(seed);
        assert!(dirs.has_log().unwrap(), "seed {seed}: the log is gone");
        assert!(
            disk.exists(Path::new("/data/member/snap")).unwrap(),
            "seed {seed}: the database's directory is gone"
        );
    }
}
