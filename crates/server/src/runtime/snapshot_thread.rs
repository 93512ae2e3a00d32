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

use retcd_node::{Input, SnapshotPoint};
use retcd_proto::raftpb::{Snapshot, SnapshotMetadata};
use retcd_proto::walpb;
use retcd_storage::disk::Disk;
use retcd_storage::snap::{self, SnapError};
use retcd_storage::wal;

use super::fatal::stop_process;
use super::log_thread::ToLog;
use super::member::Member;
use crate::log::Text;

/// How often files that nobody needs are looked for, as in etcd.
const PURGE_INTERVAL: Duration = Duration::from_secs(30);

/// What the thread needs to do its work.
pub struct Snapshots {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Where `.snap` files are.
    pub snap_dir: PathBuf,
    /// Where the log's segments are.
    pub wal_dir: PathBuf,
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
        let SnapshotPoint {
            index,
            term,
            conf_state,
        } = point;
        let record = walpb::Snapshot {
            index: Some(index),
            term: Some(term),
            conf_state: Some(conf_state.clone()),
        };
        let metadata = SnapshotMetadata {
            conf_state: Some(conf_state),
            index: Some(index),
            term: Some(term),
        };
        let data = member.membership.read().to_document();
        let snapshot = Snapshot {
            data: Some(data.into()),
            metadata: Some(metadata),
        };
        snap::write(&*self.disk, &self.snap_dir, &snapshot)?;
        member
            .metrics
            .snap
            .save
            .observe(started.elapsed().as_secs_f64());
        let (done, saved) = tokio::sync::oneshot::channel();
        let _ = self.log.send(ToLog::Snapshot(record, done));
        if saved.blocking_recv().is_err() {
            return Ok(()); // The member stops.
        }
        snap::remove_databases_before(&*self.disk, &self.snap_dir, index)?;
        let _ = self.node.send(Input::Snapshotted { index });
        crate::info!("saved snapshot to disk"; "snapshot-index" => index);
        Ok(())
    }

    fn purge(&self, member: &Arc<Member>) {
        let (wals, snaps) = (member.config.max_wals, member.config.max_snapshots);
        let purged = purge_dir(&*self.disk, &self.wal_dir, wals, |disk, dir, keep| {
            wal::purge(disk, dir, keep)
        })
        .and_then(|()| {
            purge_dir(&*self.disk, &self.snap_dir, snaps, |disk, dir, keep| {
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
