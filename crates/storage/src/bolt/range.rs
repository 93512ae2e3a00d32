//! Looking up keys, and walking over them in order.

use std::collections::VecDeque;
use std::sync::Arc;

use super::error::{BoltError, Damage, Reason};
use super::node::DEPTH_MAX;
use super::page::{Kind, Page};
use super::root::{Bucket, Root};

/// A key and its value, in the page that holds them.
#[derive(Clone)]
pub struct Entry {
    page: Arc<Page>,
    index: usize,
}

impl Entry {
    pub(crate) fn new(page: &Arc<Page>, index: usize) -> Entry {
        Entry {
            page: Arc::clone(page),
            index,
        }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        self.page.key(self.index)
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        self.page.value(self.index)
    }

    /// The entry of a leaf below a bucket, whose value must not be a bucket itself.
    fn value_at(page: Arc<Page>, index: usize) -> Result<Entry, BoltError> {
        match page.is_bucket(index) {
            true => Err(Damage::new(page.id(), Reason::NestedBucket(index)).into()),
            false => Ok(Entry { page, index }),
        }
    }

    /// The entry of `key` in `bucket`.
    pub(crate) fn find(
        root: &Root,
        bucket: &Bucket,
        key: &[u8],
    ) -> Result<Option<Entry>, BoltError> {
        Entry::of_leaf(leaf(root, bucket, key)?, key)
    }

    /// The same, as far as the pages on the way are in memory.
    pub(crate) fn find_cached(
        root: &Root,
        bucket: &Bucket,
        key: &[u8],
    ) -> Result<Cached<Entry>, BoltError> {
        let mut page = root.top_in_memory(bucket)?;
        let mut depth = 0;
        loop {
            let Some(found) = page else {
                return Ok(Cached::Unknown);
            };
            if found.kind() != Kind::Branch {
                return Entry::of_leaf(found, key).map(Cached::Known);
            }
            page = root.page_in_memory(child(&found, found.route(key), &mut depth)?)?;
        }
    }

    fn of_leaf(leaf: Arc<Page>, key: &[u8]) -> Result<Option<Entry>, BoltError> {
        match leaf.search(key) {
            Ok(index) => Entry::value_at(leaf, index).map(Some),
            Err(_) => Ok(None),
        }
    }
}

/// The leaf of `bucket` on which `key` is, if there is one.
fn leaf(root: &Root, bucket: &Bucket, key: &[u8]) -> Result<Arc<Page>, BoltError> {
    let mut page = root.top(bucket)?;
    let mut depth = 0;
    while page.kind() == Kind::Branch {
        page = root.page(child(&page, page.route(key), &mut depth)?)?;
    }
    Ok(page)
}

/// Looks up keys of a bucket that often lie close to each other: the leaf of the last one is looked
/// at first.
pub struct Lookup<'t> {
    root: &'t Root,
    /// `None` if there is no such bucket.
    bucket: Option<&'t Bucket>,
    leaf: Option<Arc<Page>>,
}

impl<'t> Lookup<'t> {
    pub(crate) fn new(root: &'t Root, bucket: &[u8]) -> Lookup<'t> {
        Lookup {
            root,
            bucket: root.bucket(bucket),
            leaf: None,
        }
    }

    /// The value of `key`, if there is one.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<&[u8]>, BoltError> {
        let Some(bucket) = self.bucket else {
            return Ok(None);
        };
        let last = self.leaf.take().filter(|leaf| leaf.spans(key));
        let leaf = match last {
            Some(leaf) => leaf,
            None => leaf(self.root, bucket, key)?,
        };
        let leaf = self.leaf.insert(leaf);
        match leaf.search(key) {
            Ok(index) if leaf.is_bucket(index) => {
                Err(Damage::new(leaf.id(), Reason::NestedBucket(index)).into())
            }
            Ok(index) => Ok(Some(leaf.value(index))),
            Err(_) => Ok(None),
        }
    }
}

/// Keys that divide a bucket into about `parts` parts of about one size, ascending; fewer, if it is
/// small.
pub(crate) fn split(
    root: &Root,
    bucket: &Bucket,
    parts: usize,
) -> Result<Vec<Box<[u8]>>, BoltError> {
    // Then parts differ by little, although they begin where a page begins.
    let pages_min = parts.saturating_mul(16);
    let mut level = vec![root.top(bucket)?];
    let mut depth = 0;
    while level[0].kind() == Kind::Branch
        && level.iter().map(|page| page.count()).sum::<usize>() < pages_min
    {
        let mut below = Vec::new();
        for page in &level {
            for index in 0..page.count() {
                let id = child(page, index, &mut { depth })?;
                below.push(root.page(id)?);
            }
        }
        if below.is_empty() {
            return Err(Damage::new(level[0].id(), Reason::Empty).into());
        }
        level = below;
        depth += 1;
    }
    let keys: Vec<&[u8]> = level
        .iter()
        .flat_map(|page| (0..page.count()).map(|index| page.key(index)))
        .collect();
    let cuts = (1..parts).map(|part| keys.len() * part / parts);
    let mut cuts: Vec<Box<[u8]>> = cuts
        .filter_map(|at| keys.get(at).filter(|_| at > 0))
        .map(|key| Box::from(*key))
        .collect();
    cuts.dedup();
    Ok(cuts)
}

/// What memory tells without a wait for the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached<T> {
    /// What the file has.
    Known(Option<T>),
    /// Nothing: the disk has to be asked.
    Unknown,
}

