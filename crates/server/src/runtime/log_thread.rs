//! The thread that owns the write-ahead log.
//!
//! It drains everything that is queued into one turn (see [`Logger::turn`]): one write, one
//! `fdatasync`, one acknowledgement. It never waits on a timer: the next group gathers while the
//! disk works on this one. Nor does it wait for the next segment, which the snapshot thread
//! prepares (see [`NextSegment`]), or for entries that a slow follower needs, which workers read.
//! While nothing waits for the disk, it applies what has become committed, if that is little (see
//! [`ApplyInbox`]).

use std::cell::Cell;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use retcd_member::room::Room;
use retcd_member::{Logger, Synced, ToLog, Workers, read_log};
use retcd_node::Input;
use retcd_node::durable::LogError;

use super::apply::ApplyInbox;
use super::durable_at::DurableAt;
use super::fatal::stop_process;
use super::next_segment::NextSegment;
use super::node::NodeInbox;
use super::snapshot_thread::ToSnapshot;
use crate::clock::Clock;
use crate::metrics::Metrics;

/// The log and whoever hears of it.
pub(super) struct LogThread {
    /// The log.
    pub logger: Logger,
    /// To the node.
    pub node: NodeInbox,
    /// To the machine.
    pub apply: ApplyInbox,
    /// To whoever prepares segments.
    pub snapshots: Sender<ToSnapshot>,
    /// To whoever reads entries.
    pub workers: Workers,
    /// The room on its disk.
    pub room: Arc<Room>,
    /// What Prometheus is told.
    pub metrics: Arc<Metrics>,
    /// When what was durable.
    pub durable_at: Arc<DurableAt>,
    /// The member's clock.
    pub clock: Clock,
}

impl LogThread {
    /// Runs until the last sender is gone; closes the log.
    ///
    /// A failed write or sync ends the process: what the disk holds is unknown from then on.
    pub(super) fn run(mut self, inbox: &Receiver<ToLog>) {
        let mut next_segment = NextSegment::default();
        self.apply.worked_by_this_thread();
        let mut next = None;
        while let Some(first) = next.take().or_else(|| inbox.recv().ok()) {
            if let Err(error) = self.turn(first, inbox, &mut next_segment) {
                stop_process(
                    "the write-ahead log failed; the member stops so that nothing unsaved is acknowledged",
                    &error,
                );
            }
            next = inbox.try_recv().ok();
            self.apply.work(!next.as_ref().is_some_and(waits_for_disk));
        }
        if let Err(error) = self.logger.close() {
            stop_process("the write-ahead log could not be closed", &error);
        }
    }

    fn turn(
        &mut self,
        first: ToLog,
        inbox: &Receiver<ToLog>,
        next_segment: &mut NextSegment,
    ) -> Result<(), LogError> {
        next_segment.take(self.logger.log());
        let (node, metrics) = (&self.node, &self.metrics);
        let newest = Cell::new(None);
        let messages = std::iter::once(first).chain(inbox.try_iter());
        let messages = messages.inspect(|message| {
            if let ToLog::Append(append) = message
                && let Some(last) = append.entries.last()
            {
                newest.set(Some(last.index()));
            }
        });
        let synced = |synced: Synced| {
            if let Some(index) = newest.get() {
                self.durable_at.note(index, self.clock.now());
            }
            metrics.wal.write_bytes.add(synced.stats.bytes as i64);
            node.report(Input::Appended {
                number: synced.number,
            });
        };
        self.logger.turn(messages, synced, |wanted, located| {
            let node = node.clone();
            self.workers
                .submit(move || node.report(read_log(wanted, located)));
        })?;
        next_segment.ask_for(self.logger.log(), &self.snapshots, &self.room);
        Ok(())
    }
}

/// Whether somebody waits for what the disk is to keep. That the entries before are committed is
/// noted, too, and nobody waits for that.
fn waits_for_disk(message: &ToLog) -> bool {
    match message {
        ToLog::Append(append) => !append.entries.is_empty(),
        _ => true,
    }
}
