//! What goes into a [`Node`](crate::Node) and what comes out of it.

use std::time::Duration;

use bytes::Bytes;
use retcd_proto::raftpb;
use retcd_storage::wal::{Terms, Wanted};

use crate::inspection::Inspection;

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
    /// Applied entries that may lie behind the newest snapshot on disk: one more, and the next is
    /// due, as in etcd, if it is not far larger than the log that it replaces.
    pub snapshot_count: u64,
    /// Entries kept behind a snapshot for slow followers, in memory or in the log.
    pub snapshot_catchup_entries: u64,
    /// Bytes of applied entries that stay in memory.
    pub log_bytes_in_memory: usize,
    /// How long a proposal waits for a leader before it is rejected.
    pub proposal_timeout: Duration,
    /// Contexts of reads count up from here. They must be unique in the cluster and for all time: a
    /// context that comes back can make an old confirmation stand for a new read.
    pub first_read_context: u64,
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
    /// The terms of the entries behind the snapshot that are in the log, applied, and not given here.
    pub earlier: Terms,
    /// All other entries behind the snapshot, committed or not.
    pub entries: Vec<raftpb::Entry>,
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
        /// The term in which this member must lead when the request enters the log: for what a
        /// leader has decided, and its successor may see otherwise. It is not sent on to another
        /// leader.
        leads_in: Option<u64>,
    },
    /// A change of the membership.
    ProposeConfChange {
        /// The request's id, named again if it is rejected; also the id in `change`.
        request: u64,
        /// The change as etcd logs it.
        change: raftpb::ConfChange,
    },
    /// A client wants to read the newest state; answered by [`Output::ReadReady`] when the machine
    /// has it.
    Read {
        /// Named again in the answer.
        read: u64,
    },
    /// Somebody decides by whether this member leads; answered by [`Output::ReadReady`] when a
    /// quorum has said so, or at once if it does not. The machine is not waited for.
    ConfirmLeader {
        /// Named again in the answer.
        read: u64,
    },
    /// Peers sent these. A `MsgSnap` comes only after its database is durable beside our own.
    Messages(Vec<raftpb::Message>),
    /// Messages to this peer were dropped or could not be delivered.
    Unreachable {
        /// The peer.
        peer: u64,
    },
    /// These proposals were on their way to a leader and certainly did not get there: they wait for
    /// the next one. Those whose fate is unknown must not come back, as they would be applied
    /// twice.
    Undelivered(Vec<raftpb::Entry>),
    /// Most of the first election timeout may be skipped: the peers can be talked to, so that a
    /// leader would have been heard of soon.
    SkipElectionTicks,
    /// The sending of a snapshot has ended.
    SnapshotSent {
        /// The peer.
        peer: u64,
        /// Whether the peer has it.
        delivered: bool,
    },
    /// Somebody decides by where the member stands now; answered by [`Output::Inspected`] at once.
    Inspect {
        /// Named again in the answer.
        request: u64,
    },
    /// Hand leadership to another member; without effect unless this member leads.
    /// [`LeaderInfo::transferee`] tells how that goes.
    TransferLeader {
        /// The member that is to lead.
        to: u64,
    },
    /// Everything up to [`Append::number`] is durable.
    Appended {
        /// The number of the newest durable [`Append`].
        number: u64,
    },
    /// The log has been read: the entries of [`Output::ReadLog`] from the first one on, as many as
    /// there are; none if the log does not have them any more.
    LogRead {
        /// The index of the first one that was wanted.
        first: u64,
        /// The entries.
        entries: Vec<raftpb::Entry>,
    },
    /// The machine applied all entries up to `index`, or was restored to it.
    Applied {
        /// The newest applied index.
        index: u64,
        /// The configuration changes among them, in order, as the machine accepted them.
        conf_changes: Vec<raftpb::ConfChange>,
    },
    /// A snapshot of the next applied index is needed, however few entries there were since the
    /// last one.
    SnapshotWanted,
    /// The snapshot of [`Output::SnapshotDue`] is durable.
    Snapshotted {
        /// Its index.
        index: u64,
        /// Bytes of its data.
        bytes: u64,
    },
}

