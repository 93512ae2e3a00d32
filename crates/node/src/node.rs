//! The member's decisions: raft, proposals, linearizable reads, snapshot points.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb;
use raft::eraftpb::MessageType;
use raft::{
    Config as RaftConfig, ProgressState, RawNode, ReadOnlyOption, SnapshotStatus, StateRole,
};
use retcd_proto::raftpb;

use crate::event::{
    Append, Config, Follower, Input, LeaderInfo, Output, Recovered, RejectReason, ReplicationState,
    Role, Status,
};
use crate::inspection::Inspection;
use crate::log_reads::LogReads;
use crate::log_store::LogStore;
use crate::message_check::{self, Verdict};
use crate::proposals::ProposalQueue;
use crate::raft_log::RaftLog;
use crate::raft_types::{
    conf_change_to_raft, conf_state_to_raft, entry_from_raft, entry_to_raft, hard_state_from_raft,
    hard_state_to_raft, message_from_raft, message_to_raft, snapshot_from_raft,
};
use crate::reads::{Read, ReadQueue};
use crate::snapshot_rule::SnapshotRule;
use crate::unpersisted::{Decision, Unpersisted};

/// Committed entries handed to the machine at once; bounds the memory of one batch.
const APPLY_BATCH_BYTES_MAX: u64 = 4 << 20;
/// Entries in one message, as in etcd.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Messages on their way to a follower that streams, as in etcd.
const MESSAGES_IN_FLIGHT_MAX: usize = 512;
/// A read that raft dropped (no leader yet, a lost heartbeat) is asked for again after this time,
/// as etcd does.
const READ_RETRY: Duration = Duration::from_millis(500);
/// Reads of followers that wait for a new leader's first commit. Each stands for a batch.
const EARLY_READS_MAX: usize = 1024;

/// One member.
pub struct Node {
    raw: RawNode<LogStore>,
    config: Config,
    outputs: VecDeque<Output>,
    proposals: ProposalQueue,
    reads: ReadQueue,
    unpersisted: Unpersisted,
    /// Followers' reads that came before this leader could answer them.
    early_reads: Vec<eraftpb::Message>,
    /// The followers that have answered a heartbeat since the last tick.
    heard: BTreeSet<u64>,
    /// For followers that are far behind.
    log_reads: LogReads,
    /// What the owner was last told.
    leader: LeaderInfo,
    now: Duration,
    next_tick: Duration,
    applied: u64,
    /// The newest index that the machine was told to apply or to restore. Invariant:
    /// `applied <= handed_out`.
    handed_out: u64,
    /// Index of the newest snapshot, durable or under way.
    snapshot_index: u64,
    /// Whether the next one is due whatever the rule says.
    snapshot_wanted: bool,
    snapshot_rule: SnapshotRule,
    /// A leader that proposals did not get to, and until when to leave it alone.
    unreachable_leader: (u64, Duration),
    /// When leadership was last offered because of the disk.
    transferred_at: Option<Duration>,
    /// Who is to lead in place of this member, which was removed.
    successor: Option<u64>,
    /// The election timeout in force, in ticks, and the term and role that it was drawn for.
    election_timeout: (usize, Option<(u64, StateRole)>),
    random: u64,
}

