//! What a node says to those who wait: its outputs that are no work for log, machine or network.

use std::sync::Arc;

use retcd_node::{Append, Contradiction, LeaderInfo, Output, Role};
use retcd_proto::raftpb;
use retcd_storage::wal::Wanted;

use crate::mailbox::{Mail, Mailboxes};
use crate::request_id::thread_of;
use crate::shared::Shared;

/// What a node wants done by somebody.
#[derive(Debug)]
pub enum NodeWork {
    /// The log is to write this and sync it.
    Append(Append),
    /// The log is to be read, for a follower that is behind.
    ReadLog(Wanted),
    /// The machine is to apply these entries.
    Apply(Vec<raftpb::Entry>),
    /// The machine is to go on with the database that came with this snapshot.
    Restore(raftpb::Snapshot),
    /// A snapshot is to be written.
    SnapshotDue,
    /// These messages are to be sent.
    Send(Vec<raftpb::Message>),
    /// The member has to stop.
    Contradiction(Contradiction),
}

/// Passes on what a node says.
pub struct Outputs {
    shared: Arc<Shared>,
    mailboxes: Mailboxes,
}

impl Outputs {
    /// Passes on what the member's node says.
    pub fn new(shared: &Arc<Shared>, mailboxes: Mailboxes) -> Outputs {
        Outputs {
            shared: Arc::clone(shared),
            mailboxes,
        }
    }

    /// Passes `output` on to those who wait for it; gives back what is work for somebody else.
    pub fn pass_on(&self, output: Output) -> Option<NodeWork> {
        let (shared, mailboxes) = (&*self.shared, &self.mailboxes);
        match output {
            Output::ReadReady { reads, leads_in } => {
                let mail = |reads| Mail::ReadsReady(reads, leads_in);
                mailboxes.send_split(reads, |read| *read, mail);
            }
            Output::Rejected { requests, reason } => {
                shared.observer.proposals_failed(requests.len());
                let mail = |requests| Mail::Rejected(requests, reason);
                mailboxes.send_split(requests, |request| *request, mail);
            }
            Output::ReadRejected { reads, reason } => {
                shared.observer.read_indexes_failed(reads.len());
                let mail = |reads| Mail::ReadsRejected(reads, reason);
                mailboxes.send_split(reads, |read| *read, mail);
            }
            Output::Inspected {
                request,
                inspection,
            } => mailboxes.send(thread_of(request), Mail::Inspected(request, inspection)),
            Output::Leader(now) => self.handle_leader(now),
            Output::Append(append) => return Some(NodeWork::Append(append)),
            Output::ReadLog(wanted) => return Some(NodeWork::ReadLog(wanted)),
            Output::Apply(entries) => return Some(NodeWork::Apply(entries)),
            Output::Restore(snapshot) => return Some(NodeWork::Restore(snapshot)),
            Output::SnapshotDue { .. } => return Some(NodeWork::SnapshotDue),
            Output::Send(messages) => return Some(NodeWork::Send(messages)),
            Output::Contradiction(found) => return Some(NodeWork::Contradiction(found)),
        }
        None
    }

    /// Leases expire at the leader only.
    fn handle_leader(&self, now: LeaderInfo) {
        let shared = &*self.shared;
        assert!(
            (now.role == Role::Leader) == (now.leader == shared.id),
            "member {:x} is {:?} while {:x} leads",
            shared.id,
            now.role,
            now.leader
        );
        let before = shared.leadership.publish(now);
        match now.role {
            Role::Leader => shared.state.lessor.lock().elect(now.term),
            _ => shared.state.lessor.lock().demote(),
        }
        if before.leader != now.leader {
            tell_leader(shared.id, before.leader, now);
            if now.leader != 0 {
                shared.observer.leader_changed();
            }
        }
    }
}

/// In the words of Go's raft, which people search for; what raft itself tells is in `node`.
fn tell_leader(id: u64, before: u64, now: LeaderInfo) {
    let LeaderInfo { leader, term, .. } = now;
    let text = match (before, leader) {
        (_, 0) => format!("raft.node: {id:x} lost leader {before:x} at term {term}"),
        (0, _) => format!("raft.node: {id:x} elected leader {leader:x} at term {term}"),
        _ => {
            format!("raft.node: {id:x} changed leader from {before:x} to {leader:x} at term {term}")
        }
    };
    retcd_log::info!(logger: "raft", text);
}
