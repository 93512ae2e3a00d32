//! The machine, which applies what is committed.
//!
//! Thread `apply` takes committed entries in batches, and between batches it runs compactions in
//! small steps, a pause apart. [`Applier`] defines the order in which the effects of a batch become
//! visible.
//!
//! To wake a thread costs more than to apply a put. So the thread that has made a few entries durable,
//! or has heard from other members that they are committed, applies them itself if nothing else waits
//! for it: a put of a single client wakes the log, then whoever waits for the answer. Where entries
//! wait for the log, thread `apply` has them, and the disk and the machine work side by side.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use retcd_member::{Applier, ApplyFailure, Changes, NoRoom, Stages, Step, ToLog};
use retcd_node::durable::Dirs;
use retcd_proto::raftpb;
use retcd_state::machine::Executed;
use retcd_storage::snap;
use tokio::sync::oneshot;

use super::durable_at::DurableAt;
use super::fatal::stop_process;
use super::node::NodeInbox;
use super::peers::PeerSet;
use super::snapshot_thread::ToSnapshot;
use crate::clock::{Clock, unix_ms};
use crate::log::Text;
use crate::request_text;
use crate::server::Server;

/// Entries, and their bytes, that are few enough for a thread that has other things to do.
const FEW_ENTRIES: usize = 4;
const FEW_BYTES: usize = 16 << 10;

thread_local! {
    /// Whether this thread calls [`ApplyInbox::work`] after what may have put something there.
    static WORKS: Cell<bool> = const { Cell::new(false) };
}

/// What the machine is asked to do.
pub(super) enum ToApply {
    /// Apply entries that are committed as of this moment.
    Entries(Vec<raftpb::Entry>, Duration),
    /// Take over the database that came with this snapshot.
    Restore(raftpb::Snapshot),
    /// Take a snapshot, to be written.
    SnapshotDue,
    /// A snapshot of this index is durable.
    Snapshotted(u64),
}

impl ToApply {
    /// Whether it is soon done, and waits for no other thread.
    fn is_small(&self) -> bool {
        let ToApply::Entries(entries, _) = self else {
            return false;
        };
        let bytes: usize = entries.iter().map(|entry| entry.data().len()).sum();
        let is_normal = |entry: &raftpb::Entry| entry.r#type() == raftpb::EntryType::EntryNormal;
        entries.len() <= FEW_ENTRIES && bytes <= FEW_BYTES && entries.iter().all(is_normal)
    }
}

/// The way to the machine.
#[derive(Clone)]
pub(super) struct ApplyInbox(Arc<Inner>);

struct Inner {
    queue: Mutex<Queue>,
    /// Held by whoever drives the machine. `None` before the member has started and when it has ended.
    driver: Mutex<Option<ApplyDriver>>,
    thread: OnceLock<Thread>,
}

#[derive(Default)]
struct Queue {
    wanted: VecDeque<ToApply>,
    /// Whether nothing comes any more.
    is_closed: bool,
}

impl ApplyInbox {
    /// A queue that waits for its machine.
    pub(super) fn new() -> ApplyInbox {
        ApplyInbox(Arc::new(Inner {
            queue: Mutex::default(),
            driver: Mutex::new(None),
            thread: OnceLock::new(),
        }))
    }

    /// Asks for something.
    pub(super) fn send(&self, wanted: ToApply) {
        self.0.queue.lock().wanted.push_back(wanted);
        if !WORKS.get() {
            self.wake();
        }
    }

    /// Ends the thread when it has done what was asked for before.
    pub(super) fn close(&self) {
        self.0.queue.lock().is_closed = true;
        self.wake();
    }

    /// Lets thread `apply` look at what there is to do.
    fn wake(&self) {
        if let Some(thread) = self.0.thread.get() {
            thread.unpark();
        }
    }

    /// From now on this thread calls [`ApplyInbox::work`] whenever something may have come by it, so
    /// that thread `apply` need not be woken for that.
    pub(super) fn worked_by_this_thread(&self) {
        WORKS.set(true);
    }

    /// Sees to what has come: does what is next if it is small, nobody is at it and this thread has
    /// time, and leaves the rest to thread `apply`. More than one thing could keep this thread from
    /// its own work for ever.
    pub(super) fn work(&self, has_time: bool) {
        let has_more = || !self.0.queue.lock().wanted.is_empty();
        if !has_more() {
            return;
        }
        if has_time && let Some(mut driver) = self.0.driver.try_lock() {
            if let Some(driver) = driver.as_mut() {
                let was_idle = driver.step_at.is_none();
                if let Some(wanted) = self.pop(ToApply::is_small) {
                    driver.handle(wanted);
                }
                // Thread `apply` sleeps until the next step that it knows of.
                if was_idle && driver.step_at.is_some() {
                    self.wake();
                }
            }
            drop(driver);
            if !has_more() {
                return;
            }
        }
        self.wake();
    }

