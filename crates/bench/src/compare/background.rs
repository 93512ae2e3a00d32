//! Background load of scenarios: lists, compactions, defragmentations.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;
use retcd_proto::etcdserverpb as pb;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::auth::Users;
use crate::error::{CallError, Error};
use crate::grpc::Connection;
use crate::keys::KeySpace;
use crate::load;
use crate::target::Target;

const COMPACT_EVERY: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 1_000 });
const DEFRAGMENT_EVERY: Duration = Duration::from_secs(3);

/// The number of operations of each kind.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Done {
    pub(super) lists: u64,
    pub(super) compactions: u64,
    pub(super) defragmentations: u64,
    pub(super) longest_defragmentation: Duration,
    /// Lists and compactions that the server refused temporarily.
    pub(super) refused: u64,
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

/// The background thread.
pub(super) struct Background {
    stop: Arc<Notify>,
    thread: JoinHandle<Result<Done, Error>>,
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
        let loops = BackgroundLoops {
            user: users.user.clone(),
            root: users.root.clone(),
            keys: keys.clone(),
            operations,
        };
        let runtime = load::runtime()?;
        let thread = thread::spawn(move || {
            let done = Cell::new(Done::default());
            let Err(failure) = runtime.block_on(async {
                tokio::select! {
                    failed = loops.list(&done, 1) => failed.map_err(Some),
                    failed = loops.list(&done, 2) => failed.map_err(Some),
                    failed = loops.compact(&done) => failed.map_err(Some),
                    failed = loops.defragment(&done) => failed.map_err(Some),
                    () = stopped.notified() => Err(None),
                }
            });
            failure.map_or(Ok(done.get()), Err)
        });
        Ok(Self { stop, thread })
    }

    /// Stops the thread; operations in progress are dropped.
    ///
    /// # Errors
    /// The failure that ended it earlier.
    pub(super) fn stop(self) -> Result<Done, Error> {
        self.stop.notify_one();
        self.thread.join().expect("a panic ends the process")
    }
}

/// The background loops; each method runs until it fails, for ever if it has nothing to do.
struct BackgroundLoops {
    user: Target,
    /// The user that may compact and defragment.
    root: Target,
    keys: KeySpace,
    operations: Operations,
}

impl BackgroundLoops {
    async fn list(&self, done: &Cell<Done>, seed: u64) -> Result<Infallible, Error> {
        let listed = u64::from(self.operations.listed);
        if listed == 0 {
            return pending().await;
        }
        let connection = connect(&self.user, seed as usize).await?;
        let mut range = connection.method("/etcdserverpb.KV/Range");
        let mut rng = Rng::with_seed(seed);
        loop {
            let first = rng.u64(0..=self.keys.count - listed);
            let request = pb::RangeRequest {
                key: self.keys.key(first),
                range_end: self.keys.key(first + listed),
                ..pb::RangeRequest::default()
            };
            let answered = range.call_for_len(&request).await;
            if tolerate(done, "list", answered).await?.is_some() {
                update(done, |done| done.lists += 1);
            }
        }
    }

    async fn compact(&self, done: &Cell<Done>) -> Result<Infallible, Error> {
        let connection = connect(&self.root, 0).await?;
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
            let compacted = compact.call_for_len(&request).await;
            if tolerate(done, "compact", compacted).await?.is_some() {
                update(done, |done| done.compactions += 1);
                compactor.compacted = revision;
            }
        }
    }

    async fn defragment(&self, done: &Cell<Done>) -> Result<Infallible, Error> {
        if !self.operations.defragmenting {
            return pending().await;
        }
        let mut members = Vec::new();
        for at in 0..self.root.members() {
            let connection = connect(&self.root, at).await?;
            members.push(connection.method("/etcdserverpb.Maintenance/Defragment"));
        }
        let mut next = 0;
        loop {
            sleep(DEFRAGMENT_EVERY).await;
            let defragment = &mut members[next];
            let began = Instant::now();
            let answered = defragment
                .call_for_len(&pb::DefragmentRequest::default())
                .await;
            answered.map_err(Error::call("defragment"))?;
            update(done, |done| {
                done.defragmentations += 1;
                done.longest_defragmentation = done.longest_defragmentation.max(began.elapsed());
            });
            next = (next + 1) % members.len();
        }
    }
}

/// Counts a temporary refusal, as during an election, and pauses; returns `None` then.
async fn tolerate<T>(
    done: &Cell<Done>,
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
    opened.map_err(Error::call("lists, compactions and defragmentations"))
}

fn update(done: &Cell<Done>, change: impl FnOnce(&mut Done)) {
    let mut value = done.get();
    change(&mut value);
    done.set(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, serve, target_at};

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
        let keys = KeySpace {
            prefix: "/k/".into(),
            count: 1,
        };
        let operations = Operations {
            listed: 0,
            kept: History::LastSecond,
            defragmenting: false,
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
    }
}
