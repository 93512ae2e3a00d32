//! A tree of intervals of etcd's shape, for the requests whose answer depends on it.
//!
//! A request for the range from `key` to `range_end` should be permitted if permissions cover it,
//! and for sensible ranges that is what etcd decides. For a range that ends before it starts, which
//! is for nothing at all, it decides by what its search comes by in a red-black tree of the
//! permissions (v3.7: `pkg/adt/interval_tree.go`, the same since 3.4). A member in a cluster with
//! others of etcd has to decide alike: a transaction with such an operation is refused by all
//! members or by none. So the tree is built here by the same insertions, and searched in the same
//! way.
//!
//! ```text
//!              [d, f)          by start, then by end; the order of insertion decides who is above whom
//!             /      \
//!        [a, c)      [h, ..)   the search for [e, b) finds [d, f), that for [g, b) ends at it
//! ```
//!
//! A bound without bytes is the greatest of all.

use std::cmp::Ordering;

/// A half-open interval; `from` and `to` may be in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
}

impl Interval {
    /// Of a key alone.
    pub(super) fn point(key: &[u8]) -> Interval {
        Interval {
            from: key.to_vec(),
            to: [key, &[0]].concat(),
        }
    }

    /// Where this lies in relation to another: before, behind, or neither.
    fn place(&self, other: &Interval) -> Ordering {
        place((&self.from, &self.to), (&other.from, &other.to))
    }
}

fn place(this: (&[u8], &[u8]), other: (&[u8], &[u8])) -> Ordering {
    if compare(this.0, other.0).is_lt() && compare(this.1, other.0).is_le() {
        Ordering::Less
    } else if compare(this.0, other.1).is_ge() {
        Ordering::Greater
    } else {
        Ordering::Equal
    }
}

/// Compares bounds.
pub(super) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    (a.is_empty(), a).cmp(&(b.is_empty(), b))
}

/// A node's place in the tree's list.
type Link = Option<usize>;

#[derive(Clone, Debug)]
struct Node {
    interval: Interval,
    /// The greatest end in the node's branch.
    max: Vec<u8>,
    parent: Link,
    /// Below it, left and right.
    children: [Link; 2],
    is_red: bool,
}

const LEFT: usize = 0;
const RIGHT: usize = 1;

/// The tree.
#[derive(Clone, Debug, Default)]
pub(super) struct IntervalTree {
    nodes: Vec<Node>,
    root: Link,
}

