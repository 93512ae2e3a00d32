//! The terms of entries that are not at hand themselves.

use std::collections::VecDeque;

/// The terms of entries that follow each other without gaps: a run for each term, of which there are
/// few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    // Invariant: ascending in both, and empty if `end` is 0 or right behind the first run's start.
    runs: VecDeque<Run>,
    /// The index behind the last entry.
    end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u64,
    term: u64,
}

impl Terms {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The index of the first entry.
    pub fn first(&self) -> Option<u64> {
        self.runs.front().map(|run| run.first)
    }

    /// Index and term of the last entry.
    pub fn last(&self) -> Option<(u64, u64)> {
        self.runs.back().map(|run| (self.end - 1, run.term))
    }

    /// The number of entries.
    pub fn len(&self) -> u64 {
        self.first().map_or(0, |first| self.end - first)
    }

    /// Adds an entry that follows the last one.
    ///
    /// # Panics
    /// If it does not.
    pub fn push(&mut self, index: u64, term: u64) {
        if let Some((last, last_term)) = self.last() {
            assert_eq!(index, last + 1, "what follows {last}");
            self.end = index + 1;
            if term == last_term {
                return;
            }
        }
        self.runs.push_back(Run { first: index, term });
        self.end = index + 1;
    }

    /// The term of an entry that is among these.
    pub fn of(&self, index: u64) -> Option<u64> {
        if index >= self.end {
            return None;
        }
        let behind = self.runs.partition_point(|run| run.first <= index);
        behind.checked_sub(1).map(|run| self.runs[run].term)
    }

    /// Forgets the entries up to and including `index`.
    pub fn forget_to(&mut self, index: u64) {
        while let Some(run) = self.runs.front_mut() {
            let next = index.saturating_add(1);
            if run.first >= next {
                return;
            }
            let run_end = self.runs.get(1).map_or(self.end, |run| run.first);
            if next < run_end {
                self.runs[0].first = next;
                return;
            }
            self.runs.pop_front();
        }
    }

    /// Forgets the entries from `index` on.
    pub fn truncate(&mut self, index: u64) {
        while self.runs.back().is_some_and(|run| run.first >= index) {
            self.runs.pop_back();
        }
        self.end = self.end.min(index);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fastrand::Rng;

    use super::*;

    #[test]
    fn agree_with_a_map() {
        let mut rng = Rng::with_seed(3);
        let mut terms = Terms::default();
        let mut map: BTreeMap<u64, u64> = BTreeMap::new();
        let mut term = 1;
        for _ in 0..5000 {
            let first = map.first_key_value().map_or(1, |(first, _)| *first);
            let next = map.last_key_value().map_or(1, |(last, _)| last + 1);
            match rng.u8(..20) {
                0 => {
                    let index = rng.u64(first.saturating_sub(2)..next + 1);
                    terms.forget_to(index);
                    map.retain(|at, _| *at > index);
                }
                1 => {
                    let index = rng.u64(first.saturating_sub(2)..next + 2);
                    terms.truncate(index);
                    map.retain(|at, _| *at < index);
                }
                _ => {
                    term += u64::from(rng.u8(..4) == 0);
                    let index = if map.is_empty() { rng.u64(1..9) } else { next };
                    terms.push(index, term);
                    map.insert(index, term);
                }
            }
            assert_eq!(terms.len(), map.len() as u64);
            assert_eq!(terms.first(), map.first_key_value().map(|(at, _)| *at));
            assert_eq!(
                terms.last(),
                map.last_key_value().map(|(at, of)| (*at, *of))
            );
            let at = rng.u64(..next + 3);
            assert_eq!(terms.of(at), map.get(&at).copied(), "{at}");
        }
    }
}
