//! A member alone: what it asks of the log and the machine, and in which order.
//!
//! The driver plays log and machine by hand, so that a test can hold back an acknowledgement and
//! see that nothing is promised before it.

use std::time::Duration;

use bytes::Bytes;
use retcd_node::bootstrap::{InitialMember, initial_log};
use retcd_node::{Append, Config, Input, Node, Output, Recovered, RejectReason};
use retcd_proto::raftpb;

const ID: u64 = 0xa1;

fn config() -> Config {
    Config {
        id: ID,
        tick: Duration::from_millis(100),
        election_ticks: 10,
        pre_vote: true,
        snapshot_count: 5,
        snapshot_catchup_entries: 2,
        log_bytes_in_memory: 0,
        proposal_timeout: Duration::from_secs(7),
        first_read_context: 1,
        seed: 7,
    }
}

/// A log and a machine that do what they are told, at once.
struct Driver {
    node: Node,
    log: Vec<raftpb::Entry>,
    hard_state: raftpb::HardState,
    applied: Vec<(u64, Bytes)>,
    seen: Vec<String>,
    hold_appends: bool,
    held: Vec<Append>,
}

/// What the log starts behind.
#[derive(Default)]
struct Snapshot {
    index: u64,
    term: u64,
    conf_state: raftpb::ConfState,
}

impl Driver {
    fn new_cluster() -> Driver {
        let (hard_state, entries) = initial_log(vec![InitialMember {
            id: ID,
            context: b"{}".to_vec(),
        }]);
        Driver::start(Snapshot::default(), hard_state, entries)
    }

    fn start(snapshot: Snapshot, hard_state: raftpb::HardState, log: Vec<raftpb::Entry>) -> Driver {
        let entries = log
            .iter()
            .filter(|entry| entry.index() > snapshot.index)
            .cloned()
            .collect();
        let Snapshot {
            index,
            term,
            conf_state,
        } = snapshot;
        let recovered = Recovered {
            snapshot: (index, term),
            applied: index,
            conf_state,
            hard_state,
            entries,
            ..Recovered::default()
        };
        let node = Node::new(config(), recovered, Duration::ZERO);
        let mut driver = Driver {
            node,
            log,
            hard_state,
            applied: vec![],
            seen: vec![],
            hold_appends: false,
            held: vec![],
        };
        driver.pump();
        driver
    }

    fn handle(&mut self, input: Input) {
        self.node.handle(Duration::ZERO, input);
        self.pump();
    }

    fn propose(&mut self, request: u64, data: &'static str) {
        self.handle(Input::Propose {
            request,
            data: Bytes::from_static(data.as_bytes()),
            leads_in: None,
        });
    }

    fn pump(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Append(append) if self.hold_appends => self.held.push(append),
                Output::Append(append) => self.append(append),
                Output::Apply(entries) => self.apply(&entries),
                Output::ReadReady { reads, .. } => self
                    .seen
                    .push(format!("read {reads:?} at {}", self.applied.len())),
                Output::Rejected { requests, reason } => {
                    self.seen.push(format!("rejected {requests:?} {reason:?}"))
                }
                Output::ReadRejected { reads, reason } => {
                    self.seen.push(format!("no read {reads:?} {reason:?}"))
                }
                Output::Leader(info) => {
                    let alone = info.alone_from.map(|from| format!(" alone from {from}"));
                    let alone = alone.unwrap_or_default();
                    let (leader, term) = (info.leader, info.term);
                    self.seen
                        .push(format!("leader {leader:x} term {term}{alone}"));
                }
                Output::Send(_) => {} // Lost on the way.
                Output::Inspected { .. }
                | Output::ReadLog(_)
                | Output::Restore(_)
                | Output::Contradiction(_) => {
                    panic!("{output:?}")
                }
                Output::SnapshotDue { index } => {
                    self.seen.push(format!("snapshot {index}"));
                    self.node
                        .handle(Duration::ZERO, Input::Snapshotted { index, bytes: 0 });
                }
            }
        }
    }

    fn append(&mut self, append: Append) {
        assert!(
            append.must_sync || append.entries.is_empty(),
            "entries are always synced"
        );
        if let Some(first) = append.entries.first() {
            self.log.retain(|entry| entry.index() < first.index());
        }
        self.log.extend(append.entries);
        self.hard_state = append.hard_state.unwrap_or(self.hard_state);
        self.node.handle(
            Duration::ZERO,
            Input::Appended {
                number: append.number,
            },
        );
    }

    fn release(&mut self) {
        self.hold_appends = false;
        for append in std::mem::take(&mut self.held) {
            self.append(append);
        }
        self.pump();
    }

    fn apply(&mut self, entries: &[raftpb::Entry]) {
        let mut conf_changes = vec![];
        for entry in entries {
            if entry.r#type() == raftpb::EntryType::EntryConfChange {
                conf_changes.push(prost::Message::decode(entry.data()).expect("an encoded change"));
            }
            self.applied
                .push((entry.index(), entry.data.clone().unwrap_or_default()));
        }
        let index = entries.last().expect("an apply is never empty").index();
        self.node.handle(
            Duration::ZERO,
            Input::Applied {
                index,
                conf_changes,
            },
        );
    }
}