impl Node {
    /// A member that continues from what its log held.
    ///
    /// # Panics
    /// When the log contradicts itself, which the log's reader has ruled out.
    pub fn new(config: Config, recovered: Recovered, now: Duration) -> Node {
        let (index, term) = recovered.snapshot;
        assert!(
            index <= recovered.applied,
            "the log begins behind {index}, applied is {}",
            recovered.applied
        );
        let mut hard_state = hard_state_to_raft(&recovered.hard_state);
        // What was applied was committed, although the last note of it may not have reached the
        // disk.
        hard_state.commit = hard_state.commit.max(recovered.applied);
        let entries = recovered.entries.iter().map(entry_to_raft).collect();
        let conf_state = conf_state_to_raft(&recovered.conf_state);
        let earlier = recovered.earlier;
        let mut store = LogStore::new(index, term, hard_state, conf_state, earlier, entries);
        store.set_applied(recovered.applied);
        store.shrink_to_bytes(config.log_bytes_in_memory);
        let election_ticks = config.election_ticks as usize;
        let raft_config = RaftConfig {
            id: config.id,
            election_tick: election_ticks,
            heartbeat_tick: 1,
            applied: recovered.applied,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: config.pre_vote,
            read_only_option: ReadOnlyOption::Safe,
            max_committed_size_per_ready: APPLY_BATCH_BYTES_MAX,
            ..RaftConfig::default()
        };
        let logger = slog::Logger::root(RaftLog { id: config.id }, slog::o!());
        let raw = RawNode::new(&raft_config, store, &logger)
            .expect("the configuration is valid: ids and ticks are checked before");
        let mut node = Node {
            raw,
            outputs: VecDeque::new(),
            proposals: ProposalQueue::default(),
            reads: ReadQueue::new(config.first_read_context),
            unpersisted: Unpersisted::default(),
            early_reads: Vec::new(),
            heard: BTreeSet::new(),
            log_reads: LogReads::new(config.tick * config.election_ticks),
            leader: LeaderInfo {
                leader: 0,
                term: recovered.hard_state.term(),
                role: Role::Follower,
                transferee: 0,
                alone_from: None,
            },
            now,
            next_tick: now + config.tick,
            applied: recovered.applied,
            handed_out: recovered.applied,
            snapshot_index: index,
            snapshot_wanted: false,
            snapshot_rule: SnapshotRule::default(),
            unreachable_leader: (0, Duration::ZERO),
            transferred_at: None,
            successor: None,
            election_timeout: (0, None),
            random: scramble(config.seed),
            config,
        };
        node.campaign_if_alone();
        node.hold_election_timeout();
        node
    }

    /// Takes in an event; never blocks, never fails.
    pub fn handle(&mut self, now: Duration, input: Input) {
        self.advance_time(now);
        match input {
            Input::Propose {
                request,
                data,
                leads_in,
            } => self.push_proposal(request, raftpb::EntryType::EntryNormal, data, leads_in),
            Input::ProposeConfChange { request, change } => {
                let data = change.encode_to_vec().into();
                self.push_proposal(request, raftpb::EntryType::EntryConfChange, data, None);
            }
            Input::Read { read } => self.reads.push(Read::applied(read)),
            Input::ConfirmLeader { read } if self.leads() => self.reads.push(Read::at_once(read)),
            Input::ConfirmLeader { read } => self.answer_reads(vec![read]),
            Input::Messages(messages) => {
                for message in &messages {
                    self.handle_message(message);
                    self.hold_election_timeout();
                }
            }
            Input::Undelivered(entries) => self.handle_undelivered(&entries),
            Input::SkipElectionTicks => self.skip_election_ticks(),
            Input::Unreachable { peer } => self.raw.report_unreachable(peer),
            Input::SnapshotSent { peer, delivered } => self.raw.report_snapshot(
                peer,
                match delivered {
                    true => SnapshotStatus::Finish,
                    false => SnapshotStatus::Failure,
                },
            ),
            Input::Inspect { request } => self.inspect(request),
            Input::TransferLeader { to } => self.transfer_leader(to),
            Input::Appended { number } => self.handle_persisted(number),
            Input::LogRead { first, entries } => {
                self.log_reads.finish(&mut self.raw, first, &entries);
            }
            Input::Applied {
                index,
                conf_changes,
            } => self.handle_applied(index, &conf_changes),
            Input::SnapshotWanted => self.snapshot_wanted = true,
            Input::Snapshotted { index, bytes } => self.handle_snapshotted(index, bytes),
        }
        self.hold_election_timeout();
    }

