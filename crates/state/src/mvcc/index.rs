//! The keys in order, each with its newest record and its older revisions.
//!
//! A persistent B+ tree: a clone is one pointer, and from then on a change copies only the nodes on
//! its path that a clone still shares. So a long list walks its own copy while writes go on.
//!
//! ```text
//! branch  [ low, live, child ] [ low, live, child ] …     keys of a child are >= its low
//! leaf    [ record, history, sub ] …                       ascending by key
//! ```
//!
//! Every branch counts the live keys (those whose newest record is no tombstone) below each child,
//! so that a range is counted along two paths instead of key by key. An entry holds no key of its
//! own: it is ordered by the key in its record. Branches have their own copies of separating keys,
//! so that no superseded record is kept alive by the tree.
//!
//! Values take most of the memory, and have a budget. Beyond it [`KeyIndex::let_go`] takes them out
//! of entries that were not asked for lately: a hand goes round through all entries, in the order of
//! their keys, and passes over those that are marked as used, once (CLOCK). What is left of such a
//! record is all but its value, which the backend has.

use std::ops::ControlFlow;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::history::History;
use super::record::Attributes;
use super::{Record, Revision};

/// Most entries of a leaf and children of a branch.
const FANOUT: usize = 32;
/// Nodes below this size are merged with a neighbour where both fit into one.
const SPARSE: usize = FANOUT / 4;

// A branch that is split leaves two with children, and one that was merged is not sparse at once.
const _: () = assert!(FANOUT >= 4 && SPARSE > 0 && 2 * SPARSE <= FANOUT);

/// A key: its newest record and what came before.
pub(super) struct Entry {
    newest: Newest,
    older: History,
    /// The sub revision of `newest`, and marks in the upper bits. Readers set the mark `USED`.
    sub: AtomicU32,
    head: u32,
}

/// The newest record of a key, or what of it is in memory: the mark `LET_GO` tells. An enum would
/// make entries a quarter larger.
#[derive(Clone)]
struct Newest(Record);

/// The newest change is a deletion.
const TOMBSTONE: u32 = 1 << 31;
/// The value of the newest record is not in memory.
const LET_GO: u32 = 1 << 30;
/// Somebody asked for the key since the hand came by.
const USED: u32 = 1 << 29;
const SUB: u32 = USED - 1;

