//! The part of a tree that a commit changes, in memory.
//!
//! [`Merge`] runs a sorted list of changes down a bucket's tree. Nodes that a change falls into are
//! opened, everything else is kept as a reference to its page. On the way back up, nodes that
//! became small are joined with a neighbour, so that deleting gives pages back. Nothing is written
//! here, and so nodes can be joined at every level before any of them has a place in the file.
//!
//! Invariant of what is left: below the top, no leaf is empty and no branch has fewer than two
//! children. The Go library relies on it.

use std::sync::Arc;

use super::error::{BoltError, Damage, Reason};
use super::page::{Content, Element, Kind, Page, encoded_len};
use super::pager::Pager;
use super::space::Extent;
use super::split::underfull_below;

/// No tree is deeper than this: a branch has at least two children.
pub(crate) const DEPTH_MAX: usize = 64;
/// The fewest children of a branch that is not on top of a tree.
pub(crate) const BRANCH_MIN: usize = 2;

/// A change of one key.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The key, 1 to 32768 bytes.
    pub key: &'a [u8],
    /// The value to set, or `None` to delete the key. Deleting an absent key is not an error.
    pub value: Option<&'a [u8]>,
}

/// A node that a change has opened.
pub(crate) enum Node<'a> {
    Leaf(Leaf<'a>),
    Branch(Branch<'a>),
}

/// What is on top of a tree after a merge.
pub(crate) enum Top<'a> {
    /// A page of the old tree.
    Kept(u64),
    Node(Node<'a>),
}

/// An opened leaf.
pub(crate) struct Leaf<'a> {
    pub(crate) items: Vec<Item<'a>>,
    /// Whether it is the last leaf of its tree and grew at its end.
    pub(crate) append: bool,
}

/// An opened branch.
pub(crate) struct Branch<'a> {
    pub(crate) children: Vec<Child<'a>>,
    /// Whether its last child grew at its end, as [`Leaf::append`].
    pub(crate) append: bool,
}

/// A key with its value, where they were or where they come from.
#[derive(Clone)]
pub(crate) enum Item<'a> {
    Old(Arc<Page>, usize),
    New(&'a [u8], Content<'a>),
}

impl Item<'_> {
    pub(crate) fn element(&self) -> Element<'_> {
        match self {
            Item::Old(page, index) => Element {
                key: page.key(*index),
                content: Content::Value(page.value(*index)),
            },
            Item::New(key, content) => Element {
                key,
                content: *content,
            },
        }
    }
}

/// A child of an opened branch.
pub(crate) enum Child<'a> {
    /// The child that this element of a branch page leads to, untouched.
    Kept(Arc<Page>, usize),
    /// An opened child.
    Fresh(Node<'a>),
}

impl<'a> Node<'a> {
    fn append(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.append,
            Node::Branch(branch) => branch.append,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.items.is_empty(),
            Node::Branch(branch) => branch.children.is_empty(),
        }
    }

    /// Whether it should be joined with a neighbour. The growing end of a tree may be small.
    fn is_underfull(&self, page_size: usize) -> bool {
        let least = underfull_below(page_size);
        match self {
            Node::Leaf(leaf) => {
                !leaf.append && encoded_len(leaf.items.iter().map(Item::element)) < least
            }
            Node::Branch(branch) => {
                branch.children.len() < BRANCH_MIN
                    || (!branch.append && branch.children.len() * 32 < least)
            }
        }
    }
}

/// Applies changes to a tree of one root.
pub(crate) struct Merge<'a> {
    pager: &'a Pager,
    high_water: u64,
    /// Nodes of the old tree that the new one no longer uses.
    dead: Vec<Extent>,
}

