//! Which watched ranges contain a key.
//!
//! Single keys are looked up in a map; intervals in a tree that answers stabbing queries: a
//! balanced (AVL) search tree ordered by start, then end, in which every node knows which interval
//! of its subtree ends furthest. A subtree whose furthest end does not lie beyond the key is
//! skipped whole, so that a lookup costs O(log n) per interval found and does not depend on those
//! that miss.
//!
//! The tree is balanced by its shape and not by chance, since clients choose the ranges and must
//! not be able to choose its depth.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::range::{Interval, KeyRange};

/// Values by the range of keys that they stand for; each range is in it at most once.
pub(super) struct Index<V> {
    keys: BTreeMap<Arc<[u8]>, V>,
    intervals: IntervalTree<V>,
}

impl<V> Default for Index<V> {
    fn default() -> Self {
        Index {
            keys: BTreeMap::new(),
            intervals: IntervalTree::default(),
        }
    }
}

impl<V: Copy> Index<V> {
    /// The number of ranges.
    pub(super) fn len(&self) -> usize {
        self.keys.len() + self.intervals.nodes.len()
    }

    pub(super) fn get(&self, range: &KeyRange) -> Option<V> {
        match range {
            KeyRange::Key(key) => self.keys.get(key).copied(),
            KeyRange::Interval(interval) => self.intervals.get(interval),
        }
    }

    /// Adds a range that is not there yet.
    pub(super) fn insert(&mut self, range: KeyRange, value: V) {
        match range {
            KeyRange::Key(key) => {
                let before = self.keys.insert(key, value);
                assert!(before.is_none(), "a key was added twice");
            }
            KeyRange::Interval(interval) => self.intervals.insert(interval, value),
        }
    }

    pub(super) fn remove(&mut self, range: &KeyRange) -> Option<V> {
        match range {
            KeyRange::Key(key) => self.keys.remove(key),
            KeyRange::Interval(interval) => self.intervals.remove(interval),
        }
    }

    /// Calls `found` with the value of every range that contains `key`.
    pub(super) fn matching(&self, key: &[u8], mut found: impl FnMut(V)) {
        if let Some(&value) = self.keys.get(key) {
            found(value);
        }
        self.intervals.stab(self.intervals.root, key, &mut found);
    }
}

/// The absent node.
const NIL: u32 = u32::MAX;

struct IntervalNode<V> {
    range: Arc<Interval>,
    value: V,
    left: u32,
    right: u32,
    /// Height of the subtree, 1 for a leaf.
    height: u8,
    /// The node of the subtree whose range ends furthest.
    furthest: u32,
}

struct IntervalTree<V> {
    nodes: Vec<IntervalNode<V>>,
    root: u32,
}

impl<V> Default for IntervalTree<V> {
    fn default() -> Self {
        IntervalTree {
            nodes: Vec::new(),
            root: NIL,
        }
    }
}

impl<V: Copy> IntervalTree<V> {
    fn get(&self, range: &Interval) -> Option<V> {
        let mut at = self.root;
        while at != NIL {
            let node = self.node(at);
            at = match range.cmp(&node.range) {
                Ordering::Less => node.left,
                Ordering::Greater => node.right,
                Ordering::Equal => return Some(node.value),
            };
        }
        None
    }

    fn insert(&mut self, range: Arc<Interval>, value: V) {
        let new = self.nodes.len() as u32;
        self.nodes.push(IntervalNode {
            range,
            value,
            left: NIL,
            right: NIL,
            height: 1,
            furthest: new,
        });
        self.root = self.insert_under(self.root, new);
    }

    fn remove(&mut self, range: &Interval) -> Option<V> {
        let mut removed = NIL;
        self.root = self.remove_under(self.root, range, &mut removed);
        if removed == NIL {
            return None;
        }
        let value = self.node(removed).value;
        self.drop_node(removed);
        Some(value)
    }

    fn stab(&self, at: u32, key: &[u8], found: &mut impl FnMut(V)) {
        if at == NIL {
            return;
        }
        let node = self.node(at);
        if !self.node(node.furthest).range.end.is_beyond(key) {
            return;
        }
        self.stab(node.left, key, found);
        // Everything to the right starts even later.
        if *node.range.start <= *key {
            if node.range.end.is_beyond(key) {
                found(node.value);
            }
            self.stab(node.right, key, found);
        }
    }

