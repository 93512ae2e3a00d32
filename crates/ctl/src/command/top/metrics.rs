//! What a member's `/metrics` says, in the text format of Prometheus.

use std::collections::HashMap;

/// The samples of a page, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    series: HashMap<String, Vec<(String, f64)>>,
}

impl Metrics {
    /// Parses a page. Lines that are no samples are passed over.
    pub(super) fn parse(page: &str) -> Metrics {
        let mut metrics = Metrics::default();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, labels, value)) = sample(line) {
                let series = metrics.series.entry(name.to_owned()).or_default();
                series.push((labels.to_owned(), value));
            }
        }
        metrics
    }

    /// The sum of a name's samples whose labels contain `label`; `None` if there are none.
    pub(super) fn sum(&self, name: &str, label: &str) -> Option<f64> {
        let series = self.series.get(name)?;
        let mut of_label = series
            .iter()
            .filter(|(labels, _)| labels.contains(label))
            .peekable();
        of_label.peek()?;
        Some(of_label.map(|(_, value)| value).sum())
    }

    /// The value of a name without labels.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.sum(name, "")
    }

    /// The cumulative counts of a histogram by upper bound, of all its series together.
    fn buckets(&self, name: &str) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        let series = self.series.get(&format!("{name}_bucket"));
        for (labels, count) in series.into_iter().flatten() {
            let Some(bound) = label(labels, "le").and_then(|bound| bound.parse().ok()) else {
                continue;
            };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, *count)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }

    /// The value that a share of a histogram's observations since `before` do not exceed, estimated
    /// as Prometheus does; `None` if there are none.
    pub(super) fn quantile_since(&self, before: &Metrics, name: &str, share: f64) -> Option<f64> {
        let earlier = before.buckets(name);
        let counts: Vec<(f64, f64)> = self
            .buckets(name)
            .into_iter()
            .map(|(bound, count)| {
                let then = earlier.iter().find(|(known, _)| *known == bound);
                (bound, count - then.map_or(0.0, |(_, count)| *count))
            })
            .collect();
        quantile(&counts, share)
    }
}

/// Estimates a quantile from cumulative counts.
fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let (_, all) = *buckets.last()?;
    if all <= 0.0 {
        return None;
    }
    let rank = all * share;
    let mut below = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank {
            // Beyond the last bound nothing is known.
            if bound.is_infinite() {
                return Some(below.0);
            }
            let part = (rank - below.1) / (count - below.1).max(f64::MIN_POSITIVE);
            return Some(below.0 + (bound - below.0) * part);
        }
        below = (*bound, *count);
    }
    None
}

/// Splits a line into name, labels and value. A timestamp behind the value is ignored.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let (name, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = rest.rsplit_once('}')?;
            (name, labels, rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, "", rest)
        }
    };
    let value = rest.split_whitespace().next()?;
    Some((name, labels, value.parse().ok()?))
}

fn label<'l>(labels: &'l str, name: &str) -> Option<&'l str> {
    let start = labels.find(&format!("{name}=\""))? + name.len() + 2;
    labels[start..].split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# HELP a Help.
# TYPE a counter
a{method=\"Put\",code=\"OK\"} 3
a{method=\"Put\",code=\"Canceled\"} 1
a{method=\"Range\",code=\"OK\"} 1e2
b 7
c 5 1700000000
h_bucket{le=\"0.001\"} 0
h_bucket{le=\"0.002\"} 50
h_bucket{le=\"0.004\"} 100
h_bucket{le=\"+Inf\"} 100
broken
d{e
d nothing
";

    #[test]
    fn sums_series() {
        let metrics = Metrics::parse(PAGE);
        assert_eq!(metrics.sum("a", "method=\"Put\""), Some(4.0));
        assert_eq!(metrics.sum("a", "method=\"Txn\""), None);
        assert_eq!(metrics.value("a"), Some(104.0));
        assert_eq!(
            (metrics.value("b"), metrics.value("c")),
            (Some(7.0), Some(5.0))
        );
        assert_eq!((metrics.value("d"), metrics.value("broken")), (None, None));
    }

    #[test]
    fn estimates_quantiles_of_what_is_new() {
        let none = Metrics::default();
        let metrics = Metrics::parse(PAGE);
        let check = |share, expected: f64| {
            let found = metrics
                .quantile_since(&none, "h", share)
                .expect("there are observations");
            assert!((found - expected).abs() < 1e-9, "{share}: {found}");
        };
        check(0.5, 0.002);
        check(0.75, 0.003);
        check(1.0, 0.004);
        assert_eq!(metrics.quantile_since(&metrics, "h", 0.99), None);
        let later = Metrics::parse("h_bucket{le=\"0.004\"} 100\nh_bucket{le=\"+Inf\"} 110\n");
        assert_eq!(later.quantile_since(&metrics, "h", 0.99), Some(0.004));
    }
}
