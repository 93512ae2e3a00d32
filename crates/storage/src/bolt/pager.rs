//! Pages of one open file, through a bounded cache.
//!
//! A page's content never changes while a root that leads to it is pinned, and a page is written
//! again only when none is; what was just written replaces what the cache held. So a cached page is
//! always the right one for whoever may ask for it.

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::{BoltError, Damage, Reason};
use super::page::{HEADER_BYTES, Header, Kind, Page, extent};
use crate::disk::File;

/// Independent parts of the cache, so that readers rarely wait for each other.
const SHARDS: usize = 8;
/// Buffers that are handed to the disk in one write.
const WRITE_SLICES: usize = 256;
/// The longest node, in pages, that is read by whoever must not wait: a few microseconds' copy.
const PAGES_AT_ONCE: u64 = 16;
/// A node that takes more than this part of a shard is cheaper to read again than those that it
/// would push out.
const SHARE_MAX: usize = 4;

/// An open file and what is cached of it.
pub(crate) struct Pager {
    file: Arc<dyn File>,
    page_size: u32,
    shards: [Mutex<Shard>; SHARDS],
    shard_bytes_max: usize,
}

impl Pager {
    /// Wraps a file of pages of `page_size` bytes; the cache keeps up to `cache_bytes_max` bytes.
    pub(crate) fn new(file: Arc<dyn File>, page_size: u32, cache_bytes_max: usize) -> Pager {
        Pager {
            file,
            page_size,
            shards: Default::default(),
            shard_bytes_max: cache_bytes_max / SHARDS,
        }
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &dyn File {
        &*self.file
    }

    /// Bytes of a page.
    pub(crate) fn page_size(&self) -> usize {
        self.page_size as usize
    }

    /// The byte at which a page begins.
    pub(crate) fn offset(&self, page: u64) -> u64 {
        page * u64::from(self.page_size)
    }

    /// The node at page `id` of a root whose high-water mark is `high_water`.
    pub(crate) fn page(&self, id: u64, high_water: u64) -> Result<Arc<Page>, BoltError> {
        if let Some(page) = self.page_cached(id) {
            return Ok(page);
        }
        let page = Arc::new(self.read(id, high_water)?);
        self.keep(&page);
        Ok(page)
    }

    /// The same, if that takes no wait for the disk: the cache has it, or the system's cache does and
    /// it is not long.
    pub(crate) fn page_in_memory(
        &self,
        id: u64,
        high_water: u64,
    ) -> Result<Option<Arc<Page>>, BoltError> {
        if let Some(page) = self.page_cached(id) {
            return Ok(Some(page));
        }
        let Some(page) = self.try_read(id, high_water)? else {
            return Ok(None);
        };
        let page = Arc::new(page);
        self.keep(&page);
        Ok(Some(page))
    }

    /// The node at page `id`, if the cache has it.
    fn page_cached(&self, id: u64) -> Option<Arc<Page>> {
        let page = self.shard(id).lock().get(id)?;
        assert_eq!(page.id(), id, "the cache has another page");
        Some(page)
    }

    /// Reads and checks the node at page `id`, past the cache.
    pub(crate) fn read(&self, id: u64, high_water: u64) -> Result<Page, BoltError> {
        let mut bytes = vec![0; self.page_size()];
        self.check_bounds(id, 1, high_water)?;
        self.file.read_exact_at(&mut bytes, self.offset(id))?;
        let header = Header::read(&bytes);
        if header.overflow > 0 {
            self.read_overflow(&mut bytes, id, header, high_water)?;
        }
        Ok(Page::parse(bytes.into_boxed_slice(), id)?)
    }

    /// The same, if the system has it in memory and it is not long.
    fn try_read(&self, id: u64, high_water: u64) -> Result<Option<Page>, BoltError> {
        let mut bytes = vec![0; self.page_size()];
        self.check_bounds(id, 1, high_water)?;
        let (file, offset) = (&self.file, self.offset(id));
        if !file.try_read_exact_at(&mut bytes, offset)? {
            return Ok(None);
        }
        let pages = Header::read(&bytes).pages();
        if pages > 1 {
            self.check_bounds(id, pages, high_water)?;
            let (first, end) = (bytes.len(), self.offset(pages) as usize);
            if pages > PAGES_AT_ONCE {
                return Ok(None);
            }
            bytes.resize(end, 0);
            if !file.try_read_exact_at(&mut bytes[first..], offset + first as u64)? {
                return Ok(None);
            }
        }
        Ok(Some(Page::parse(bytes.into_boxed_slice(), id)?))
    }

    /// Reads and checks up to `count` nodes, past the cache: leaves of a single page each that begin
    /// at page `id` and lie one behind the other, as many as there are of these.
    pub(crate) fn leaves(
        &self,
        id: u64,
        count: usize,
        high_water: u64,
    ) -> Result<VecDeque<Arc<Page>>, BoltError> {
        let mut bytes = vec![0; count * self.page_size()];
        self.check_bounds(id, count as u64, high_water)?;
        self.file.read_exact_at(&mut bytes, self.offset(id))?;
        let pages = (id..).zip(bytes.chunks_exact(self.page_size()));
        let leaves = pages.take_while(|(_, bytes)| {
            let header = Header::read(bytes);
            header.overflow == 0 && header.kind() == Ok(Kind::Leaf)
        });
        let leaves = leaves.map(|(id, bytes)| Ok(Arc::new(Page::parse(bytes.into(), id)?)));
        leaves.collect()
    }

    /// Reads only the header of the node at page `id`.
    pub(crate) fn read_header(&self, id: u64, high_water: u64) -> Result<Header, BoltError> {
        let mut bytes = [0; HEADER_BYTES];
        self.check_bounds(id, 1, high_water)?;
        self.file.read_exact_at(&mut bytes, self.offset(id))?;
        Ok(self.header(&bytes, id, high_water)?)
    }

    /// The header at the start of `bytes`, checked.
    pub(super) fn header(&self, bytes: &[u8], id: u64, high_water: u64) -> Result<Header, Damage> {
        let header = Header::read(bytes);
        if header.id != id {
            return Err(Damage::new(id, Reason::WrongId(header.id)));
        }
        header.kind().map_err(|reason| Damage::new(id, reason))?;
        self.check_bounds(id, header.pages(), high_water)?;
        Ok(header)
    }

    /// Reads on where a node is larger than a page: first its elements, then as far as they reach.
    fn read_overflow(
        &self,
        bytes: &mut Vec<u8>,
        id: u64,
        header: Header,
        high_water: u64,
    ) -> Result<(), BoltError> {
        self.check_bounds(id, header.pages(), high_water)?;
        let kind = header.kind().map_err(|reason| Damage::new(id, reason))?;
        let node_bytes = self.offset(header.pages());
        if header.elements_end() as u64 > node_bytes {
            return Err(Damage::new(id, Reason::Count(header.count)).into());
        }
        self.read_up_to(bytes, id, header.elements_end())?;
        let end = extent(bytes, kind, header);
        // What reaches out of the node is found when the page is parsed.
        self.read_up_to(bytes, id, end.min(node_bytes) as usize)
    }

    /// Extends the start of a node to its first `end` bytes.
    fn read_up_to(&self, bytes: &mut Vec<u8>, id: u64, end: usize) -> Result<(), BoltError> {
        let start = bytes.len();
        if end > start {
            bytes.resize(end, 0);
            self.file
                .read_exact_at(&mut bytes[start..], self.offset(id) + start as u64)?;
        }
        Ok(())
    }

    fn check_bounds(&self, id: u64, pages: u64, high_water: u64) -> Result<(), Damage> {
        match id >= 2 && id < high_water && pages <= high_water - id {
            true => Ok(()),
            false => Err(Damage::new(id, Reason::OutOfBounds)),
        }
    }

    /// Writes nodes, given in the order of their numbers, and keeps them in the cache.
    pub(crate) fn write(&self, pages: &[Arc<Page>]) -> Result<(), BoltError> {
        self.assert_apart(pages);
        let adjacent = |a: &Arc<Page>, b: &Arc<Page>| a.id() + a.pages() == b.id();
        for run in pages
            .chunk_by(adjacent)
            .flat_map(|run| run.chunks(WRITE_SLICES))
        {
            let slices: Vec<IoSlice<'_>> =
                run.iter().map(|page| IoSlice::new(page.bytes())).collect();
            self.file.write_all_at(&slices, self.offset(run[0].id()))?;
        }
        pages.iter().for_each(|page| self.keep(page));
        Ok(())
    }

    /// No node is written over another one or over a meta page, and each fills its pages.
    fn assert_apart(&self, pages: &[Arc<Page>]) {
        let mut from = 2;
        for page in pages {
            let (id, bytes) = (page.id(), page.bytes().len() as u64);
            assert!(id >= from, "page {id} is written over one before {from}");
            assert_eq!(bytes, self.offset(page.pages()), "bytes of page {id}");
            from = id + page.pages();
        }
    }

    fn shard(&self, id: u64) -> &Mutex<Shard> {
        &self.shards[id as usize % SHARDS]
    }

    fn keep(&self, page: &Arc<Page>) {
        self.shard(page.id())
            .lock()
            .insert(page, self.shard_bytes_max);
    }
}

/// A part of the cache: a clock whose hand passes over what was used since its last round.
#[derive(Default)]
struct Shard {
    slots: Vec<Slot>,
    by_id: HashMap<u64, usize>,
    hand: usize,
    bytes: usize,
}

struct Slot {
    page: Arc<Page>,
    used: bool,
}

impl Shard {
    fn get(&mut self, id: u64) -> Option<Arc<Page>> {
        let slot = &mut self.slots[*self.by_id.get(&id)?];
        slot.used = true;
        Some(Arc::clone(&slot.page))
    }

