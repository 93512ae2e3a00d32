//! What clients ask of a member.

use retcd_node::Input;
use retcd_proto::etcdserverpb::RangeRequest;
use retcd_state::lease::RenewError;

use super::Process;
use crate::context::Context;
use crate::history::{OperationId, Outcome};
use crate::request::{self, Answer, Request};
use crate::sabotage::Sabotage;

impl Process {
    /// Takes in a client's request.
    pub fn request(&mut self, operation: OperationId, cx: &mut Context) {
        match cx.history.operations[operation].request.clone() {
            Request::Write(request) => {
                let id = self.propose(*request, cx);
                cx.history.operations[operation].request_id = id;
                self.proposals.insert(id, operation);
            }
            Request::Range(range) if range.serializable || self.is_broken(cx, Sabotage::StaleRead) => {
                self.answer_read(operation, &range, cx);
            }
            Request::Range(_) => {
                let read = self.take_id();
                self.reads.insert(read, operation);
                self.push(Input::Read { read }, cx);
            }
            Request::KeepAlive(lease) => self.keep_alive(operation, lease, cx),
        }
    }

    fn answer_read(&mut self, operation: OperationId, range: &RangeRequest, cx: &mut Context) {
        let answer = request::of_read(&self.reader.range(range));
        cx.answer(operation, Outcome::Answered(answer));
    }

    pub(super) fn reads_ready(&mut self, reads: &[u64], cx: &mut Context) {
        for read in reads {
            let Some(operation) = self.reads.remove(read) else {
                continue;
            };
            if let Request::Range(range) = cx.history.operations[operation].request.clone() {
                self.answer_read(operation, &range, cx);
            }
        }
    }

    pub(super) fn reads_rejected(&mut self, reads: &[u64], cx: &mut Context) {
        for read in reads {
            if let Some(operation) = self.reads.remove(read) {
                cx.answer(operation, Outcome::Refused("read rejected"));
            }
        }
    }

    pub(super) fn finish_proposals(&mut self, ids: &[u64], outcome: Outcome, cx: &mut Context) {
        for id in ids {
            if let Some(operation) = self.proposals.remove(id) {
                cx.answer(operation, outcome.clone());
            }
        }
    }

    /// Only the leader renews; the others pass it on.
    fn keep_alive(&mut self, operation: OperationId, lease: i64, cx: &mut Context) {
        let renewed = self.lessor.lock().renew(lease, self.time(cx));
        let outcome = match renewed {
            Ok(renewed) => Outcome::Answered(Answer::KeepAlive(renewed.ttl)),
            Err(RenewError::NotFound | RenewError::Expired) => {
                Outcome::Answered(Answer::KeepAlive(0))
            }
            Err(RenewError::NotPrimary) => return self.pass_on(operation, cx),
        };
        cx.answer(operation, outcome);
    }

    fn pass_on(&mut self, operation: OperationId, cx: &mut Context) {
        let leader = self.node.status().leader;
        match cx.addresses.get(&leader) {
            Some(&host) if host != self.host && !cx.network.is_cut(self.host, host) => {
                let delay = cx.network.delay(&mut cx.rng);
                cx.after(delay, crate::context::Event::Request { operation, host });
            }
            _ => cx.answer(operation, Outcome::Refused("no leader")),
        }
    }
}
