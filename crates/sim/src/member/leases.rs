//! Leases, as the server looks after them: the leader alone keeps deadlines, and asks a quorum whether it still
//! leads before it revokes anything.

use std::time::Duration;

use retcd_node::Input;
use retcd_proto::etcdserverpb::{InternalRaftRequest, LeaseRevokeRequest};
use retcd_state::lease::RenewError;

use super::{LEASE_INTERVAL, Process, Work};
use crate::context::{Context, Event};
use crate::history::{OperationId, Outcome};
use crate::request::Answer;
use crate::sabotage::Sabotage;

/// Revocations per look at the leases.
const REVOKE_MAX: usize = 500;
/// A member whose node has not looked around for longer may have slept through an election.
const AWAKE: Duration = Duration::from_millis(300);
/// How much too early leases expire on a member that is broken that way.
const EARLY: Duration = Duration::from_millis(1500);

/// What waits for the confirmation that this member leads.
pub enum LeaseCheck {
    /// These leases have run out.
    Expired(Vec<i64>),
    /// A client renews one.
    Renewal(OperationId, i64),
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
                false => self.check_leadership(LeaseCheck::Expired(expired), cx),
            }
        }
        let due = self
            .clock
            .true_time(self.local(cx) + LEASE_INTERVAL, cx.now);
        self.work_after(due - cx.now, Work::Leases, cx);
    }

    fn check_leadership(&mut self, check: LeaseCheck, cx: &mut Context) {
        let read = self.take_id();
        self.lease_checks.insert(read, check);
        self.push(Input::Read { read }, cx);
    }

    /// A quorum has confirmed the leader, which may be another one by now.
    pub(super) fn leases_checked(&mut self, read: u64, cx: &mut Context) {
        match self.lease_checks.remove(&read) {
            Some(LeaseCheck::Expired(expired)) if self.leads() => self.revoke(expired, cx),
            Some(LeaseCheck::Renewal(operation, lease)) if self.leads() => {
                self.renew(operation, lease, cx);
            }
            Some(LeaseCheck::Renewal(operation, _)) => {
                cx.answer(operation, Outcome::Refused("not a primary lessor"));
            }
            Some(LeaseCheck::Expired(_)) | None => {}
        }
    }

    pub(super) fn leases_unchecked(&mut self, read: u64, cx: &mut Context) {
        if let Some(LeaseCheck::Renewal(operation, _)) = self.lease_checks.remove(&read) {
            cx.answer(operation, Outcome::Refused("not a primary lessor"));
        }
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

    /// Only the leader renews; the others pass it on.
    pub fn keep_alive(&mut self, operation: OperationId, lease: i64, cx: &mut Context) {
        if !self.leads() {
            return self.pass_on(operation, lease, cx);
        }
        match self.local(cx).saturating_sub(self.turned_at) < AWAKE {
            true => self.renew(operation, lease, cx),
            false => self.check_leadership(LeaseCheck::Renewal(operation, lease), cx),
        }
    }

    fn renew(&mut self, operation: OperationId, lease: i64, cx: &mut Context) {
        let renewed = self.lessor.lock().renew(lease, self.time(cx));
        let status = self.node.status();
        let outcome = match renewed {
            Ok(renewed) => Outcome::Answered(Answer::KeepAlive(renewed.ttl)),
            Err(RenewError::NotFound) if status.applied == status.committed => {
                Outcome::Answered(Answer::KeepAlive(0))
            }
            Err(RenewError::NotFound | RenewError::Expired | RenewError::NotPrimary) => {
                Outcome::Refused("not renewed")
            }
        };
        cx.answer(operation, outcome);
    }

    fn pass_on(&mut self, operation: OperationId, lease: i64, cx: &mut Context) {
        let leader = self.node.status().leader;
        match cx.addresses.get(&leader) {
            Some(&host) if host != self.host && !cx.network.is_cut(self.host, host) => {
                let delay = cx.network.delay(&mut cx.rng);
                let event = Event::Renewal {
                    operation,
                    lease,
                    host,
                };
                cx.after(delay, event);
            }
            _ => cx.answer(operation, Outcome::Refused("no leader")),
        }
    }
}
