//! Starting a process on what its disk holds.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use retcd_member::config::{AutoCompaction, Limits};
use retcd_member::request_id::{RequestIds, first_read_context};
use retcd_member::room::Room;
use retcd_member::snapshot::Snapshots;
use retcd_member::watch::WatchCounts;
use retcd_member::{
    Applier, FollowedVersion, Handle, Logger, Mailboxes, Outputs, Parts, Shared, Thread, Unobserved,
};
use retcd_node::bootstrap::InitialMember;
use retcd_node::durable::{self, Dirs, Identity, Opened, Options, StorageError};
use retcd_node::{Config, Node};
use retcd_proto::raftpb;
use retcd_state::auth::AuthStore;
use retcd_state::lease::LessorOptions;
use retcd_state::machine::MachineOptions;
use retcd_state::membership::{ConfChangeContext, Member};
use retcd_state::v2::Timestamp;
use retcd_state::version::Version;
use retcd_storage::backend::Backend;
use retcd_storage::bolt;
use retcd_storage::disk::MemDisk;
use retcd_storage::snap;
use retcd_storage::wal;

use super::authenticator::Tokens;
use super::executor::Executor;
use super::outbox::{Outbox, Queues, Sent};
use super::peers::Wires;
use super::time::Time;
use super::{Process, Speed, Step, THREADS, watch};
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

/// As etcd: five seconds, and two elections.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);
/// Revisions per step of a compaction.
const COMPACTION_ROWS: usize = 10;

/// How members of a run are configured.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Applied entries between two snapshots.
    pub snapshot_count: u64,
    /// Whether there is one now and then for no reason.
    pub snapshots_by_chance: bool,
    /// Entries kept behind a snapshot.
    pub catchup_entries: u64,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// Ask for votes before raising the term.
    pub pre_vote: bool,
    /// A renewal does not wait for the machine.
    pub fast_lease_keep_alive: bool,
    /// Bytes of a proposal, and of a piece of a long answer.
    pub request_bytes_max: usize,
    /// Bytes of values in memory.
    pub value_bytes_max: usize,
    /// Bytes that the database may use.
    pub quota_bytes: Option<u64>,
    /// How long a token counts behind its last use.
    pub token_ttl: Duration,
    /// Between two comparisons of all members' data.
    pub corrupt_check: Option<Duration>,
    /// Between two comparisons of compactions.
    pub compact_hash_check: Option<Duration>,
}

impl Setup {
    /// Lets members find out whose data are wrong: they compare compactions, of which a majority is
    /// right, and seldom takes one over what another has.
    pub fn uncover(&mut self) {
        self.corrupt_check = None;
        self.compact_hash_check = Some(Duration::from_secs(2));
        (self.snapshot_count, self.catchup_entries) = (10_000, 5_000);
        self.snapshots_by_chance = false;
    }
}

/// How a member comes into being.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It founds the cluster with these.
    Founder(Vec<u64>),
    /// It was added to the cluster.
    Joiner,
}

/// Where a process is to be started, and as what.
pub struct Place<'a> {
    /// The host.
    pub host: usize,
    /// Which of its processes.
    pub life: u32,
    /// The member's id.
    pub id: u64,
    /// How it comes into being.
    pub role: &'a Role,
    /// Its disk.
    pub disk: &'a MemDisk,
    /// Its clocks.
    pub clock: Clock,
    /// How fast it is.
    pub speed: Speed,
    /// The version of its program.
    pub version: Version,
}