/// The number of a branch's child.
fn child(branch: &Page, index: usize, depth: &mut usize) -> Result<u64, Damage> {
    *depth += 1;
    if *depth > DEPTH_MAX {
        return Err(Damage::new(branch.id(), Reason::TooDeep));
    }
    if branch.count() == 0 {
        return Err(Damage::new(branch.id(), Reason::Empty));
    }
    Ok(branch.child(index))
}

/// The entries of a bucket within bounds, ascending. After an error it ends.
pub struct Range<'t> {
    root: &'t Root,
    /// Branches from the top down, and which child of each was entered.
    path: Vec<(Arc<Page>, usize)>,
    at: At,
    end: Option<Box<[u8]>>,
    ahead: Ahead,
}

/// Leaves that come next. Often they lie one behind the other in the file; then they are read
/// together, the more the longer the walk has become.
#[derive(Default)]
struct Ahead {
    pages: VecDeque<Arc<Page>>,
    /// How many were read the last time.
    read: usize,
}

impl Ahead {
    const READ_MAX: usize = 16;

    /// The leaf that element `index` of `branch` leads to, the next one of a walk up to `end`.
    fn next(
        &mut self,
        root: &Root,
        branch: &Page,
        index: usize,
        end: Option<&[u8]>,
    ) -> Result<Arc<Page>, BoltError> {
        let id = branch.child(index);
        if self.pages.is_empty() {
            self.read = (2 * self.read).clamp(1, Ahead::READ_MAX);
            let others = (index + 1..branch.count()).take(self.read - 1);
            let behind = (id + 1..).zip(others).take_while(|(id, index)| {
                branch.child(*index) == *id && end.is_none_or(|end| branch.key(*index) < end)
            });
            let count = 1 + behind.count();
            // What cannot be read is told when the walk is there.
            if count > 1
                && let Ok(pages) = root.leaves(id, count)
            {
                self.pages = pages;
            }
        }
        match self.pages.pop_front() {
            Some(page) => Ok(page),
            None => root.page(id),
        }
    }
}

enum At {
    /// Not begun: the bucket's name and the first key.
    Start(Box<[u8]>, Box<[u8]>),
    /// Before this element of a leaf.
    Leaf(Arc<Page>, usize),
    End,
}

impl<'t> Range<'t> {
    pub(crate) fn new(
        root: &'t Root,
        bucket: &[u8],
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Range<'t> {
        Range {
            root,
            path: Vec::new(),
            at: At::Start(bucket.into(), start.into()),
            end: end.map(Box::from),
            ahead: Ahead::default(),
        }
    }

    fn advance(&mut self) -> Result<Option<Entry>, BoltError> {
        // Stays there if something fails.
        let (mut leaf, mut index) = match std::mem::replace(&mut self.at, At::End) {
            At::End => return Ok(None),
            At::Leaf(leaf, index) => (leaf, index),
            At::Start(bucket, start) => match self.root.bucket(&bucket) {
                None => return Ok(None),
                Some(bucket) => {
                    let top = self.root.top(bucket)?;
                    let leaf = self.descend(top, |page| page.route(&start))?;
                    let index = leaf.search(&start).unwrap_or_else(|index| index);
                    (leaf, index)
                }
            },
        };
        while index == leaf.count() {
            let Some(next) = self.next_leaf(&leaf)? else {
                return Ok(None);
            };
            (leaf, index) = (next, 0);
        }
        if self
            .end
            .as_ref()
            .is_some_and(|end| leaf.key(index) >= &**end)
        {
            return Ok(None);
        }
        let entry = Entry::value_at(Arc::clone(&leaf), index)?;
        self.at = At::Leaf(leaf, index + 1);
        Ok(Some(entry))
    }

    fn descend(
        &mut self,
        top: Arc<Page>,
        choose: impl Fn(&Page) -> usize,
    ) -> Result<Arc<Page>, BoltError> {
        let mut page = top;
        let mut depth = self.path.len();
        while page.kind() == Kind::Branch {
            let index = choose(&page);
            let next = self.root.page(child(&page, index, &mut depth)?)?;
            self.path.push((page, index));
            page = next;
        }
        Ok(page)
    }

    /// The leaf behind `leaf`. As keys must go up from leaf to leaf, a damaged tree cannot keep
    /// this walking for ever.
    fn next_leaf(&mut self, leaf: &Page) -> Result<Option<Arc<Page>>, BoltError> {
        let mut leaves_branch = false;
        while self
            .path
            .pop_if(|(page, index)| *index + 1 == page.count())
            .is_some()
        {
            leaves_branch = true;
        }
        let Some((branch, index)) = self.path.last_mut() else {
            return Ok(None);
        };
        *index += 1;
        let top = match leaves_branch {
            true => self.root.page(branch.child(*index))?,
            false => {
                let end = self.end.as_deref();
                self.ahead.next(self.root, branch, *index, end)?
            }
        };
        let next = self.descend(top, |_| 0)?;
        if next.count() == 0 {
            return Err(Damage::new(next.id(), Reason::Empty).into());
        }
        if leaf.count() > 0 && next.key(0) <= leaf.key(leaf.count() - 1) {
            return Err(Damage::new(next.id(), Reason::KeyOrder(0)).into());
        }
        Ok(Some(next))
    }
}

impl Iterator for Range<'_> {
    type Item = Result<Entry, BoltError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
