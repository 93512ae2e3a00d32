//! What changed between two roots of one file.
//!
//! Pages that both roots lead to are the same, as long as the older one is pinned. So only what was
//! rewritten in between is read: two lists of leaves, those that only the older root has and those
//! that only the newer one has. Keys that are in neither list did not change.

use std::cmp::Ordering;
use std::sync::Arc;

use super::bitmap::Bitmap;
use super::error::{BoltError, Damage, Reason};
use super::page::Page;
use super::range::Entry;
use super::root::{ReadTx, Root, Store};
use super::walk::{Level, walk};

/// All nodes of a root's buckets.
pub(crate) fn nodes(tx: &ReadTx) -> Result<Bitmap, BoltError> {
    let mut nodes = Bitmap::default();
    for bucket in &tx.root.buckets {
        let Store::Tree(top) = bucket.store else {
            continue;
        };
        walk(&tx.root, top, |id, _| Ok(nodes.insert(id)))?;
    }
    Ok(nodes)
}

/// The changes of one bucket between two roots, ascending by key.
pub(crate) struct Diff<'t> {
    old: Leaves<'t>,
    new: Leaves<'t>,
}

impl<'t> Diff<'t> {
    /// The changes of bucket `name` from `old`, whose [`nodes`] are given, to `new`.
    pub(crate) fn new(
        old: &'t ReadTx,
        old_nodes: &Bitmap,
        new: &'t ReadTx,
        name: &[u8],
    ) -> Result<Diff<'t>, BoltError> {
        let (old, new) = (&*old.root, &*new.root);
        let mut shared = Bitmap::default();
        let new_leaves = leaves(new, name, |id| {
            let is_shared = old_nodes.contains(id);
            if is_shared {
                shared.insert(id);
            }
            is_shared
        })?;
        let old_leaves = leaves(old, name, |id| shared.contains(id))?;
        Ok(Diff {
            old: Leaves::new(old, old_leaves),
            new: Leaves::new(new, new_leaves),
        })
    }

    fn advance(&mut self) -> Result<Option<(Entry, bool)>, BoltError> {
        loop {
            let order = match (self.old.peek()?, self.new.peek()?) {
                (None, None) => return Ok(None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.key().cmp(new.key()),
            };
            match order {
                Ordering::Less => return Ok(self.old.take().map(|entry| (entry, false))),
                Ordering::Greater => return Ok(self.new.take().map(|entry| (entry, true))),
                Ordering::Equal => {
                    let (old, new) = (self.old.take(), self.new.take());
                    if old.as_ref().map(Entry::value) != new.as_ref().map(Entry::value) {
                        return Ok(new.map(|entry| (entry, true)));
                    }
                }
            }
        }
    }
}

impl Iterator for Diff<'_> {
    /// An entry, and whether it was set (else: deleted).
    type Item = Result<(Entry, bool), BoltError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

enum LeafRef {
    Page(u64),
    Inline(Arc<Page>),
}

/// The leaves of a bucket in the order of their keys, but those below pages that `skip` names.
fn leaves(
    root: &Root,
    name: &[u8],
    mut skip: impl FnMut(u64) -> bool,
) -> Result<Vec<LeafRef>, BoltError> {
    let mut leaves = Vec::new();
    match root.bucket(name).map(|bucket| &bucket.store) {
        None => {}
        Some(Store::Inline(page)) => leaves.push(LeafRef::Inline(Arc::clone(page))),
        Some(Store::Tree(top)) => walk(root, *top, |id, level| {
            let skipped = skip(id);
            if !skipped && matches!(level, Level::Leaf) {
                leaves.push(LeafRef::Page(id));
            }
            Ok(!skipped)
        })?,
    }
    Ok(leaves)
}

/// The entries of some leaves.
struct Leaves<'t> {
    root: &'t Root,
    leaves: std::vec::IntoIter<LeafRef>,
    entries: std::vec::IntoIter<Entry>,
    /// The last entry of the leaves so far.
    last: Option<Entry>,
}

impl<'t> Leaves<'t> {
    fn new(root: &'t Root, leaves: Vec<LeafRef>) -> Leaves<'t> {
        Leaves {
            root,
            leaves: leaves.into_iter(),
            entries: Vec::new().into_iter(),
            last: None,
        }
    }

    fn peek(&mut self) -> Result<Option<&Entry>, BoltError> {
        while self.entries.as_slice().is_empty() {
            let page = match self.leaves.next() {
                None => return Ok(None),
                Some(LeafRef::Page(id)) => self.root.page(id)?,
                Some(LeafRef::Inline(page)) => page,
            };
            self.check_order(&page)?;
            let entries: Vec<Entry> = (0..page.count())
                .map(|index| Entry::new(&page, index))
                .collect();
            self.entries = entries.into_iter();
        }
        Ok(self.entries.as_slice().first())
    }

    /// Fails if the leaves do not ascend, as whoever takes the changes relies on it.
    fn check_order(&mut self, page: &Arc<Page>) -> Result<(), Damage> {
        let Some(last) = page.count().checked_sub(1) else {
            return Ok(());
        };
        let before = self.last.replace(Entry::new(page, last));
        match before.is_some_and(|before| before.key() >= page.key(0)) {
            true => Err(Damage::new(page.id(), Reason::KeyOrder(0))),
            false => Ok(()),
        }
    }

    fn take(&mut self) -> Option<Entry> {
        self.entries.next()
    }
}
