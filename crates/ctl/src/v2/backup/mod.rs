//! `backup`: copies the files of a member so that another cluster can begin with them.
//!
//! ```text
//! B/member/snap/TERM-INDEX.snap   the newest snapshot of the source that its log knows of; a version of
//!                                 the cluster from 3.6 on is not in it
//! B/member/snap/db                without --with-v3: empty but for the index; else a copy without
//!                                 members
//! B/member/wal/…                  new ids, that snapshot, and the entries behind it: see `entries`
//! ```
//! The result is started with `--force-new-cluster`. The source is only read. A backup that fails
//! leaves nothing behind.
//!
//! Unlike that of etcd 3.3, a database that is copied gets the index at which its last entry is
//! found in the new log. With the old one, a member would take its next writes for executed.

mod entries;

use std::fs;
use std::path::{Path, PathBuf};

use retcd_proto::etcdserverpb::Metadata;
use retcd_proto::raftpb::{HardState, Snapshot};
use retcd_state::v2::{self, Store};
use retcd_storage::backend::{Backend, Bucket, WriteBatch};
use retcd_storage::bolt::Access;
use retcd_storage::{snap, wal};

use super::failure::BAD_ARGS;
use super::options::Flag;
use super::program::{Command, Invocation};
use crate::cli::Exit;
use crate::offline::{
    CreatedFiles, database_text, disk, io_text, mark, newest_snapshot, open_locked, options,
};
use crate::stderr;
use entries::Selection;

/// How long a database may be locked by another process.
const LOCK_MAX: std::time::Duration = std::time::Duration::from_secs(1);

const CONSISTENT_INDEX: &[u8] = b"consistent_index";

/// `backup`
pub(super) const COMMAND: Command = Command::new(
    "backup",
    "copy the data of a member for another cluster",
    " ",
    &[
        Flag::text(&["data-dir"], "data directory of the member"),
        Flag::text(&["wal-dir"], "directory of its log (DATA-DIR/member/wal)"),
        Flag::text(&["backup-dir"], "directory to create"),
        Flag::text(
            &["backup-wal-dir"],
            "directory to create for the log (BACKUP-DIR/member/wal)",
        ),
        Flag::switch(&["with-v3"], "copy the keys of API version 3 as well"),
    ],
    run,
);

/// Where to copy from and to.
struct Plan {
    snap_dir: PathBuf,
    wal_dir: PathBuf,
    new_snap_dir: PathBuf,
    new_wal_dir: PathBuf,
    with_v3: bool,
}

impl Plan {
    fn new(invocation: &Invocation) -> Plan {
        let options = &invocation.options;
        let below = |dir: &str, name: &str| Path::new(options.text(dir)).join("member").join(name);
        let wal_dir = |given: &str, dir: &str| match options.text(given) {
            "" => below(dir, "wal"),
            given => PathBuf::from(given),
        };
        Plan {
            snap_dir: below("data-dir", "snap"),
            wal_dir: wal_dir("wal-dir", "data-dir"),
            new_snap_dir: below("backup-dir", "snap"),
            new_wal_dir: wal_dir("backup-wal-dir", "backup-dir"),
            with_v3: options.switch("with-v3"),
        }
    }
}

/// What is read from the log.
struct Source {
    snapshot: Option<Snapshot>,
    hard_state: HardState,
    selection: Selection,
}

fn run(invocation: &Invocation) -> Result<(), Exit> {
    let plan = Plan::new(invocation);
    back_up(&plan).map_err(|exit| {
        exit.message.iter().for_each(stderr::plain_line);
        Exit::silent(BAD_ARGS)
    })
}

fn back_up(plan: &Plan) -> Result<(), Exit> {
    let mut created = CreatedFiles::new().map_err(Exit::error)?;
    create_snap_dir(plan, &mut created)?;
    let source = read(plan)?;
    if let Some(snapshot) = &source.snapshot {
        snap::write(disk().as_ref(), &plan.new_snap_dir, snapshot).map_err(Exit::error)?;
    }
    created.check_signals()?;
    write_database(plan, &source)?;
    created.check_signals()?;
    write_log(plan, &source, &mut created)?;
    created.keep()
}

fn create_snap_dir(plan: &Plan, created: &mut CreatedFiles) -> Result<(), Exit> {
    let dir = &plan.new_snap_dir;
    created.create_dir(dir)?;
    let found = fs::read_dir(dir).map_err(|error| Exit::error(io_text("open", dir, &error)))?;
    match found.count() {
        0 => Ok(()),
        _ => Err(Exit::error(format!(
            "failed creating backup snapshot dir {0}: expected \"{0}\" to be empty",
            dir.display()
        ))),
    }
}