/// Starts a process on what its disk holds.
pub fn start(place: Place<'_>, setup: &Setup, cx: &mut Context) -> Result<Process, StorageError> {
    let dirs = Dirs {
        disk: Arc::new(place.disk.clone()),
        snap_dir: PathBuf::from("/member/snap"),
        wal_dir: PathBuf::from("/member/wal"),
    };
    let mut opened = open(&place, &dirs, &options(setup, &place.clock, cx))?;
    if cx.sabotage == Some(Sabotage::ForgetTree) {
        forget_tree(&mut opened, &dirs);
    }
    assert_eq!(
        opened.identity.member_id, place.id,
        "a disk of somebody else"
    );
    let Place {
        host,
        life,
        id,
        clock,
        speed,
        version,
        ..
    } = place;
    let time = Time::default();
    let now = clock.local(cx.now);
    let wall_ms = match cx.sabotage {
        Some(Sabotage::SameIds) => 1,
        _ => clock.wall_ms(cx.now),
    };
    time.set(now, wall_ms);
    let node_config = Config {
        id,
        tick: TICK,
        election_ticks: ELECTION_TICKS,
        pre_vote: setup.pre_vote,
        snapshot_count: setup.snapshot_count,
        snapshot_catchup_entries: setup.catchup_entries,
        // Members differ in what followers have to be sent from their logs.
        log_bytes_in_memory: [0, 1000, usize::MAX][(id % 3) as usize],
        proposal_timeout: REQUEST_TIMEOUT,
        first_read_context: first_read_context(id, clock.wall_ms(cx.now)),
        seed: cx.rng.u64(..),
    };
    let (queues, outbox) = (Queues::default(), Outbox::default());
    let (machine, term) = (opened.machine, opened.recovered.hard_state.term());
    let since = machine.applied().index;
    let letters = format!("t{:x}x{life:x}x", id & 0xffff);
    let tokens = Tokens::new(
        setup.token_ttl,
        letters,
        since,
        queues.workers(),
        cx.sabotage,
    );
    let room_dirs = [dirs.snap_dir.clone(), dirs.wal_dir.clone()];
    let room = Arc::new(Room::new(Arc::clone(&dirs.disk), room_dirs));
    let parts = Parts {
        id,
        cluster_id: CLUSTER_ID,
        config: config(id, version, setup),
        term,
        backend: opened.backend,
        room: Arc::clone(&room),
        authenticator: tokens.clone(),
        workers: queues.workers(),
        observer: Arc::new(Unobserved),
        node: queues.node(),
        commits: queues.commits(),
    };
    let shared = Arc::new(Shared::new(&machine, parts));
    let (mailboxes, mut mail) = Mailboxes::new(id, THREADS + 1);
    let hand_mail = mail
        .pop()
        .expect("there is one for each thread, and one more");
    let wires = Wires::new(time.clone(), outbox.clone());
    let handles = [0, 1].map(|number: u8| {
        Rc::new(Handle::new(
            &shared,
            Thread {
                number,
                clock: Rc::new(time.clone()),
                peers: Rc::new(wires.clone()),
                interest: mail[usize::from(number)].interest(),
                watch_limits: watch::LIMITS,
                watch_counts: Arc::new(WatchCounts::default()),
            },
        ))
    });
    let followed = FollowedVersion::at_start(shared.cluster_version());
    let followed = followed.expect("no member of this world is too old for its cluster");
    let mut process = Process {
        host,
        life,
        id,
        clock,
        speed,
        sabotage: cx.sabotage,
        snapshots_by_chance: setup.snapshots_by_chance,
        node: Node::new(node_config, opened.recovered, now),
        inbox: Vec::new(),
        turn_due: false,
        timer: Duration::ZERO,
        logger: Logger::new(opened.log, room),
        log_queue: Vec::new(),
        log_running: Vec::new(),
        applier: Applier::new(machine, &shared, mailboxes.clone(), followed),
        apply_queue: VecDeque::new(),
        apply_due: false,
        early: None,
        compact_due: false,
        snapshots: Snapshots::new(dirs.clone()),
        snapshot_queue: VecDeque::new(),
        recording: None,
        outputs: Outputs::new(&shared, mailboxes.clone()),
        mailboxes,
        tokens,
        wires,
        hand_ids: RequestIds::new(
            id,
            THREADS as u8,
            (&time as &dyn retcd_member::Clock).unix_ms(),
        ),
        time,
        queues,
        outbox,
        executor: Executor::default(),
        wakes_at: None,
        timers_set: 0,
        work: VecDeque::new(),
        commits: Vec::new(),
        handles,
        is_ready: false,
        operations: BTreeMap::new(),
        operation_of: BTreeMap::new(),
        hand_mail,
        by_hand: BTreeMap::new(),
        streams: BTreeMap::new(),
        watched: 0,
        acknowledged: Rc::new(Cell::new(0)),
        tree_shown: 0,
        tree_before: None,
        tree_verdicts: Rc::default(),
        shared,
        dirs,
    };
    for (handle, mail) in process.handles.clone().into_iter().zip(mail) {
        let run = async move { handle.run_mailbox(mail).await };
        process.executor.spawn(Box::pin(run));
    }
    process.begin(cx);
    Ok(process)
}

