//! Handles of the rooms that serve: raft and requests, bytes to clients, health, API v2.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicI64;

use parking_lot::RwLock;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use retcd_state::request::Operation;

use super::family::{Buckets, Families, MILLISECONDS};
use super::latency::{OperationLatency, OutcomeLatency};

/// Raft and the requests that go through it.
pub struct Server {
    /// Leader changes that this member saw; losing a leader is not one, finding the next is.
    pub leader_changes: IntCounter,
    /// When the last of them was seen, in nanoseconds since 1970; 0 before the first. No metric: API
    /// v2 tells it.
    pub leader_changed_at_ns: AtomicI64,
    /// Proposals that failed.
    pub proposals_failed: IntCounter,
    /// Heartbeats that a leader sent too late.
    pub heartbeat_send_failures: IntCounter,
    /// Applies that took longer than `--warning-apply-duration`.
    pub slow_applies: IntCounter,
    /// ReadIndex rounds that were late or timed out.
    pub slow_read_indexes: IntCounter,
    /// ReadIndex rounds that failed.
    pub read_indexes_failed: IntCounter,
    /// Promotions of learners that failed, by `Reason`, the error's text.
    pub learner_promote_failures: IntCounterVec,
    /// Promotions of learners while this member led.
    pub learner_promote_successes: IntCounter,
    /// Time of applying one entry. A compacted revision counts as success.
    pub apply: OperationLatency,
    /// Time of a request from its proposal, or of a read, to its result.
    pub request: OperationLatency,
    /// Time of reading a range from the store.
    pub range: OutcomeLatency,
    /// Requests by kind and by the client's API version.
    pub client_requests: ClientRequests,
}

impl Server {
    pub(super) fn new(families: &Families<'_>) -> Server {
        let apply = families.histograms(
            "etcd_server_apply_duration_seconds",
            "Seconds for applying one committed request.",
            Buckets::powers_of_two(0.0001, 20),
            &["version", "op", "success"],
        );
        let request = families.histograms(
            "etcd_server_request_duration_seconds",
            "Seconds from taking a request to having its result.",
            MILLISECONDS,
            &["type", "success"],
        );
        let range = families.histograms(
            "etcd_server_range_duration_seconds",
            "Seconds for reading a range from the store.",
            Buckets::powers_of_two(0.0001, 20),
            &["success"],
        );
        Server {
            leader_changed_at_ns: AtomicI64::new(0),
            leader_changes: families.counter(
                "etcd_server_leader_changes_seen_total",
                "Leader changes that this member saw.",
            ),
            proposals_failed: families.counter(
                "etcd_server_proposals_failed_total",
                "Proposals that failed.",
            ),
            heartbeat_send_failures: families.counter(
                "etcd_server_heartbeat_send_failures_total",
                "Heartbeats that this leader sent too late, as with a slow disk.",
            ),
            slow_applies: families.counter(
                "etcd_server_slow_apply_total",
                "Requests whose apply took longer than the warning threshold.",
            ),
            slow_read_indexes: families.counter(
                "etcd_server_slow_read_indexes_total",
                "Rounds of ReadIndex that were late or timed out.",
            ),
            read_indexes_failed: families.counter(
                "etcd_server_read_indexes_failed_total",
                "Rounds of ReadIndex that failed.",
            ),
            learner_promote_failures: families.counters(
                "etcd_server_learner_promote_failures",
                "Promotions of learners that failed while this member led, by reason.",
                &["Reason"],
            ),
            learner_promote_successes: families.counter(
                "etcd_server_learner_promote_successes",
                "Promotions of learners that succeeded while this member led.",
            ),
            apply: OperationLatency::new(apply, |operation, success| {
                let name = match operation {
                    // etcd v3.7 gives AuthStatus no name here (apply/uber_applier.go), and the name
                    // for what has none is in lower case in this family only.
                    Operation::AuthStatus | Operation::Unknown => "unknown",
                    known => known.name(),
                };
                vec!["v3", name, success]
            }),
            request: OperationLatency::new(request, |operation, success| {
                vec![operation.name(), success]
            }),
            range: OutcomeLatency::new(range),
            client_requests: ClientRequests::new(families),
        }
    }
}

