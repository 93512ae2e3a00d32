//! A member's process: the real node, log and machine, and crate `member` around them, whose steps
//! and tasks are run in an order and with delays that follow from the seed.
//!
//! ```text
//!   requests, packets ──▶ inbox ──turn──▶ Node ──▶ log queue ──Logger::turn──▶ Appended
//!        │                  ▲              ├────▶ apply queue ──Applier::apply──▶ mail, Applied
//!        └─▶ tasks ◀─ mail ─┴── Outputs ◀──┴────▶ packets
//! ```
//! Nothing here decides what a member does. [`executor`] polls its tasks, [`time`] wakes them,
//! [`outbox`] takes what they send, [`peers`] carries their questions to other members; [`apply`],
//! [`log`] and [`snapshot`] are where the server has threads; [`requests`] and [`watch`] are its
//! fronts.

mod apply;
mod authenticator;
mod early;
mod executor;
mod log;
mod outbox;
mod peers;
mod requests;
mod serving;
mod snapshot;
mod start;
mod time;
mod turn;
mod watch;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use retcd_member::request_id::RequestIds;
use retcd_member::snapshot::Snapshots;
use retcd_member::{Applier, Handle, Logger, Mailbox, Mailboxes, Outputs, Shared, ToLog, Work};
use retcd_node::durable::Dirs;
use retcd_node::{Input, Node, Role};
use retcd_proto::etcdserverpb::WatchResponse;
use retcd_state::machine::{Machine, SnapshotHead};
use retcd_state::v2;
use retcd_state::version::Version;
use retcd_storage::backend::Backend;
use retcd_storage::disk::MemDisk;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::context::{Context, Event};
use crate::history::OperationId;
use crate::sabotage::Sabotage;
use apply::ToApply;
use authenticator::Tokens;
use executor::{Executor, TaskId};
use outbox::{Outbox, Queues};
use peers::Wires;
use time::Time;
use watch::Stream;

pub use authenticator::TokenJudged;
pub use peers::{Ask, ReturnAddress, Told};
pub use snapshot::Parcel;
pub use start::{Place, Role as StartRole, Setup, machine_options, start};
pub use watch::{NOT_PERMITTED, Opened, Session};

/// What a process has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
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
    /// The same for those who wait for it.
    CommitFor,
    /// A step of a compaction.
    Compact,
    /// A snapshot is written.
    Snapshot,
    /// A snapshot that found no room is taken anew.
    SnapshotAgain,
    /// The member was removed and goes.
    Leave,
    /// Some task's time has come, if the timer was not set anew since.
    Wake(u64),
    /// A task was woken.
    Poll(TaskId),
    /// A worker takes the next piece of work.
    Work,
    /// The other members are to hear of this one.
    Probe,
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
    sabotage: Option<Sabotage>,
    /// Whether it wants a snapshot now and then for no reason.
    snapshots_by_chance: bool,
    dirs: Dirs,
    node: Node,
    inbox: Vec<Input>,
    turn_due: bool,
    /// When the node's timer is set to, on the own clock.
    timer: Duration,
    logger: Logger,
    log_queue: Vec<ToLog>,
    /// What the disk works on; empty if it is idle.
    log_running: Vec<ToLog>,
    applier: Applier,
    apply_queue: VecDeque<ToApply>,
    apply_due: bool,
    /// What a member that is broken that way answers from.
    early: Option<Machine>,
    compact_due: bool,
    snapshots: Snapshots,
    /// Snapshots to be written; the first is under way.
    snapshot_queue: VecDeque<SnapshotHead>,
    /// Says when the log has recorded it.
    recording: Option<oneshot::Receiver<()>>,
    shared: Arc<Shared>,
    outputs: Outputs,
    mailboxes: Mailboxes,
    tokens: Arc<Tokens>,
    wires: Wires,
    time: Time,
    queues: Queues,
    outbox: Outbox,
    executor: Executor,
    /// When the next [`Step::Wake`] comes, on the own clock, and how often that was set.
    wakes_at: Option<Duration>,
    timers_set: u64,
    /// What the workers have to do.
    work: VecDeque<Work>,
    /// Who waits for a commit of the database.
    commits: Vec<retcd_member::Committed>,
    /// The threads that serve clients.
    handles: [Rc<Handle>; THREADS],
    /// Whether clients are served.
    is_ready: bool,
    /// The tasks of clients' operations, and the other way round.
    operations: BTreeMap<OperationId, TaskId>,
    operation_of: BTreeMap<TaskId, OperationId>,
    /// For what is put into the log past all checks: ids, mailbox, and who waits.
    hand_ids: RequestIds,
    hand_mail: Mailbox,
    by_hand: BTreeMap<u64, OperationId>,
    streams: BTreeMap<Session, Stream>,
    /// Responses to watchers so far.
    watched: u64,
    /// The newest revision that was acknowledged to a client.
    acknowledged: Rc<Cell<i64>>,
    /// The newest index of API v2's tree that anybody was shown.
    tree_shown: u64,
    /// The tree as it was before the last batch, of a member that is broken that way.
    tree_before: Option<v2::Document>,
    /// What a member that is broken that way has found of clients' rights in API v2.
    tree_verdicts: Rc<RefCell<BTreeMap<String, bool>>>,
}

