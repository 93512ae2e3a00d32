//! Keeps a storm of equal messages from filling the disk: per second and message, the first hundred
//! lines pass and then every hundredth.
//!
//! Messages share a fixed number of counters by hash, so memory is bounded; two messages that meet
//! in one counter are thinned out together, which matters only while both are frequent. Counters
//! are lock-free; lines that race at the turn of a second may be counted to either side.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::Level;

const COUNTERS: usize = 1024;
const FIRST: u64 = 100;
const THEREAFTER: u64 = 100;

pub(super) struct Sampler {
    counters: Box<[Counter]>,
}

#[derive(Default)]
struct Counter {
    second: AtomicI64,
    lines: AtomicU64,
}

impl Default for Sampler {
    fn default() -> Self {
        Sampler {
            counters: (0..COUNTERS).map(|_| Counter::default()).collect(),
        }
    }
}

impl Sampler {
    /// Whether a line with this message is written in this second (of the Unix epoch).
    pub(super) fn admits(&self, level: Level, message: &str, second: i64) -> bool {
        if level >= Level::Panic {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        (level as u8, message).hash(&mut hasher);
        let counter = &self.counters[(hasher.finish() % COUNTERS as u64) as usize];
        let nth = counter.count(second);
        nth <= FIRST || (nth - FIRST).is_multiple_of(THEREAFTER)
    }
}

impl Counter {
    /// Counts a line; the first of a second is 1.
    fn count(&self, second: i64) -> u64 {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.lines.store(0, Ordering::Relaxed);
        }
        self.lines.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(
        sampler: &Sampler,
        level: Level,
        message: &str,
        second: i64,
        lines: usize,
    ) -> usize {
        (0..lines)
            .filter(|_| sampler.admits(level, message, second))
            .count()
    }

    #[test]
    fn repeated_lines_are_thinned_out_per_second_and_message() {
        let sampler = Sampler::default();
        assert_eq!(admitted(&sampler, Level::Info, "storm", 1, 1000), 100 + 9);
        assert_eq!(admitted(&sampler, Level::Info, "quiet", 1, 1), 1);
        assert_eq!(admitted(&sampler, Level::Warn, "storm", 1, 1), 1);
        assert_eq!(admitted(&sampler, Level::Info, "storm", 2, 150), 100);
    }

    #[test]
    fn fatal_lines_always_pass() {
        assert_eq!(
            admitted(&Sampler::default(), Level::Fatal, "end", 1, 1000),
            1000
        );
    }
}
