//! The member's decisions: raft, proposals, linearizable reads, snapshot points.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb;
use raft::{Config as RaftConfig, RawNode, ReadOnlyOption, StateRole, Storage};
use retcd_proto::raftpb;

use crate::log_store::LogStore;
use crate::raft_types::{
    conf_change_to_raft, conf_state_from_raft, conf_state_to_raft, entry_from_raft, entry_to_raft,
    hard_state_from_raft, hard_state_to_raft,
};

/// Committed entries handed to the machine at once; bounds the memory of one batch.
const APPLY_BATCH_BYTES_MAX: u64 = 4 << 20;
/// A read that raft dropped (no leader yet, a lost heartbeat) is asked for again after this time, as
/// etcd does.
const READ_RETRY: Duration = Duration::from_millis(500);
/// Bytes of log that may stay in memory behind a snapshot, whatever the entry count says.
const CATCHUP_BYTES_MAX: usize = 64 << 20;

/// What a member is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member's id.
    pub id: u64,
    /// Time between two ticks of raft: the heartbeat interval.
    pub tick: Duration,
    /// Ticks without a leader before an election.
    pub election_ticks: u32,
    /// Ask for votes before raising the term.
    pub pre_vote: bool,
    /// Applied entries between two snapshots on disk.
    pub snapshot_count: u64,
    /// Entries kept in memory behind a snapshot for slow followers.
    pub snapshot_catchup_entries: u64,
    /// Seeds the election timeouts, so that a run can be repeated.
    pub seed: u64,
}

/// What log and machine held when the member started.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Index and term that the log starts behind.
    pub snapshot: (u64, u64),
    /// The newest entry that the machine has applied; not below the snapshot.
    pub applied: u64,
    /// The configuration as of `applied`.
    pub conf_state: raftpb::ConfState,
    /// Term, vote and commit index.
    pub hard_state: raftpb::HardState,
    /// All entries behind the snapshot, committed or not.
    pub entries: Vec<raftpb::Entry>,
}

/// An index at which the machine's state stands for all entries up to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SnapshotPoint {
    /// Index of the last entry that it covers.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// The configuration at that index.
    pub conf_state: raftpb::ConfState,
}

/// What happens to a member.
#[derive(Debug)]
pub enum Input {
    /// A client's request, encoded as `InternalRaftRequest`.
    Propose {
        /// The request's id, named again if it is rejected.
        request: u64,
        /// The encoded request; log, peers and machine share these bytes.
        data: Bytes,
    },
    /// A client wants to read the newest state; answered by [`Output::ReadReady`].
    Read {
        /// Named again in the answer.
        read: u64,
    },
    /// Everything up to [`Append::number`] is durable.
    Appended {
        /// The number of the newest durable [`Append`].
        number: u64,
    },
    /// The machine applied all entries up to `index`.
    Applied {
        /// The newest applied index.
        index: u64,
        /// The configuration changes among them, in order, as the machine accepted them.
        conf_changes: Vec<raftpb::ConfChange>,
    },
    /// The snapshot of [`Output::Snapshot`] is durable.
    Snapshotted {
        /// Its index.
        index: u64,
    },
}

/// What the outside must do, in order.
#[derive(Debug)]
pub enum Output {
    /// Write to the log, make durable, report [`Input::Appended`].
    Append(Append),
    /// Apply to the machine, report [`Input::Applied`].
    Apply(Vec<raftpb::Entry>),
    /// These reads may be answered now: the machine has applied all that was committed when they came.
    ReadReady {
        /// The reads' names.
        reads: Vec<u64>,
    },
    /// These requests did not enter the log.
    Rejected {
        /// The requests' ids.
        requests: Vec<u64>,
        /// Why.
        reason: RejectReason,
    },
    /// These reads cannot be answered.
    ReadRejected {
        /// The reads' names.
        reads: Vec<u64>,
        /// Why.
        reason: RejectReason,
    },
    /// Leader, term or role changed.
    Leader(LeaderInfo),
    /// Enough entries were applied since the last one: write a snapshot, report [`Input::Snapshotted`].
    Snapshot(SnapshotPoint),
}

