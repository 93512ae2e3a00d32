//! Background load of scenarios: lists, compactions, defragmentations, snapshots.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;
use retcd_proto::etcdserverpb as pb;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::auth::Users;
use crate::cluster::member_name;
use crate::error::{CallError, Error};
use crate::grpc::Connection;
use crate::keys::KeySpace;
use crate::load;
use crate::target::Target;

const COMPACT_EVERY: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 1_000 });
const DEFRAGMENT_EVERY: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 3_000 });

/// The number of operations of each kind.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) lists: u64,
    pub(super) compactions: u64,
    pub(super) defragmentations: u64,
    pub(super) longest_defragmentation: Duration,
    pub(super) snapshots: u64,
    /// The length of all snapshots together.
    pub(super) snapshot_bytes: u64,
    /// Lists, compactions and snapshots that the server refused temporarily.
    pub(super) refused: u64,
    /// All of them, in the order of their beginnings.
    pub(super) log: Vec<Operation>,
}

/// An operation, from the call to its answer.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) what: What,
    pub(super) began: Instant,
    /// Unset while it is under way.
    pub(super) ended: Option<Instant>,
}

/// What an operation does, and at which member if it is that member's own concern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    CatchUp,
    Compaction,
    Defragmentation(usize),
    Snapshot(usize),
    List,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::CatchUp => f.write_str("catch-up"),
            What::Compaction => f.write_str("compaction"),
            What::Defragmentation(at) => write!(f, "defragmentation of {}", member_name(*at)),
            What::Snapshot(at) => write!(f, "snapshot of {}", member_name(*at)),
            What::List => f.write_str("list"),
        }
    }
}

/// Which operations go on in the background.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operations {
    /// Two clients list this many keys without a pause; zero for none.
    pub(super) listed: u32,
    /// How much history a compaction, one a second, leaves.
    pub(super) kept: History,
    /// Whether the members are defragmented in turn, one every three seconds.
    pub(super) defragmenting: bool,
    /// Whether snapshots are read, one after the other and from the members in turn.
    pub(super) snapshots: bool,
    /// A member that is left out, until [`Background::include`].
    pub(super) absent: Option<usize>,
}

/// The history that a compaction leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum History {
    /// None.
    None,
    /// That since the compaction before.
    LastSecond,
}

/// Chooses the revisions of compactions.
struct Compactor {
    kept: History,
    /// The newest revision when the compaction before was due.
    before: i64,
    /// The revision of the last compaction.
    compacted: i64,
}

impl Compactor {
    fn new(kept: History) -> Self {
        Self {
            kept,
            before: 0,
            compacted: 0,
        }
    }

    /// The revision of the next compaction, if there is something to compact; the server would
    /// refuse one to the same revision again.
    fn next(&mut self, newest: i64) -> Option<i64> {
        let before = std::mem::replace(&mut self.before, newest);
        let revision = match self.kept {
            History::None => newest,
            History::LastSecond => before,
        };
        (revision > self.compacted).then_some(revision)
    }
}

/// The background thread. It ends with the value, if it is not waited for it.
pub(super) struct Background {
    stop: Arc<Notify>,
    all_present: Arc<AtomicBool>,
    /// Unset once it is waited for.
    thread: Option<JoinHandle<Result<Done, Error>>>,
}

impl Background {
    /// Does `operations` on `keys` until [`Background::stop`].
    ///
    /// # Errors
    /// [`Error::Io`] if no file descriptor is available.
    pub(super) fn start(
        users: &Users,
        keys: &KeySpace,
        operations: Operations,
    ) -> Result<Self, Error> {
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let all_present = Arc::new(AtomicBool::new(operations.absent.is_none()));
        let loops = BackgroundLoops {
            user: users.user.clone(),
            root: users.root.clone(),
            keys: keys.clone(),
            operations,
            all_present: Arc::clone(&all_present),
        };
        let runtime = load::runtime()?;
        let thread = thread::spawn(move || {
            let done = RefCell::new(Done::default());
            let Err(failure) = runtime.block_on(async {
                tokio::select! {
                    failed = loops.list(&done, 1) => failed.map_err(Some),
                    failed = loops.list(&done, 2) => failed.map_err(Some),
                    failed = loops.compact(&done) => failed.map_err(Some),
                    failed = loops.defragment(&done) => failed.map_err(Some),
                    failed = loops.read_snapshots(&done) => failed.map_err(Some),
                    () = stopped.notified() => Err(None),
                }
            });
            failure.map_or(Ok(done.take()), Err)
        });
        Ok(Self {
            stop,
            all_present,
            thread: Some(thread),
        })
    }

