//! A start, tried on a disk whose changes stay in memory.
//!
//! Log and database are opened, and what is committed is applied, by the code of the server. What it
//! does beyond that (listeners, other members) does not depend on the directory.

use std::sync::Arc;

use retcd_member::FollowedVersion;
use retcd_node::durable::{self, Dirs, Identity, Notice, Opened, Options, StorageError};
use retcd_proto::etcdserverpb::{AlarmMember, RangeRequest};
use retcd_proto::raftpb::Entry;
use retcd_state::Time;
use retcd_state::machine::Machine;
use retcd_state::membership::{Downgrade, Member};
use retcd_state::mvcc::Reader;
use retcd_state::v2::{Node, Timestamp};
use retcd_state::version::Version;
use retcd_storage::backend::Backend;
use retcd_storage::bolt::{Access, BoltError};
use retcd_storage::disk::OverlayDisk;

use super::super::{disk, machine_options, options};
use super::look::Start;
use super::{Place, name};

/// Bytes of entries that are applied in memory at most: many times what a log holds behind its
/// newest snapshot as a rule.
const REPLAY_BYTES_MAX: usize = 1 << 30;
/// Entries that are applied at once.
const BATCH: usize = 1000;

/// What a database holds.
#[derive(Clone)]
pub(super) struct State {
    /// None: a database from before 3.5, which does not tell.
    pub(super) storage_version: Option<Version>,
    pub(super) cluster_version: Option<Version>,
    pub(super) downgrade: Downgrade,
    pub(super) members: Vec<Member>,
    pub(super) applied: (u64, u64),
    pub(super) size_bytes: u64,
    pub(super) size_in_use_bytes: u64,
    pub(super) revision: i64,
    /// 0: never.
    pub(super) compacted_revision: i64,
    pub(super) keys: i64,
    pub(super) leases: usize,
    pub(super) users: usize,
    pub(super) roles: usize,
    pub(super) is_auth_enabled: bool,
    pub(super) alarms: Vec<AlarmMember>,
    /// None: without the log, the database alone does not tell.
    pub(super) v2: Option<V2>,
}

/// What the store of API v2 holds of users.
#[derive(Clone, Copy, Default)]
pub(super) struct V2 {
    pub(super) keys: usize,
    pub(super) directories: usize,
}

/// How a start went.
pub(super) struct Rehearsal {
    /// What it did to files that had not been left in order.
    pub(super) repairs: Vec<String>,
    /// Entries that are not committed, and go since a new cluster is forced.
    pub(super) dropped: u64,
    /// Entries that are committed and not in the database yet.
    pub(super) replayed: u64,
    /// Entries behind those, of which the cluster decides.
    pub(super) undecided: u64,
    /// What is served then.
    pub(super) state: State,
    /// Not all was applied, as it would take too much memory.
    pub(super) is_cut_short: bool,
}

/// What the database holds, if it can be read, and what a start makes of it.
pub(super) fn rehearse(place: &Place, force_new_cluster: bool) -> (Option<State>, Start) {
    let dirs = Dirs {
        disk: Arc::new(OverlayDisk::new(disk())),
        snap_dir: place.snap_dir.clone(),
        wal_dir: place.wal_dir.clone(),
    };
    let mut state = None;
    match start(&dirs, force_new_cluster, &mut state) {
        Ok(start) => (state, start),
        Err(Failure::InUse) => (state, Start::InUse),
        Err(Failure::Refused(text)) => (state.or_else(|| state_alone(place)), Start::Refused(text)),
    }
}

/// Why there is no start.
enum Failure {
    /// With this text.
    Refused(String),
    /// Another process has the database.
    InUse,
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Failure {
        match error {
            StorageError::Backend {
                source: BoltError::Locked,
                ..
            } => Failure::InUse,
            other => Failure::Refused(other.to_string()),
        }
    }
}

fn start(
    dirs: &Dirs,
    force_new_cluster: bool,
    state: &mut Option<State>,
) -> Result<Start, Failure> {
    let options = Options {
        machine: machine_options(),
        force_new_cluster,
        ..Options::default()
    };
    if !dirs.has_log()? {
        let nobody = Identity {
            member_id: 0,
            cluster_id: 0,
        };
        let backend = open_backend(dirs)?;
        let opened = durable::join(dirs, &options, nobody, backend)?;
        *state = Some(State::of(&opened.machine, &opened.backend));
        return Ok(Start::Founds);
    }
    let opened = durable::reopen(dirs, &options, || open_backend(dirs))?;
    *state = Some(State::of(&opened.machine, &opened.backend));
    let served = serve(opened).map_err(Failure::Refused)?;
    Ok(Start::Serves(Box::new(served)))
}

fn open_backend(dirs: &Dirs) -> Result<Backend, StorageError> {
    let path = dirs.database();
    Backend::open(Arc::clone(&dirs.disk), &path, options(Access::Create))
        .map_err(|source| StorageError::Backend { path, source })
}