/// A write to the log.
#[derive(Debug)]
pub struct Append {
    /// Counts up; reported back in [`Input::Appended`].
    pub number: u64,
    /// The hard state, if it changed.
    pub hard_state: Option<raftpb::HardState>,
    /// New entries; they replace what the log holds from their first index on.
    pub entries: Vec<raftpb::Entry>,
    /// Whether an fsync is needed before [`Input::Appended`]: not for a mere commit index.
    pub must_sync: bool,
}

/// Why the node refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// No leader is known.
    NoLeader,
    /// The leader changed while the request was under way.
    LeaderChanged,
}

/// The member's part in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows, or looks for, a leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderInfo {
    /// The leader's id; 0 when none is known.
    pub leader: u64,
    /// The current term.
    pub term: u64,
    /// This member's part.
    pub role: Role,
}

/// Where the member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The current term.
    pub term: u64,
    /// The leader's id; 0 when none is known.
    pub leader: u64,
    /// The newest committed index. Invariant: `applied <= committed`.
    pub committed: u64,
    /// The newest applied index.
    pub applied: u64,
}

/// One member.
pub struct Node {
    raw: RawNode<LogStore>,
    config: Config,
    outputs: VecDeque<Output>,
    proposals: Proposals,
    reads: Reads,
    /// What the owner was last told.
    leader: LeaderInfo,
    now: Duration,
    next_tick: Duration,
    applied: u64,
    /// Index of the newest snapshot, durable or under way.
    snapshot_index: u64,
    random: u64,
    /// Term and role for which the election timeout was drawn.
    drawn_for: Option<(u64, StateRole)>,
}

/// Requests that came in since the last turn; they enter the log as one batch.
#[derive(Default)]
struct Proposals {
    requests: Vec<u64>,
    entries: Vec<eraftpb::Entry>,
}

/// Reads that wait for raft's word.
///
/// All reads of a turn share one context. Contexts count up and are never used twice, so a late
/// answer can not be taken for that of a newer read.
#[derive(Default)]
struct Reads {
    waiting: Vec<u64>,
    in_flight: BTreeMap<u64, Vec<u64>>,
    /// Read index and reads that wait for the machine to apply it.
    confirmed: VecDeque<(u64, Vec<u64>)>,
    last_context: u64,
    asked_at: Duration,
}

impl Node {
    /// A member that continues from what its log held.
    ///
    /// # Panics
    /// When the log contradicts itself, which the log's reader has ruled out.
    pub fn new(config: Config, recovered: Recovered, now: Duration) -> Node {
        let (index, term) = recovered.snapshot;
        let mut hard_state = hard_state_to_raft(&recovered.hard_state);
        // What was applied was committed, although the last note of it may not have reached the disk.
        hard_state.commit = hard_state.commit.max(recovered.applied);
        let entries = recovered.entries.iter().map(entry_to_raft).collect();
        let conf_state = conf_state_to_raft(&recovered.conf_state);
        let store = LogStore::new(index, term, hard_state, conf_state, entries);
        let election_ticks = config.election_ticks as usize;
        let raft_config = RaftConfig {
            id: config.id,
            election_tick: election_ticks,
            heartbeat_tick: 1,
            applied: recovered.applied,
            max_size_per_msg: 512 << 10,
            max_inflight_msgs: 512,
            check_quorum: true,
            pre_vote: config.pre_vote,
            read_only_option: ReadOnlyOption::Safe,
            max_committed_size_per_ready: APPLY_BATCH_BYTES_MAX,
            ..RaftConfig::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&raft_config, store, &logger)
            .expect("the configuration is valid: ids and ticks are checked at the door");
        let mut node = Node {
            raw,
            outputs: VecDeque::new(),
            proposals: Proposals::default(),
            reads: Reads::default(),
            leader: LeaderInfo {
                leader: 0,
                term: recovered.hard_state.term(),
                role: Role::Follower,
            },
            now,
            next_tick: now + config.tick,
            applied: recovered.applied,
            snapshot_index: index,
            random: config.seed | 1,
            drawn_for: None,
            config,
        };
        node.campaign_if_alone();
        node.draw_election_timeout();
        node
    }

