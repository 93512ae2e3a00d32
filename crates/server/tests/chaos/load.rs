//! Writers and readers that remember what they were told, and hold it against every later answer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use retcd_proto::etcdserverpb as pb;
use tokio::task::JoinHandle;

use super::cluster::{Cluster, ELECTION_TIMEOUT, Member};
use super::place::until;

/// How long a client waits for one answer before it asks somebody else.
const CALL_PATIENCE: Duration = ELECTION_TIMEOUT.saturating_mul(2);
/// A pause after a failure, as clients make it.
const BACK_OFF: Duration = Duration::from_millis(10);
/// Between two attempts to write while the cluster may have no leader.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// What clients sent and were told. Every write has a key of its own.
#[derive(Default)]
struct History {
    /// Values by key, whatever became of them.
    attempted: BTreeMap<String, String>,
    /// Revision by key, in the order of the answers' arrival.
    acknowledged: Vec<(String, i64)>,
    /// The highest revision that any answer showed.
    highest: i64,
    failed: BTreeMap<String, usize>,
    violations: Vec<String>,
}

impl History {
    /// A key that was never written, a value for it, and the highest revision so far.
    fn next_put(&mut self) -> (String, String, i64) {
        let key = format!("load/{:08}", self.attempted.len());
        let value = format!(
            "{:016x}{:>2$}",
            fastrand::u64(..),
            "",
            fastrand::usize(..300)
        );
        self.attempted.insert(key.clone(), value.clone());
        (key, value, self.highest)
    }

    /// An acknowledged key with its revision, if there is any, and the highest revision so far.
    fn next_get(&self) -> (Option<(String, i64)>, i64) {
        let chosen = match fastrand::bool() {
            true => self.acknowledged.last(),
            false => fastrand::choice(&self.acknowledged),
        };
        (chosen.cloned(), self.highest)
    }
}

/// A load on a cluster; it ends with [`Load::finish`].
#[derive(Clone)]
pub struct Load {
    members: Vec<Rc<Member>>,
    history: Rc<RefCell<History>>,
    ending: Rc<Cell<bool>>,
    tasks: Rc<RefCell<Vec<JoinHandle<()>>>>,
}

impl Load {
    /// Starts clients that ask all members that are to be asked, at random.
    pub fn start(cluster: &Cluster, writers: usize, readers: usize) -> Load {
        let load = Load {
            members: cluster.members.clone(),
            history: Rc::default(),
            ending: Rc::default(),
            tasks: Rc::default(),
        };
        for _ in 0..writers {
            let client = load.clone();
            load.spawn(async move {
                while !client.ending.get() {
                    client.put().await;
                }
            });
        }
        for _ in 0..readers {
            let client = load.clone();
            load.spawn(async move {
                while !client.ending.get() {
                    client.get().await;
                }
            });
        }
        load
    }

    fn spawn(&self, client: impl Future<Output = ()> + 'static) {
        self.tasks
            .borrow_mut()
            .push(tokio::task::spawn_local(client));
    }

    fn someone(&self) -> Option<&Rc<Member>> {
        let asked: Vec<_> = self.members.iter().filter(|m| m.asked.get()).collect();
        fastrand::choice(asked)
    }

    /// Writes a new key; whether that was acknowledged.
    async fn put(&self) -> bool {
        let Some(member) = self.someone() else {
            tokio::time::sleep(BACK_OFF).await;
            return false;
        };
        let (key, value, before) = self.history.borrow_mut().next_put();
        let request = pb::PutRequest {
            key: key.clone().into(),
            value: value.into(),
            ..Default::default()
        };
        let mut kv = member.kv();
        let answer = tokio::time::timeout(CALL_PATIENCE, kv.put(request)).await;
        let Some(answer) = self.answered(answer) else {
            tokio::time::sleep(BACK_OFF).await;
            return false;
        };
        let revision = answer.header.expect("answers have a header").revision;
        let mut history = self.history.borrow_mut();
        if revision <= before {
            history.violations.push(format!(
                "{}: {key} was put at revision {revision}, but {before} was seen before",
                member.name
            ));
        }
        history.acknowledged.push((key, revision));
        history.highest = history.highest.max(revision);
        true
    }

