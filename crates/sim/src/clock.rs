//! A member's clocks: one that only goes forward, a little too fast or too slow, and one on the
//! wall that may be anywhere.

use std::time::Duration;

/// The largest deviation of a clock's rate, in millionths: leases are judged with it.
pub const RATE_PPM_MAX: i64 = 20_000;

/// The wall clock's reading when the world begins, in milliseconds since 1970.
const WALL_EPOCH_MS: u64 = 1_750_000_000_000;

/// A member's clocks against the true time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// A moment, in true time and on this clock.
    base: (Duration, Duration),
    /// Millionths that it goes faster than true time.
    rate_ppm: i64,
    wall_offset_ms: i64,
}

impl Clock {
    /// A clock that shows `offset` at the true time zero.
    pub fn new(offset: Duration, rate_ppm: i64) -> Clock {
        assert!(rate_ppm.abs() <= RATE_PPM_MAX, "a rate of {rate_ppm} ppm");
        Clock {
            base: (Duration::ZERO, offset),
            rate_ppm,
            wall_offset_ms: 0,
        }
    }

    /// What the clock shows at the true time `now`.
    pub fn local(&self, now: Duration) -> Duration {
        let (base, shown) = self.base;
        let elapsed = (now - base).as_nanos() as u64;
        shown + Duration::from_nanos(scale(elapsed, 1_000_000 + self.rate_ppm, 1_000_000))
    }

    /// The first true time, not before `now`, at which the clock shows `local` or more.
    pub fn true_time(&self, local: Duration, now: Duration) -> Duration {
        let (base, shown) = self.base;
        let ahead = local.saturating_sub(shown).as_nanos() as u64;
        let elapsed = scale(ahead, 1_000_000, 1_000_000 + self.rate_ppm);
        // One more than rounded down: never too early.
        now.max(base + Duration::from_nanos(elapsed + 2))
    }

    /// Changes the rate from `now` on.
    pub fn set_rate(&mut self, now: Duration, rate_ppm: i64) {
        assert!(rate_ppm.abs() <= RATE_PPM_MAX, "a rate of {rate_ppm} ppm");
        self.base = (now, self.local(now));
        self.rate_ppm = rate_ppm;
    }

    /// Moves the wall clock.
    pub fn jump_wall(&mut self, by_ms: i64) {
        self.wall_offset_ms += by_ms;
    }

    /// The wall clock's reading in milliseconds since 1970.
    pub fn wall_ms(&self, now: Duration) -> u64 {
        let shown = WALL_EPOCH_MS + self.local(now).as_millis() as u64;
        shown.saturating_add_signed(self.wall_offset_ms)
    }
}

/// The shortest true time that a clock may take for `local`.
pub fn fastest(local: Duration) -> Duration {
    let nanos = scale(local.as_nanos() as u64, 1_000_000, 1_000_000 + RATE_PPM_MAX);
    Duration::from_nanos(nanos)
}

fn scale(nanos: u64, numerator: i64, denominator: i64) -> u64 {
    let scaled = u128::from(nanos) * numerator.unsigned_abs() as u128;
    (scaled / denominator.unsigned_abs() as u128) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_never_early_and_hardly_late() {
        let mut clock = Clock::new(Duration::from_secs(5), 7_321);
        clock.set_rate(Duration::from_secs(3), -12_345);
        for ms in [3_000, 3_001, 10_000, 86_400_000] {
            let local = clock.local(Duration::from_millis(ms)) + Duration::from_nanos(7);
            let due = clock.true_time(local, Duration::from_millis(ms));
            assert!(clock.local(due) >= local);
            assert!(clock.local(due) < local + Duration::from_micros(1));
        }
    }
}