/// What a key held at some revision.
pub(super) enum Held<'a> {
    /// Nothing.
    Absent,
    /// Its newest record.
    Newest(&'a Record),
    /// Its newest record, whose value was let go; the backend has it under this revision.
    LetGo(&'a Attributes, Revision),
    /// The record that the backend has under this revision.
    Past(Revision),
}

impl Clone for Entry {
    fn clone(&self) -> Entry {
        Entry {
            newest: self.newest.clone(),
            older: self.older.clone(),
            sub: AtomicU32::new(self.marks()),
            head: self.head,
        }
    }
}

impl Entry {
    /// A key whose first known change is `record`, the `sub`-th of its revision.
    pub(super) fn new(record: Record, sub: i64) -> Entry {
        let tombstone = record.is_tombstone();
        let sub = u32::try_from(sub).unwrap_or(u32::MAX);
        assert!(sub <= SUB, "sub revision {sub} does not fit in 29 bits");
        Entry {
            newest: Newest(record),
            older: History::default(),
            sub: AtomicU32::new(sub | if tombstone { TOMBSTONE } else { 0 }),
            head: 0,
        }
    }

    fn marks(&self) -> u32 {
        self.sub.load(Ordering::Relaxed)
    }

    fn is_marked(&self, mark: u32) -> bool {
        self.marks() & mark != 0
    }

    /// Marks the key as one whose value somebody asks for.
    pub(super) fn mark_used(&self) {
        if !self.is_marked(USED) {
            self.sub.fetch_or(USED, Ordering::Relaxed);
        }
    }

    pub(super) fn key(&self) -> &[u8] {
        self.newest.0.key()
    }

    /// The newest change, without its value.
    pub(super) fn attributes(&self) -> &Attributes {
        &self.newest.0
    }

    pub(super) fn is_live(&self) -> bool {
        !self.is_marked(TOMBSTONE)
    }

    /// What the key holds now.
    pub(super) fn live(&self) -> Held<'_> {
        match self.marks() & (TOMBSTONE | LET_GO) {
            0 => Held::Newest(&self.newest.0),
            LET_GO => Held::LetGo(&self.newest.0, self.revision()),
            _ => Held::Absent,
        }
    }

    /// The revision of the newest change.
    pub(super) fn revision(&self) -> Revision {
        Revision {
            main: self.attributes().mod_revision(),
            sub: i64::from(self.marks() & SUB),
        }
    }

    /// Bytes of the value, if it is in memory.
    pub(super) fn value_bytes(&self) -> usize {
        match self.live() {
            Held::Newest(record) => record.value().len(),
            _ => 0,
        }
    }

    /// Lets the value go, of which there is one.
    pub(super) fn let_go(&mut self) {
        assert!(
            self.value_bytes() > 0,
            "{:?} has no value to let go",
            self.revision()
        );
        self.newest = Newest(self.newest.0.without_value());
        *self.sub.get_mut() |= LET_GO;
    }

    /// Takes the newest record back into memory.
    fn keep(&mut self, record: &Record) {
        let (kept, newest) = (record.mod_revision(), self.revision());
        assert!(
            self.is_marked(LET_GO) && kept == newest.main,
            "the record of {kept} is kept for that of {newest:?}"
        );
        self.newest = Newest(record.clone());
        let marks = self.sub.get_mut();
        *marks = *marks & !LET_GO | USED;
    }

    /// What the key held at revision `main`.
    pub(super) fn at(&self, main: i64) -> Held<'_> {
        if self.attributes().mod_revision() <= main {
            return self.live();
        }
        match self.older.newest_at(main) {
            Some((revision, false)) => Held::Past(revision),
            Some((_, true)) | None => Held::Absent,
        }
    }

    /// The change that a compaction at `compacted` keeps of those at or before it: the newest one,
    /// if it is a put, or a tombstone exactly at `compacted`.
    pub(super) fn kept_at(&self, compacted: i64) -> Option<Revision> {
        let (revision, tombstone) = self.newest_at(compacted)?;
        (!tombstone || revision.main == compacted).then_some(revision)
    }

    /// The put that was the newest change at `main`; `None` if there was none or a tombstone.
    pub(super) fn put_at(&self, main: i64) -> Option<Revision> {
        self.newest_at(main)
            .and_then(|(revision, tombstone)| (!tombstone).then_some(revision))
    }

    fn newest_at(&self, main: i64) -> Option<(Revision, bool)> {
        let newest = self.revision();
        if newest.main <= main {
            Some((newest, !self.is_live()))
        } else {
            self.older.newest_at(main)
        }
    }

    /// Puts `newer`, later changes of the same key, on top of the newest.
    pub(super) fn supersede(&mut self, newer: Entry) {
        let before = self.revision();
        self.older.push(before, !self.is_live());
        self.older.append(&newer.older);
        let older = std::mem::take(&mut self.older);
        *self = Entry {
            older,
            head: self.head,
            ..newer
        };
        let after = self.revision();
        assert!(
            before <= after,
            "a key went back from {before:?} to {after:?}"
        );
    }

    /// Whether a compaction at `compacted` has something to forget here.
    fn has_unreadable(&self, compacted: i64) -> bool {
        !self.older.is_empty() || !self.is_live() && self.attributes().mod_revision() < compacted
    }

    /// Forgets unreadable revisions; `Break` if nothing is left.
    fn trim(&mut self, compacted: i64) -> ControlFlow<()> {
        let newest = self.attributes().mod_revision();
        if newest > compacted {
            self.older.trim(compacted);
            return ControlFlow::Continue(());
        }
        self.older = History::default();
        if self.is_live() || newest == compacted {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

#[derive(Clone)]
enum Node {
    Leaf(Sorted<Entry>),
    Branch(Sorted<Child>),
}

#[derive(Clone)]
struct Child {
    /// At most the smallest key below, and above every key of the child before. The first child of
    /// a node takes what is smaller, whatever its `low`.
    low: Arc<[u8]>,
    node: Arc<Node>,
    /// Live keys below.
    live: u32,
    head: u32,
}

/// The keys in order; clones are cheap and independent.
#[derive(Clone)]
pub(super) struct KeyIndex {
    root: Arc<Node>,
    live: usize,
    /// Live keys whose values were let go.
    let_go: usize,
    /// Bytes of the live keys' values that are in memory.
    value_bytes: usize,
}

/// Where [`KeyIndex::let_go`] goes on.
#[derive(Default)]
pub(super) struct Hand(Box<[u8]>);

impl Default for KeyIndex {
    fn default() -> Self {
        KeyIndex {
            root: Arc::new(Node::Leaf(Sorted::new(Vec::new()))),
            live: 0,
            let_go: 0,
            value_bytes: 0,
        }
    }
}

impl KeyIndex {
    /// Builds the index of `entries`, which ascend by key.
    pub(super) fn from_sorted(entries: Vec<Entry>) -> KeyIndex {
        // Nodes start three quarters full, so that the next puts do not split every one.
        const FILL: usize = FANOUT * 3 / 4;
        let value_bytes = entries.iter().map(Entry::value_bytes).sum();
        let is_let_go = |entry: &&Entry| matches!(entry.live(), Held::LetGo(..));
        let let_go = entries.iter().filter(is_let_go).count();
        let mut level = Vec::with_capacity(entries.len().div_ceil(FILL));
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            level.push(Child::of(Node::Leaf(Sorted::new(
                entries.by_ref().take(FILL).collect(),
            ))));
        }
        while level.len() > 1 {
            let mut children = level.into_iter().peekable();
            level = Vec::new();
            while children.peek().is_some() {
                level.push(Child::of(Node::Branch(Sorted::new(
                    children.by_ref().take(FILL).collect(),
                ))));
            }
        }
        let index = level.pop().map_or_else(KeyIndex::default, |root| KeyIndex {
            root: root.node,
            live: root.live as usize,
            let_go,
            value_bytes,
        });
        debug_assert!(
            index
                .range(b"", None)
                .is_sorted_by(|a, b| a.key() < b.key()),
            "entries out of order"
        );
        index
    }

    /// Number of live keys.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Number of live keys whose values were let go.
    pub(super) fn values_let_go(&self) -> usize {
        self.let_go
    }

    /// Bytes of the live keys' values that are in memory.
    pub(super) fn value_bytes(&self) -> usize {
        self.value_bytes
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
        let changed = change_node(Arc::make_mut(&mut self.root), key, sub, change);
        let live = self.live.checked_add_signed(changed.delta as isize);
        self.live = live.expect("only a key that is counted goes");
        self.count_off(changed.replaced.before.value_bytes());
        self.value_bytes += changed.value_bytes;
        if let Before::LetGo(_) = changed.replaced.before {
            let rest = self.let_go.checked_sub(1);
            self.let_go = rest.expect("each value that was let go was counted");
        }
        if let Some(right) = changed.split {
            let left = Child::of_shared(std::mem::take(&mut self.root));
            self.root = Arc::new(Node::Branch(Sorted::new(vec![left, right])));
        }
        debug_assert_eq!(self.root.live(), self.live, "live keys below the root");
        changed.replaced
    }

    fn count_off(&mut self, value_bytes: usize) {
        let rest = self.value_bytes.checked_sub(value_bytes);
        self.value_bytes = rest.expect("what is in memory was counted");
    }

    /// Lets values go that were not asked for lately, until those in memory have at most
    /// `bytes_max`, but looks at no more than `looks` keys. Whether there is more to do.
    ///
    /// Only for an index whose records are all in the backend.
    pub(super) fn let_go(&mut self, bytes_max: usize, hand: &mut Hand, looks: usize) -> bool {
        let mut excess = self.value_bytes.saturating_sub(bytes_max);
        if excess == 0 {
            return false;
        }
        let mut chosen = Vec::new();
        let mut next = None;
        for (looked, entry) in self.walk(&hand.0, None, true).enumerate() {
            if looked == looks || excess == 0 {
                next = Some(entry.key().into());
                break;
            }
            let bytes = entry.value_bytes();
            if bytes == 0 {
                continue;
            }
            let marks = entry.sub.fetch_and(!USED, Ordering::Relaxed);
            if marks & USED == 0 || bytes_max == 0 {
                chosen.push((entry.attributes().clone(), bytes));
                excess = excess.saturating_sub(bytes);
            }
        }
        // Behind the last key it begins anew.
        hand.0 = next.unwrap_or_default();
        for (entry, bytes) in chosen {
            self.with_entry(entry.key(), Entry::let_go);
            self.count_off(bytes);
            self.let_go += 1;
        }
        self.value_bytes > bytes_max
    }

    /// Takes `record` back into memory, if it is still the newest of its key.
    pub(super) fn keep(&mut self, record: &Record) {
        let Some(entry) = self.get(record.key()) else {
            return;
        };
        let Held::LetGo(attributes, _) = entry.live() else {
            return;
        };
        if attributes.mod_revision() != record.mod_revision()
            || attributes.version() != record.version()
        {
            return;
        }
        self.with_entry(record.key(), |entry| entry.keep(record));
        self.value_bytes += record.value().len();
        self.let_go -= 1;
    }

    /// Calls `act` with the entry of `key`, which exists.
    fn with_entry<T>(&mut self, key: &[u8], act: impl FnOnce(&mut Entry) -> T) -> T {
        let mut node = Arc::make_mut(&mut self.root);
        loop {
            match node {
                Node::Leaf(entries) => {
                    let found = entries.search(key).expect("the key was found before");
                    return act(&mut entries.items[found]);
                }
                Node::Branch(children) => {
                    let child = children.of(key);
                    node = Arc::make_mut(&mut children.items[child].node);
                }
            }
        }
    }

    /// Forgets of `key` what a compaction at `compacted` makes unreadable.
    pub(super) fn trim(&mut self, key: &[u8], compacted: i64) {
        if !self
            .get(key)
            .is_some_and(|entry| entry.has_unreadable(compacted))
        {
            return;
        }
        // Live keys stay as many: trimming removes only entries whose newest record is a tombstone.
        trim_node(Arc::make_mut(&mut self.root), key, compacted);
        while let Node::Branch(children) = &*self.root
            && let [only] = &children.items[..]
        {
            self.root = Arc::clone(&only.node);
        }
        debug_assert_eq!(self.root.live(), self.live, "live keys below the root");
    }

    /// Entries with `start <= key` and, if given, `key < end`.
    pub(super) fn range<'a>(&'a self, start: &[u8], end: Option<&'a [u8]>) -> Range<'a> {
        self.walk(start, end, false)
    }

    /// The live keys in [`KeyIndex::range`]. What was deleted costs next to nothing where nothing
    /// lives beside it: its nodes are passed over whole.
    pub(super) fn live_range<'a>(
        &'a self,
        start: &[u8],
        end: Option<&'a [u8]>,
    ) -> impl Iterator<Item = &'a Entry> + use<'a> {
        self.walk(start, end, true).filter(|entry| entry.is_live())
    }

    /// The entries of a range; with `live_only`, nodes without a live key are passed over.
    pub(super) fn walk<'a>(
        &'a self,
        start: &[u8],
        end: Option<&'a [u8]>,
        live_only: bool,
    ) -> Range<'a> {
        let mut range = Range {
            branches: Vec::new(),
            leaf: [].iter(),
            end,
            live_only,
            done: false,
        };
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(entries) => {
                    let first = entries.search(start).unwrap_or_else(|i| i);
                    range.enter_leaf(&entries.items[first..]);
                    return range;
                }
                Node::Branch(children) => {
                    let i = children.of(start);
                    range.branches.push(children.items[i + 1..].iter());
                    node = &children.items[i].node;
                }
            }
        }
    }

    /// Number of live keys in [`KeyIndex::range`], without walking them.
    pub(super) fn count_live(&self, start: &[u8], end: Option<&[u8]>) -> usize {
        let below_end = end.map_or(self.live, |end| self.live_below(end));
        assert!(
            below_end <= self.live,
            "{below_end} of {} live keys",
            self.live
        );
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
                    return below
                        + entries.items[..i]
                            .iter()
                            .filter(|entry| entry.is_live())
                            .count();
                }
                Node::Branch(children) => {
                    let i = children.of(key);
                    below += children.items[..i]
                        .iter()
                        .map(|child| child.live as usize)
                        .sum::<usize>();
                    node = &children.items[i].node;
                }
            }
        }
    }
}

