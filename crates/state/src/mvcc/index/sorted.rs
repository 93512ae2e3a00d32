//! The items of a node in order.

use super::node::FANOUT;

/// An item of a node.
pub(super) trait Keyed: Clone {
    /// Items in front whose keys do not count for the order.
    const UNORDERED: usize;

    fn key(&self) -> &[u8];
}

/// The items of a node in the order of their keys.
///
/// Keys lie all over memory, so that a binary search over them waits for memory at every step. Keys
/// that are neighbours share a prefix, and the four bytes behind it, an item's *head*, mostly tell
/// them apart: they lie in the node and lead to a place that one or two comparisons of whole keys
/// confirm. Where they do not (a key that does not share the prefix), the search starts over with
/// whole keys: heads make it fast and are not needed to make it right.
#[derive(Clone)]
pub(super) struct Sorted<T> {
    /// Length of the prefix behind which the heads begin.
    prefix: usize,
    /// Of the items, side by side: two or three lines of the processor's cache.
    heads: [u32; FANOUT + 1],
    pub(super) items: Vec<T>,
}

impl<T: Keyed> Sorted<T> {
    pub(super) fn new(items: Vec<T>) -> Sorted<T> {
        let mut sorted = Sorted {
            prefix: 0,
            heads: [0; FANOUT + 1],
            items,
        };
        sorted.set_heads();
        sorted
    }

    /// Where `key` is, or belongs.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let (items, heads) = (self.ordered(), self.ordered_heads());
        let head = head_of(key, self.prefix);
        // So few are counted sooner than searched.
        let first = heads.iter().filter(|other| **other < head).count();
        let same = heads[first..].iter().take_while(|other| **other == head);
        let run = same.count();
        let whole = |items: &[T]| items.binary_search_by(|item| item.key().cmp(key));
        let found = match whole(&items[first..first + run]) {
            Ok(i) => Ok(first + i),
            Err(i) if is_between(items, first + i, key) => Err(first + i),
            Err(_) => whole(items),
        };
        found
            .map(|i| i + T::UNORDERED)
            .map_err(|i| i + T::UNORDERED)
    }

    /// Inserts `item` at `i`; the right part if there are too many then. Where the newest item went
    /// to the end, keys probably arrive in order: the left part stays full.
    pub(super) fn insert(&mut self, i: usize, item: T) -> Option<Sorted<T>> {
        self.items.insert(i, item);
        debug_assert!(self.is_ascending_at(i), "item {i} out of order");
        if self.items.len() > FANOUT {
            let appended = i + 1 == self.items.len();
            let at = if appended { i } else { self.items.len() / 2 };
            let right = Sorted::new(self.items.split_off(at));
            self.set_heads();
            let (left, moved) = (self.items.len(), right.items.len());
            assert!(
                left > 0 && moved > 0,
                "a node is split at {left} of {moved}"
            );
            return Some(right);
        }
        let is_outermost = i == T::UNORDERED || i + 1 == self.items.len();
        if is_outermost && self.shared_prefix() < self.prefix {
            self.set_heads();
        } else {
            self.heads.copy_within(i..self.items.len() - 1, i + 1);
            self.heads[i] = head_of(self.items[i].key(), self.prefix);
        }
        self.assert_heads();
        None
    }

    pub(super) fn remove(&mut self, i: usize) -> T {
        self.heads.copy_within(i + 1..self.items.len(), i);
        let removed = self.items.remove(i);
        self.assert_heads();
        removed
    }

    pub(super) fn append(&mut self, more: &Sorted<T>) {
        self.items.extend_from_slice(&more.items);
        self.set_heads();
    }

    /// Whether item `i` lies between its neighbours, of those that count for the order.
    fn is_ascending_at(&self, i: usize) -> bool {
        let from = i.saturating_sub(1).max(T::UNORDERED);
        let around = self.items.get(from..self.items.len().min(i + 2));
        around.is_none_or(|items| items.is_sorted_by(|a, b| a.key() < b.key()))
    }

    fn ordered(&self) -> &[T] {
        self.items.get(T::UNORDERED..).unwrap_or_default()
    }

    fn ordered_heads(&self) -> &[u32] {
        let len = self.items.len();
        &self.heads[T::UNORDERED.min(len)..len]
    }

    fn assert_heads(&self) {
        debug_assert!(
            self.ordered_heads().is_sorted(),
            "heads out of order: {} items",
            self.items.len()
        );
    }

    /// Length of the prefix that all keys share: as they ascend, that of the first and the last.
    fn shared_prefix(&self) -> usize {
        let (Some(first), Some(last)) = (self.ordered().first(), self.ordered().last()) else {
            return 0;
        };
        first
            .key()
            .iter()
            .zip(last.key())
            .take_while(|(a, b)| a == b)
            .count()
    }

    fn set_heads(&mut self) {
        self.prefix = self.shared_prefix();
        for (head, item) in self.heads.iter_mut().zip(&self.items) {
            *head = head_of(item.key(), self.prefix);
        }
    }
}

/// Whether `key` belongs between the items before and from `i`.
fn is_between<T: Keyed>(items: &[T], i: usize, key: &[u8]) -> bool {
    let above_left = i == 0 || items[i - 1].key() < key;
    above_left && items.get(i).is_none_or(|right| key < right.key())
}

/// The four bytes behind `prefix` as a number that compares like them, missing ones as zeros.
fn head_of(key: &[u8], prefix: usize) -> u32 {
    let rest = key.get(prefix..).unwrap_or_default();
    match rest.first_chunk() {
        Some(head) => u32::from_be_bytes(*head),
        None => rest
            .iter()
            .zip([24, 16, 8])
            .map(|(byte, shift)| u32::from(*byte) << shift)
            .sum(),
    }
}
