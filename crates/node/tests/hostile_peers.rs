//! Whatever arrives in the name of a member, of any shape and in any order, never ends the process:
//! not inside raft-rs, which trusts its own kind, and not by numbers that leave no room to count
//! on. What proves that this member's own files were lost stops it in order, as in etcd.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use retcd_node::bootstrap::{InitialMember, initial_log};
use retcd_node::{Config, Input, Node, Output, Recovered, Role};
use retcd_proto::raftpb::{self, ConfChange, EntryType, MessageType};

const ID: u64 = 1;
const OTHERS: [u64; 2] = [2, 3];
const STRANGER: u64 = 9;
const TICK: Duration = Duration::from_millis(100);
/// Messages of one run. A run ends early where a contradiction is found.
const MESSAGES: usize = 300;
const RUNS: u64 = 400;

/// Member 1 of three, whose log and machine do what they are told at once.
struct Target {
    node: Node,
    now: Duration,
    sent: Vec<raftpb::Message>,
    /// It was told that its files are not its cluster's.
    stopped: bool,
}

impl Target {
    fn new(seed: u64) -> Target {
        let members = [ID, OTHERS[0], OTHERS[1]].map(|id| InitialMember {
            id,
            context: b"{}".to_vec(),
        });
        let (hard_state, entries) = initial_log(members.into());
        let config = Config {
            id: ID,
            tick: TICK,
            election_ticks: 10,
            pre_vote: seed.is_multiple_of(2),
            snapshot_count: 20,
            snapshot_catchup_entries: 5,
            log_bytes_in_memory: 0,
            proposal_timeout: Duration::from_secs(7),
            first_read_context: 1,
            seed,
        };
        let recovered = Recovered {
            hard_state,
            entries,
            ..Recovered::default()
        };
        let mut target = Target {
            node: Node::new(config, recovered, Duration::ZERO),
            now: Duration::ZERO,
            sent: vec![],
            stopped: false,
        };
        target.act();
        target
    }

    fn receive(&mut self, message: raftpb::Message) {
        self.node.handle(self.now, Input::Messages(vec![message]));
        self.act();
    }

    fn tick(&mut self) {
        self.now += TICK;
        self.node.handle_timeout(self.now);
        self.act();
    }

    fn act(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Append(append) => {
                    let number = append.number;
                    self.node.handle(self.now, Input::Appended { number });
                }
                Output::ReadLog(wanted) => {
                    let (first, entries) = (wanted.first, vec![]);
                    self.node
                        .handle(self.now, Input::LogRead { first, entries });
                }
                Output::Send(messages) => self.sent.extend(messages),
                Output::Apply(entries) => self.apply(&entries),
                Output::Restore(snapshot) => {
                    let index = snapshot.metadata.unwrap_or_default().index();
                    self.applied(index, vec![]);
                }
                Output::SnapshotDue { index } => {
                    self.node
                        .handle(self.now, Input::Snapshotted { index, bytes: 0 });
                }
                Output::Contradiction(_) => self.stopped = true,
                Output::ReadReady { .. }
                | Output::Rejected { .. }
                | Output::ReadRejected { .. }
                | Output::Inspected { .. }
                | Output::Leader(_) => {}
            }
        }
    }

    fn apply(&mut self, entries: &[raftpb::Entry]) {
        let changes = entries
            .iter()
            .filter(|entry| entry.r#type() == EntryType::EntryConfChange)
            .filter_map(|entry| ConfChange::decode(entry.data()).ok())
            .collect();
        let last = entries.last().expect("an apply is never empty");
        self.applied(last.index(), changes);
    }

    fn applied(&mut self, index: u64, conf_changes: Vec<ConfChange>) {
        let input = Input::Applied {
            index,
            conf_changes,
        };
        self.node.handle(self.now, input);
    }

    /// Lets time pass and grants every vote that is asked for, until it leads.
    fn elect(&mut self) {
        for _ in 0..200 {
            if self.node.status().role == Role::Leader {
                return;
            }
            self.tick();
            for request in std::mem::take(&mut self.sent) {
                let answer = match request.r#type() {
                    MessageType::MsgPreVote => MessageType::MsgPreVoteResp,
                    MessageType::MsgVote => MessageType::MsgVoteResp,
                    _ => continue,
                };
                self.receive(raftpb::Message {
                    r#type: Some(answer as i32),
                    from: request.to,
                    to: request.from,
                    term: request.term,
                    ..Default::default()
                });
            }
        }
        panic!("it is never elected: {:?}", self.node.status());
    }
}

