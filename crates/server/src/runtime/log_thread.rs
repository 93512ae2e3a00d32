//! The thread that owns the write-ahead log.
//!
//! It drains everything that is queued, writes it with one system call, makes it durable with one
//! more, and acknowledges the newest batch, which covers the older ones. It never waits on a timer: the
//! next group gathers while the disk works on this one. Nor does it wait for the next segment, which the snapshot thread
//! prepares (see [`NextSegment`]).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::time::Instant;

use retcd_node::durable::{Log, LogError};
use retcd_node::{Append, Input};
use retcd_proto::raftpb::SnapshotMetadata;
use retcd_storage::wal;
use tokio::sync::oneshot;

use super::fatal::stop_process;
use super::next_segment::NextSegment;
use super::room::Room;
use super::snapshot_thread::ToSnapshot;
use crate::metrics::Metrics;

/// Bytes that stay reserved in the log when there is little room on the disk: the last that a member has.
const KEPT_BYTES: u64 = 4 << 20;

/// What the log is asked to do.
pub enum ToLog {
    /// Append entries and hard state.
    Append(Append),
    /// Record a snapshot whose file is durable, let go of the segments that it covers, then answer.
    Snapshot(SnapshotMetadata, oneshot::Sender<()>),
    /// Give back what is reserved for later, if there is little room on the disk.
    MakeRoom,
    /// Let go of the segments before this index: a received database has taken the place of what they led to.
    Release(u64),
}

/// The log and whoever hears of it.
pub struct Logger {
    /// The log.
    pub log: Log,
    /// To the node.
    pub node: SyncSender<Input>,
    /// To whoever prepares segments.
    pub snapshots: Sender<ToSnapshot>,
    /// The room on its disk.
    pub room: Arc<Room>,
    /// What Prometheus is told.
    pub metrics: Arc<Metrics>,
}

impl Logger {
    /// Runs until the last sender is gone; closes the log.
    ///
    /// A failed write or sync ends the process: what the disk holds is unknown from then on.
    pub fn run(mut self, inbox: &Receiver<ToLog>) {
        let mut next_segment = NextSegment::default();
        while let Ok(first) = inbox.recv() {
            if let Err(error) = self.turn(first, inbox, &mut next_segment) {
                stop_process(
                    "the write-ahead log failed; the member stops so that nothing unsaved is acknowledged",
                    &error,
                );
            }
        }
        if let Err(error) = self.log.close() {
            stop_process("the write-ahead log could not be closed", &error);
        }
    }

    fn turn(
        &mut self,
        first: ToLog,
        inbox: &Receiver<ToLog>,
        next_segment: &mut NextSegment,
    ) -> Result<(), LogError> {
        let mut newest = None;
        let mut others = Vec::new();
        for message in std::iter::once(first).chain(inbox.try_iter()) {
            match message {
                ToLog::Append(append) => {
                    self.log.append(&append)?;
                    newest = Some(append.number);
                }
                other => others.push(other),
            }
        }
        next_segment.take(&mut self.log);
        if let Some(number) = newest {
            let started = Instant::now();
            let stats = self.log.sync()?;
            if stats.synced {
                let took = started.elapsed().as_secs_f64();
                self.metrics.wal.fsync.observe(took);
            }
            self.metrics.wal.write_bytes.add(stats.bytes as i64);
            // The node thread outlives this one unless the process is stopping.
            let _ = self.node.send(Input::Appended { number });
            self.make_room()?;
            next_segment.ask_for(&mut self.log, &self.snapshots, &self.room);
        }
        for message in others {
            match message {
                ToLog::Append(_) => unreachable!("appends were taken above"),
                ToLog::Snapshot(metadata, done) => {
                    self.log.record(metadata)?;
                    let _ = done.send(());
                }
                ToLog::MakeRoom => self.make_room()?,
                ToLog::Release(index) => self.log.release_to(index),
            }
        }
        Ok(())
    }

    /// Gives back what is reserved for later while others have no room.
    fn make_room(&mut self) -> Result<(), LogError> {
        let may_reserve = !self.room.may_not_reserve(wal::SEGMENT_BYTES);
        self.log.reserve_segments(may_reserve);
        if self.room.is_close() {
            self.log.release_reserved(KEPT_BYTES)?;
            self.room.look();
        }
        Ok(())
    }
}
