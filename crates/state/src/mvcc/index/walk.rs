//! Walking over entries in order.

use std::slice;

use super::entry::Entry;
use super::node::{Child, Counts, Node};

/// Which entries a walk is for. It passes over nodes that have none of them; of the others it shows
/// all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mvcc) enum Only {
    /// All of them.
    All,
    /// Those that live.
    Live,
    /// Those whose values are in memory.
    WithValue,
}

impl Only {
    fn may_be_in(self, counts: Counts) -> bool {
        match self {
            Only::All => true,
            Only::Live => counts.live > 0,
            Only::WithValue => counts.value_bytes > 0,
        }
    }
}

/// Ascending entries.
pub(in crate::mvcc) struct Walk<'a> {
    branches: Vec<slice::Iter<'a, Child>>,
    leaf: slice::Iter<'a, Entry>,
    end: Option<&'a [u8]>,
    only: Only,
    done: bool,
}

impl<'a> Walk<'a> {
    /// The entries below `root` with `start <= key` and, if given, `key < end`.
    pub(super) fn new(root: &'a Node, start: &[u8], end: Option<&'a [u8]>, only: Only) -> Walk<'a> {
        let mut range = Walk {
            branches: Vec::new(),
            leaf: [].iter(),
            end,
            only,
            done: false,
        };
        let mut node = root;
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

impl<'a> Iterator for Walk<'a> {
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
            if !self.only.may_be_in(child.counts) {
                continue;
            }
            match &*child.node {
                Node::Leaf(entries) => self.enter_leaf(&entries.items),
                Node::Branch(children) => self.branches.push(children.items.iter()),
            }
        }
    }
}
