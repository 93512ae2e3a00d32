//! `snapshot restore`: creates the data directory of a member of a new cluster from a backup.
//!
//! ```text
//! DIR/member/snap/db                                     the backup's database, new members
//! DIR/member/snap/0000000000000001-<members>.snap        term 1, index = number of members
//! DIR/member/wal/0000000000000000-0000000000000000.wal   a configuration change per member, then
//!                                                        that snapshot
//! ```
//!
//! On failure nothing is left behind. Keys, leases, users and alarms are kept. All members restored
//! from one backup with the same flags form a cluster.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use prost::Message;
use retcd_log::{self as log, ByteSize, Hex};
use retcd_proto::etcdserverpb::Metadata;
use retcd_proto::raftpb::{
    ConfChange, ConfChangeType, ConfState, Entry, EntryType, HardState, Snapshot, SnapshotMetadata,
};
use retcd_proto::walpb;
use retcd_state::meta::V2_WRITTEN;
use retcd_state::mvcc::Revision;
use retcd_storage::backend::{self, Backend, Bucket, WriteBatch};
use retcd_storage::bolt::{Access, BoltError};
use retcd_storage::{snap, wal};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::cluster::{self, Cluster};
use super::created_files::CreatedFiles;
use super::input_file::{check_regular_for, database_text};
use super::{disk, io_text, options};
use crate::cli::{Command, Exit, Flag, Invocation};
use crate::go::quote::quote;
use crate::progress::Progress;

/// A database is a multiple of this size; the remainder of a backup is its checksum.
const PAGE_BYTES: u64 = 512;
const CHECKSUM_BYTES: u64 = 32;
/// The term of all entries of a restored log.
const TERM: u64 = 1;

/// The `restore` command.
pub(crate) fn command() -> Command {
    let cluster = "members of the new cluster: name=url, separated by commas";
    Command::new(
        "restore",
        "<filename> --data-dir {output dir} [options]",
        "Create a data directory from a backup",
        run,
    )
    .flags([
        Flag::text("data-dir", "", "directory to create (default: NAME.etcd)"),
        Flag::text(
            "wal-dir",
            "",
            "directory of the log (default: DATA-DIR/member/wal)",
        ),
        Flag::text("name", "default", "this member's name"),
        Flag::text("initial-cluster", "default=http://localhost:2380", cluster),
        Flag::text(
            "initial-cluster-token",
            "etcd-cluster",
            "token of the new cluster",
        ),
        Flag::text(
            "initial-advertise-peer-urls",
            "http://localhost:2380",
            "this member's peer URLs",
        ),
        Flag::switch(
            "skip-hash-check",
            "accept a database without checksum, e.g. from a data directory",
        ),
        Flag::uint("bump-revision", 0, "increase the latest revision by this amount"),
        Flag::switch(
            "mark-compacted",
            "mark the restored history as compacted, so that watchers notice; requires --bump-revision",
        ),
        Flag::uint(
            "initial-memory-map-size",
            10 << 30,
            "ignored: files are not memory-mapped",
        ),
    ])
}

/// What to restore, and where.
struct Plan {
    source: PathBuf,
    data_dir: PathBuf,
    snap_dir: PathBuf,
    wal_dir: PathBuf,
    skip_hash_check: bool,
    /// By how much to increase the revision; 0 leaves it unchanged.
    bump: u64,
    cluster: Cluster,
}

impl Plan {
    fn log(&self, message: &'static str) {
        log::info!(
            message;
            "path" => self.source, "wal-dir" => self.wal_dir, "data-dir" => self.data_dir,
            "snap-dir" => self.snap_dir,
        );
    }
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let plan = plan(invocation)?;
    plan.log("restoring snapshot");
    let mut created = CreatedFiles::new().map_err(Exit::error)?;
    let backup = open_backup(&plan)?;
    created.create_dir(&plan.snap_dir)?;
    copy_database(&plan, backup, &created)?;
    rewrite_database(&plan)?;
    created.check_signals()?;
    write_log(&plan, &mut created)?;
    created.keep()?;
    plan.log("restored snapshot");
    Ok(())
}

