//! Time, handed in by whoever drives the member.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, LocalBoxFuture, select};
use retcd_state::Time;
use retcd_state::machine::Moment;
use retcd_state::v2::Timestamp;

/// A member's clocks, as one thread reads them.
pub trait Clock {
    /// Monotonic time since the member started.
    fn now(&self) -> Duration;

    /// Time since 1970, as far as the host knows.
    fn unix(&self) -> Duration;

    /// Resolves when [`Clock::now`] has reached `at`.
    fn sleep_until(&self, at: Duration) -> LocalBoxFuture<'static, ()>;
}

impl dyn Clock {
    /// [`Clock::now`] as the machine takes it.
    pub fn time(&self) -> Time {
        Time::new(self.now())
    }

    /// [`Clock::unix`] in milliseconds.
    pub fn unix_ms(&self) -> u64 {
        self.unix().as_millis() as u64
    }

    /// [`Clock::unix`] as API v2 has it.
    pub fn timestamp(&self) -> Timestamp {
        Timestamp(i64::try_from(self.unix().as_nanos()).unwrap_or(i64::MAX))
    }

    /// Both clocks, for the machine.
    pub fn moment(&self) -> Moment {
        Moment {
            monotonic: self.time(),
            wall: self.timestamp(),
        }
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now() + duration).await;
    }

    /// What `future` gives, unless `deadline` passes before.
    pub async fn before<F: Future>(&self, deadline: Duration, future: F) -> Option<F::Output> {
        match select(pin!(future), self.sleep_until(deadline)).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(((), _)) => None,
        }
    }

    /// What `future` gives, if it does within `duration`.
    pub async fn within<F: Future>(&self, duration: Duration, future: F) -> Option<F::Output> {
        self.before(self.now() + duration, future).await
    }
}