fn read(plan: &Plan) -> Result<Source, Exit> {
    for dir in [&plan.snap_dir, &plan.wal_dir] {
        fs::read_dir(dir).map_err(|error| Exit::error(io_text("open", dir, &error)))?;
    }
    let snapshot = newest_snapshot(&plan.snap_dir, &plan.wal_dir, |error| {
        stderr::plain_line(format_args!("ignoring snapshot: {error}"));
    })?
    .map(without_new_version)
    .transpose()?;
    let start = snapshot.as_ref().map_or_else(wal::origin, mark);
    let log = wal::read(disk().as_ref(), &plan.wal_dir, &start).map_err(Exit::error)?;
    let selection = entries::select(log.entries, plan.with_v3, &mut |dropped| {
        stderr::plain_line(format_args!("ignoring {dropped}"));
    });
    let selection = selection.map_err(Exit::error)?;
    let last = selection.last_index(start.index());
    let hard_state = HardState {
        commit: Some(selection.renumber(log.hard_state.commit()).min(last)),
        ..log.hard_state
    };
    Ok(Source {
        snapshot,
        hard_state,
        selection,
    })
}

/// No etcd that knows API v2 starts on a snapshot that tells a version behind its own.
fn without_new_version(mut snapshot: Snapshot) -> Result<Snapshot, Exit> {
    let data = snapshot.data.take().unwrap_or_default();
    let store = Store::from_document(&data).map_err(Exit::error)?.document();
    snapshot.data = Some(match store.cluster_version() >= Some(v2::UNKNOWN_FROM) {
        true => store.without_cluster_version().to_json().into(),
        false => data,
    });
    Ok(snapshot)
}

fn write_database(plan: &Plan, source: &Source) -> Result<(), Exit> {
    let path = plan.new_snap_dir.join("db");
    if plan.with_v3 {
        copy_database(&plan.snap_dir.join("db"), &path)?;
    }
    let failed = |error: &_| Exit::error(database_text(&path, error));
    let backend =
        Backend::open(disk(), &path, options(Access::Create)).map_err(|error| failed(&error))?;
    let reader = backend.reader();
    let mut batch = WriteBatch::default();
    for bucket in [Bucket::Members, Bucket::MembersRemoved, Bucket::Cluster] {
        for entry in reader.range(bucket, b"", None) {
            let (key, _) = entry.map_err(|error| failed(&error))?;
            batch.delete(bucket, &key);
        }
    }
    let index = match plan.with_v3 {
        false => Some(source.hard_state.commit()),
        true => {
            let index = reader.get(Bucket::Meta, CONSISTENT_INDEX);
            let index = index.map_err(|error| failed(&error))?;
            let index = index.and_then(|index| <[u8; 8]>::try_from(&index[..]).ok());
            index.map(|index| source.selection.renumber(u64::from_be_bytes(index)))
        }
    };
    if let Some(index) = index {
        batch.put(
            Bucket::Meta,
            CONSISTENT_INDEX,
            index.to_be_bytes()[..].into(),
        );
    }
    drop(reader);
    backend.write(batch);
    backend.commit().map_err(|error| failed(&error))?;
    Ok(())
}

/// Copies a database that no member writes to.
fn copy_database(source: &Path, target: &Path) -> Result<(), Exit> {
    let open = || Backend::open(disk(), source, options(Access::ReadOnly));
    // Holds the lock while the file is copied.
    let _locked = open_locked(Some(LOCK_MAX), open)
        .map_err(|error| Exit::error(database_text(source, &error)))?;
    let copied = fs::copy(source, target);
    copied.map_err(|error| Exit::error(io_text("copy", source, &error)))?;
    Ok(())
}

fn write_log(plan: &Plan, source: &Source, created: &mut CreatedFiles) -> Result<(), Exit> {
    let above = plan.new_wal_dir.parent();
    if let Some(above) = above.filter(|above| !above.as_os_str().is_empty()) {
        created.create_dir(above)?;
    }
    created.expect(&plan.new_wal_dir);
    let metadata = Metadata {
        node_id: Some(new_id()?),
        cluster_id: Some(new_id()?),
    };
    let dir = &plan.new_wal_dir;
    let log = wal::Wal::create(disk(), dir, &metadata, wal::Options::default());
    let mut log = log.map_err(Exit::error)?;
    if let Some(snapshot) = &source.snapshot {
        log.save_snapshot(&mark(snapshot)).map_err(Exit::error)?;
    }
    log.append(Some(&source.hard_state), &source.selection.entries)
        .map_err(Exit::error)?;
    log.sync().map_err(Exit::error)?;
    log.close().map_err(Exit::error)
}

/// A random id; 0 is none.
fn new_id() -> Result<u64, Exit> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Exit::error(format!("no random numbers: {error}")))?;
    Ok(u64::from_be_bytes(bytes).max(1))
}
