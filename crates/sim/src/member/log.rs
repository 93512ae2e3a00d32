//! The log's disk: everything that waits is written at once and synced once.

use retcd_member::{ToLog, read_log};
use retcd_node::Append;
use retcd_node::Input;
use retcd_node::durable::LogError;
use retcd_storage::wal::Preparation;

use super::{Process, Step, Stop};
use crate::context::Context;
use crate::sabotage::Sabotage;

impl Process {
    pub(super) fn queue_append(&mut self, mut append: Append, cx: &mut Context) {
        if self.is_broken(Sabotage::ForgetVote)
            && let Some(state) = &mut append.hard_state
        {
            state.vote = Some(0);
        }
        if self.is_broken(Sabotage::AckBeforeSync) {
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
        self.step_after(delay, Step::Logged, cx);
    }

    pub(super) fn logged(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let (newest, read) = self
            .write_running()
            .map_err(|error| Stop::disk("the log failed", error))?;
        for input in read {
            self.push(input, cx);
        }
        if let Some(number) = newest
            && !self.is_broken(Sabotage::AckBeforeSync)
        {
            self.push(Input::Appended { number }, cx);
        }
        if newest.is_some() {
            // What cannot be prepared is made when it is needed.
            let log = self.logger.log();
            if let Some(Ok(prepared)) = log.prepare().map(Preparation::make) {
                log.put_prepared(prepared);
            }
        }
        self.look_for_record(cx)?;
        if !self.log_queue.is_empty() {
            self.log_start(cx);
        }
        Ok(())
    }

    /// Gives the disk what it works on, whatever comes of it: nobody will hear of it.
    pub(super) fn write_unheard(&mut self) {
        let _ = self.write_running();
    }

    /// The newest number that is durable by this, and what was read from the log.
    fn write_running(&mut self) -> Result<(Option<u64>, Vec<Input>), LogError> {
        let running = std::mem::take(&mut self.log_running);
        let (mut newest, mut read) = (None, Vec::new());
        self.logger.turn(
            running,
            |synced| newest = Some(synced.number),
            |wanted, located| read.push(read_log(wanted, located)),
        )?;
        Ok((newest, read))
    }
}