impl IntervalTree {
    /// The tree that these insertions lead to.
    pub(super) fn of<'a>(intervals: impl Iterator<Item = &'a Interval>) -> IntervalTree {
        let mut tree = IntervalTree::default();
        for interval in intervals {
            tree.insert(interval.clone());
        }
        if let Some(root) = tree.root {
            tree.note_max(root);
        }
        tree
    }

    /// Whether the search for `wanted` comes by intervals that together cover it.
    pub(super) fn contains(&self, wanted: &Interval) -> bool {
        let mut found: Option<(&[u8], &[u8])> = None;
        let mut is_contiguous = true;
        self.visit(self.root, wanted, &mut |interval| {
            let to: &[u8] = match found {
                Some((_, to)) if compare(to, &interval.from).is_lt() => {
                    is_contiguous = false;
                    return false;
                }
                Some((_, to)) if compare(to, &interval.to).is_ge() => to,
                _ => &interval.to,
            };
            let from = found.map_or(&interval.from[..], |(from, _)| from);
            found = Some((from, to));
            true
        });
        is_contiguous
            && found.is_some_and(|(from, to)| {
                compare(to, &wanted.to).is_ge() && compare(from, &wanted.from).is_le()
            })
    }

    /// Whether the search for `wanted` meets an interval.
    pub(super) fn intersects(&self, wanted: &Interval) -> bool {
        let mut at = self.root;
        while let Some(node) = at.map(|at| &self.nodes[at]) {
            if wanted.place(&node.interval).is_eq() {
                return true;
            }
            let left = node.children[LEFT];
            let goes_left =
                left.is_some_and(|left| compare(&self.nodes[left].max, &wanted.from).is_gt());
            at = node.children[usize::from(!goes_left)];
        }
        false
    }

    /// Shows `see` what the search comes by, in order, until it has seen enough; whether it has
    /// not.
    fn visit<'a>(
        &'a self,
        at: Link,
        wanted: &Interval,
        see: &mut impl FnMut(&'a Interval) -> bool,
    ) -> bool {
        let Some(node) = at.map(|at| &self.nodes[at]) else {
            return true;
        };
        let [left, right] = node.children;
        match wanted.place(&node.interval) {
            Ordering::Less => self.visit(left, wanted, see),
            Ordering::Equal => {
                self.visit(left, wanted, see)
                    && see(&node.interval)
                    && self.visit(right, wanted, see)
            }
            Ordering::Greater => {
                let branch = (&node.interval.from[..], &node.max[..]);
                // This is where a reversed range misses what lies below.
                place(branch, (&wanted.from, &wanted.to)).is_ne()
                    || (self.visit(left, wanted, see) && self.visit(right, wanted, see))
            }
        }
    }

    fn insert(&mut self, interval: Interval) {
        let (mut parent, mut at) = (None, self.root);
        let mut side = LEFT;
        while let Some(above) = at {
            let node = &self.nodes[above];
            let by_start = compare(&interval.from, &node.interval.from);
            let order = by_start.then_with(|| compare(&interval.to, &node.interval.to));
            side = usize::from(order.is_ge());
            (parent, at) = (Some(above), node.children[side]);
        }
        let new = self.nodes.len();
        self.nodes.push(Node {
            max: Vec::new(),
            interval,
            parent,
            children: [None; 2],
            is_red: true,
        });
        match parent {
            None => self.root = Some(new),
            Some(parent) => self.nodes[parent].children[side] = Some(new),
        }
        self.rebalance(new);
    }

    /// No red node stays below a red one.
    fn rebalance(&mut self, mut at: usize) {
        while let Some(parent) = self.nodes[at].parent
            && self.nodes[parent].is_red
        {
            let grandparent = self.nodes[parent].parent;
            let grandparent = grandparent.expect("the root is black");
            let side = usize::from(self.nodes[grandparent].children[RIGHT] == Some(parent));
            let uncle = self.nodes[grandparent].children[1 - side];
            if let Some(uncle) = uncle.filter(|&uncle| self.nodes[uncle].is_red) {
                self.nodes[uncle].is_red = false;
                self.nodes[parent].is_red = false;
                self.nodes[grandparent].is_red = true;
                at = grandparent;
                continue;
            }
            let mut upper = parent;
            if self.nodes[parent].children[1 - side] == Some(at) {
                self.rotate(parent, side);
                (upper, at) = (at, parent);
            }
            self.nodes[upper].is_red = false;
            self.nodes[grandparent].is_red = true;
            self.rotate(grandparent, 1 - side);
        }
        let root = self.root.expect("something was inserted");
        self.nodes[root].is_red = false;
    }

    /// Moves a node down to `side`; its child on the other side takes its place.
    fn rotate(&mut self, down: usize, side: usize) {
        let up = self.nodes[down].children[1 - side].expect("who takes the place exists");
        let between = self.nodes[up].children[side];
        self.nodes[down].children[1 - side] = between;
        if let Some(between) = between {
            self.nodes[between].parent = Some(down);
        }
        let above = self.nodes[down].parent;
        match above {
            None => self.root = Some(up),
            Some(above) => {
                let at = usize::from(self.nodes[above].children[RIGHT] == Some(down));
                self.nodes[above].children[at] = Some(up);
            }
        }
        self.nodes[up].parent = above;
        self.nodes[up].children[side] = Some(down);
        self.nodes[down].parent = Some(up);
    }

    /// Notes the greatest end of every branch below and at `at`. The tree is flat: twice the
    /// logarithm.
    fn note_max(&mut self, at: usize) {
        let mut max = self.nodes[at].interval.to.clone();
        for child in self.nodes[at].children.into_iter().flatten() {
            self.note_max(child);
            if compare(&self.nodes[child].max, &max).is_gt() {
                max = self.nodes[child].max.clone();
            }
        }
        self.nodes[at].max = max;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Permissions and requests, and what etcd's own tree says: see the file.
    #[test]
    fn decisions_are_etcds() {
        let mut tree = IntervalTree::default();
        let mut decisions = 0;
        for line in include_str!("../../tests/data/intervals.txt").lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let interval = |word: &str| {
                let (from, to) = word.split_once('-').unwrap();
                let [from, to] = [from, to].map(|text| text.as_bytes().to_vec());
                Interval { from, to }
            };
            match words[..] {
                ["#", ..] => {}
                ["tree", ref intervals @ ..] => {
                    let intervals: Vec<Interval> = intervals.iter().map(|i| interval(i)).collect();
                    tree = IntervalTree::of(intervals.iter());
                }
                ["contains", wanted, answer] => {
                    let contains = tree.contains(&interval(wanted));
                    assert_eq!(contains.to_string(), answer, "{wanted} in {tree:?}");
                    decisions += 1;
                }
                ["intersects", wanted, answer] => {
                    let intersects = tree.intersects(&interval(wanted));
                    assert_eq!(intersects.to_string(), answer, "{wanted} in {tree:?}");
                    decisions += 1;
                }
                _ => panic!("{line}"),
            }
        }
        assert!(decisions > 1000);
    }
}
