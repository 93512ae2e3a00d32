//! When leases came and went, in revisions of the store: what a list of them may show, and what
//! revisions renewals may name.

use std::collections::BTreeMap;

use retcd_proto::etcdserverpb::InternalRaftRequest;

use super::log::{ORDER, TRUE_ANSWER};
use super::{Verdict, ensure};
use crate::history::Operation;
use crate::request::{Answer, Request};

#[derive(Clone, Copy, Debug)]
struct Life {
    /// The entry that granted it, and the revision of the store then.
    granted: (u64, i64),
    /// The revisions before and behind the entry that took it away; equal if no key went with it.
    gone: Option<(i64, i64)>,
    /// That entry.
    gone_at: u64,
}

impl Life {
    fn may_show_at(&self, revision: i64) -> bool {
        let is_granted = self.granted.1 <= revision;
        is_granted && self.gone.is_none_or(|(before, _)| revision <= before)
    }

    fn is_gone_at(&self, revision: i64) -> bool {
        self.gone.is_some_and(|(before, _)| before < revision)
    }

    fn may_lack_at(&self, revision: i64) -> bool {
        self.gone.is_some_and(|(_, behind)| behind <= revision)
    }
}

/// All leases that there ever were. An id may be given again.
#[derive(Default)]
pub(super) struct Lives(BTreeMap<i64, Vec<Life>>);

impl Lives {
    /// Takes in an executed entry, and the revisions before and behind it.
    pub(super) fn record(
        &mut self,
        index: u64,
        (before, behind): (i64, i64),
        request: &InternalRaftRequest,
        answer: &Answer,
    ) {
        match (&request.lease_grant, &request.lease_revoke, answer) {
            (Some(grant), _, Answer::Grant(_)) => {
                let life = Life {
                    granted: (index, behind),
                    gone: None,
                    gone_at: 0,
                };
                self.0.entry(grant.id).or_default().push(life);
            }
            (_, Some(revoke), Answer::Revoke(_)) => {
                let lives = self.0.get_mut(&revoke.id);
                let life = lives.and_then(|lives| lives.last_mut());
                let life = life.expect("it was granted");
                (life.gone, life.gone_at) = (Some((before, behind)), index);
            }
            _ => {}
        }
    }

    /// A list shows the leases that there were at its revision, of those that its member had heard
    /// of.
    pub(super) fn listed(&self, operation: &Operation, answer: &Answer) -> Verdict {
        let (Request::Leases, Answer::Leases(revision, listed)) = (&operation.request, answer)
        else {
            return Ok(());
        };
        self.0.keys().try_for_each(|id| {
            let is_listed = listed.binary_search(id).is_ok();
            self.may_say(operation, *id, is_listed, *revision)
        })
    }

    /// What is left of a lease is told as of a revision at which it is there.
    pub(super) fn looked_at(&self, operation: &Operation, answer: &Answer) -> Verdict {
        let (Request::TimeToLive(id), Answer::TimeToLive(left, revision)) =
            (&operation.request, answer)
        else {
            return Ok(());
        };
        self.may_say(operation, *id, left.is_some(), *revision)?;
        is_visible(operation, *revision)
    }

    /// Whether the lease may be said to be there, or not, at a revision.
    fn may_say(&self, operation: &Operation, id: i64, is_there: bool, revision: i64) -> Verdict {
        let lives = self.0.get(&id).map_or(&[][..], Vec::as_slice);
        let is_right = match is_there {
            true => lives.iter().any(|life| life.may_show_at(revision)),
            false => lives
                .iter()
                .all(|life| life.granted.0 > operation.arrived_at || life.may_lack_at(revision)),
        };
        ensure(is_right, TRUE_ANSWER, || {
            let (request, verb) = (&operation.request, if is_there { "shows" } else { "lacks" });
            format!("{request} at revision {revision} {verb} {id}, which was {lives:?}")
        })
    }

    /// A renewal names a revision at which the lease is not gone; who hears that it is, one at
    /// which it is, or of a time at which its member had not heard of it.
    pub(super) fn renewed(&self, operation: &Operation, answer: &Answer) -> Verdict {
        let (Request::KeepAlive(id), Answer::KeepAlive(ttl, revision)) =
            (&operation.request, answer)
        else {
            return Ok(());
        };
        let life = self.0.get(id).and_then(|lives| lives.last());
        let is_right = life.is_none_or(|life| match ttl {
            0 => life.granted.0 > operation.arrived_at || life.may_lack_at(*revision),
            // A leader whose disk is slow may be behind the others.
            _ => !life.is_gone_at(*revision) || life.gone_at > operation.slowest,
        });
        ensure(is_right, TRUE_ANSWER, || {
            format!(
                "{} was answered {answer:?}; the lease was {life:?}",
                operation.request
            )
        })?;
        match ttl {
            0 => is_visible(operation, *revision),
            _ => Ok(()),
        }
    }
}

/// What was answered before is shown.
fn is_visible(operation: &Operation, revision: i64) -> Verdict {
    let floor = operation.floor.revision;
    ensure(revision >= floor, ORDER, || {
        let request = &operation.request;
        format!(
            "{request} was answered at revision {revision}, but {floor} had been answered before it began"
        )
    })
}
