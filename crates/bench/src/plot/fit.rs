//! The exponent of growth: y = c · n^e is a straight line where both axes are logarithmic, and its
//! slope is e.

/// A power law.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fit {
    /// The exponent e.
    exponent: f64,
    /// The factor c.
    factor: f64,
}

impl Fit {
    /// The least-squares line through the logarithms of `points`, which must be positive; `None` if
    /// they have fewer than two different x.
    pub(super) fn of(points: &[(f64, f64)]) -> Option<Self> {
        let logs = || points.iter().map(|(x, y)| (x.ln(), y.ln()));
        let count = points.len() as f64;
        let (mean_x, mean_y) = (
            logs().map(|(x, _)| x).sum::<f64>() / count,
            logs().map(|(_, y)| y).sum::<f64>() / count,
        );
        let spread: f64 = logs().map(|(x, _)| (x - mean_x).powi(2)).sum();
        let common: f64 = logs().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        let first = points.first()?.0;
        if points.iter().all(|(x, _)| *x == first) {
            return None;
        }
        let exponent = common / spread;
        Some(Self {
            exponent,
            factor: (mean_y - exponent * mean_x).exp(),
        })
    }

    /// The exponent with two decimals, zero without a sign.
    pub(super) fn exponent_text(&self) -> String {
        let rounded = (self.exponent * 100.0).round() / 100.0;
        format!("{:.2}", rounded + 0.0)
    }

    /// The value at `x`.
    pub(super) fn at(&self, x: f64) -> f64 {
        self.factor * x.powf(self.exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(law: impl Fn(f64) -> f64) -> Fit {
        let points = [1e4, 1e5, 1e6, 1e7].map(|n| (n, law(n)));
        Fit::of(&points).unwrap()
    }

    #[test]
    fn a_power_law_is_found_again() {
        for (factor, exponent) in [(3.0, 1.0), (0.02, 0.5), (7.0, 0.0), (5e9, -0.3)] {
            let found = fit(|n| factor * n.powf(exponent));
            assert!((found.exponent - exponent).abs() < 1e-9, "{found:?}");
            let at = found.at(1e5);
            assert!((at / (factor * 1e5_f64.powf(exponent)) - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn no_growth_has_no_sign() {
        let text = |exponent: f64| fit(|n| n.powf(exponent)).exponent_text();
        assert_eq!(
            [-0.004, 0.004, -0.3, 1.0].map(text),
            ["0.00", "0.00", "-0.30", "1.00"]
        );
    }

    #[test]
    fn the_line_lies_between_points_that_are_on_none() {
        // The slopes of the two halves are 0 and 1.
        let found = Fit::of(&[(1.0, 1.0), (10.0, 1.0), (100.0, 10.0)]).unwrap();
        assert!((found.exponent - 0.5).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn one_number_of_keys_has_no_growth() {
        assert_eq!(Fit::of(&[]), None);
        assert_eq!(Fit::of(&[(10.0, 1.0)]), None);
        assert_eq!(Fit::of(&[(10.0, 1.0), (10.0, 2.0)]), None);
    }
}