    /// What comes next, if it is such a thing.
    fn pop(&self, is_such: impl FnOnce(&ToApply) -> bool) -> Option<ToApply> {
        let wanted = &mut self.0.queue.lock().wanted;
        match wanted.front() {
            Some(next) if is_such(next) => wanted.pop_front(),
            _ => None,
        }
    }

    /// Drives `driver`'s machine until the queue is closed.
    pub(super) fn run(&self, driver: ApplyDriver) {
        let _ = self.0.thread.set(thread::current());
        *self.0.driver.lock() = Some(driver);
        loop {
            let mut driver = self.0.driver.lock();
            let machine = driver.as_mut().expect("it is taken out here only");
            while let Some(wanted) = self.pop(|_| true) {
                machine.handle(wanted);
                // Also when there always is a next batch.
                machine.step();
            }
            machine.step();
            let step_at = machine.step_at;
            let queue = self.0.queue.lock();
            if queue.is_closed && queue.wanted.is_empty() {
                *driver = None;
                return;
            }
            let is_done = queue.wanted.is_empty();
            drop((queue, driver));
            match step_at {
                _ if !is_done => {}
                Some(at) => thread::park_timeout(at.saturating_duration_since(Instant::now())),
                None => thread::park(),
            }
        }
    }
}

/// The machine and whoever hears of what it did.
pub(super) struct ApplyDriver {
    /// The machine.
    pub applier: Applier,
    /// To the node.
    pub node: NodeInbox,
    /// To the log.
    pub log: Sender<ToLog>,
    /// To whoever writes snapshots.
    pub snapshots: Sender<ToSnapshot>,
    /// What the threads share.
    pub server: Arc<Server>,
    /// The member's clock.
    pub clock: Clock,
    /// The members that are sent to.
    pub peers: PeerSet,
    /// Where received databases are.
    pub dirs: Dirs,
    /// Pause between two steps of a compaction.
    pub compaction_pause: Duration,
    /// When the log had what on its disk.
    pub durable_at: Arc<DurableAt>,
    /// When the compaction began that is under way.
    pub compacting_since: Option<Instant>,
    /// When its next step is due. The first one does not wait, so that small ones are over at once.
    pub step_at: Option<Instant>,
}

impl ApplyDriver {
    /// Does anything but to stop.
    fn handle(&mut self, wanted: ToApply) {
        match wanted {
            ToApply::Entries(entries, committed_at) => {
                if self.apply(&entries, committed_at) {
                    self.step_at.get_or_insert_with(Instant::now);
                }
            }
            ToApply::Restore(snapshot) => {
                self.step_at = self.restore(&snapshot).then(Instant::now);
            }
            ToApply::SnapshotDue => {
                let taken = self.applier.snapshot();
                let _ = self.snapshots.send(ToSnapshot::Save(Box::new(taken)));
            }
            ToApply::Snapshotted(index) => {
                let commit = &mut || commit_database(&self.server);
                self.applier.handle_snapshot(index, commit);
            }
        }
    }

    /// Makes a step of the compaction that is under way, if it is due.
    fn step(&mut self) {
        if self.step_at.is_some_and(|at| at <= Instant::now()) {
            let more = self.compaction_step();
            self.step_at = more.then(|| Instant::now() + self.compaction_pause);
        }
    }

    /// Whether a compaction has steps to be made.
    fn apply(&mut self, entries: &[raftpb::Entry], committed_at: Duration) -> bool {
        let started = Instant::now();
        let moment = (&self.clock as &dyn retcd_member::Clock).moment();
        let last = entries.last().map_or(0, raftpb::Entry::index);
        let stages = Stages {
            durable: self.durable_at.of(last),
            committed: committed_at,
            begun: moment.monotonic.since_start(),
        };
        let applied = self.applier.apply(
            moment,
            entries,
            stages,
            |executed, changes| {
                let took = started.elapsed();
                count(&self.server, executed, changes, took);
                warn_if_slow(&self.server, entries, stages, took);
            },
            |membership| self.peers.follow(membership),
            &mut || commit_database(&self.server),
        );
        let report = applied.unwrap_or_else(|failure| stop(&failure));
        for input in report.inputs {
            self.node.report(input);
        }
        report.compacting
    }

