//! Latencies by operation and outcome.
//!
//! A series appears with its first observation, as in Go's library, but no observation looks a
//! label up: the histogram of each operation and outcome is found once and kept at a fixed place.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec};
use retcd_state::request::Operation;

/// The values of the label `success`, by the outcome as an index.
const SUCCESS: [&str; 2] = ["false", "true"];

/// The labels of one operation's series, in the order of the family's declaration.
type Labels = fn(Operation, &'static str) -> Vec<&'static str>;

/// A histogram for each operation and outcome.
pub struct OperationLatency {
    family: HistogramVec,
    labels: Labels,
    series: Vec<[OnceLock<Histogram>; 2]>,
}

impl OperationLatency {
    pub(super) fn new(family: HistogramVec, labels: Labels) -> OperationLatency {
        let series = Operation::ALL.iter().map(|_| Default::default()).collect();
        OperationLatency {
            family,
            labels,
            series,
        }
    }

    /// Records one operation that took `latency` and succeeded or not.
    pub fn observe(&self, operation: Operation, success: bool, latency: Duration) {
        let series = &self.series[operation as usize][usize::from(success)];
        let resolve = || {
            let labels = (self.labels)(operation, SUCCESS[usize::from(success)]);
            self.family.with_label_values(&labels)
        };
        series.get_or_init(resolve).observe(latency.as_secs_f64());
    }
}

/// A histogram for each outcome.
pub struct OutcomeLatency {
    family: HistogramVec,
    series: [OnceLock<Histogram>; 2],
}

impl OutcomeLatency {
    pub(super) fn new(family: HistogramVec) -> OutcomeLatency {
        OutcomeLatency {
            family,
            series: Default::default(),
        }
    }

    /// Records one run that took `latency` and succeeded or not.
    pub fn observe(&self, success: bool, latency: Duration) {
        let outcome = usize::from(success);
        let resolve = || self.family.with_label_values(&[SUCCESS[outcome]]);
        self.series[outcome]
            .get_or_init(resolve)
            .observe(latency.as_secs_f64());
    }
}
