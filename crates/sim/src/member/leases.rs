//! Leases, as the server looks after them: the leader alone keeps deadlines, and asks a quorum whether it still
//! leads before it revokes anything. What a renewal is answered is decided by the server's own [`Renewal`].

use std::time::Duration;

use retcd_node::Input;
use retcd_proto::etcdserverpb::{InternalRaftRequest, LeaseRevokeRequest};
use retcd_state::Time;
use retcd_state::lease::renewal::{Renewal, Step};

use super::{LEASE_INTERVAL, Process, Work};
use crate::context::{Context, Event};
use crate::history::{OperationId, Outcome};
use crate::request::{Answer, Request};
use crate::sabotage::Sabotage;

/// Revocations per look at the leases.
const REVOKE_MAX: usize = 500;
/// How much too early leases expire on a member that is broken that way.
const EARLY: Duration = Duration::from_millis(1500);

/// What waits for a quorum's word, asked for at a time on the own clock.
pub struct LeaseCheck {
    asked_at: Duration,
    then: Then,
}

enum Then {
    /// These leases have run out.
    Revoke(Vec<i64>),
    /// A renewal goes on.
    GoOn(OperationId),
    /// A renewal goes on, and all is applied that was committed when it asked.
    CaughtUp(OperationId),
    /// The lease is gone, and the store shows it.
    Gone(OperationId),
    /// Somebody is told what is left of a lease.
    Look(OperationId),
}

/// A renewal under way.
pub struct Renewing {
    renewal: Renewal,
    /// The host of the member that passed it on; `None` if the client asked here.
    passed_on_by: Option<usize>,
    /// The revision of before, so that it is none at which the lease may be gone.
    before: i64,
}

impl Renewing {
    /// Whether a client has asked here.
    pub fn is_clients(&self) -> bool {
        self.passed_on_by.is_none()
    }
}

/// What a member says to another one that passed a renewal on to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The lease has so many seconds again.
    Renewed(i64),
    /// There is no such lease.
    Unknown,
    /// It cannot tell.
    Failed,
}

impl Process {
    /// Looks for leases that have run out.
    pub(super) fn look_after_leases(&mut self, cx: &mut Context) {
        let mut now = self.time(cx);
        if self.is_broken(cx, Sabotage::ExpireEarly) {
            now = now + EARLY;
        }
        let expired = self.lessor.lock().expired(now, REVOKE_MAX);
        if !expired.is_empty() {
            match self.is_broken(cx, Sabotage::ExpireUnasked) {
                true => self.revoke(expired, cx),
                false => self.ask_quorum(Then::Revoke(expired), cx),
            }
        }
        let due = self
            .clock
            .true_time(self.local(cx) + LEASE_INTERVAL, cx.now);
        self.work_after(due - cx.now, Work::Leases, cx);
    }

    fn ask_quorum(&mut self, then: Then, cx: &mut Context) {
        let read = self.take_id();
        let input = match then {
            Then::Revoke(_) | Then::GoOn(_) => Input::ConfirmLeader { read },
            Then::CaughtUp(_) | Then::Gone(_) | Then::Look(_) => Input::Read { read },
        };
        let asked_at = self.local(cx);
        self.lease_checks
            .insert(read, LeaseCheck { asked_at, then });
        self.push(input, cx);
    }

    /// A quorum has said who leads.
    pub(super) fn leases_checked(&mut self, read: u64, leads: bool, cx: &mut Context) {
        let Some(LeaseCheck { asked_at, then }) = self.lease_checks.remove(&read) else {
            return;
        };
        if leads {
            self.led_at = self.led_at.max(Some(asked_at));
        }
        match then {
            Then::Revoke(expired) if leads => self.revoke(expired, cx),
            Then::Revoke(_) => {}
            Then::GoOn(operation) => self.renew(operation, cx),
            Then::CaughtUp(operation) => {
                if let Some(renewing) = self.renewals.get_mut(&operation) {
                    renewing.renewal.caught_up();
                }
                self.renew(operation, cx);
            }
            Then::Look(operation) => self.tell_time_to_live(operation, leads, cx),
            Then::Gone(operation) => {
                if let Some(renewing) = self.renewals.remove(&operation) {
                    let revision = match self.is_broken(cx, Sabotage::GoneBefore) {
                        true => renewing.before,
                        false => self.reader.revision(),
                    };
                    self.answer_renewal(operation, 0, revision, cx);
                }
            }
        }
    }

    pub(super) fn leases_unchecked(&mut self, read: u64, cx: &mut Context) {
        match self.lease_checks.remove(&read).map(|check| check.then) {
            Some(Then::GoOn(operation) | Then::CaughtUp(operation) | Then::Gone(operation)) => {
                self.tell(operation, Told::Failed, cx);
            }
            Some(Then::Look(operation)) => {
                cx.answer(operation, Outcome::Refused("nobody says who leads"));
            }
            Some(Then::Revoke(_)) | None => {}
        }
    }

    /// Begins to find out what is left of a lease.
    pub(super) fn look_at_lease(&mut self, operation: OperationId, cx: &mut Context) {
        self.ask_quorum(Then::Look(operation), cx);
    }

