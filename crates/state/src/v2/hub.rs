//! What the store shares with readers and watchers, and who hears of which event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use parking_lot::{Mutex, RwLock};

use super::event::Event;
use super::history::History;
use super::reader::{View, Watch};
use super::statistics::{Counts, Statistics};
use super::tree::Tree;
use super::watcher::{Queue, Watcher};
use super::{Document, Error, Path};

/// The part of the store that many threads see.
///
/// Order of locks: hub, then view or queue.
pub(super) struct Shared {
    view: RwLock<View>,
    hub: Mutex<Hub>,
    pub(super) counts: Counts,
}

/// A change that is to be published.
pub(super) struct Notice {
    pub(super) event: Arc<Event>,
    /// The tree before, if nodes were removed: watchers of all of them hear of it.
    pub(super) before: Option<Tree>,
}

/// Names a watcher in the hub, never another one.
#[derive(Clone)]
pub(super) struct Ticket {
    path: Path,
    id: u64,
}

/// Watchers and what they can look back at.
struct Hub {
    /// Invariant: `history` ends with it, and watchers have heard of all up to it.
    index: u64,
    history: History,
    watchers: BTreeMap<Path, BTreeMap<u64, Registered>>,
    count: u64,
    next_id: u64,
    kept: Kept,
}

/// Documents of entries that somebody may ask for.
struct Kept {
    /// The entry that the store is of.
    applied: u64,
    /// How many may ask.
    keepers: usize,
    /// By entry, ascending; nothing while nobody may ask.
    documents: Vec<(u64, Document)>,
}

/// Keeps documents; see [`Reader::keep`](super::Reader::keep).
pub struct Keeper {
    shared: Arc<Shared>,
}

impl Keeper {
    /// The store after the entry `applied`; `None` if that is from before the keeper.
    pub fn at(&self, applied: u64) -> Option<Document> {
        let hub = self.shared.hub.lock();
        let newest = hub.kept.documents.iter().rev();
        let mut newest = newest.skip_while(|(entry, _)| *entry > applied);
        newest.next().map(|(_, document)| document.clone())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let kept = &mut self.shared.hub.lock().kept;
        kept.keepers -= 1;
        if kept.keepers == 0 {
            kept.documents.clear();
        }
    }
}

struct Registered {
    queue: Arc<Mutex<Queue>>,
    recursive: bool,
    stream: bool,
    since: u64,
}

impl Shared {
    pub(super) fn new(view: View, history: History) -> Shared {
        Shared {
            hub: Mutex::new(Hub {
                index: view.index(),
                history,
                watchers: BTreeMap::new(),
                count: 0,
                next_id: 0,
                kept: Kept {
                    applied: 0,
                    keepers: 0,
                    documents: Vec::new(),
                },
            }),
            view: RwLock::new(view),
            counts: Counts::default(),
        }
    }

    pub(super) fn view(&self) -> View {
        self.view.read().clone()
    }

    /// The counts, with the watchers that wait now.
    pub(super) fn statistics(&self) -> Statistics {
        self.counts.set_watchers(self.hub.lock().count);
        self.counts.load()
    }

    /// The history, as published.
    pub(super) fn history(&self) -> History {
        self.hub.lock().history.clone()
    }

    /// Everything, as published.
    pub(super) fn document(&self) -> Document {
        self.document_of(&self.hub.lock())
    }

    fn document_of(&self, hub: &Hub) -> Document {
        let view = self.view();
        Document {
            tree: view.tree,
            index: view.index,
            history: hub.history.clone(),
            statistics: self.counts.load(),
        }
    }

    /// Keeps the document of now, and all that follow, until the keeper is dropped.
    pub(super) fn keep(self: &Arc<Shared>) -> Keeper {
        let mut hub = self.hub.lock();
        hub.kept.keepers += 1;
        if hub.kept.documents.is_empty() {
            let document = (hub.kept.applied, self.document_of(&hub));
            hub.kept.documents.push(document);
        }
        Keeper {
            shared: Arc::clone(self),
        }
    }

    /// The store is of the entry `applied` now.
    fn applied(&self, applied: u64, hub: &mut Hub) {
        hub.kept.applied = applied;
        if hub.kept.keepers > 0 {
            let document = self.document_of(hub);
            hub.kept.documents.push((applied, document));
        }
    }

    /// Shows `view`, which is of the entry `applied`, to readers, and its changes to watchers; if
    /// it is another tree, with its `history` before these changes. Whoever has seen the view and
    /// then watches "from now on" does not hear of these changes.
    pub(super) fn publish(
        &self,
        applied: u64,
        view: View,
        history: Option<History>,
        notices: &[Notice],
    ) {
        let mut woken = Vec::new();
        let mut hub = self.hub.lock();
        hub.index = view.index();
        if let Some(history) = history {
            hub.history = history;
        }
        let previous = std::mem::replace(&mut *self.view.write(), view);
        for notice in notices {
            hub.notify(notice, &mut woken);
        }
        self.applied(applied, &mut hub);
        drop(hub);
        woken.into_iter().for_each(Waker::wake);
        // May be the last that knows of many nodes: nobody waits for their end.
        drop(previous);
    }