    fn insert_under(&mut self, at: u32, new: u32) -> u32 {
        if at == NIL {
            return new;
        }
        let (left, right) = (self.node(at).left, self.node(at).right);
        match self.node(new).range.cmp(&self.node(at).range) {
            Ordering::Less => self.node_mut(at).left = self.insert_under(left, new),
            Ordering::Greater => self.node_mut(at).right = self.insert_under(right, new),
            Ordering::Equal => panic!("{:?} was added twice", self.node(at).range),
        }
        self.balance(at)
    }

    fn remove_under(&mut self, at: u32, range: &Interval, removed: &mut u32) -> u32 {
        if at == NIL {
            return NIL;
        }
        let (left, right) = (self.node(at).left, self.node(at).right);
        match range.cmp(&self.node(at).range) {
            Ordering::Less => self.node_mut(at).left = self.remove_under(left, range, removed),
            Ordering::Greater => self.node_mut(at).right = self.remove_under(right, range, removed),
            Ordering::Equal => {
                *removed = at;
                return self.join(left, right);
            }
        }
        self.balance(at)
    }

    /// One tree of two, all of `left` being before all of `right`.
    fn join(&mut self, left: u32, right: u32) -> u32 {
        if right == NIL {
            return left;
        }
        let (rest, first) = self.split_first(right);
        self.node_mut(first).left = left;
        self.node_mut(first).right = rest;
        self.balance(first)
    }

    /// Takes the first node off a tree: what is left of it, and the node.
    fn split_first(&mut self, at: u32) -> (u32, u32) {
        let (left, right) = (self.node(at).left, self.node(at).right);
        if left == NIL {
            return (right, at);
        }
        let (rest, first) = self.split_first(left);
        self.node_mut(at).left = rest;
        (self.balance(at), first)
    }

    /// Restores height and order of a subtree of which one side changed by one level; its new root.
    fn balance(&mut self, at: u32) -> u32 {
        let (left, right) = (self.node(at).left, self.node(at).right);
        let heights = (self.height(left), self.height(right));
        assert!(
            heights.0.abs_diff(heights.1) <= 2,
            "heights {heights:?} below {:?}",
            self.node(at).range
        );
        if self.height(left) > self.height(right) + 1 {
            if self.height(self.node(left).left) < self.height(self.node(left).right) {
                self.node_mut(at).left = self.rotate_left(left);
            }
            return self.rotate_right(at);
        }
        if self.height(right) > self.height(left) + 1 {
            if self.height(self.node(right).right) < self.height(self.node(right).left) {
                self.node_mut(at).right = self.rotate_right(right);
            }
            return self.rotate_left(at);
        }
        self.refresh(at);
        at
    }

    fn rotate_right(&mut self, at: u32) -> u32 {
        let top = self.node(at).left;
        self.node_mut(at).left = self.node(top).right;
        self.node_mut(top).right = at;
        self.refresh(at);
        self.refresh(top);
        top
    }

    fn rotate_left(&mut self, at: u32) -> u32 {
        let top = self.node(at).right;
        self.node_mut(at).right = self.node(top).left;
        self.node_mut(top).left = at;
        self.refresh(at);
        self.refresh(top);
        top
    }

    /// Computes what a node knows of its subtree from its children.
    fn refresh(&mut self, at: u32) {
        let (left, right) = (self.node(at).left, self.node(at).right);
        let mut furthest = at;
        for child in [left, right].into_iter().filter(|&child| child != NIL) {
            let candidate = self.node(child).furthest;
            if self.node(candidate).range.end > self.node(furthest).range.end {
                furthest = candidate;
            }
        }
        let height = 1 + self.height(left).max(self.height(right));
        let node = self.node_mut(at);
        (node.height, node.furthest) = (height, furthest);
    }

    /// Frees an unlinked node's place by moving the last node into it.
    fn drop_node(&mut self, at: u32) {
        let last = self.nodes.len() as u32 - 1;
        if at != last {
            self.renumber(last, at);
        }
        self.nodes.swap_remove(at as usize);
    }

