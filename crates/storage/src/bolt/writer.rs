//! The one writer of a file.
//!
//! A commit changes nothing that the root before it leads to: changed nodes go to free pages, and
//! the branches above them with them, up to the tree of buckets. Then, in this order: all new pages
//! are written; they are made durable; the meta page that is not in use is written; it is made
//! durable. At any point a loss of power leaves either the old or the new root.
//!
//! A commit that failed half way leaves the writer poisoned: what the disk holds is not known any
//! more. But before anything is written the file is made long enough, and the space reserved; if
//! there is no room for that, the commit has not happened ([`BoltError::Full`]). Space is reserved,
//! and not only the length set, so that this is known in time.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::bitmap::Bitmap;
use super::error::{BoltError, Damage, Reason};
use super::meta::{META_BYTES, Meta, NO_FREELIST};
use super::node::{Change, Item, Leaf, Merge, Node, Top};
use super::page::{Content, FREELIST, Header, Kind, Page, encode, encoded_len};
use super::pager::Pager;
use super::root::{BUCKET_HEADER_BYTES, Bucket, Root, Store};
use super::shrink::Shrink;
use super::space::{Extent, Space};
use super::spill::Spill;
use super::walk::used_pages;
use crate::disk::is_full;

/// How far the file grows beyond what is needed, so that few commits change its length: an eighth,
/// within these bounds.
const GROWTH_BYTES_MIN: u64 = 1 << 20;
const GROWTH_BYTES_MAX: u64 = 16 << 20;
/// The file is truncated when so many times its growth is unused at its end.
const TRUNCATE_GROWTHS: u64 = 4;
/// The longest key that the format holds.
pub(crate) const KEY_BYTES_MAX: usize = 32768;
/// The longest value that the format holds.
const VALUE_BYTES_MAX: usize = (1 << 31) - 2;
/// The first page behind the meta pages.
const FIRST_PAGE: u64 = 2;

// A file that was just made longer is not truncated, and a longest pair still has four-byte
// positions.
const _: () = assert!(TRUNCATE_GROWTHS > 1 && GROWTH_BYTES_MIN <= GROWTH_BYTES_MAX);
const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX < u32::MAX as usize);

/// Changes of one bucket in a commit. A bucket that does not exist is created, even without
/// changes.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// The bucket's name.
    pub bucket: &'a [u8],
    /// The changes, strictly ascending by key.
    pub changes: Vec<Change<'a>>,
}

/// What a commit wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitStats {
    /// The commit's transaction.
    pub txid: u64,
    /// Pages written, without the meta page.
    pub pages: u64,
    /// Bytes of these pages.
    pub bytes: u64,
}

/// Whether a commit is to survive a loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    Synced,
    /// For a file that nobody relies on yet.
    Unsynced,
}

/// The state of the file's end and of its pages, and the newest root.
pub(crate) struct Writer {
    pager: Arc<Pager>,
    root: Arc<Root>,
    space: Space,
    shrink: Shrink,
    /// Roots that a reader may still be pinned to, ascending by transaction.
    past: Vec<Arc<Root>>,
    file_bytes: u64,
    poisoned: bool,
    open: Arc<AtomicUsize>,
}

impl Writer {
    /// Writes an empty database to an empty file, and makes it durable.
    pub(crate) fn create(pager: Arc<Pager>, open: Arc<AtomicUsize>) -> Result<Writer, BoltError> {
        let page_size = pager.page_size();
        let mut bytes = vec![0; page_size * 3];
        let meta = |txid| Meta {
            page_size: page_size as u32,
            root: FIRST_PAGE,
            freelist: NO_FREELIST,
            high_water: FIRST_PAGE + 1,
            txid,
        };
        meta(0).write(&mut bytes, 0);
        meta(1).write(&mut bytes[page_size..], 1);
        encode(
            &mut bytes[2 * page_size..],
            FIRST_PAGE,
            Kind::Leaf,
            0,
            [].into_iter(),
        );
        pager.file().write_all_at(&[IoSlice::new(&bytes)], 0)?;
        pager.file().sync_data()?;
        Writer::open(pager, meta(1), open)
    }

