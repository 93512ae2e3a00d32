//! How long calls took: of the last minute, the last hour, and all.

use std::time::{Duration, Instant};

use super::Moment;

/// Powers of two of microseconds: the first is of less than 2, the last of everything beyond.
const BUCKETS: usize = 38;
/// Parts of a minute and of an hour.
const SLOTS: u64 = 60;

/// Counts of durations.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    pub(super) counts: [u64; BUCKETS],
    sum_us: u64,
    sum_of_squares: f64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            counts: [0; BUCKETS],
            sum_us: 0,
            sum_of_squares: 0.0,
        }
    }
}

impl Histogram {
    fn add(&mut self, took: Duration) {
        let us = took.as_micros() as u64;
        self.counts[bucket_of(us)] += 1;
        self.sum_us += us;
        self.sum_of_squares += us as f64 * us as f64;
    }

    fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum_us += other.sum_us;
        self.sum_of_squares += other.sum_of_squares;
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn mean_us(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.sum_us as f64 / count as f64,
        }
    }

    pub(super) fn deviation_us(&self) -> f64 {
        let (count, mean) = (self.count().max(1) as f64, self.mean_us());
        (self.sum_of_squares / count - mean * mean).max(0.0).sqrt()
    }

    /// An estimate, as if the calls of a bucket were spread evenly over it.
    pub(super) fn median_us(&self) -> u64 {
        let count = self.count();
        if count <= 1 {
            return self.mean_us() as u64;
        }
        let half = count.div_ceil(2);
        let mut below = 0;
        for (bucket, &here) in self.counts.iter().enumerate() {
            if below + here > half {
                let share = (half - below) as f64 / here as f64;
                let (low, high) = (low_us(bucket), low_us(bucket + 1));
                return low + (share * (high - low) as f64).round() as u64;
            }
            below += here;
            if below == half {
                // Between this bucket and the next with something in it.
                let later = (bucket + 1..BUCKETS).find(|later| self.counts[*later] > 0);
                let (low, high) = (low_us(bucket + 1), low_us(later.unwrap_or(bucket + 1)));
                return low + ((high - low) as f64 / 2.0).round() as u64;
            }
        }
        low_us(BUCKETS - 1)
    }
}

fn bucket_of(us: u64) -> usize {
    (us.max(1).ilog2() as usize).min(BUCKETS - 1)
}

/// The shortest duration of a bucket.
pub(super) fn low_us(bucket: usize) -> u64 {
    match bucket {
        0 => 0,
        bucket => 1 << bucket,
    }
}

/// The durations of the parts of a span of time.
struct Window {
    slot: Duration,
    /// Of the part with this number since the start; nothing is there before the first call.
    slots: Vec<(u64, Histogram)>,
}

impl Window {
    fn of(slot: Duration) -> Window {
        Window {
            slot,
            slots: Vec::new(),
        }
    }

    fn number(&self, since_start: Duration) -> u64 {
        (since_start.as_nanos() / self.slot.as_nanos()) as u64
    }

    fn add(&mut self, took: Duration, since_start: Duration) {
        let number = self.number(since_start);
        let oldest = (number + 1).saturating_sub(SLOTS);
        self.slots.retain(|(at, _)| *at >= oldest);
        if self.slots.last().is_none_or(|(at, _)| *at < number) {
            self.slots.push((number, Histogram::default()));
        }
        let (_, last) = self.slots.last_mut().expect("there is one now");
        last.add(took);
    }

    fn sum(&self, since_start: Duration) -> Histogram {
        let oldest = (self.number(since_start) + 1).saturating_sub(SLOTS);
        let mut sum = Histogram::default();
        for (_, histogram) in self.slots.iter().filter(|(at, _)| *at >= oldest) {
            sum.merge(histogram);
        }
        sum
    }
}

/// What the page shows of a family's durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    Minute,
    Hour,
    Total,
}

/// The durations of a family's calls.
pub(super) struct Latency {
    start: Instant,
    minute: Window,
    hour: Window,
    total: Histogram,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency {
            start: Instant::now(),
            minute: Window::of(Duration::from_secs(1)),
            hour: Window::of(Duration::from_secs(60)),
            total: Histogram::default(),
        }
    }
}

impl Latency {
    pub(super) fn add(&mut self, took: Duration, now: Moment) {
        let since_start = now.instant.saturating_duration_since(self.start);
        self.minute.add(took, since_start);
        self.hour.add(took, since_start);
        self.total.add(took);
    }

    pub(super) fn of(&self, span: Span, now: Moment) -> Histogram {
        let since_start = now.instant.saturating_duration_since(self.start);
        match span {
            Span::Minute => self.minute.sum(since_start),
            Span::Hour => self.hour.sum(since_start),
            Span::Total => self.total.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(us: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        us.iter()
            .for_each(|us| histogram.add(Duration::from_micros(*us)));
        histogram
    }

    /// 3.7.1 showed these numbers for seven calls: two of 128 to 256, two of 512 to 1024, three of 1024
    /// to 2048.
    #[test]
    fn numbers_are_those_of_go() {
        let histogram = of(&[228, 252, 886, 965, 1188, 1559, 1209]);
        assert_eq!(histogram.count(), 7);
        assert_eq!(histogram.mean_us().round(), 898.0);
        assert_eq!(histogram.deviation_us().round(), 461.0);
        assert_eq!(histogram.median_us(), 1024);
        assert_eq!(histogram.counts[7..12], [2, 0, 2, 3, 0]);
    }

    #[test]
    fn there_is_a_median_of_anything() {
        assert_eq!(of(&[]).median_us(), 0);
        assert_eq!(of(&[7]).median_us(), 7);
        assert_eq!(of(&[0, 1, 0, 1]).median_us(), 1, "half of 0 to 2");
        // Half of them are below 4, the others from 1024 on.
        assert_eq!(of(&[2, 3, 1500, 1600]).median_us(), 4 + 510);
        assert_eq!(of(&[u64::MAX / 2000; 3]).count(), 3);
    }

    #[test]
    fn what_is_long_ago_is_in_the_total_only() {
        let mut latency = Latency::default();
        let start = latency.start;
        let at = |seconds| Moment {
            instant: start + Duration::from_secs(seconds),
            ..Moment::now()
        };
        let took = Duration::from_micros(5);
        for seconds in [0, 1, 100, 5000] {
            latency.add(took, at(seconds));
        }
        let count = |span, seconds| latency.of(span, at(seconds)).count();
        let counts = [Span::Minute, Span::Hour, Span::Total].map(|span| count(span, 5000));
        assert_eq!(counts, [1, 1, 4]);
        assert_eq!(count(Span::Minute, 5059), 1);
        assert_eq!(count(Span::Minute, 5060), 0);
        assert_eq!(count(Span::Hour, 5060), 1);
        latency.add(took, at(5001));
        let counts =
            [Span::Minute, Span::Hour, Span::Total].map(|span| latency.of(span, at(5001)).count());
        assert_eq!(counts, [2, 2, 5]);
    }
}
