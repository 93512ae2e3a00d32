//! The member's directories, opened as the configuration says.
//!
//! Their contents are opened by `retcd_node::durable`; here are the checks of the directories, the
//! wait for another process to release the database, and the log lines.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use retcd_node::bootstrap::InitialMember;
use retcd_node::durable::{self, Dirs, Identity, Notice, Opened, Options, StorageError};
use retcd_state::lease::LessorOptions;
use retcd_state::machine::MachineOptions;
use retcd_state::membership::{ConfChangeContext, Member};
use retcd_storage::backend::Backend;
use retcd_storage::bolt::{Access, BoltError, Options as BoltOptions};
use retcd_storage::disk::{Disk, OpenMode, is_full};
use retcd_storage::wal;

use super::load;
use super::memory_limit::memory_limit_bytes;
use crate::bootstrap::NewCluster;
use crate::clock;
use crate::config::Config;
use crate::config::gates::Gate;
use crate::log::Text;

/// How long another process may hold the database before that is worth a line in the log, as in
/// etcd.
const LOCK_WARNING: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// By default values may take this part of the memory. Keys, the log's tail, answers on their way
/// and the system's cache of the database's file need the rest.
const VALUE_CACHE_SHARE: u64 = 4;

/// The directories that `config` names, created where they are missing and tried for writing.
///
/// # Errors
/// A directory that cannot be used, in etcd's words.
pub(super) fn prepare(disk: Arc<dyn Disk>, config: &Config) -> Result<Dirs, StorageError> {
    let dirs = Dirs {
        disk,
        snap_dir: config.snap_dir(),
        wal_dir: config.wal_dir(),
    };
    let data_dir = Path::new(&config.data_dir);
    const MEMBER: &str = "cannot access member directory";
    touch(&*dirs.disk, data_dir, "cannot access data directory", DATA)?;
    touch(&*dirs.disk, &config.member_dir(), MEMBER, DATA)?;
    touch(&*dirs.disk, &dirs.snap_dir, MEMBER, DATA)?;
    if !config.wal_dir.is_empty() && dirs.has_log()? {
        touch(
            &*dirs.disk,
            &dirs.wal_dir,
            "cannot write to WAL directory",
            WAL,
        )?;
    }
    Ok(dirs)
}

/// What to do about a directory that cannot be used.
const DATA: &str = "--data-dir has to name a directory that this process may write to, or create";
const WAL: &str = "--wal-dir has to name a directory that this process may write to, or create";

/// A full disk is no reason to refuse: the member is to be started on it, so that room can be made.
fn touch(
    disk: &dyn Disk,
    dir: &Path,
    what: &str,
    remedy: &'static str,
) -> Result<(), StorageError> {
    let probe = dir.join(".touch");
    disk.create_dir_all(dir)
        .and_then(|()| disk.open(&probe, OpenMode::Create { mode: 0o600 }))
        .and_then(|_| disk.remove_file(&probe))
        .or_else(|error| if is_full(&error) { Ok(()) } else { Err(error) })
        .map_err(|source| StorageError::Unusable {
            what: what.to_owned(),
            source,
            remedy,
        })
}

/// A member of a new cluster.
///
/// # Errors
/// See [`StorageError`].
pub(super) fn found(
    dirs: &Dirs,
    config: &Config,
    new: &NewCluster,
) -> Result<Opened, StorageError> {
    let members = new.members.iter().map(|member| {
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
    let backend = open_backend(dirs)?;
    let identity = identity_of(new);
    durable::found(dirs, &options(config), identity, members.collect(), backend)
}

/// A member of a cluster that runs: everything comes from its leader.
///
/// # Errors
/// See [`StorageError`].
pub(super) fn join(
    dirs: &Dirs,
    config: &Config,
    identity: Identity,
) -> Result<Opened, StorageError> {
    let backend = open_backend(dirs)?;
    durable::join(dirs, &options(config), identity, backend)
}

/// The member that stored what is there.
///
/// # Errors
/// See [`StorageError`].
pub(super) fn reopen(dirs: &Dirs, config: &Config) -> Result<Opened, StorageError> {
    let reopen = || durable::reopen(dirs, &options(config), || open_backend(dirs));
    let opened = load::report_while(reopen)?;
    opened.notices.iter().for_each(tell);
    Ok(opened)
}

fn identity_of(new: &NewCluster) -> Identity {
    Identity {
        member_id: new.member_id,
        cluster_id: new.cluster_id,
    }
}

fn options(config: &Config) -> Options {
    let gates = &config.feature_gates;
    // As etcd's: one and a half election timeouts, in whole seconds.
    let ttl_min = (config.election_timeout().as_millis() * 3).div_ceil(2000) as i64;
    Options {
        machine: MachineOptions {
            lessor: LessorOptions {
                ttl_min,
                checkpoint: gates.enabled(Gate::LeaseCheckpoint),
                extend: config.election_timeout(),
            },
            learners_max: config.max_learners.unsigned_abs(),
            persist_checkpoints: gates.enabled(Gate::LeaseCheckpointPersist),
            value_bytes_max: value_bytes_max(config),
            jobs: load::jobs(),
            started: clock::timestamp(),
        },
        wal: wal::Options {
            unsafe_no_fsync: config.unsafe_no_fsync,
            ..wal::Options::default()
        },
        force_new_cluster: config.force_new_cluster,
    }
}

/// `--value-cache-bytes`.
fn value_bytes_max(config: &Config) -> usize {
    let bytes = u64::try_from(config.value_cache_bytes)
        .unwrap_or_else(|_| memory_limit_bytes() / VALUE_CACHE_SHARE);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Opens the database, waiting for as long as another process holds it, as etcd does.
fn open_backend(dirs: &Dirs) -> Result<Backend, StorageError> {
    let path = dirs.database();
    let options = BoltOptions {
        access: Access::Create,
        ..BoltOptions::default()
    };
    let started = Instant::now();
    let mut warned = false;
    loop {
        match Backend::open(Arc::clone(&dirs.disk), &path, options) {
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

fn tell(notice: &Notice) {
    match notice {
        Notice::Torn(torn) => {
            let copy = torn.copy.as_ref();
            crate::warn!("the last write to the log was interrupted; its torn end was cut off";
                "path" => &torn.segment, "offset" => torn.offset, "damage" => Text(&torn.damage),
                "copy" => Text(copy.map_or_else(String::new, |copy| copy.display().to_string())));
        }
        Notice::Removed(path) => {
            crate::info!("removed what an interrupted process left"; "path" => path);
        }
        Notice::TookOver(path) => {
            crate::info!("Recovering from snapshot backend"; "path" => path);
        }
        Notice::Applied(index) => crate::info!("restore consistentIndex"; "index" => *index),
        Notice::Dropped(entries) => {
            crate::warn!("discarding uncommitted WAL entries"; "number-of-uncommitted-entries" => *entries);
        }
        Notice::FilledUp { last, applied } => {
            crate::warn!("the log ends before the database and is filled up, since a new cluster is forced";
                "last-index" => *last, "applied-index" => *applied);
        }
    }
}
