//! A follower that gets a snapshot while its machine is busy: what it must not do before the
//! machine has taken it over, and what older entries must not undo.

use std::time::Duration;

use retcd_node::bootstrap::{InitialMember, initial_log};
use retcd_node::{Config, Input, Node, Output, Recovered, Role};
use retcd_proto::raftpb::{self, ConfChange, ConfChangeType, MessageType};

const ID: u64 = 1;
const LEADER: u64 = 2;
const LEARNER: u64 = 3;
const TERM: u64 = 5;

/// Members 1 and 2; what is to be applied is held back.
struct Follower {
    node: Node,
    now: Duration,
    restore: bool,
    to_apply: Vec<raftpb::Entry>,
    sent: Vec<raftpb::Message>,
}

impl Follower {
    fn new() -> Follower {
        let members = [ID, LEADER].map(|id| InitialMember {
            id,
            context: b"{}".to_vec(),
        });
        let (hard_state, entries) = initial_log(members.into());
        let config = Config {
            id: ID,
            tick: Duration::from_millis(100),
            election_ticks: 10,
            pre_vote: false,
            snapshot_count: 1000,
            snapshot_catchup_entries: 100,
            log_bytes_in_memory: 0,
            proposal_timeout: Duration::from_secs(7),
            first_read_context: 1,
            seed: 7,
        };
        let conf_state = raftpb::ConfState {
            voters: vec![ID, LEADER],
            ..Default::default()
        };
        let recovered = Recovered {
            applied: 2,
            conf_state,
            hard_state,
            entries,
            ..Recovered::default()
        };
        let mut follower = Follower {
            node: Node::new(config, recovered, Duration::ZERO),
            now: Duration::ZERO,
            restore: false,
            to_apply: vec![],
            sent: vec![],
        };
        follower.act();
        follower
    }

    fn handle(&mut self, input: Input) {
        self.node.handle(self.now, input);
        self.act();
    }

    fn receive(&mut self, kind: MessageType, more: raftpb::Message) {
        let message = raftpb::Message {
            r#type: Some(kind as i32),
            from: Some(LEADER),
            to: Some(ID),
            ..more
        };
        self.handle(Input::Messages(vec![message]));
    }

    /// A snapshot at index 10, in which the learner has its vote.
    fn receive_snapshot(&mut self) {
        let conf_state = raftpb::ConfState {
            voters: vec![ID, LEADER, LEARNER],
            ..Default::default()
        };
        let metadata = raftpb::SnapshotMetadata {
            conf_state: Some(conf_state),
            index: Some(10),
            term: Some(TERM),
        };
        let snapshot = raftpb::Snapshot {
            data: None,
            metadata: Some(metadata),
        };
        let more = raftpb::Message {
            term: Some(TERM),
            snapshot: Some(snapshot),
            ..Default::default()
        };
        self.receive(MessageType::MsgSnap, more);
        assert!(self.restore, "the snapshot was not taken");
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = self.node.poll_timeout();
            self.node.handle_timeout(self.now);
            self.act();
        }
    }

    fn act(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Append(append) => {
                    let number = append.number;
                    self.node.handle(self.now, Input::Appended { number });
                }
                Output::Send(messages) => self.sent.extend(messages),
                Output::Restore(_) => self.restore = true,
                Output::Apply(entries) => self.to_apply.extend(entries),
                _ => {}
            }
        }
    }

    fn applied(&mut self, index: u64, conf_changes: Vec<ConfChange>) {
        self.handle(Input::Applied {
            index,
            conf_changes,
        });
    }
}

#[test]
fn it_does_not_campaign_before_the_snapshot_is_restored() {
    let mut follower = Follower::new();
    follower.receive_snapshot();
    follower.wait(Duration::from_secs(5));
    let now = raftpb::Message {
        term: Some(TERM),
        ..Default::default()
    };
    follower.receive(MessageType::MsgTimeoutNow, now);
    assert_eq!(follower.node.status().term, TERM);

    follower.applied(10, vec![]);
    follower.wait(Duration::from_secs(5));
    assert!(follower.node.status().term > TERM, "it never campaigns");
}

#[test]
fn entries_from_before_the_snapshot_do_not_change_its_configuration() {
    let mut follower = Follower::new();
    let change = ConfChange {
        id: Some(9),
        r#type: Some(ConfChangeType::ConfChangeAddLearnerNode as i32),
        node_id: Some(LEARNER),
        context: None,
    };
    let entry = raftpb::Entry {
        r#type: Some(raftpb::EntryType::EntryConfChange as i32),
        term: Some(TERM),
        index: Some(3),
        data: Some(prost::Message::encode_to_vec(&change).into()),
    };
    let append = raftpb::Message {
        term: Some(TERM),
        log_term: Some(1),
        index: Some(2),
        entries: vec![entry],
        commit: Some(3),
        ..Default::default()
    };
    follower.receive(MessageType::MsgApp, append);
    assert_eq!(follower.to_apply.len(), 1);
    // The machine is slow: the snapshot overtakes what it works on.
    follower.receive_snapshot();
    follower.applied(3, vec![change]);
    follower.applied(10, vec![]);

    follower.wait(Duration::from_secs(5));
    let vote = raftpb::Message {
        term: Some(follower.node.status().term),
        ..Default::default()
    };
    follower.receive(MessageType::MsgVoteResp, vote);
    assert_eq!(follower.node.status().role, Role::Leader);
    let learners = follower
        .node
        .followers()
        .iter()
        .filter(|f| f.is_learner)
        .count();
    assert_eq!(learners, 0, "a promoted member was made a learner again");
}