impl Child {
    fn of(node: Node) -> Child {
        Child::of_shared(Arc::new(node))
    }

    fn of_shared(node: Arc<Node>) -> Child {
        let (low, live) = match &*node {
            Node::Leaf(entries) => {
                let low = entries
                    .items
                    .first()
                    .map_or(Arc::from(&b""[..]), |entry| Arc::from(entry.key()));
                (
                    low,
                    entries.items.iter().filter(|entry| entry.is_live()).count() as u32,
                )
            }
            Node::Branch(children) => {
                let live = children.items.iter().map(|child| child.live).sum();
                (Arc::clone(&children.items[0].low), live)
            }
        };
        Child {
            low,
            live,
            node,
            head: 0,
        }
    }
}

impl Default for Node {
    fn default() -> Node {
        Node::Leaf(Sorted::new(Vec::new()))
    }
}

impl Node {
    /// Live keys below, as the entries or the children say.
    fn live(&self) -> usize {
        match self {
            Node::Leaf(entries) => entries.items.iter().filter(|entry| entry.is_live()).count(),
            Node::Branch(children) => {
                let live = children.items.iter().map(|child| child.live as usize);
                live.sum()
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Node::Leaf(entries) => entries.items.len(),
            Node::Branch(children) => children.items.len(),
        }
    }
}

/// What a key held before a change.
#[derive(Default)]
pub(super) enum Before {
    /// Nothing.
    #[default]
    Absent,
    /// This record.
    Record(Record),
    /// The record that the backend has under this revision.
    LetGo(Revision),
}

impl Before {
    fn of(entry: &Entry) -> Before {
        match entry.live() {
            Held::Newest(record) => Before::Record(record.clone()),
            Held::LetGo(_, revision) => Before::LetGo(revision),
            Held::Absent => Before::Absent,
            Held::Past(_) => unreachable!("what a key holds now is not past"),
        }
    }

