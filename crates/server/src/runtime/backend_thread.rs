//! The thread that makes the database durable.
//!
//! The log is what makes a write safe; the database is a checkpoint of it. It is committed every
//! `--backend-batch-interval`, or after `--backend-batch-limit` changes. Snapshots, restores and
//! physical compactions wait for a commit. While the file cannot grow, changes stay in memory for a
//! later commit, as the log has them; the thread also watches the free space of the disk.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use retcd_member::room::Room;
use retcd_member::{Committed, NoRoom};
use retcd_storage::backend::{Backend, BackendError};

use super::fatal::stop_process;
use crate::config::Config;
use crate::log::{Text, Throttle};
use crate::metered_disk::database_time;
use crate::metrics::Metrics;

/// Longest pause between two looks at the number of pending changes.
const POLL: Duration = Duration::from_millis(20);

/// What the backend thread is asked to do.
pub(super) enum ToBackend {
    /// Commit everything written so far, then answer.
    Commit(Committed),
    /// Commit what is left, and end.
    Stop,
}

/// How often the database is committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommitPace {
    /// Longest time that a change waits.
    pub interval: Duration,
    /// Changes that are committed without waiting.
    pub changes_max: usize,
}

impl Config {
    /// As `--backend-batch-interval` and `--backend-batch-limit` have it.
    pub(super) fn commit_pace(&self) -> CommitPace {
        CommitPace {
            interval: self.backend_batch_interval.std(),
            changes_max: self.backend_batch_limit.unsigned_abs().max(1),
        }
    }
}

/// The database and whoever hears of it.
pub(super) struct Committer {
    /// The database.
    pub backend: Backend,
    /// The room on its disk.
    pub room: Arc<Room>,
    /// What Prometheus is told.
    pub metrics: Arc<Metrics>,
    /// How often it commits.
    pub pace: CommitPace,
}

impl Committer {
    /// Runs until it is told to stop, or the last sender is gone; commits what is left.
    pub(super) fn run(&self, inbox: &Receiver<ToBackend>) {
        let throttle = Throttle::default();
        let mut committed_at = Instant::now();
        loop {
            match inbox.recv_timeout(POLL.min(self.pace.interval)) {
                Ok(ToBackend::Commit(done)) => drop(done.send(self.commit(&throttle))),
                Err(RecvTimeoutError::Timeout) => {
                    if committed_at.elapsed() >= self.pace.interval
                        || self.backend.pending_changes() >= self.pace.changes_max
                    {
                        // What found no room is tried again next time.
                        let _ = self.commit(&throttle);
                        committed_at = Instant::now();
                    }
                }
                Ok(ToBackend::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    // The log has what finds no room.
                    let _ = self.commit(&throttle);
                    return;
                }
            }
            self.room.look();
        }
    }

    /// Any failure but the lack of room ends the process.
    fn commit(&self, throttle: &Throttle) -> Result<(), NoRoom> {
        if self.backend.pending_changes() == 0 {
            return Ok(());
        }
        let (started, written) = (Instant::now(), database_time());
        match self.backend.commit() {
            Ok(_) => {
                let (took, written) = (started.elapsed(), database_time() - written);
                let metrics = &self.metrics.backend;
                metrics.commit.observe(took.as_secs_f64());
                metrics.commit_write.observe(written.as_secs_f64());
                let spill = took.saturating_sub(written);
                metrics.commit_spill.observe(spill.as_secs_f64());
                Ok(())
            }
            Err(BackendError::Full(error)) => {
                if throttle.allow() {
                    crate::warn!("no room for the database to grow; what is written waits in memory and is in the log";
                        "error" => Text(&error), "pending-bytes" => self.backend.pending_bytes());
                }
                Err(NoRoom)
            }
            Err(error) => stop_process(
                "the database failed; the member stops, its log has everything",
                &error,
            ),
        }
    }
}
