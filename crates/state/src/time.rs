//! Time as an argument.

use std::time::Duration;

/// A moment on a monotonic clock whose zero is up to the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Duration);

impl Time {
    /// The moment `since_start` after the clock's zero.
    pub const fn new(since_start: Duration) -> Time {
        Time(since_start)
    }

    /// The moment `seconds` after the clock's zero.
    pub const fn from_secs(seconds: u64) -> Time {
        Time(Duration::from_secs(seconds))
    }

    /// How long after the clock's zero this is.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// How long after `earlier` this is; zero if it is before.
    pub fn saturating_since(self, earlier: Time) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Time;

    /// Saturates at the end of time.
    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(duration))
    }
}
