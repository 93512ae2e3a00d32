//! The state shared by the generator's threads: the current phase and the remaining operations.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::Extent;

/// The phase of a run; see the diagram in [`super`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Threads connect and prepare.
    Setup,
    /// Load that is not counted.
    Warm,
    /// Load that is counted.
    Measure,
    /// Clients are dropped.
    Stop,
}

/// The phase and the remaining operations of a run.
pub(crate) struct Pace {
    phase: watch::Sender<Phase>,
    /// Operations not yet started; `None` if the run is limited by time.
    left: Option<AtomicU64>,
}

impl Pace {
    /// Starts in [`Phase::Setup`].
    pub(crate) fn new(extent: Extent) -> Self {
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
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let changes = *current != Phase::Stop && *current != phase;
            if changes {
                *current = phase;
            }
            changes
        });
    }

    /// Waits for the start of the load.
    pub(crate) async fn started(&self) {
        self.reached(|phase| phase != Phase::Setup).await;
    }

    /// Waits for the end.
    pub(crate) async fn stopped(&self) {
        self.reached(|phase| phase == Phase::Stop).await;
    }

    async fn reached(&self, wanted: impl Fn(Phase) -> bool) {
        let mut phases = self.phase.subscribe();
        phases
            .wait_for(|phase| wanted(*phase))
            .await
            .expect("the sender lives as long as `self`");
    }

    /// Whether operations that complete now are counted.
    pub(crate) fn measuring(&self) -> bool {
        *self.phase.borrow() == Phase::Measure
    }

    /// Takes up to `count` of the remaining operations and returns how many; all of them if the run
    /// is limited by time or not counted yet.
    pub(crate) fn take(&self, count: u64) -> u64 {
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
