//! `--force-new-cluster`: one member goes on alone when its cluster is lost.
//!
//! As in etcd: entries behind the commit index are dropped, and the log gets committed entries that
//! remove every other member.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use retcd_proto::raftpb::{ConfChange, ConfChangeType, ConfState, Entry, EntryType, HardState};
use retcd_proto::wire;

use super::{Notice, Opened, StorageError};
use crate::Append;

/// Appends what makes this member the only one.
pub(super) fn make_alone(opened: &mut Opened) -> Result<(), StorageError> {
    let own_id = opened.identity.member_id;
    let recovered = &mut opened.recovered;
    let commit = recovered.hard_state.commit().max(recovered.applied);
    let all = recovered.entries.len();
    recovered.entries.retain(|entry| entry.index() <= commit);
    if recovered.entries.len() < all {
        let dropped = all - recovered.entries.len();
        opened.notices.push(Notice::Dropped(dropped));
    }
    let unapplied = recovered
        .entries
        .iter()
        .filter(|entry| entry.index() > recovered.applied);
    let (voters, others) = members(own_id, &recovered.conf_state, unapplied);
    if !voters.contains(&own_id) {
        return Err(StorageError::ForcedLearner);
    }
    let term = recovered.hard_state.term();
    let entries: Vec<Entry> = others
        .into_iter()
        .zip(commit + 1..)
        .map(|(id, index)| removal(id, index, term))
        .collect();
    let hard_state = HardState {
        term: Some(term),
        vote: recovered.hard_state.vote,
        commit: Some(commit + entries.len() as u64),
    };
    let append = Append {
        hard_state: Some(hard_state),
        entries: entries.clone(),
        ..Append::default()
    };
    opened.log.append(&append)?;
    opened.log.sync()?;
    recovered.hard_state = hard_state;
    recovered.entries.extend(entries);
    Ok(())
}

/// The voters, and the ids of all others than `own_id`, once the entries are applied to the
/// configuration.
fn members<'a>(
    own_id: u64,
    conf_state: &ConfState,
    entries: impl Iterator<Item = &'a Entry>,
) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let mut voters: BTreeSet<u64> = conf_state.voters.iter().copied().collect();
    let mut all: BTreeSet<u64> = conf_state.learners.iter().copied().collect();
    all.extend(&voters);
    for entry in entries.filter(|entry| entry.r#type() == EntryType::EntryConfChange) {
        // What cannot be read stops the machine, with an error, when it is applied.
        let data = entry.data.clone().unwrap_or_default();
        let Ok(change) = wire::decode::<ConfChange>(data) else {
            continue;
        };
        let id = change.node_id();
        match change.r#type() {
            ConfChangeType::ConfChangeAddNode => {
                voters.insert(id);
                all.insert(id);
            }
            ConfChangeType::ConfChangeAddLearnerNode => {
                all.insert(id);
            }
            // The machine refuses it.
            ConfChangeType::ConfChangeRemoveNode if voters.iter().eq([&id]) => {}
            ConfChangeType::ConfChangeRemoveNode => {
                voters.remove(&id);
                all.remove(&id);
            }
            ConfChangeType::ConfChangeUpdateNode => {}
        }
    }
    all.remove(&own_id);
    (voters, all)
}

fn removal(id: u64, index: u64, term: u64) -> Entry {
    let change = ConfChange {
        id: Some(0),
        r#type: Some(ConfChangeType::ConfChangeRemoveNode as i32),
        node_id: Some(id),
        context: None,
    };
    Entry {
        r#type: Some(EntryType::EntryConfChange as i32),
        term: Some(term),
        index: Some(index),
        data: Some(Bytes::from(change.encode_to_vec())),
    }
}
