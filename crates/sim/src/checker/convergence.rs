//! After the last fault: writes go through again, and all members arrive at the same state.

use std::time::Duration;

use super::{Verdict, ensure};
use crate::checker::log::LogChecker;
use crate::history::{Operation, Outcome};
use crate::member::Process;
use crate::model::auth::Auth;
use crate::request::{self, Request};
use retcd_proto::etcdserverpb::RangeRequest;

const PROGRESS: &str = "writes go through when everything is mended";
const SAME_STATE: &str = "all members arrive at the same state";
/// How soon after the last fault a write has to be answered.
const PROGRESS_WITHIN: Duration = Duration::from_secs(12);

/// Whether a write that began when all was mended was answered soon.
pub fn progress(operations: &[Operation], healed_at: Duration) -> Verdict {
    let answered = operations.iter().any(|operation| {
        matches!(operation.request, Request::Write(_))
            && matches!(operation.outcome, Outcome::Answered(_))
            && operation.invoked >= healed_at
            && operation
                .returned
                .is_some_and(|returned| returned <= healed_at + PROGRESS_WITHIN)
    });
    ensure(answered, PROGRESS, || {
        format!("no write since {healed_at:?} was answered within {PROGRESS_WITHIN:?}")
    })
}

/// Whether the members stand at the same place and have nothing left to do.
pub fn has_settled(members: &[&Process]) -> bool {
    let mut places = members.iter().map(|process| {
        let status = process.node().status();
        let busy = process.machine().is_compacting() || status.leader == 0;
        (!busy && status.applied == status.last).then_some((status.applied, status.leader))
    });
    let first = places.next().flatten();
    first.is_some() && places.all(|place| place == first)
}

/// Members that have settled hold the same, and it is what the log says.
pub fn same_state(members: &[&Process], log: &LogChecker) -> Verdict {
    let everything = RangeRequest {
        key: b"\0"[..].into(),
        range_end: b"\0"[..].into(),
        ..Default::default()
    };
    let truth = log.model.list(b"\0", b"\0", i64::MAX);
    let mut first = None;
    for process in members {
        let id = process.id;
        log.tree.holds(id, process.applied(), &process.tree())?;
        let membership = process.machine().membership();
        let known = membership
            .read()
            .members()
            .map(|member| (member.id, member.is_learner))
            .collect();
        ensure(log.members == known, SAME_STATE, || {
            format!(
                "{id:x} knows of {known:x?}; the members are {:x?}",
                log.members
            )
        })?;
        let auth = Auth::of(&process.machine().auth_store().read());
        ensure(auth == log.model.auth, SAME_STATE, || {
            format!(
                "users of {id:x} are {auth:?}; they should be {:?}",
                log.model.auth
            )
        })?;
        let reader = process.machine().reader();
        let (hash, _) = reader
            .hash_kv(0)
            .map_err(|error| broken(id, &error.to_string()))?;
        let all = process
            .backend()
            .hash(true)
            .map_err(|error| broken(id, &error.to_string()))?;
        let range = reader
            .range(&everything)
            .map_err(|error| broken(id, &error.to_string()))?;
        let kvs = request::kvs(&range.kvs);
        ensure(kvs == truth, SAME_STATE, || {
            format!("{id:x} holds {kvs:?}; it should be {truth:?}")
        })?;
        let found = (hash, all);
        let (other, expected) = *first.get_or_insert((id, found));
        ensure(found == expected, SAME_STATE, || {
            format!("hashes of {id:x}: {found:x?}; of {other:x}: {expected:x?}")
        })?;
    }
    Ok(())
}

fn broken(id: u64, problem: &str) -> super::Violation {
    super::Violation {
        promise: SAME_STATE,
        detail: format!("{id:x} cannot be read: {problem}"),
    }
}
