//! The log's disk: everything that waits is written at once and synced once.

use retcd_node::durable::LogError;
use retcd_node::{Append, Input};

use super::{Process, Stop, Work};
use crate::context::Context;
use crate::sabotage::Sabotage;

impl Process {
    pub(super) fn to_log(&mut self, mut append: Append, cx: &mut Context) {
        if self.is_broken(cx, Sabotage::ForgetVote)
            && let Some(state) = &mut append.hard_state
        {
            state.vote = Some(0);
        }
        if self.is_broken(cx, Sabotage::AckBeforeSync) {
            let number = append.number;
            self.push(Input::Appended { number }, cx);
        }
        self.log_queue.push(append);
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
        let newest = self.log_running.last().map(|append| append.number);
        self.write_running()
            .map_err(|error| Stop::disk("the log failed", error))?;
        if let Some(number) = newest
            && !self.is_broken(cx, Sabotage::AckBeforeSync)
        {
            self.push(Input::Appended { number }, cx);
        }
        if !self.log_queue.is_empty() {
            self.log_start(cx);
        }
        Ok(())
    }

    /// Writes and syncs what the disk works on.
    pub(super) fn write_running(&mut self) -> Result<(), LogError> {
        let running = std::mem::take(&mut self.log_running);
        if running.is_empty() {
            return Ok(());
        }
        for append in &running {
            self.log.append(append)?;
        }
        self.log.sync()?;
        self.log.prepare()
    }
}
