//! What clients ask of a member.

use retcd_node::Input;
use retcd_proto::etcdserverpb::RangeRequest;

use super::Process;
use crate::context::Context;
use crate::history::{OperationId, Outcome};
use crate::request::{self, Request};
use crate::sabotage::Sabotage;

impl Process {
    /// Takes in a client's request.
    pub fn request(&mut self, operation: OperationId, cx: &mut Context) {
        let request = &cx.history.operations[operation].request;
        let serializable = matches!(request, Request::Range(range) if range.serializable);
        if !serializable && self.is_no_voter() {
            return cx.answer(operation, Outcome::Refused("not for learners"));
        }
        match cx.history.operations[operation].request.clone() {
            Request::Write(request) => {
                let id = self.propose(*request, cx);
                cx.history.operations[operation].request_id = id;
                self.proposals.insert(id, operation);
            }
            Request::Change(mut change) => {
                let request = self.take_id();
                change.id = Some(request);
                cx.history.operations[operation].request_id = request;
                self.proposals.insert(request, operation);
                let change = *change;
                self.push(Input::ProposeConfChange { request, change }, cx);
            }
            Request::Range(range)
                if range.serializable || self.is_broken(cx, Sabotage::StaleRead) =>
            {
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

    /// Learners, and who does not know of its own membership yet.
    fn is_no_voter(&self) -> bool {
        let membership = self.machine.membership();
        let membership = membership.read();
        membership
            .member(self.id)
            .is_none_or(|member| member.is_learner)
    }

    fn answer_read(&mut self, operation: OperationId, range: &RangeRequest, cx: &mut Context) {
        let answer = request::of_read(&self.reader.range(range));
        cx.answer(operation, Outcome::Answered(answer));
    }

    pub(super) fn reads_ready(&mut self, reads: &[u64], cx: &mut Context) {
        for read in reads {
            self.leases_checked(*read, cx);
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
            self.leases_unchecked(*read, cx);
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
}