    /// Reads an acknowledged key.
    async fn get(&self) {
        let (chosen, before) = self.history.borrow().next_get();
        let (Some((key, revision)), Some(member)) = (chosen, self.someone()) else {
            tokio::time::sleep(BACK_OFF).await;
            return;
        };
        let request = pb::RangeRequest {
            key: key.clone().into(),
            ..Default::default()
        };
        let mut kv = member.kv();
        let answer = tokio::time::timeout(CALL_PATIENCE, kv.range(request)).await;
        let Some(answer) = self.answered(answer) else {
            tokio::time::sleep(BACK_OFF).await;
            return;
        };
        let shown = answer.header.expect("answers have a header").revision;
        let mut history = self.history.borrow_mut();
        let found: Vec<_> = answer.kvs.iter().map(|kv| kv.mod_revision).collect();
        if shown < before || found != [revision] {
            history.violations.push(format!(
                "{}: {key} was put at {revision}, read at {shown} after {before} was seen: {found:?}",
                member.name
            ));
        }
        history.highest = history.highest.max(shown);
    }

    fn answered<T>(
        &self,
        answer: Result<Result<tonic::Response<T>, tonic::Status>, tokio::time::error::Elapsed>,
    ) -> Option<T> {
        let text = match answer {
            Ok(Ok(answer)) => return Some(answer.into_inner()),
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => "no answer".to_owned(),
        };
        *self.history.borrow_mut().failed.entry(text).or_default() += 1;
        None
    }

    pub fn acknowledged(&self) -> usize {
        self.history.borrow().acknowledged.len()
    }

    /// Waits for `count` more acknowledged writes.
    pub async fn more(&self, count: usize) {
        let enough = self.acknowledged() + count;
        until("more writes", async || self.acknowledged() >= enough).await;
    }

    /// Sends writes until one is acknowledged that was sent from now on; how long that took.
    ///
    /// A write that a dead leader took along is heard of never again, so that the load's own
    /// clients would measure their patience instead.
    pub async fn resumed(&self) -> Duration {
        let started = Instant::now();
        let done = Rc::new(Cell::new(false));
        while !done.get() {
            let (client, done) = (self.clone(), Rc::clone(&done));
            self.spawn(async move {
                if client.put().await {
                    done.set(true);
                }
            });
            tokio::time::sleep(PROBE_INTERVAL).await;
            assert!(
                started.elapsed() < 60 * ELECTION_TIMEOUT,
                "no write is acknowledged: {:?}",
                self.history.borrow().failed
            );
        }
        started.elapsed()
    }

    /// Ends the load; then everything must be as it was told, on every member that is asked.
    pub async fn finish(self, cluster: &Cluster) {
        self.ending.set(true);
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        for task in tasks {
            task.await.expect("no client panics");
        }
        for member in cluster.asked() {
            self.check(&member).await;
        }
        check_hashes(cluster).await;
        let history = self.history.borrow();
        println!(
            "{} of {} writes acknowledged; failures: {:?}",
            history.acknowledged.len(),
            history.attempted.len(),
            history.failed
        );
        assert_eq!(history.violations, Vec::<String>::new());
    }

    async fn check(&self, member: &Member) {
        let everything = pb::RangeRequest {
            key: "load/".into(),
            range_end: "load0".into(),
            ..Default::default()
        };
        let mut held = BTreeMap::new();
        until("a member to answer", async || {
            let Ok(answer) = member.kv().range(everything.clone()).await else {
                return false;
            };
            held = answer
                .into_inner()
                .kvs
                .into_iter()
                .map(|kv| (String::from_utf8(kv.key.to_vec()).expect("text"), kv))
                .collect();
            true
        })
        .await;
        let history = self.history.borrow();
        let name = &member.name;
        for (key, revision) in &history.acknowledged {
            let found = held.get(key).map(|kv| kv.mod_revision);
            assert_eq!(found, Some(*revision), "{name}: {key} was acknowledged");
        }
        for (key, kv) in held {
            let sent = history.attempted.get(&key).map(String::as_bytes);
            assert_eq!(sent, Some(&kv.value[..]), "{name}: {key}");
        }
    }
}

/// All members that are asked arrive at the same revision and hold the same there.
pub async fn check_hashes(cluster: &Cluster) {
    let members = cluster.asked();
    let mut highest = 0;
    for member in &members {
        highest = highest.max(member.revision().await.expect("a member that is asked"));
    }
    let mut hashes = Vec::new();
    for member in &members {
        until("a member to catch up", async || {
            member.revision().await >= Some(highest)
        })
        .await;
        hashes.push(member.hash_kv(highest).await);
    }
    assert!(
        hashes.iter().all(|hash| *hash == hashes[0]),
        "at revision {highest}: {hashes:?}"
    );
}

/// Runs a test with everything on one thread.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}
