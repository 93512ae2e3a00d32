//! Reading and watching from any thread.

use std::sync::Arc;

use super::hub::{Keeper, Shared};
use super::tree::{Content, Tree};
use super::{Counter, Error, Event, Path, Statistics, Timestamp, Watcher};

/// The tree at one moment; clones share it.
#[derive(Clone)]
pub struct View {
    pub(super) tree: Tree,
    pub(super) index: u64,
    pub(super) next_expiration: Option<Timestamp>,
    pub(super) is_written: bool,
}

impl View {
    /// The index of the last change.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Whether users have written to the store, as far as its owner knows.
    pub fn is_written(&self) -> bool {
        self.is_written
    }

    /// When the first node expires; none: no node does, and no leader has to say what time it is.
    pub fn next_expiration(&self) -> Option<Timestamp> {
        self.next_expiration
    }

    /// The value of a file, if there is one. Is not counted.
    pub fn value(&self, path: &str) -> Option<Arc<str>> {
        match &self.tree.get(&Path::clean(path))?.content {
            Content::File(value) => Some(Arc::clone(value)),
            Content::Directory => None,
        }
    }

    /// The node and, of a directory, one level of children or the whole subtree, sorted, as seen
    /// at `now`. Is not counted.
    ///
    /// # Errors
    /// When it is not there; the cause is the first node on the path that is not.
    pub fn get(&self, path: &str, recursive: bool, now: Timestamp) -> Result<Event, Error> {
        let path = Path::clean(path);
        let event = self.tree.read(&path, recursive, now, self.index);
        event.map_err(|failure| failure.at(self.index))
    }
}

/// What a client wants to hear of.
#[derive(Clone, Copy, Debug)]
pub struct Watch<'a> {
    /// The node.
    pub path: &'a str,
    /// Whether whatever is below it, too.
    pub recursive: bool,
    /// Whether more than one event.
    pub stream: bool,
    /// The first index that counts; 0: the next one.
    pub since: u64,
}

/// A handle for reading and watching; clones share the store.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Reader {
        Reader { shared }
    }

    /// The tree as published last.
    pub fn view(&self) -> View {
        self.shared.view()
    }

    /// Reads as [`View::get`] does, and counts it.
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, path: &str, recursive: bool, now: Timestamp) -> Result<Event, Error> {
        let answer = self.view().get(path, recursive, now);
        let counters = (Counter::GetsSuccess, Counter::GetsFail);
        self.shared.counts.add_either(answer.is_ok(), counters);
        answer
    }

    /// Starts a watch.
    ///
    /// # Errors
    /// When the history does not reach back to where it is to start.
    pub fn watch(&self, watch: &Watch<'_>) -> Result<Watcher, Error> {
        self.shared.watch(watch)
    }

    /// Keeps the documents of all entries from now on, for whoever will know later which of them
    /// goes with a copy of the database.
    pub fn keep(&self) -> Keeper {
        self.shared.keep()
    }

    /// What was counted so far.
    pub fn statistics(&self) -> Statistics {
        self.shared.statistics()
    }
}