    /// Takes in an event; never blocks, never fails.
    pub fn handle(&mut self, now: Duration, input: Input) {
        self.advance_time(now);
        match input {
            Input::Propose { request, data } => self.proposals.push(request, data),
            Input::Read { read } => self.reads.waiting.push(read),
            Input::Appended { number } => self.raw.on_persist_ready(number),
            Input::Applied {
                index,
                conf_changes,
            } => self.handle_applied(index, &conf_changes),
            Input::Snapshotted { index } => self.handle_snapshotted(index),
        }
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
        Status {
            term: self.raw.raft.term,
            leader: self.raw.raft.leader_id,
            committed: self.raw.raft.raft_log.committed,
            applied: self.applied,
        }
    }

    fn advance_time(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while self.next_tick <= self.now {
            self.next_tick += self.config.tick;
            self.raw.tick();
            self.draw_election_timeout();
            // After a long pause (a stopped process) the missed ticks mean nothing: one is enough.
            if self.next_tick + self.config.tick * self.config.election_ticks < self.now {
                self.next_tick = self.now + self.config.tick;
            }
        }
    }

    /// One round through raft: batches in, at most one `Ready` out.
    fn turn(&mut self) {
        self.propose_batch();
        self.ask_for_reads();
        self.draw_election_timeout();
        if !self.raw.has_ready() {
            return;
        }
        let mut ready = self.raw.ready();
        self.report_leader();
        self.queue_read_states(ready.take_read_states());
        assert!(
            ready.snapshot().is_empty(),
            "a member without peers receives no snapshot"
        );
        let entries = ready.take_entries();
        let hard_state = ready.hs().map(hard_state_from_raft);
        self.raw.mut_store().append(&entries);
        let append = Append {
            number: ready.number(),
            hard_state,
            must_sync: ready.must_sync(),
            entries: entries.iter().map(entry_from_raft).collect(),
        };
        let committed = ready.take_committed_entries();
        self.raw.advance_append_async(ready);
        if append.entries.is_empty() && append.hard_state.is_none() {
            self.raw.on_persist_ready(append.number);
        } else {
            self.outputs.push_back(Output::Append(append));
        }
        if !committed.is_empty() {
            self.outputs.push_back(Output::Apply(
                committed.iter().map(entry_from_raft).collect(),
            ));
        }
    }

    fn propose_batch(&mut self) {
        if self.proposals.requests.is_empty() {
            return;
        }
        let Proposals { requests, entries } = std::mem::take(&mut self.proposals);
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.from = self.config.id;
        message.entries = entries.into();
        if self.raw.step(message).is_err() {
            self.outputs.push_back(Output::Rejected {
                requests,
                reason: RejectReason::NoLeader,
            });
        }
    }

    fn ask_for_reads(&mut self) {
        let overdue =
            !self.reads.in_flight.is_empty() && self.now >= self.reads.asked_at + READ_RETRY;
        if (self.reads.waiting.is_empty() && !overdue) || !self.can_read() {
            return;
        }
        let context = self.reads.open_context(overdue, self.now);
        self.raw.read_index(context.to_be_bytes().to_vec());
    }

    /// A leader answers reads only after it has committed an entry of its own term.
    fn can_read(&self) -> bool {
        let raft = &self.raw.raft;
        match raft.state {
            StateRole::Leader => raft.commit_to_current_term(),
            _ => raft.leader_id != 0,
        }
    }

    fn queue_read_states(&mut self, states: Vec<raft::ReadState>) {
        for state in states {
            let Ok(context) = <[u8; 8]>::try_from(state.request_ctx.as_slice()) else {
                continue;
            };
            let reads = self.reads.close_context(u64::from_be_bytes(context));
            if !reads.is_empty() {
                self.reads.confirmed.push_back((state.index, reads));
            }
        }
        self.release_reads();
    }