impl<'a> Merge<'a> {
    /// A merge on trees below the given high-water mark.
    pub(crate) fn new(pager: &'a Pager, high_water: u64) -> Merge<'a> {
        Merge {
            pager,
            high_water,
            dead: Vec::new(),
        }
    }

    /// The nodes that the merges so far have replaced.
    pub(crate) fn into_dead(self) -> Vec<Extent> {
        self.dead
    }

    /// The node at page `id`, which the new tree will not use.
    pub(crate) fn open(&mut self, id: u64) -> Result<Arc<Page>, BoltError> {
        let page = self.pager.page(id, self.high_water)?;
        self.dead.push(Extent {
            id,
            pages: page.pages(),
        });
        Ok(page)
    }

    /// Merges `changes`, ascending by key, into the tree whose top is `page`. The leaves where the
    /// keys of `moves`, ascending, belong are opened as well, whether or not something in them
    /// changes.
    pub(crate) fn merge(
        &mut self,
        page: &Arc<Page>,
        changes: &[Change<'a>],
        moves: &[Box<[u8]>],
    ) -> Result<Top<'a>, BoltError> {
        let mut node = self.descend(page, changes, moves, true, 0)?;
        loop {
            node = match node {
                // A branch that leads to one child only is not needed.
                Node::Branch(mut branch) if branch.children.len() == 1 => {
                    match branch.children.pop().expect("one child") {
                        Child::Kept(page, index) => return Ok(Top::Kept(page.child(index))),
                        Child::Fresh(node) => node,
                    }
                }
                Node::Branch(branch) if branch.children.is_empty() => {
                    return Ok(Top::Node(Node::Leaf(Leaf {
                        items: Vec::new(),
                        append: true,
                    })));
                }
                node => return Ok(Top::Node(node)),
            }
        }
    }

    fn descend(
        &mut self,
        page: &Arc<Page>,
        mut changes: &[Change<'a>],
        mut moves: &[Box<[u8]>],
        last: bool,
        depth: usize,
    ) -> Result<Node<'a>, BoltError> {
        if depth > DEPTH_MAX {
            return Err(Damage::new(page.id(), Reason::TooDeep).into());
        }
        if page.kind() == Kind::Leaf {
            return Ok(Node::Leaf(merge_leaf(page, changes, last)?));
        }
        let mut children = Vec::with_capacity(page.count());
        let mut append = false;
        for index in 0..page.count() {
            let is_last = index + 1 == page.count();
            let (mut here, mut moves_here) = (changes, moves);
            if !is_last {
                let end = page.key(index + 1);
                (here, changes) =
                    changes.split_at(changes.partition_point(|change| change.key < end));
                (moves_here, moves) = moves.split_at(moves.partition_point(|key| **key < *end));
            }
            if here.is_empty() && moves_here.is_empty() {
                children.push(Child::Kept(Arc::clone(page), index));
                continue;
            }
            let child = self.open(page.child(index))?;
            let node = self.descend(&child, here, moves_here, last && is_last, depth + 1)?;
            append = node.append();
            children.push(Child::Fresh(node));
        }
        let children = self.balance(children, page.id())?;
        Ok(Node::Branch(Branch {
            children,
            append: append && last,
        }))
    }

    /// Drops empty nodes and joins small ones with a neighbour. Only opened nodes are looked at: a
    /// page that no change touches stays as it is. `parent` is named in what is wrong with the
    /// tree.
    fn balance(
        &mut self,
        children: Vec<Child<'a>>,
        parent: u64,
    ) -> Result<Vec<Child<'a>>, BoltError> {
        let mut balanced: Vec<Child<'a>> = Vec::with_capacity(children.len());
        for child in children {
            if matches!(&child, Child::Fresh(node) if node.is_empty()) {
                continue;
            }
            let child = match balanced.pop_if(|child| self.is_underfull(child)) {
                Some(left) => self.join(left, child, parent)?,
                None => child,
            };
            balanced.push(child);
        }
        while balanced.len() > 1 {
            let Some(right) = balanced.pop_if(|child| self.is_underfull(child)) else {
                break;
            };
            let left = balanced.pop().expect("more than one child");
            let joined = self.join(left, right, parent)?;
            balanced.push(joined);
        }
        Ok(balanced)
    }

    fn is_underfull(&self, child: &Child<'a>) -> bool {
        matches!(child, Child::Fresh(node) if node.is_underfull(self.pager.page_size()))
    }

    fn join(
        &mut self,
        left: Child<'a>,
        right: Child<'a>,
        parent: u64,
    ) -> Result<Child<'a>, BoltError> {
        let node = match (self.opened(left)?, self.opened(right)?) {
            (Node::Leaf(mut left), Node::Leaf(right)) => {
                left.items.extend(right.items);
                Node::Leaf(Leaf {
                    items: left.items,
                    append: right.append,
                })
            }
            (Node::Branch(mut left), Node::Branch(right)) => {
                left.children.extend(right.children);
                let children = self.balance(left.children, parent)?;
                Node::Branch(Branch {
                    children,
                    append: right.append,
                })
            }
            _ => return Err(Damage::new(parent, Reason::Uneven).into()),
        };
        Ok(Child::Fresh(node))
    }

    fn opened(&mut self, child: Child<'a>) -> Result<Node<'a>, BoltError> {
        let page = match child {
            Child::Fresh(node) => return Ok(node),
            Child::Kept(page, index) => self.open(page.child(index))?,
        };
        match page.kind() {
            Kind::Leaf => Ok(Node::Leaf(merge_leaf(&page, &[], false)?)),
            Kind::Branch => {
                let children = (0..page.count())
                    .map(|index| Child::Kept(Arc::clone(&page), index))
                    .collect();
                Ok(Node::Branch(Branch {
                    children,
                    append: false,
                }))
            }
        }
    }
}

/// Merges changes into a leaf; `last` says that no leaf of its tree comes behind it.
fn merge_leaf<'a>(
    page: &Arc<Page>,
    changes: &[Change<'a>],
    last: bool,
) -> Result<Leaf<'a>, Damage> {
    let mut items = Vec::with_capacity(page.count() + changes.len());
    let mut next = 0;
    for change in changes {
        let (until, found) = match page.search(change.key) {
            Ok(index) => (index, true),
            Err(index) => (index, false),
        };
        items.extend((next..until).map(|index| Item::Old(Arc::clone(page), index)));
        next = until + usize::from(found);
        if let Some(value) = change.value {
            items.push(Item::New(change.key, Content::Value(value)));
        }
    }
    let grew = next == page.count() && matches!(items.last(), Some(Item::New(..)));
    items.extend((next..page.count()).map(|index| Item::Old(Arc::clone(page), index)));
    if let Some(index) = (0..page.count()).find(|index| page.is_bucket(*index)) {
        return Err(Damage::new(page.id(), Reason::NestedBucket(index)));
    }
    let (most, count) = (page.count() + changes.len(), items.len());
    assert!(count <= most, "{count} items of {most} old and new ones");
    debug_assert!(
        items.is_sorted_by(|a, b| a.element().key < b.element().key),
        "items of page {} out of order",
        page.id()
    );
    Ok(Leaf {
        items,
        append: last && grew,
    })
}
