//! Leases: never revoked by the members before their time is over, never called gone before they
//! are, and gone in the end.
//!
//! The time counts from the moment at which the grant was committed, and again from the invocation
//! of every renewal that was answered: the client cannot know better. It is the true time, less
//! what the fastest clock may be ahead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use retcd_proto::etcdserverpb::InternalRaftRequest;

use super::{Verdict, ensure};
use crate::clock::fastest;
use crate::history::{Operation, Outcome};
use crate::request::{Answer, Request};

const NOT_EARLY: &str = "a lease is not revoked before its time is over";
const NOT_GONE: &str = "a lease that is gone is not renewed";
const NOT_LOST: &str = "a lease that is there is not called unknown";

struct Lease {
    granted_at: Duration,
    /// Until when its holder may rely on it.
    alive_until: Duration,
    /// When it was revoked by a member.
    expired_at: Option<Duration>,
    /// When it was revoked, by anybody, and by which entry.
    revoked_at: Option<(Duration, u64)>,
}

/// All leases that there ever were.
#[derive(Default)]
pub struct LeaseChecker {
    leases: BTreeMap<i64, Lease>,
    /// Revocations that members proposed.
    expiries: BTreeSet<u64>,
}

impl LeaseChecker {
    /// A member proposes a revocation by itself.
    pub fn expires(&mut self, request: u64) {
        self.expiries.insert(request);
    }

    /// A request was executed for the first time.
    pub fn executed(
        &mut self,
        now: Duration,
        index: u64,
        r: &InternalRaftRequest,
        answer: &Answer,
    ) -> Verdict {
        if let (Some(grant), Answer::Grant(ttl)) = (&r.lease_grant, answer) {
            // The revocation of a predecessor may be on its way to an id that is given again.
            let alive_until = match self.leases.contains_key(&grant.id) {
                true => Duration::ZERO,
                false => now + fastest(seconds(*ttl)),
            };
            let lease = Lease {
                granted_at: now,
                alive_until,
                expired_at: None,
                revoked_at: None,
            };
            self.leases.insert(grant.id, lease);
        }
        // Who shortens a lease by a checkpoint has it so.
        for checkpoint in r.lease_checkpoint.iter().flat_map(|all| &all.checkpoints) {
            if let Some(lease) = self.leases.get_mut(&checkpoint.id) {
                lease.alive_until = Duration::ZERO;
            }
        }
        let (Some(revoke), Answer::Revoke(_)) = (&r.lease_revoke, answer) else {
            return Ok(());
        };
        let Some(lease) = self.leases.get_mut(&revoke.id) else {
            return Ok(());
        };
        lease.revoked_at = Some((now, index));
        let id = r.header.as_ref().map_or(0, |header| header.id);
        if !self.expiries.contains(&id) {
            return Ok(());
        }
        lease.expired_at = Some(now);
        let alive_until = lease.alive_until;
        ensure(now >= alive_until, NOT_EARLY, || {
            format!("lease {} was to live until {alive_until:?}", revoke.id)
        })
    }

    /// A client heard of its renewal.
    pub fn returned(&mut self, operation: &Operation) -> Verdict {
        let (Request::KeepAlive(id), Outcome::Answered(Answer::KeepAlive(ttl, _))) =
            (&operation.request, &operation.outcome)
        else {
            return Ok(());
        };
        let Some(lease) = self.leases.get_mut(id) else {
            return Ok(());
        };
        let invoked = operation.invoked;
        if *ttl == 0 {
            let lost = lease.granted_at < invoked && lease.revoked_at.is_none();
            return ensure(!lost, NOT_LOST, || {
                let granted_at = lease.granted_at;
                format!(
                    "lease {id} was called unknown to a request of {invoked:?}, but granted at {granted_at:?}"
                )
            });
        }
        let until = invoked + fastest(seconds(*ttl));
        lease.alive_until = lease.alive_until.max(until);
        // A leader whose disk is slow may be behind the others, and is trusted for a while.
        let gone = lease
            .revoked_at
            .is_some_and(|(revoked, index)| revoked < invoked && index <= operation.slowest);
        ensure(!gone, NOT_GONE, || {
            format!(
                "lease {id} was renewed by a request of {invoked:?}, but revoked at {:?}",
                lease.revoked_at
            )
        })?;
        let early = lease.expired_at.is_some_and(|expired| expired < until);
        ensure(!early, NOT_EARLY, || {
            format!(
                "lease {id} was to live until {until:?}, but expired at {:?}",
                lease.expired_at
            )
        })
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(ttl.unsigned_abs())
}
