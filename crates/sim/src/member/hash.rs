//! Hashes that clients ask for: begun at one moment, made while entries go on being applied, and of the moment at which they
//! were begun.

use super::access::caller;
use super::{Process, Work};
use crate::context::Context;
use crate::history::{OperationId, Outcome};
use crate::model::auth::Sender;
use crate::request::{self, Answer};
use crate::sabotage::Sabotage;

impl Process {
    /// Begins the hash at `revision`, which administrators may ask for.
    pub(super) fn begin_hash(
        &mut self,
        operation: OperationId,
        sender: &Sender,
        revision: i64,
        cx: &mut Context,
    ) {
        let store = self.machine.auth_store();
        if store.read().check_admin(caller(sender)).is_err() {
            return cx.answer(operation, Outcome::Refused("for administrators only"));
        }
        match self.reader.begin_hash_kv(revision) {
            Ok(hash) => {
                self.hashes.insert(operation, hash);
                let delay = cx.between_us(100, 50_000);
                self.work_after(delay, Work::Hash(operation), cx);
            }
            Err(error) => {
                let refused = request::of_range_error(&error);
                cx.answer(operation, Outcome::Answered(refused));
            }
        }
    }

    /// Makes the hash, and tells it.
    pub(super) fn finish_hash(&mut self, operation: OperationId, cx: &mut Context) {
        let Some(mut hash) = self.hashes.remove(&operation) else {
            return;
        };
        let result = loop {
            if let Some(result) = hash.step() {
                break result;
            }
        };
        let answer = match result {
            Ok((hash, revision)) => {
                let header = match self.is_broken(cx, Sabotage::HashHeaderOfNow) {
                    true => self.reader.revision(),
                    false => revision.get(),
                };
                Answer::Hash(header, hash)
            }
            Err(error) => request::of_range_error(&error),
        };
        cx.answer(operation, Outcome::Answered(answer));
    }
}