    /// Lets time pass when nothing else happens.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.advance_time(now);
    }

    /// The next thing that the outside must do; `None` until there is another input.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.turn();
        }
        self.outputs.pop_front()
    }

    /// When to call [`Node::handle_timeout`] if nothing happens before.
    pub fn poll_timeout(&self) -> Duration {
        self.next_tick
    }

    /// Where the member stands.
    pub fn status(&self) -> Status {
        let raft = &self.raw.raft;
        let (applied, committed) = (self.applied, raft.raft_log.committed);
        assert!(
            applied <= committed && committed <= raft.raft_log.last_index(),
            "applied {applied}, committed {committed}, last {}",
            raft.raft_log.last_index()
        );
        Status {
            term: raft.term,
            vote: raft.vote,
            leader: raft.leader_id,
            role: role_of(raft.state),
            committed: raft.raft_log.committed,
            applied: self.applied,
            last: raft.raft_log.last_index(),
            transferee: raft.lead_transferee.unwrap_or(0),
        }
    }

    /// Where it and its followers stand.
    pub fn inspection(&self) -> Inspection {
        Inspection {
            status: self.status(),
            followers: self.followers(),
        }
    }

    /// What a leader knows of the members, ascending by id; empty for who does not lead.
    pub fn followers(&self) -> Vec<Follower> {
        if !self.leads() {
            return Vec::new();
        }
        let voters = self.raw.raft.prs().conf().voters();
        let mut followers: Vec<Follower> = self
            .raw
            .raft
            .prs()
            .iter()
            .map(|(id, progress)| Follower {
                id: *id,
                is_learner: !voters.contains(*id),
                matched: progress.matched,
                next: progress.next_idx,
                state: match progress.state {
                    ProgressState::Probe => ReplicationState::Probe,
                    ProgressState::Replicate => ReplicationState::Replicate,
                    ProgressState::Snapshot => ReplicationState::Snapshot,
                },
                recent_active: progress.recent_active || *id == self.config.id,
            })
            .collect();
        followers.sort_unstable_by_key(|follower| follower.id);
        followers
    }

    fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// The term in which this member leads, if it does.
    fn leads_in(&self) -> Option<u64> {
        self.leads().then_some(self.raw.raft.term)
    }

    /// Whether this member has a vote.
    fn is_voter(&self) -> bool {
        let voters = self.raw.raft.prs().conf().voters();
        voters.contains(self.config.id)
    }

    /// The index of the newest snapshot that a leader sent, if it is not restored yet; else an
    /// index that is applied.
    fn installed_index(&self) -> u64 {
        self.raw.store().compacted_index()
    }

    /// Whether the machine has not restored yet what the log starts with. Raft looks through all
    /// entries that are not applied before it campaigns, and ends the process if some are not
    /// there.
    fn is_restoring(&self) -> bool {
        self.installed_index() > self.applied
    }

    fn advance_time(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while self.next_tick <= self.now {
            self.next_tick += self.config.tick;
            self.tick();
            // After a long pause (a stopped process) the missed ticks mean nothing: one is enough.
            if self.next_tick + self.config.tick * self.config.election_ticks < self.now {
                self.next_tick = self.now + self.config.tick;
            }
        }
        let (next, now) = (self.next_tick, self.now);
        assert!(now < next, "the next tick was due at {next:?}, at {now:?}");
    }

    /// Leaves two ticks of the shortest election timeout, as etcd does.
    fn skip_election_ticks(&mut self) {
        let raft = &mut self.raw.raft;
        if raft.leader_id == 0 && raft.state == StateRole::Follower {
            raft.election_elapsed += self.config.election_ticks.saturating_sub(2) as usize;
        }
    }

    fn tick(&mut self) {
        // Alone, raft would lead at once, with entries that the log does not have yet.
        let alone = self.raw.raft.prs().is_singleton();
        self.heard.clear();
        let may_campaign = !self.is_restoring() && (!alone || self.unpersisted.is_empty());
        if may_campaign || self.leads() {
            self.raw.tick();
        }
        self.hold_election_timeout();
        self.transfer_if_disk_stalls();
        self.ask_successor_to_campaign();
        let requests = self.proposals.expired(self.now);
        self.reject(requests, RejectReason::NoLeader);
    }

    fn reject(&mut self, mut requests: Vec<u64>, reason: RejectReason) {
        requests.retain(|request| *request != 0);
        if !requests.is_empty() {
            self.outputs
                .push_back(Output::Rejected { requests, reason });
        }
    }

    fn push_proposal(
        &mut self,
        request: u64,
        kind: raftpb::EntryType,
        data: Bytes,
        leads_in: Option<u64>,
    ) {
        let entry = entry_to_raft(&raftpb::Entry {
            r#type: Some(kind as i32),
            data: Some(data),
            ..Default::default()
        });
        let deadline = self.now + self.config.proposal_timeout;
        if let Err(reason) = self.proposals.push(request, entry, deadline, leads_in) {
            self.reject(vec![request], reason);
        }
    }

    fn handle_message(&mut self, message: &raftpb::Message) {
        let Some(message) = message_to_raft(message) else {
            return;
        };
        let raft = &self.raw.raft;
        let view = message_check::View {
            id: self.config.id,
            term: raft.term,
            leads: raft.state == StateRole::Leader,
            committed: raft.raft_log.committed,
            last: raft.raft_log.last_index(),
        };
        // Where raft has no entry, it says that the term is 0.
        let held = raft.raft_log.first_index() - 1..=view.last;
        let term_at = |index| {
            let term = || raft.raft_log.term(index).ok();
            held.contains(&index).then(term).flatten()
        };
        match message_check::check(&message, &view, term_at) {
            Verdict::Drop => {}
            Verdict::Stop(contradiction) => {
                self.outputs.push_back(Output::Contradiction(contradiction))
            }
            Verdict::Step if message.get_msg_type() == MessageType::MsgReadIndex => {
                self.handle_read_of_follower(message);
            }
            Verdict::Step if message.get_msg_type() == MessageType::MsgPropose => {
                self.handle_proposals_of_follower(message);
            }
            Verdict::Step if message.get_msg_type() == MessageType::MsgHeartbeatResponse => {
                self.handle_heartbeat_response(message);
            }
            Verdict::Step
                if message.get_msg_type() == MessageType::MsgTimeoutNow && self.is_restoring() => {}
            // An error means that raft has no use for it: from a member that is gone, or a proposal
            // without a leader. Whoever sent it will notice.
            Verdict::Step => drop(self.raw.step(message)),
        }
    }

    /// raft-rs drops reads that come before a leader's first commit; here they wait for it, as in
    /// etcd.
    fn handle_read_of_follower(&mut self, message: eraftpb::Message) {
        if self.can_read() {
            let _ = self.raw.step(message);
        } else if self.leads() && self.early_reads.len() < EARLY_READS_MAX {
            self.early_reads.push(message);
        }
    }

    /// Raft sends a follower that is behind up to a mebibyte of entries for each heartbeat that it
    /// answers, the same ones until it has acknowledged some. One that was stopped for a while
    /// answers thousands at once, each read's among them, and a leader that sent all that would do
    /// nothing else. So raft gets to know of one answer a tick, and of those that a read waits for:
    /// few, as each thread of a member has one question under way, and none once a quorum has
    /// answered. One a tick is what raft counts on: it tells that the follower is there, and that
    /// what was lost has to be sent again. A learner's answer is no vote, and a follower that waits
    /// for a snapshot is sent nothing, whatever it answers.
    fn handle_heartbeat_response(&mut self, message: eraftpb::Message) {
        let raft = &self.raw.raft;
        let read = raft.read_only.pending_read_index.get(&message.context[..]);
        let is_awaited = read.is_some_and(|read| !read.acks.contains(&message.from));
        let is_of_another_term = message.term != raft.term;
        if self.heard.insert(message.from) || is_awaited || is_of_another_term {
            let _ = self.raw.step(message);
        }
    }

    /// While leadership is being handed over, followers' proposals wait like our own, and so do
    /// their changes of the membership until the one before is applied here: raft loses one that
    /// comes sooner, though whoever sent it may have applied the other already. The name 0 stands
    /// for nobody here.
    fn handle_proposals_of_follower(&mut self, mut message: eraftpb::Message) {
        let entries = message.entries.iter();
        let changes_members = entries
            .map(eraftpb::Entry::get_entry_type)
            .any(|kind| kind == eraftpb::EntryType::EntryConfChange);
        let is_leaving = self.raw.raft.lead_transferee.is_some();
        let must_wait = is_leaving || (changes_members && self.leads());
        if !must_wait {
            let _ = self.raw.step(message);
            return;
        }
        let deadline = self.now + self.config.proposal_timeout;
        for entry in message.take_entries() {
            // If too many wait, it is lost like a message.
            let _ = self.proposals.push(0, entry, deadline, None);
        }
    }

    /// Proposals that did not get to the leader go to the next one, or again to this one after a
    /// while. The name 0 stands for whoever waits for them.
    fn handle_undelivered(&mut self, entries: &[raftpb::Entry]) {
        self.unreachable_leader = (self.raw.raft.leader_id, self.now + self.config.tick);
        let deadline = self.now + self.config.proposal_timeout;
        for entry in entries {
            let _ = self.proposals.push(0, entry_to_raft(entry), deadline, None);
        }
    }

    /// One round through raft: batches in, at most one `Ready` out.
    fn turn(&mut self) {
        self.propose();
        self.ask_for_reads();
        self.hold_election_timeout();
        self.report_leader();
        let wanted = self.log_reads.begin(&mut self.raw, self.now);
        self.outputs.extend(wanted.into_iter().map(Output::ReadLog));
        if !self.raw.has_ready() {
            return;
        }
        let mut ready = self.raw.ready();
        self.confirm_reads(ready.take_read_states());
        let snapshot = self.install(ready.snapshot());
        let entries = ready.take_entries();
        self.raw.mut_store().append(&entries);
        let append = Append {
            number: ready.number(),
            snapshot: snapshot.as_ref().map(snapshot_from_raft),
            hard_state: ready.hs().map(hard_state_from_raft),
            must_sync: ready.must_sync(),
            entries: entries.iter().map(entry_from_raft).collect(),
        };
        let committed = ready.take_committed_entries();
        let now = ready.take_messages();
        let (later, at_once) = split_promises(ready.take_persisted_messages());
        self.raw.advance_append_async(ready);
        self.send(now);
        self.send(at_once);
        let writes =
            snapshot.is_some() || append.hard_state.is_some() || !append.entries.is_empty();
        self.unpersisted.push(Decision {
            number: append.number,
            writes,
            at: self.now,
            messages: later,
            snapshot,
        });
        if writes {
            self.outputs.push_back(Output::Append(append));
        }
        if !committed.is_empty() {
            self.hand_out(&committed);
            for entry in &committed {
                self.snapshot_rule.add_entry(entry.data.len());
            }
            self.outputs.push_back(Output::Apply(
                committed.iter().map(entry_from_raft).collect(),
            ));
        }
        // What needs no write is persisted if everything before it is.
        self.handle_persisted(0);
    }

    /// The machine gets each committed entry once, in order, and none that the log may lose.
    fn hand_out(&mut self, committed: &[eraftpb::Entry]) {
        let raft_log = &self.raw.raft.raft_log;
        let (durable, agreed) = (raft_log.persisted, raft_log.committed);
        for entry in committed {
            let (before, index) = (self.handed_out, entry.index);
            assert_eq!(index, before + 1, "what follows {before}, to be applied");
            assert!(
                index <= agreed && index <= durable,
                "{index} is to be applied, committed {agreed}, durable {durable}"
            );
            self.handed_out = index;
        }
    }

    /// The log has everything up to `number`: what was promised on that condition may be said.
    fn handle_persisted(&mut self, number: u64) {
        let decisions = self.unpersisted.take_through(number);
        let Some(last) = decisions.last() else { return };
        self.raw.on_persist_ready(last.number);
        for decision in decisions {
            if let Some(snapshot) = &decision.snapshot {
                self.outputs
                    .push_back(Output::Restore(snapshot_from_raft(snapshot)));
            }
            self.send(decision.messages);
        }
        self.campaign_if_alone();
    }

    fn send(&mut self, messages: Vec<eraftpb::Message>) {
        if !messages.is_empty() {
            self.outputs.push_back(Output::Send(
                messages.iter().map(message_from_raft).collect(),
            ));
        }
    }

    /// A leader sent a snapshot: our log starts anew behind it.
    fn install(&mut self, snapshot: &eraftpb::Snapshot) -> Option<eraftpb::Snapshot> {
        if snapshot.is_empty() {
            return None;
        }
        let metadata = snapshot.get_metadata();
        self.raw.mut_store().install(metadata);
        let (before, index) = (self.handed_out, metadata.index);
        assert!(before < index, "a snapshot at {index} over {before}");
        self.handed_out = index;
        self.snapshot_index = metadata.index;
        Some(snapshot.clone())
    }

    /// Hands waiting requests to raft, unless it would refuse them now.
    fn propose(&mut self) {
        let outdated = self.proposals.outdated(self.leads_in());
        self.reject(outdated, RejectReason::LeaderChanged);
        while !self.proposals.is_empty() {
            let raft = &self.raw.raft;
            let (unreachable, until) = self.unreachable_leader;
            let avoid = raft.leader_id == unreachable && self.now < until && !self.leads();
            if raft.leader_id == 0 || raft.lead_transferee.is_some() || avoid {
                return;
            }
            // A leader makes one change of the membership after the other.
            let hold_conf_changes = self.leads() && raft.has_pending_conf();
            let (requests, entries) = self.proposals.next_batch(hold_conf_changes);
            if requests.is_empty() {
                return;
            }
            let mut message = eraftpb::Message::default();
            message.set_msg_type(MessageType::MsgPropose);
            message.from = self.config.id;
            message.entries = entries.into();
            if self.raw.step(message).is_err() {
                self.reject(requests, RejectReason::NoLeader);
            }
        }
    }

    fn ask_for_reads(&mut self) {
        if !self.can_read() {
            return;
        }
        for message in std::mem::take(&mut self.early_reads) {
            let _ = self.raw.step(message);
        }
        if self.reads.must_ask(self.now, READ_RETRY) {
            let context = self.reads.open_context(self.now, READ_RETRY);
            self.raw.read_index(context.to_be_bytes().to_vec());
        }
    }

    /// A leader answers reads only after it has committed an entry of its own term, and only while
    /// it is a member: raft-rs would take a removed leader beside a single voter for a quorum.
    fn can_read(&self) -> bool {
        let raft = &self.raw.raft;
        match raft.state {
            StateRole::Leader => raft.commit_to_current_term() && self.is_voter(),
            _ => raft.leader_id != 0,
        }
    }

    fn confirm_reads(&mut self, states: Vec<raft::ReadState>) {
        for state in states {
            if let Ok(context) = <[u8; 8]>::try_from(state.request_ctx.as_slice()) {
                self.reads.confirm(u64::from_be_bytes(context), state.index);
            }
        }
        self.release_reads();
    }

    fn release_reads(&mut self) {
        let reads = self.reads.release(self.applied);
        self.answer_reads(reads);
    }

    fn answer_reads(&mut self, reads: Vec<u64>) {
        if !reads.is_empty() {
            self.report_leader();
            let leads_in = self.leads_in();
            self.outputs
                .push_back(Output::ReadReady { reads, leads_in });
        }
    }

    fn report_leader(&mut self) {
        let raft = &self.raw.raft;
        let leader = LeaderInfo {
            leader: raft.leader_id,
            term: raft.term,
            role: role_of(raft.state),
            transferee: raft.lead_transferee.unwrap_or(0),
            alone_from: self.alone_from(),
        };
        if leader == self.leader {
            return;
        }
        if leader.role != Role::Leader {
            self.early_reads.clear();
        }
        let reads = if self.leader.leader != 0 && leader.leader != self.leader.leader {
            self.reads.take_in_flight()
        } else {
            Vec::new()
        };
        self.leader = leader;
        self.outputs.push_back(Output::Leader(leader));
        if !reads.is_empty() {
            self.outputs.push_back(Output::ReadRejected {
                reads,
                reason: RejectReason::LeaderChanged,
            });
        }
    }

    /// See [`LeaderInfo::alone_from`]. It is taken back before anything is said that follows from
    /// another term or configuration.
    fn alone_from(&self) -> Option<u64> {
        let raft = &self.raw.raft;
        // A learner acknowledges nothing, but answers whoever waits at it for what is committed.
        let others = raft.prs().iter().any(|(id, _)| *id != self.config.id);
        let is_alone = self.leads() && self.can_read() && !others;
        let before = self.leader.alone_from;
        let before = before.filter(|_| self.leader.term == raft.term);
        is_alone.then(|| before.unwrap_or(raft.raft_log.committed))
    }

    fn handle_applied(&mut self, index: u64, conf_changes: &[raftpb::ConfChange]) {
        assert!(
            index >= self.applied,
            "applied went back from {} to {index}",
            self.applied
        );
        let handed_out = self.handed_out;
        assert!(
            index <= handed_out,
            "{index} is applied, handed out are entries up to {handed_out}"
        );
        // While a snapshot waits to be restored, raft has its configuration, which is newer than
        // these entries.
        let conf_changes = match index < self.installed_index() {
            true => &[],
            false => conf_changes,
        };
        for change in conf_changes.iter().filter_map(conf_change_to_raft) {
            let conf_state = self
                .raw
                .apply_conf_change(&change)
                .expect("the machine accepted the change, so raft can make it");
            self.raw.mut_store().set_conf_state(conf_state);
        }
        if self.leads() && !self.is_voter() {
            self.step_down();
        }
        self.applied = index;
        self.raw.mut_store().set_applied(index);
        self.raw.advance_apply_to(index);
        let bytes_max = self.config.log_bytes_in_memory;
        self.raw.mut_store().shrink_to_bytes(bytes_max);
        self.release_reads();
        self.campaign_if_alone();
        self.snapshot_if_due();
    }

    /// The only voter need not wait for an election timeout: there is nobody to hear from. It leads
    /// at once, so the log must have everything.
    fn campaign_if_alone(&mut self) {
        let raft = &self.raw.raft;
        let alone = raft.prs().is_singleton() && raft.promotable() && self.unpersisted.is_empty();
        if alone && raft.leader_id == 0 && raft.state == StateRole::Follower {
            // An error means that raft will try again at the election timeout.
            let _ = self.raw.campaign();
        }
    }

    /// A leader that was removed, or has no vote any more, follows: raft-rs ends the process when
    /// such a leader commits or persists anything. At the next tick it asks the most advanced voter
    /// to take over.
    fn step_down(&mut self) {
        let voters = self
            .followers()
            .into_iter()
            .filter(|other| !other.is_learner);
        let best = voters.max_by_key(|voter| (voter.recent_active, voter.matched));
        self.successor = best.map(|voter| voter.id);
        let term = self.raw.raft.term;
        self.raw.raft.become_follower(term, raft::INVALID_ID);
    }

    /// Not at once: who has not applied the removal yet may not campaign.
    fn ask_successor_to_campaign(&mut self) {
        if let Some(successor) = self.successor.take()
            && self.raw.raft.leader_id == raft::INVALID_ID
        {
            let mut message = eraftpb::Message::default();
            message.set_msg_type(MessageType::MsgTimeoutNow);
            (message.from, message.to) = (self.config.id, successor);
            message.term = self.raw.raft.term;
            self.send(vec![message]);
        }
    }

    /// What was decided before is told before.
    fn inspect(&mut self, request: u64) {
        self.report_leader();
        let inspection = self.inspection();
        self.outputs.push_back(Output::Inspected {
            request,
            inspection,
        });
    }

    fn transfer_leader(&mut self, to: u64) {
        if self.leads() && to != self.config.id {
            self.raw.transfer_leader(to);
        }
    }

    /// A leader commits with its followers' disks, but answers clients only when its own log has
    /// the entries. If that takes longer than an election, another one leads better.
    fn transfer_if_disk_stalls(&mut self) {
        let patience = self.config.tick * self.config.election_ticks;
        let stalled = self
            .unpersisted
            .waiting_since()
            .is_some_and(|since| self.now >= since + patience);
        let offered = self
            .transferred_at
            .is_some_and(|at| self.now < at + patience);
        if !self.leads() || !stalled || offered {
            return;
        }
        let persisted = self.raw.raft.raft_log.persisted;
        let best = self
            .followers()
            .into_iter()
            .filter(|follower| follower.id != self.config.id && !follower.is_learner)
            .filter(|follower| follower.recent_active && follower.matched > persisted)
            .max_by_key(|follower| follower.matched);
        if let Some(best) = best {
            self.transferred_at = Some(self.now);
            self.raw.transfer_leader(best.id);
        }
    }

    fn snapshot_if_due(&mut self) {
        let entries = self.applied.saturating_sub(self.snapshot_index);
        let is_due = match self.snapshot_wanted {
            true => entries > 0,
            false => self
                .snapshot_rule
                .is_due(entries, self.config.snapshot_count),
        };
        if !is_due {
            return;
        }
        self.snapshot_wanted = false;
        self.snapshot_rule.begin();
        let (before, index) = (self.snapshot_index, self.applied);
        assert!(before < index, "a snapshot at {index} over {before}");
        self.snapshot_index = index;
        self.outputs.push_back(Output::SnapshotDue { index });
    }

    /// Lets the oldest entries go, but not those that a follower will need as soon as the snapshot
    /// arrives that is on its way: it would need the next one at once.
    fn handle_snapshotted(&mut self, index: u64, bytes: u64) {
        self.snapshot_rule.written(bytes);
        let applied = self.applied;
        assert!(index <= applied, "a snapshot at {index}, applied {applied}");
        self.snapshot_index = self.snapshot_index.max(index);
        let keep = self.config.snapshot_catchup_entries;
        let progress = self.raw.raft.prs().iter();
        let on_their_way = progress
            .filter(|(_, progress)| progress.state == ProgressState::Snapshot)
            .map(|(_, progress)| progress.pending_snapshot);
        let up_to = on_their_way.fold(index.saturating_sub(keep), u64::min);
        self.raw.mut_store().compact(up_to);
    }

    /// raft-rs draws anew from the thread's generator whenever term or role change, and at other
    /// times; ours comes from the seed and changes with term and role only, so that a run repeats.
    fn hold_election_timeout(&mut self) {
        let current = (self.raw.raft.term, self.raw.raft.state);
        if self.election_timeout.1 != Some(current) {
            // xorshift64 (Marsaglia 2003); quality does not matter here, repeatability does.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            assert_ne!(self.random, 0, "xorshift never leaves 0");
            let ticks = u64::from(self.config.election_ticks);
            let drawn = ticks + self.random % ticks;
            self.election_timeout = (drawn as usize, Some(current));
        }
        let ticks = self.election_timeout.0;
        if self.raw.raft.randomized_election_timeout() != ticks {
            self.raw.raft.set_randomized_election_timeout(ticks);
        }
    }
}

