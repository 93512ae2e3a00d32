//! `--force-new-cluster`: one member goes on alone when its cluster is lost.
//!
//! As in etcd: entries behind the commit index are dropped, and the log gets committed entries that
//! remove every other member. A log that does not know the member, which `etcdctl backup` makes,
//! gets one that adds it first. In etcd 3.3 that command also leaves entries out, but not from the
//! database's index: what is missing behind the log's end is filled up by entries that do nothing.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use retcd_proto::raftpb::{ConfChange, ConfChangeType, Entry, EntryType, HardState};
use retcd_proto::wire;
use retcd_state::membership::{ConfChangeContext, Member, Membership};

use super::{Notice, Opened, StorageError};
use crate::Append;

/// Appends what makes this member the only one.
pub(super) fn make_alone(opened: &mut Opened) -> Result<(), StorageError> {
    let own_id = opened.identity.member_id;
    let recovered = &mut opened.recovered;
    let applied = recovered.applied;
    let commit = recovered.hard_state.commit().max(applied);
    let all = recovered.entries.len();
    recovered.entries.retain(|entry| entry.index() <= commit);
    if recovered.entries.len() < all {
        let dropped = all - recovered.entries.len();
        opened.notices.push(Notice::Dropped(dropped));
    }
    let last = recovered.entries.last().map(Entry::index);
    let last = last.or(recovered.earlier.last().map(|(index, _)| index));
    let last = last.unwrap_or(recovered.snapshot.0);
    if last < applied {
        opened.notices.push(Notice::FilledUp { last, applied });
    }
    let mut members = Members::of(&opened.machine.membership().read());
    let unapplied = recovered.entries.iter();
    let unapplied = unapplied.filter(|entry| entry.index() > applied);
    unapplied.for_each(|entry| members.follow(entry));
    let changes = members.to_alone(own_id)?;

    let term = recovered.hard_state.term();
    let new_commit = commit + changes.len() as u64;
    let entry = |index, kind, data| Entry {
        r#type: Some(kind as i32),
        term: Some(term),
        index: Some(index),
        data,
    };
    let fillers = (last + 1..=applied).map(|index| entry(index, EntryType::EntryNormal, None));
    let changes = changes.iter().zip(commit + 1..).map(|(change, index)| {
        let data = Bytes::from(change.encode_to_vec());
        entry(index, EntryType::EntryConfChange, Some(data))
    });
    let entries: Vec<Entry> = fillers.chain(changes).collect();
    let hard_state = HardState {
        term: Some(term),
        vote: recovered.hard_state.vote,
        commit: Some(new_commit),
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

/// Who is in the cluster, by their ids.
struct Members {
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
    removed: BTreeSet<u64>,
    /// Where members are reached by their peers, or once were.
    peer_urls: BTreeSet<String>,
}

impl Members {
    fn of(membership: &Membership) -> Members {
        let conf_state = membership.conf_state();
        let urls = membership.members().flat_map(Member::peer_urls);
        Members {
            voters: conf_state.voters.iter().copied().collect(),
            learners: conf_state.learners.iter().copied().collect(),
            removed: membership.removed().collect(),
            peer_urls: urls.cloned().collect(),
        }
    }

    /// An entry is applied.
    fn follow(&mut self, entry: &Entry) {
        if entry.r#type() != EntryType::EntryConfChange {
            return;
        }
        // What cannot be read stops the machine, with an error, when it is applied.
        let data = entry.data.clone().unwrap_or_default();
        let Ok(change) = wire::decode::<ConfChange>(data) else {
            return;
        };
        let id = change.node_id();
        if let Ok(context) = ConfChangeContext::parse(change.context()) {
            let urls = context.member.peer_urls().iter().cloned();
            self.peer_urls.extend(urls);
        }
        match change.r#type() {
            ConfChangeType::ConfChangeAddNode => {
                self.voters.insert(id);
                self.learners.remove(&id);
            }
            ConfChangeType::ConfChangeAddLearnerNode => {
                self.learners.insert(id);
            }
            // The machine refuses it.
            ConfChangeType::ConfChangeRemoveNode if self.voters.iter().eq([&id]) => {}
            ConfChangeType::ConfChangeRemoveNode => {
                self.voters.remove(&id);
                self.learners.remove(&id);
                self.removed.insert(id);
            }
            ConfChangeType::ConfChangeUpdateNode => {}
        }
    }

    /// What makes `own_id` the only member.
    fn to_alone(&self, own_id: u64) -> Result<Vec<ConfChange>, StorageError> {
        let mut changes = Vec::new();
        if !self.voters.contains(&own_id) {
            if self.learners.contains(&own_id) {
                return Err(StorageError::ForcedLearner);
            }
            if self.removed.contains(&own_id) {
                return Err(StorageError::ForcedRemoved);
            }
            // First: there is no moment without voters.
            changes.push(self.addition(own_id));
        }
        let all = self.voters.union(&self.learners);
        let others = all.filter(|id| **id != own_id);
        changes.extend(others.map(|id| removal(*id)));
        Ok(changes)
    }

    /// Adds a member at addresses that etcd invents for it, save those that would be refused since
    /// another one has them. Its operator gives it real ones by `etcdctl member update`.
    fn addition(&self, id: u64) -> ConfChange {
        let urls = std::iter::once(2380)
            .chain(7001..)
            .map(|port: u32| format!("http://localhost:{port}"));
        let unused = urls.filter(|url| !self.peer_urls.contains(url));
        let context = ConfChangeContext {
            member: Member {
                id,
                peer_urls: Some(unused.take(2).collect()),
                ..Member::default()
            },
            is_promote: false,
        };
        ConfChange {
            id: Some(0),
            r#type: Some(ConfChangeType::ConfChangeAddNode as i32),
            node_id: Some(id),
            context: Some(context.to_json().into()),
        }
    }
}

fn removal(id: u64) -> ConfChange {
    ConfChange {
        id: Some(0),
        r#type: Some(ConfChangeType::ConfChangeRemoveNode as i32),
        node_id: Some(id),
        context: None,
    }
}
