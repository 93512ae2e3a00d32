//! The thread that owns the write-ahead log.
//!
//! It drains everything that is queued, writes it with one system call, makes it durable with one
//! more, and acknowledges the newest batch, which covers the older ones. It never waits on a timer: the
//! next group gathers while the disk works on this one.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use retcd_node::durable::{Log, LogError};
use retcd_node::{Append, Input};
use retcd_proto::raftpb::SnapshotMetadata;
use tokio::sync::oneshot;

use super::fatal::stop_process;
use crate::metrics::Metrics;

/// What the log is asked to do.
pub enum ToLog {
    /// Append entries and hard state.
    Append(Append),
    /// Record a snapshot whose file is durable, let go of the segments that it covers, then answer.
    Snapshot(SnapshotMetadata, oneshot::Sender<()>),
    /// Let go of the segments before this index: a received database has taken the place of what they led to.
    Release(u64),
}

/// Runs until the last sender is gone; closes the log.
///
/// A failed write or sync ends the process: what the disk holds is unknown from then on.
pub fn run(
    mut log: Log,
    inbox: &Receiver<ToLog>,
    node: &SyncSender<Input>,
    metrics: &Arc<Metrics>,
) {
    while let Ok(first) = inbox.recv() {
        if let Err(error) = turn(&mut log, first, inbox, node, metrics) {
            stop_process(
                "the write-ahead log failed; the member stops so that nothing unsaved is acknowledged",
                &error,
            );
        }
    }
    if let Err(error) = log.close() {
        stop_process("the write-ahead log could not be closed", &error);
    }
}

fn turn(
    log: &mut Log,
    first: ToLog,
    inbox: &Receiver<ToLog>,
    node: &SyncSender<Input>,
    metrics: &Arc<Metrics>,
) -> Result<(), LogError> {
    let mut newest = None;
    let mut others = Vec::new();
    for message in std::iter::once(first).chain(inbox.try_iter()) {
        match message {
            ToLog::Append(append) => {
                log.append(&append)?;
                newest = Some(append.number);
            }
            other => others.push(other),
        }
    }
    if let Some(number) = newest {
        let started = Instant::now();
        let stats = log.sync()?;
        if stats.synced {
            metrics.wal.fsync.observe(started.elapsed().as_secs_f64());
        }
        metrics.wal.write_bytes.add(stats.bytes as i64);
        // The node thread outlives this one unless the process is stopping.
        let _ = node.send(Input::Appended { number });
        log.prepare()?;
    }
    for message in others {
        match message {
            ToLog::Append(_) => unreachable!("appends were taken above"),
            ToLog::Snapshot(metadata, done) => {
                log.record(metadata)?;
                let _ = done.send(());
            }
            ToLog::Release(index) => log.release_to(index),
        }
    }
    Ok(())
}
