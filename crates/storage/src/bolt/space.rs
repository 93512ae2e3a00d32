//! Which pages are free, and which wait for a reader to go.
//!
//! A page that a commit no longer needs can be written again once the commit is durable and no
//! reader is pinned to a root that still leads to it. Such pages are attached to the newest reader
//! that can see them; when it goes, they move on to the next older one that can, or become free. As
//! every page's transaction of birth is known, a reader that stays for long holds only the pages of
//! its own root and not everything that was written and dropped after it.
//!
//! Low pages are taken first, so that the end of the file empties and can be truncated.
//!
//! Invariants: a page is free, or held, or belongs to the newest root, and is counted once; the
//! meta pages always belong to it.

use std::collections::BTreeMap;

use super::bitmap::Bitmap;

/// Sizes of runs that have a search hint of their own; larger runs share the last one.
const HINTS: usize = 8;
/// With fewer free pages than this a file is never taken for sparse.
const SPARSE_PAGES_MIN: u64 = 256;
/// The meta pages, which are never given to a node.
const META_PAGES: u64 = 2;

/// Pages of one node that no longer belong to the newest root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) id: u64,
    pub(crate) pages: u64,
}

/// The pages of one file.
pub(crate) struct Space {
    free: Bitmap,
    free_pages: u64,
    high_water: u64,
    /// No free run of `n + 1` pages begins below `search_from[n]`; the last one bounds all larger
    /// runs, too.
    search_from: [u64; HINTS],
    /// The transaction that wrote each page; 0 for what was there when the file was opened.
    born: Vec<u64>,
    /// Pages dropped by the newest commit, whose transaction comes with them.
    dead: Option<(u64, Vec<Extent>)>,
    /// Pages that the reader of a transaction, and no newer one, can see.
    held: BTreeMap<u64, Vec<Extent>>,
    held_pages: u64,
}

impl Space {
    /// The space of a file in which the pages of `used` are taken and the others free.
    pub(crate) fn new(used: &Bitmap, high_water: u64) -> Space {
        let mut space = Space {
            free: Bitmap::default(),
            free_pages: 0,
            high_water,
            search_from: [0; HINTS],
            born: vec![0; high_water as usize],
            dead: None,
            held: BTreeMap::new(),
            held_pages: 0,
        };
        for page in (0..high_water).filter(|page| !used.contains(*page)) {
            space.free.insert(page);
            space.free_pages += 1;
        }
        space.assert_counts();
        space
    }

    /// The first page that was never used.
    pub(crate) fn high_water(&self) -> u64 {
        self.high_water
    }

    /// Pages below the high-water mark that the newest root does not lead to.
    pub(crate) fn unused_pages(&self) -> u64 {
        self.free_pages + self.held_pages
    }

    /// If more than half of the file is free: the page from which on it should become empty.
    pub(crate) fn sparse_from(&self) -> Option<u64> {
        let taken = self.high_water - self.free_pages;
        let is_sparse = self.free_pages >= SPARSE_PAGES_MIN && self.free_pages > taken;
        is_sparse.then_some(taken + taken / 2)
    }

    /// Whether `pages` adjacent pages are free below `end`.
    pub(crate) fn fits_below(&self, pages: u64, end: u64) -> bool {
        self.lowest(pages) + pages <= end
    }

    /// Takes `pages` adjacent pages for transaction `txid` and returns the first.
    pub(crate) fn allocate(&mut self, pages: u64, txid: u64) -> u64 {
        assert!(pages > 0, "transaction {txid} asks for no pages");
        let start = self.find(pages);
        let end = start + pages;
        let high_water = self.high_water;
        assert!(
            (META_PAGES..=high_water).contains(&start),
            "page {start} of a file of {high_water} pages"
        );
        if end > self.high_water {
            self.high_water = end;
            self.born.resize(end as usize, 0);
        }
        for page in start..end {
            if self.free.contains(page) {
                self.free.remove(page);
                self.free_pages -= 1;
            } else {
                assert!(
                    page >= high_water,
                    "page {page} of {high_water} is taken, and given to transaction {txid}"
                );
            }
            self.born[page as usize] = txid;
        }
        start
    }