#[test]
fn a_new_member_elects_itself_without_waiting() {
    let driver = Driver::new_cluster();
    let told = ["leader a1 term 2", "leader a1 term 2 alone from 2"];
    assert_eq!(driver.seen, told);
    // The leader's empty entry follows the initial membership.
    assert_eq!(
        driver
            .applied
            .iter()
            .map(|(index, _)| *index)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(
        (driver.hard_state.term(), driver.hard_state.vote()),
        (2, ID)
    );
}

#[test]
fn nothing_is_applied_before_it_is_durable() {
    let mut driver = Driver::new_cluster();
    driver.hold_appends = true;
    driver.propose(1, "a");
    driver.propose(2, "b");
    assert_eq!(
        driver.applied.len(),
        2,
        "an entry was applied before the log acknowledged it"
    );
    driver.release();
    assert_eq!(
        driver.applied[2..],
        [(3, Bytes::from("a")), (4, Bytes::from("b"))]
    );
}

#[test]
fn a_read_does_not_make_durable_what_the_log_has_not_acknowledged() {
    let mut driver = Driver::new_cluster();
    driver.hold_appends = true;
    driver.propose(1, "a");
    driver.handle(Input::Read { read: 9 });
    assert_eq!(driver.seen.last().unwrap(), "read [9] at 2");
    assert_eq!(
        driver.applied.len(),
        2,
        "an entry was applied before the log acknowledged it"
    );
    driver.release();
    assert_eq!(driver.applied[2..], [(3, Bytes::from("a"))]);
}

#[test]
fn reads_wait_for_what_is_committed_but_not_for_the_disk() {
    let mut driver = Driver::new_cluster();
    driver.propose(1, "a");
    driver.hold_appends = true;
    driver.propose(2, "b");
    driver.handle(Input::Read { read: 9 });
    // "b" is not acknowledged to anyone, so the read need not show it, nor wait for it.
    assert_eq!(driver.seen.last().unwrap(), "read [9] at 3");
}

#[test]
fn reads_of_a_turn_share_one_context() {
    let mut driver = Driver::new_cluster();
    driver.node.handle(Duration::ZERO, Input::Read { read: 1 });
    driver.node.handle(Duration::ZERO, Input::Read { read: 2 });
    driver.pump();
    assert_eq!(driver.seen.last().unwrap(), "read [1, 2] at 2");
}

#[test]
fn without_a_leader_proposals_wait_until_their_time_is_over() {
    let members = [ID, 0xb2].map(|id| InitialMember {
        id,
        context: vec![],
    });
    let (hard_state, entries) = initial_log(members.into());
    let mut driver = Driver::start(Snapshot::default(), hard_state, entries);
    driver.propose(1, "a");
    driver.handle(Input::Read { read: 2 });
    assert!(driver.seen.is_empty(), "{:?}", driver.seen);
    // Ticks pass one by one, as the owner calls whenever `poll_timeout` says so.
    let rejected = format!("rejected [1] {:?}", RejectReason::NoLeader);
    while !driver.seen.contains(&rejected) {
        let now = driver.node.poll_timeout();
        assert!(now <= Duration::from_secs(8), "never rejected");
        driver.node.handle_timeout(now);
        driver.pump();
    }
    assert!(driver.node.poll_timeout() >= Duration::from_secs(7));
}

#[test]
fn a_restart_replays_the_log_behind_the_snapshot() {
    let mut driver = Driver::new_cluster();
    for request in 0..4 {
        driver.propose(request, "x");
    }
    assert!(
        driver.seen.contains(&"snapshot 6".to_owned()),
        "{:?}",
        driver.seen
    );
    driver.propose(9, "last");
    let conf_state = raftpb::ConfState {
        voters: vec![ID],
        ..Default::default()
    };
    let snapshot = Snapshot {
        index: 6,
        term: 2,
        conf_state,
    };
    let restarted = Driver::start(snapshot, driver.hard_state, driver.log.clone());
    let replayed: Vec<u64> = restarted.applied.iter().map(|(index, _)| *index).collect();
    assert_eq!(
        replayed,
        [7, 8],
        "the tail, then the new leader's empty entry"
    );
    assert_eq!(restarted.applied[0].1, "last");
    assert_eq!(restarted.hard_state.term(), 3);
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let run = || {
        let mut driver = Driver::new_cluster();
        for request in 0..20 {
            driver.propose(request, "x");
            driver.handle(Input::Read { read: request });
        }
        (driver.seen, driver.applied, driver.log)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_snapshot_that_is_wanted_does_not_wait_for_the_count() {
    let snapshots = |driver: &Driver| {
        let seen = driver.seen.iter();
        seen.filter(|seen| seen.starts_with("snapshot")).count()
    };
    let mut driver = Driver::new_cluster();
    driver.handle(Input::SnapshotWanted);
    assert_eq!(snapshots(&driver), 0, "there is nothing new to stand for");
    driver.propose(1, "x");
    assert!(
        driver.seen.contains(&"snapshot 3".to_owned()),
        "{:?}",
        driver.seen
    );
    driver.propose(2, "y");
    assert_eq!(snapshots(&driver), 1);
}
