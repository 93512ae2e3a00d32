//! Translation between etcd's `raftpb` and the crate `raft`.
//!
//! Their entries differ in field numbers only; the configuration change types differ in meaning:
//! etcd has `ConfChangeUpdateNode`, raft-rs does not. Entry data is shared, never copied.

use raft::eraftpb;
use retcd_proto::raftpb;

/// An entry for raft-rs.
pub fn entry_to_raft(entry: &raftpb::Entry) -> eraftpb::Entry {
    let mut out = eraftpb::Entry::default();
    out.set_entry_type(match entry.r#type() {
        raftpb::EntryType::EntryNormal => eraftpb::EntryType::EntryNormal,
        raftpb::EntryType::EntryConfChange => eraftpb::EntryType::EntryConfChange,
        raftpb::EntryType::EntryConfChangeV2 => eraftpb::EntryType::EntryConfChangeV2,
    });
    out.term = entry.term();
    out.index = entry.index();
    out.data = entry.data.clone().unwrap_or_default();
    out
}

/// An entry as etcd logs it: type, term and index always present, data only if there is any.
pub fn entry_from_raft(entry: &eraftpb::Entry) -> raftpb::Entry {
    let kind = match entry.get_entry_type() {
        eraftpb::EntryType::EntryNormal => raftpb::EntryType::EntryNormal,
        eraftpb::EntryType::EntryConfChange => raftpb::EntryType::EntryConfChange,
        eraftpb::EntryType::EntryConfChangeV2 => raftpb::EntryType::EntryConfChangeV2,
    };
    raftpb::Entry {
        r#type: Some(kind as i32),
        term: Some(entry.term),
        index: Some(entry.index),
        data: (!entry.data.is_empty()).then(|| entry.data.clone()),
    }
}

/// A hard state for raft-rs.
pub fn hard_state_to_raft(state: &raftpb::HardState) -> eraftpb::HardState {
    eraftpb::HardState {
        term: state.term(),
        vote: state.vote(),
        commit: state.commit(),
        ..Default::default()
    }
}

/// A hard state as etcd logs it.
pub fn hard_state_from_raft(state: &eraftpb::HardState) -> raftpb::HardState {
    raftpb::HardState {
        term: Some(state.term),
        vote: Some(state.vote),
        commit: Some(state.commit),
    }
}

/// A configuration for raft-rs.
pub fn conf_state_to_raft(state: &raftpb::ConfState) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave(),
        ..Default::default()
    }
}

/// A configuration as etcd records it: lists ascending by id, `auto_leave` always present.
pub fn conf_state_from_raft(state: &eraftpb::ConfState) -> raftpb::ConfState {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    raftpb::ConfState {
        voters: sorted(&state.voters),
        learners: sorted(&state.learners),
        voters_outgoing: sorted(&state.voters_outgoing),
        learners_next: sorted(&state.learners_next),
        auto_leave: Some(state.auto_leave),
    }
}

/// A configuration change for raft-rs; `None` when it does not concern raft (an update of URLs, or
/// a change that the state machine refused and that keeps its place in the log only).
pub fn conf_change_to_raft(change: &raftpb::ConfChange) -> Option<eraftpb::ConfChange> {
    let kind = match change.r#type() {
        raftpb::ConfChangeType::ConfChangeAddNode => eraftpb::ConfChangeType::AddNode,
        raftpb::ConfChangeType::ConfChangeRemoveNode => eraftpb::ConfChangeType::RemoveNode,
        raftpb::ConfChangeType::ConfChangeAddLearnerNode => eraftpb::ConfChangeType::AddLearnerNode,
        raftpb::ConfChangeType::ConfChangeUpdateNode => return None,
    };
    if change.node_id() == 0 {
        return None;
    }
    let mut out = eraftpb::ConfChange::default();
    out.set_change_type(kind);
    out.node_id = change.node_id();
    Some(out)
}
