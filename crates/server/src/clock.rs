//! The operating system's clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::LocalBoxFuture;
use retcd_state::Time;
use retcd_state::v2::Timestamp;

/// Monotonic time since the server started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Clock {
        Clock {
            start: Instant::now(),
        }
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The same, as the machine takes it.
    pub(crate) fn time(&self) -> Time {
        Time::new(self.now())
    }

    /// The time at which the clock showed `instant`.
    pub(crate) fn of(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.start)
    }
}

impl retcd_member::Clock for Clock {
    fn now(&self) -> Duration {
        Clock::now(self)
    }

    fn unix(&self) -> Duration {
        unix()
    }

    fn sleep_until(&self, at: Duration) -> LocalBoxFuture<'static, ()> {
        let deadline = tokio::time::Instant::from_std(self.start + at);
        Box::pin(tokio::time::sleep_until(deadline))
    }
}

/// Time since 1970.
fn unix() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Now, as API v2 has it.
pub(crate) fn timestamp() -> Timestamp {
    Timestamp(i64::try_from(unix().as_nanos()).unwrap_or(i64::MAX))
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    unix().as_millis() as u64
}