/// What the outside must do, in order.
#[derive(Debug)]
pub enum Output {
    /// Write to the log, make durable, report [`Input::Appended`].
    Append(Append),
    /// Read entries that are durable and applied from the log, for a follower that is behind; report
    /// [`Input::LogRead`].
    ReadLog(Wanted),
    /// Send to the peers, without waiting. They are complete; only a `MsgSnap` carries nothing but
    /// its metadata, which whoever sends it replaces by those of the database that goes along. Loss
    /// is allowed, reordering too.
    Send(Vec<raftpb::Message>),
    /// Replace the machine's state by the received database, whose arrival is in the log by now;
    /// report [`Input::Applied`].
    Restore(raftpb::Snapshot),
    /// Apply to the machine, report [`Input::Applied`].
    Apply(Vec<raftpb::Entry>),
    /// These reads may be answered now: a quorum has been asked since they came, and the machine
    /// has applied all that was committed then.
    ReadReady {
        /// The reads' names.
        reads: Vec<u64>,
        /// The term in which this member leads, if it does. It led after the reads came, by the
        /// word of a quorum; not necessarily in the same term as before.
        leads_in: Option<u64>,
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
    /// Leader, term, role or transferee changed.
    Leader(LeaderInfo),
    /// The answer to [`Input::Inspect`].
    Inspected {
        /// The request's name.
        request: u64,
        /// Where the member stands.
        inspection: Inspection,
    },
    /// Enough entries were applied since the last one: write a snapshot of this index or a later
    /// one, report [`Input::Snapshotted`].
    SnapshotDue {
        /// The last applied entry.
        index: u64,
    },
    /// The cluster contradicts what this member has stored: it must stop.
    Contradiction(Contradiction),
}

/// A write to the log.
#[derive(Debug, Default)]
pub struct Append {
    /// Counts up; reported back in [`Input::Appended`].
    pub number: u64,
    /// A received snapshot. It stands for all entries up to its index and comes before `entries`.
    pub snapshot: Option<raftpb::Snapshot>,
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
    /// Too many requests wait for a leader.
    TooMany,
}

/// How a member's log can contradict its cluster. Either means that files were lost, or taken from
/// another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// The leader knows of entries that this member has acknowledged and does not have.
    #[error(
        "the leader has this member's acknowledgement of entry {acknowledged}, but the log ends at {last}: \
         the log was lost or truncated; remove this member from the cluster and add it again with an empty \
         data directory"
    )]
    LogLost {
        /// The index that the leader believes to be here.
        acknowledged: u64,
        /// The last index that is here.
        last: u64,
    },
    /// The leader's entry is another one than the one committed here.
    #[error(
        "the leader's entry {index} is not the one committed here (commit index {committed}): the log is not \
         of this cluster; remove this member from the cluster and add it again with an empty data directory"
    )]
    Conflict {
        /// The index at which they differ.
        index: u64,
        /// This member's commit index.
        committed: u64,
    },
}

/// A member's part in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected, without raising the term.
    PreCandidate,
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
    /// To whom this member hands its leadership; 0 for nobody. Raft gives it up after an election
    /// timeout.
    pub transferee: u64,
    /// Set while this member leads and there is no other: everything that was acknowledged before
    /// that is committed up to this index. What is acknowledged from then on the member itself has
    /// applied, as nobody else can acknowledge anything until this is taken back.
    pub alone_from: Option<u64>,
}

/// Where the member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The current term.
    pub term: u64,
    /// Who got this member's vote in this term; 0 for nobody.
    pub vote: u64,
    /// The leader's id; 0 when none is known.
    pub leader: u64,
    /// This member's part.
    pub role: Role,
    /// The newest committed index. Invariant: `applied <= committed`.
    pub committed: u64,
    /// The newest applied index.
    pub applied: u64,
    /// The newest index in the log, durable or not.
    pub last: u64,
    /// To whom leadership is being handed; 0 for nobody.
    pub transferee: u64,
}

/// How a leader replicates to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationState {
    /// One message at a time, until it is known where the logs agree.
    Probe,
    /// A stream of entries.
    Replicate,
    /// Waits for a snapshot to arrive.
    Snapshot,
}

/// What a leader knows of a member, itself included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    /// The member.
    pub id: u64,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// The newest index that is known to be durable there.
    pub matched: u64,
    /// The next index to be sent.
    pub next: u64,
    /// How entries get there.
    pub state: ReplicationState,
    /// Whether it was heard of within the last election timeout or two.
    pub recent_active: bool,
}
