//! Gives opened nodes their pages.
//!
//! Nodes are split to size, take free pages, children before their parents, and wait here in
//! encoded form until the commit writes all of them in the order of the file.

use std::sync::Arc;

use super::node::{BRANCH_MIN, Branch, Child, Item, Node};
use super::page::{Content, ELEMENT_BYTES, Element, Kind, Page, encode, encoded_len};
use super::space::{Extent, Space};
use super::split::split;

/// What a commit has encoded.
pub(crate) struct Spill<'s> {
    space: &'s mut Space,
    page_size: usize,
    txid: u64,
    pages: Vec<Arc<Page>>,
}

/// The way to a spilled node: its first key and its page.
struct Link<'a> {
    key: LinkKey<'a>,
    child: u64,
}

enum LinkKey<'a> {
    Leaf(Item<'a>),
    Branch(Arc<Page>, usize),
}

impl Link<'_> {
    fn element(&self) -> Element<'_> {
        let key = match &self.key {
            LinkKey::Leaf(item) => item.element().key,
            LinkKey::Branch(page, index) => page.key(*index),
        };
        Element {
            key,
            content: Content::Child(self.child),
        }
    }
}

impl<'s> Spill<'s> {
    /// Nothing yet, for the commit of transaction `txid`.
    pub(crate) fn new(space: &'s mut Space, page_size: usize, txid: u64) -> Spill<'s> {
        Spill {
            space,
            page_size,
            txid,
            pages: Vec::new(),
        }
    }

    /// Bytes of a page.
    pub(crate) fn page_size(&self) -> usize {
        self.page_size
    }

    /// The number of nodes encoded so far.
    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    /// The places of all nodes but the first `skip` ones.
    pub(crate) fn extents_from(&self, skip: usize) -> Vec<Extent> {
        self.pages[skip..]
            .iter()
            .map(|page| Extent {
                id: page.id(),
                pages: page.pages(),
            })
            .collect()
    }

    /// Everything that was encoded, in the order of the file.
    pub(crate) fn into_pages(mut self) -> Vec<Arc<Page>> {
        self.pages.sort_unstable_by_key(|page| page.id());
        self.pages
    }

    /// Spills a whole tree and returns the page of its top.
    pub(crate) fn tree(&mut self, top: Node<'_>) -> u64 {
        let append = matches!(&top, Node::Leaf(leaf) if leaf.append)
            || matches!(&top, Node::Branch(branch) if branch.append);
        let mut links = self.node(top);
        while links.len() > 1 {
            let below = links.len();
            links = self.branches(links, append);
            let above = links.len();
            assert!(above < below, "{above} nodes above {below}");
        }
        links[0].child
    }

    fn node<'a>(&mut self, node: Node<'a>) -> Vec<Link<'a>> {
        match node {
            Node::Leaf(leaf) => self.leaves(leaf.items, leaf.append),
            Node::Branch(Branch { children, append }) => {
                let links = children
                    .into_iter()
                    .flat_map(|child| self.child(child))
                    .collect();
                self.branches(links, append)
            }
        }
    }

    fn child<'a>(&mut self, child: Child<'a>) -> Vec<Link<'a>> {
        match child {
            Child::Kept(page, index) => {
                let child = page.child(index);
                vec![Link {
                    key: LinkKey::Branch(page, index),
                    child,
                }]
            }
            Child::Fresh(node) => self.node(node),
        }
    }

    fn leaves<'a>(&mut self, items: Vec<Item<'a>>, append: bool) -> Vec<Link<'a>> {
        let sizes: Vec<usize> = items
            .iter()
            .map(|item| element_bytes(&item.element()))
            .collect();
        let mut links = Vec::new();
        let mut rest = items.as_slice();
        for count in split(&sizes, self.page_size, append, 1) {
            let (part, after) = rest.split_at(count);
            rest = after;
            let child = self.encode(Kind::Leaf, part.iter().map(Item::element));
            // Only the top of an empty tree has no first key, and nothing leads to a top.
            let key = part
                .first()
                .cloned()
                .unwrap_or(Item::New(&[], Content::Value(&[])));
            links.push(Link {
                key: LinkKey::Leaf(key),
                child,
            });
        }
        assert!(rest.is_empty(), "{} items have no leaf", rest.len());
        links
    }

    fn branches<'a>(&mut self, links: Vec<Link<'a>>, append: bool) -> Vec<Link<'a>> {
        assert!(
            links.len() >= BRANCH_MIN,
            "a branch with {} children",
            links.len()
        );
        let sizes: Vec<usize> = links
            .iter()
            .map(|link| element_bytes(&link.element()))
            .collect();
        let nodes = split(&sizes, self.page_size, append, BRANCH_MIN);
        let mut above = Vec::with_capacity(nodes.len());
        let mut links = links.into_iter();
        for count in nodes {
            let part: Vec<Link<'a>> = links.by_ref().take(count).collect();
            let child = self.encode(Kind::Branch, part.iter().map(Link::element));
            let first = part
                .into_iter()
                .next()
                .expect("a split makes no empty nodes");
            above.push(Link {
                key: first.key,
                child,
            });
        }
        let left = links.len();
        assert_eq!(left, 0, "{left} children have no branch");
        above
    }

    /// Encodes a node to free pages and returns the first.
    fn encode<'a>(
        &mut self,
        kind: Kind,
        elements: impl ExactSizeIterator<Item = Element<'a>> + Clone,
    ) -> u64 {
        let len = encoded_len(elements.clone());
        let pages = len.div_ceil(self.page_size);
        let id = self.space.allocate(pages as u64, self.txid);
        let mut bytes = vec![0; pages * self.page_size].into_boxed_slice();
        let encoded = encode(&mut bytes, id, kind, pages as u32 - 1, elements);
        assert_eq!(encoded, len, "bytes of page {id}");
        self.pages.push(Arc::new(Page::built(bytes)));
        id
    }
}

fn element_bytes(element: &Element<'_>) -> usize {
    let value = match element.content {
        Content::Child(_) => 0,
        Content::Value(value) | Content::Bucket(value) => value.len(),
    };
    ELEMENT_BYTES + element.key.len() + value
}
