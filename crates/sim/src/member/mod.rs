//! A member's process: the real [`Node`], log and machine, and in place of the server's threads the glue that
//! carries what one of them says to the others, in an order and with delays that follow from the seed.
//!
//! ```text
//!   requests, packets ──▶ inbox ──turn──▶ Node ──▶ log queue ──write+sync──▶ Appended
//!                                          ├────▶ apply queue ──apply──▶ answers, Applied
//!                                          └────▶ packets
//! ```
//! Each queue is worked off as the server's thread of that name does it: `log` takes everything that waits
//! and syncs once, `apply` takes one batch after the other, the database is committed now and then.

mod access;
mod apply;
mod hash;
mod leases;
mod log;
mod requests;
mod snapshot;
mod start;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use retcd_node::durable::{Dirs, Log};
use retcd_node::{Input, LeaderInfo, Node, Output, Role, SnapshotPoint};
use retcd_proto::raftpb;
use retcd_state::Time;
use retcd_state::lease::SharedLessor;
use retcd_state::machine::Machine;
use retcd_state::mvcc::{HashInPieces, Reader};
use retcd_state::watch::StreamId;
use retcd_storage::backend::Backend;
use retcd_storage::disk::MemDisk;

use crate::clock::Clock;
use crate::context::{Context, Event};
use crate::faults::Fault;
use crate::history::{OperationId, Outcome};
use crate::sabotage::Sabotage;
use access::{Permit, Streaming, Tokens};
use apply::ToApply;
use leases::{LeaseCheck, Renewing};
use log::ToLog;
use requests::Waiting;
use watch::Watches;

pub use leases::Told;
pub use snapshot::Parcel;
pub use start::{Role as StartRole, Setup, machine_options, peer_url, start};
pub use watch::{NOT_PERMITTED, Session};

/// How often leases are looked at.
const LEASE_INTERVAL: Duration = Duration::from_millis(500);

/// What a process has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The node takes in what waits.
    Turn,
    /// The node's time has come.
    Timer,
    /// The log's disk has finished.
    Logged,
    /// The next batch is applied.
    Apply,
    /// The database is committed.
    Commit,
    /// A step of a compaction.
    Compact,
    /// Expired leases are looked for.
    Leases,
    /// A snapshot is written.
    Snapshot,
    /// The member was removed and goes.
    Leave,
    /// What a stream has goes to its watcher.
    Watch(StreamId),
    /// What was permitted is read.
    Read(OperationId),
    /// The next piece of an answer goes out.
    Stream(OperationId),
    /// A password was compared, and found to be right.
    LogIn(OperationId),
    /// The hash that somebody asked for is made.
    Hash(OperationId),
}

/// Why a process ends by itself.
#[derive(Debug)]
pub struct Stop {
    /// What it says.
    pub reason: String,
    /// What that means.
    pub kind: StopKind,
}

/// What the end of a process means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopKind {
    /// The disk of the moment; it may be started again.
    Disk,
    /// What it stored is not what its cluster knows.
    Contradiction,
    /// It is no member any more.
    Removed,
}

impl Stop {
    /// The member was removed.
    fn removed() -> Stop {
        Stop {
            reason: "the member has been permanently removed from the cluster".to_owned(),
            kind: StopKind::Removed,
        }
    }

    /// The disk did not do what it was told.
    fn disk(what: &str, error: impl std::fmt::Display) -> Stop {
        Stop {
            reason: format!("{what}: {error}"),
            kind: StopKind::Disk,
        }
    }
}

/// How fast a member's disk and processor are.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Shortest and longest time of a sync, in microseconds.
    pub sync_us: (u64, u64),
    /// The same for applying a batch.
    pub apply_us: (u64, u64),
    /// Between two commits of the database.
    pub commit_every: Duration,
}

impl Speed {
    /// A machine in good health.
    pub const GOOD: Speed = Speed {
        sync_us: (200, 2_000),
        apply_us: (20, 200),
        commit_every: Duration::from_millis(100),
    };
}

/// A running member.
pub struct Process {
    /// The host that it runs on.
    pub host: usize,
    /// Which of the host's processes.
    pub life: u32,
    /// The member's id.
    pub id: u64,
    /// Its clocks.
    pub clock: Clock,
    /// How fast it is.
    pub speed: Speed,
    dirs: Dirs,
    node: Node,
    inbox: Vec<Input>,
    turn_due: bool,
    /// When the node's timer is set to, on the own clock.
    timer: Duration,
    log: Log,
    log_queue: Vec<ToLog>,
    /// What the disk works on; empty if it is idle.
    log_running: Vec<ToLog>,
    machine: Machine,
    apply_queue: VecDeque<ToApply>,
    apply_due: bool,
    compact_due: bool,
    /// Snapshots to be written; the first is under way.
    snapshots: VecDeque<SnapshotPoint>,
    reader: Reader,
    lessor: SharedLessor,
    backend: Backend,
    watches: Watches,
    next_id: u64,
    /// Who waits for a proposal.
    proposals: BTreeMap<u64, OperationId>,
    /// Who waits for a read.
    reads: BTreeMap<u64, Waiting>,
    /// Reads that are permitted and not yet done.
    permits: BTreeMap<OperationId, Permit>,
    /// Answers that clients take piece by piece.
    streams: BTreeMap<OperationId, Streaming>,
    /// Hashes in the making.
    hashes: BTreeMap<OperationId, HashInPieces>,
    /// Logins under way, and the revision of users and roles at which each password was right.
    logins: BTreeMap<OperationId, u64>,
    tokens: Tokens,
    /// What is done about leases when a quorum has said who leads.
    lease_checks: BTreeMap<u64, LeaseCheck>,
    /// Renewals under way.
    renewals: BTreeMap<OperationId, Renewing>,
    /// When a quorum was last asked, and said that this member leads, on the own clock.
    led_at: Option<Duration>,
}

