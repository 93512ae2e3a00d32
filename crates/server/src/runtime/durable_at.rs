//! When this member had which entries on its disk, for the last turns of its log: whoever measures
//! requests asks, a little later, for those that a quorum has.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

/// Turns that are remembered. Entries that are committed were written in one of the last few.
const TURNS_MAX: usize = 64;

/// The newest index of each turn, and when it was durable.
#[derive(Debug, Default)]
pub(super) struct DurableAt(Mutex<VecDeque<(u64, Duration)>>);

impl DurableAt {
    /// Entries up to `index` are durable as of `at`.
    pub(super) fn note(&self, index: u64, at: Duration) {
        let mut turns = self.0.lock();
        // A new leader's entries have taken the place of what was written before.
        while turns.back().is_some_and(|(newest, _)| *newest >= index) {
            turns.pop_back();
        }
        if turns.len() == TURNS_MAX {
            turns.pop_front();
        }
        turns.push_back((index, at));
    }

    /// When the entry `index` was, if it is and that was not long ago.
    pub(super) fn of(&self, index: u64) -> Option<Duration> {
        let turns = self.0.lock();
        let at = turns.partition_point(|(newest, _)| *newest < index);
        // Of the oldest it is not known where it begins.
        let known = at > 0 || turns.len() < TURNS_MAX;
        turns.get(at).filter(|_| known).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_durable_with_their_turn() {
        let durable = DurableAt::default();
        let second = Duration::from_secs;
        assert_eq!(durable.of(1), None);
        durable.note(5, second(1));
        durable.note(9, second(2));
        let of = [5, 6, 9, 10].map(|index| durable.of(index));
        assert_eq!(
            of,
            [Some(second(1)), Some(second(2)), Some(second(2)), None]
        );
        // Those from 7 on are replaced.
        durable.note(7, second(3));
        assert_eq!(
            [6, 7, 8].map(|index| durable.of(index)),
            [Some(second(3)), Some(second(3)), None]
        );
        for index in 10..100 {
            durable.note(index, second(index));
        }
        assert_eq!(durable.of(7), None, "that is too long ago");
        assert_eq!(durable.of(99), Some(second(99)));
    }
}
