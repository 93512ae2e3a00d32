//! A member that is too far behind takes another's database, and goes on as if it had applied every
//! entry.
//!
//! Two machines get the same random log, one of them with gaps that a copy of the other's database
//! fills. Whatever they are asked at the same index, they answer alike, and so do their files. Who
//! held a handle before sees the new state through it, who held a view still sees the old one, and
//! a client that watches misses nothing but what was compacted.

// Clippy takes only functions with `#[test]` for tests, and not what they share.
#![allow(clippy::unwrap_used)]

mod client;
mod entries;
mod random;
mod rules;

use std::io::{IoSlice, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use retcd_proto::etcdserverpb::{AlarmMember, RangeRequest};
use retcd_proto::raftpb::Entry;
use retcd_state::Time;
use retcd_state::auth::AuthStore;
use retcd_state::lease::{SharedLessor, TimeToLive};
use retcd_state::machine::{
    Applied, DatabaseCopy, Machine, MachineOptions, RestoreError, Restored, SharedAlarms,
    SharedAuth, SharedMembership,
};
use retcd_state::membership::Membership;
use retcd_state::meta::AppliedIndex;
use retcd_state::mvcc::{KeyspaceHash, Progress, RangeReply, Reader, StoreRevision, View};
use retcd_storage::backend::Backend;
use retcd_storage::bolt::Options;
use retcd_storage::disk::{Disk, MemDisk, OpenMode};
use retcd_storage::snap;

const SNAP_DIR: &str = "/snap";

/// A member's disk, machine, and the handles that others got when it was opened.
struct Member {
    disk: MemDisk,
    backend: Backend,
    machine: Machine,
    reader: Reader,
    lessor: SharedLessor,
    alarms: SharedAlarms,
    auth: SharedAuth,
    membership: SharedMembership,
}

/// All that members at the same index agree on.
#[derive(Debug, PartialEq)]
struct State {
    applied: AppliedIndex,
    hash: (KeyspaceHash, StoreRevision),
    leases: Vec<(i64, Option<TimeToLive>)>,
    alarms: Vec<AlarmMember>,
    auth: AuthStore,
    membership: Membership,
}

impl Member {
    fn new() -> Member {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new(SNAP_DIR)).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        Member::open(disk)
    }

    fn open(disk: MemDisk) -> Member {
        let path = Path::new(SNAP_DIR).join("db");
        let backend = Backend::open(Arc::new(disk.clone()), &path, Options::default()).unwrap();
        let machine = Machine::open(backend.clone(), MachineOptions::default()).unwrap();
        Member {
            disk,
            backend,
            reader: machine.reader(),
            lessor: machine.lessor(),
            alarms: machine.alarms(),
            auth: machine.auth_store(),
            membership: machine.membership(),
            machine,
        }
    }

    /// The power goes; what the disk then has is opened.
    fn crash(self, seed: u64) -> Member {
        let disk = self.disk.clone();
        drop(self);
        disk.crash(seed);
        Member::open(disk)
    }

    fn apply(&mut self, entries: &[Entry]) -> Applied {
        self.machine.apply(Time::default(), entries).unwrap()
    }

    fn index(&self) -> u64 {
        self.machine.applied().index
    }

    fn state(&self) -> State {
        let lessor = self.lessor.lock();
        let leases = lessor
            .list()
            .into_iter()
            .map(|(_, id)| (id, lessor.time_to_live(id, Time::default(), true)));
        State {
            applied: self.machine.applied(),
            hash: self.reader.hash_kv(0).unwrap(),
            leases: leases.collect(),
            alarms: self.alarms.read().list(0),
            auth: self.auth.read().clone(),
            membership: self.membership.read().clone(),
        }
    }

    /// Writes a copy of another's database to where a received one lies.
    fn receive(&self, copy: &mut DatabaseCopy) -> PathBuf {
        let path = snap::database_path(Path::new(SNAP_DIR), copy.head.applied.index);
        let mut bytes = Vec::new();
        let len = copy.file.len();
        copy.file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, len, "the length was promised");
        let mode = OpenMode::Create { mode: 0o600 };
        let file = self.disk.open(&path, mode).unwrap();
        file.set_len(0).unwrap();
        file.write_all_at(&[IoSlice::new(&bytes)], 0).unwrap();
        file.sync_data().unwrap();
        self.disk.sync_dir(Path::new(SNAP_DIR)).unwrap();
        path
    }

    /// Takes over another's state.
    fn restore_from(&mut self, other: &Member) -> Result<Restored, RestoreError> {
        let mut copy = DatabaseCopy::take(&other.backend, &other.machine.v2_reader()).unwrap();
        let path = self.receive(&mut copy);
        self.machine.restore(&path)
    }

    fn finish_compactions(&mut self) {
        while self.machine.compaction_step(50).unwrap() != Progress::Idle {}
    }
}

/// Everything in a view at a revision, 0 for its present.
fn all(view: &View, revision: i64) -> RangeReply {
    let request = RangeRequest {
        key: b"\0"[..].into(),
        range_end: b"\0"[..].into(),
        revision,
        ..Default::default()
    };
    view.range(&request).unwrap()
}
