//! The store, for whoever applies the log.

mod operations;

use std::collections::BTreeSet;
use std::sync::Arc;

use retcd_proto::etcdserverpb::Request;

use super::history::{HISTORY_EVENTS, History};
use super::hub::{Notice, Shared};
use super::tree::{Entry, Tree};
use super::{Action, Code, Counter, Error, Event, Node, Operation, Path, Reader, Timestamp, View};

/// What a request has brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This.
    Event(Arc<Event>),
    /// As many nodes have expired.
    Expired(usize),
    /// Nothing: it has no method that is known.
    UnknownMethod,
}

/// The tree of API v2 and its history: see the [module](super).
///
/// Invariant: `expirations` are those of the tree's nodes.
pub struct Store {
    tree: Tree,
    index: u64,
    expirations: BTreeSet<(Timestamp, Path)>,
    /// Changes that are not published.
    pending: Vec<Notice>,
    /// Whether there is something to publish that nobody is told of.
    is_changed: bool,
    /// The history, where the published one is of another tree.
    other_history: Option<History>,
    /// See [`Store::is_written`].
    is_written: bool,
    shared: Arc<Shared>,
}

impl Default for Store {
    fn default() -> Store {
        Store::new()
    }
}

impl Store {
    /// A store before the first request.
    pub fn new() -> Store {
        Store::with(Tree::new(), 0, History::default())
    }

    pub(super) fn with(tree: Tree, index: u64, history: History) -> Store {
        let expirations = expirations(&tree);
        let view = View {
            tree: tree.clone(),
            index,
            next_expiration: first(&expirations),
            is_written: false,
        };
        Store {
            tree,
            index,
            expirations,
            pending: Vec::new(),
            is_changed: false,
            other_history: None,
            is_written: false,
            shared: Arc::new(Shared::new(view, history)),
        }
    }

    fn view(&self) -> View {
        View {
            tree: self.tree.clone(),
            index: self.index,
            next_expiration: self.next_expiration(),
            is_written: self.is_written,
        }
    }

    /// A handle for other threads.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// The index of the last change, published or not.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Whether users have written to it. Its owner knows; nothing here depends on it.
    pub fn is_written(&self) -> bool {
        self.is_written
    }

    /// Users have written to it.
    pub fn set_written(&mut self) {
        self.is_changed |= !self.is_written;
        self.is_written = true;
    }

    /// When the first node expires, published or not.
    pub fn next_expiration(&self) -> Option<Timestamp> {
        first(&self.expirations)
    }