    /// Only the leader keeps deadlines; the server would ask it.
    fn tell_time_to_live(&self, operation: OperationId, leads: bool, cx: &mut Context) {
        let Request::TimeToLive(lease) = cx.history.operations[operation].request else {
            return;
        };
        let (found, primary, revision) = {
            let lessor = self.lessor.lock();
            let found = lessor.time_to_live(lease, self.time(cx), false);
            let revision = self.reader.revision_of_leases(&lessor);
            (found, lessor.is_primary(), revision.get())
        };
        cx.history.operations[operation].read_at = self.machine.applied().index;
        let outcome = match found {
            Some(_) if !primary || !leads => Outcome::Refused("for the leader to say"),
            found => {
                let left = found.map(|found| found.ttl);
                Outcome::Answered(Answer::TimeToLive(left, revision))
            }
        };
        cx.answer(operation, outcome);
    }

    fn revoke(&mut self, expired: Vec<i64>, cx: &mut Context) {
        let root = self.root();
        for id in expired {
            let request = InternalRaftRequest {
                lease_revoke: Some(LeaseRevokeRequest { id }),
                ..Default::default()
            };
            let id = self.propose(&root, request, cx);
            cx.leases.expires(id);
        }
    }

    /// Takes in a renewal, of a client or of another member.
    pub fn keep_alive(
        &mut self,
        operation: OperationId,
        lease: i64,
        passed_on_by: Option<usize>,
        cx: &mut Context,
    ) {
        let before = {
            let lessor = self.lessor.lock();
            self.reader.revision_of_leases(&lessor)
        };
        let renewing = Renewing {
            renewal: Renewal::new(lease),
            passed_on_by,
            before: before.get(),
        };
        self.renewals.insert(operation, renewing);
        self.renew(operation, cx);
    }

    fn renew(&mut self, operation: OperationId, cx: &mut Context) {
        let (now, mut led_at) = (self.time(cx), self.led_at.map(Time::new));
        if self.is_broken(cx, Sabotage::RenewUnasked) {
            led_at = Some(now);
        }
        let Some(renewing) = self.renewals.get_mut(&operation) else {
            return;
        };
        let (lease, here) = (renewing.renewal.id(), renewing.is_clients());
        let mut step = renewing.renewal.step(&mut self.lessor.lock(), now, led_at);
        if step == Step::CatchUp && cx.sabotage == Some(Sabotage::HastyUnknown) {
            renewing.renewal.caught_up();
            step = renewing.renewal.step(&mut self.lessor.lock(), now, led_at);
        }
        match step {
            // There are no checkpoints here.
            Step::Renewed(ttl) | Step::ClearCheckpoint(ttl) => {
                self.tell(operation, Told::Renewed(ttl), cx);
            }
            Step::Unknown => self.tell(operation, Told::Unknown, cx),
            Step::ConfirmLeader => self.ask_quorum(Then::GoOn(operation), cx),
            Step::CatchUp => self.ask_quorum(Then::CaughtUp(operation), cx),
            Step::AskLeader if here => self.pass_on(operation, lease, cx),
            Step::AskLeader | Step::Wait => self.tell(operation, Told::Failed, cx),
        }
    }

    /// Answers who asked.
    fn tell(&mut self, operation: OperationId, told: Told, cx: &mut Context) {
        let Some(renewing) = self.renewals.get(&operation) else {
            return;
        };
        let (before, passed_on_by) = (renewing.before, renewing.passed_on_by);
        if told == Told::Unknown && passed_on_by.is_none() {
            return self.ask_quorum(Then::Gone(operation), cx);
        }
        self.renewals.remove(&operation);
        let Some(host) = passed_on_by else {
            return match told {
                Told::Renewed(ttl) => self.answer_renewal(operation, ttl, before, cx),
                _ => cx.answer(operation, Outcome::Refused("not renewed")),
            };
        };
        if !cx.network.is_cut(self.host, host) {
            let delay = cx.network.delay(&mut cx.rng);
            let event = Event::RenewalTold {
                operation,
                told,
                host,
            };
            cx.after(delay, event);
        }
    }

    fn answer_renewal(&self, operation: OperationId, ttl: i64, revision: i64, cx: &mut Context) {
        cx.history.operations[operation].read_at = self.machine.applied().index;
        let answer = Answer::KeepAlive(ttl, revision);
        cx.answer(operation, Outcome::Answered(answer));
    }

    fn pass_on(&mut self, operation: OperationId, lease: i64, cx: &mut Context) {
        let leader = self.node.status().leader;
        match cx.addresses.get(&leader) {
            Some(&host) if host != self.host && !cx.network.is_cut(self.host, host) => {
                let delay = cx.network.delay(&mut cx.rng);
                let event = Event::Renewal {
                    operation,
                    lease,
                    from: self.host,
                    host,
                };
                cx.after(delay, event);
            }
            _ => self.tell(operation, Told::Failed, cx),
        }
    }

    /// The member that a renewal was passed on to has answered.
    pub fn told_of_renewal(&mut self, operation: OperationId, told: Told, cx: &mut Context) {
        match self.renewals.get_mut(&operation) {
            Some(renewing) if told == Told::Unknown => {
                renewing.renewal.denied();
                self.renew(operation, cx);
            }
            _ => self.tell(operation, told, cx),
        }
    }
}