    /// Goes on with the database that the leader has sent; the log has recorded its arrival.
    fn restore(&mut self, snapshot: &raftpb::Snapshot) -> bool {
        let started = Instant::now();
        let metadata = snapshot.metadata.clone().unwrap_or_default();
        let index = metadata.index();
        crate::info!("applying snapshot"; "incoming-leader-snapshot-index" => index,
            "incoming-leader-snapshot-term" => metadata.term());
        let _restoring = self.server.restoring.enter();
        let restored = self.applier.restore(
            self.clock.time(),
            snapshot,
            &snap::database_path(&self.dirs.snap_dir, index),
            |membership| self.peers.follow(membership),
            &mut || commit_database(&self.server),
        );
        let restored = restored.unwrap_or_else(|failure| stop(&failure));
        let _ = self.log.send(restored.to_log);
        let removed = snap::remove_databases_before(&*self.dirs.disk, &self.dirs.snap_dir, index);
        if let Err(error) = removed {
            crate::warn!("failed to remove received databases"; "error" => Text(&error));
        }
        crate::info!("applied snapshot"; "incoming-leader-snapshot-index" => index,
            "revision" => restored.revision, "took" => started.elapsed());
        self.node.report(restored.input);
        restored.compacting
    }

    /// Whether there are more.
    fn compaction_step(&mut self) -> bool {
        let started = Instant::now();
        match self.applier.compaction_step() {
            Ok(Step::Idle) => {
                self.compacting_since = None;
                false
            }
            Ok(Step::Stepped) => {
                self.compacting_since.get_or_insert(started);
                let pause = &self.server.metrics.compaction.db_pause;
                pause.observe(started.elapsed().as_secs_f64() * 1e3);
                true
            }
            Ok(Step::Finished { more }) => {
                let finished = &self.server.compacted_at_seconds;
                finished.store(unix_ms() / 1000, Relaxed);
                let began = self.compacting_since.take().unwrap_or(started);
                let total = &self.server.metrics.compaction.db_total;
                total.observe(began.elapsed().as_secs_f64() * 1e3);
                more
            }
            Err(error) => stop_process("compaction failed to read the database", &error),
        }
    }
}

/// Counts what a batch did in the metrics. Entries of a batch are taken to have cost the same.
fn count(server: &Server, executed: &[Executed], changes: Changes, took: Duration) {
    let each = took / u32::try_from(executed.len()).unwrap_or(u32::MAX).max(1);
    let metrics = &server.metrics;
    for request in executed {
        let apply = &metrics.server.apply;
        apply.observe(request.operation, request.success, each);
    }
    metrics.mvcc.puts.inc_by(changes.puts);
    metrics.mvcc.put_bytes.add(changes.put_bytes as i64);
    metrics.mvcc.deletes.inc_by(changes.deletes);
    metrics.mvcc.txns.inc_by(changes.txns);
}

/// `--warning-apply-duration`, of a batch of entries. The largest is told: it is what most likely
/// took the time.
fn warn_if_slow(server: &Server, entries: &[raftpb::Entry], stages: Stages, took: Duration) {
    let expected = server.config.warning_apply_duration.std();
    if took <= expected {
        return;
    }
    server.metrics.server.slow_applies.inc();
    let largest = entries.iter().max_by_key(|entry| entry.data().len());
    let request = largest.map(request_text::of_entry).unwrap_or_default();
    let waited = stages.begun.saturating_sub(stages.committed);
    crate::warn!("apply request took too long"; "took" => took, "expected-duration" => expected,
        "prefix" => "", "request" => request, "entries" => entries.len(), "waited for the apply thread" => waited);
}

fn stop(failure: &ApplyFailure) -> ! {
    let what = match failure {
        ApplyFailure::Entry(_) => {
            "a committed entry cannot be applied; the member stops rather than lose it"
        }
        ApplyFailure::Restore(_) | ApplyFailure::Tree(_) | ApplyFailure::ForeignDatabase { .. } => {
            "the leader's snapshot cannot be applied"
        }
        ApplyFailure::Outdated(_) => {
            "the cluster has gone on to a version that this program is too old for"
        }
    };
    stop_process(what, failure)
}

/// Makes everything applied so far durable in the database; blocks.
pub(super) fn commit_database(server: &Server) -> Result<(), NoRoom> {
    let (done, committed) = oneshot::channel();
    (server.member.commits)(done);
    committed.blocking_recv().unwrap_or(Err(NoRoom))
}