    /// Takes over a file with this meta page: walks its trees to find the free pages.
    pub(crate) fn open(
        pager: Arc<Pager>,
        meta: Meta,
        open: Arc<AtomicUsize>,
    ) -> Result<Writer, BoltError> {
        let mut root = Root::load(Arc::clone(&pager), meta, Arc::clone(&open))?;
        let mut used = used_pages(&root)?;
        let freelist = stored_freelist(&pager, meta, &mut used);
        let mut space = Space::new(&used, meta.high_water);
        root.unused_pages = space.unused_pages();
        if let Some(freelist) = freelist {
            // It belongs to the root on disk until the first commit, which stores none.
            root.directory.push(freelist);
        }
        space.trim();
        let file_bytes = pager.file().len()?;
        Ok(Writer {
            pager,
            root: Arc::new(root),
            space,
            shrink: Shrink::default(),
            past: Vec::new(),
            file_bytes,
            poisoned: false,
            open,
        })
    }

    /// The newest root.
    pub(crate) fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Whether a commit has failed.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Makes every later commit fail.
    pub(crate) fn poison(&mut self) {
        self.poisoned = true;
    }

    /// Makes everything durable that was committed [`Durability::Unsynced`].
    pub(crate) fn sync(&mut self) -> Result<(), BoltError> {
        Ok(self.pager.file().sync_data()?)
    }

