//! A set of page numbers, one bit for each.

/// A set of page numbers, dense from 0.
#[derive(Clone, Default)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    /// Whether `page` is in the set.
    pub(crate) fn contains(&self, page: u64) -> bool {
        self.words
            .get((page / 64) as usize)
            .is_some_and(|word| word & (1 << (page % 64)) != 0)
    }

    /// Adds `page`; `false` if it was there already.
    pub(crate) fn insert(&mut self, page: u64) -> bool {
        let word = (page / 64) as usize;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (page % 64);
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    /// Removes `page`, if it is there.
    pub(crate) fn remove(&mut self, page: u64) {
        if let Some(word) = self.words.get_mut((page / 64) as usize) {
            *word &= !(1 << (page % 64));
        }
    }

    /// The lowest member from `start` on.
    pub(crate) fn next(&self, start: u64) -> Option<u64> {
        self.scan(start, |word| word)
    }

    /// The end of the run of members that begins at `start`.
    pub(crate) fn run_end(&self, start: u64) -> u64 {
        self.scan(start, |word| !word)
            .unwrap_or((self.words.len() as u64 * 64).max(start))
    }

    /// The number of members.
    #[cfg(debug_assertions)]
    pub(crate) fn count(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    /// The lowest bit from `start` on that is set in the words as `view` shows them.
    fn scan(&self, start: u64, view: impl Fn(u64) -> u64) -> Option<u64> {
        let first = (start / 64) as usize;
        let mut mask = u64::MAX << (start % 64);
        for (index, word) in self.words.iter().enumerate().skip(first) {
            let hit = view(*word) & mask;
            if hit != 0 {
                return Some(index as u64 * 64 + u64::from(hit.trailing_zeros()));
            }
            mask = u64::MAX;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn agrees_with_a_set() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut bitmap, mut model) = (Bitmap::default(), BTreeSet::new());
        for _ in 0..5000 {
            let page = rng.u64(0..300);
            match rng.bool() {
                true => assert_eq!(bitmap.insert(page), model.insert(page)),
                false => {
                    bitmap.remove(page);
                    model.remove(&page);
                }
            }
            let start = rng.u64(0..400);
            assert_eq!(bitmap.contains(start), model.contains(&start));
            assert_eq!(bitmap.next(start), model.range(start..).next().copied());
            let end = (start..)
                .find(|page| !model.contains(page))
                .expect("the model is finite");
            assert_eq!(bitmap.run_end(start), end);
        }
    }
}
