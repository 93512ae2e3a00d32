//! Starting a process on what its disk holds.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use retcd_node::bootstrap::InitialMember;
use retcd_node::durable::{self, Dirs, Identity, Options, StorageError};
use retcd_node::{Config, Node};
use retcd_state::lease::LessorOptions;
use retcd_state::machine::MachineOptions;
use retcd_state::membership::{ConfChangeContext, Member};
use retcd_storage::backend::Backend;
use retcd_storage::bolt;
use retcd_storage::disk::MemDisk;
use retcd_storage::wal;

use super::access::Tokens;
use super::watch::Watches;
use super::{LEASE_INTERVAL, Process, Speed, Work};
use crate::clock::Clock;
use crate::context::Context;
use crate::model::TTL_MIN;
use crate::sabotage::Sabotage;

/// The cluster's id.
pub const CLUSTER_ID: u64 = 0xc1;
const TICK: Duration = Duration::from_millis(100);
const ELECTION_TICKS: u32 = 10;
const ELECTION_TIMEOUT: Duration =
    Duration::from_millis(TICK.as_millis() as u64 * ELECTION_TICKS as u64);

/// How members of a run are configured.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Applied entries between two snapshots.
    pub snapshot_count: u64,
    /// Entries kept behind a snapshot.
    pub catchup_entries: u64,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// Ask for votes before raising the term.
    pub pre_vote: bool,
}

/// How a member comes into being.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It founds the cluster with these.
    Founder(Vec<u64>),
    /// It was added to the cluster.
    Joiner,
}

/// Starts the process of member `id` on `disk`.
#[allow(clippy::too_many_arguments)]
pub fn start(
    host: usize,
    life: u32,
    id: u64,
    role: &Role,
    disk: &MemDisk,
    clock: Clock,
    speed: Speed,
    setup: &Setup,
    cx: &mut Context,
) -> Result<Process, StorageError> {
    let dirs = Dirs {
        disk: Arc::new(disk.clone()),
        snap_dir: PathBuf::from("/member/snap"),
        wal_dir: PathBuf::from("/member/wal"),
    };
    let options = options(setup, cx);
    let opened = if dirs.has_log()? {
        durable::reopen(&dirs, &options, || open_backend(&dirs))?
    } else {
        prepare(&dirs)?;
        let identity = Identity {
            member_id: id,
            cluster_id: CLUSTER_ID,
        };
        let backend = open_backend(&dirs)?;
        match role {
            Role::Founder(ids) => {
                let members = ids.iter().map(|id| initial_member(*id)).collect();
                durable::found(&dirs, &options, identity, members, backend)?
            }
            Role::Joiner => durable::join(&dirs, &options, identity, backend)?,
        }
    };
    assert_eq!(opened.identity.member_id, id, "a disk of somebody else");
    let now = clock.local(cx.now);
    let wall_ms = clock.wall_ms(cx.now);
    let config = Config {
        id,
        tick: TICK,
        election_ticks: ELECTION_TICKS,
        pre_vote: setup.pre_vote,
        snapshot_count: setup.snapshot_count,
        snapshot_catchup_entries: setup.catchup_entries,
        proposal_timeout: Duration::from_secs(7),
        first_read_context: (id & 0xffff) << 48 | (wall_ms & ((1 << 40) - 1)) << 8,
        seed: cx.rng.u64(..),
    };
    let reader = opened.machine.reader();
    let tokens = Tokens::none_since(opened.machine.applied().index);
    let mut process = Process {
        host,
        life,
        id,
        clock,
        speed,
        dirs,
        node: Node::new(config, opened.recovered, now),
        inbox: Vec::new(),
        turn_due: false,
        timer: Duration::ZERO,
        log: opened.log,
        log_queue: Vec::new(),
        log_running: Vec::new(),
        watches: Watches::new(reader.revision(), reader.compacted_revision()),
        reader,
        lessor: opened.machine.lessor(),
        machine: opened.machine,
        apply_queue: VecDeque::new(),
        apply_due: false,
        compact_due: false,
        snapshots: VecDeque::new(),
        backend: opened.backend,
        next_id: (id & 0xffff) << 48 | ((wall_ms << 5) & ((1 << 40) - 1)),
        proposals: BTreeMap::new(),
        reads: BTreeMap::new(),
        streams: BTreeMap::new(),
        hashes: BTreeMap::new(),
        permits: BTreeMap::new(),
        logins: BTreeMap::new(),
        tokens,
        lease_checks: BTreeMap::new(),
        renewals: BTreeMap::new(),
        led_at: None,
    };
    process.begin(cx);
    Ok(process)
}

impl Process {
    fn begin(&mut self, cx: &mut Context) {
        self.forget_users(cx);
        self.set_timer(cx);
        self.turn_due = true;
        let delay = cx.between_us(1, 1000);
        self.work_after(delay, Work::Turn, cx);
        self.work_after(self.speed.commit_every, Work::Commit, cx);
        self.work_after(LEASE_INTERVAL, Work::Leases, cx);
        if self.machine.is_compacting() {
            self.compact_due = true;
            self.work_after(delay, Work::Compact, cx);
        }
    }
}

/// How all members execute what is committed.
pub fn machine_options() -> MachineOptions {
    MachineOptions {
        lessor: LessorOptions {
            ttl_min: TTL_MIN,
            checkpoint: false,
            extend: ELECTION_TIMEOUT,
        },
        ..MachineOptions::default()
    }
}

fn options(setup: &Setup, cx: &Context) -> Options {
    Options {
        machine: machine_options(),
        wal: wal::Options {
            segment_bytes: setup.segment_bytes,
            unsafe_no_fsync: cx.sabotage == Some(Sabotage::SkipFsync),
        },
        force_new_cluster: false,
    }
}

/// As the server does before it opens anything.
fn prepare(dirs: &Dirs) -> Result<(), StorageError> {
    let create = |dir: &Path| {
        dirs.disk
            .create_dir_all(dir)
            .map_err(|source| StorageError::Directory {
                what: format!("cannot create {}", dir.display()),
                source,
            })
    };
    create(&dirs.snap_dir)
}

fn open_backend(dirs: &Dirs) -> Result<Backend, StorageError> {
    let path = dirs.database();
    Backend::open(Arc::clone(&dirs.disk), &path, bolt::Options::default())
        .map_err(|source| StorageError::Backend { path, source })
}

/// The member as its cluster's founders describe it.
fn initial_member(id: u64) -> InitialMember {
    let context = ConfChangeContext {
        member: Member {
            id,
            peer_urls: Some(vec![peer_url(id)]),
            name: format!("m{id:x}"),
            ..Member::default()
        },
        is_promote: false,
    };
    InitialMember {
        id,
        context: context.to_json(),
    }
}

/// Where a member's peers would find it.
pub fn peer_url(id: u64) -> String {
    format!("http://m{id:x}:2380")
}
