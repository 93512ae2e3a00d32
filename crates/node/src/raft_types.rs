//! Translation between etcd's `raftpb` and the crate `raft`.
//!
//! Their entries differ in field numbers only; the configuration change types differ in meaning:
//! etcd has `ConfChangeUpdateNode`, raft-rs does not. Entry data is shared, never copied, but for
//! changes of the membership.
//!
//! raft-rs reads the data of a change that is proposed, to see that it changes something, and
//! refuses one whose type it does not know. So inside raft-rs the data of every such entry is
//! wrapped into a field that it passes over:
//!
//! ```text
//! | 7a | length, varint | the data as etcd has it |
//! ```
//!
//! raft-rs has no room for a kind of entry that is unknown. Such an entry is a joint change there,
//! which is not applied either, and keeps the number of its kind in `context`, a field that etcd's
//! entries do not have.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{decode_varint, encode_varint};
use raft::eraftpb;
use retcd_proto::{raftpb, wire};

/// Field 15, of the kind that has a length: no version of either protocol has it in a change.
const WRAPPING: u8 = 15 << 3 | 2;

fn wrap(data: &[u8]) -> Bytes {
    let mut wrapped = BytesMut::with_capacity(data.len() + 3);
    wrapped.put_u8(WRAPPING);
    encode_varint(data.len() as u64, &mut wrapped);
    wrapped.extend_from_slice(data);
    wrapped.freeze()
}

fn unwrap(data: &Bytes) -> Bytes {
    let mut rest = data.clone();
    let wrapped = !rest.is_empty() && rest.split_to(1)[0] == WRAPPING;
    let length = decode_varint(&mut rest).ok().filter(|_| wrapped);
    assert_eq!(
        length,
        Some(rest.len() as u64),
        "all changes of the membership are wrapped on their way in: {data:02x?}"
    );
    rest
}

/// The change of the membership that an entry of raft-rs holds, if there is one.
pub fn conf_change_in(entry: &eraftpb::Entry) -> Option<raftpb::ConfChange> {
    wire::decode(unwrap(&entry.data)).ok()
}

/// An entry for raft-rs.
pub fn entry_to_raft(entry: &raftpb::Entry) -> eraftpb::Entry {
    let mut out = eraftpb::Entry::default();
    // Not `entry.r#type()`, which takes an unknown number for the first kind.
    let number = entry.r#type.unwrap_or_default();
    let kind = raftpb::EntryType::try_from(number);
    out.set_entry_type(match kind {
        Ok(raftpb::EntryType::EntryNormal) => eraftpb::EntryType::EntryNormal,
        Ok(raftpb::EntryType::EntryConfChange) => eraftpb::EntryType::EntryConfChange,
        Ok(raftpb::EntryType::EntryConfChangeV2) | Err(_) => eraftpb::EntryType::EntryConfChangeV2,
    });
    if kind.is_err() {
        out.context = Bytes::copy_from_slice(&number.to_be_bytes());
    }
    out.term = entry.term();
    out.index = entry.index();
    out.data = match kind {
        Ok(raftpb::EntryType::EntryConfChange) => wrap(entry.data()),
        _ => entry.data.clone().unwrap_or_default(),
    };
    out
}

/// An entry as etcd logs it: type, term and index always present, data only if there is any.
pub fn entry_from_raft(entry: &eraftpb::Entry) -> raftpb::Entry {
    let kind = match entry.get_entry_type() {
        eraftpb::EntryType::EntryNormal => raftpb::EntryType::EntryNormal,
        eraftpb::EntryType::EntryConfChange => raftpb::EntryType::EntryConfChange,
        eraftpb::EntryType::EntryConfChangeV2 => raftpb::EntryType::EntryConfChangeV2,
    };
    let data = match kind {
        raftpb::EntryType::EntryConfChange => unwrap(&entry.data),
        _ => entry.data.clone(),
    };
    let unknown = entry.context[..].try_into().map(i32::from_be_bytes);
    raftpb::Entry {
        r#type: Some(unknown.unwrap_or(kind as i32)),
        term: Some(entry.term),
        index: Some(entry.index),
        data: (!data.is_empty()).then_some(data),
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

/// A snapshot for raft-rs.
fn snapshot_to_raft(snapshot: &raftpb::Snapshot) -> eraftpb::Snapshot {
    let mut out = eraftpb::Snapshot {
        data: snapshot.data.clone().unwrap_or_default(),
        ..Default::default()
    };
    if let Some(metadata) = &snapshot.metadata {
        let to = out.mut_metadata();
        (to.index, to.term) = (metadata.index(), metadata.term());
        if let Some(conf_state) = &metadata.conf_state {
            to.set_conf_state(conf_state_to_raft(conf_state));
        }
    }
    out
}

/// A snapshot as etcd has it.
pub fn snapshot_from_raft(snapshot: &eraftpb::Snapshot) -> raftpb::Snapshot {
    let metadata = snapshot.get_metadata();
    raftpb::Snapshot {
        data: (!snapshot.data.is_empty()).then(|| snapshot.data.clone()),
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: Some(conf_state_from_raft(metadata.get_conf_state())),
            index: Some(metadata.index),
            term: Some(metadata.term),
        }),
    }
}

