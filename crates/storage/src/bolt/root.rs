//! A committed state of the file, and read transactions on it.
//!
//! A [`Root`] is what one commit left: its meta page and the list of buckets, read or written once
//! and then shared. A [`ReadTx`] pins a root; as long as it lives, no page that the root leads to
//! is written again. Pinning costs two counters and no lock of the writer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::check::check;
use super::copy::FileCopy;
use super::error::{BoltError, Damage, Reason};
use super::meta::Meta;
use super::node::DEPTH_MAX;
use super::page::{Kind, Page, u64_at};
use super::pager::Pager;
use super::range::{Cached, Entry, Lookup, Range, split};
use super::space::Extent;

/// Bytes in front of an inline bucket's page: the root page's number and a sequence.
pub(crate) const BUCKET_HEADER_BYTES: usize = 16;

/// What one commit left.
pub(crate) struct Root {
    pub(crate) pager: Arc<Pager>,
    pub(crate) meta: Meta,
    /// Ascending by name.
    pub(crate) buckets: Vec<Bucket>,
    /// The nodes of the tree of buckets.
    pub(crate) directory: Vec<Extent>,
    /// Pages below the high-water mark that this root does not lead to.
    pub(crate) unused_pages: u64,
    /// Read transactions on this root.
    pins: AtomicUsize,
    /// Read transactions on all roots of the database.
    open: Arc<AtomicUsize>,
}

/// A top-level bucket.
#[derive(Clone)]
pub(crate) struct Bucket {
    pub(crate) name: Arc<[u8]>,
    pub(crate) store: Store,
    /// A counter that bbolt offers its users and etcd does not use; it is carried along.
    pub(crate) sequence: u64,
}

/// Where a bucket's tree is.
#[derive(Clone)]
pub(crate) enum Store {
    /// A single leaf, in the value of the bucket's element.
    Inline(Arc<Page>),
    /// A tree with this page on top.
    Tree(u64),
}

impl Root {
    pub(crate) fn new(
        pager: Arc<Pager>,
        meta: Meta,
        buckets: Vec<Bucket>,
        directory: Vec<Extent>,
        unused_pages: u64,
        open: Arc<AtomicUsize>,
    ) -> Root {
        assert!(
            unused_pages < meta.high_water,
            "{unused_pages} pages of {} are unused",
            meta.high_water
        );
        debug_assert!(
            buckets.is_sorted_by(|a, b| a.name < b.name),
            "buckets out of order"
        );
        let pins = AtomicUsize::new(0);
        Root {
            pager,
            meta,
            buckets,
            directory,
            unused_pages,
            pins,
            open,
        }
    }

    /// Reads the list of buckets that a meta page leads to.
    pub(crate) fn load(
        pager: Arc<Pager>,
        meta: Meta,
        open: Arc<AtomicUsize>,
    ) -> Result<Root, BoltError> {
        let mut root = Root::new(pager, meta, Vec::new(), Vec::new(), 0, open);
        root.load_buckets(meta.root, 0)?;
        Ok(root)
    }

    fn load_buckets(&mut self, id: u64, depth: usize) -> Result<(), BoltError> {
        if depth > DEPTH_MAX {
            return Err(Damage::new(id, Reason::TooDeep).into());
        }
        let page = self.page(id)?;
        self.directory.push(Extent {
            id,
            pages: page.pages(),
        });
        if page.count() == 0 && depth > 0 {
            return Err(Damage::new(id, Reason::Empty).into());
        }
        for index in 0..page.count() {
            match page.kind() {
                Kind::Branch => self.load_buckets(page.child(index), depth + 1)?,
                Kind::Leaf => self.load_bucket(&page, index)?,
            }
        }
        Ok(())
    }

    fn load_bucket(&mut self, page: &Page, index: usize) -> Result<(), Damage> {
        let name = page.key(index);
        // Holds across pages, too, and thus ends the walk if a page is met twice.
        if self
            .buckets
            .last()
            .is_some_and(|before| *before.name >= *name)
        {
            return Err(Damage::new(page.id(), Reason::KeyOrder(index)));
        }
        let (store, sequence) = read_bucket(page, index)?;
        self.buckets.push(Bucket {
            name: name.into(),
            store,
            sequence,
        });
        Ok(())
    }

    /// The node at page `id` of this root.
    pub(crate) fn page(&self, id: u64) -> Result<Arc<Page>, BoltError> {
        self.pager.page(id, self.meta.high_water)
    }

    /// Up to `count` leaves, each of a single page, that begin at page `id` and lie one behind the
    /// other; past the cache.
    pub(crate) fn leaves(&self, id: u64, count: usize) -> Result<VecDeque<Arc<Page>>, BoltError> {
        self.pager.leaves(id, count, self.meta.high_water)
    }

    /// The same as [`Root::page`], if that takes no wait for the disk.
    pub(crate) fn page_in_memory(&self, id: u64) -> Result<Option<Arc<Page>>, BoltError> {
        self.pager.page_in_memory(id, self.meta.high_water)
    }

    /// The top of a bucket's tree.
    pub(crate) fn top(&self, bucket: &Bucket) -> Result<Arc<Page>, BoltError> {
        match &bucket.store {
            Store::Inline(page) => Ok(Arc::clone(page)),
            Store::Tree(id) => self.page(*id),
        }
    }

    /// The same, if that takes no wait for the disk.
    pub(crate) fn top_in_memory(&self, bucket: &Bucket) -> Result<Option<Arc<Page>>, BoltError> {
        match &bucket.store {
            Store::Inline(page) => Ok(Some(Arc::clone(page))),
            Store::Tree(id) => self.page_in_memory(*id),
        }
    }

