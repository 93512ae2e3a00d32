//! The nodes of the tree, and what changes them.

use std::iter::Sum;
use std::sync::Arc;

use super::entry::{Entry, Held};
use super::sorted::{Keyed, Sorted};
use crate::mvcc::record::Attributes;
use crate::mvcc::{Prev, Record};

/// Most entries of a leaf and children of a branch.
pub(super) const FANOUT: usize = 32;
/// Nodes below this size are merged with a neighbour where both fit into one.
const SPARSE: usize = FANOUT / 4;

// A branch that is split leaves two with children, and one that was merged is not sparse at once.
const _: () = assert!(FANOUT >= 4 && SPARSE > 0 && 2 * SPARSE <= FANOUT);

#[derive(Clone)]
pub(super) enum Node {
    Leaf(Sorted<Entry>),
    Branch(Sorted<Child>),
}

#[derive(Clone)]
pub(super) struct Child {
    /// At most the smallest key below, and above every key of the child before. The first child of
    /// a node takes what is smaller, whatever its `low`.
    low: Arc<[u8]>,
    pub(super) node: Arc<Node>,
    pub(super) counts: Counts,
}

/// What there is below a node, or in an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Keys whose newest record is no tombstone.
    pub(super) live: u32,
    /// Those of them whose values were let go.
    pub(super) let_go: u32,
    /// Bytes of the values of the others.
    pub(super) value_bytes: u64,
}

impl Counts {
    pub(super) fn of_entry(entry: &Entry) -> Counts {
        let (live, let_go, value_bytes) = match entry.live() {
            Held::Newest(record) => (1, 0, record.value().len() as u64),
            Held::LetGo(..) => (1, 1, 0),
            Held::Absent | Held::Past(..) => (0, 0, 0),
        };
        Counts {
            live,
            let_go,
            value_bytes,
        }
    }

    /// Without what is no longer there.
    fn without(self, gone: Counts) -> Counts {
        const COUNTED: &str = "what goes was counted";
        Counts {
            live: self.live.checked_sub(gone.live).expect(COUNTED),
            let_go: self.let_go.checked_sub(gone.let_go).expect(COUNTED),
            value_bytes: self
                .value_bytes
                .checked_sub(gone.value_bytes)
                .expect(COUNTED),
        }
    }

