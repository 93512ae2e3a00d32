//! The thread that writes raft snapshots: every `--snapshot-count` entries, so that the log can let go
//! of its oldest segments.
//!
//! A snapshot stands for the database, which is a file of its own already. What is written is its
//! index and configuration, and the membership as etcd up to 3.6 reads it.
//!
//! ```text
//! database committed at or behind the index ─▶ .snap file, synced ─▶ record in the log, synced ─▶ release
//! ```
//! A crash between two steps leaves the earlier ones without effect. If there is no room for the file, nothing is released,
//! and it is tried again; the newest snapshot that is wanted counts.
//!
//! As nobody waits for this thread, it also prepares the segments of the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::{Duration, Instant};

use retcd_node::durable::Dirs;
use retcd_node::{Input, SnapshotPoint};
use retcd_storage::disk::{Disk, is_full};
use retcd_storage::snap::{self, SnapError};
use retcd_storage::wal::{self, Preparation, Prepared, WalError};

use super::apply_thread::ToApply;
use super::fatal::stop_process;
use super::log_thread::ToLog;
use super::member::Member;
use crate::log::Text;

/// How often files that nobody needs are looked for, as in etcd.
const PURGE_INTERVAL: Duration = Duration::from_secs(30);
/// How long after a snapshot found no room it is tried again; there is a line in the log each time.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// What the thread is asked to do.
pub enum ToSnapshot {
    /// Write a snapshot.
    Save(SnapshotPoint),
    /// Prepare a segment of the log, then answer.
    Prepare(Preparation, Sender<Result<Prepared, WalError>>),
    /// End.
    Stop,
}

/// What the thread needs to do its work.
pub struct Snapshots {
    /// Where files are.
    pub dirs: Dirs,
    /// To the log.
    pub log: Sender<ToLog>,
    /// To the node.
    pub node: SyncSender<Input>,
}

impl Snapshots {
    /// Runs until it is told to stop, or the last sender is gone.
    pub fn run(&self, inbox: &Receiver<ToSnapshot>, member: &Arc<Member>) {
        let mut purged_at = Instant::now();
        // What found no room, and when.
        let mut delayed: Option<(SnapshotPoint, Instant)> = None;
        loop {
            match inbox.recv_timeout(Duration::from_secs(1)) {
                Ok(ToSnapshot::Save(point)) => delayed = self.save_or_delay(point, member),
                Ok(ToSnapshot::Prepare(preparation, done)) => drop(done.send(preparation.make())),
                Err(RecvTimeoutError::Timeout) => {
                    // Also when nothing is written, which is when the log would look itself.
                    if member.room.is_close() {
                        let _ = self.log.send(ToLog::MakeRoom);
                    }
                }
                Ok(ToSnapshot::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Some((point, _)) =
                delayed.take_if(|(_, since)| since.elapsed() >= RETRY_INTERVAL)
            {
                delayed = self.save_or_delay(point, member);
            }
            if purged_at.elapsed() >= PURGE_INTERVAL {
                self.purge(member);
                purged_at = Instant::now();
            }
        }
    }

    /// Returns what found no room. Any other failure ends the process.
    fn save_or_delay(
        &self,
        point: SnapshotPoint,
        member: &Arc<Member>,
    ) -> Option<(SnapshotPoint, Instant)> {
        // Without this the snapshot would stand for what the database does not have.
        if let Err(error) = member.commit_backend_blocking() {
            crate::warn!("no room for a snapshot; the log keeps its segments, and it will be tried again";
                "error" => Text(error), "retry-after" => RETRY_INTERVAL);
            return Some((point, Instant::now()));
        }
        match self.save(&point, member) {
            Ok(()) => None,
            Err(SnapError::Io { path, source }) if is_full(&source) => {
                crate::warn!("no room for a snapshot; the log keeps its segments, and it will be tried again";
                    "path" => &path, "error" => Text(&source), "retry-after" => RETRY_INTERVAL);
                Some((point, Instant::now()))
            }
            Err(error) => stop_process("a snapshot could not be written", &error),
        }
    }

    fn save(&self, point: &SnapshotPoint, member: &Arc<Member>) -> Result<(), SnapError> {
        let started = Instant::now();
        let document = member.membership.read().to_document();
        let snapshot = point.to_snapshot(document);
        let dirs = &self.dirs;
        snap::write(&*dirs.disk, &dirs.snap_dir, &snapshot)?;
        member
            .metrics
            .snap
            .save
            .observe(started.elapsed().as_secs_f64());
        let (done, saved) = tokio::sync::oneshot::channel();
        let metadata = snapshot.metadata.unwrap_or_default();
        let _ = self.log.send(ToLog::Snapshot(metadata, done));
        if saved.blocking_recv().is_err() {
            return Ok(()); // The member stops.
        }
        let index = point.index;
        snap::remove_databases_before(&*dirs.disk, &dirs.snap_dir, index)?;
        let _ = self.node.send(Input::Snapshotted { index });
        let _ = member.apply.send(ToApply::Snapshotted(index));
        crate::info!("saved snapshot to disk"; "snapshot-index" => index);
        Ok(())
    }

    fn purge(&self, member: &Arc<Member>) {
        let (wals, snaps) = (member.config.max_wals, member.config.max_snapshots);
        let Dirs {
            disk,
            snap_dir,
            wal_dir,
        } = &self.dirs;
        let purged = purge_dir(&**disk, wal_dir, wals, |disk, dir, keep| {
            wal::purge(disk, dir, keep)
        })
        .and_then(|()| {
            purge_dir(&**disk, snap_dir, snaps, |disk, dir, keep| {
                snap::purge(disk, dir, keep)
            })
        });
        if let Err(error) = purged {
            crate::warn!("failed to purge files"; "error" => Text(error));
        }
    }
}

/// A limit of 0 keeps all files.
fn purge_dir<E: std::fmt::Display>(
    disk: &dyn Disk,
    dir: &Path,
    keep: usize,
    purge: impl Fn(&dyn Disk, &Path, usize) -> Result<Vec<PathBuf>, E>,
) -> Result<(), String> {
    if keep == 0 {
        return Ok(());
    }
    let purged = purge(disk, dir, keep).map_err(|error| error.to_string())?;
    for path in purged {
        crate::info!("purged"; "path" => &path.display().to_string());
    }
    Ok(())
}
