//! Opening what the member stored, or starting where there is nothing.
//!
//! ```text
//! found:   a log with the first entries of a new cluster
//! join:    an empty log; everything else comes from the leader
//! reopen:  newest snapshot record ─▶ database, the received one if that is newer ─▶ log behind the record
//! ```

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use retcd_proto::etcdserverpb::Metadata;
use retcd_proto::walpb;
use retcd_state::machine::{Machine, concerns_v2};
use retcd_storage::backend::Backend;
use retcd_storage::snap;
use retcd_storage::wal::{self, Needed, Wal};

use super::{Dirs, Identity, Log, Notice, Opened, Options, StorageError, force};
use crate::Recovered;
use crate::bootstrap::{InitialMember, initial_log};

/// A member of a new cluster. The database must be new, too.
///
/// # Errors
/// See [`StorageError`].
pub fn found(
    dirs: &Dirs,
    options: &Options,
    identity: Identity,
    members: Vec<InitialMember>,
    backend: Backend,
) -> Result<Opened, StorageError> {
    let (hard_state, entries) = initial_log(members);
    let mut opened = join(dirs, options, identity, backend)?;
    let first = crate::Append {
        hard_state: Some(hard_state),
        entries: entries.clone(),
        ..crate::Append::default()
    };
    opened.log.append(&first)?;
    opened.log.sync()?;
    opened.recovered.hard_state = hard_state;
    opened.recovered.entries = entries;
    Ok(opened)
}

/// A member of a cluster that exists: it knows nothing yet.
///
/// # Errors
/// See [`StorageError`].
pub fn join(
    dirs: &Dirs,
    options: &Options,
    identity: Identity,
    backend: Backend,
) -> Result<Opened, StorageError> {
    let machine = Machine::open(backend.clone(), options.machine)?;
    // Without a log the database cannot be this member's: a new log would not fit to it.
    if machine.applied().index > 0 {
        return Err(StorageError::LogBehind {
            last: 0,
            applied: machine.applied().index,
        });
    }
    let metadata = Metadata {
        node_id: Some(identity.member_id),
        cluster_id: Some(identity.cluster_id),
    };
    let wal = Wal::create(
        Arc::clone(&dirs.disk),
        &dirs.wal_dir,
        &metadata,
        options.wal,
    )?;
    make_names_durable(dirs)?;
    Ok(Opened {
        identity,
        log: Log::new(wal, dirs.clone()),
        backend,
        machine,
        recovered: Recovered::default(),
        notices: Vec::new(),
    })
}

/// The member that stored what is there. `open` opens the database's file, which exists.
///
/// # Errors
/// See [`StorageError`].
pub fn reopen(
    dirs: &Dirs,
    options: &Options,
    open: impl FnOnce() -> Result<Backend, StorageError>,
) -> Result<Opened, StorageError> {
    let database = dirs.database();
    if !exists(dirs, &database)? {
        return Err(StorageError::DatabaseMissing(database));
    }
    let snapshot = wal::last_snapshot(&*dirs.disk, &dirs.wal_dir)?.unwrap_or_else(wal::origin);
    let backend = open()?;
    let leftovers = snap::remove_leftovers(&*dirs.disk, &dirs.snap_dir)?;
    let mut notices: Vec<Notice> = leftovers.into_iter().map(Notice::Removed).collect();
    let mut machine = open_machine(dirs, options, &backend, &snapshot, &mut notices)?;
    let applied = machine.applied().index;
    notices.push(Notice::Applied(applied));
    // A log may be larger than memory, and most of it is applied.
    let needed = Needed {
        behind: applied,
        also: &concerns_v2,
    };
    let (wal, mut log) = Wal::open_with(
        Arc::clone(&dirs.disk),
        &dirs.wal_dir,
        &snapshot,
        options.wal,
        needed,
    )?;
    notices.extend(log.torn.take().map(Notice::Torn));
    let last = log.last().map_or(snapshot.index(), |(index, _)| index);
    if last < applied && !options.force_new_cluster {
        return Err(StorageError::LogBehind { last, applied });
    }
    let document = snapshot_data(dirs, snapshot.index())?;
    machine.recover_v2(document.as_deref(), snapshot.index(), &log.kept)?;
    let mut opened = Opened {
        identity: Identity {
            member_id: log.metadata.node_id(),
            cluster_id: log.metadata.cluster_id(),
        },
        recovered: Recovered {
            snapshot: (snapshot.index(), snapshot.term()),
            applied,
            conf_state: machine.membership().read().conf_state().clone(),
            hard_state: log.hard_state,
            earlier: log.earlier,
            entries: log.entries,
        },
        log: Log::new(wal, dirs.clone()),
        backend,
        machine,
        notices,
    };
    if options.force_new_cluster {
        force::make_alone(&mut opened)?;
    }
    Ok(opened)
}

/// The machine on the database, or on the one that a leader sent, if the log says that it had
/// arrived.
fn open_machine(
    dirs: &Dirs,
    options: &Options,
    backend: &Backend,
    snapshot: &walpb::Snapshot,
    notices: &mut Vec<Notice>,
) -> Result<Machine, StorageError> {
    let machine = Machine::open(backend.clone(), options.machine)?;
    let applied = machine.applied().index;
    if snapshot.index() <= applied {
        return Ok(machine);
    }
    let received = snap::database_path(&dirs.snap_dir, snapshot.index());
    if !exists(dirs, &received)? {
        return Err(StorageError::DatabaseBehind {
            snapshot: snapshot.index(),
            applied,
        });
    }
    drop(machine);
    backend
        .replace(&received)
        .map_err(|source| StorageError::Backend {
            path: received.clone(),
            source,
        })?;
    notices.push(Notice::TookOver(received));
    let machine = Machine::open(backend.clone(), options.machine)?;
    let applied = machine.applied().index;
    if snapshot.index() > applied {
        return Err(StorageError::DatabaseBehind {
            snapshot: snapshot.index(),
            applied,
        });
    }
    Ok(machine)
}

/// The data of the snapshot at `index`; none if its file cannot be read, which etcd since 3.6 never
/// does.
fn snapshot_data(dirs: &Dirs, index: u64) -> Result<Option<Bytes>, StorageError> {
    let files = snap::list(&*dirs.disk, &dirs.snap_dir)?.into_iter();
    let mut snapshots = files.filter_map(|path| snap::read(&*dirs.disk, &path).ok());
    let found = snapshots.find(|snapshot| {
        let metadata = snapshot.metadata.as_ref();
        metadata.is_some_and(|metadata| metadata.index() == index)
    });
    let data = found.and_then(|snapshot| snapshot.data);
    Ok(data.filter(|data| !data.is_empty()))
}

/// The directories may be new themselves: a loss of power must not take them along with the
/// promises that are made in them. Those above that may not be opened were there before.
fn make_names_durable(dirs: &Dirs) -> Result<(), StorageError> {
    for dir in [&dirs.wal_dir, &dirs.snap_dir] {
        for above in dir.ancestors().skip(1) {
            let above = match above.as_os_str().is_empty() {
                true => Path::new("."),
                false => above,
            };
            match dirs.disk.sync_dir(above) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
                Err(source) => {
                    let what = format!("cannot sync {}", above.display());
                    return Err(StorageError::Directory { what, source });
                }
            }
        }
    }
    Ok(())
}

fn exists(dirs: &Dirs, path: &Path) -> Result<bool, StorageError> {
    dirs.disk
        .exists(path)
        .map_err(|source| StorageError::Directory {
            what: format!("cannot access {}", path.display()),
            source,
        })
}
