//! The thread that writes raft snapshots: every `--snapshot-count` entries, so that the log can let go
//! of its oldest segments.
//!
//! A snapshot stands for the database, which is a file of its own already. What is written is its
//! index and configuration, and the membership as etcd up to 3.6 reads it.
//!
//! ```text
//! database committed at or behind the index ─▶ .snap file, synced ─▶ record in the log, synced ─▶ release
//! ```
//! A crash between two steps leaves the earlier ones without effect.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::{Duration, Instant};

use retcd_node::durable::Dirs;
use retcd_node::{Input, SnapshotPoint};
use retcd_storage::disk::Disk;
use retcd_storage::snap::{self, SnapError};
use retcd_storage::wal;

use super::apply_thread::ToApply;
use super::fatal::stop_process;
use super::log_thread::ToLog;
use super::member::Member;
use crate::log::Text;

/// How often files that nobody needs are looked for, as in etcd.
const PURGE_INTERVAL: Duration = Duration::from_secs(30);

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
    /// Runs until the last sender is gone.
    pub fn run(&self, inbox: &Receiver<SnapshotPoint>, member: &Arc<Member>) {
        let mut purged_at = Instant::now();
        loop {
            match inbox.recv_timeout(Duration::from_secs(1)) {
                Ok(point) => {
                    if let Err(error) = self.save(point, member) {
                        stop_process("a snapshot could not be written", &error);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if purged_at.elapsed() >= PURGE_INTERVAL {
                self.purge(member);
                purged_at = Instant::now();
            }
        }
    }

    fn save(&self, point: SnapshotPoint, member: &Arc<Member>) -> Result<(), SnapError> {
        let started = Instant::now();
        member.commit_backend_blocking();
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