    /// Commits changes of distinct buckets. Afterwards [`Writer::root`] is the new root.
    pub(crate) fn commit(
        &mut self,
        runs: &[Run<'_>],
        durability: Durability,
    ) -> Result<CommitStats, BoltError> {
        if self.poisoned {
            return Err(BoltError::Poisoned);
        }
        runs.iter().try_for_each(check_run)?;
        self.poisoned = true;
        self.commit_release();
        let high_water = self.space.high_water();
        let (root, pages) = self.commit_build(runs)?;
        let grown = self.commit_grow(&root);
        if matches!(grown, Err(BoltError::Full(_))) {
            self.space.revert(root.meta.txid, high_water);
            self.poisoned = false;
        }
        grown?;
        self.commit_write(&root, &pages, durability)?;
        self.poisoned = false;
        let bytes = pages.iter().map(|page| page.bytes().len() as u64).sum();
        let stats = CommitStats {
            txid: root.meta.txid,
            pages: self.pages_of(bytes),
            bytes,
        };
        assert!(
            self.past
                .last()
                .is_none_or(|past| past.meta.txid < self.root.meta.txid),
            "roots out of order"
        );
        self.past
            .push(std::mem::replace(&mut self.root, Arc::new(root)));
        Ok(stats)
    }

    fn pages_of(&self, bytes: u64) -> u64 {
        bytes / self.pager.page_size() as u64
    }

    /// Frees what no reader can see any more.
    fn commit_release(&mut self) {
        self.past.retain(|root| root.is_pinned());
        let pins: Vec<u64> = self.past.iter().map(|root| root.meta.txid).collect();
        self.space.release(&pins);
        self.space.trim();
    }

    /// Merges the changes and encodes every node that is new.
    fn commit_build(&mut self, runs: &[Run<'_>]) -> Result<(Root, Vec<Arc<Page>>), BoltError> {
        let old = &self.root;
        let txid = old.meta.txid + 1;
        let mut moves = self.shrink.choose(old, &self.space)?;
        let mut buckets = old.buckets.clone();
        let mut merge = Merge::new(&self.pager, old.meta.high_water);
        let mut spill = Spill::new(&mut self.space, self.pager.page_size(), txid);
        for run in runs {
            let bucket = bucket_mut(&mut buckets, run.bucket);
            let moved = moves
                .extract_if(.., |(name, _)| **name == *run.bucket)
                .next();
            let moved = moved.map_or(Vec::new(), |(_, keys)| keys);
            bucket.store = rewrite(&mut merge, &mut spill, &bucket.store, &run.changes, &moved)?;
        }
        for (name, moved) in moves {
            let bucket = bucket_mut(&mut buckets, &name);
            bucket.store = rewrite(&mut merge, &mut spill, &bucket.store, &[], &moved)?;
        }
        let tree_pages = spill.len();
        let root = write_directory(&mut spill, &buckets);
        let directory = spill.extents_from(tree_pages);
        let pages = spill.into_pages();
        let mut dead = merge.into_dead();
        dead.extend(&old.directory);
        let written: u64 = pages.iter().map(|page| page.pages()).sum();
        let dropped: u64 = dead.iter().map(|extent| extent.pages).sum();
        self.space.drop_pages(txid, dead);
        let meta = Meta {
            page_size: old.meta.page_size,
            root,
            freelist: NO_FREELIST,
            high_water: self.space.high_water(),
            txid,
        };
        let unused_pages = self.space.unused_pages();
        let used_before = old.meta.high_water - old.unused_pages;
        assert_eq!(
            meta.high_water - unused_pages,
            used_before + written - dropped,
            "of {used_before} pages {dropped} were dropped, {written} added"
        );
        assert!(
            (FIRST_PAGE..meta.high_water).contains(&root),
            "root {root} of a file of {} pages",
            meta.high_water
        );
        assert!(
            buckets.len() >= old.buckets.len(),
            "{} of {} buckets are left",
            buckets.len(),
            old.buckets.len()
        );
        let (pager, open) = (Arc::clone(&self.pager), Arc::clone(&self.open));
        Ok((
            Root::new(pager, meta, buckets, directory, unused_pages, open),
            pages,
        ))
    }

    /// Makes the file long enough.
    fn commit_grow(&mut self, root: &Root) -> Result<(), BoltError> {
        let need = self.pager.offset(root.meta.high_water);
        if need <= self.file_bytes {
            return Ok(());
        }
        let file = self.pager.file();
        // A disk that is nearly full may still hold what is needed.
        let grown = file
            .allocate(need + growth(need))
            .or_else(|_| file.allocate(need));
        match grown {
            Err(error) if is_full(&error) => {
                // Part of the space may have been reserved.
                file.set_len(self.file_bytes)?;
                return Err(BoltError::Full(error));
            }
            other => other?,
        }
        self.file_bytes = file.len()?;
        Ok(())
    }

    fn commit_write(
        &mut self,
        root: &Root,
        pages: &[Arc<Page>],
        durability: Durability,
    ) -> Result<(), BoltError> {
        let file = self.pager.file();
        let need = self.pager.offset(root.meta.high_water);
        assert!(
            need <= self.file_bytes,
            "{need} bytes are to be written to a file of {}",
            self.file_bytes
        );
        let (txid, durable) = (root.meta.txid, self.root.meta.txid);
        assert_eq!(txid, durable + 1, "the meta page of {durable} must stay");
        self.pager.write(pages)?;
        if durability == Durability::Synced {
            file.sync_data()?;
        }
        let mut bytes = [0; META_BYTES];
        let slot = root.meta.txid % 2;
        root.meta.write(&mut bytes, slot);
        file.write_all_at(&[IoSlice::new(&bytes)], self.pager.offset(slot))?;
        if durability == Durability::Synced {
            file.sync_data()?;
        }
        // The other meta page must stay good, too, in case this one is damaged later.
        let need = need.max(self.pager.offset(self.root.meta.high_water));
        let kept = need + growth(need);
        if self.file_bytes >= kept + TRUNCATE_GROWTHS * growth(need) {
            file.set_len(kept)?;
            self.file_bytes = kept;
        }
        Ok(())
    }
}

/// How far a file that needs so many bytes grows beyond them.
fn growth(need: u64) -> u64 {
    (need / 8).clamp(GROWTH_BYTES_MIN, GROWTH_BYTES_MAX)
}

/// Marks the pages of a stored freelist as used. What it lists is known from walking the trees.
fn stored_freelist(pager: &Pager, meta: Meta, used: &mut Bitmap) -> Option<Extent> {
    let id = Some(meta.freelist).filter(|id| (FIRST_PAGE..meta.high_water).contains(id))?;
    let mut bytes = [0; 16];
    pager
        .file()
        .read_exact_at(&mut bytes, pager.offset(id))
        .ok()?;
    let header = Header::read(&bytes);
    let pages = header.pages();
    let range = id..id.checked_add(pages)?;
    let is_own = header.id == id && header.flags == FREELIST && range.end <= meta.high_water;
    if !is_own || range.clone().any(|page| used.contains(page)) {
        return None;
    }
    range.for_each(|page| _ = used.insert(page));
    Some(Extent { id, pages })
}

fn check_run(run: &Run<'_>) -> Result<(), BoltError> {
    for key in run
        .changes
        .iter()
        .map(|change| change.key)
        .chain([run.bucket])
    {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(BoltError::KeyLength { len: key.len() });
        }
    }
    let long = run
        .changes
        .iter()
        .filter_map(|change| change.value)
        .find(|value| value.len() > VALUE_BYTES_MAX);
    if let Some(value) = long {
        return Err(BoltError::ValueLength { len: value.len() });
    }
    for pair in run.changes.windows(2) {
        assert!(
            pair[0].key < pair[1].key,
            "changes out of order: {:?}, {:?}",
            pair[0].key,
            pair[1].key
        );
    }
    Ok(())
}

/// The bucket of this name, made empty if it is not there yet.
fn bucket_mut<'b>(buckets: &'b mut Vec<Bucket>, name: &[u8]) -> &'b mut Bucket {
    let index = match buckets.binary_search_by(|bucket| (*bucket.name).cmp(name)) {
        Ok(index) => index,
        Err(index) => {
            let store = Store::Inline(Arc::new(inline_page(&[])));
            buckets.insert(
                index,
                Bucket {
                    name: name.into(),
                    store,
                    sequence: 0,
                },
            );
            index
        }
    };
    &mut buckets[index]
}

