//! Limits how often a repeating event is logged.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Minimum time between two log lines of one event.
const PERIOD: Duration = Duration::from_secs(5);

/// Allows an event to be logged at most once per [`PERIOD`].
#[derive(Debug, Default)]
pub struct Throttle(Mutex<Option<Instant>>);

impl Throttle {
    /// Reports whether the event may be logged now, and starts a new period if so.
    pub fn allow(&self) -> bool {
        let mut last = self.0.lock();
        let now = Instant::now();
        let due = last.is_none_or(|last| now.duration_since(last) >= PERIOD);
        if due {
            *last = Some(now);
        }
        due
    }
}