    /// Makes everyone who names the node `from` name it `to`: those on the way from the root to it.
    fn renumber(&mut self, from: u32, to: u32) {
        let range = Arc::clone(&self.node(from).range);
        if self.root == from {
            self.root = to;
        }
        let mut at = if self.root == to { from } else { self.root };
        while at != NIL {
            let order = range.cmp(&self.node(at).range);
            let node = self.node_mut(at);
            if node.furthest == from {
                node.furthest = to;
            }
            let next = match order {
                Ordering::Less => &mut node.left,
                Ordering::Greater => &mut node.right,
                Ordering::Equal => return,
            };
            let down = *next;
            if down == from {
                *next = to;
            }
            at = down;
        }
        panic!("no way leads to {range:?}");
    }

    fn height(&self, at: u32) -> u8 {
        if at == NIL { 0 } else { self.node(at).height }
    }

    fn node(&self, at: u32) -> &IntervalNode<V> {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut IntervalNode<V> {
        &mut self.nodes[at as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Checks order, balance and the furthest ends of a subtree; its height.
    fn check(tree: &IntervalTree<usize>, at: u32, seen: &mut Vec<Arc<Interval>>) -> u8 {
        if at == NIL {
            return 0;
        }
        let node = tree.node(at);
        let before = seen.len();
        let left = check(tree, node.left, seen);
        seen.push(Arc::clone(&node.range));
        let right = check(tree, node.right, seen);
        assert!(left.abs_diff(right) <= 1, "heights {left} and {right}");
        assert_eq!(node.height, 1 + left.max(right));
        let furthest = seen[before..].iter().map(|range| &range.end).max();
        assert_eq!(furthest, Some(&tree.node(node.furthest).range.end));
        node.height
    }

    fn random_word(rng: &mut fastrand::Rng) -> Vec<u8> {
        (0..rng.usize(1..4)).map(|_| rng.u8(b'a'..b'e')).collect()
    }

    fn random_range(rng: &mut fastrand::Rng) -> KeyRange {
        loop {
            let end = match rng.u8(..8) {
                0 => vec![],
                1 => vec![0],
                _ => random_word(rng),
            };
            if let Ok(range) = KeyRange::parse(&random_word(rng), &end) {
                return range;
            }
        }
    }

    /// The naive model is a list of ranges, each asked whether it contains the key.
    #[test]
    fn agrees_with_a_list() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut index = Index::default();
        let mut model: BTreeMap<KeyRange, usize> = BTreeMap::new();
        for step in 0..20_000 {
            let range = random_range(&mut rng);
            let grow = model.len() < if step % 4000 < 2000 { 300 } else { 20 };
            if !model.contains_key(&range) && grow {
                index.insert(range.clone(), step);
                model.insert(range.clone(), step);
            } else {
                assert_eq!(index.remove(&range), model.remove(&range));
            }
            assert_eq!(index.get(&range), model.get(&range).copied());
            let probe = random_word(&mut rng);
            let mut found = BTreeSet::new();
            index.matching(&probe, |value| assert!(found.insert(value)));
            let expected = model.iter().filter(|(range, _)| range.contains(&probe));
            assert_eq!(found, expected.map(|(_, &value)| value).collect());
            if step % 50 == 0 {
                let mut seen = Vec::new();
                check(&index.intervals, index.intervals.root, &mut seen);
                assert!(seen.is_sorted());
                assert_eq!(seen.len() + index.keys.len(), model.len());
            }
        }
    }

    /// Ten thousand ranges in order, as a client would add them to make the tree deep.
    #[test]
    fn a_lookup_does_not_visit_what_it_misses() {
        let mut index = Index::default();
        for i in 0..10_000u32 {
            let start = format!("/registry/{i:05}/");
            let end = format!("/registry/{i:05}0");
            let range = KeyRange::parse(start.as_bytes(), end.as_bytes()).unwrap();
            index.insert(range, i);
        }
        assert!(index.intervals.height(index.intervals.root) <= 19);
        let mut found = Vec::new();
        index.matching(b"/registry/07123/pod", |value| found.push(value));
        assert_eq!(found, [7123]);
    }
}