    fn insert(&mut self, page: &Arc<Page>, bytes_max: usize) {
        if let Some(index) = self.by_id.get(&page.id()) {
            self.remove(*index);
        }
        if page.bytes().len() > bytes_max / SHARE_MAX {
            return;
        }
        while self.bytes + page.bytes().len() > bytes_max {
            self.evict();
        }
        self.by_id.insert(page.id(), self.slots.len());
        self.bytes += page.bytes().len();
        self.slots.push(Slot {
            page: Arc::clone(page),
            used: false,
        });
        assert!(
            self.bytes <= bytes_max && self.by_id.len() == self.slots.len(),
            "{} bytes of {bytes_max}, {} pages in {} slots",
            self.bytes,
            self.by_id.len(),
            self.slots.len()
        );
    }

    fn evict(&mut self) {
        loop {
            self.hand = if self.hand < self.slots.len() {
                self.hand
            } else {
                0
            };
            let slot = &mut self.slots[self.hand];
            if !slot.used {
                return self.remove(self.hand);
            }
            slot.used = false;
            self.hand += 1;
        }
    }

    fn remove(&mut self, index: usize) {
        let slot = self.slots.swap_remove(index);
        self.by_id.remove(&slot.page.id());
        self.bytes -= slot.page.bytes().len();
        if let Some(moved) = self.slots.get(index) {
            self.by_id.insert(moved.page.id(), index);
        }
    }
}