impl Process {
    /// Does what was due.
    pub fn work(&mut self, work: Work, cx: &mut Context) -> Result<(), Stop> {
        match work {
            Work::Turn => self.turn(cx),
            Work::Timer => self.timer(cx),
            Work::Logged => self.logged(cx),
            Work::Apply => self.apply(cx),
            Work::Commit => self.commit(cx),
            Work::Compact => self.compact(cx),
            Work::Snapshot => self.save_snapshot(cx),
            Work::Leave => Err(Stop::removed()),
            Work::Watch(stream) => self.poll_watch(stream, cx),
            Work::Read(operation) => {
                self.read_permitted(operation, cx);
                Ok(())
            }
            Work::Stream(operation) => {
                self.stream(operation, cx);
                Ok(())
            }
            Work::LogIn(operation) => {
                self.log_in(operation, cx);
                Ok(())
            }
            Work::Hash(operation) => {
                self.finish_hash(operation, cx);
                Ok(())
            }
            Work::Leases => {
                self.look_after_leases(cx);
                self.tell_progress(cx);
                Ok(())
            }
        }
    }

    /// What the member's own clock shows.
    fn local(&self, cx: &Context) -> Duration {
        self.clock.local(cx.now)
    }

    fn time(&self, cx: &Context) -> Time {
        Time::new(self.local(cx))
    }

    /// The node, to be looked at.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The machine, to be looked at.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The database, to be looked at.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// A packet from a peer.
    pub fn receive(&mut self, from: usize, bytes: Bytes, cx: &mut Context) {
        let message = raftpb::Message::decode(bytes).expect("the network changes no bytes");
        let sender = message.from();
        if self.machine.membership().read().is_removed(sender) {
            // As the server's transport: refused, and told why.
            let delay = cx.network.delay(&mut cx.rng);
            cx.after(
                delay,
                Event::Removed {
                    host: from,
                    member: sender,
                },
            );
            return;
        }
        self.push(Input::Messages(vec![message]), cx);
    }

    /// A peer says that this member was removed.
    pub fn told_of_removal(&self) -> Stop {
        Stop::removed()
    }

    /// Puts something into the node's inbox.
    pub fn push(&mut self, input: Input, cx: &mut Context) {
        self.inbox.push(input);
        if !self.turn_due {
            self.turn_due = true;
            let delay = cx.between_us(1, 30);
            cx.work_after(delay, self.host, self.life, Work::Turn);
        }
    }

    fn turn(&mut self, cx: &mut Context) -> Result<(), Stop> {
        self.turn_due = false;
        let now = self.local(cx);
        for input in std::mem::take(&mut self.inbox) {
            self.node.handle(now, input);
        }
        self.act_on_outputs(cx)
    }

    fn timer(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let now = self.local(cx);
        // The clock's rate may have changed since.
        if now >= self.timer {
            self.node.handle_timeout(now);
            self.act_on_outputs(cx)?;
        }
        self.set_timer(cx);
        Ok(())
    }

    fn set_timer(&mut self, cx: &mut Context) {
        self.timer = self.node.poll_timeout();
        let due = self.clock.true_time(self.timer, cx.now);
        cx.work_after(due - cx.now, self.host, self.life, Work::Timer);
    }

