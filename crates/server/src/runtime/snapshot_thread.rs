//! The thread that writes raft snapshots, every `--snapshot-count` entries; see
//! [`retcd_member::snapshot`] for the steps.
//!
//! As nobody waits for this thread, it also prepares the log's next segment, purges old files and
//! gives back memory that is not used.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use retcd_member::ToLog;
use retcd_member::snapshot::{RETRY_INTERVAL, Snapshots, Written};
use retcd_state::machine::SnapshotHead;
use retcd_storage::snap::SnapError;
use retcd_storage::wal::{Preparation, Prepared, WalError};
use tokio::sync::oneshot;

use super::apply::{ApplyInbox, ToApply, commit_database};
use super::fatal::stop_process;
use super::node::NodeInbox;
use crate::allocator::IdleArenas;
use crate::log::Text;
use crate::server::Server;

/// How often files that nobody needs are looked for, as in etcd.
const PURGE_INTERVAL: Duration = Duration::from_secs(30);

/// What the thread is asked to do.
pub(super) enum ToSnapshot {
    /// Write a snapshot.
    Save(Box<SnapshotHead>),
    /// Prepare a segment of the log, then answer.
    Prepare(Preparation, Sender<Result<Prepared, WalError>>),
    /// End.
    Stop,
}

/// What the thread needs to do its work.
pub(super) struct SnapshotThread {
    /// Writes snapshots.
    pub snapshots: Snapshots,
    /// To the log.
    pub log: Sender<ToLog>,
    /// To the node.
    pub node: NodeInbox,
    /// To the machine.
    pub apply: ApplyInbox,
    /// What the threads share.
    pub server: Arc<Server>,
}

impl SnapshotThread {
    /// Runs until it is told to stop, or the last sender is gone.
    pub(super) fn run(&self, inbox: &Receiver<ToSnapshot>) {
        let mut purged_at = Instant::now();
        let mut idle_arenas = IdleArenas::default();
        // Since when there has been no room for a snapshot.
        let mut no_room: Option<Instant> = None;
        loop {
            match inbox.recv_timeout(Duration::from_secs(1)) {
                Ok(ToSnapshot::Save(head)) => {
                    no_room = match self.save(&head) {
                        Ok(true) => None,
                        Ok(false) => Some(Instant::now()),
                        Err(error) => stop_process("a snapshot could not be written", &error),
                    }
                }
                Ok(ToSnapshot::Prepare(preparation, done)) => drop(done.send(preparation.make())),
                Err(RecvTimeoutError::Timeout) => {
                    // Also when nothing is written, which is when the log would look itself.
                    if self.server.member.room.is_close() {
                        let _ = self.log.send(ToLog::MakeRoom);
                    }
                    idle_arenas.look();
                }
                Ok(ToSnapshot::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            if no_room
                .take_if(|since| since.elapsed() >= RETRY_INTERVAL)
                .is_some()
            {
                self.apply.send(ToApply::SnapshotDue);
            }
            if purged_at.elapsed() >= PURGE_INTERVAL {
                self.purge();
                purged_at = Instant::now();
            }
        }
    }

    /// Whether there was room.
    fn save(&self, head: &SnapshotHead) -> Result<bool, SnapError> {
        let committed = commit_database(&self.server);
        let started = Instant::now();
        let seconds = || started.elapsed().as_secs_f64();
        let snap = &self.server.metrics.snap;
        let encoded = || snap.marshal.observe(seconds());
        let metadata = match self.snapshots.write(head, &mut || committed, encoded)? {
            Written::Durable(metadata) => metadata,
            Written::NoRoom => return Ok(false),
        };
        snap.save.observe(seconds());
        let (done, recorded) = oneshot::channel();
        let _ = self.log.send(ToLog::Record(metadata, done));
        // Otherwise the member stops.
        if recorded.blocking_recv().is_ok() {
            let index = head.applied.index;
            self.node.report(self.snapshots.recorded(index)?);
            self.apply.send(ToApply::Snapshotted(index));
        }
        Ok(true)
    }

    fn purge(&self) {
        let config = &self.server.config;
        let purged = self.snapshots.purge(config.max_wals, config.max_snapshots);
        if let Err(error) = purged {
            crate::warn!("failed to purge files"; "error" => Text(error));
        }
    }
}