    fn value_bytes(&self) -> usize {
        match self {
            Before::Record(record) => record.value().len(),
            Before::Absent | Before::LetGo(_) => 0,
        }
    }
}

/// What a change of a key took the place of.
#[derive(Default)]
pub(super) struct Replaced {
    /// What the key held.
    pub(super) before: Before,
    /// The revision of the key's newest change before, deletions included; 0 if none is known.
    pub(super) mod_revision: i64,
}

/// What changing a key did to a node.
struct Changed {
    replaced: Replaced,
    /// By how much the number of live keys changed.
    delta: i32,
    /// Bytes of the new value.
    value_bytes: usize,
    /// The right part of the node, if it had to be split.
    split: Option<Child>,
}

fn change_node(
    node: &mut Node,
    key: &[u8],
    sub: i64,
    change: impl FnOnce(Option<&Attributes>) -> Record,
) -> Changed {
    match node {
        Node::Leaf(entries) => match entries.search(key) {
            Ok(i) => {
                let entry = &mut entries.items[i];
                let was_live = entry.is_live();
                let replaced = Replaced {
                    before: Before::of(entry),
                    mod_revision: entry.attributes().mod_revision(),
                };
                let record = change(was_live.then_some(entry.attributes()));
                // Who overwrites a key will probably ask for it: it stays marked.
                let marks = entry.marks() & USED;
                entry.supersede(Entry::new(record, sub));
                *entry.sub.get_mut() |= marks;
                Changed {
                    replaced,
                    delta: i32::from(entry.is_live()) - i32::from(was_live),
                    value_bytes: entry.value_bytes(),
                    split: None,
                }
            }
            Err(i) => {
                let entry = Entry::new(change(None), sub);
                let (delta, value_bytes) = (i32::from(entry.is_live()), entry.value_bytes());
                let split = entries
                    .insert(i, entry)
                    .map(|right| Child::of(Node::Leaf(right)));
                Changed {
                    replaced: Replaced::default(),
                    delta,
                    value_bytes,
                    split,
                }
            }
        },
        Node::Branch(children) => {
            let i = children.of(key);
            let child = &mut children.items[i];
            let changed = change_node(Arc::make_mut(&mut child.node), key, sub, change);
            let live = child.live.checked_add_signed(changed.delta);
            child.live = live.expect("only a key that is counted goes");
            let Some(right) = changed.split else {
                debug_assert_eq!(
                    child.node.live(),
                    child.live as usize,
                    "live keys of a child"
                );
                return changed;
            };
            let left = child.live.checked_sub(right.live);
            child.live = left.expect("a part has no more than the whole");
            debug_assert_eq!(
                child.node.live(),
                child.live as usize,
                "live keys of a child"
            );
            let split = children
                .insert(i + 1, right)
                .map(|right| Child::of(Node::Branch(right)));
            Changed { split, ..changed }
        }
    }
}

fn trim_node(node: &mut Node, key: &[u8], compacted: i64) {
    match node {
        Node::Leaf(entries) => {
            if let Ok(i) = entries.search(key)
                && entries.items[i].trim(compacted).is_break()
            {
                entries.items.remove(i);
            }
        }
        Node::Branch(children) => {
            let i = children.of(key);
            trim_node(Arc::make_mut(&mut children.items[i].node), key, compacted);
            if children.items[i].node.len() < SPARSE {
                merge(&mut children.items, i);
            }
        }
    }
}

/// Merges the sparse child `i` with a neighbour if both fit into one node.
fn merge(children: &mut Vec<Child>, i: usize) {
    let left = if i + 1 < children.len() {
        i
    } else {
        i.saturating_sub(1)
    };
    let right = left + 1;
    if right >= children.len() || children[left].node.len() + children[right].node.len() > FANOUT {
        // A lone child may run empty; ranges and searches cope with that.
        return;
    }
    let gone = children.remove(right);
    let kept = &mut children[left];
    kept.live += gone.live;
    match (Arc::make_mut(&mut kept.node), &*gone.node) {
        (Node::Leaf(entries), Node::Leaf(more)) => entries.append(more),
        (Node::Branch(children), Node::Branch(more)) => children.append(more),
        _ => unreachable!("siblings are of one height"),
    }
    let len = kept.node.len();
    assert!(len <= FANOUT, "{len} items in a node of {FANOUT}");
}

/// Ascending entries, see [`KeyIndex::range`].
pub(super) struct Range<'a> {
    branches: Vec<slice::Iter<'a, Child>>,
    leaf: slice::Iter<'a, Entry>,
    end: Option<&'a [u8]>,
    /// Whether nodes without a live key are passed over.
    live_only: bool,
    done: bool,
}

