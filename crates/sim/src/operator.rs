//! Who runs the cluster: adds members on spare hosts, promotes, removes, moves the leader.
//!
//! One change at a time, as a careful person would, but without looking whether the cluster is in a state for it. A
//! removal whose answer does not come is asked for again, as it may be made at any time. A host whose member was
//! removed gets an empty disk and is spare again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use retcd_node::Standing;
use retcd_proto::raftpb::{ConfChange, ConfChangeType};
use retcd_state::membership::{ConfChangeContext, Member};

use crate::client::any_host;
use crate::context::{Context, Event};
use crate::history::{Operation, OperationId, Outcome};
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
    pub fn returned(&mut self, operation: OperationId, cx: &mut Context) {
        if self.waiting_for == Some(operation) {
            self.waiting_for = None;
        }
        let Operation {
            request, outcome, ..
        } = &cx.history.operations[operation];
        if let (Request::Change(change), Outcome::Answered(_)) = (request, outcome)
            && change.r#type() == ConfChangeType::ConfChangeRemoveNode
        {
            cx.leaving.remove(&change.node_id());
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
        let leaving = cx.leaving.first().copied();
        if let Some(gone) = lost
            .or(leaving)
            .filter(|id| cx.log.members.contains_key(id))
        {
            self.change(ConfChangeType::ConfChangeRemoveNode, gone, None, cx);
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
        if kind == ConfChangeType::ConfChangeRemoveNode {
            cx.leaving.insert(id);
        }
        let host = any_host(cx);
        let request = Request::Change(Box::new(change));
        let operation = cx.ask(OPERATOR, host, request, Credentials::Nobody, PATIENCE);
        self.waiting_for = Some(operation);
    }
}

/// Whether the voters among `members` keep a quorum without the member `lost`, whichever of those that are `leaving`
/// go.
pub fn can_do_without(
    lost: Option<u64>,
    members: &BTreeMap<u64, bool>,
    leaving: &BTreeSet<u64>,
) -> bool {
    let voters = members.iter().filter(|(_, is_learner)| !**is_learner);
    let stay = voters.filter(|(id, _)| Some(**id) != lost && !leaving.contains(id));
    stay.count() >= 2
}

/// Starts members that were added, and frees hosts whose member is gone.
pub fn tidy(hosts: &mut [Host], cx: &mut Context) {
    cx.leaving.retain(|id| !cx.log.removed.contains(id));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(voters: &[u64], leaving: &[u64], lost: u64, expected: bool) {
        let members = voters.iter().map(|id| (*id, false)).collect();
        let leaving = leaving.iter().copied().collect();
        assert_eq!(can_do_without(Some(lost), &members, &leaving), expected);
    }

    #[test]
    fn a_removal_under_way_counts_as_made() {
        check(&[1, 2, 3], &[], 3, true);
        // Without 1 there would be 2 and 3, which need each other.
        check(&[1, 2, 3], &[1], 3, false);
        check(&[1, 2, 3, 4], &[1], 3, true);
        // What leaves may be lost.
        check(&[1, 2, 3], &[3], 3, true);
    }
}
