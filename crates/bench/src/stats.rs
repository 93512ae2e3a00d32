//! Latency histograms, medians, and number formatting.

use std::time::Duration;

use hdrhistogram::Histogram;

/// A histogram of latencies from one microsecond to ten minutes, with three significant digits.
#[derive(Clone)]
pub(crate) struct Latencies(Histogram<u64>);

const NANOS_MAX: u64 = 600 * 1_000_000_000;
const NANOS_MIN: u64 = 1_000;

impl Default for Latencies {
    fn default() -> Self {
        Self(
            Histogram::new_with_bounds(NANOS_MIN, NANOS_MAX, 3)
                .expect("the bounds are constants in order"),
        )
    }
}

impl Latencies {
    /// Records one latency, clamped to the range.
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(NANOS_MAX);
        self.0.saturating_record(nanos.clamp(NANOS_MIN, NANOS_MAX));
    }

    /// Adds all latencies of `other`.
    pub(crate) fn add(&mut self, other: &Latencies) {
        self.0
            .add(&other.0)
            .expect("all histograms here have the same bounds");
    }

    /// The number of recorded latencies.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The given percentile (0 to 100); zero if there are none.
    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(percent / 100.0))
    }

    /// The maximum; zero if there are none.
    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }
}

/// The median, which for an even number of values is the mean of the middle two; `None` without
/// values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The smallest and the largest value; infinity and minus infinity without values.
pub(crate) fn extremes(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let none = (f64::INFINITY, f64::NEG_INFINITY);
    let values = values.into_iter();
    values.fold(none, |(least, most), value| {
        (least.min(value), most.max(value))
    })
}

/// Formats three significant digits, with thousands separators from 1,000 on: `0.0123`, `1.23`,
/// `45.6`, `789`, `12,345`.
pub(crate) fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 99.95 {
        return thousands(value.round() as i64);
    }
    // The thresholds next to the powers of ten keep rounding from adding a digit (9.996 is 10.0,
    // not 10.00).
    let decimals = match magnitude {
        0.0 => return "0".into(),
        m if m >= 9.995 => 1,
        m if m >= 0.9995 => 2,
        m if m >= 0.09995 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// Formats a count with thousands separators: `7`, `12,345`.
pub(crate) fn count(value: impl Into<u64>) -> String {
    thousands(i64::try_from(value.into()).unwrap_or(i64::MAX))
}

fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in MiB.
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Milliseconds as a number.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut latencies = Latencies::default();
        for millis in 1..=1000 {
            latencies.record(Duration::from_millis(millis));
        }
        let near = |percent, expected: f64| {
            let got = millis(latencies.percentile(percent));
            assert!(
                (got - expected).abs() <= expected * 0.002,
                "p{percent}: {got}, expected {expected}"
            );
        };
        near(50.0, 500.0);
        near(99.0, 990.0);
        near(99.9, 999.0);
        assert_eq!(latencies.count(), 1000);
        assert!(millis(latencies.max()) >= 1000.0);
    }

    #[test]
    fn merging_equals_recording_together() {
        let (mut left, mut right, mut both) = (
            Latencies::default(),
            Latencies::default(),
            Latencies::default(),
        );
        for micros in 1..500 {
            let latency = Duration::from_micros(micros * micros);
            if micros % 3 == 0 {
                &mut left
            } else {
                &mut right
            }
            .record(latency);
            both.record(latency);
        }
        left.add(&right);
        assert_eq!(left.0, both.0);
    }

    #[test]
    fn latencies_are_clamped_to_the_range() {
        let mut latencies = Latencies::default();
        assert_eq!(
            (latencies.percentile(99.0), latencies.max()),
            (Duration::ZERO, Duration::ZERO)
        );
        latencies.record(Duration::ZERO);
        latencies.record(Duration::from_secs(86_400));
        assert_eq!(latencies.count(), 2);
        assert!(latencies.max() < Duration::from_secs(601));
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn smallest_and_largest() {
        assert_eq!(extremes([2.0, -1.0, 3.0]), (-1.0, 3.0));
        assert_eq!(extremes([7.0]), (7.0, 7.0));
        assert_eq!(extremes([]), (f64::INFINITY, f64::NEG_INFINITY));
    }

    #[test]
    fn numbers_have_three_digits_and_thousands() {
        for (value, text) in [
            (0.0, "0"),
            (0.01234, "0.0123"),
            (0.1234, "0.123"),
            (1.0, "1.00"),
            (9.996, "10.0"),
            (45.67, "45.7"),
            (99.97, "100"),
            (789.4, "789"),
            (1000.0, "1,000"),
            (1_234_567.0, "1,234,567"),
            (-12_345.0, "-12,345"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!([count(10_u32), count(12_345_u32)], ["10", "12,345"]);
    }
}