impl<'a> Range<'a> {
    /// Goes on with `entries`, or the part of them before the end.
    fn enter_leaf(&mut self, entries: &'a [Entry]) {
        let mut entries = entries;
        if let (Some(end), Some(last)) = (self.end, entries.last())
            && last.key() >= end
        {
            entries = &entries[..entries.partition_point(|entry| entry.key() < end)];
            self.done = true;
        }
        self.leaf = entries.iter();
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = &'a Entry;

    fn next(&mut self) -> Option<&'a Entry> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(entry);
            }
            if self.done {
                return None;
            }
            let Some(child) = self.branches.last_mut()?.next() else {
                self.branches.pop();
                continue;
            };
            // Its keys may lie beyond the end; then so do those of every node that follows.
            if self.live_only && child.live == 0 {
                continue;
            }
            match &*child.node {
                Node::Leaf(entries) => self.enter_leaf(&entries.items),
                Node::Branch(children) => self.branches.push(children.items.iter()),
            }
        }
    }
}

/// An item of a node.
trait Keyed: Clone {
    /// Items in front whose keys do not count for the order.
    const UNORDERED: usize;

    fn key(&self) -> &[u8];
    fn head(&self) -> u32;
    fn set_head(&mut self, head: u32);
}

impl Keyed for Entry {
    const UNORDERED: usize = 0;

