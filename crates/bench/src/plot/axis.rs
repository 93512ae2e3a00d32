//! Logarithmic axes, whose ends and ticks are 1, 2 or 5 times a power of ten.

use crate::stats::extremes;

/// More ticks than these would touch each other.
const TICKS_MAX: usize = 9;

/// The first digits of ticks.
const DIGITS: [u8; 3] = [1, 2, 5];

/// A tick, by its number: 0 is 1, 1 is 2, 2 is 5, 3 is 10, -1 is 0.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tick(i32);

/// An axis from one tick to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    first: Tick,
    last: Tick,
}

impl Tick {
    fn digit(self) -> u8 {
        DIGITS[self.0.rem_euclid(3) as usize]
    }

    fn power(self) -> i32 {
        self.0.div_euclid(3)
    }

    /// Its place on the axis.
    pub(super) fn value(self) -> f64 {
        f64::from(self.digit()) * 10_f64.powi(self.power())
    }

    /// The largest one that is not above `value`, which must be positive.
    fn at_most(value: f64) -> Self {
        let mut tick = Self((value.log10().floor() as i32 + 1) * 3);
        // The logarithm may be off by rounding, the comparison is not.
        while tick.value() > value {
            tick = tick.previous();
        }
        tick
    }

    fn next(self) -> Self {
        Self(self.0 + 1)
    }

    fn previous(self) -> Self {
        Self(self.0 - 1)
    }

    /// `0.05`, `20`, `10k`, `5M`.
    pub(super) fn label(self) -> String {
        let (digit, power) = (self.digit(), self.power());
        match power {
            ..0 => format!("{:.*}", power.unsigned_abs() as usize, self.value()),
            0..3 => format!("{}", self.value()),
            3..6 => format!("{digit}{}k", "0".repeat(power as usize - 3)),
            6..9 => format!("{digit}{}M", "0".repeat(power as usize - 6)),
            9.. => format!("{digit}e{power}"),
        }
    }
}

impl Axis {
    /// The shortest axis with all `values`, which must be positive and at least one.
    pub(super) fn around(values: impl IntoIterator<Item = f64>) -> Self {
        let (least, most) = extremes(values);
        assert!(
            least > 0.0 && most >= least && most.is_finite(),
            "{least} to {most}"
        );
        let first = Tick::at_most(least);
        let mut last = Tick::at_most(most);
        if last.value() < most {
            last = last.next();
        }
        if first != last {
            return Self { first, last };
        }
        Self {
            first: first.previous(),
            last: last.next(),
        }
    }

    /// Where `value` lies: 0 is the first tick, 1 the last one.
    pub(super) fn position(&self, value: f64) -> f64 {
        let (first, last) = (self.first.value().ln(), self.last.value().ln());
        (value.ln() - first) / (last - first)
    }

    /// The ticks, only powers of ten if all would be too many.
    pub(super) fn ticks(&self) -> Vec<Tick> {
        let mut ticks: Vec<_> = (self.first.0..=self.last.0).map(Tick).collect();
        if ticks.len() > TICKS_MAX {
            ticks.retain(|tick| tick.digit() == 1);
        }
        ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(values: &[f64]) -> Vec<String> {
        let axis = Axis::around(values.iter().copied());
        axis.ticks().iter().map(|tick| tick.label()).collect()
    }

    #[test]
    fn ticks_surround_the_values_and_are_not_many() {
        assert_eq!(
            ticks(&[10_000.0, 1e6]),
            ["10k", "20k", "50k", "100k", "200k", "500k", "1M"]
        );
        assert_eq!(ticks(&[1e4, 1e7]), ["10k", "100k", "1M", "10M"]);
        assert_eq!(ticks(&[3.0, 40.0]), ["2", "5", "10", "20", "50"]);
        assert_eq!(ticks(&[0.03, 0.5]), ["0.02", "0.05", "0.1", "0.2", "0.5"]);
        assert_eq!(ticks(&[7.0]), ["5", "10"]);
        assert_eq!(ticks(&[5.0]), ["2", "5", "10"]);
    }

    #[test]
    fn every_value_lies_on_its_axis() {
        for exponent in -30..70 {
            let value = 1.37 * 10_f64.powf(f64::from(exponent) / 7.0);
            let axis = Axis::around([value, value * 3.0]);
            for value in [value, value * 3.0] {
                let at = axis.position(value);
                assert!((0.0..=1.0).contains(&at), "{value}: {at}");
            }
            let ticks = axis.ticks();
            assert!(ticks.windows(2).all(|two| two[0].value() < two[1].value()));
        }
    }

    #[test]
    fn positions_are_logarithmic() {
        let axis = Axis::around([1.0, 100.0]);
        let at = [1.0, 10.0, 100.0].map(|value| axis.position(value));
        assert!(
            (at[0], at[2]) == (0.0, 1.0) && (at[1] - 0.5).abs() < 1e-9,
            "{at:?}"
        );
    }
}