/// A machine that is broken in that way knows nothing of the entries behind its newest snapshot.
fn forget_tree(opened: &mut Opened, dirs: &Dirs) {
    let (index, _) = opened.recovered.snapshot;
    let is_newest = |snapshot: &raftpb::Snapshot| {
        let metadata = snapshot.metadata.as_ref();
        metadata.is_some_and(|metadata| metadata.index() == index)
    };
    let loaded = snap::load(&*dirs.disk, &dirs.snap_dir, is_newest);
    let snapshot = loaded.ok().and_then(|loaded| loaded.snapshot);
    let document = snapshot.and_then(|snapshot| snapshot.data);
    let document = document.filter(|document| !document.is_empty());
    let recovered = opened.machine.recover_v2(document.as_deref(), index, &[]);
    recovered.expect("it was recovered a moment ago");
}

fn open(place: &Place<'_>, dirs: &Dirs, options: &Options) -> Result<Opened, StorageError> {
    if dirs.has_log()? {
        return durable::reopen(dirs, options, || open_backend(dirs));
    }
    prepare(dirs)?;
    let identity = Identity {
        member_id: place.id,
        cluster_id: CLUSTER_ID,
    };
    let backend = open_backend(dirs)?;
    match place.role {
        Role::Founder(ids) => {
            let members = ids.iter().map(|id| initial_member(*id)).collect();
            durable::found(dirs, options, identity, members, backend)
        }
        Role::Joiner => durable::join(dirs, options, identity, backend),
    }
}

impl Process {
    fn begin(&mut self, cx: &mut Context) {
        self.look_for_corruption(cx);
        cx.applied.insert(self.id, self.applied());
        self.show_tree(cx);
        self.begin_early();
        self.forget_users();
        self.set_node_timer(cx);
        self.turn_due = true;
        let delay = cx.between_us(1, 1000);
        self.step_after(delay, Step::Turn, cx);
        self.step_after(self.speed.commit_every, Step::Commit, cx);
        self.step_after(delay, Step::Probe, cx);
        if self.applier.is_compacting() {
            self.compact_due = true;
            self.step_after(delay, Step::Compact, cx);
        }
        let [first, ..] = &self.handles;
        for task in first.early_tasks() {
            self.executor.spawn(task);
        }
        let (handle, outbox) = (Rc::clone(first), self.outbox.clone());
        self.executor.spawn(Box::pin(async move {
            handle.become_ready().await;
            outbox.send(Sent::Ready);
        }));
        self.settle(cx);
    }

    /// A process that is broken in that way knows of no users when it has read a database.
    pub(super) fn forget_users(&self) {
        let mut store = self.shared.state.auth.write();
        if store.is_enabled() && self.sabotage == Some(Sabotage::ForgetUsers) {
            *store = AuthStore::default();
        }
    }
}

fn config(id: u64, version: Version, setup: &Setup) -> retcd_member::Config {
    retcd_member::Config {
        name: format!("m{id:x}"),
        client_urls: vec![format!("http://m{id:x}:2379")],
        version,
        limits: Limits {
            request_bytes_max: setup.request_bytes_max,
            txn_ops_max: 128,
            quota_bytes: setup.quota_bytes,
            request_timeout: REQUEST_TIMEOUT,
        },
        heartbeat_interval: TICK,
        election_timeout: ELECTION_TIMEOUT,
        election_ticks: ELECTION_TICKS,
        initial_election_tick_advance: true,
        parse_peer_urls: |urls| {
            let mut urls = urls.to_vec();
            urls.sort();
            Some(urls)
        },
        strict_reconfig_check: true,
        priority_requests: true,
        fast_lease_keep_alive: setup.fast_lease_keep_alive,
        corrupt_check: setup.corrupt_check,
        compact_hash_check: setup.compact_hash_check,
        downgrade_check: Some(Duration::from_secs(5)),
        auto_compaction: AutoCompaction::Off,
        compaction_batch: COMPACTION_ROWS,
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

fn options(setup: &Setup, clock: &Clock, cx: &Context) -> Options {
    let wall_ms = i64::try_from(clock.wall_ms(cx.now)).unwrap_or(i64::MAX / 1_000_000);
    Options {
        machine: MachineOptions {
            started: Timestamp(wall_ms * 1_000_000),
            value_bytes_max: setup.value_bytes_max,
            ..machine_options()
        },
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
fn peer_url(id: u64) -> String {
    format!("http://m{id:x}:2380")
}