/// A message for raft-rs; `None` for kinds that it does not know, or that never leave a member.
///
/// What only raft-rs has (priority, commit term) stays at zero, where it has no effect. So does the
/// term of kinds that are forwarded on behalf of a client.
pub fn message_to_raft(message: &raftpb::Message) -> Option<eraftpb::Message> {
    let kind = message_type_to_raft(message.r#type())?;
    let mut out = eraftpb::Message::default();
    out.set_msg_type(kind);
    out.to = message.to();
    out.from = message.from();
    out.term = match kind {
        eraftpb::MessageType::MsgPropose
        | eraftpb::MessageType::MsgReadIndex
        | eraftpb::MessageType::MsgTransferLeader => 0,
        _ => message.term(),
    };
    out.log_term = message.log_term();
    out.index = message.index();
    out.entries = message.entries.iter().map(entry_to_raft).collect();
    out.commit = message.commit();
    out.reject = message.reject();
    out.reject_hint = message.reject_hint();
    out.context = message.context.clone().unwrap_or_default();
    if kind == eraftpb::MessageType::MsgSnapshot {
        out.set_snapshot(snapshot_to_raft(message.snapshot.as_ref()?));
    }
    Some(out)
}

/// A message as etcd sends it: all numbers present, and nothing that only raft-rs knows.
pub fn message_from_raft(message: &eraftpb::Message) -> raftpb::Message {
    let kind = message_type_from_raft(message.get_msg_type());
    // raft-rs puts its commit index into answers, too; etcd leaves it out there.
    let commit = match kind {
        raftpb::MessageType::MsgApp | raftpb::MessageType::MsgHeartbeat => message.commit,
        _ => 0,
    };
    let snapshot = kind == raftpb::MessageType::MsgSnap;
    raftpb::Message {
        r#type: Some(kind as i32),
        to: Some(message.to),
        from: Some(message.from),
        term: Some(message.term),
        log_term: Some(message.log_term),
        index: Some(message.index),
        entries: message.entries.iter().map(entry_from_raft).collect(),
        commit: Some(commit),
        snapshot: snapshot.then(|| snapshot_from_raft(message.get_snapshot())),
        reject: Some(message.reject),
        reject_hint: Some(message.reject_hint),
        context: (!message.context.is_empty()).then(|| message.context.clone()),
        ..Default::default()
    }
}

fn message_type_to_raft(kind: raftpb::MessageType) -> Option<eraftpb::MessageType> {
    use eraftpb::MessageType as To;
    use raftpb::MessageType as From;
    Some(match kind {
        From::MsgProp => To::MsgPropose,
        From::MsgApp => To::MsgAppend,
        From::MsgAppResp => To::MsgAppendResponse,
        From::MsgVote => To::MsgRequestVote,
        From::MsgVoteResp => To::MsgRequestVoteResponse,
        From::MsgSnap => To::MsgSnapshot,
        From::MsgHeartbeat => To::MsgHeartbeat,
        From::MsgHeartbeatResp => To::MsgHeartbeatResponse,
        From::MsgTransferLeader => To::MsgTransferLeader,
        From::MsgTimeoutNow => To::MsgTimeoutNow,
        From::MsgReadIndex => To::MsgReadIndex,
        From::MsgReadIndexResp => To::MsgReadIndexResp,
        From::MsgPreVote => To::MsgRequestPreVote,
        From::MsgPreVoteResp => To::MsgRequestPreVoteResponse,
        _ => return None,
    })
}

fn message_type_from_raft(kind: eraftpb::MessageType) -> raftpb::MessageType {
    use eraftpb::MessageType as From;
    use raftpb::MessageType as To;
    match kind {
        From::MsgHup => To::MsgHup,
        From::MsgBeat => To::MsgBeat,
        From::MsgPropose => To::MsgProp,
        From::MsgAppend => To::MsgApp,
        From::MsgAppendResponse => To::MsgAppResp,
        From::MsgRequestVote => To::MsgVote,
        From::MsgRequestVoteResponse => To::MsgVoteResp,
        From::MsgSnapshot => To::MsgSnap,
        From::MsgHeartbeat => To::MsgHeartbeat,
        From::MsgHeartbeatResponse => To::MsgHeartbeatResp,
        From::MsgUnreachable => To::MsgUnreachable,
        From::MsgSnapStatus => To::MsgSnapStatus,
        From::MsgCheckQuorum => To::MsgCheckQuorum,
        From::MsgTransferLeader => To::MsgTransferLeader,
        From::MsgTimeoutNow => To::MsgTimeoutNow,
        From::MsgReadIndex => To::MsgReadIndex,
        From::MsgReadIndexResp => To::MsgReadIndexResp,
        From::MsgRequestPreVote => To::MsgPreVote,
        From::MsgRequestPreVoteResponse => To::MsgPreVoteResp,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_any_kind_come_back_as_they_were() {
        for kind in [0, 1, 2, 3, 9, -1, i32::MAX] {
            let entry = raftpb::Entry {
                r#type: Some(kind),
                term: Some(3),
                index: Some(7),
                data: Some("data".into()),
            };
            assert_eq!(entry_from_raft(&entry_to_raft(&entry)), entry);
        }
    }
}