/// Neighbouring seeds must not draw alike, or their members would stand for election together for
/// ever (splitmix64, Steele 2014). Never 0, which xorshift cannot leave.
fn scramble(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) | 1
}

fn role_of(state: StateRole) -> Role {
    match state {
        StateRole::Leader => Role::Leader,
        StateRole::PreCandidate => Role::PreCandidate,
        StateRole::Candidate => Role::Candidate,
        StateRole::Follower => Role::Follower,
    }
}

/// Splits a follower's messages: those that promise something that must survive a loss of power
/// (votes, acknowledged entries, a candidacy, which is a vote for oneself) and those that promise
/// nothing and so never wait for the disk. Of several acknowledgements for one leader the last says
/// it all.
fn split_promises(
    messages: Vec<eraftpb::Message>,
) -> (Vec<eraftpb::Message>, Vec<eraftpb::Message>) {
    let (mut promises, at_once): (Vec<_>, Vec<_>) = messages.into_iter().partition(|message| {
        !matches!(
            message.get_msg_type(),
            MessageType::MsgHeartbeatResponse
                | MessageType::MsgPropose
                | MessageType::MsgReadIndex
                | MessageType::MsgReadIndexResp
                | MessageType::MsgRequestPreVote
                | MessageType::MsgRequestPreVoteResponse
        )
    });
    let acknowledges =
        |message: &eraftpb::Message| message.get_msg_type() == MessageType::MsgAppendResponse;
    if let Some(last) = promises.iter().rposition(acknowledges) {
        let to = promises[last].to;
        let mut position = 0;
        promises.retain(|message| {
            position += 1;
            position > last || message.to != to || !acknowledges(message)
        });
    }
    (promises, at_once)
}
