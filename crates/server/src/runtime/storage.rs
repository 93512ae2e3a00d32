//! Opening what the member stored, or founding a new cluster where there is nothing.
//!
//! ```text
//! no *.wal in the log's directory:  found the cluster, write its first entries
//! else:                             database ─▶ newest snapshot record ─▶ log behind it ─▶ node
//! ```
//!
//! The database may be ahead of the newest snapshot record, never behind it. Everything that is found
//! damaged is left as it is, with an error that names it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use retcd_node::Recovered;
use retcd_node::bootstrap::{InitialMember, initial_log};
use retcd_proto::etcdserverpb::Metadata;
use retcd_proto::raftpb::{ConfChange, ConfChangeType, ConfState, Entry, EntryType};
use retcd_proto::walpb;
use retcd_state::lease::LessorOptions;
use retcd_state::machine::{Machine, MachineOptions, OpenError};
use retcd_state::membership::{ConfChangeContext, Member};
use retcd_storage::backend::{Backend, BackendError};
use retcd_storage::bolt::{Access, BoltError, Options as BoltOptions};
use retcd_storage::disk::{Disk, OpenMode};
use retcd_storage::snap::{self, Membership, SnapError};
use retcd_storage::wal::{self, Wal, WalError};

use crate::config::Config;
use crate::config::identity::Founding;
use crate::log::Text;

/// How long another process may hold the database before that is worth a line in the log, as in etcd.
const LOCK_WARNING: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// Everything durable, open.
pub struct Storage {
    /// This member's id.
    pub member_id: u64,
    /// The cluster's id.
    pub cluster_id: u64,
    /// The write-ahead log, to be appended to.
    pub wal: Wal,
    /// The database.
    pub backend: Backend,
    /// The state that the database holds.
    pub machine: Machine,
    /// What the node continues from.
    pub recovered: Recovered,
}

