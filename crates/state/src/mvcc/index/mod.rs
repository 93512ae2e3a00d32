//! The keys in order, each with its newest record and its older revisions.
//!
//! A persistent B+ tree: a clone is one pointer, and from then on a change copies only the nodes on
//! its path that a clone still shares. So a long list walks its own copy while writes go on.
//!
//! ```text
//! branch  [ low, counts, child ] [ low, counts, child ] …   keys of a child are >= its low
//! leaf    [ record, history, sub ] …                         ascending by key
//! ```
//!
//! Every branch counts what is below each child: live keys (those whose newest record is no
//! tombstone), so that a range is counted along two paths instead of key by key, and the bytes of
//! values in memory. An entry holds no key of its own: it is ordered by the key in its record.
//! Branches have their own copies of separating keys, so that no superseded record is kept alive by
//! the tree.
//!
//! Values take most of the memory, and have a budget. Beyond it [`KeyIndex::let_go`] takes them out
//! of entries that were not asked for lately: a hand goes round through all entries that have one, in
//! the order of their keys, and passes over those that are marked as used, once (CLOCK). What is left
//! of such a record is all but its value, which the backend has.
//!
//! - [`entry`]: a key. [`node`]: leaves and branches, and what changes them. [`sorted`]: the items of
//!   a node in order. [`walk`]: entries one after the other.

mod entry;
mod node;
mod sorted;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;

use super::Record;
use super::record::Attributes;
use node::{Child, Counts, FANOUT, Node};
use sorted::{Keyed, Sorted};
use walk::Walk;

pub(super) use entry::{Entry, Held};
pub(super) use node::Replaced;
pub(super) use walk::Only;

/// The keys in order; clones are cheap and independent.
#[derive(Clone, Default)]
pub(super) struct KeyIndex {
    root: Arc<Node>,
    /// Of the root.
    counts: Counts,
}

/// Leaves for [`KeyIndex::from_leaves`].
pub(super) struct Leaves(Vec<Child>);

impl Leaves {
    /// The leaves of `entries`, which ascend by key.
    pub(super) fn new(entries: Vec<Entry>) -> Leaves {
        Leaves(children(entries, Node::Leaf))
    }
}

/// Makes nodes of `items`, which are in order.
fn children<T: Keyed>(items: Vec<T>, node: impl Fn(Sorted<T>) -> Node) -> Vec<Child> {
    // Nodes start three quarters full, so that the next puts do not split every one.
    const FILL: usize = FANOUT * 3 / 4;
    let mut nodes = Vec::with_capacity(items.len().div_ceil(FILL));
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let items = items.by_ref().take(FILL).collect();
        nodes.push(Child::of(node(Sorted::new(items))));
    }
    nodes
}

/// Where [`KeyIndex::let_go`] goes on.
#[derive(Default)]
pub(super) struct Hand(Box<[u8]>);

impl KeyIndex {
    /// Builds the index of leaves, whose keys ascend from one to the next.
    pub(super) fn from_leaves(leaves: Vec<Leaves>) -> KeyIndex {
        let mut level: Vec<Child> = leaves.into_iter().flat_map(|leaves| leaves.0).collect();
        while level.len() > 1 {
            level = children(level, Node::Branch);
        }
        let index = level.pop().map_or_else(KeyIndex::default, |root| KeyIndex {
            root: root.node,
            counts: root.counts,
        });
        debug_assert!(
            index
                .walk(b"", None, Only::All)
                .is_sorted_by(|a, b| a.key() < b.key()),
            "entries out of order"
        );
        index
    }

    /// Number of live keys.
    pub(super) fn live(&self) -> usize {
        self.counts.live as usize
    }

    /// Number of live keys whose values were let go.
    pub(super) fn values_let_go(&self) -> usize {
        self.counts.let_go as usize
    }

