//! The Prometheus text format 0.0.4, with numbers spelled as Go's client library spells them.
//!
//! ```text
//! # HELP etcd_mvcc_put_total Puts applied by this member.
//! # TYPE etcd_mvcc_put_total counter
//! etcd_mvcc_put_total 1.048576e+06
//! ```
//!
//! The spelling matters in one place: a bucket's bound is a label (`le="1.048576e+06"`), and a
//! dashboard that sums the buckets of several members by `le` must find equal strings on ours and
//! on Go members.

use std::fmt::Write;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// The content type of [`Metrics::page`](super::Metrics::page).
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Writes the families in the given order.
pub(super) fn encode(families: &[MetricFamily]) -> String {
    let mut text = Text(String::with_capacity(256 * 1024));
    for family in families {
        text.family(family);
    }
    text.0
}

struct Text(String);

impl Text {
    fn family(&mut self, family: &MetricFamily) {
        let name = family.name();
        let kind = match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            MetricType::SUMMARY | MetricType::UNTYPED => unreachable!("{name}: never registered"),
        };
        self.0.push_str("# HELP ");
        self.0.push_str(name);
        self.0.push(' ');
        self.escaped(family.help(), false);
        self.0.push_str("\n# TYPE ");
        self.0.push_str(name);
        self.0.push(' ');
        self.0.push_str(kind);
        self.0.push('\n');
        for metric in family.get_metric() {
            match family.get_field_type() {
                MetricType::COUNTER => {
                    self.sample(name, "", metric, None, metric.get_counter().get_value());
                }
                MetricType::HISTOGRAM => self.histogram(name, metric),
                _ => self.sample(name, "", metric, None, metric.get_gauge().get_value()),
            }
        }
    }

    fn histogram(&mut self, name: &str, metric: &Metric) {
        let histogram = metric.get_histogram();
        for bucket in histogram.get_bucket() {
            let bound = Some(bucket.upper_bound());
            self.sample(
                name,
                "_bucket",
                metric,
                bound,
                bucket.cumulative_count() as f64,
            );
        }
        let count = histogram.get_sample_count() as f64;
        self.sample(name, "_bucket", metric, Some(f64::INFINITY), count);
        self.sample(name, "_sum", metric, None, histogram.get_sample_sum());
        self.sample(name, "_count", metric, None, count);
    }

    fn sample(&mut self, name: &str, suffix: &str, metric: &Metric, le: Option<f64>, value: f64) {
        self.0.push_str(name);
        self.0.push_str(suffix);
        self.labels(metric.get_label(), le);
        self.0.push(' ');
        self.number(value);
        self.0.push('\n');
    }

    fn labels(&mut self, labels: &[LabelPair], le: Option<f64>) {
        let mut separator = '{';
        for label in labels {
            self.0.push(separator);
            self.0.push_str(label.name());
            self.0.push_str("=\"");
            self.escaped(label.value(), true);
            self.0.push('"');
            separator = ',';
        }
        if let Some(bound) = le {
            self.0.push(separator);
            self.0.push_str("le=\"");
            self.number(bound);
            self.0.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.0.push('}');
        }
    }

    fn escaped(&mut self, text: &str, quotes: bool) {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '"' if quotes => self.0.push_str("\\\""),
                c => self.0.push(c),
            }
        }
    }

    /// Go's `strconv.FormatFloat(v, 'g', -1, 64)`: the shortest digits that give `v` back, with an
    /// exponent of at least two digits when it is below -4 or above 5.
    fn number(&mut self, value: f64) {
        if value.is_nan() {
            return self.0.push_str("NaN");
        }
        if value.is_infinite() {
            return self.0.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        }
        let magnitude = value.abs();
        if magnitude == 0.0 || (1e-4..1e6).contains(&magnitude) {
            return self.display(format_args!("{value}"));
        }
        let scientific = format!("{value:e}");
        let (digits, exponent) = scientific
            .split_once('e')
            .expect("the exponent form has an exponent");
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        self.display(format_args!("{digits}e{sign}{exponent:0>2}"));
    }

    fn display(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.0
            .write_fmt(arguments)
            .expect("writing to a string does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: f64) -> String {
        let mut text = Text(String::new());
        text.number(value);
        text.0
    }

    #[test]
    fn numbers_are_spelled_as_go_spells_them() {
        let cases: &[(f64, &str)] = &[
            (0.0, "0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (0.0001, "0.0001"),
            (0.000038, "3.8e-05"),
            (0.00014098300000000002, "0.00014098300000000002"),
            (4.089000000000001e-06, "4.089000000000001e-06"),
            (524288.0, "524288"),
            (999999.0, "999999"),
            (1e6, "1e+06"),
            (1048576.0, "1.048576e+06"),
            (-2147483648.0, "-2.147483648e+09"),
            (1.79526641529e9, "1.79526641529e+09"),
            (u64::MAX as f64, "1.8446744073709552e+19"),
            (1e100, "1e+100"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in cases {
            assert_eq!(number(*value), *text);
        }
    }

    #[test]
    fn label_values_and_help_are_escaped() {
        let mut label = LabelPair::default();
        label.set_name("Reason".to_owned());
        label.set_value("a \"b\"\\\nc".to_owned());
        let mut family = MetricFamily::default();
        family.set_name("x".to_owned());
        family.set_help("one\n\"two\" \\".to_owned());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(vec![Metric::from_label(vec![label])]);
        assert_eq!(
            encode(&[family]),
            "# HELP x one\\n\"two\" \\\\\n# TYPE x gauge\nx{Reason=\"a \\\"b\\\"\\\\\\nc\"} 0\n"
        );
    }
}