/// Why a member cannot start from what is stored.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A directory cannot be used.
    #[error("{what}: {source}")]
    Directory {
        /// What was tried, in etcd's words.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The log is there, the database is not.
    #[error("database file ({}) of the backend is missing", .0.display())]
    DatabaseMissing(PathBuf),
    /// The log starts behind what the database holds.
    #[error(
        "failed to find database snapshot file (snap: snapshot file doesn't exist): \
         the log starts at index {snapshot}, the database ends at {applied}"
    )]
    DatabaseBehind {
        /// Index of the newest snapshot record.
        snapshot: u64,
        /// Index up to which the database is applied.
        applied: u64,
    },
    /// The log ends before what the database holds.
    #[error(
        "the log ends at index {last}, but the database is applied up to {applied}: they are not of one member"
    )]
    LogBehind {
        /// Index of the log's last entry.
        last: u64,
        /// Index up to which the database is applied.
        applied: u64,
    },
    /// The cluster has other members than this one.
    #[error(
        "the data directory belongs to a member of a cluster with other members ({}), which this version \
         cannot serve; a Go etcd can still be started on it", hex_list(.0)
    )]
    NotAlone(Vec<u64>),
    /// Keys of API v2 would be lost.
    #[error(
        "the snapshot {} holds keys of API v2, which this version does not serve; \
         the data directory was left as it is", .0.display()
    )]
    V2Keys(PathBuf),
    /// Snapshot files.
    #[error(transparent)]
    Snap(#[from] SnapError),
    /// The log.
    #[error("failed to read WAL: {0}")]
    Wal(#[from] WalError),
    /// The database.
    #[error("failed to open database {}: {source}", path.display())]
    Backend {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        source: BackendError,
    },
    /// The state in the database.
    #[error(transparent)]
    Machine(#[from] OpenError),
}

/// Where things are.
pub struct Places {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Snapshots and the database's file.
    pub snap_dir: PathBuf,
    /// The log's segments.
    pub wal_dir: PathBuf,
}

impl Places {
    /// The directories that `config` names, created where they are missing and tried for writing.
    ///
    /// # Errors
    /// A directory that cannot be used, in etcd's words.
    pub fn prepare(disk: Arc<dyn Disk>, config: &Config) -> Result<Places, StorageError> {
        let places = Places {
            disk,
            snap_dir: config.snap_dir(),
            wal_dir: config.wal_dir(),
        };
        let data_dir = Path::new(&config.data_dir);
        places.touch(data_dir, "cannot access data directory")?;
        places.touch(&config.member_dir(), "cannot access member directory")?;
        places.touch(&places.snap_dir, "cannot access member directory")?;
        if !config.wal_dir.is_empty() && wal::exists(&*places.disk, &places.wal_dir)? {
            places.touch(&places.wal_dir, "cannot write to WAL directory")?;
        }
        Ok(places)
    }

    fn touch(&self, dir: &Path, what: &str) -> Result<(), StorageError> {
        let probe = dir.join(".touch");
        self.disk
            .create_dir_all(dir)
            .and_then(|()| self.disk.open(&probe, OpenMode::Create { mode: 0o600 }))
            .and_then(|_| self.disk.remove_file(&probe))
            .map_err(|source| StorageError::Directory {
                what: what.to_owned(),
                source,
            })
    }

    /// Whether this member has stored anything yet.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn has_data(&self) -> Result<bool, StorageError> {
        Ok(wal::exists(&*self.disk, &self.wal_dir)?)
    }

    /// API v2 keeps its keys in the snapshot file. One that cannot be read says nothing: etcd since
    /// 3.6 never reads it.
    fn refuse_v2_keys(&self, snapshot: &walpb::Snapshot) -> Result<(), StorageError> {
        let newest = snap::list(&*self.disk, &self.snap_dir)?
            .into_iter()
            .filter_map(|path| Some((snap::read(&*self.disk, &path).ok()?, path)))
            .find(|(found, _)| {
                found
                    .metadata
                    .as_ref()
                    .is_some_and(|found| found.index() <= snapshot.index())
            });
        let Some((found, path)) = newest else {
            return Ok(());
        };
        match Membership::from_document(&found.data.unwrap_or_default()) {
            Ok(membership) if membership.has_v2_keys => Err(StorageError::V2Keys(path)),
            _ => Ok(()),
        }
    }

    fn db_path(&self) -> PathBuf {
        self.snap_dir.join("db")
    }

    /// Opens the database, waiting for as long as another process holds it, as etcd does.
    fn open_backend(&self) -> Result<Backend, StorageError> {
        let path = self.db_path();
        let options = BoltOptions {
            access: Access::Create,
            ..BoltOptions::default()
        };
        let started = Instant::now();
        let mut warned = false;
        loop {
            match Backend::open(Arc::clone(&self.disk), &path, options) {
                Err(BoltError::Locked) => {
                    if !warned && started.elapsed() >= LOCK_WARNING {
                        crate::info!("db file is flocked by another process, or taking too long";
                            "path" => &path, "took" => started.elapsed());
                        warned = true;
                    }
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(source) => return Err(StorageError::Backend { path, source }),
                Ok(backend) => {
                    crate::info!("opened backend db"; "path" => &path, "took" => started.elapsed());
                    return Ok(backend);
                }
            }
        }
    }
}

fn machine_options(config: &Config) -> MachineOptions {
    // As etcd's: one and a half election timeouts, in whole seconds.
    let ttl_min = (config.election_timeout().as_millis() * 3).div_ceil(2000) as i64;
    MachineOptions {
        lessor: LessorOptions {
            ttl_min,
            checkpoint: false,
        },
        learners_max: config.max_learners.unsigned_abs(),
        ..MachineOptions::default()
    }
}

fn wal_options(config: &Config) -> wal::Options {
    wal::Options {
        unsafe_no_fsync: config.unsafe_no_fsync,
        ..wal::Options::default()
    }
}

/// A member of a new cluster.
///
/// # Errors
/// See [`StorageError`].
pub fn create(
    places: &Places,
    config: &Config,
    founding: &Founding,
) -> Result<Storage, StorageError> {
    let backend = places.open_backend()?;
    let machine = Machine::open(backend.clone(), machine_options(config))?;
    let metadata = Metadata {
        node_id: Some(founding.member_id),
        cluster_id: Some(founding.cluster_id),
    };
    // Without a log the database cannot be this cluster's: a new log would not fit to it.
    if machine.applied().index > 0 {
        return Err(StorageError::LogBehind {
            last: 0,
            applied: machine.applied().index,
        });
    }
    let mut wal = Wal::create(
        Arc::clone(&places.disk),
        &places.wal_dir,
        &metadata,
        wal_options(config),
    )?;
    let members = founding.members.iter().map(|member| {
        let context = ConfChangeContext {
            member: Member {
                id: member.id,
                peer_urls: Some(member.peer_urls.clone()),
                name: member.name.clone(),
                ..Member::default()
            },
            ..ConfChangeContext::default()
        };
        InitialMember {
            id: member.id,
            context: context.to_json(),
        }
    });
    let (hard_state, entries) = initial_log(members.collect());
    wal.append(Some(&hard_state), &entries)?;
    wal.sync()?;
    let recovered = Recovered {
        hard_state,
        entries,
        ..Recovered::default()
    };
    Ok(Storage {
        member_id: founding.member_id,
        cluster_id: founding.cluster_id,
        wal,
        backend,
        machine,
        recovered,
    })
}

/// The member that stored what is there.
///
/// # Errors
/// See [`StorageError`].
pub fn reopen(places: &Places, config: &Config) -> Result<Storage, StorageError> {
    if !exists(places, &places.db_path())? {
        return Err(StorageError::DatabaseMissing(places.db_path()));
    }
    let snapshot = wal::last_snapshot(&*places.disk, &places.wal_dir)?.unwrap_or_else(wal::origin);
    places.refuse_v2_keys(&snapshot)?;
    let backend = places.open_backend()?;
    for path in snap::remove_leftovers(&*places.disk, &places.snap_dir)? {
        crate::info!("removed what an interrupted process left"; "path" => &path);
    }
    let machine = Machine::open(backend.clone(), machine_options(config))?;
    let applied = machine.applied().index;
    crate::info!("restore consistentIndex"; "index" => applied);
    if snapshot.index() > applied {
        return Err(StorageError::DatabaseBehind {
            snapshot: snapshot.index(),
            applied,
        });
    }
    let conf_state = machine.membership().read().conf_state().clone();
    // Before the log is opened to be written, which would tidy up its directory.
    if members_of(&conf_state).len() > 1 {
        return Err(StorageError::NotAlone(members_of(&conf_state)));
    }
    let (wal, log) = Wal::open(
        Arc::clone(&places.disk),
        &places.wal_dir,
        &snapshot,
        wal_options(config),
    )?;
    if let Some(torn) = &log.torn {
        crate::warn!("the last write to the log was interrupted; its torn end was cut off";
            "path" => &torn.segment, "offset" => torn.offset, "damage" => Text(&torn.damage),
            "copy" => Text(torn.copy.as_ref().map_or_else(String::new, |copy| copy.display().to_string())));
    }
    let last = log
        .entries
        .last()
        .map_or(snapshot.index(), |entry| entry.index());
    if last < applied {
        return Err(StorageError::LogBehind { last, applied });
    }
    let own_id = log.metadata.node_id();
    let unapplied = log.entries.iter().filter(|entry| entry.index() > applied);
    let added = unapplied.filter_map(added_member);
    let members = members_of(&conf_state).into_iter().chain(added);
    let others: Vec<u64> = members.filter(|id| *id != own_id).collect();
    if !others.is_empty() {
        return Err(StorageError::NotAlone(others));
    }
    let recovered = Recovered {
        snapshot: (snapshot.index(), snapshot.term()),
        applied,
        conf_state,
        hard_state: log.hard_state,
        entries: log.entries,
    };
    Ok(Storage {
        member_id: log.metadata.node_id(),
        cluster_id: log.metadata.cluster_id(),
        wal,
        backend,
        machine,
        recovered,
    })
}

fn exists(places: &Places, path: &Path) -> Result<bool, StorageError> {
    places
        .disk
        .exists(path)
        .map_err(|source| StorageError::Directory {
            what: format!("cannot access {}", path.display()),
            source,
        })
}

/// The member that an entry adds: one that was killed early has its cluster in the log alone.
fn added_member(entry: &Entry) -> Option<u64> {
    if entry.r#type() != EntryType::EntryConfChange {
        return None;
    }
    let change = ConfChange::decode(entry.data()).ok()?;
    match change.r#type() {
        ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode => {
            Some(change.node_id())
        }
        _ => None,
    }
}

fn members_of(conf_state: &ConfState) -> Vec<u64> {
    let ids = conf_state.voters.iter().chain(&conf_state.learners);
    ids.copied().collect()
}

fn hex_list(ids: &[u64]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("{id:x}")).collect();
    ids.join(", ")
}
