//! Three members, and a few more, whose logs and machines do what they are told at once: what they
//! say to each other, and what must not wait.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use retcd_node::bootstrap::{InitialMember, initial_log};
use retcd_node::{Append, Config, Input, Node, Output, Recovered, Role, Standing};
use retcd_proto::raftpb::{self, EntryType, MessageType};

const TICK: Duration = Duration::from_millis(100);

struct Member {
    node: Node,
    /// What its log has.
    log: BTreeMap<u64, raftpb::Entry>,
    /// The first of the entries that were read from the log, each time.
    log_reads: Vec<u64>,
    applied: Vec<Bytes>,
    /// Appends that a stalled disk holds back.
    held: Option<Vec<Append>>,
    /// Entries that a slow machine has not applied yet.
    unapplied: Option<Vec<raftpb::Entry>>,
    /// As its owner was last told.
    alone_from: Option<u64>,
    seen: Vec<String>,
}

impl Member {
    fn new(id: u64, recovered: Recovered, now: Duration) -> Member {
        let config = Config {
            id,
            tick: TICK,
            election_ticks: 10,
            pre_vote: true,
            snapshot_count: 1000,
            snapshot_catchup_entries: 100,
            log_bytes_in_memory: 0,
            proposal_timeout: Duration::from_secs(7),
            first_read_context: id << 48,
            seed: id,
        };
        let entries = recovered.entries.iter();
        Member {
            log: entries.map(|e| (e.index(), e.clone())).collect(),
            log_reads: vec![],
            node: Node::new(config, recovered, now),
            applied: vec![],
            held: None,
            unapplied: None,
            alone_from: None,
            seen: vec![],
        }
    }
}

/// Members 1, 2 and 3, or more, and a network that delivers at once or, from or to those who are
/// cut off, never.
struct Cluster {
    now: Duration,
    members: BTreeMap<u64, Member>,
    cut_off: Vec<u64>,
    /// What does not arrive.
    lost: Option<MessageType>,
    /// What is lost from so many reads of a log on.
    lost_from_read: Option<(usize, MessageType)>,
    sent: Vec<(u64, u64, MessageType)>,
}

impl Cluster {
    fn new() -> Cluster {
        Cluster::of(3)
    }

    fn of(voters: u64) -> Cluster {
        let members = (1..=voters).map(|id| {
            let members = (1..=voters).map(|id| InitialMember {
                id,
                context: b"{}".to_vec(),
            });
            let (hard_state, entries) = initial_log(members.collect());
            let recovered = Recovered {
                hard_state,
                entries,
                ..Recovered::default()
            };
            (id, Member::new(id, recovered, Duration::ZERO))
        });
        let mut cluster = Cluster {
            now: Duration::ZERO,
            members: members.collect(),
            cut_off: vec![],
            lost: None,
            lost_from_read: None,
            sent: vec![],
        };
        cluster.settle();
        cluster
    }

    fn leader(&self) -> Option<u64> {
        let leads = |member: &Member| member.node.status().role == Role::Leader;
        let leaders = self.members.iter().filter(|(_, member)| leads(member));
        leaders
            .max_by_key(|(_, member)| member.node.status().term)
            .map(|(id, _)| *id)
    }

