//! Who runs the cluster: adds members on spare hosts, promotes, removes, moves the leader.
//!
//! One change at a time, as a careful person would, but without looking whether the cluster is in a state for it. A
//! host whose member was removed gets an empty disk and is spare again.

use std::time::Duration;

use retcd_node::Standing;
use retcd_proto::raftpb::{ConfChange, ConfChangeType};
use retcd_state::membership::{ConfChangeContext, Member};

use crate::context::{Context, Event};
use crate::history::OperationId;
use crate::host::Host;
use crate::member::peer_url;
use crate::request::Request;
use crate::users::Credentials;

/// The client number that operations of the operator have.
pub const OPERATOR: usize = usize::MAX;
/// Voters that a cluster may have at most.
const VOTERS_MAX: usize = 6;
/// How long the operator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(9);

/// The operator.
#[derive(Default)]
pub struct Operator {
    /// The change under way.
    waiting_for: Option<OperationId>,
    /// Counts the members that were added.
    added: u64,
}

impl Operator {
    /// Looks at the cluster and does something about it, or not.
    pub fn operate(&mut self, hosts: &mut [Host], cx: &mut Context) {
        tidy(hosts, cx);
        if self.waiting_for.is_none() {
            self.act(hosts, cx);
        }
        let pause = cx.between_us(200_000, 3_000_000);
        cx.after(pause, Event::Operate);
    }

    /// Hears how a change ended.
    pub fn returned(&mut self, operation: OperationId) {
        if self.waiting_for == Some(operation) {
            self.waiting_for = None;
        }
    }

    fn act(&mut self, hosts: &mut [Host], cx: &mut Context) {
        let members: Vec<(u64, bool)> = cx.log.members.iter().map(|(id, l)| (*id, *l)).collect();
        let voters = members.iter().filter(|(_, learner)| !learner).count();
        let learner = members
            .iter()
            .find(|(_, learner)| *learner)
            .map(|(id, _)| *id);
        let spare = hosts.iter().position(Host::is_spare);
        let any = |cx: &mut Context| match members.len() {
            0 => 0,
            len => members[cx.rng.usize(..len)].0,
        };
        let lost = hosts
            .iter()
            .find(|host| host.is_lost)
            .and_then(|host| host.id);
        if let Some(lost) = lost.filter(|lost| cx.log.members.contains_key(lost)) {
            self.change(ConfChangeType::ConfChangeRemoveNode, lost, None, cx);
            return;
        }
        // While one may be lost, no other may go.
        let may_remove = voters > 2 && !hosts.iter().any(|host| host.may_be_lost);
        match (cx.rng.u8(..8), learner, spare) {
            (0..5, Some(learner), _) => self.promote(learner, hosts, cx),
            (0..2, None, Some(spare)) if voters < VOTERS_MAX => {
                let kind = ConfChangeType::ConfChangeAddLearnerNode;
                self.add(kind, &mut hosts[spare], cx);
            }
            (2, None, Some(spare)) if voters < VOTERS_MAX => {
                self.add(ConfChangeType::ConfChangeAddNode, &mut hosts[spare], cx);
            }
            (3..5, None, None) | (5, ..) if may_remove => {
                let member = any(cx);
                self.change(ConfChangeType::ConfChangeRemoveNode, member, None, cx);
            }
            (6, ..) => {
                let to = any(cx);
                transfer(to, hosts, cx);
            }
            _ => {}
        }
    }

    fn add(&mut self, kind: ConfChangeType, host: &mut Host, cx: &mut Context) {
        self.added += 1;
        let id = 0x1000 + self.added;
        host.give(id, cx);
        let member = Member {
            id,
            peer_urls: Some(vec![peer_url(id)]),
            is_learner: kind == ConfChangeType::ConfChangeAddLearnerNode,
            ..Member::default()
        };
        let context = ConfChangeContext {
            member,
            is_promote: false,
        };
        self.change(kind, id, Some(context), cx);
    }

    /// Gives a learner its vote, if its leader says that it has most of the log.
    fn promote(&mut self, learner: u64, hosts: &[Host], cx: &mut Context) {
        let processes = hosts.iter().filter_map(|host| host.process.as_ref());
        let mut standings = processes.map(|process| process.node().inspection().standing(learner));
        if !standings.any(|standing| standing == Standing::InSync) {
            return;
        }
        let member = Member {
            id: learner,
            ..Member::default()
        };
        let context = ConfChangeContext {
            member,
            is_promote: true,
        };
        self.change(
            ConfChangeType::ConfChangeAddNode,
            learner,
            Some(context),
            cx,
        );
    }

    fn change(
        &mut self,
        kind: ConfChangeType,
        id: u64,
        context: Option<ConfChangeContext>,
        cx: &mut Context,
    ) {
        let change = ConfChange {
            id: None,
            r#type: Some(kind as i32),
            node_id: Some(id),
            context: context.map(|context| context.to_json().into()),
        };
        let hosts: Vec<usize> = cx.addresses.values().copied().collect();
        let host = hosts[cx.rng.usize(..hosts.len())];
        let request = Request::Change(Box::new(change));
        let operation = cx.ask(OPERATOR, host, request, Credentials::Nobody, PATIENCE);
        self.waiting_for = Some(operation);
    }
}

/// Starts members that were added, and frees hosts whose member is gone.
pub fn tidy(hosts: &mut [Host], cx: &mut Context) {
    for (number, host) in hosts.iter_mut().enumerate() {
        let Some(id) = host.id else { continue };
        // Some never hear that they were removed, as nobody talks to them any more.
        let stopped = host.process.is_none() || cx.rng.u8(..4) == 0;
        if cx.log.removed.contains(&id) && stopped {
            cx.note(|| format!("host {number} is spare, as {id:x} was removed"));
            host.clear(cx);
        } else if cx.log.members.contains_key(&id) && host.process.is_none() {
            cx.after(Duration::ZERO, Event::Start { host: number });
        }
    }
}

/// Asks who leads to let another one do it.
fn transfer(to: u64, hosts: &mut [Host], cx: &mut Context) {
    let leader = hosts.iter_mut().filter_map(|host| host.process.as_mut());
    for process in leader.filter(|process| process.leads()) {
        let from = process.id;
        cx.note(|| format!("{from:x} is to hand its leadership to {to:x}"));
        process.push(retcd_node::Input::TransferLeader { to }, cx);
    }
}