/// Whether a request is a call of its own or the start of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// A unary call.
    Unary,
    /// A stream, of either side.
    Stream,
}

/// `etcd_server_client_requests_total`.
///
/// The version is text that a client chooses, so the number of versions is bounded: those beyond
/// [`ClientRequests::VERSIONS_MAX`] are counted together as `other`.
pub struct ClientRequests {
    family: IntCounterVec,
    /// By [`RequestKind`], then by version.
    known: [RwLock<BTreeMap<String, IntCounter>>; 2],
}

impl ClientRequests {
    /// More versions than etcd ever released.
    pub const VERSIONS_MAX: usize = 64;

    fn new(families: &Families<'_>) -> ClientRequests {
        let family = families.counters(
            "etcd_server_client_requests_total",
            "Requests by kind and by the API version of the client.",
            &["type", "client_api_version"],
        );
        ClientRequests {
            family,
            known: Default::default(),
        }
    }

    /// The counter for requests of a kind from clients with this API version; `unknown` is etcd's
    /// word for a client that does not tell.
    pub fn counter(&self, kind: RequestKind, version: &str) -> IntCounter {
        let known = &self.known[kind as usize];
        if let Some(counter) = known.read().get(version) {
            return counter.clone();
        }
        let mut known = known.write();
        let version = match known.len() < Self::VERSIONS_MAX {
            true => version,
            false => "other",
        };
        let kind = match kind {
            RequestKind::Unary => "unary",
            RequestKind::Stream => "stream",
        };
        let counter = self.family.with_label_values(&[kind, version]);
        if version != "other" {
            known.insert(version.to_owned(), counter.clone());
        }
        counter
    }
}

/// Bytes to and from clients.
pub struct Network {
    /// Encoded answers, in bytes.
    pub client_sent_bytes: IntCounter,
    /// Encoded requests, in bytes.
    pub client_received_bytes: IntCounter,
    /// Streams that broke, by `Type` (`receive`, `send`) and `API` (`watch`, `lease-keepalive`).
    pub stream_failures: IntCounterVec,
}

impl Network {
    pub(super) fn new(families: &Families<'_>) -> Network {
        Network {
            client_sent_bytes: families.counter(
                "etcd_network_client_grpc_sent_bytes_total",
                "Bytes of messages sent to gRPC clients.",
            ),
            client_received_bytes: families.counter(
                "etcd_network_client_grpc_received_bytes_total",
                "Bytes of messages received from gRPC clients.",
            ),
            stream_failures: families.counters(
                "etcd_network_server_stream_failures_total",
                "Streams of clients that broke, by direction and API.",
                &["Type", "API"],
            ),
        }
    }
}

/// The health pages.
pub struct Health {
    /// `/health` said that the member is well.
    pub successes: IntCounter,
    /// `/health` said that it is not.
    pub failures: IntCounter,
    result: IntGaugeVec,
    results: IntCounterVec,
}

impl Health {
    pub(super) fn new(families: &Families<'_>) -> Health {
        Health {
            successes: families.counter(
                "etcd_server_health_success",
                "Times that the health page reported a healthy member.",
            ),
            failures: families.counter(
                "etcd_server_health_failures",
                "Times that the health page reported an unhealthy member.",
            ),
            result: families.gauges(
                "etcd_server_healthcheck",
                "Last result of each check of liveness and readiness, 1 is success.",
                &["type", "name"],
            ),
            results: families.counters(
                "etcd_server_healthchecks_total",
                "Results of each check of liveness and readiness.",
                &["type", "name", "status"],
            ),
        }
    }