    /// Whether there is such a node, published or not.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.tree.get(path).is_some()
    }

    pub(super) fn shared(&self) -> &Shared {
        let unpublished = !self.pending.is_empty() || self.is_changed;
        assert!(!unpublished, "changes that are not published");
        &self.shared
    }

    /// Shows what was applied, up to the entry `applied`, to readers and watchers; before it is
    /// acknowledged.
    pub fn publish(&mut self, applied: u64) {
        if self.pending.is_empty() && !self.is_changed {
            return;
        }
        let (view, history) = (self.view(), self.other_history.take());
        self.shared.publish(applied, view, history, &self.pending);
        self.pending.clear();
        self.is_changed = false;
    }

    /// The same tree as if more had happened before, to what nobody can watch: the next change is
    /// the one after `index`. The history has no gap, since etcd counts on that.
    pub fn at_index(mut self, index: u64) -> Store {
        assert!(self.index <= index, "index {} is to be {index}", self.index);
        self.index = index;
        let mut history = self.shared.history();
        let first = (history.last_index() + 1).max(index.saturating_sub(HISTORY_EVENTS as u64) + 1);
        for index in first..=index {
            history.push(Arc::new(unwatched_event(index)));
        }
        Store::with(self.tree, index, history)
    }

    /// Has tree, index and history of `other`. Watchers hear of nothing: what differs is what the
    /// cluster says of itself.
    pub fn become_like(&mut self, other: Store) {
        self.pending.clear();
        self.other_history = Some(other.shared.history());
        self.tree = other.tree;
        self.index = other.index;
        self.expirations = other.expirations;
        self.is_changed = true;
    }

    /// Goes on with `other`, which is of the entry `applied`, behind the handles that others hold.
    /// Their watchers end.
    pub fn replace(&mut self, other: Store, applied: u64) {
        let unpublished = !self.pending.is_empty() || self.is_changed;
        assert!(!unpublished, "changes that are not published");
        let history = other.shared.history();
        self.shared.replace(applied, other.view(), history);
        self.shared.counts.store(&other.shared.counts.load());
        self.tree = other.tree;
        self.index = other.index;
        self.expirations = other.expirations;
        self.is_written = other.is_written;
    }

    /// Executes a request of the log. `now` is this member's clock, and decides nothing: it is
    /// what the `ttl` of the event is counted from.
    ///
    /// # Errors
    /// What the client did wrong; nothing has changed then, but for the statistics.
    pub fn apply(&mut self, now: Timestamp, request: &Request) -> Result<Answer, Error> {
        match Operation::of(request) {
            Some(operation) => self.execute(now, operation),
            None => Ok(Answer::UnknownMethod),
        }
    }

    /// Executes what a request asks for; see [`Store::apply`].
    ///
    /// # Errors
    /// As there.
    pub fn execute(&mut self, now: Timestamp, operation: Operation<'_>) -> Result<Answer, Error> {
        let counters = match &operation {
            Operation::Get { .. } => (Counter::GetsSuccess, Counter::GetsFail),
            Operation::Set { .. } => (Counter::SetsSuccess, Counter::SetsFail),
            Operation::Create { .. } => (Counter::CreateSuccess, Counter::CreateFail),
            Operation::Update { .. } => (Counter::UpdateSuccess, Counter::UpdateFail),
            Operation::CompareAndSwap { .. } => {
                (Counter::CompareAndSwapSuccess, Counter::CompareAndSwapFail)
            }
            Operation::Delete { .. } => (Counter::DeleteSuccess, Counter::DeleteFail),
            Operation::CompareAndDelete { .. } => (
                Counter::CompareAndDeleteSuccess,
                Counter::CompareAndDeleteFail,
            ),
            Operation::Expire { time } => return Ok(Answer::Expired(self.expire(now, *time))),
        };
        let result = match operation {
            Operation::Get { path, recursive } => {
                let event = self.tree.read(&path, recursive, now, self.index);
                event.map(Arc::new)
            }
            Operation::Set {
                path,
                dir,
                value,
                lifetime,
            } => self.set(now, path, dir, value, lifetime),
            Operation::Create {
                path,
                unique,
                dir,
                value,
                lifetime,
            } => self.create(now, path, unique, dir, value, lifetime),
            Operation::Update {
                path,
                value,
                lifetime,
            } => self.update(now, path, value, lifetime),
            Operation::CompareAndSwap {
                path,
                condition,
                value,
                lifetime,
            } => self.compare_and_swap(now, path, condition, value, lifetime),
            Operation::Delete {
                path,
                dir,
                recursive,
            } => self.delete(now, path, dir, recursive),
            Operation::CompareAndDelete { path, condition } => {
                self.compare_and_delete(now, path, condition)
            }
            Operation::Expire { .. } => unreachable!("answered above"),
        };
        let counts_as_success = match &result {
            Ok(_) => true,
            Err(failure) => is_counted_among_successes(failure.code, counters.0),
        };
        self.shared.counts.add_either(counts_as_success, counters);
        result
            .map(Answer::Event)
            .map_err(|failure| failure.at(self.index))
    }

    /// Removes what has expired by `time`, in the order in which it did.
    fn expire(&mut self, now: Timestamp, time: Timestamp) -> usize {
        let mut expired = 0;
        while let Some((end, path)) = self.expirations.first()
            && *end <= time
        {
            let path = path.clone();
            self.remove(now, Action::Expire, &path);
            self.shared.counts.add(Counter::ExpireCount);
            expired += 1;
        }
        expired
    }

    /// Removes a node and all below it.
    fn remove(&mut self, now: Timestamp, action: Action, path: &Path) -> Arc<Event> {
        let before = self.tree.clone();
        let removed = self.tree.remove(path);
        for (path, entry) in &removed {
            self.forget_expiration(path, entry);
        }
        let previous = removed[0].1.node(path, now);
        let mut event = self.event(
            action,
            Node {
                value: None,
                expiration: None,
                ttl: 0,
                modified_index: self.index + 1,
                ..previous.clone()
            },
        );
        event.prev_node = Some(previous);
        self.commit(event, Some(before))
    }

    /// Puts a node into its directory, and its expiration where it belongs.
    fn put(&mut self, path: Path, entry: Entry) {
        if let Some(previous) = self.tree.get(&path).cloned() {
            self.forget_expiration(&path, &previous);
        }
        if let Some(end) = entry.expiration {
            self.expirations.insert((end, path.clone()));
        }
        self.tree.insert(path, entry);
    }

    fn forget_expiration(&mut self, path: &Path, entry: &Entry) {
        if let Some(end) = entry.expiration {
            let removed = self.expirations.remove(&(end, path.clone()));
            assert!(removed, "expiration {end} of {path} is not known");
        }
    }

    fn event(&self, action: Action, node: Node) -> Event {
        Event {
            action,
            node,
            prev_node: None,
            refresh: false,
            store_index: self.index + 1,
        }
    }

    /// The change has taken the next index.
    fn commit(&mut self, event: Event, before: Option<Tree>) -> Arc<Event> {
        self.index += 1;
        assert_eq!(event.index(), self.index, "the index of {event:?}");
        let event = Arc::new(event);
        self.pending.push(Notice {
            event: Arc::clone(&event),
            before,
        });
        event
    }
}

/// Some change of what the cluster says of itself.
fn unwatched_event(index: u64) -> Event {
    Event {
        action: Action::Create,
        node: Node {
            key: Path::clean("/0/members"),
            value: None,
            dir: true,
            expiration: None,
            ttl: 0,
            nodes: Vec::new(),
            modified_index: index,
            created_index: index,
        },
        prev_node: None,
        refresh: false,
        store_index: index,
    }
}

fn first(expirations: &BTreeSet<(Timestamp, Path)>) -> Option<Timestamp> {
    expirations.first().map(|&(time, _)| time)
}

fn expirations(tree: &Tree) -> BTreeSet<(Timestamp, Path)> {
    let expiring = tree.iter();
    let expiring = expiring.filter_map(|(path, entry)| Some((entry.expiration?, path.clone())));
    expiring.collect()
}

/// Whether a refusal adds to `successes`, as odd as it is: etcd 3.3: `store/store.go` counts by an
/// error that some of its returns pass by.
fn is_counted_among_successes(refusal: Code, successes: Counter) -> bool {
    match successes {
        Counter::UpdateSuccess => matches!(refusal, Code::RootReadOnly | Code::NotFile),
        Counter::CompareAndSwapSuccess | Counter::DeleteSuccess => refusal == Code::RootReadOnly,
        Counter::CompareAndDeleteSuccess => {
            matches!(refusal, Code::NotFile | Code::CompareFailed)
        }
        _ => false,
    }
}