    fn key(&self) -> &[u8] {
        self.newest.0.key()
    }

    fn head(&self) -> u32 {
        self.head
    }

    fn set_head(&mut self, head: u32) {
        self.head = head;
    }
}

impl Keyed for Child {
    const UNORDERED: usize = 1;

    fn key(&self) -> &[u8] {
        &self.low
    }

    fn head(&self) -> u32 {
        self.head
    }

    fn set_head(&mut self, head: u32) {
        self.head = head;
    }
}

/// The items of a node in the order of their keys.
///
/// Keys lie all over memory, so that a binary search over them waits for memory at every step. Keys
/// that are neighbours share a prefix, and the four bytes behind it, an item's *head*, mostly tell
/// them apart: they lie in the node and lead to a place that one or two comparisons of whole keys
/// confirm. Where they do not (a key that does not share the prefix), the search starts over with
/// whole keys: heads make it fast and are not needed to make it right.
#[derive(Clone)]
struct Sorted<T> {
    /// Length of the prefix behind which the heads begin.
    prefix: usize,
    items: Vec<T>,
}

impl<T: Keyed> Sorted<T> {
    fn new(items: Vec<T>) -> Sorted<T> {
        let mut sorted = Sorted { prefix: 0, items };
        sorted.set_heads();
        sorted
    }