    /// Finds a place for `pages` pages that are taken at once.
    fn find(&mut self, pages: u64) -> u64 {
        let start = self.lowest(pages);
        // Only for the exact size is what lies below known to be too small from now on.
        if let Some(from) = self.search_from.get_mut(pages as usize - 1) {
            *from = start + pages;
        }
        start
    }

    /// The lowest place for `pages` pages; it may reach or lie behind the high-water mark.
    fn lowest(&self, pages: u64) -> u64 {
        let mut from = self.search_from[(pages as usize).min(HINTS) - 1];
        loop {
            let Some(start) = self.free.next(from) else {
                return self.high_water;
            };
            let end = self.free.run_end(start);
            if end - start >= pages || end == self.high_water {
                return start;
            }
            from = end;
        }
    }

    /// Notes what the commit of transaction `txid` dropped. It stays taken until the next
    /// [`Space::release`].
    pub(crate) fn drop_pages(&mut self, txid: u64, dead: Vec<Extent>) {
        assert!(
            self.dead.is_none(),
            "two commits without a release between them"
        );
        for extent in &dead {
            let born = self.born[extent.id as usize];
            assert!(
                born < txid,
                "page {} of transaction {born} was dropped by transaction {txid}",
                extent.id
            );
        }
        self.held_pages += dead.iter().map(|extent| extent.pages).sum::<u64>();
        self.dead = Some((txid, dead));
        self.assert_counts();
    }

    /// Takes back what transaction `txid` allocated and dropped, whose commit was not written.
    /// `high_water` is where the mark stood before it.
    pub(crate) fn revert(&mut self, txid: u64, high_water: u64) {
        assert!(
            high_water <= self.high_water,
            "back from {} to {high_water} pages",
            self.high_water
        );
        for page in 0..high_water {
            if self.born[page as usize] == txid && self.free.insert(page) {
                self.free_pages += 1;
            }
        }
        self.high_water = high_water;
        self.born.truncate(high_water as usize);
        let dead = self.dead.take().map_or(Vec::new(), |(_, dead)| dead);
        self.held_pages -= dead.iter().map(|extent| extent.pages).sum::<u64>();
        self.search_from = [0; HINTS];
        self.assert_counts();
    }

    /// Frees what no reader can see. `pins` are the transactions of all pinned roots, ascending.
    pub(crate) fn release(&mut self, pins: &[u64]) {
        assert!(pins.is_sorted(), "pins do not ascend: {pins:?}");
        let gone: Vec<u64> = self
            .held
            .keys()
            .copied()
            .filter(|txid| pins.binary_search(txid).is_err())
            .collect();
        let mut orphans: Vec<(u64, Vec<Extent>)> = self.dead.take().into_iter().collect();
        orphans.extend(
            gone.into_iter()
                .filter_map(|txid| self.held.remove_entry(&txid)),
        );
        for (died, extents) in orphans {
            let older = &pins[..pins.partition_point(|pin| *pin < died)];
            for extent in extents {
                match older.last() {
                    Some(pin) if *pin >= self.born[extent.id as usize] => {
                        self.held.entry(*pin).or_default().push(extent)
                    }
                    _ => self.free(extent),
                }
            }
        }
        self.assert_counts();
    }

    /// No page is counted twice.
    fn assert_counts(&self) {
        let (free, held, all) = (self.free_pages, self.held_pages, self.high_water);
        assert!(
            free + held + META_PAGES <= all,
            "{free} pages free and {held} held of {all}"
        );
        assert_eq!(self.born.len() as u64, all, "every page was born");
        #[cfg(debug_assertions)]
        self.assert_sums();
    }

    /// The same of the lists behind the counts.
    #[cfg(debug_assertions)]
    fn assert_sums(&self) {
        assert_eq!(self.free.count(), self.free_pages, "free pages");
        let dead = self.dead.iter().map(|(_, extents)| extents);
        let held = self.held.values().chain(dead).flatten();
        let held: u64 = held.map(|extent| extent.pages).sum();
        assert_eq!(held, self.held_pages, "held pages");
    }