fn plan(invocation: &Invocation<'_>) -> Result<Plan, Exit> {
    let texts = invocation.texts();
    let [source] = texts.as_slice() else {
        return Err(Exit::bad_args(
            "snapshot restore requires exactly one argument",
        ));
    };
    let flags = &invocation.flags;
    let (bump, mark) = (flags.uint("bump-revision"), flags.bool("mark-compacted"));
    if (bump > 0) != mark {
        return Err(Exit::bad_args(
            "--mark-compacted required if --revision-bump > 0",
        ));
    }
    let name = flags.text("name");
    let cluster = cluster::found(
        name,
        flags.text("initial-cluster"),
        flags.text("initial-advertise-peer-urls"),
        flags.text("initial-cluster-token"),
    )
    .map_err(Exit::error)?;
    let data_dir = match flags.text("data-dir") {
        "" => PathBuf::from(format!("{name}.etcd")),
        dir => PathBuf::from(dir),
    };
    if data_dir.exists()
        && fs::read_dir(&data_dir).map_or(true, |mut entries| entries.next().is_some())
    {
        let dir = quote(data_dir.display().to_string().as_bytes());
        return Err(Exit::error(format!(
            "data-dir {dir} not empty or could not be read"
        )));
    }
    let wal_dir = match flags.text("wal-dir") {
        "" => data_dir.join("member/wal"),
        dir if fs::symlink_metadata(dir).is_ok() => {
            return Err(Exit::error(format!(
                "wal-dir {} exists",
                quote(dir.as_bytes())
            )));
        }
        dir => PathBuf::from(dir),
    };
    Ok(Plan {
        source: PathBuf::from(source),
        snap_dir: data_dir.join("member/snap"),
        data_dir,
        wal_dir,
        skip_hash_check: flags.bool("skip-hash-check"),
        bump,
        cluster,
    })
}

/// A backup file of plausible size.
struct Backup {
    file: File,
    database_bytes: u64,
    has_checksum: bool,
}

/// Opens the backup and checks what can be checked without reading it.
fn open_backup(plan: &Plan) -> Result<Backup, Exit> {
    let source = &plan.source;
    let bytes = check_regular_for("open", source)?.len();
    if bytes < CHECKSUM_BYTES {
        // etcd's tool looks for the checksum before the start of the file.
        log::error!("the file is too short for a backup"; "path" => source, "bytes" => bytes);
        let invalid = io::Error::from(Errno::INVAL);
        return Err(Exit::error(io_text("seek", source, &invalid)));
    }
    let has_checksum = bytes % PAGE_BYTES == CHECKSUM_BYTES;
    if !has_checksum && !plan.skip_hash_check {
        log::error!("the file has no checksum; that of `etcdctl snapshot save` has one"; "path" => source);
        return Err(Exit::error(
            "snapshot missing hash but --skip-hash-check=false",
        ));
    }
    let file = File::open(source).map_err(|error| Exit::error(io_text("open", source, &error)))?;
    Ok(Backup {
        file,
        database_bytes: bytes - if has_checksum { CHECKSUM_BYTES } else { 0 },
        has_checksum,
    })
}

/// Copies the database without its checksum, and verifies it.
fn copy_database(plan: &Plan, mut backup: Backup, created: &CreatedFiles) -> Result<(), Exit> {
    let source = &plan.source;
    let actual = copy(plan, &mut backup, created)?;
    if plan.skip_hash_check || !backup.has_checksum {
        return Ok(());
    }
    let mut expected = [0; CHECKSUM_BYTES as usize];
    backup
        .file
        .read_exact(&mut expected)
        .map_err(|error| Exit::error(io_text("read", source, &error)))?;
    if expected != actual {
        log::error!("the backup is damaged"; "path" => source);
        return Err(Exit::error(format!(
            "expected sha256 {}, got {}",
            listed(&expected),
            listed(&actual),
        )));
    }
    Ok(())
}

