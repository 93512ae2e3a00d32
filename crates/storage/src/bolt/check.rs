//! Checking a file, page by page.
//!
//! Every page is reached once; elements lie within their nodes and ascend, within a page and across
//! pages; keys lie in the range that the branches above promise; leaves are equally deep; buckets
//! have valid headers. That is what bbolt's own check asks for, and a little more.

use super::bitmap::Bitmap;
use super::error::{BoltError, Damage, Reason};
use super::node::DEPTH_MAX;
use super::page::{Kind, Page};
use super::root::{Root, Store, read_bucket};

/// The check ends after this many findings.
const FOUND_MAX: usize = 1000;

/// Checks everything that `root` leads to.
pub(crate) fn check(root: &Root) -> Result<Vec<Damage>, BoltError> {
    let mut check = Check {
        root,
        seen: Bitmap::default(),
        found: Vec::new(),
    };
    check.seen.insert(0);
    check.seen.insert(1);
    check.tree(root.meta.root, Contents::Buckets)?;
    Ok(check.found)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Contents {
    Buckets,
    Values,
}

struct Check<'r> {
    root: &'r Root,
    seen: Bitmap,
    found: Vec<Damage>,
}

/// Where in its tree a node is, and which keys it may hold: `min <= key < max`.
struct Place<'k> {
    depth: usize,
    min: Option<&'k [u8]>,
    max: Option<&'k [u8]>,
}

/// A tree that is being checked.
struct Tree {
    contents: Contents,
    /// Where its first leaf was found.
    leaf_depth: Option<usize>,
}

impl Check<'_> {
    fn tree(&mut self, top: u64, contents: Contents) -> Result<(), BoltError> {
        let mut tree = Tree {
            contents,
            leaf_depth: None,
        };
        self.node(
            top,
            &mut tree,
            Place {
                depth: 0,
                min: None,
                max: None,
            },
        )
    }

    fn report(&mut self, page: u64, reason: Reason) {
        self.found.push(Damage::new(page, reason));
    }

    fn node(&mut self, id: u64, tree: &mut Tree, place: Place<'_>) -> Result<(), BoltError> {
        if self.found.len() >= FOUND_MAX {
            return Ok(());
        }
        let page = match self.root.pager.read(id, self.root.meta.high_water) {
            Ok(page) => page,
            Err(BoltError::Damaged(damage)) => {
                self.found.push(damage);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if let Some(twice) = (id..id + page.pages()).find(|page| !self.seen.insert(*page)) {
            self.report(twice, Reason::ReferencedTwice);
            return Ok(());
        }
        self.keys(&page, &place);
        match page.kind() {
            Kind::Branch if place.depth == DEPTH_MAX => self.report(id, Reason::TooDeep),
            Kind::Branch => self.children(&page, tree, &place)?,
            Kind::Leaf => self.leaf(&page, tree, place.depth)?,
        }
        Ok(())
    }

    fn keys(&mut self, page: &Page, place: &Place<'_>) {
        let Some(last) = page.count().checked_sub(1) else {
            // Only a leaf on top of its tree may be empty.
            if place.depth > 0 || page.kind() == Kind::Branch {
                self.report(page.id(), Reason::Empty);
            }
            return;
        };
        if place.min.is_some_and(|min| page.key(0) < min) {
            self.report(page.id(), Reason::KeyRange(0));
        }
        if place.max.is_some_and(|max| page.key(last) >= max) {
            self.report(page.id(), Reason::KeyRange(last));
        }
    }

    fn children(
        &mut self,
        page: &Page,
        tree: &mut Tree,
        place: &Place<'_>,
    ) -> Result<(), BoltError> {
        for index in 0..page.count() {
            let max = match index + 1 < page.count() {
                true => Some(page.key(index + 1)),
                false => place.max,
            };
            let below = Place {
                depth: place.depth + 1,
                min: Some(page.key(index)),
                max,
            };
            self.node(page.child(index), tree, below)?;
        }
        Ok(())
    }

    fn leaf(&mut self, page: &Page, tree: &mut Tree, depth: usize) -> Result<(), BoltError> {
        if *tree.leaf_depth.get_or_insert(depth) != depth {
            self.report(page.id(), Reason::Uneven);
        }
        match tree.contents {
            Contents::Values => {
                if let Some(index) = (0..page.count()).find(|index| page.is_bucket(*index)) {
                    self.report(page.id(), Reason::NestedBucket(index));
                }
            }
            Contents::Buckets => {
                for index in 0..page.count() {
                    self.bucket(page, index)?;
                }
            }
        }
        Ok(())
    }

    fn bucket(&mut self, page: &Page, index: usize) -> Result<(), BoltError> {
        match read_bucket(page, index) {
            Ok((Store::Tree(top), _)) => return self.tree(top, Contents::Values),
            Ok((Store::Inline(inline), _)) => {
                if let Some(index) = (0..inline.count()).find(|index| inline.is_bucket(*index)) {
                    self.report(page.id(), Reason::NestedBucket(index));
                }
            }
            Err(damage) => self.found.push(damage),
        }
        Ok(())
    }
}
