//! What was sent to one other member and received from all, as `/v2/stats` tells it.
//!
//! Only messages with entries or commits (`MsgApp`) count, as in etcd.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

/// The messages of this member.
#[derive(Debug, Default)]
pub(super) struct AppendCounts {
    received: AtomicU64,
    sent: AtomicU64,
}

impl AppendCounts {
    /// Counts a message that was received.
    pub(super) fn receive(&self) {
        self.received.fetch_add(1, Relaxed);
    }

    /// Counts a message that is sent.
    pub(super) fn send(&self) {
        self.sent.fetch_add(1, Relaxed);
    }

    /// How many were received, and how many sent.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.received.load(Relaxed), self.sent.load(Relaxed))
    }
}

/// How sending to a follower went, as of one moment. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FollowerStatistics {
    /// Messages that were sent.
    pub successes: u64,
    /// Messages that were not.
    pub failures: u64,
    /// The time of the last message.
    pub current: f64,
    /// Of all messages.
    pub average: f64,
    /// Of all messages.
    pub standard_deviation: f64,
    /// The shortest time; etcd's largest number before the first message.
    pub minimum: f64,
    /// The longest time.
    pub maximum: f64,
    average_of_squares: f64,
}

impl Default for FollowerStatistics {
    fn default() -> FollowerStatistics {
        FollowerStatistics {
            successes: 0,
            failures: 0,
            current: 0.0,
            average: 0.0,
            standard_deviation: 0.0,
            minimum: (1_u64 << 63) as f64,
            maximum: 0.0,
            average_of_squares: 0.0,
        }
    }
}

impl FollowerStatistics {
    fn add(&mut self, took: Duration) {
        let current = took.as_secs_f64() * 1000.0;
        self.current = current;
        self.minimum = self.minimum.min(current);
        self.maximum = self.maximum.max(current);
        self.successes += 1;
        let share = 1.0 / self.successes as f64;
        self.average += (current - self.average) * share;
        self.average_of_squares += (current * current - self.average_of_squares) * share;
        let variance = self.average_of_squares - self.average * self.average;
        self.standard_deviation = variance.max(0.0).sqrt();
    }
}

/// Counts what is sent to one member.
#[derive(Debug, Default)]
pub(super) struct Follower(Mutex<FollowerStatistics>);

impl Follower {
    /// A message was sent, which took so long.
    pub(super) fn sent(&self, took: Duration) {
        self.0.lock().add(took);
    }

    /// A message was not sent.
    pub(super) fn failed(&self) {
        self.0.lock().failures += 1;
    }

    /// What it came to so far.
    pub(super) fn statistics(&self) -> FollowerStatistics {
        *self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_summed_up() {
        let follower = Follower::default();
        assert_eq!(follower.statistics().minimum, 9_223_372_036_854_775_808.0);
        for millis in [2, 4, 4, 4, 5, 5, 7, 9] {
            follower.sent(Duration::from_millis(millis));
        }
        follower.failed();
        let statistics = follower.statistics();
        assert_eq!((statistics.successes, statistics.failures), (8, 1));
        let near = |found: f64, wanted: f64| (found - wanted).abs() < 1e-9;
        assert!(near(statistics.average, 5.0), "{statistics:?}");
        assert!(near(statistics.standard_deviation, 2.0), "{statistics:?}");
        assert!(near(statistics.current, 9.0) && near(statistics.maximum, 9.0));
        assert!(near(statistics.minimum, 2.0), "{statistics:?}");
    }
}
