//! Three members whose logs and machines do what they are told at once: what they say to each
//! other, and what must not wait.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use retcd_node::bootstrap::{InitialMember, initial_log};
use retcd_node::{Append, Config, Input, Node, Output, Recovered, Role, Standing};
use retcd_proto::raftpb::{self, EntryType, MessageType};

const TICK: Duration = Duration::from_millis(100);

struct Member {
    node: Node,
    applied: Vec<Bytes>,
    /// Appends that a stalled disk holds back.
    held: Option<Vec<Append>>,
    /// Entries that a slow machine has not applied yet.
    unapplied: Option<Vec<raftpb::Entry>>,
    seen: Vec<String>,
}

/// Members 1, 2 and 3, and a network that delivers at once or, from or to those who are cut off,
/// never.
struct Cluster {
    now: Duration,
    members: BTreeMap<u64, Member>,
    cut_off: Vec<u64>,
    sent: Vec<(u64, u64, MessageType)>,
}

impl Cluster {
    fn new() -> Cluster {
        let members = [1, 2, 3].map(|id| {
            let members = [1, 2, 3].map(|id| InitialMember {
                id,
                context: b"{}".to_vec(),
            });
            let (hard_state, entries) = initial_log(members.into());
            let config = Config {
                id,
                tick: TICK,
                election_ticks: 10,
                pre_vote: true,
                snapshot_count: 1000,
                snapshot_catchup_entries: 100,
                proposal_timeout: Duration::from_secs(7),
                first_read_context: id << 48,
                seed: id,
            };
            let recovered = Recovered {
                hard_state,
                entries,
                ..Recovered::default()
            };
            let member = Member {
                node: Node::new(config, recovered, Duration::ZERO),
                applied: vec![],
                held: None,
                unapplied: None,
                seen: vec![],
            };
            (id, member)
        });
        let mut cluster = Cluster {
            now: Duration::ZERO,
            members: members.into(),
            cut_off: vec![],
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
            self.now += TICK;
            let now = self.now;
            for member in self.members.values_mut() {
                member.node.handle_timeout(now);
            }
            self.settle();
        }
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
        self.members.get_mut(&id).expect("members 1 to 3")
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
                for message in messages {
                    let to = message.to();
                    self.sent.push((id, to, message.r#type()));
                    if !self.cut_off.contains(&id) && !self.cut_off.contains(&to) {
                        let input = Input::Messages(vec![message]);
                        self.member(to).node.handle(now, input);
                    } else if message.r#type() == MessageType::MsgProp {
                        let input = Input::Undelivered(message.entries);
                        self.member(id).node.handle(now, input);
                    }
                }
            }
            Output::Apply(entries) => match &mut self.member(id).unapplied {
                Some(unapplied) => unapplied.extend(entries),
                None => self.apply(id, &entries),
            },
            Output::ReadReady { reads, leads } => {
                let part = if leads { "leader" } else { "follower" };
                self.member(id).seen.push(format!("{part} read {reads:?}"));
            }
            Output::Rejected { requests, reason } => {
                let seen = format!("rejected {requests:?} {reason:?}");
                self.member(id).seen.push(seen);
            }
            Output::ReadRejected { .. } | Output::Leader(_) | Output::Inspected { .. } => {}
            Output::Restore(_) | Output::SnapshotDue { .. } | Output::Contradiction(_) => {
                panic!("unexpected {output:?}")
            }
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
        let mut cluster = Cluster::new();
        cluster.run_until("an election", |cluster| cluster.leader().is_some());
        let leader = cluster.leader().expect("just seen");
        let mut others = [1, 2, 3].into_iter().filter(|id| *id != leader);
        let others = [(); 2].map(|()| others.next().expect("two others"));
        (cluster, leader, others)
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
        (1..=3).for_each(|_| cluster.run_until("a tick", |_| true));
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
    let heard = |context: u64| raftpb::Message {
        r#type: Some(MessageType::MsgHeartbeatResp as i32),
        from: Some(follower),
        to: Some(leader),
        term: Some(cluster.members[&leader].node.status().term),
        context: Some(Bytes::copy_from_slice(&context.to_be_bytes())),
        ..Default::default()
    };
    let heard = (0..1000).map(heard).collect();
    cluster.sent.clear();
    cluster.handle(leader, Input::Messages(heard));
    let appends = (leader, follower, MessageType::MsgApp);
    let count = cluster.sent.iter().filter(|sent| **sent == appends).count();
    assert_eq!(count, 1, "of {:?}", cluster.sent.len());
    // And it still counts as there, and for reads.
    cluster.cut_off = vec![other];
    cluster.handle(leader, Input::Read { read: 5 });
    cluster.run_until("a read", |cluster| {
        cluster.members[&leader].seen == ["leader read [5]"]
    });
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