    /// Where `key` is, or belongs.
    fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let items = self.ordered();
        let head = head_of(key, self.prefix);
        let first = items.partition_point(|item| item.head() < head);
        let run = items[first..]
            .iter()
            .take_while(|item| item.head() == head)
            .count();
        let whole = |items: &[T]| items.binary_search_by(|item| item.key().cmp(key));
        let found = match whole(&items[first..first + run]) {
            Ok(i) => Ok(first + i),
            Err(i) if is_between(items, first + i, key) => Err(first + i),
            Err(_) => whole(items),
        };
        found
            .map(|i| i + T::UNORDERED)
            .map_err(|i| i + T::UNORDERED)
    }

    /// Inserts `item` at `i`; the right part if there are too many then. Where the newest item went
    /// to the end, keys probably arrive in order: the left part stays full.
    fn insert(&mut self, i: usize, item: T) -> Option<Sorted<T>> {
        self.items.insert(i, item);
        debug_assert!(self.is_ascending_at(i), "item {i} out of order");
        if self.items.len() > FANOUT {
            let appended = i + 1 == self.items.len();
            let at = if appended { i } else { self.items.len() / 2 };
            let right = Sorted::new(self.items.split_off(at));
            self.set_heads();
            let (left, moved) = (self.items.len(), right.items.len());
            assert!(
                left > 0 && moved > 0,
                "a node is split at {left} of {moved}"
            );
            return Some(right);
        }
        let is_outermost = i == T::UNORDERED || i + 1 == self.items.len();
        if is_outermost && self.shared_prefix() < self.prefix {
            self.set_heads();
        } else {
            let head = head_of(self.items[i].key(), self.prefix);
            self.items[i].set_head(head);
        }
        debug_assert!(
            self.ordered().is_sorted_by_key(T::head),
            "heads out of order: {} items",
            self.items.len()
        );
        None
    }

    fn append(&mut self, more: &Sorted<T>) {
        self.items.extend_from_slice(&more.items);
        self.set_heads();
    }

    /// Whether item `i` lies between its neighbours, of those that count for the order.
    fn is_ascending_at(&self, i: usize) -> bool {
        let from = i.saturating_sub(1).max(T::UNORDERED);
        let around = self.items.get(from..self.items.len().min(i + 2));
        around.is_none_or(|items| items.is_sorted_by(|a, b| a.key() < b.key()))
    }

    fn ordered(&self) -> &[T] {
        self.items.get(T::UNORDERED..).unwrap_or_default()
    }

    /// Length of the prefix that all keys share: as they ascend, that of the first and the last.
    fn shared_prefix(&self) -> usize {
        let (Some(first), Some(last)) = (self.ordered().first(), self.ordered().last()) else {
            return 0;
        };
        first
            .key()
            .iter()
            .zip(last.key())
            .take_while(|(a, b)| a == b)
            .count()
    }

    fn set_heads(&mut self) {
        self.prefix = self.shared_prefix();
        for item in &mut self.items {
            let head = head_of(item.key(), self.prefix);
            item.set_head(head);
        }
    }
}

impl Sorted<Child> {
    /// The child that holds `key` if any does: the last whose `low` is not above it, or the first.
    fn of(&self, key: &[u8]) -> usize {
        self.search(key).unwrap_or_else(|i| i - 1)
    }
}

/// Whether `key` belongs between the items before and from `i`.
fn is_between<T: Keyed>(items: &[T], i: usize, key: &[u8]) -> bool {
    let above_left = i == 0 || items[i - 1].key() < key;
    above_left && items.get(i).is_none_or(|right| key < right.key())
}