/// Threads that serve clients: replies of one and what is published to the other are apart.
const THREADS: usize = 2;

impl Process {
    /// Does what was due.
    pub fn step(&mut self, step: Step, cx: &mut Context) -> Result<(), Stop> {
        self.wake_up(cx);
        let mut polled = None;
        let done = match step {
            Step::Turn => self.turn(cx),
            Step::Timer => self.node_timer(cx),
            Step::Logged => self.logged(cx),
            Step::Apply => self.apply(cx),
            Step::Commit => self.commit(cx),
            Step::CommitFor => self.commit_for(),
            Step::Compact => self.compact(cx),
            Step::Snapshot => self.save_snapshot(cx),
            Step::SnapshotAgain => {
                self.queue_apply(ToApply::SnapshotDue, cx);
                Ok(())
            }
            Step::Leave => Err(Stop::removed()),
            Step::Wake(number) => {
                if number == self.timers_set {
                    self.wakes_at = None;
                    self.time.wake();
                }
                Ok(())
            }
            Step::Poll(task) => {
                polled = Some(task);
                self.executor.poll(task);
                Ok(())
            }
            Step::Work => {
                if let Some(work) = self.work.pop_front() {
                    work();
                }
                Ok(())
            }
            Step::Probe => {
                self.probe(cx);
                Ok(())
            }
        };
        self.settle_behind(polled, cx);
        done
    }

    /// Sets the clocks that the tasks read.
    fn wake_up(&self, cx: &Context) {
        let wall_ms = match self.is_broken(Sabotage::SameIds) {
            true => 1,
            false => self.clock.wall_ms(cx.now),
        };
        self.time.set(self.clock.local(cx.now), wall_ms);
    }

    fn local(&self) -> Duration {
        use retcd_member::Clock as _;
        self.time.now()
    }

    fn machine_time(&self) -> retcd_state::Time {
        retcd_state::Time::new(self.local())
    }

    /// The last entry that was applied.
    pub fn applied(&self) -> u64 {
        self.machine().applied().index
    }

    /// The cluster's version, as far as the member knows.
    pub fn cluster_version(&self) -> Option<Version> {
        self.shared.cluster_version()
    }

    /// The node, to be looked at.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The machine, to be looked at.
    pub fn machine(&self) -> &Machine {
        self.applier.machine()
    }

    /// The tree of API v2, to be looked at.
    pub fn tree(&self) -> v2::View {
        self.shared.state.v2.view()
    }

    /// Whether a node of API v2's tree has expired by this member's clock.
    pub fn has_expired(&self, now: Duration) -> bool {
        let now = i64::try_from(self.clock.wall_ms(now)).unwrap_or(i64::MAX);
        let end = self.tree().next_expiration();
        end.is_some_and(|end| end.0 / 1_000_000 <= now)
    }

    /// The database, to be looked at.
    pub fn backend(&self) -> &Backend {
        &self.shared.backend
    }

    /// Whether this member believes to lead.
    pub fn leads(&self) -> bool {
        self.node.status().role == Role::Leader
    }

    /// Ends the process as a signal does: what was written stays written. Clients see their
    /// connections break.
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
                let _ = self.backend().commit();
            }
            _ => {}
        }
        self.hang_up(cx);
        drop(self);
        disk.crash(cx.rng.u64(..));
    }

    fn is_broken(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    fn step_after(&self, delay: Duration, step: Step, cx: &mut Context) {
        let (host, life) = (self.host, self.life);
        cx.after(delay, Event::Step { host, life, step });
    }
}

/// What the hub has encoded.
fn decode_response(bytes: &Bytes) -> WatchResponse {
    WatchResponse::decode(bytes.clone()).expect("the hub knows how to encode")
}