    pub(crate) fn bucket(&self, name: &[u8]) -> Option<&Bucket> {
        let index = self
            .buckets
            .binary_search_by(|bucket| (*bucket.name).cmp(name))
            .ok()?;
        Some(&self.buckets[index])
    }

    /// Whether a read transaction is on this root. Once a root is no longer the newest, none comes
    /// again after the last has gone.
    pub(crate) fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::Acquire) > 0
    }
}

/// Reads the bucket that is element `index` of a leaf of the tree of buckets.
pub(crate) fn read_bucket(page: &Page, index: usize) -> Result<(Store, u64), Damage> {
    if !page.is_bucket(index) {
        return Err(Damage::new(page.id(), Reason::NotABucket(index)));
    }
    let value = page.value(index);
    let Some((header, inline)) = value.split_at_checked(BUCKET_HEADER_BYTES) else {
        return Err(Damage::new(page.id(), Reason::BucketHeader(index)));
    };
    let store = match u64_at(header, 0) {
        0 => Store::Inline(Arc::new(read_inline(page, index, inline)?)),
        id => Store::Tree(id),
    };
    Ok((store, u64_at(header, 8)))
}

fn read_inline(page: &Page, index: usize, bytes: &[u8]) -> Result<Page, Damage> {
    let inline =
        Page::parse(bytes.into(), 0).map_err(|damage| Damage::new(page.id(), damage.reason))?;
    match inline.kind() {
        Kind::Leaf => Ok(inline),
        Kind::Branch => Err(Damage::new(page.id(), Reason::BucketHeader(index))),
    }
}

/// A consistent view of the file as one commit left it, until it is dropped.
pub struct ReadTx {
    pub(crate) root: Arc<Root>,
}

impl ReadTx {
    /// Pins a root, which must be the newest or be pinned already.
    pub(crate) fn new(root: &Arc<Root>) -> ReadTx {
        root.pins.fetch_add(1, Ordering::Relaxed);
        root.open.fetch_add(1, Ordering::Relaxed);
        ReadTx {
            root: Arc::clone(root),
        }
    }

    /// The number of the transaction that committed this state.
    pub fn txid(&self) -> u64 {
        self.root.meta.txid
    }

    /// Bytes of the file that are in use or free for reuse: the length of a copy.
    pub fn size_bytes(&self) -> u64 {
        self.root.pager.offset(self.root.meta.high_water)
    }

    /// Bytes of the pages that hold something. Of a file that was opened to be read, the same as
    /// [`ReadTx::size_bytes`], as its free pages are not searched for.
    pub fn size_in_use_bytes(&self) -> u64 {
        self.root
            .pager
            .offset(self.root.meta.high_water - self.root.unused_pages)
    }

    /// Pages that hold nothing of this state.
    pub fn unused_pages(&self) -> u64 {
        self.root.unused_pages
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> usize {
        self.root.pager.page_size()
    }

    /// The names of all buckets, ascending.
    pub fn buckets(&self) -> impl Iterator<Item = &[u8]> {
        self.root.buckets.iter().map(|bucket| &*bucket.name)
    }

    /// The entry of `key` in a bucket; `None` also if there is no such bucket.
    pub fn get(&self, bucket: &[u8], key: &[u8]) -> Result<Option<Entry>, BoltError> {
        match self.root.bucket(bucket) {
            Some(bucket) => Entry::find(&self.root, bucket, key),
            None => Ok(None),
        }
    }

    /// The same without a wait for the disk, as far as memory tells.
    pub fn get_cached(&self, bucket: &[u8], key: &[u8]) -> Result<Cached<Entry>, BoltError> {
        match self.root.bucket(bucket) {
            Some(bucket) => Entry::find_cached(&self.root, bucket, key),
            None => Ok(Cached::Known(None)),
        }
    }

    /// The same for many keys of a bucket, one after the other.
    pub fn lookup(&self, bucket: &[u8]) -> Lookup<'_> {
        Lookup::new(&self.root, bucket)
    }

    /// The entries of a bucket with `start <= key` and, if given, `key < end`, ascending; none if
    /// there is no such bucket.
    pub fn range(&self, bucket: &[u8], start: &[u8], end: Option<&[u8]>) -> Range<'_> {
        Range::new(&self.root, bucket, start, end)
    }

    /// Keys that divide a bucket into about `parts` parts of about one size, ascending; fewer, if
    /// it is small.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn split(&self, bucket: &[u8], parts: usize) -> Result<Vec<Box<[u8]>>, BoltError> {
        match self.root.bucket(bucket) {
            Some(bucket) => split(&self.root, bucket, parts),
            None => Ok(Vec::new()),
        }
    }

    /// Walks every page of this state and returns what is wrong with it.
    ///
    /// # Errors
    /// Only if the disk fails; damage is what it returns.
    pub fn check(&self) -> Result<Vec<Damage>, BoltError> {
        check(&self.root)
    }

    /// The file with this state as a stream of exactly [`ReadTx::size_bytes`] bytes. Commits go on
    /// meanwhile.
    pub fn copy(self) -> FileCopy {
        FileCopy::new(self)
    }
}

impl Clone for ReadTx {
    fn clone(&self) -> ReadTx {
        ReadTx::new(&self.root)
    }
}

impl Drop for ReadTx {
    fn drop(&mut self) {
        // Everything that was read happens before the writer sees that the reader is gone.
        let pins = self.root.pins.fetch_sub(1, Ordering::Release);
        let open = self.root.open.fetch_sub(1, Ordering::Relaxed);
        assert!(pins > 0 && open > 0, "{pins} pins on a root, {open} open");
    }
}
