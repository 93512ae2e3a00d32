//! What clients ask of a member.

use retcd_node::Input;
use retcd_proto::raftpb::{self, Entry};

use super::Process;
use crate::context::Context;
use crate::history::{OperationId, Outcome};
use crate::request::Request;
use crate::sabotage::Sabotage;

/// What is done when all is applied that was committed.
#[derive(Clone, Copy, Debug)]
pub enum Waiting {
    /// Its sender is identified, and it is answered.
    ToBeAdmitted(OperationId),
    /// The password is compared.
    ToLogIn(OperationId),
}

impl Waiting {
    /// The operation that waits.
    pub fn operation(self) -> OperationId {
        match self {
            Waiting::ToBeAdmitted(operation) | Waiting::ToLogIn(operation) => operation,
        }
    }
}

impl Process {
    /// Takes in a client's request.
    pub fn request(&mut self, operation: OperationId, cx: &mut Context) {
        let request = &cx.history.operations[operation].request;
        let serializable = match request {
            Request::Range(_) | Request::Stream(_) | Request::Lists(_) => {
                !request.is_linearizable()
            }
            _ => false,
        };
        if !serializable && self.is_no_voter() {
            return cx.answer(operation, Outcome::Refused("not for learners"));
        }
        match cx.history.operations[operation].request.clone() {
            Request::Write(_) => self.admit(operation, false, cx),
            Request::Change(mut change) => {
                let request = self.take_id();
                change.id = Some(request);
                cx.history.operations[operation].request_id = request;
                self.proposals.insert(request, operation);
                let change = *change;
                self.push(Input::ProposeConfChange { request, change }, cx);
            }
            Request::Range(_) | Request::Stream(_) | Request::Lists(_)
                if serializable || self.is_broken(cx, Sabotage::StaleRead) =>
            {
                self.admit(operation, false, cx);
            }
            Request::Range(_) | Request::Stream(_) | Request::Lists(_) => {
                self.wait_for_read(Waiting::ToBeAdmitted(operation), cx);
            }
            Request::KeepAlive(_)
            | Request::TimeToLive(_)
            | Request::Leases
            | Request::HashKv(_) => {
                self.admit(operation, false, cx);
            }
            Request::Smuggled(entry) => self.forwarded_by_a_peer(*entry, cx),
            Request::LogIn(..) => self.wait_for_read(Waiting::ToLogIn(operation), cx),
        }
    }

    /// Takes in an entry as another member forwards it: with none of the checks that are made for clients.
    fn forwarded_by_a_peer(&mut self, entry: Entry, cx: &mut Context) {
        let others = cx.addresses.keys().find(|id| **id != self.id);
        let message = raftpb::Message {
            r#type: Some(raftpb::MessageType::MsgProp as i32),
            // A cluster of one has no other, and is asked all the same.
            from: Some(others.copied().unwrap_or(1)),
            to: Some(self.id),
            entries: vec![entry],
            ..Default::default()
        };
        self.push(Input::Messages(vec![message]), cx);
    }

    /// Learners, and who does not know of its own membership yet.
    fn is_no_voter(&self) -> bool {
        let membership = self.machine.membership();
        let membership = membership.read();
        membership
            .member(self.id)
            .is_none_or(|member| member.is_learner)
    }

    pub(super) fn reads_ready(&mut self, reads: &[u64], leads: bool, cx: &mut Context) {
        for read in reads {
            self.leases_checked(*read, leads, cx);
            match self.reads.remove(read) {
                Some(Waiting::ToBeAdmitted(operation)) => self.admit(operation, true, cx),
                Some(Waiting::ToLogIn(operation)) => self.check_login(operation, cx),
                None => {}
            }
        }
    }

    pub(super) fn reads_rejected(&mut self, reads: &[u64], cx: &mut Context) {
        for read in reads {
            self.leases_unchecked(*read, cx);
            if let Some(waiting) = self.reads.remove(read) {
                cx.answer(waiting.operation(), Outcome::Refused("read rejected"));
            }
        }
    }

    pub(super) fn finish_proposals(&mut self, ids: &[u64], outcome: Outcome, cx: &mut Context) {
        for id in ids {
            if let Some(operation) = self.proposals.remove(id) {
                self.logins.remove(&operation);
                cx.answer(operation, outcome.clone());
            }
        }
    }
}