    /// Bytes of the live keys' values that are in memory.
    pub(super) fn value_bytes(&self) -> usize {
        self.counts.value_bytes as usize
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(entries) => return entries.search(key).ok().map(|i| &entries.items[i]),
                Node::Branch(children) => node = &children.items[children.of(key)].node,
            }
        }
    }

    /// Replaces what `key` holds by the record that `change` makes of it, the `sub`-th of its
    /// revision.
    pub(super) fn change(
        &mut self,
        key: &[u8],
        sub: i64,
        change: impl FnOnce(Option<&Attributes>) -> Record,
    ) -> Replaced {
        let changed = Arc::make_mut(&mut self.root).change(key, sub, change);
        changed.recount.apply(&mut self.counts);
        if let Some(right) = changed.split {
            let left = Child::of_shared(std::mem::take(&mut self.root));
            self.root = Arc::new(Node::Branch(Sorted::new(vec![left, right])));
        }
        self.assert_counted();
        changed.replaced
    }

    /// Lets values go that were not asked for lately, until those in memory have at most
    /// `bytes_max`, but looks at no more than `looks` keys. Whether there is more to do.
    ///
    /// Only for an index whose records are all in the backend.
    pub(super) fn let_go(&mut self, bytes_max: usize, hand: &mut Hand, looks: usize) -> bool {
        let mut excess = self.value_bytes().saturating_sub(bytes_max);
        if excess == 0 {
            return false;
        }
        let mut chosen = Vec::new();
        let mut next = None;
        for (looked, entry) in self.walk(&hand.0, None, Only::WithValue).enumerate() {
            if looked == looks || excess == 0 {
                next = Some(entry.key().into());
                break;
            }
            let bytes = entry.value_bytes();
            if bytes > 0 && !(entry.take_used() && bytes_max > 0) {
                chosen.push(entry.attributes().clone());
                excess = excess.saturating_sub(bytes);
            }
        }
        // Behind the last key it begins anew.
        hand.0 = next.unwrap_or_default();
        for entry in chosen {
            self.update(entry.key(), Entry::let_go);
        }
        self.value_bytes() > bytes_max
    }

    /// Lets go of the value that `key` got at `mod_revision`, if it has it still and nobody asked for
    /// it.
    ///
    /// As [`KeyIndex::let_go`].
    pub(super) fn let_go_unused(&mut self, key: &[u8], mod_revision: i64) {
        let Some(entry) = self.get(key) else { return };
        let is_the_same = entry.revision().main == mod_revision;
        if is_the_same && entry.value_bytes() > 0 && !entry.is_used() {
            self.update(key, Entry::let_go);
        }
    }

    /// Takes `record` back into memory, if it is still the newest of its key and not there.
    pub(super) fn keep(&mut self, record: &Record) {
        if self.without_value_of(record).is_some() {
            self.update(record.key(), |entry| entry.keep(record));
        }
    }

    /// The same if somebody asked for the key before; else now somebody has.
    pub(super) fn keep_if_used(&mut self, record: &Record) {
        match self.without_value_of(record) {
            Some(entry) if entry.is_used() => {
                self.update(record.key(), |entry| entry.keep(record));
            }
            Some(entry) => entry.mark_used(),
            None => {}
        }
    }

    /// The entry whose newest record is `record`, if its value is not in memory.
    fn without_value_of(&self, record: &Record) -> Option<&Entry> {
        let entry = self.get(record.key())?;
        let Held::LetGo(newest, _) = entry.live() else {
            return None;
        };
        // A transaction may change a key more than once.
        let change = |of: &Attributes| (of.mod_revision(), of.version());
        (change(newest) == change(record)).then_some(entry)
    }

    /// Calls `act` with the entry of `key`, which exists.
    fn update(&mut self, key: &[u8], act: impl FnOnce(&mut Entry)) {
        let recount = Arc::make_mut(&mut self.root).update(key, act);
        recount.apply(&mut self.counts);
    }

    /// Forgets of `key` what a compaction at `compacted` makes unreadable.
    pub(super) fn trim(&mut self, key: &[u8], compacted: i64) {
        if !self
            .get(key)
            .is_some_and(|entry| entry.has_unreadable(compacted))
        {
            return;
        }
        Arc::make_mut(&mut self.root).trim(key, compacted);
        while let Node::Branch(children) = &*self.root
            && let [only] = &children.items[..]
        {
            self.root = Arc::clone(&only.node);
        }
        self.assert_counted();
    }

    fn assert_counted(&self) {
        debug_assert_eq!(self.root.counts(), self.counts, "counts of the root");
    }

    /// Entries with `start <= key` and, if given, `key < end`.
    pub(super) fn walk<'a>(&'a self, start: &[u8], end: Option<&'a [u8]>, only: Only) -> Walk<'a> {
        Walk::new(&self.root, start, end, only)
    }

    /// The live keys with `start <= key` and, if given, `key < end`. What was deleted costs next to
    /// nothing where nothing lives beside it.
    pub(super) fn live_range<'a>(
        &'a self,
        start: &[u8],
        end: Option<&'a [u8]>,
    ) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let entries = self.walk(start, end, Only::Live);
        entries.filter(|entry| entry.is_live())
    }

    /// Number of live keys in [`KeyIndex::live_range`], without walking them.
    pub(super) fn count_live(&self, start: &[u8], end: Option<&[u8]>) -> usize {
        let live = self.live();
        let below_end = end.map_or(live, |end| self.live_below(end));
        assert!(below_end <= live, "{below_end} of {live} live keys");
        below_end.saturating_sub(self.live_below(start))
    }

    /// Number of live keys before `key`.
    fn live_below(&self, key: &[u8]) -> usize {
        let mut below = 0;
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(entries) => {
                    let i = entries.search(key).unwrap_or_else(|i| i);
                    let before = entries.items[..i].iter();
                    return below + before.filter(|entry| entry.is_live()).count();
                }
                Node::Branch(children) => {
                    let i = children.of(key);
                    let before = children.items[..i].iter();
                    below += before
                        .map(|child| child.counts.live as usize)
                        .sum::<usize>();
                    node = &children.items[i].node;
                }
            }
        }
    }
}