    /// The member that was absent takes its turn at defragmentations and snapshots from now on.
    pub(super) fn include(&self) {
        self.all_present.store(true, Ordering::Relaxed);
    }

    /// Stops the thread; operations in progress are dropped.
    ///
    /// # Errors
    /// The failure that ended it earlier.
    pub(super) fn stop(mut self) -> Result<Done, Error> {
        self.stop.notify_one();
        let thread = self.thread.take().expect("`self` is consumed");
        thread.join().expect("a panic ends the process")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

/// The background loops; each method runs until it fails, for ever if it has nothing to do.
struct BackgroundLoops {
    user: Target,
    /// The user that may compact and defragment.
    root: Target,
    keys: KeySpace,
    operations: Operations,
    all_present: Arc<AtomicBool>,
}

impl BackgroundLoops {
    /// The members that take part.
    fn present(&self) -> Vec<usize> {
        let all_present = self.all_present.load(Ordering::Relaxed);
        let takes_part = |at: &usize| all_present || Some(*at) != self.operations.absent;
        (0..self.root.members()).filter(takes_part).collect()
    }

    /// The member whose turn is number `turn`.
    fn member(&self, turn: usize) -> usize {
        let present = self.present();
        present[turn % present.len()]
    }

    async fn list(&self, done: &RefCell<Done>, seed: u64) -> Result<Infallible, Error> {
        let listed = u64::from(self.operations.listed);
        if listed == 0 {
            return pending().await;
        }
        let connection = connect(&self.user, self.member(seed as usize)).await?;
        let mut range = connection.method("/etcdserverpb.KV/Range");
        let mut rng = Rng::with_seed(seed);
        loop {
            let first = rng.u64(0..=self.keys.count - listed);
            let request = pb::RangeRequest {
                key: self.keys.key(first),
                range_end: self.keys.key(first + listed),
                ..pb::RangeRequest::default()
            };
            let answered = logged(done, What::List, range.call_for_len(&request)).await;
            if tolerate(done, "list", answered).await?.is_some() {
                update(done, |done| done.lists += 1);
            }
        }
    }

    async fn compact(&self, done: &RefCell<Done>) -> Result<Infallible, Error> {
        let connection = connect(&self.root, self.member(0)).await?;
        let mut range = connection.method("/etcdserverpb.KV/Range");
        let mut compact = connection.method("/etcdserverpb.KV/Compact");
        let read = pb::RangeRequest {
            key: self.keys.key(0),
            ..pb::RangeRequest::default()
        };
        let mut compactor = Compactor::new(self.operations.kept);
        loop {
            sleep(COMPACT_EVERY).await;
            let reply: Result<pb::RangeResponse, _> = range.call(&read).await;
            let Some(reply) = tolerate(done, "get", reply).await? else {
                continue;
            };
            let newest = reply.header.unwrap_or_default().revision;
            let Some(revision) = compactor.next(newest) else {
                continue;
            };
            let request = pb::CompactionRequest {
                revision,
                physical: false,
            };
            let call = compact.call_for_len(&request);
            let compacted = logged(done, What::Compaction, call).await;
            if tolerate(done, "compact", compacted).await?.is_some() {
                update(done, |done| done.compactions += 1);
                compactor.compacted = revision;
            }
        }
    }

    async fn defragment(&self, done: &RefCell<Done>) -> Result<Infallible, Error> {
        if !self.operations.defragmenting {
            return pending().await;
        }
        for turn in 0.. {
            sleep(DEFRAGMENT_EVERY).await;
            let at = self.member(turn);
            let connection = connect(&self.root, at).await?;
            let mut defragment = connection.method("/etcdserverpb.Maintenance/Defragment");
            let request = pb::DefragmentRequest::default();
            let call = defragment.call_for_len(&request);
            let began = Instant::now();
            let answered = logged(done, What::Defragmentation(at), call).await;
            answered.map_err(Error::call("defragment"))?;
            update(done, |done| {
                done.defragmentations += 1;
                done.longest_defragmentation = done.longest_defragmentation.max(began.elapsed());
            });
        }
        unreachable!("the turns do not end")
    }

    async fn read_snapshots(&self, done: &RefCell<Done>) -> Result<Infallible, Error> {
        if !self.operations.snapshots {
            return pending().await;
        }
        for turn in 0.. {
            let at = self.member(turn);
            let connection = connect(&self.root, at).await?;
            let mut snapshot = connection.method("/etcdserverpb.Maintenance/Snapshot");
            let request = pb::SnapshotRequest::default();
            let call = snapshot.call_for_len(&request);
            let answered = logged(done, What::Snapshot(at), call).await;
            if let Some(bytes) = tolerate(done, "snapshot", answered).await? {
                update(done, |done| {
                    done.snapshots += 1;
                    done.snapshot_bytes += bytes as u64;
                });
            }
        }
        unreachable!("the turns do not end")
    }
}

/// Makes a call and keeps when it was under way.
async fn logged<T>(done: &RefCell<Done>, what: What, call: impl Future<Output = T>) -> T {
    let at = done.borrow().log.len();
    update(done, |done| {
        done.log.push(Operation {
            what,
            began: Instant::now(),
            ended: None,
        });
    });
    let answered = call.await;
    update(done, |done| done.log[at].ended = Some(Instant::now()));
    answered
}

/// Counts a temporary refusal, as during an election, and pauses; returns `None` then.
async fn tolerate<T>(
    done: &RefCell<Done>,
    what: &str,
    answered: Result<T, CallError>,
) -> Result<Option<T>, Error> {
    const PAUSE: Duration = Duration::from_millis(10);
    match answered {
        Err(error) if error.is_unavailable() => {
            update(done, |done| done.refused += 1);
            sleep(PAUSE).await;
            Ok(None)
        }
        other => other.map(Some).map_err(Error::call(what)),
    }
}

async fn connect(target: &Target, at: usize) -> Result<Connection, Error> {
    let opened = Connection::open(target, at).await;
    opened.map_err(Error::call(
        "lists, compactions, defragmentations and snapshots",
    ))
}

fn update(done: &RefCell<Done>, change: impl FnOnce(&mut Done)) {
    change(&mut done.borrow_mut());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, serve, target_at};

    fn one_key() -> KeySpace {
        KeySpace {
            prefix: "/k/".into(),
            count: 1,
        }
    }

    fn compactions(kept: History, newest: [i64; 5]) -> Vec<Option<i64>> {
        let mut compactor = Compactor::new(kept);
        let next = |newest| {
            let revision = compactor.next(newest);
            compactor.compacted = revision.unwrap_or(compactor.compacted);
            revision
        };
        newest.map(next).to_vec()
    }

    #[test]
    fn a_compaction_leaves_no_history_or_that_since_the_one_before() {
        let newest = [5, 9, 9, 9, 20];
        assert_eq!(
            compactions(History::None, newest),
            [Some(5), Some(9), None, None, Some(20)]
        );
        assert_eq!(
            compactions(History::LastSecond, newest),
            [None, Some(5), Some(9), None, None]
        );
    }

    #[test]
    fn compactions_go_on_until_the_stop() {
        let model = Model::default();
        let target = target_at(&[serve(&model)]);
        let keys = one_key();
        let operations = Operations {
            listed: 0,
            kept: History::LastSecond,
            defragmenting: false,
            snapshots: false,
            absent: None,
        };
        let background = Background::start(&Users::nobody(&target), &keys, operations).unwrap();
        while model.keyspace().compactions.len() < 4 {
            let put = load::put_request(keys.key(0), "v".into());
            model.keyspace().put(put);
        }
        let done = background.stop().unwrap();
        assert!(done.compactions >= 3 && done.refused == 0, "{done:?}");
        let compactions = &model.keyspace().compactions;
        assert!(compactions.is_sorted_by(|a, b| a < b), "{compactions:?}");
        let logged = done
            .log
            .iter()
            .filter(|operation| operation.ended.is_some());
        assert!(logged.count() as u64 >= done.compactions);
    }

    #[test]
    fn an_absent_member_takes_no_turn_until_it_is_included() {
        let members = [Model::default(), Model::default(), Model::default()];
        let target = target_at(&members.each_ref().map(serve));
        let keys = one_key();
        let operations = Operations {
            listed: 1,
            kept: History::None,
            defragmenting: true,
            snapshots: true,
            absent: Some(1),
        };
        let background = Background::start(&Users::nobody(&target), &keys, operations).unwrap();
        let turns = |at: usize| {
            let keyspace = members[at].keyspace();
            keyspace.defragmentations.min(keyspace.snapshots)
        };
        while turns(0) < 3 || turns(2) < 3 {
            thread::yield_now();
        }
        assert_eq!(members[1].connections.load(Ordering::Relaxed), 0);
        background.include();
        while turns(1) < 2 {
            thread::yield_now();
        }
        let done = background.stop().unwrap();
        assert!(done.lists > 0 && done.snapshots >= 8 && done.refused == 0);
        assert_eq!(done.snapshot_bytes % done.snapshots, 0);
        for what in [What::List, What::Defragmentation(1), What::Snapshot(0)] {
            let mut logged = done.log.iter();
            assert!(logged.any(|operation| operation.what == what), "{what}");
        }
        assert!(done.log.is_sorted_by_key(|operation| operation.began));
    }
}