    /// Records the result of the check `name` of a page, `livez` or `readyz`.
    pub fn checked(&self, page: &str, name: &str, success: bool) {
        let status = if success { "success" } else { "error" };
        self.result
            .with_label_values(&[page, name])
            .set(i64::from(success));
        self.results.with_label_values(&[page, name, status]).inc();
    }
}

/// The store of API v2. Actions are `get`, `set`, `create`, `update`, `delete` and so on.
pub struct V2 {
    /// Keys that ran out.
    pub expires: IntCounter,
    /// Watches asked for.
    pub watch_requests: IntCounter,
    /// Watches that are open.
    pub watchers: IntGauge,
    /// Reads, by `action`.
    pub reads: IntCounterVec,
    /// Reads that failed, by `action`.
    pub reads_failed: IntCounterVec,
    /// Writes, by `action`.
    pub writes: IntCounterVec,
    /// Writes that failed, by `action`.
    pub writes_failed: IntCounterVec,
}

impl V2 {
    pub(super) fn new(families: &Families<'_>) -> V2 {
        let by_action = |what: &str, help: &str| {
            families.counters(
                &format!("etcd_debugging_store_{what}_total"),
                help,
                &["action"],
            )
        };
        V2 {
            expires: families.counter(
                "etcd_debugging_store_expires_total",
                "Keys of API v2 that ran out.",
            ),
            watch_requests: families.counter(
                "etcd_debugging_store_watch_requests_total",
                "Watches of API v2 asked for.",
            ),
            watchers: families.gauge(
                "etcd_debugging_store_watchers",
                "Watches of API v2 that are open.",
            ),
            reads: by_action("reads", "Reads of API v2."),
            reads_failed: by_action("reads_failed", "Reads of API v2 that failed."),
            writes: by_action("writes", "Writes of API v2."),
            writes_failed: by_action("writes_failed", "Writes of API v2 that failed."),
        }
    }
}

/// Readings of `/metrics` itself.
pub struct Scrape {
    pub(super) in_flight: IntGauge,
    pub(super) served: IntCounter,
}

impl Scrape {
    pub(super) fn new(families: &Families<'_>) -> Scrape {
        let requests = families.counters(
            "promhttp_metric_handler_requests_total",
            "Readings of this page, by HTTP status.",
            &["code"],
        );
        // A reading here cannot fail; the other two are shown because Go's library shows them.
        for failure in ["500", "503"] {
            requests.with_label_values(&[failure]);
        }
        Scrape {
            in_flight: families.gauge(
                "promhttp_metric_handler_requests_in_flight",
                "Readings of this page that are going on.",
            ),
            served: requests.with_label_values(&["200"]),
        }
    }
}

/// What `etcd grpc-proxy` counts; zeros in a member.
pub struct Proxy {
    /// Serializable reads answered from the cache.
    pub cache_hits: IntGauge,
    /// Serializable reads that the cache had no answer for.
    pub cache_misses: IntGauge,
    /// Answers in the cache.
    pub cache_keys: IntGauge,
    /// Watchers that share a watch of the proxy.
    pub watchers_coalescing: IntGauge,
    /// Events that were received once for several watchers.
    pub events_coalescing: IntCounter,
}

impl Proxy {
    pub(super) fn new(families: &Families<'_>) -> Proxy {
        let gauge =
            |name: &str, help: &str| families.gauge(&format!("etcd_grpc_proxy_{name}"), help);
        Proxy {
            cache_hits: gauge("cache_hits_total", "Answers from the proxy's cache."),
            cache_keys: gauge("cache_keys_total", "Entries in the proxy's cache."),
            cache_misses: gauge(
                "cache_misses_total",
                "Answers that the proxy's cache did not have.",
            ),
            watchers_coalescing: gauge(
                "watchers_coalescing_total",
                "Watchers that share a watch of the proxy.",
            ),
            events_coalescing: families.counter(
                "etcd_grpc_proxy_events_coalescing_total",
                "Events that the proxy received once for several watchers.",
            ),
        }
    }
}