    fn with(self, more: Counts) -> Counts {
        Counts {
            live: self.live + more.live,
            let_go: self.let_go + more.let_go,
            value_bytes: self.value_bytes + more.value_bytes,
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(counts: I) -> Counts {
        counts.fold(Counts::default(), Counts::with)
    }
}

/// What an entry counted for, and what it counts for now.
#[derive(Clone, Copy)]
pub(super) struct Recount {
    before: Counts,
    after: Counts,
}

impl Recount {
    pub(super) fn apply(self, counts: &mut Counts) {
        *counts = counts.without(self.before).with(self.after);
    }
}

impl Child {
    pub(super) fn of(node: Node) -> Child {
        Child::of_shared(Arc::new(node))
    }

    pub(super) fn of_shared(node: Arc<Node>) -> Child {
        let low = match &*node {
            Node::Leaf(entries) => {
                let first = entries.items.first();
                first.map_or(Arc::from(&b""[..]), |entry| Arc::from(entry.key()))
            }
            Node::Branch(children) => Arc::clone(&children.items[0].low),
        };
        Child {
            low,
            counts: node.counts(),
            node,
        }
    }

    fn assert_counted(&self) {
        debug_assert_eq!(self.node.counts(), self.counts, "counts of a child");
    }
}

impl Keyed for Child {
    const UNORDERED: usize = 1;

    fn key(&self) -> &[u8] {
        &self.low
    }
}

impl Sorted<Child> {
    /// The child that holds `key` if any does: the last whose `low` is not above it, or the first.
    pub(super) fn of(&self, key: &[u8]) -> usize {
        self.search(key).unwrap_or_else(|i| i - 1)
    }
}

impl Default for Node {
    fn default() -> Node {
        Node::Leaf(Sorted::new(Vec::new()))
    }
}

impl Node {
    /// As the entries or the children say.
    pub(super) fn counts(&self) -> Counts {
        match self {
            Node::Leaf(entries) => entries.items.iter().map(Counts::of_entry).sum(),
            Node::Branch(children) => children.items.iter().map(|child| child.counts).sum(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Node::Leaf(entries) => entries.items.len(),
            Node::Branch(children) => children.items.len(),
        }
    }

    /// See [`KeyIndex::change`](super::KeyIndex::change).
    pub(super) fn change(
        &mut self,
        key: &[u8],
        sub: i64,
        change: impl FnOnce(Option<&Attributes>) -> Record,
    ) -> Changed {
        match self {
            Node::Leaf(entries) => change_leaf(entries, key, sub, change),
            Node::Branch(children) => {
                let i = children.of(key);
                let child = &mut children.items[i];
                let changed = Arc::make_mut(&mut child.node).change(key, sub, change);
                changed.recount.apply(&mut child.counts);
                let Some(right) = changed.split else {
                    child.assert_counted();
                    return changed;
                };
                child.counts = child.counts.without(right.counts);
                child.assert_counted();
                let split = children
                    .insert(i + 1, right)
                    .map(|right| Child::of(Node::Branch(right)));
                Changed { split, ..changed }
            }
        }
    }

    /// Calls `act` with the entry of `key`, which exists.
    pub(super) fn update(&mut self, key: &[u8], act: impl FnOnce(&mut Entry)) -> Recount {
        match self {
            Node::Leaf(entries) => {
                let i = entries.search(key).expect("the key was found before");
                let entry = &mut entries.items[i];
                let before = Counts::of_entry(entry);
                act(entry);
                let after = Counts::of_entry(entry);
                Recount { before, after }
            }
            Node::Branch(children) => {
                let i = children.of(key);
                let child = &mut children.items[i];
                let recount = Arc::make_mut(&mut child.node).update(key, act);
                recount.apply(&mut child.counts);
                child.assert_counted();
                recount
            }
        }
    }

    /// Forgets of `key` what a compaction at `compacted` makes unreadable. The counts stay: an entry
    /// goes only if its newest record is a tombstone.
    pub(super) fn trim(&mut self, key: &[u8], compacted: i64) {
        match self {
            Node::Leaf(entries) => {
                if let Ok(i) = entries.search(key)
                    && entries.items[i].trim(compacted).is_break()
                {
                    entries.remove(i);
                }
            }
            Node::Branch(children) => {
                let i = children.of(key);
                Arc::make_mut(&mut children.items[i].node).trim(key, compacted);
                if children.items[i].node.len() < SPARSE {
                    merge(children, i);
                }
            }
        }
    }
}

/// What a key holds, to be replaced.
fn prev(entry: &Entry) -> Prev {
    match entry.live() {
        Held::Newest(record) => Prev::Record(record.clone()),
        Held::LetGo(attributes, _) => Prev::Stored(attributes.clone()),
        Held::Absent => Prev::Absent,
        Held::Past(..) => unreachable!("what a key holds now is not past"),
    }
}

/// What a change of a key took the place of.
#[derive(Default)]
pub(in crate::mvcc) struct Replaced {
    /// What the key held.
    pub(in crate::mvcc) prev: Prev,
    /// The revision of the key's newest change before, deletions included; 0 if none is known.
    pub(in crate::mvcc) mod_revision: i64,
}

/// What changing a key did to a node.
pub(super) struct Changed {
    pub(super) replaced: Replaced,
    pub(super) recount: Recount,
    /// The right part of the node, if it had to be split.
    pub(super) split: Option<Child>,
}

fn change_leaf(
    entries: &mut Sorted<Entry>,
    key: &[u8],
    sub: i64,
    change: impl FnOnce(Option<&Attributes>) -> Record,
) -> Changed {
    match entries.search(key) {
        Ok(i) => {
            let entry = &mut entries.items[i];
            let before = Counts::of_entry(entry);
            let replaced = Replaced {
                prev: prev(entry),
                mod_revision: entry.attributes().mod_revision(),
            };
            let record = change(entry.is_live().then_some(entry.attributes()));
            entry.change(record, sub);
            let after = Counts::of_entry(entry);
            Changed {
                replaced,
                recount: Recount { before, after },
                split: None,
            }
        }
        Err(i) => {
            let entry = Entry::new(change(None), sub);
            let (before, after) = (Counts::default(), Counts::of_entry(&entry));
            let split = entries.insert(i, entry);
            Changed {
                replaced: Replaced::default(),
                recount: Recount { before, after },
                split: split.map(|right| Child::of(Node::Leaf(right))),
            }
        }
    }
}

/// Merges the sparse child `i` with a neighbour if both fit into one node.
fn merge(children: &mut Sorted<Child>, i: usize) {
    let left = if i + 1 < children.items.len() {
        i
    } else {
        i.saturating_sub(1)
    };
    let both = children.items.get(left..left + 2);
    let fit = |both: &[Child]| both.iter().map(|child| child.node.len()).sum::<usize>() <= FANOUT;
    if !both.is_some_and(fit) {
        // A lone child may run empty; ranges and searches cope with that.
        return;
    }
    let gone = children.remove(left + 1);
    let kept = &mut children.items[left];
    kept.counts = kept.counts.with(gone.counts);
    match (Arc::make_mut(&mut kept.node), &*gone.node) {
        (Node::Leaf(entries), Node::Leaf(more)) => entries.append(more),
        (Node::Branch(children), Node::Branch(more)) => children.append(more),
        _ => unreachable!("siblings are of one height"),
    }
    let len = kept.node.len();
    assert!(len <= FANOUT, "{len} items in a node of {FANOUT}");
}
