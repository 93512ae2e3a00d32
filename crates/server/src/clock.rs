//! The operating system's clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::LocalBoxFuture;
use retcd_state::Time;
use retcd_state::v2::Timestamp;

/// Monotonic time since the server started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// The time itself, of a clock that goes only when it is told to.
    #[cfg(test)]
    manual_ns: Option<&'static std::sync::atomic::AtomicU64>,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Clock {
        Clock {
            start: Instant::now(),
            #[cfg(test)]
            manual_ns: None,
        }
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        #[cfg(test)]
        if let Some(manual_ns) = self.manual_ns {
            return Duration::from_nanos(manual_ns.load(std::sync::atomic::Ordering::SeqCst));
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
    /// A clock that goes only when it is told to.
    pub(crate) fn manual() -> Clock {
        Clock {
            start: Instant::now(),
            manual_ns: Some(Box::leak(Box::default())),
        }
    }

    /// Lets time go by.
    pub(crate) fn advance(&self, by: Duration) {
        let manual_ns = self.manual_ns.expect("it is a manual one");
        manual_ns.fetch_add(by.as_nanos() as u64, std::sync::atomic::Ordering::SeqCst);
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