    fn free(&mut self, extent: Extent) {
        for page in extent.id..extent.id + extent.pages {
            assert!(
                page < self.high_water,
                "page {page} freed above {}",
                self.high_water
            );
            assert!(self.free.insert(page), "page {page} freed twice");
        }
        self.free_pages += extent.pages;
        self.held_pages -= extent.pages;
        for (hint, from) in self.search_from.iter_mut().enumerate() {
            // A run that now includes the extent may begin this much before it.
            *from = (*from).min(extent.id.saturating_sub(hint as u64));
        }
    }

    /// Lowers the high-water mark to behind the last page that is taken.
    pub(crate) fn trim(&mut self) {
        while self.free.contains(self.high_water - 1) {
            self.high_water -= 1;
            self.free.remove(self.high_water);
            self.free_pages -= 1;
        }
        self.born.truncate(self.high_water as usize);
        for from in &mut self.search_from {
            *from = (*from).min(self.high_water);
        }
        self.assert_counts();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A space of `high_water` pages of which all but the given ones are taken.
    fn space(high_water: u64, free: &[u64]) -> Space {
        let mut used = Bitmap::default();
        for page in (0..high_water).filter(|page| !free.contains(page)) {
            used.insert(page);
        }
        Space::new(&used, high_water)
    }

    fn one(id: u64) -> Vec<Extent> {
        vec![Extent { id, pages: 1 }]
    }

    #[test]
    fn takes_the_lowest_fitting_run_and_grows_from_a_free_tail() {
        let mut space = space(20, &[3, 5, 6, 9, 10, 11, 19]);
        assert_eq!(space.allocate(2, 1), 5);
        assert_eq!(space.allocate(1, 1), 3);
        assert_eq!(space.allocate(4, 1), 19, "the tail is extended");
        assert_eq!(space.high_water(), 23);
        assert_eq!(space.allocate(3, 1), 9);
        assert_eq!(space.allocate(1, 1), 23);
    }

    #[test]
    fn freed_pages_join_their_neighbours() {
        let mut space = space(30, &[4, 6]);
        assert_eq!(space.allocate(3, 1), 30);
        space.drop_pages(2, one(5));
        space.release(&[]);
        assert_eq!(space.allocate(3, 3), 4);
    }

    #[test]
    fn a_page_waits_for_every_reader_that_can_see_it_and_for_no_other() {
        let mut space = space(10, &[]);
        let page = space.allocate(1, 5);
        space.drop_pages(8, one(page));
        space.release(&[3, 5, 7, 8]);
        assert_eq!(space.unused_pages(), 1);
        assert_eq!(space.free_pages, 0, "the reader at 7 sees it");
        space.release(&[3, 5, 8]);
        assert_eq!(space.free_pages, 0, "the reader at 5 sees it");
        space.release(&[3, 8]);
        assert_eq!(space.free_pages, 1, "those at 3 and 8 do not");
    }

    #[test]
    fn a_transaction_that_was_not_written_leaves_no_trace() {
        let mut space = space(10, &[4, 8]);
        space.allocate(1, 5);
        space.drop_pages(5, one(2));
        space.release(&[4]);
        let (high_water, unused, free) =
            (space.high_water(), space.unused_pages(), space.free_pages);
        for _ in 0..2 {
            assert_eq!(space.allocate(1, 6), 8);
            assert_eq!(space.allocate(3, 6), 10);
            space.drop_pages(6, one(3));
            space.revert(6, high_water);
            assert_eq!(
                (space.high_water(), space.unused_pages(), space.free_pages),
                (high_water, unused, free)
            );
        }
        assert_eq!(space.allocate(1, 6), 8);
    }

    #[test]
    fn a_free_tail_is_cut() {
        let mut space = space(10, &[4, 8, 9]);
        space.trim();
        assert_eq!((space.high_water(), space.unused_pages()), (8, 1));
        assert_eq!(space.allocate(2, 1), 8);
    }
}
