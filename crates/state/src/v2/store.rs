//! The store, for whoever applies the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use retcd_proto::etcdserverpb::Request;

use super::event::Failure;
use super::history::History;
use super::hub::{Notice, Shared};
use super::path::DEPTH_MAX;
use super::tree::{Content, Entry, TOPS, Tree};
use super::{
    Action, Code, Condition, Counter, Error, Event, Lifetime, Node, Operation, Path, Reader,
    Timestamp, View,
};

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
        };
        Store {
            expirations,
            tree,
            index,
            pending: Vec::new(),
            is_changed: false,
            shared: Arc::new(Shared::new(view, history)),
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

    /// When the first node expires, published or not; none: no node does.
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
        self.is_changed = false;
        let view = self.view();
        self.shared.publish(applied, view, self.pending.drain(..));
    }

    fn view(&self) -> View {
        View {
            tree: self.tree.clone(),
            index: self.index,
            next_expiration: first(&self.expirations),
        }
    }

    /// The same tree as if more had happened before: the next change is the one after `index`.
    pub fn at_index(mut self, index: u64) -> Store {
        assert!(self.index <= index, "index {} is to be {index}", self.index);
        self.index = index;
        let history = self.shared.history();
        Store::with(self.tree, index, history)
    }

    /// Has the tree and the index of `other`. Watchers hear of nothing: what differs is what the
    /// cluster says of itself.
    pub fn become_like(&mut self, other: Store) {
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
        self.shared.counts.add_either(result.is_ok(), counters);
        result
            .map(Answer::Event)
            .map_err(|failure| failure.at(self.index))
    }

    fn set(
        &mut self,
        now: Timestamp,
        path: Path,
        dir: bool,
        value: &str,
        lifetime: Lifetime,
    ) -> Result<Arc<Event>, Failure> {
        let previous = match self.tree.find(&path) {
            Ok(entry) => Some(Arc::clone(entry)),
            Err(failure) if failure.code == Code::KeyNotFound && !lifetime.refresh => None,
            Err(failure) => return Err(failure),
        };
        check_not_top(&path)?;
        if previous.as_ref().is_some_and(|entry| entry.is_directory()) {
            return Err(Failure::new(Code::NotFile, path));
        }
        let value = match &previous {
            Some(previous) if lifetime.refresh => Arc::from(previous.value()),
            _ => Arc::from(value),
        };
        let previous = previous.map(|entry| entry.node(&path, now));
        let mut event = self.put_new(now, Action::Set, path, dir, value, lifetime)?;
        event.prev_node = previous;
        event.refresh = lifetime.refresh;
        Ok(self.commit(event, None))
    }

    fn create(
        &mut self,
        now: Timestamp,
        path: Path,
        unique: bool,
        dir: bool,
        value: &str,
        lifetime: Lifetime,
    ) -> Result<Arc<Event>, Failure> {
        let path = match unique {
            true => path.child(&format!("{:020}", self.index + 1)),
            false => path,
        };
        check_not_top(&path)?;
        match self.tree.find(&path) {
            Ok(_) => return Err(Failure::new(Code::NodeExists, path)),
            Err(failure) if failure.code == Code::KeyNotFound => {}
            Err(failure) => {
                self.shared.counts.add(Counter::SetsFail);
                return Err(failure);
            }
        }
        let event = self.put_new(now, Action::Create, path, dir, value.into(), lifetime)?;
        Ok(self.commit(event, None))
    }

    /// Puts a new node into the tree, in place of any file, and makes the directories on the way.
    fn put_new(
        &mut self,
        now: Timestamp,
        action: Action,
        path: Path,
        dir: bool,
        value: Arc<str>,
        lifetime: Lifetime,
    ) -> Result<Event, Failure> {
        if path.depth() > DEPTH_MAX {
            return Err(Failure::new(Code::InvalidField, "path is too deep"));
        }
        let index = self.index + 1;
        self.tree.create_parents(&path, index)?;
        let entry = Entry {
            created: index,
            modified: index,
            expiration: lifetime.of_new_node(),
            content: match dir {
                true => Content::Directory,
                false => Content::File(value),
            },
        };
        let node = entry.node(&path, now);
        self.put(path, entry);
        Ok(self.event(action, node))
    }

    fn update(
        &mut self,
        now: Timestamp,
        path: Path,
        value: &str,
        lifetime: Lifetime,
    ) -> Result<Arc<Event>, Failure> {
        check_not_top(&path)?;
        let entry = Arc::clone(self.tree.find(&path)?);
        if entry.is_directory() && !value.is_empty() {
            return Err(Failure::new(Code::NotFile, path));
        }
        Ok(self.rewrite(now, Action::Update, path, &entry, value, lifetime))
    }

    fn compare_and_swap(
        &mut self,
        now: Timestamp,
        path: Path,
        condition: Condition<'_>,
        value: &str,
        lifetime: Lifetime,
    ) -> Result<Arc<Event>, Failure> {
        check_not_top(&path)?;
        let entry = self.compare(&path, condition)?;
        Ok(self.rewrite(now, Action::CompareAndSwap, path, &entry, value, lifetime))
    }

    /// Changes a node's value and lifetime. A directory keeps the index of its last change, though
    /// the event shows the new one.
    fn rewrite(
        &mut self,
        now: Timestamp,
        action: Action,
        path: Path,
        entry: &Entry,
        value: &str,
        lifetime: Lifetime,
    ) -> Arc<Event> {
        let index = self.index + 1;
        let previous = entry.node(&path, now);
        let (modified, content) = match &entry.content {
            Content::Directory => (entry.modified, Content::Directory),
            file if lifetime.refresh => (index, file.clone()),
            Content::File(_) => (index, Content::File(value.into())),
        };
        let entry = Entry {
            created: entry.created,
            modified,
            expiration: lifetime.expiration,
            content,
        };
        let mut node = entry.node(&path, now);
        node.modified_index = index;
        self.put(path, entry);
        let mut event = self.event(action, node);
        event.prev_node = Some(previous);
        event.refresh = lifetime.refresh;
        self.commit(event, None)
    }

    fn delete(
        &mut self,
        now: Timestamp,
        path: Path,
        dir: bool,
        recursive: bool,
    ) -> Result<Arc<Event>, Failure> {
        check_not_top(&path)?;
        let entry = self.tree.find(&path)?;
        if entry.is_directory() {
            if !dir && !recursive {
                return Err(Failure::new(Code::NotFile, path));
            }
            if !recursive && !self.tree.is_empty_directory(&path) {
                return Err(Failure::new(Code::DirectoryNotEmpty, path));
            }
        }
        Ok(self.remove(now, Action::Delete, &path))
    }

    fn compare_and_delete(
        &mut self,
        now: Timestamp,
        path: Path,
        condition: Condition<'_>,
    ) -> Result<Arc<Event>, Failure> {
        self.compare(&path, condition)?;
        Ok(self.remove(now, Action::CompareAndDelete, &path))
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

    /// The file, if it is what the condition says.
    fn compare(&self, path: &Path, condition: Condition<'_>) -> Result<Arc<Entry>, Failure> {
        let entry = self.tree.find(path)?;
        let Content::File(value) = &entry.content else {
            return Err(Failure::new(Code::NotFile, path));
        };
        let mut causes = Vec::new();
        if !condition.value.is_empty() && condition.value != &**value {
            causes.push(format!("[{} != {value}]", condition.value));
        }
        if condition.index != 0 && condition.index != entry.modified {
            causes.push(format!("[{} != {}]", condition.index, entry.modified));
        }
        match causes.is_empty() {
            true => Ok(Arc::clone(entry)),
            false => Err(Failure::new(Code::CompareFailed, causes.join(" "))),
        }
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

fn check_not_top(path: &Path) -> Result<(), Failure> {
    match TOPS.contains(&path.as_str()) {
        true => Err(Failure::new(Code::RootReadOnly, "/")),
        false => Ok(()),
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
