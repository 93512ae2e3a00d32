//! Calls per gRPC method: `grpc_server_*`.
//!
//! Every method has its counters at a fixed place in an array, so that a call looks nothing up.
//! The services of etcd and the health service show all of their series from the start, with
//! zeros; locks and elections appear with their first call (as in etcd v3.7: the former are
//! registered before the metrics are initialised, the latter after).
//!
//! Calls of methods that do not exist are not counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Histogram, HistogramVec, Registry};
use retcd_proto::code;
use tonic::Code;

use super::Detail;
use super::family::{Families, label};
use super::method::Method;

/// Bounds in seconds of `grpc_server_handling_seconds`.
const HANDLING_BOUNDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

#[derive(Default)]
struct MethodCounters {
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    handled: [AtomicU64; code::NAMES.len()],
}

struct Counters {
    methods: [MethodCounters; Method::ALL.len()],
    /// With `--metrics=extensive` only.
    handling: Option<Handling>,
}

/// The counters of all methods. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Grpc(Arc<Counters>);

impl Grpc {
    pub(super) fn new(registry: &Registry, detail: Detail) -> Grpc {
        let handling = match detail {
            Detail::Basic => None,
            Detail::Extensive => Some(Handling::new(&Families(registry))),
        };
        let methods = std::array::from_fn(|_| MethodCounters::default());
        let grpc = Grpc(Arc::new(Counters { methods, handling }));
        Families(registry).register(Exported::new(grpc.clone()));
        grpc
    }

    /// Counts the start of a call. The result counts the rest of it.
    pub fn start(&self, method: Method) -> Call {
        let call = Call {
            grpc: self.clone(),
            method,
            started: self.0.handling.is_some().then(Instant::now),
            ended: false,
        };
        call.counters().started.fetch_add(1, Relaxed);
        call
    }
}

/// The time that calls take, by method.
struct Handling {
    family: HistogramVec,
    series: [OnceLock<Histogram>; Method::ALL.len()],
}

impl Handling {
    fn new(families: &Families<'_>) -> Handling {
        let family = families.histograms_with_bounds(
            "grpc_server_handling_seconds",
            "Seconds from the start of a gRPC call to its end.",
            HANDLING_BOUNDS.to_vec(),
            &["grpc_method", "grpc_service", "grpc_type"],
        );
        let handling = Handling {
            family,
            series: std::array::from_fn(|_| OnceLock::new()),
        };
        for method in Method::ALL.iter().filter(|method| method.shown_at_start()) {
            handling.of(*method);
        }
        handling
    }

    fn of(&self, method: Method) -> &Histogram {
        let labels = [method.name(), method.service(), method.kind().name()];
        self.series[method as usize].get_or_init(|| self.family.with_label_values(&labels))
    }
}

/// One call from its start to its end.
///
/// A unary call is one message received, and one sent when it succeeds. A call that is dropped
/// before [`Call::end`] was cancelled by its client: dashboards take started minus handled for the
/// calls that are running, so each must end once.
#[must_use = "dropping it counts the call as cancelled"]
pub struct Call {
    grpc: Grpc,
    method: Method,
    started: Option<Instant>,
    ended: bool,
}

impl Call {
    /// Counts a message from the client.
    pub fn message_received(&self) {
        self.counters().received.fetch_add(1, Relaxed);
    }

    /// Counts a message to the client.
    pub fn message_sent(&self) {
        self.counters().sent.fetch_add(1, Relaxed);
    }

    /// Counts the end of the call.
    pub fn end(mut self, code: Code) {
        self.finish(code);
    }

    fn finish(&mut self, code: Code) {
        self.ended = true;
        self.counters().handled[code as usize].fetch_add(1, Relaxed);
        if let (Some(started), Some(handling)) = (self.started, &self.grpc.0.handling) {
            handling
                .of(self.method)
                .observe(started.elapsed().as_secs_f64());
        }
    }

    fn counters(&self) -> &MethodCounters {
        &self.grpc.0.methods[self.method as usize]
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(Code::Cancelled);
        }
    }
}

/// Turns the counters into families when `/metrics` is read.
#[derive(Clone)]
struct Exported {
    grpc: Grpc,
    handled: Desc,
    received: Desc,
    sent: Desc,
    started: Desc,
}

