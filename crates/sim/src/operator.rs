//! Who runs the cluster: adds members on spare hosts, promotes, removes, moves the leader.
//!
//! One change at a time, as a careful person would, but without looking whether the cluster is in a
//! state for it: that is for the members to refuse. A removal whose answer does not come is asked
//! for again, as it may be made at any time. A host whose member was removed gets an empty disk and
//! is spare again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use retcd_proto::etcdserverpb::AlarmType;
use retcd_proto::etcdserverpb::alarm_request::AlarmAction;

use crate::client::any_host;
use crate::context::{Context, Event};
use crate::history::{Operation, OperationId, Outcome};
use crate::host::Host;
use crate::request::{Answer, MemberRequest, Request};
use crate::users::Credentials;
use crate::workload;

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
    /// Whether it sees to it that there is something to be turned over.
    pub keeps: bool,
}

/// A key of the operator's, which nobody else asks for.
pub const KEPT: &[u8] = b"~kept";

/// Another key of the operator's: putting it makes a revision that is not compacted yet.
const NEWER: &[u8] = b"~newer";

impl Operator {
    /// Looks at the cluster and does something about it, or not.
    pub fn operate(&mut self, hosts: &mut [Host], cx: &mut Context) {
        tidy(hosts, cx);
        if self.waiting_for.is_none() {
            self.act(hosts, cx);
        }
    }

    /// Hears how a change ended.
    pub fn returned(&mut self, operation: OperationId, cx: &mut Context) {
        if self.waiting_for == Some(operation) {
            self.waiting_for = None;
        }
        let Operation {
            request, outcome, ..
        } = &cx.history.operations[operation];
        if let Some(next) = Self::next_step(request, outcome, cx) {
            return self.ask(any_host(cx), next, cx);
        }
        let Request::Members(request) = request else {
            return;
        };
        let is_refused = match outcome {
            Outcome::Answered(answer) => matches!(answer, Answer::Error(_)),
            Outcome::Refused(_) => true,
            Outcome::Unknown(_) => return,
        };
        match request {
            MemberRequest::Add { url, .. } if is_refused => drop(cx.invited.remove(url)),
            MemberRequest::Remove(id) => drop(cx.leaving.remove(id)),
            _ => {}
        }
    }

    fn act(&mut self, hosts: &mut [Host], cx: &mut Context) {
        let members: Vec<(u64, bool)> = cx.log.members.iter().map(|(id, l)| (*id, *l)).collect();
        let voters = members.iter().filter(|(_, learner)| !learner).count();
        let learner = members
            .iter()
            .find(|(_, learner)| *learner)
            .map(|(id, _)| *id);
        let is_free = |number: &usize| {
            hosts[*number].is_spare() && cx.invited.values().all(|invited| invited != number)
        };
        let spare = (0..hosts.len()).find(is_free);
        let any = |cx: &mut Context| match members.len() {
            0 => 0,
            len => members[cx.rng.usize(..len)].0,
        };
        let lost = hosts
            .iter()
            .find(|host| host.is_lost)
            .and_then(|host| host.id);
        if let Some(request) = self.look_after_data(cx) {
            return self.ask(any_host(cx), request, cx);
        }
        let leaving = cx.leaving.first().copied();
        if let Some(gone) = lost
            .or(leaving)
            .filter(|id| cx.log.members.contains_key(id))
        {
            return self.remove(gone, cx);
        }
        // While one may be lost, no other may go.
        let may_remove = voters > 2 && !hosts.iter().any(|host| host.may_be_lost);
        match (cx.rng.u8(..8), learner, spare) {
            (0..5, Some(learner), _) => {
                // Users are known by certificates, which do not go along with what a member passes
                // on.
                let leader = leader(hosts).filter(|_| cx.rng.bool());
                let host = leader.unwrap_or_else(|| any_host(cx));
                let request = Request::Members(MemberRequest::Promote(learner));
                self.ask(host, request, cx);
            }
            (0..2, None, Some(spare)) if voters < VOTERS_MAX => {
                self.add(true, spare, cx);
            }
            (2, None, Some(spare)) if voters < VOTERS_MAX => {
                self.add(false, spare, cx);
            }
            (3..5, None, None) | (5, ..) if may_remove => {
                let member = any(cx);
                self.remove(member, cx);
            }
            (6, ..) => {
                let to = any(cx);
                if let Some(host) = leader(hosts) {
                    let request = Request::Members(MemberRequest::MoveLeader(to));
                    self.ask(host, request, cx);
                }
            }
            _ => {}
        }
    }

    /// Puts in what may be turned over, brings it to light that it was, and lets the cluster go on
    /// without the member that was found.
    fn look_after_data(&mut self, cx: &mut Context) -> Option<Request> {
        if let Some(found) = cx.log.model.corrupt().next() {
            if cx.log.members.contains_key(&found) {
                cx.leaving.insert(found);
                return Some(Request::Members(MemberRequest::Remove(found)));
            }
            return Some(workload::alarm_for(
                found,
                AlarmAction::Deactivate,
                AlarmType::Corrupt,
            ));
        }
        if self.keeps && cx.log.model.get(KEPT).is_none() {
            return Some(workload::keep(KEPT));
        }
        let is_hidden = cx.log.is_corrupt() && cx.rng.bool();
        is_hidden.then(|| workload::keep(NEWER))
    }

    /// What follows at once on a step that looked after data: behind an alarm that names nobody the
    /// members soon compare again, and compactions are refused from then on.
    fn next_step(request: &Request, outcome: &Outcome, cx: &Context) -> Option<Request> {
        let (Request::Write(write), Outcome::Answered(answer)) = (request, outcome) else {
            return None;
        };
        if !cx.log.is_corrupt() {
            return None;
        }
        if write.alarm.is_some() && !matches!(answer, Answer::Error(_)) {
            return Some(workload::keep(NEWER));
        }
        // Even where there was no room for the put.
        let is_newer = write.put.as_ref().is_some_and(|put| put.key == NEWER);
        is_newer.then(|| workload::compact_at(cx.log.model.revision()))
    }

    /// Invites a member; it is started when it is known under which id.
    fn add(&mut self, is_learner: bool, host: usize, cx: &mut Context) {
        self.added += 1;
        let url = format!("http://added-{}:2380", self.added);
        cx.invited.insert(url.clone(), host);
        let request = Request::Members(MemberRequest::Add { url, is_learner });
        self.ask(any_host(cx), request, cx);
    }

    fn remove(&mut self, id: u64, cx: &mut Context) {
        cx.leaving.insert(id);
        let request = Request::Members(MemberRequest::Remove(id));
        self.ask(any_host(cx), request, cx);
    }

    fn ask(&mut self, host: usize, request: Request, cx: &mut Context) {
        let root = Credentials::Certificate("root");
        let operation = cx.ask(OPERATOR, host, request, root, PATIENCE);
        self.waiting_for = Some(operation);
    }
}

fn leader(hosts: &[Host]) -> Option<usize> {
    hosts.iter().position(Host::leads)
}

/// Whether the voters among `members` keep a quorum without the member `lost`, whichever of those
/// that are `leaving` go.
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
    for (url, host) in cx.invited.clone() {
        let Some(&id) = cx.log.urls.get(&url) else {
            continue;
        };
        cx.invited.remove(&url);
        if cx.log.members.contains_key(&id) {
            hosts[host].give(id, cx);
        }
    }
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
