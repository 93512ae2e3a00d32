//! The thread that owns the node: turns its outputs into work for the other threads.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};

use retcd_node::{Input, LeaderInfo, Node, Output, Role};

use super::apply_thread::ToApply;
use super::fatal::stop_process;
use super::log_thread::ToLog;
use super::mailbox::Mail;
use super::member::Member;
use super::snapshot_thread::ToSnapshot;
use crate::peer::Transport;

/// Inputs that are taken in before the node's outputs are looked at; bounds the latency of a turn.
const INPUTS_PER_TURN_MAX: usize = 1024;

/// Where the node's outputs go.
pub struct Outbox {
    /// To the write-ahead log.
    pub log: Sender<ToLog>,
    /// To the machine.
    pub apply: Sender<ToApply>,
    /// To whoever writes snapshots.
    pub snapshot: Sender<ToSnapshot>,
    /// To the other members.
    pub peers: Transport,
}

/// Runs until the member stops.
pub fn run(mut node: Node, inbox: &Receiver<Input>, outbox: &Outbox, member: &Arc<Member>) {
    let mut followers_due = member.clock.now();
    let mut known = LeaderInfo {
        leader: 0,
        term: node.status().term,
        role: Role::Follower,
    };
    loop {
        act_on_outputs(&mut node, &mut known, outbox, member);
        let now = member.clock.now();
        member.progress.publish(member.id, node.status(), now);
        if now >= followers_due {
            member.progress.publish_followers(node.followers());
            followers_due = now + member.config.heartbeat_interval();
        }
        let wait = node.poll_timeout().saturating_sub(member.clock.now());
        match inbox.recv_timeout(wait) {
            Ok(input) => {
                let now = member.clock.now();
                node.handle(now, input);
                for input in inbox.try_iter().take(INPUTS_PER_TURN_MAX) {
                    node.handle(now, input);
                }
            }
            Err(RecvTimeoutError::Timeout) => node.handle_timeout(member.clock.now()),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if *member.stopping.borrow() {
            return;
        }
    }
}

/// `known` is what was last told of the leader.
fn act_on_outputs(node: &mut Node, known: &mut LeaderInfo, outbox: &Outbox, member: &Arc<Member>) {
    while let Some(output) = node.poll_output() {
        // A thread that is gone means that the process is stopping: nothing is owed to it.
        match output {
            Output::Append(append) => drop(outbox.log.send(ToLog::Append(append))),
            Output::Apply(entries) => drop(outbox.apply.send(ToApply::Entries(entries))),
            Output::ReadReady { reads } => {
                member
                    .mailboxes
                    .send_split(reads, |read| *read, Mail::ReadsReady)
            }
            Output::Rejected { requests, reason } => {
                member
                    .metrics
                    .server
                    .proposals_failed
                    .inc_by(requests.len() as u64);
                let letter = |requests| Mail::Rejected(requests, reason);
                member
                    .mailboxes
                    .send_split(requests, |request| *request, letter);
            }
            Output::ReadRejected { reads, reason } => {
                member
                    .metrics
                    .server
                    .read_indexes_failed
                    .inc_by(reads.len() as u64);
                member.mailboxes.send_split(
                    reads,
                    |read| *read,
                    |reads| Mail::ReadsRejected(reads, reason),
                );
            }
            Output::Leader(leader) => {
                // Before anybody acts on it: see `versions::handle_first_commit`.
                member
                    .progress
                    .publish(member.id, node.status(), member.clock.now());
                handle_leader(std::mem::replace(known, leader), leader, member);
            }
            Output::Snapshot(point) => drop(outbox.snapshot.send(ToSnapshot::Save(point))),
            Output::Send(messages) => outbox.peers.send(messages),
            Output::Restore(snapshot) => drop(outbox.apply.send(ToApply::Restore(snapshot))),
            Output::Contradiction(contradiction) => stop_process(
                "the cluster contradicts what this member has stored",
                &contradiction,
            ),
        }
    }
}

/// Leases expire at the leader only. A new one keeps deadlines from its first commit on: until then it may not have applied
/// all that its predecessor did.
fn handle_leader(before: LeaderInfo, now: LeaderInfo, member: &Arc<Member>) {
    if now.role != Role::Leader {
        member.lessor.lock().demote();
    }
    tell_role(member.id, before, now);
    tell_leader(member, before.leader, now);
}

/// In the words of Go's raft, which people search for.
fn tell_role(id: u64, before: LeaderInfo, now: LeaderInfo) {
    if (before.role, before.term) == (now.role, now.term) {
        return;
    }
    let role = match now.role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    };
    if before.role == Role::Follower && now.role != Role::Follower {
        let term = before.term;
        crate::info!(logger: "raft", format!("{id:x} is starting a new election at term {term}"));
    }
    let term = now.term;
    crate::info!(logger: "raft", format!("{id:x} became {role} at term {term}"));
}

fn tell_leader(member: &Member, before: u64, now: LeaderInfo) {
    let id = member.id;
    let LeaderInfo { leader, term, .. } = now;
    if before == leader {
        return;
    }
    let text = match (before, leader) {
        (_, 0) => format!("raft.node: {id:x} lost leader {before:x} at term {term}"),
        (0, _) => format!("raft.node: {id:x} elected leader {leader:x} at term {term}"),
        _ => {
            format!("raft.node: {id:x} changed leader from {before:x} to {leader:x} at term {term}")
        }
    };
    crate::info!(logger: "raft", text);
    if leader != 0 {
        member.metrics.server.leader_changes.inc();
    }
}
