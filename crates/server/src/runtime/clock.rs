//! The process's clocks, read here and passed down as arguments.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time since the server started.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock {
            start: Instant::now(),
        }
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The same, as the machine takes it.
    pub fn time(&self) -> retcd_state::Time {
        retcd_state::Time::new(self.now())
    }
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis() as u64)
}
