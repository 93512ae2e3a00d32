//! The one thing that the generator's threads share: the phase they are in and the operations left to do.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::Extent;

/// Where a run is; see the picture in [`super`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Threads connect and prepare.
    Setup,
    /// Load without counting.
    Warm,
    /// Load with counting.
    Measure,
    /// Drop everything.
    Stop,
}

/// Phase and remaining operations of a run.
pub struct Pace {
    phase: watch::Sender<Phase>,
    /// Operations not yet begun; `None` if time is the limit.
    left: Option<AtomicU64>,
}

impl Pace {
    /// In [`Phase::Setup`].
    pub fn new(extent: Extent) -> Self {
        let left = match extent {
            Extent::Time(_) => None,
            Extent::Operations(count) => Some(AtomicU64::new(count)),
        };
        Self {
            phase: watch::Sender::new(Phase::Setup),
            left,
        }
    }

    /// Changes the phase; [`Phase::Stop`] is final.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let changes = *current != Phase::Stop && *current != phase;
            if changes {
                *current = phase;
            }
            changes
        });
    }

    /// Waits for the load to begin.
    pub async fn started(&self) {
        self.reached(|phase| phase != Phase::Setup).await;
    }

    /// Waits for the end.
    pub async fn stopped(&self) {
        self.reached(|phase| phase == Phase::Stop).await;
    }

    async fn reached(&self, wanted: impl Fn(Phase) -> bool) {
        let mut phases = self.phase.subscribe();
        phases
            .wait_for(|phase| wanted(*phase))
            .await
            .expect("the sender lives as long as `self`");
    }

    /// Whether what completes now counts.
    pub fn measuring(&self) -> bool {
        *self.phase.borrow() == Phase::Measure
    }

    /// Takes up to `count` of the operations left and returns how many; all of them if time is the limit or nothing is
    /// counted yet.
    pub fn take(&self, count: u64) -> u64 {
        let Some(left) = self.left.as_ref().filter(|_| self.measuring()) else {
            return count;
        };
        let before = left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_sub(count))
            })
            .expect("the closure always returns a value");
        before.min(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn operations_run_out_once_they_count() {
        let pace = Pace::new(Extent::Operations(5));
        pace.enter(Phase::Warm);
        assert_eq!(pace.take(100), 100);
        pace.enter(Phase::Measure);
        assert_eq!([pace.take(3), pace.take(3), pace.take(1)], [3, 2, 0]);
    }

    #[test]
    fn time_never_runs_out_of_operations() {
        let pace = Pace::new(Extent::Time(Duration::from_secs(1)));
        pace.enter(Phase::Measure);
        assert_eq!(pace.take(1 << 40), 1 << 40);
    }

    #[test]
    fn stop_is_final() {
        let pace = Pace::new(Extent::Operations(5));
        pace.enter(Phase::Stop);
        pace.enter(Phase::Measure);
        assert!(!pace.measuring());
    }
}