    fn release_reads(&mut self) {
        // Invariant: indexes in `confirmed` do not decrease, as raft's commit index does not.
        while let Some((_, reads)) = self
            .reads
            .confirmed
            .pop_front_if(|(index, _)| *index <= self.applied)
        {
            self.outputs.push_back(Output::ReadReady { reads });
        }
    }

    fn report_leader(&mut self) {
        let raft = &self.raw.raft;
        let role = match raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower => Role::Follower,
        };
        let leader = LeaderInfo {
            leader: raft.leader_id,
            term: raft.term,
            role,
        };
        if leader == self.leader {
            return;
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

    fn handle_applied(&mut self, index: u64, conf_changes: &[raftpb::ConfChange]) {
        assert!(
            index >= self.applied,
            "applied went back from {} to {index}",
            self.applied
        );
        for change in conf_changes.iter().filter_map(conf_change_to_raft) {
            let conf_state = self
                .raw
                .apply_conf_change(&change)
                .expect("the machine accepted the change, so raft can make it");
            self.raw.mut_store().set_conf_state(conf_state);
        }
        self.applied = index;
        self.raw.advance_apply_to(index);
        self.release_reads();
        self.campaign_if_alone();
        self.snapshot_if_due();
    }

    /// The only voter need not wait for an election timeout: there is nobody to hear from.
    fn campaign_if_alone(&mut self) {
        let raft = &self.raw.raft;
        let alone = raft.prs().is_singleton() && raft.promotable();
        if alone && raft.leader_id == 0 && raft.state == StateRole::Follower {
            // An error means that raft will try again at the election timeout.
            let _ = self.raw.campaign();
        }
    }

    fn snapshot_if_due(&mut self) {
        if self.applied - self.snapshot_index < self.config.snapshot_count {
            return;
        }
        let store = self.raw.store();
        let term = store
            .term(self.applied)
            .expect("an applied entry behind the last snapshot is in memory");
        let conf_state = conf_state_from_raft(store.conf_state());
        self.snapshot_index = self.applied;
        self.outputs.push_back(Output::Snapshot(SnapshotPoint {
            index: self.applied,
            term,
            conf_state,
        }));
    }

    fn handle_snapshotted(&mut self, index: u64) {
        let keep = self.config.snapshot_catchup_entries;
        self.raw.mut_store().compact(index.saturating_sub(keep));
        self.raw
            .mut_store()
            .compact_to_bytes(index, CATCHUP_BYTES_MAX);
    }

    /// raft-rs draws anew from the thread's generator whenever term or role change; ours comes from the
    /// seed, so that a run repeats.
    fn draw_election_timeout(&mut self) {
        let current = (self.raw.raft.term, self.raw.raft.state);
        if self.drawn_for == Some(current) {
            return;
        }
        self.drawn_for = Some(current);
        // xorshift64 (Marsaglia 2003); quality does not matter here, repeatability does.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let ticks = u64::from(self.config.election_ticks);
        let drawn = ticks + self.random % ticks;
        self.raw
            .raft
            .set_randomized_election_timeout(drawn as usize);
    }
}

impl Proposals {
    fn push(&mut self, request: u64, data: Bytes) {
        self.requests.push(request);
        self.entries.push(eraftpb::Entry {
            data,
            ..Default::default()
        });
    }
}

impl Reads {
    /// Moves the waiting reads, and on a retry those in flight, under a new context.
    fn open_context(&mut self, retry: bool, now: Duration) -> u64 {
        let mut reads = std::mem::take(&mut self.waiting);
        if retry {
            reads.append(&mut self.take_in_flight());
        }
        self.last_context += 1;
        self.asked_at = now;
        self.in_flight.insert(self.last_context, reads);
        self.last_context
    }

    /// An answer for a context holds for all that were asked before it, too.
    fn close_context(&mut self, context: u64) -> Vec<u64> {
        let newer = self.in_flight.split_off(&(context + 1));
        let answered = std::mem::replace(&mut self.in_flight, newer);
        answered.into_values().flatten().collect()
    }

    fn take_in_flight(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.in_flight)
            .into_values()
            .flatten()
            .collect()
    }
}