/// Copies the backup's database to a new file; returns its SHA-256.
fn copy(plan: &Plan, backup: &mut Backup, created: &CreatedFiles) -> Result<[u8; 32], Exit> {
    let target = &plan.snap_dir.join("db");
    let unread = |error| Exit::error(io_text("read", &plan.source, &error));
    let unwritten = |error| Exit::error(io_text("write", target, &error));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(target)
        .map_err(unwritten)?;
    let mut hash = Sha256::new();
    let mut limited = (&mut backup.file).take(backup.database_bytes);
    let mut buffer = vec![0; 1 << 20];
    let mut progress = Progress::new();
    let (mut copied, all) = (0, backup.database_bytes);
    loop {
        created.check_signals()?;
        let read = limited.read(&mut buffer).map_err(unread)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        file.write_all(&buffer[..read]).map_err(unwritten)?;
        copied += read as u64;
        progress.show(copied, all, ByteSize(all));
    }
    file.sync_all().map_err(unwritten)?;
    Ok(hash.finalize().into())
}

/// Bytes as Go prints a slice: `[125 124 138]`.
fn listed(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(" "))
}

/// Updates the database for the new cluster.
fn rewrite_database(plan: &Plan) -> Result<(), Exit> {
    let path = plan.snap_dir.join("db");
    let failed = |error: &_| Exit::error(database_failure(plan, error));
    let backend =
        Backend::open(disk(), &path, options(Access::Existing)).map_err(|error| failed(&error))?;
    let reader = backend.reader();
    let mut batch = WriteBatch::default();
    log::info!("Trimming membership information from the backend...");
    for bucket in [Bucket::Members, Bucket::MembersRemoved] {
        for entry in reader.range(bucket, b"", None) {
            let (key, _) = entry.map_err(|error| failed(&error))?;
            batch.delete(bucket, &key);
        }
    }
    for member in &plan.cluster.members {
        let key = format!("{:x}", member.id);
        batch.put(
            Bucket::Members,
            key.as_bytes(),
            member.to_json().into_bytes().into(),
        );
        log::info!(
            "added member";
            "cluster-id" => Hex(plan.cluster.id), "local-member-id" => Hex(0),
            "added-peer-id" => key, "added-peer-peer-urls" => member.peer_urls,
            "added-peer-is-learner" => false
        );
    }
    if plan.bump > 0 {
        let latest = latest_revision(plan, &reader)?;
        bump_revision(latest, plan.bump, &mut batch)?;
    }
    let index = plan.cluster.members.len() as u64;
    batch.put(
        Bucket::Meta,
        b"consistent_index",
        index.to_be_bytes()[..].into(),
    );
    // A backup comes without the store of API v2.
    batch.delete(Bucket::Meta, V2_WRITTEN);
    batch.put(Bucket::Meta, b"term", TERM.to_be_bytes()[..].into());
    drop(reader);
    backend.write(batch);
    backend.commit().map_err(|error| failed(&error))?;
    Ok(())
}

/// I/O errors name the copy; invalid contents are those of the backup.
fn database_failure(plan: &Plan, error: &BoltError) -> String {
    match error {
        BoltError::Io(error) if error.kind() != ErrorKind::UnexpectedEof => error.to_string(),
        BoltError::Full(error) => error.to_string(),
        error => database_text(&plan.source, error),
    }
}

fn latest_revision(plan: &Plan, reader: &backend::Reader) -> Result<i64, Exit> {
    let mut latest = 0;
    for entry in reader.range(Bucket::Key, b"", None) {
        let (key, _) = entry.map_err(|error| Exit::error(database_failure(plan, &error)))?;
        let (revision, _) = Revision::from_key(&key).ok_or_else(|| {
            let source = plan.source.display();
            Exit::error(format!(
                "{source}: bucket key: {:02x?} is no revision",
                &key[..]
            ))
        })?;
        latest = latest.max(revision.main);
    }
    Ok(latest)
}