/// What the database holds without its log.
fn state_alone(place: &Place) -> Option<State> {
    let disk = Arc::new(OverlayDisk::new(disk()));
    let path = place.snap_dir.join("db");
    let backend = Backend::open(disk, &path, options(Access::Existing)).ok()?;
    let machine = Machine::open(backend.clone(), machine_options()).ok()?;
    Some(State {
        v2: None,
        ..State::of(&machine, &backend)
    })
}

/// Applies what is committed.
fn serve(opened: Opened) -> Result<Rehearsal, String> {
    let Opened {
        identity,
        backend,
        mut machine,
        recovered,
        notices,
        ..
    } = opened;
    check_version(&machine)?;
    let commit = recovered.hard_state.commit();
    // A member that decides alone commits all that it has.
    let is_alone = recovered.conf_state.voters == [identity.member_id];
    let (decided, undecided): (Vec<Entry>, Vec<Entry>) = recovered
        .entries
        .into_iter()
        .filter(|entry| entry.index() > recovered.applied)
        .partition(|entry| is_alone || entry.index() <= commit);
    let bytes: usize = decided.iter().map(|entry| entry.data().len()).sum();
    let is_cut_short = bytes > REPLAY_BYTES_MAX;
    if !is_cut_short {
        for entries in decided.chunks(BATCH) {
            machine
                .apply(Time::default(), entries)
                .map_err(|fatal| fatal.to_string())?;
        }
        check_version(&machine)?;
    }
    let dropped = notices.iter().map(|notice| match notice {
        Notice::Dropped(entries) => *entries as u64,
        _ => 0,
    });
    Ok(Rehearsal {
        dropped: dropped.sum(),
        repairs: notices.iter().filter_map(repair).collect(),
        replayed: decided.len() as u64,
        undecided: undecided.len() as u64,
        state: State::of(&machine, &backend),
        is_cut_short,
    })
}

fn check_version(machine: &Machine) -> Result<(), String> {
    let cluster = machine.membership().read().cluster_version();
    let checked = FollowedVersion::at_start(cluster);
    checked.map(drop).map_err(|outdated| outdated.to_string())
}

/// What a start does to files that were not left in order.
fn repair(notice: &Notice) -> Option<String> {
    match notice {
        Notice::Torn(torn) => Some(format!(
            "cuts the torn end off {} at byte {}, and keeps a copy",
            name(&torn.segment),
            torn.offset
        )),
        Notice::TookOver(path) => Some(format!("takes over {}", name(path))),
        Notice::FilledUp { last, applied } => {
            Some(format!("fills the log up from entry {last} to {applied}"))
        }
        // What an interrupted process left is no damage, nor is what was asked for.
        Notice::Removed(_) | Notice::Applied(_) | Notice::Dropped(_) => None,
    }
}

impl State {
    fn of(machine: &Machine, backend: &Backend) -> State {
        let membership = machine.membership();
        let membership = membership.read();
        let auth = machine.auth_store();
        let auth = auth.read();
        let reader = machine.reader();
        let applied = machine.applied();
        State {
            storage_version: machine.storage_version().ok().flatten(),
            cluster_version: membership.cluster_version(),
            downgrade: membership.downgrade(),
            members: membership.members().cloned().collect(),
            applied: (applied.index, applied.term),
            size_bytes: backend.size_bytes(),
            size_in_use_bytes: backend.size_in_use_bytes(),
            revision: reader.revision(),
            compacted_revision: reader.compacted_revision().max(0),
            keys: count_keys(&reader),
            leases: machine.lessor().lock().len(),
            users: auth.users().count(),
            roles: auth.roles().count(),
            is_auth_enabled: auth.is_enabled(),
            alarms: machine.alarms().read().list(0),
            v2: Some(count_v2(machine)),
        }
    }

    /// Whether the database tells its version, as it does since 3.6.
    pub(super) fn is_marked(&self) -> bool {
        self.storage_version >= Some(Version::new(3, 6, 0))
    }
}

/// Keys that a client can read. A restore with raised revisions leaves a row with an empty key,
/// which none can.
fn count_keys(reader: &Reader) -> i64 {
    let all = RangeRequest {
        key: b"\0"[..].into(),
        range_end: b"\0"[..].into(),
        count_only: true,
        ..RangeRequest::default()
    };
    reader.range(&all).map_or(0, |reply| reply.count)
}

/// Users' part of the store of API v2 lies below `/1`.
fn count_v2(machine: &Machine) -> V2 {
    let mut count = V2::default();
    let view = machine.v2_reader().view();
    if let Ok(event) = view.get("/1", true, Timestamp(0)) {
        count.add(&event.node);
        count.directories = count.directories.saturating_sub(1);
    }
    count
}

impl V2 {
    fn add(&mut self, node: &Node) {
        match node.dir {
            true => self.directories += 1,
            false => self.keys += 1,
        }
        for child in &node.nodes {
            self.add(child);
        }
    }
}
