//! The operating system's clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::LocalBoxFuture;
use retcd_state::Time;
use retcd_state::v2::Timestamp;

/// Monotonic time since the server started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// How far the clock goes on with each look at it, if it does nothing else, and how many there
    /// were.
    #[cfg(test)]
    steps: Option<(Duration, &'static std::sync::atomic::AtomicU32)>,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Clock {
        Clock {
            start: Instant::now(),
            #[cfg(test)]
            steps: None,
        }
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        #[cfg(test)]
        if let Some((step, count)) = self.steps {
            return step * count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
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

#[cfg(test)]
impl Clock {
    /// A clock that goes on by `step` with each look at it.
    pub(crate) fn stepping(step: Duration) -> Clock {
        Clock {
            start: Instant::now(),
            steps: Some((step, Box::leak(Box::default()))),
        }
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
