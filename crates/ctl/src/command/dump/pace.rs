//! A limit on keys per second.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Keeps an average over the time since it was made.
pub(super) struct Pace {
    per_second: u64,
    began: Instant,
    done: u64,
}

impl Pace {
    /// 0 means no limit.
    pub(super) fn new(per_second: u64) -> Pace {
        Pace {
            per_second,
            began: Instant::now(),
            done: 0,
        }
    }

    /// Waits until `keys` more may have been done.
    pub(super) async fn wait(&mut self, keys: usize) {
        self.done += keys as u64;
        if self.per_second == 0 {
            return;
        }
        let seconds = self.done as f64 / self.per_second as f64;
        sleep_until(self.began + Duration::from_secs_f64(seconds)).await;
    }
}