    fn act_on_outputs(&mut self, cx: &mut Context) -> Result<(), Stop> {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Append(append) => self.queue_append(append, cx),
                Output::Send(messages) => self.send(messages, cx)?,
                Output::Apply(entries) => self.queue_apply(ToApply::Entries(entries), cx),
                Output::Restore(snapshot) => self.queue_apply(ToApply::Restore(snapshot), cx),
                Output::Snapshot(point) => self.queue_snapshot(point, cx),
                Output::ReadReady { reads, leads } => self.reads_ready(&reads, leads, cx),
                Output::Rejected { requests, .. } => {
                    self.finish_proposals(&requests, Outcome::Refused("rejected"), cx);
                }
                Output::ReadRejected { reads, .. } => self.reads_rejected(&reads, cx),
                Output::Leader(info) => self.leader_changed(info, cx),
                // Nobody asks: who wants to know looks at the node.
                Output::Inspected { .. } => {}
                Output::Contradiction(contradiction) => {
                    return Err(Stop {
                        reason: contradiction.to_string(),
                        kind: StopKind::Contradiction,
                    });
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, messages: Vec<raftpb::Message>, cx: &mut Context) -> Result<(), Stop> {
        for message in messages {
            let Some(&to) = cx.addresses.get(&message.to()) else {
                continue;
            };
            if message.r#type() == raftpb::MessageType::MsgSnap {
                self.send_snapshot(message, to, cx)?;
                continue;
            }
            let bytes = Bytes::from(message.encode_to_vec());
            cx.trace.mix_bytes(&bytes);
            // Proposals have no number by which raft could know them again: a transport must not repeat them.
            let twice = message.r#type() != raftpb::MessageType::MsgProp;
            // A sender hears of some losses.
            if !cx.send(self.host, to, bytes, twice) && cx.rng.u8(..4) == 0 {
                let peer = message.to();
                self.push(Input::Unreachable { peer }, cx);
                if !twice {
                    self.push(Input::Undelivered(message.entries.clone()), cx);
                }
            }
            self.ambush(&message, cx);
        }
        Ok(())
    }

    /// In an ambush who has just given a vote may be killed for it.
    fn ambush(&self, message: &raftpb::Message, cx: &mut Context) {
        let votes = message.r#type() == raftpb::MessageType::MsgVoteResp && !message.reject();
        if votes && cx.now < cx.ambush_until && cx.rng.bool() {
            let (host, delay) = (self.host, cx.between_us(1, 1_000));
            let lasts = cx.between_us(100, 100_000);
            cx.after(delay, Event::Fault(Fault::Kill { host, lasts }));
        }
    }

    fn leader_changed(&mut self, info: LeaderInfo, cx: &mut Context) {
        let LeaderInfo {
            leader, term, role, ..
        } = info;
        match role {
            Role::Leader => self.lessor.lock().elect(term),
            _ => self.lessor.lock().demote(),
        }
        if role == Role::Leader {
            let verdict = cx.log.leads(self.id, term);
            cx.check(verdict);
            let id = self.id;
            cx.note(|| format!("{id:x} leads in term {term}"));
            if cx.now < cx.ambush_until {
                let (host, delay) = (self.host, cx.between_us(1_000, 800_000));
                let lasts = cx.between_us(1_000, 500_000);
                cx.after(delay, Event::Fault(Fault::Kill { host, lasts }));
            }
        }
        cx.trace.mix(&[self.id, leader, term]);
    }

    /// Whether this member believes to lead.
    pub fn leads(&self) -> bool {
        self.node.status().role == Role::Leader
    }

    /// Ends the process as a signal does: what was written stays written. Clients see their connections break.
    pub fn kill(mut self, cx: &mut Context) {
        if cx.rng.bool() {
            // The disk may still have got what was under way.
            self.write_unheard();
        }
        self.hang_up(cx);
    }

    /// Ends the process by cutting the power: what was not synced is lost, torn or kept.
    pub fn cut_power(mut self, disk: &MemDisk, cx: &mut Context) {
        let lost_at = retcd_storage::disk::Fault::PowerLoss(cx.rng.u64(1..8));
        match cx.rng.u8(..4) {
            0 | 1 => {
                disk.inject(lost_at);
                self.write_unheard();
            }
            2 => {
                disk.inject(lost_at);
                let _ = self.backend.commit();
            }
            _ => {}
        }
        self.hang_up(cx);
        drop(self);
        disk.crash(cx.rng.u64(..));
    }

    fn hang_up(&mut self, cx: &mut Context) {
        let proposals = std::mem::take(&mut self.proposals).into_values();
        let reads = std::mem::take(&mut self.reads).into_values();
        let reads = reads.map(Waiting::operation);
        let permits = std::mem::take(&mut self.permits).into_keys();
        let streams = std::mem::take(&mut self.streams).into_keys();
        let logins = std::mem::take(&mut self.logins).into_keys();
        let hashes = std::mem::take(&mut self.hashes).into_keys();
        let renewals = std::mem::take(&mut self.renewals).into_iter();
        let renewals = renewals.filter(|(_, renewing)| renewing.is_clients());
        let renewals = renewals.map(|(operation, _)| operation);
        let waiting = proposals.chain(reads).chain(renewals);
        let waiting = waiting.chain(permits).chain(streams);
        for operation in waiting.chain(logins).chain(hashes) {
            cx.answer(operation, Outcome::Unknown("connection lost"));
        }
        self.hang_up_on_watchers(cx);
    }

    fn is_broken(&self, cx: &Context, sabotage: Sabotage) -> bool {
        cx.sabotage == Some(sabotage)
    }

    fn work_after(&self, delay: Duration, work: Work, cx: &mut Context) {
        cx.after(
            delay,
            Event::Work {
                host: self.host,
                life: self.life,
                work,
            },
        );
    }
}