/// Brings changes into a bucket's tree and moves some of its leaves.
fn rewrite<'a>(
    merge: &mut Merge<'a>,
    spill: &mut Spill<'_>,
    store: &Store,
    changes: &[Change<'a>],
    moves: &[Box<[u8]>],
) -> Result<Store, BoltError> {
    if changes.is_empty() && moves.is_empty() {
        return Ok(store.clone());
    }
    let top = match store {
        Store::Inline(page) => Arc::clone(page),
        Store::Tree(id) => merge.open(*id)?,
    };
    match merge.merge(&top, changes, moves)? {
        Top::Kept(id) => Ok(Store::Tree(id)),
        Top::Node(Node::Leaf(leaf)) if fits_inline(&leaf, spill.page_size()) => {
            Ok(Store::Inline(Arc::new(inline_page(&leaf.items))))
        }
        Top::Node(node) => Ok(Store::Tree(spill.tree(node))),
    }
}

/// Whether a bucket with this leaf alone is kept in its element, by the Go library's rule.
fn fits_inline(leaf: &Leaf<'_>, page_size: usize) -> bool {
    encoded_len(leaf.items.iter().map(Item::element)) <= page_size / 4
}

fn inline_page(items: &[Item<'_>]) -> Page {
    let elements = || items.iter().map(Item::element);
    let mut bytes = vec![0; encoded_len(elements())].into_boxed_slice();
    encode(&mut bytes, 0, Kind::Leaf, 0, elements());
    Page::built(bytes)
}

/// Writes the tree of buckets anew and returns its top. With a few buckets it is a single page.
fn write_directory(spill: &mut Spill<'_>, buckets: &[Bucket]) -> u64 {
    let values: Vec<Vec<u8>> = buckets.iter().map(bucket_value).collect();
    let items = buckets.iter().zip(&values);
    let items = items
        .map(|(bucket, value)| Item::New(&bucket.name, Content::Bucket(value)))
        .collect();
    spill.tree(Node::Leaf(Leaf {
        items,
        append: false,
    }))
}

fn bucket_value(bucket: &Bucket) -> Vec<u8> {
    let (id, inline) = match &bucket.store {
        Store::Inline(page) => (0, page.bytes()),
        Store::Tree(id) => (*id, [].as_slice()),
    };
    let mut value = Vec::with_capacity(BUCKET_HEADER_BYTES + inline.len());
    value.extend(id.to_le_bytes());
    value.extend(bucket.sequence.to_le_bytes());
    value.extend(inline);
    value
}

/// The meta page that counts in `file`, whose high-water mark lies within the file.
pub(crate) fn read_meta(file: &dyn crate::disk::File) -> Result<Meta, BoltError> {
    let meta = Meta::choose(|offset| {
        let mut bytes = vec![0; META_BYTES];
        let len = file.read_at(&mut bytes, offset)?;
        bytes.truncate(len);
        Ok::<_, BoltError>(bytes)
    })?;
    let (need, len) = (
        meta.high_water.saturating_mul(u64::from(meta.page_size)),
        file.len()?,
    );
    if need > len {
        return Err(Damage::new(meta.txid % 2, Reason::Truncated { need, len }).into());
    }
    if meta.high_water <= FIRST_PAGE || meta.txid == u64::MAX {
        return Err(Damage::new(meta.txid % 2, Reason::NoMeta).into());
    }
    Ok(meta)
}