impl Exported {
    fn new(grpc: Grpc) -> Exported {
        let desc = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, Default::default())
                .expect("names and labels are constants of the right form")
        };
        let labels = &["grpc_method", "grpc_service", "grpc_type"];
        Exported {
            grpc,
            handled: desc(
                "grpc_server_handled_total",
                "gRPC calls that ended, by their status code.",
                &["grpc_code", "grpc_method", "grpc_service", "grpc_type"],
            ),
            received: desc(
                "grpc_server_msg_received_total",
                "Messages that came from gRPC clients.",
                labels,
            ),
            sent: desc(
                "grpc_server_msg_sent_total",
                "Messages that went to gRPC clients.",
                labels,
            ),
            started: desc(
                "grpc_server_started_total",
                "gRPC calls that began.",
                labels,
            ),
        }
    }

    fn per_method(&self, desc: &Desc, value: fn(&MethodCounters) -> &AtomicU64) -> MetricFamily {
        let mut metrics = Vec::with_capacity(Method::ALL.len());
        for (method, counters) in Method::ALL.iter().zip(&self.grpc.0.methods) {
            push(&mut metrics, *method, None, value(counters));
        }
        family(desc, metrics)
    }

    fn per_code(&self) -> MetricFamily {
        let mut metrics = Vec::with_capacity(Method::ALL.len() * code::NAMES.len());
        for (method, counters) in Method::ALL.iter().zip(&self.grpc.0.methods) {
            for (code, value) in code::NAMES.iter().zip(&counters.handled) {
                push(&mut metrics, *method, Some(code), value);
            }
        }
        family(&self.handled, metrics)
    }
}

impl Collector for Exported {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.handled, &self.received, &self.sent, &self.started]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        vec![
            self.per_code(),
            self.per_method(&self.received, |counters| &counters.received),
            self.per_method(&self.sent, |counters| &counters.sent),
            self.per_method(&self.started, |counters| &counters.started),
        ]
    }
}

fn push(metrics: &mut Vec<Metric>, method: Method, code: Option<&str>, value: &AtomicU64) {
    let value = value.load(Relaxed);
    if value == 0 && !method.shown_at_start() {
        return;
    }
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(labels(method, code));
    metric.set_counter(counter);
    metrics.push(metric);
}

fn labels(method: Method, code: Option<&str>) -> Vec<LabelPair> {
    let code = code.map(|code| label("grpc_code", code));
    let method = [
        label("grpc_method", method.name()),
        label("grpc_service", method.service()),
        label("grpc_type", method.kind().name()),
    ];
    code.into_iter().chain(method).collect()
}

fn family(desc: &Desc, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(MetricType::COUNTER);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::text;

    fn page(registry: &Registry) -> String {
        text::encode(&registry.gather())
    }

    #[test]
    fn a_call_is_counted_from_start_to_end() {
        let registry = Registry::new();
        let grpc = Grpc::new(&registry, Detail::Basic);
        let call = grpc.start(Method::Put);
        call.message_received();
        call.message_sent();
        call.end(Code::Ok);
        drop(grpc.start(Method::Watch));
        grpc.start(Method::Put).end(Code::ResourceExhausted);

        let page = page(&registry);
        let put = r#"grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary""#;
        let watch =
            r#"grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream""#;
        for line in [
            format!("grpc_server_started_total{{{put}}} 2\n"),
            format!("grpc_server_msg_received_total{{{put}}} 1\n"),
            format!("grpc_server_msg_sent_total{{{put}}} 1\n"),
            format!("grpc_server_handled_total{{grpc_code=\"OK\",{put}}} 1\n"),
            format!("grpc_server_handled_total{{grpc_code=\"ResourceExhausted\",{put}}} 1\n"),
            format!("grpc_server_handled_total{{grpc_code=\"Internal\",{put}}} 0\n"),
            format!("grpc_server_handled_total{{grpc_code=\"Canceled\",{watch}}} 1\n"),
        ] {
            assert!(page.contains(&line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn locks_appear_with_their_first_call() {
        let registry = Registry::new();
        let grpc = Grpc::new(&registry, Detail::Basic);
        let series = |name: &str| {
            let prefix = format!("{name}{{");
            page(&registry)
                .lines()
                .filter(|line| line.starts_with(&prefix))
                .count()
        };
        assert_eq!(series("grpc_server_handled_total"), 45 * 17);
        assert_eq!(series("grpc_server_started_total"), 45);
        let call = grpc.start(Method::Lock);
        assert_eq!(series("grpc_server_started_total"), 46);
        assert_eq!(series("grpc_server_handled_total"), 45 * 17);
        call.end(Code::Unavailable);
        assert_eq!(series("grpc_server_handled_total"), 45 * 17 + 1);
    }

    #[test]
    fn extensive_metrics_time_the_calls() {
        let registry = Registry::new();
        let grpc = Grpc::new(&registry, Detail::Extensive);
        grpc.start(Method::Range).end(Code::Ok);
        let line = "grpc_server_handling_seconds_bucket{grpc_method=\"Range\",\
            grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\",le=\"10\"} 1\n";
        assert!(page(&registry).contains(line));
    }
}
