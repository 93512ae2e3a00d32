//! The thread that makes the database durable.
//!
//! The log is what makes a write safe; the database is a checkpoint of it. So it is committed every
//! `--backend-batch-interval`, or after `--backend-batch-limit` changes, and nobody waits for that
//! save those who ask for it: snapshots and physical compactions.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use retcd_storage::backend::{Backend, BackendError};
use tokio::sync::oneshot;

use super::fatal::stop_process;
use crate::metrics::Metrics;

/// Longest pause between two looks at the number of pending changes.
const POLL: Duration = Duration::from_millis(20);

/// What the backend thread is asked to do.
pub enum ToBackend {
    /// Commit everything written so far, then answer.
    Commit(oneshot::Sender<()>),
    /// Commit what is left, and end.
    Stop,
}

/// How often the database is committed.
#[derive(Clone, Copy, Debug)]
pub struct CommitPace {
    /// Longest time that a change waits.
    pub interval: Duration,
    /// Changes that are committed without waiting.
    pub changes_max: usize,
}

/// Runs until the last sender is gone; commits what is left.
pub fn run(backend: &Backend, inbox: &Receiver<ToBackend>, metrics: &Metrics, pace: CommitPace) {
    let commit = || -> Result<(), BackendError> {
        if backend.pending_changes() > 0 {
            let started = Instant::now();
            backend.commit()?;
            metrics
                .backend
                .commit
                .observe(started.elapsed().as_secs_f64());
        }
        Ok(())
    };
    let commit = || {
        if let Err(error) = commit() {
            stop_process(
                "the database failed; the member stops, its log has everything",
                &error,
            );
        }
    };
    let mut committed_at = Instant::now();
    loop {
        match inbox.recv_timeout(POLL.min(pace.interval)) {
            Ok(ToBackend::Commit(done)) => {
                commit();
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => {
                if committed_at.elapsed() >= pace.interval
                    || backend.pending_changes() >= pace.changes_max
                {
                    commit();
                    committed_at = Instant::now();
                }
            }
            Ok(ToBackend::Stop) | Err(RecvTimeoutError::Disconnected) => {
                commit();
                return;
            }
        }
    }
}
