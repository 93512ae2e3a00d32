//! The first entries of a new cluster.
//!
//! As in etcd, a fresh member starts with one committed `ConfChangeAddNode` entry per initial
//! member, so that the membership is part of the log from the first index on.

use bytes::Bytes;
use prost::Message;
use retcd_proto::raftpb;

/// An initial member: its id and the JSON document that etcd puts into the entry's context.
pub struct InitialMember {
    /// The member's id.
    pub id: u64,
    /// The member's JSON, as in the `members` bucket.
    pub context: Vec<u8>,
}

/// Hard state and entries that every initial member starts from; members are ordered by id.
///
/// They must be durable in the log before a [`crate::Node`] is built on them.
pub fn initial_log(mut members: Vec<InitialMember>) -> (raftpb::HardState, Vec<raftpb::Entry>) {
    members.sort_by_key(|member| member.id);
    let entries: Vec<raftpb::Entry> = members
        .into_iter()
        .zip(1u64..)
        .map(|(member, index)| {
            let change = raftpb::ConfChange {
                id: None,
                r#type: Some(raftpb::ConfChangeType::ConfChangeAddNode as i32),
                node_id: Some(member.id),
                context: Some(member.context.into()),
            };
            raftpb::Entry {
                r#type: Some(raftpb::EntryType::EntryConfChange as i32),
                term: Some(1),
                index: Some(index),
                data: Some(Bytes::from(change.encode_to_vec())),
            }
        })
        .collect();
    let commit = entries.len() as u64;
    (
        raftpb::HardState {
            term: Some(1),
            vote: Some(0),
            commit: Some(commit),
        },
        entries,
    )
}