    /// Puts another store in place of this one. All watchers end: what has happened in between
    /// cannot be told.
    pub(super) fn replace(&self, applied: u64, view: View, history: History) {
        let mut woken = Vec::new();
        let mut hub = self.hub.lock();
        hub.index = view.index();
        hub.history = history;
        let previous = std::mem::replace(&mut *self.view.write(), view);
        for watcher in std::mem::take(&mut hub.watchers).into_values().flatten() {
            let mut queue = watcher.1.queue.lock();
            queue.close();
            woken.extend(queue.take_waker());
        }
        hub.count = 0;
        self.applied(applied, &mut hub);
        drop(hub);
        woken.into_iter().for_each(Waker::wake);
        drop(previous);
    }

    /// Starts a watch: history and registration are of one moment, so that no event is missed.
    pub(super) fn watch(self: &Arc<Shared>, watch: &Watch<'_>) -> Result<Watcher, Error> {
        let path = Path::clean(watch.path);
        let mut hub = self.hub.lock();
        let index = hub.index;
        let since = match watch.since {
            0 => index + 1,
            since => since,
        };
        let past = hub.history.find(&path, watch.recursive, since);
        if let Some(event) = past.map_err(|failure| failure.at(index))? {
            return Ok(Watcher::with_event(Arc::clone(event), watch.stream, index));
        }
        let queue = Arc::default();
        let registered = Registered {
            queue: Arc::clone(&queue),
            recursive: watch.recursive,
            stream: watch.stream,
            since,
        };
        let ticket = hub.register(path, registered);
        Ok(Watcher::registered(queue, index, Arc::clone(self), ticket))
    }

    pub(super) fn cancel(&self, ticket: &Ticket) {
        self.hub.lock().cancel(ticket);
    }
}

impl Hub {
    fn register(&mut self, path: Path, watcher: Registered) -> Ticket {
        let id = self.next_id;
        self.next_id += 1;
        self.count += 1;
        let ticket = Ticket { path, id };
        let watchers = self.watchers.entry(ticket.path.clone()).or_default();
        watchers.insert(id, watcher);
        ticket
    }

    /// Forgets a watcher that may be forgotten already.
    fn cancel(&mut self, ticket: &Ticket) {
        let Some(watchers) = self.watchers.get_mut(&ticket.path) else {
            return;
        };
        self.count -= u64::from(watchers.remove(&ticket.id).is_some());
        if watchers.is_empty() {
            self.watchers.remove(&ticket.path);
        }
    }

    /// Remembers an event and tells it to whom it concerns. Watchers of a node that is removed
    /// hear of it, and then whoever watches the event's node or above: so a stream of that node
    /// itself gets the event twice, as in etcd 3.3 (`store/watcher_hub.go`).
    fn notify(&mut self, notice: &Notice, woken: &mut Vec<Waker>) {
        let Notice { event, before } = notice;
        self.history.push(Arc::clone(event));
        if event.refresh || self.watchers.is_empty() {
            return;
        }
        let key = &event.node.key;
        if let Some(before) = before {
            let watched = self.watchers.range(key.clone()..key.after_subtree());
            let removed: Vec<Path> = watched
                .map(|(path, _)| path)
                .filter(|path| before.get(path).is_some())
                .cloned()
                .collect();
            for path in removed {
                self.notify_path(&path, event, true, woken);
            }
        }
        self.notify_path(&Path::root(), event, false, woken);
        for path in key.steps() {
            self.notify_path(&path, event, false, woken);
        }
    }

    /// Tells the watchers of `path`; `removed`: the node there is gone.
    fn notify_path(
        &mut self,
        path: &Path,
        event: &Arc<Event>,
        removed: bool,
        woken: &mut Vec<Waker>,
    ) {
        let Some(watchers) = self.watchers.get_mut(path) else {
            return;
        };
        let itself = event.node.key == *path;
        if !itself && event.node.key.is_hidden_below(path) {
            return;
        }
        let before = watchers.len();
        watchers.retain(|_, watcher| {
            if !(watcher.recursive || itself || removed) || event.index() < watcher.since {
                return true;
            }
            let mut queue = watcher.queue.lock();
            queue.push(event);
            if !watcher.stream {
                queue.close();
            }
            woken.extend(queue.take_waker());
            !queue.is_closed()
        });
        self.count -= (before - watchers.len()) as u64;
        if watchers.is_empty() {
            self.watchers.remove(path);
        }
    }
}
