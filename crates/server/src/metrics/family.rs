//! The two ways in which a family of metrics comes about.
//!
//! [`Families`] registers what counts for itself: the server holds a handle and adds to it. A
//! [`Page`] takes the numbers that exist elsewhere and are only copied when somebody reads
//! `/metrics`.

use prometheus::core::Collector;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// Names, labels and buckets are constants of this crate, and a test builds them all.
const CONSTANT: &str = "the family is well formed and has a name of its own";

/// Upper bounds of a histogram's buckets: `start * factor^0 ... start * factor^(count - 1)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buckets {
    pub start: f64,
    pub factor: f64,
    pub count: usize,
}

/// 1 ms to 8.192 s: what etcd uses for nearly everything that waits for a disk.
pub(super) const MILLISECONDS: Buckets = Buckets::powers_of_two(0.001, 14);

impl Buckets {
    pub(super) const fn powers_of_two(start: f64, count: usize) -> Buckets {
        Buckets {
            start,
            factor: 2.0,
            count,
        }
    }

    fn bounds(self) -> Vec<f64> {
        let bound = |last: &f64| Some(last * self.factor);
        std::iter::successors(Some(self.start), bound)
            .take(self.count)
            .collect()
    }
}

/// Registers families under their full names.
pub(super) struct Families<'a>(pub &'a Registry);

impl Families<'_> {
    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help).expect(CONSTANT))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels).expect(CONSTANT))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help).expect(CONSTANT))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels).expect(CONSTANT))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: Buckets) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.bounds());
        self.register(Histogram::with_opts(options).expect(CONSTANT))
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: Buckets,
        labels: &[&str],
    ) -> HistogramVec {
        self.histograms_with_bounds(name, help, buckets.bounds(), labels)
    }

    pub(super) fn histograms_with_bounds(
        &self,
        name: &str,
        help: &str,
        bounds: Vec<f64>,
        labels: &[&str],
    ) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(bounds);
        self.register(HistogramVec::new(options, labels).expect(CONSTANT))
    }

    pub(super) fn register<C: Collector + Clone + 'static>(&self, collector: C) -> C {
        self.0
            .register(Box::new(collector.clone()))
            .expect(CONSTANT);
        collector
    }
}

/// The families of one reading.
#[derive(Default)]
pub(super) struct Page(Vec<MetricFamily>);

impl Page {
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.push(MetricType::GAUGE, name, help, vec![gauge(&[], value)]);
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: f64) {
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = Metric::default();
        metric.set_counter(counter);
        self.push(MetricType::COUNTER, name, help, vec![metric]);
    }

    /// A family with labels. Nothing is written when it has no members, as in Go's library.
    pub(super) fn gauges(&mut self, name: &str, help: &str, metrics: Vec<Metric>) {
        if !metrics.is_empty() {
            self.push(MetricType::GAUGE, name, help, metrics);
        }
    }

    /// These families and `counted`'s, sorted by name.
    pub(super) fn with(self, mut counted: Vec<MetricFamily>) -> Vec<MetricFamily> {
        counted.extend(self.0);
        counted.sort_by(|a, b| a.name().cmp(b.name()));
        counted
    }

    fn push(&mut self, kind: MetricType, name: &str, help: &str, metrics: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }
}

/// One member of a family of gauges. `labels` are sorted by name.
pub(super) fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(
        labels
            .iter()
            .map(|(name, value)| label(name, value))
            .collect(),
    );
    metric.set_gauge(gauge);
    metric
}

pub(super) fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}