/// Increases the revision with an empty record and marks all earlier revisions as compacted, so
/// that watchers notice that their history is gone.
fn bump_revision(latest: i64, bump: u64, batch: &mut WriteBatch) -> Result<(), Exit> {
    let overflow = || Exit::error(format!("revision {latest} cannot be raised by {bump}"));
    let raised = latest.checked_add_unsigned(bump).ok_or_else(overflow)?;
    log::info!(
        "bumping latest revision";
        "latest-revision" => latest, "bump-amount" => bump, "new-latest-revision" => raised
    );
    log::info!("marking revision compacted"; "revision" => raised);
    let key = Revision::start_of(raised).to_key();
    batch.put(Bucket::Key, &key, Vec::new().into());
    batch.put(Bucket::Meta, b"scheduledCompactRev", key[..].into());
    Ok(())
}

/// Writes the log and the snapshot at its end.
fn write_log(plan: &Plan, created: &mut CreatedFiles) -> Result<(), Exit> {
    let cluster = &plan.cluster;
    if let Some(above) = plan
        .wal_dir
        .parent()
        .filter(|above| !above.as_os_str().is_empty())
    {
        created.create_dir(above)?;
    }
    created.expect(&plan.wal_dir);
    let metadata = Metadata {
        node_id: Some(cluster.own_id),
        cluster_id: Some(cluster.id),
    };
    let mut log = wal::Wal::create(disk(), &plan.wal_dir, &metadata, wal::Options::default())
        .map_err(Exit::error)?;
    let entries: Vec<Entry> = (1..)
        .zip(&cluster.members)
        .map(|(index, member)| add_member(index, member))
        .collect();
    let index = entries.len() as u64;
    let vote = cluster.members.first().map(|member| member.id);
    let hard_state = HardState {
        term: Some(TERM),
        vote,
        commit: Some(index),
    };
    log.append(Some(&hard_state), &entries)
        .map_err(Exit::error)?;
    log.sync().map_err(Exit::error)?;

    let voters = cluster.members.iter().map(|member| member.id).collect();
    let conf_state = ConfState {
        voters,
        ..ConfState::default()
    };
    let snapshot = Snapshot {
        data: Some(membership_document(cluster).into()),
        metadata: Some(SnapshotMetadata {
            conf_state: Some(conf_state.clone()),
            index: Some(index),
            term: Some(TERM),
        }),
    };
    snap::write(disk().as_ref(), &plan.snap_dir, &snapshot).map_err(Exit::error)?;
    let mark = walpb::Snapshot {
        index: Some(index),
        term: Some(TERM),
        conf_state: Some(conf_state),
    };
    log.save_snapshot(&mark).map_err(Exit::error)?;
    log.close().map_err(Exit::error)
}

fn add_member(index: u64, member: &cluster::Member) -> Entry {
    let change = ConfChange {
        r#type: Some(ConfChangeType::ConfChangeAddNode.into()),
        node_id: Some(member.id),
        context: Some(member.to_json().into_bytes().into()),
        ..ConfChange::default()
    };
    Entry {
        term: Some(TERM),
        index: Some(index),
        r#type: Some(EntryType::EntryConfChange.into()),
        data: Some(change.encode_to_vec().into()),
    }
}

/// The members as older servers read them from the snapshot.
fn membership_document(cluster: &Cluster) -> Vec<u8> {
    let members = cluster.members.iter().map(|member| snap::Member {
        id: member.id,
        peer_urls: member.peer_urls.clone(),
        ..snap::Member::default()
    });
    snap::Membership {
        members: members.collect(),
        ..snap::Membership::default()
    }
    .to_document()
}
