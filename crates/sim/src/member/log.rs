//! The log's disk: everything that waits is written at once and synced once.

use retcd_node::durable::LogError;
use retcd_node::{Append, Input};
use retcd_proto::raftpb::SnapshotMetadata;
use retcd_storage::wal::Preparation;

use super::{Process, Stop, Work};
use crate::context::Context;
use crate::sabotage::Sabotage;

/// What the log is asked to do.
pub enum ToLog {
    /// Append what the node decided.
    Append(Append),
    /// Record a snapshot whose file is durable.
    Record(SnapshotMetadata),
    /// Let go of the segments before a received snapshot.
    Release(u64),
}

/// What the disk has finished.
#[derive(Default)]
struct Finished {
    newest: Option<u64>,
    recorded: bool,
}

impl Process {
    pub(super) fn queue_append(&mut self, mut append: Append, cx: &mut Context) {
        if self.is_broken(cx, Sabotage::ForgetVote)
            && let Some(state) = &mut append.hard_state
        {
            state.vote = Some(0);
        }
        if self.is_broken(cx, Sabotage::AckBeforeSync) {
            let number = append.number;
            self.push(Input::Appended { number }, cx);
        }
        self.push_to_log(ToLog::Append(append), cx);
    }

    pub(super) fn push_to_log(&mut self, message: ToLog, cx: &mut Context) {
        self.log_queue.push(message);
        if self.log_running.is_empty() {
            self.log_start(cx);
        }
    }

    fn log_start(&mut self, cx: &mut Context) {
        self.log_running = std::mem::take(&mut self.log_queue);
        let (from, to) = self.speed.sync_us;
        let delay = cx.between_us(from, to);
        self.work_after(delay, Work::Logged, cx);
    }

    pub(super) fn logged(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let finished = self
            .write_running()
            .map_err(|error| Stop::disk("the log failed", error))?;
        if let Some(number) = finished.newest
            && !self.is_broken(cx, Sabotage::AckBeforeSync)
        {
            self.push(Input::Appended { number }, cx);
        }
        if finished.recorded {
            self.snapshot_recorded(cx)?;
        }
        if !self.log_queue.is_empty() {
            self.log_start(cx);
        }
        Ok(())
    }

    /// Gives the disk what it works on, whatever comes of it: nobody will hear of it.
    pub(super) fn write_unheard(&mut self) {
        let _ = self.write_running();
    }

    /// Writes and syncs what the disk works on, in the order of the server's log thread.
    fn write_running(&mut self) -> Result<Finished, LogError> {
        let mut finished = Finished::default();
        let mut others = Vec::new();
        for message in std::mem::take(&mut self.log_running) {
            match message {
                ToLog::Append(append) => {
                    self.log.append(&append)?;
                    finished.newest = Some(append.number);
                }
                other => others.push(other),
            }
        }
        if finished.newest.is_some() {
            self.log.sync()?;
            // What cannot be prepared is made when it is needed.
            if let Some(Ok(prepared)) = self.log.prepare().map(Preparation::make) {
                self.log.put_prepared(prepared);
            }
        }
        for message in others {
            match message {
                ToLog::Append(_) => unreachable!("appends were taken above"),
                ToLog::Record(metadata) => {
                    self.log.record(metadata)?;
                    finished.recorded = true;
                }
                ToLog::Release(index) => self.log.release_to(index),
            }
        }
        Ok(finished)
    }
}