/// The four bytes behind `prefix` as a number that compares like them, missing ones as zeros.
fn head_of(key: &[u8], prefix: usize) -> u32 {
    let rest = key.get(prefix..).unwrap_or_default();
    match rest.first_chunk() {
        Some(head) => u32::from_be_bytes(*head),
        None => rest
            .iter()
            .zip([24, 16, 8])
            .map(|(byte, shift)| u32::from(*byte) << shift)
            .sum(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Fields;
    use super::*;

    fn put(key: &[u8], mod_revision: i64) -> Record {
        Record::encode(Fields {
            key,
            create_revision: 1,
            mod_revision,
            version: 1,
            value: b"v",
            lease: 0,
        })
    }

    /// key → (revision, live), as the index should have it.
    type Model = BTreeMap<Vec<u8>, (i64, bool)>;

    fn check(index: &KeyIndex, model: &Model, rng: &mut fastrand::Rng) {
        let bounds = [random_key(rng), random_key(rng)];
        for end in [None, Some(&bounds[1][..])] {
            let found: Vec<_> = index
                .range(&bounds[0], end)
                .map(|e| (e.key().to_vec(), (e.revision().main, e.is_live())))
                .collect();
            let inside = |key: &[u8]| key >= &bounds[0][..] && end.is_none_or(|end| key < end);
            let expected: Vec<_> = model
                .iter()
                .filter(|(key, _)| inside(key))
                .map(|(key, held)| (key.clone(), *held))
                .collect();
            assert_eq!(found, expected);
            let live = expected.iter().filter(|(_, (_, live))| *live).count();
            assert_eq!(index.count_live(&bounds[0], end), live);
        }
        assert_eq!(
            index.live(),
            model.values().filter(|(_, live)| *live).count()
        );
        let found = index
            .get(&bounds[0])
            .map(|e| (e.revision().main, e.is_live()));
        assert_eq!(found, model.get(&bounds[0]).copied());
    }

    /// Dense and sparse keys, with and without prefixes in common, and some that differ by zero
    /// bytes.
    fn random_key(rng: &mut fastrand::Rng) -> Vec<u8> {
        let wide = if rng.bool() { 40 } else { 3000 };
        let mut key = match rng.u8(..4) {
            0 => format!("{:03}", rng.u32(..wide)),
            1 => format!("/registry/pods/{}", rng.u32(..wide)),
            2 => format!("/registry/pods/default/web-{:05}", rng.u32(..wide)),
            _ => "ab".repeat(rng.usize(..6)),
        };
        key.push_str(&"\0".repeat(rng.usize(..3).saturating_sub(1)));
        key.into_bytes()
    }

    /// Puts, deletes and trims against a map; copies taken on the way must stay as they were.
    #[test]
    fn agrees_with_a_map() {
        let mut rng = fastrand::Rng::with_seed(3);
        for round in 0..12 {
            let mut model = Model::new();
            let mut index = KeyIndex::default();
            let mut copies = Vec::new();
            for revision in 2..1500 {
                let key = random_key(&mut rng);
                match rng.u8(..if round % 2 == 0 { 4 } else { 12 }) {
                    0 => {
                        index.change(&key, 0, |_| Record::tombstone(&key, revision));
                        model.insert(key, (revision, false));
                    }
                    1 => {
                        let compacted = rng.i64(revision / 2..=revision);
                        for key in model.keys() {
                            index.trim(key, compacted);
                        }
                        model.retain(|_, (revision, live)| *live || *revision >= compacted);
                    }
                    _ => {
                        index.change(&key, 0, |_| put(&key, revision));
                        model.insert(key, (revision, true));
                    }
                }
                if revision % 100 == 0 {
                    copies.push((index.clone(), model.clone()));
                }
                if revision % 7 == 0 {
                    check(&index, &model, &mut rng);
                }
            }
            for (index, model) in copies {
                check(&index, &model, &mut rng);
            }
        }
    }

    #[test]
    fn ascending_keys_fill_the_leaves_and_bulk_loading_agrees() {
        let mut rng = fastrand::Rng::with_seed(4);
        for count in [0_usize, 1, 23, 24, 25, 1000, 40_000] {
            let mut model = Model::new();
            let mut grown = KeyIndex::default();
            let mut entries = Vec::new();
            for i in 0..count {
                let key = format!("{i:05}").into_bytes();
                grown.change(&key, 0, |_| put(&key, 2));
                entries.push(Entry::new(put(&key, 2), 0));
                model.insert(key, (2, true));
            }
            let leaves = count.div_ceil(FANOUT).max(1);
            assert_eq!(leaves_below(&grown.root), leaves, "all are full");
            let loaded = KeyIndex::from_sorted(entries);
            for _ in 0..20 {
                check(&grown, &model, &mut rng);
                check(&loaded, &model, &mut rng);
            }
        }
    }

    fn leaves_below(node: &Node) -> usize {
        match node {
            Node::Leaf(_) => 1,
            Node::Branch(children) => {
                let leaves = children.items.iter().map(|child| leaves_below(&child.node));
                leaves.sum()
            }
        }
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 32);
    }
}