/// A number near those that mean something, or one that leaves no room.
fn number(random: &mut fastrand::Rng, near: u64) -> u64 {
    match random.u8(..24) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => u64::MAX - 1,
        4 => 1 << 63,
        5 => 1 << 40,
        6 => near.wrapping_sub(3),
        _ => near + random.u64(..3) - near.min(1),
    }
}

fn entry(random: &mut fastrand::Rng, index: u64, term: u64) -> raftpb::Entry {
    let kind = match random.u8(..8) {
        0 => EntryType::EntryConfChange,
        1 => EntryType::EntryConfChangeV2,
        _ => EntryType::EntryNormal,
    };
    let data = match kind {
        EntryType::EntryConfChange => ConfChange {
            id: Some(random.u64(..)),
            r#type: Some(random.i32(0..4)),
            node_id: Some(random.u64(3..6)),
            context: None,
        }
        .encode_to_vec(),
        _ => vec![7; random.usize(..9)],
    };
    raftpb::Entry {
        r#type: Some(kind as i32),
        term: Some(term),
        index: Some(index),
        data: Some(Bytes::from(data)),
    }
}

fn snapshot(random: &mut fastrand::Rng, last: u64, term: u64) -> raftpb::Snapshot {
    let voters = (0..random.usize(..4)).map(|_| random.u64(..5)).collect();
    let learners = (0..random.usize(..2)).map(|_| random.u64(..6)).collect();
    raftpb::Snapshot {
        data: None,
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: Some(raftpb::ConfState {
                voters,
                learners,
                ..Default::default()
            }),
            index: Some(number(random, last + 1)),
            term: Some(number(random, term)),
        }),
    }
}

fn message(random: &mut fastrand::Rng, target: &Target) -> raftpb::Message {
    let status = target.node.status();
    let kind = MessageType::try_from(random.i32(0..23)).unwrap_or(MessageType::MsgApp);
    let index = number(random, status.last);
    let term = number(random, status.term + 1);
    let entries = (1..random.u64(1..5))
        .map(|offset| {
            let index = match random.u8(..20) {
                0 => number(random, status.last),
                _ => index.wrapping_add(offset),
            };
            let term = number(random, term.min(1 << 50));
            entry(random, index, term)
        })
        .collect();
    // A commit index beyond the log stops a member, so it is not drawn as often as the other
    // numbers.
    let commit = match random.u8(..50) {
        0 => number(random, status.last),
        _ => status.committed,
    };
    raftpb::Message {
        r#type: Some(kind as i32),
        to: Some(if random.u8(..20) == 0 { 0 } else { ID }),
        from: Some(match random.u8(..20) {
            0 => random.u64(..2),
            1 => STRANGER,
            _ => OTHERS[random.usize(..2)],
        }),
        term: Some(term),
        log_term: Some(number(random, status.term)),
        index: Some(index),
        entries,
        commit: Some(commit),
        snapshot: (kind == MessageType::MsgSnap)
            .then(|| snapshot(random, status.last, status.term)),
        reject: Some(random.bool()),
        reject_hint: Some(number(random, status.last)),
        context: random
            .bool()
            .then(|| Bytes::from_static(b"CampaignTransfer")),
        ..Default::default()
    }
}