    /// Lets time pass until `done`.
    fn run_until(&mut self, what: &str, done: impl Fn(&Cluster) -> bool) {
        let limit = self.now + Duration::from_secs(20);
        while !done(self) {
            assert!(self.now < limit, "{what}: not within 20 s");
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.now += TICK;
        let now = self.now;
        for member in self.members.values_mut() {
            member.node.handle_timeout(now);
        }
        self.settle();
    }

    fn handle(&mut self, id: u64, input: Input) {
        let now = self.now;
        self.member(id).node.handle(now, input);
        self.settle();
    }

    fn propose(&mut self, id: u64, data: &'static str) {
        self.handle(
            id,
            Input::Propose {
                request: 7,
                data: Bytes::from_static(data.as_bytes()),
                leads_in: None,
            },
        );
    }

    fn member(&mut self, id: u64) -> &mut Member {
        self.members.get_mut(&id).expect("a member")
    }

    fn applied(&self, id: u64, data: &str) -> bool {
        self.members[&id].applied.iter().any(|entry| entry == data)
    }

    /// Works off outputs until nobody has any.
    fn settle(&mut self) {
        while self.step() {}
    }

    fn step(&mut self) -> bool {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        let mut progressed = false;
        for id in ids {
            while let Some(output) = self.member(id).node.poll_output() {
                progressed = true;
                self.act(id, output);
            }
        }
        progressed
    }

    fn act(&mut self, id: u64, output: Output) {
        let now = self.now;
        match output {
            Output::Append(append) => {
                let member = self.member(id);
                for entry in &append.entries {
                    member.log.split_off(&entry.index());
                    member.log.insert(entry.index(), entry.clone());
                }
                match &mut member.held {
                    Some(held) => held.push(append),
                    None => member.node.handle(
                        now,
                        Input::Appended {
                            number: append.number,
                        },
                    ),
                }
            }
            Output::Send(messages) => {
                let alone_from = self.members[&id].alone_from;
                assert_eq!(alone_from, None, "to others: {messages:?}");
                for message in messages {
                    let to = message.to();
                    self.sent.push((id, to, message.r#type()));
                    let is_cut = self.cut_off.contains(&id) || self.cut_off.contains(&to);
                    if !is_cut && self.lost != Some(message.r#type()) {
                        let input = Input::Messages(vec![message]);
                        self.member(to).node.handle(now, input);
                    } else if message.r#type() == MessageType::MsgProp {
                        let input = Input::Undelivered(message.entries);
                        self.member(id).node.handle(now, input);
                    }
                }
            }
            Output::ReadLog(wanted) => {
                let member = self.member(id);
                member.log_reads.push(wanted.first);
                let count = member.log_reads.len();
                if let Some((_, kind)) = self.lost_from_read.take_if(|(at, _)| *at == count) {
                    self.lost = Some(kind);
                }
                let member = self.member(id);
                let mut bytes = 0;
                let entries = member.log.range(wanted.first..wanted.end);
                let entries = entries.map(|(_, entry)| entry).take_while(|entry| {
                    let before = bytes;
                    bytes += entry.data().len();
                    before < wanted.bytes_max
                });
                let (first, entries) = (wanted.first, entries.cloned().collect());
                member.node.handle(now, Input::LogRead { first, entries });
            }
            Output::Apply(entries) => match &mut self.member(id).unapplied {
                Some(unapplied) => unapplied.extend(entries),
                None => self.apply(id, &entries),
            },
            Output::ReadReady { reads, leads_in } => {
                let term = self.member(id).node.status().term;
                assert!(leads_in.is_none_or(|leads_in| leads_in == term));
                let leads = leads_in.is_some();
                let part = if leads { "leader" } else { "follower" };
                self.member(id).seen.push(format!("{part} read {reads:?}"));
            }
            Output::Rejected { requests, reason } => {
                let seen = format!("rejected {requests:?} {reason:?}");
                self.member(id).seen.push(seen);
            }
            Output::Leader(told) => self.member(id).alone_from = told.alone_from,
            Output::ReadRejected { .. } | Output::Inspected { .. } => {}
            Output::SnapshotDue { index } => {
                let snapshotted = Input::Snapshotted { index, bytes: 0 };
                self.member(id).node.handle(now, snapshotted);
            }
            Output::Restore(snapshot) => {
                let metadata = snapshot.metadata.expect("a snapshot has its place");
                let restored = Input::Applied {
                    index: metadata.index(),
                    conf_changes: vec![],
                };
                self.member(id).node.handle(now, restored);
            }
            Output::Contradiction(_) => panic!("unexpected {output:?}"),
        }
    }

    fn apply(&mut self, id: u64, entries: &[raftpb::Entry]) {
        let now = self.now;
        let mut conf_changes = vec![];
        for entry in entries {
            if entry.r#type() == EntryType::EntryConfChange {
                conf_changes.push(prost::Message::decode(entry.data()).expect("a change"));
            }
            self.member(id).applied.extend(entry.data.clone());
        }
        let index = entries.last().expect("an apply is never empty").index();
        self.member(id).node.handle(
            now,
            Input::Applied {
                index,
                conf_changes,
            },
        );
    }

    fn with_leader() -> (Cluster, u64, [u64; 2]) {
        Cluster::of(3).elect()
    }

    /// Waits for a leader; names it and the others.
    fn elect<const N: usize>(mut self) -> (Cluster, u64, [u64; N]) {
        self.run_until("an election", |cluster| cluster.leader().is_some());
        let leader = self.leader().expect("just seen");
        let others = self.members.keys().filter(|id| **id != leader);
        let others: Vec<u64> = others.copied().collect();
        (self, leader, others.try_into().expect("so many others"))
    }

    /// Adds a learner, which has everything soon.
    fn add_learner(&mut self, leader: u64, id: u64) {
        let change = raftpb::ConfChange {
            id: Some(id),
            r#type: Some(raftpb::ConfChangeType::ConfChangeAddLearnerNode as i32),
            node_id: Some(id),
            context: Some("{}".into()),
        };
        let learner = Member::new(id, Recovered::default(), self.now);
        self.members.insert(id, learner);
        let request = id;
        self.handle(leader, Input::ProposeConfChange { request, change });
        self.propose(leader, "a learner");
        self.run_until("the learner", |cluster| cluster.applied(id, "a learner"));
    }

    /// Hands the leader answers of `from` to heartbeats of long ago, and says how often it was sent
    /// something for them.
    fn answer_old_heartbeats(&mut self, from: u64, leader: u64, what: MessageType) -> usize {
        let term = self.members[&leader].node.status().term;
        let heard = (0..1000u64).map(|context| raftpb::Message {
            r#type: Some(MessageType::MsgHeartbeatResp as i32),
            from: Some(from),
            to: Some(leader),
            term: Some(term),
            context: Some(Bytes::copy_from_slice(&context.to_be_bytes())),
            ..Default::default()
        });
        let heard = heard.collect();
        self.sent.clear();
        self.handle(leader, Input::Messages(heard));
        let sent = self.sent.iter();
        sent.filter(|sent| **sent == (leader, from, what)).count()
    }
}

#[test]
fn proposals_and_reads_of_followers_go_through_the_leader() {
    let (mut cluster, _, [follower, _]) = Cluster::with_leader();
    cluster.propose(follower, "a");
    for id in 1..=3 {
        assert!(cluster.applied(id, "a"), "at {id}");
    }
    cluster.handle(follower, Input::Read { read: 5 });
    assert_eq!(cluster.members[&follower].seen, ["follower read [5]"]);
}

/// A leader has none of what it has applied in memory here.
#[test]
fn a_follower_that_is_behind_gets_entries_from_the_log() {
    let (mut cluster, leader, [follower, other]) = Cluster::with_leader();
    cluster.cut_off.push(follower);
    let count = 300;
    for number in 0..count {
        let data = Bytes::from(vec![number as u8; 100_000]);
        let request = Input::Propose {
            request: 7,
            data,
            leads_in: None,
        };
        cluster.handle(leader, request);
    }
    cluster.propose(leader, "the last one");
    assert_eq!(
        cluster.members[&other].applied.len(),
        cluster.members[&leader].applied.len()
    );
    assert!(
        cluster.members[&leader].log_reads.len() <= 1,
        "nobody else is behind"
    );

    // What it was sent and has not acknowledged is not followed by more.
    cluster.member(leader).log_reads.clear();
    cluster.cut_off.clear();
    cluster.lost_from_read = Some((2, MessageType::MsgAppResp));
    for _ in 0..5 {
        cluster.tick();
    }
    let reads = |cluster: &Cluster| cluster.members[&leader].log_reads.clone();
    assert_eq!(reads(&cluster).len(), 2, "{:?}", reads(&cluster));
    cluster.lost = None;
    cluster.sent.clear();
    cluster.run_until("the follower to catch up", |cluster| {
        cluster.applied(follower, "the last one")
    });
    let of_members = [leader, follower].map(|id| cluster.members[&id].applied.clone());
    assert_eq!(of_members[0], of_members[1]);
    // Each stretch of four mebibytes is read about once.
    let reads = reads(&cluster);
    assert!((7..20).contains(&reads.len()), "{reads:?}");
    let snapshots = cluster
        .sent
        .iter()
        .filter(|sent| sent.2 == MessageType::MsgSnap);
    assert_eq!(snapshots.count(), 0);
}

#[test]
fn a_follower_gets_a_snapshot_if_the_log_does_not_reach_back() {
    let (mut cluster, leader, [follower, _]) = Cluster::with_leader();
    cluster.cut_off.push(follower);
    for _ in 0..20 {
        cluster.propose(leader, "missed");
    }
    cluster.member(leader).log.clear();
    cluster.cut_off.clear();
    cluster.run_until("the follower to catch up", |cluster| {
        let applied = |id| cluster.members[&id].node.status().applied;
        applied(follower) == applied(leader)
    });
    let sent = cluster.sent.iter();
    let snapshots = sent.filter(|sent| **sent == (leader, follower, MessageType::MsgSnap));
    assert_eq!(snapshots.count(), 1);
    cluster.propose(leader, "then entries");
    assert!(cluster.applied(follower, "then entries"));
}

#[test]
fn whether_a_member_leads_is_for_a_quorum_to_say() {
    let (mut cluster, leader, [follower, _]) = Cluster::with_leader();
    cluster.handle(follower, Input::ConfirmLeader { read: 5 });
    assert_eq!(cluster.members[&follower].seen, ["follower read [5]"]);
    cluster.handle(leader, Input::ConfirmLeader { read: 6 });
    assert_eq!(cluster.members[&leader].seen, ["leader read [6]"]);
    // Another one leads, and it does not know.
    cluster.cut_off.push(leader);
    cluster.run_until("another leader", |cluster| {
        cluster.leader().is_some_and(|id| id != leader)
    });
    cluster.member(leader).seen.clear();
    cluster.handle(leader, Input::ConfirmLeader { read: 7 });
    let seen = &cluster.members[&leader].seen;
    assert!(!seen.contains(&"leader read [7]".to_owned()), "{seen:?}");
}

#[test]
fn an_inspection_is_of_the_moment() {
    let (mut cluster, leader, [follower, other]) = Cluster::with_leader();
    let standing = |cluster: &Cluster, of| cluster.members[&leader].node.inspection().standing(of);
    assert_eq!(standing(&cluster, follower), Standing::InSync);
    assert_eq!(standing(&cluster, 4), Standing::NotFound);
    cluster.cut_off.push(other);
    for _ in 0..20 {
        cluster.propose(leader, "a");
    }
    assert_eq!(standing(&cluster, follower), Standing::InSync);
    assert!(matches!(standing(&cluster, other), Standing::Behind { .. }));
    cluster.cut_off.clear();
    cluster.run_until("the other to catch up", |cluster| {
        cluster.applied(other, "a")
    });
    assert_eq!(standing(&cluster, other), Standing::InSync);
    let inspection = cluster.members[&follower].node.inspection();
    assert_eq!(inspection.standing(other), Standing::NotLeader);
}

#[test]
fn changes_of_the_membership_of_every_kind_are_logged_as_etcd_writes_them() {
    use raftpb::ConfChangeType::*;
    let (mut cluster, leader, [follower, _]) = Cluster::with_leader();
    // Nobody is there.
    cluster.cut_off.push(4);
    let kinds = [
        (ConfChangeAddLearnerNode, 4),
        (ConfChangeUpdateNode, 4),
        (ConfChangeAddNode, 4),
        (ConfChangeRemoveNode, 4),
    ];
    for (number, proposer) in (100u64..).zip([leader, follower]) {
        for (kind, node_id) in kinds {
            let is_learner = kind == ConfChangeAddLearnerNode;
            let context = format!(r#"{{"id":{node_id},"isLearner":{is_learner}}}"#);
            let change = raftpb::ConfChange {
                id: Some(number),
                r#type: Some(kind as i32),
                node_id: Some(node_id),
                context: Some(context.into()),
            };
            let logged = Bytes::from(prost::Message::encode_to_vec(&change));
            let request = number;
            cluster.handle(proposer, Input::ProposeConfChange { request, change });
            let seen = |id: u64| cluster.members[&id].applied.contains(&logged);
            assert!((1..=3).all(seen), "{kind:?} from {proposer}");
        }
    }
    assert!(cluster.members[&follower].seen.is_empty());
}

/// Followers may have applied a change, and answered for it, before their leader has.
#[test]
fn a_change_of_the_membership_waits_until_the_leader_has_applied_the_one_before() {
    use raftpb::ConfChangeType::*;
    let (mut cluster, leader, [first, second]) = Cluster::with_leader();
    cluster.cut_off.push(4);
    cluster.member(leader).unapplied = Some(vec![]);
    let mut propose = |proposer, kind, context: &str| {
        let change = raftpb::ConfChange {
            id: Some(proposer),
            r#type: Some(kind as i32),
            node_id: Some(4),
            context: Some(context.to_owned().into()),
        };
        let logged = Bytes::from(prost::Message::encode_to_vec(&change));
        let request = proposer;
        cluster.handle(proposer, Input::ProposeConfChange { request, change });
        logged
    };
    let added = propose(
        first,
        ConfChangeAddLearnerNode,
        r#"{"id":4,"isLearner":true}"#,
    );
    let updated = propose(second, ConfChangeUpdateNode, r#"{"id":4}"#);
    let applied = |cluster: &Cluster, data| cluster.members[&second].applied.contains(data);
    assert!(applied(&cluster, &added) && !applied(&cluster, &updated));
    let unapplied = cluster.member(leader).unapplied.take();
    cluster.apply(leader, &unapplied.expect("it was slow"));
    cluster.settle();
    assert!(applied(&cluster, &updated));
}

#[test]
fn members_that_found_each_other_need_not_wait_for_a_whole_timeout() {
    let elected = |skip: bool| {
        let mut cluster = Cluster::new();
        for id in 1..=3 {
            if skip {
                cluster.handle(id, Input::SkipElectionTicks);
            }
        }
        cluster.run_until("an election", |cluster| cluster.leader().is_some());
        // With a leader there is nothing to skip.
        let term = |cluster: &Cluster| cluster.members[&1].node.status().term;
        let before = term(&cluster);
        (1..=3).for_each(|id| cluster.handle(id, Input::SkipElectionTicks));
        (1..=3).for_each(|_| cluster.tick());
        assert_eq!(term(&cluster), before);
        cluster.now
    };
    assert_eq!(elected(true) + 8 * TICK, elected(false));
}

#[test]
fn proposals_that_do_not_get_to_a_dead_leader_go_to_the_next_one() {
    let (mut cluster, leader, [follower, other]) = Cluster::with_leader();
    cluster.cut_off.push(leader);
    cluster.propose(follower, "a");
    assert!(!cluster.applied(follower, "a"));
    cluster.run_until("the proposal", |cluster| cluster.applied(follower, "a"));
    assert!(cluster.applied(other, "a"));
    assert!(
        cluster.now < Duration::from_secs(5),
        "{:?} is more than an election or two",
        cluster.now
    );
    let times = cluster.members[&follower].applied.iter();
    assert_eq!(times.filter(|entry| **entry == "a").count(), 1);
    assert!(cluster.members[&follower].seen.is_empty());
}

#[test]
fn heartbeats_and_reads_do_not_wait_for_a_disk() {
    let (mut cluster, leader, [follower, other]) = Cluster::with_leader();
    cluster.member(follower).held = Some(vec![]);
    cluster.propose(leader, "a");
    assert!(cluster.applied(leader, "a"), "two of three have it");
    assert!(!cluster.applied(follower, "a"));
    // The third is gone, so every confirmation must come from the one whose disk stalls.
    cluster.cut_off.push(other);
    cluster.handle(leader, Input::Read { read: 9 });
    assert_eq!(cluster.members[&leader].seen, ["leader read [9]"]);
    let term = cluster.members[&leader].node.status().term;
    let until = cluster.now + Duration::from_secs(5);
    cluster.run_until("five seconds", |cluster| cluster.now >= until);
    let status = cluster.members[&leader].node.status();
    assert_eq!((status.role, status.term), (Role::Leader, term));
}

#[test]
fn a_leader_whose_disk_stalls_hands_over() {
    let (mut cluster, leader, _) = Cluster::with_leader();
    cluster.member(leader).held = Some(vec![]);
    cluster.propose(leader, "a");
    cluster.run_until("another leader", |cluster| {
        cluster.leader().is_some_and(|id| id != leader)
    });
    assert!(cluster.sent.contains(&(
        leader,
        cluster.leader().expect("just seen"),
        MessageType::MsgTimeoutNow
    )));
}

/// A follower that was stopped for a while answers all heartbeats of that time at once.
#[test]
fn a_follower_that_answers_many_heartbeats_at_once_is_sent_its_entries_once() {
    let (mut cluster, leader, [other, follower]) = Cluster::with_leader();
    cluster.cut_off.push(follower);
    for _ in 0..100 {
        cluster.propose(leader, "a");
    }
    cluster.handle(leader, Input::Unreachable { peer: follower });
    let appends = cluster.answer_old_heartbeats(follower, leader, MessageType::MsgApp);
    assert_eq!(appends, 1, "of {:?}", cluster.sent.len());
    // And it still counts as there, and for reads.
    cluster.cut_off = vec![other];
    cluster.handle(leader, Input::Read { read: 5 });
    cluster.run_until("a read", |cluster| {
        cluster.members[&leader].seen == ["leader read [5]"]
    });
}

/// However many reads there are between two ticks: each needs the answers of two others.
#[test]
fn of_five_members_three_confirm_each_read() {
    let (mut cluster, leader, [one, two, three, four]) = Cluster::of(5).elect();
    cluster.propose(leader, "a");
    cluster.cut_off = vec![three, four];
    for read in 1..=50 {
        cluster.handle(leader, Input::Read { read });
    }
    let confirmed: Vec<String> = (1..=50)
        .map(|read| format!("leader read [{read}]"))
        .collect();
    assert_eq!(cluster.members[&leader].seen, confirmed);
    cluster.cut_off.push(two);
    cluster.handle(leader, Input::Read { read: 51 });
    assert_eq!(
        cluster.members[&leader].seen.len(),
        50,
        "{one} alone answers"
    );
}

#[test]
fn a_learner_is_sent_its_entries_once_and_confirms_nothing() {
    let (mut cluster, leader, [one, two]) = Cluster::with_leader();
    let learner = 4;
    cluster.add_learner(leader, learner);
    cluster.cut_off = vec![learner];
    (0..100).for_each(|_| cluster.propose(leader, "a"));
    cluster.handle(leader, Input::Unreachable { peer: learner });
    let appends = cluster.answer_old_heartbeats(learner, leader, MessageType::MsgApp);
    assert_eq!(appends, 1);
    cluster.cut_off = vec![one, two];
    cluster.handle(leader, Input::Read { read: 5 });
    assert!(cluster.members[&leader].seen.is_empty(), "it has no vote");
    cluster.cut_off.clear();
    cluster.run_until("the learner", |cluster| cluster.applied(learner, "a"));
    cluster.run_until("the read", |cluster| {
        cluster.members[&leader].seen == ["leader read [5]"]
    });
}

#[test]
fn a_follower_that_waits_for_a_snapshot_is_sent_nothing_else_and_confirms_reads() {
    let (mut cluster, leader, [other, follower]) = Cluster::with_leader();
    cluster.cut_off = vec![follower];
    cluster.handle(leader, Input::SnapshotWanted);
    (0..300).for_each(|_| cluster.propose(leader, "a"));
    cluster.handle(leader, Input::SnapshotWanted);
    cluster.propose(leader, "b");
    cluster.lost = Some(MessageType::MsgSnap);
    cluster.cut_off.clear();
    let snapshot = (leader, follower, MessageType::MsgSnap);
    cluster.run_until("a snapshot", |cluster| cluster.sent.contains(&snapshot));
    for what in [MessageType::MsgApp, MessageType::MsgSnap] {
        assert_eq!(cluster.answer_old_heartbeats(follower, leader, what), 0);
        cluster.tick();
    }
    cluster.cut_off = vec![other];
    for read in [5, 6] {
        cluster.handle(leader, Input::Read { read });
    }
    let seen = ["leader read [5]", "leader read [6]"];
    assert_eq!(cluster.members[&leader].seen, seen);
    // Its sender tells that it did not arrive.
    cluster.lost = None;
    let failed = Input::SnapshotSent {
        peer: follower,
        delivered: false,
    };
    cluster.handle(leader, failed);
    cluster.propose(leader, "c");
    cluster.run_until("the last entry", |cluster| cluster.applied(follower, "c"));
}

#[test]
fn an_acknowledgement_waits_for_the_disk() {
    let (mut cluster, leader, [follower, other]) = Cluster::with_leader();
    cluster.cut_off.push(other);
    cluster.member(follower).held = Some(vec![]);
    cluster.propose(leader, "a");
    assert!(!cluster.applied(leader, "a"), "only the leader has it");
    let held = cluster.member(follower).held.take().expect("held above");
    for append in held {
        let number = append.number;
        cluster.handle(follower, Input::Appended { number });
    }
    assert!(cluster.applied(leader, "a"));
}

#[test]
fn leadership_goes_where_it_is_sent_and_proposals_wait_meanwhile() {
    let (mut cluster, leader, [follower, other]) = Cluster::with_leader();
    cluster.cut_off.push(follower);
    cluster.handle(leader, Input::TransferLeader { to: follower });
    cluster.propose(leader, "a");
    cluster.propose(other, "b");
    assert!(!cluster.applied(leader, "a") && !cluster.applied(leader, "b"));
    cluster.cut_off.clear();
    cluster.run_until("the proposals", |cluster| {
        cluster.applied(leader, "a") && cluster.applied(leader, "b")
    });
    assert!(cluster.members[&leader].seen.is_empty());
}

/// What a leader decides holds in its term only: its successor may know better.
#[test]
fn what_a_leader_has_decided_does_not_go_to_the_next_one() {
    let (mut cluster, leader, [next, other]) = Cluster::with_leader();
    let term = cluster.members[&leader].node.status().term;
    let decide = |cluster: &mut Cluster, id, data: &'static str| {
        let input = Input::Propose {
            request: 9,
            data: Bytes::from_static(data.as_bytes()),
            leads_in: Some(term),
        };
        cluster.handle(id, input);
    };
    decide(&mut cluster, leader, "in time");
    decide(&mut cluster, next, "of a follower");
    // The next one has to catch up first.
    cluster.cut_off.push(next);
    cluster.propose(leader, "before");
    cluster.handle(leader, Input::TransferLeader { to: next });
    decide(&mut cluster, leader, "while it hands over");
    cluster.cut_off.clear();
    cluster.run_until("the next leader", |cluster| cluster.leader() == Some(next));
    cluster.propose(leader, "after");
    for (data, applied) in [
        ("in time", true),
        ("of a follower", false),
        ("while it hands over", false),
        ("after", true),
    ] {
        assert_eq!(cluster.applied(other, data), applied, "{data}");
    }
    for id in [leader, next] {
        let seen = &cluster.members[&id].seen;
        let rejected = "rejected [9] LeaderChanged".to_owned();
        assert!(seen.contains(&rejected), "{seen:?}");
    }
}

#[test]
fn the_same_seeds_give_the_same_conversation() {
    let run = || {
        let (mut cluster, leader, [follower, _]) = Cluster::with_leader();
        cluster.propose(follower, "a");
        cluster.cut_off.push(leader);
        cluster.propose(follower, "b");
        cluster.run_until("the second", |cluster| cluster.applied(follower, "b"));
        cluster.sent
    };
    assert_eq!(run(), run());
}

#[test]
fn a_leader_that_is_removed_hands_over() {
    let (mut cluster, leader, others) = Cluster::with_leader();
    let change = raftpb::ConfChange {
        id: Some(9),
        r#type: Some(raftpb::ConfChangeType::ConfChangeRemoveNode as i32),
        node_id: Some(leader),
        context: None,
    };
    // What is behind the change must not end the process that leads no more.
    let now = cluster.now;
    let request = 9;
    let removal = Input::ProposeConfChange { request, change };
    cluster.member(leader).node.handle(now, removal);
    cluster.propose(leader, "a");
    let follows = |cluster: &Cluster, id| {
        let status = cluster.members[&id].node.status();
        status.role == Role::Follower
    };
    cluster.run_until("another leader", |cluster| {
        follows(cluster, leader) && cluster.leader().is_some()
    });
    assert!(
        cluster.now <= now + TICK * 3,
        "an election timeout has passed"
    );
    let next = cluster.leader().unwrap();
    assert!(others.contains(&next));
    cluster.propose(next, "b");
    for id in others {
        assert!(cluster.applied(id, "b"), "at {id}");
    }
}

/// Whoever is alone answers reads by itself. It must have been told that it is not, before another
/// member hears of anything, be it a learner.
#[test]
fn a_member_is_alone_until_there_is_another() {
    use raftpb::ConfChangeType::{
        ConfChangeAddLearnerNode, ConfChangeAddNode, ConfChangeRemoveNode,
    };
    for kind in [ConfChangeAddLearnerNode, ConfChangeAddNode] {
        let (mut cluster, alone, []) = Cluster::of(1).elect();
        let change = |kind| raftpb::ConfChange {
            id: Some(9),
            r#type: Some(kind as i32),
            node_id: Some(2),
            context: Some("{}".into()),
        };
        let change = |cluster: &mut Cluster, kind| {
            let (request, change) = (9, change(kind));
            cluster.handle(alone, Input::ProposeConfChange { request, change });
        };
        cluster.propose(alone, "a");
        let first = cluster.members[&alone].alone_from.expect("it is alone");
        let status = cluster.members[&alone].node.status();
        assert!(first <= status.applied, "{first}, {status:?}");

        // While the change is committed, but not applied, nobody else is told anything.
        let other = Member::new(2, Recovered::default(), cluster.now);
        cluster.members.insert(2, other);
        cluster.member(alone).unapplied = Some(vec![]);
        change(&mut cluster, kind);
        assert_eq!(cluster.members[&alone].alone_from, Some(first));
        let unapplied = cluster.member(alone).unapplied.take().unwrap();
        cluster.apply(alone, &unapplied);
        cluster.settle();
        assert_eq!(cluster.members[&alone].alone_from, None);
        cluster.run_until("the other to have it", |cluster| cluster.applied(2, "a"));
        cluster.propose(alone, "b");
        assert_eq!(cluster.members[&alone].alone_from, None);
        let committed = cluster.members[&alone].node.status().committed;
        assert_eq!(cluster.leader(), Some(alone));

        change(&mut cluster, ConfChangeRemoveNode);
        cluster.propose(alone, "c");
        let again = cluster.members[&alone].alone_from;
        let again = again.expect("it is alone again");
        assert!(again >= committed, "{again}, {committed}");
    }
}