#[test]
fn nothing_that_peers_say_ends_the_process() {
    let mut to_the_end = 0;
    for seed in 0..RUNS {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut target = Target::new(seed);
        if random.bool() {
            target.elect();
        }
        for _ in 0..MESSAGES {
            let message = message(&mut random, &target);
            target.receive(message);
            if random.u8(..10) == 0 {
                target.tick();
            }
            if random.u8(..100) == 0 {
                target.node.handle(
                    target.now,
                    Input::Propose {
                        request: 1,
                        data: Bytes::from_static(b"a"),
                        leads_in: None,
                    },
                );
                target.act();
            }
            if target.stopped {
                break;
            }
        }
        to_the_end += u32::from(!target.stopped);
    }
    assert!(to_the_end > 10, "{to_the_end} runs came to their end");
}

/// A leader that has heard no answer sends what it has sent before. A member that has let go of
/// these entries meanwhile cannot compare them any more, which is no reason to take them for
/// others.
#[test]
fn the_first_entries_may_come_again_when_they_are_compacted() {
    let mut target = Target::new(1);
    let founded = target.node.status().last;
    let append = |behind: u64, log_term| raftpb::Message {
        r#type: Some(MessageType::MsgApp as i32),
        from: Some(OTHERS[0]),
        to: Some(ID),
        term: Some(2),
        log_term: Some(log_term),
        index: Some(behind),
        commit: Some(40),
        entries: (behind + 1..=40)
            .map(|index| raftpb::Entry {
                r#type: Some(EntryType::EntryNormal as i32),
                term: Some(if index <= founded { 1 } else { 2 }),
                index: Some(index),
                data: None,
            })
            .collect(),
        ..Default::default()
    };
    target.receive(append(founded, 1));
    assert_eq!(target.node.status().applied, 40);
    target.sent.clear();
    target.receive(append(0, 0));
    assert!(!target.stopped);
    // It says how far it is.
    let [answer] = &target.sent[..] else {
        panic!("{:?}", target.sent)
    };
    assert_eq!((answer.index(), answer.reject()), (40, false));
}

#[test]
fn a_term_from_nowhere_does_not_leave_the_cluster_without_terms() {
    for kind in [
        MessageType::MsgVote,
        MessageType::MsgVoteResp,
        MessageType::MsgPreVoteResp,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResp,
        MessageType::MsgApp,
        MessageType::MsgAppResp,
    ] {
        for term in [u64::MAX, u64::MAX - 1, 1 << 63, 1 << 40] {
            let mut target = Target::new(1);
            target.receive(raftpb::Message {
                r#type: Some(kind as i32),
                from: Some(OTHERS[0]),
                to: Some(ID),
                term: Some(term),
                reject: Some(true),
                ..Default::default()
            });
            let status = target.node.status();
            assert_eq!(status.term, 1, "{kind:?} of term {term}");
            target.elect();
        }
    }
}

#[test]
fn entries_behind_a_gap_are_not_taken() {
    for index in [7, 1 << 40, u64::MAX - 1, u64::MAX] {
        for with_entry in [false, true] {
            let mut target = Target::new(1);
            let last = target.node.status().last;
            let append = raftpb::Message {
                r#type: Some(MessageType::MsgApp as i32),
                from: Some(OTHERS[0]),
                to: Some(ID),
                term: Some(2),
                // Where nothing is, raft-rs finds the term 0.
                log_term: Some(0),
                index: Some(index),
                commit: Some(index),
                entries: with_entry
                    .then(|| raftpb::Entry {
                        r#type: Some(EntryType::EntryNormal as i32),
                        term: Some(2),
                        index: Some(index.wrapping_add(1)),
                        data: None,
                    })
                    .into_iter()
                    .collect(),
                ..Default::default()
            };
            target.receive(append);
            let status = target.node.status();
            assert_eq!(status.last, last, "an append at {index}");
            target.elect();
        }
    }
}
