//! The handles, grouped by the room of the server that counts with them.
//!
//! Many names end in `_total` although they are gauges: etcd exports them so, and a scraper that
//! knows them as gauges must keep doing so.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::family::{Buckets, Families, MILLISECONDS};
use super::operation::{OperationLatency, OutcomeLatency};

/// Raft and the requests that go through it.
pub struct Server {
    /// Leader changes that this member saw; losing a leader is not one, finding the next is.
    pub leader_changes: IntCounter,
    /// Proposals that failed.
    pub proposals_failed: IntCounter,
    /// Heartbeats that a leader sent too late.
    pub heartbeat_send_failures: IntCounter,
    /// Applies that took longer than `--experimental-warning-apply-duration`.
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
                    // Lower case in this family only (etcd v3.7: apply/uber_applier.go).
                    super::Operation::Unknown => "unknown",
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

/// The write-ahead log. Times are in seconds.
pub struct Wal {
    /// One fsync.
    pub fsync: Histogram,
    /// One write.
    pub write: Histogram,
    /// Bytes written.
    pub write_bytes: IntGauge,
}

impl Wal {
    pub(super) fn new(families: &Families<'_>) -> Wal {
        Wal {
            fsync: families.histogram(
                "etcd_disk_wal_fsync_duration_seconds",
                "Seconds for one fsync of the write-ahead log.",
                MILLISECONDS,
            ),
            write: families.histogram(
                "etcd_disk_wal_write_duration_seconds",
                "Seconds for one write to the write-ahead log.",
                MILLISECONDS,
            ),
            write_bytes: families.gauge(
                "etcd_disk_wal_write_bytes_total",
                "Bytes written to the write-ahead log.",
            ),
        }
    }
}

/// The database's file. Times are in seconds.
pub struct Backend {
    /// One commit.
    pub commit: Histogram,
    /// The part of a commit that merges sparse pages.
    pub commit_rebalance: Histogram,
    /// The part of a commit that lays changed nodes out on pages.
    pub commit_spill: Histogram,
    /// The part of a commit that writes and syncs.
    pub commit_write: Histogram,
    /// One defragmentation.
    pub defrag: Histogram,
    /// One snapshot sent to a client or member.
    pub snapshot: Histogram,
}

impl Backend {
    pub(super) fn new(families: &Families<'_>) -> Backend {
        let part = |part: &str, help: &str| {
            let name = format!("etcd_debugging_disk_backend_commit_{part}_duration_seconds");
            families.histogram(&name, help, MILLISECONDS)
        };
        Backend {
            commit: families.histogram(
                "etcd_disk_backend_commit_duration_seconds",
                "Seconds for one commit of the database.",
                MILLISECONDS,
            ),
            commit_rebalance: part("rebalance", "Seconds of a commit for merging sparse pages."),
            commit_spill: part(
                "spill",
                "Seconds of a commit for laying changes out on pages.",
            ),
            commit_write: part(
                "write",
                "Seconds of a commit for writing and syncing pages.",
            ),
            defrag: families.histogram(
                "etcd_disk_backend_defrag_duration_seconds",
                "Seconds for one defragmentation of the database.",
                Buckets::powers_of_two(0.1, 13),
            ),
            snapshot: families.histogram(
                "etcd_disk_backend_snapshot_duration_seconds",
                "Seconds for sending one snapshot of the database.",
                Buckets::powers_of_two(0.01, 17),
            ),
        }
    }
}

/// Snapshot files. Times are in seconds.
pub struct Snap {
    /// The fsync of a `.snap` file.
    pub fsync: Histogram,
    /// Encoding a `.snap` file.
    pub marshal: Histogram,
    /// Encoding, writing and syncing a `.snap` file.
    pub save: Histogram,
    /// The fsync of a database that came from the leader.
    pub db_fsync: Histogram,
    /// Receiving, writing and syncing a database from the leader.
    pub db_save: Histogram,
}

impl Snap {
    pub(super) fn new(families: &Families<'_>) -> Snap {
        Snap {
            fsync: families.histogram(
                "etcd_snap_fsync_duration_seconds",
                "Seconds for the fsync of a snapshot file.",
                MILLISECONDS,
            ),
            marshal: families.histogram(
                "etcd_debugging_snap_save_marshalling_duration_seconds",
                "Seconds for encoding a snapshot file.",
                MILLISECONDS,
            ),
            save: families.histogram(
                "etcd_debugging_snap_save_total_duration_seconds",
                "Seconds for encoding and storing a snapshot file.",
                MILLISECONDS,
            ),
            db_fsync: families.histogram(
                "etcd_snap_db_fsync_duration_seconds",
                "Seconds for the fsync of a database received from the leader.",
                MILLISECONDS,
            ),
            db_save: families.histogram(
                "etcd_snap_db_save_total_duration_seconds",
                "Seconds for storing a database received from the leader.",
                Buckets::powers_of_two(0.1, 10),
            ),
        }
    }
}

/// The keyspace.
pub struct Mvcc {
    /// Puts, those inside of transactions too.
    pub puts: IntCounter,
    /// Deleted keys.
    pub deletes: IntCounter,
    /// Ranges read, those inside of transactions too.
    pub ranges: IntCounter,
    /// Transactions of more than one operation.
    pub txns: IntCounter,
    /// Bytes of keys and values put, as encoded in the store.
    pub put_bytes: IntGauge,
    /// Seconds for hashing the whole store.
    pub hash: Histogram,
    /// Seconds for hashing the store up to a revision.
    pub hash_revision: Histogram,
}

impl Mvcc {
    pub(super) fn new(families: &Families<'_>) -> Mvcc {
        let hash = Buckets::powers_of_two(0.01, 15);
        Mvcc {
            puts: families.counter("etcd_mvcc_put_total", "Puts that this member applied."),
            deletes: families.counter(
                "etcd_mvcc_delete_total",
                "Deletes that this member applied.",
            ),
            ranges: families.counter("etcd_mvcc_range_total", "Ranges that this member read."),
            txns: families.counter(
                "etcd_mvcc_txn_total",
                "Transactions of more than one operation that this member ran.",
            ),
            put_bytes: families.gauge(
                "etcd_debugging_mvcc_total_put_size_in_bytes",
                "Bytes of all keys and values that this member put.",
            ),
            hash: families.histogram(
                "etcd_mvcc_hash_duration_seconds",
                "Seconds for hashing the whole store.",
                hash,
            ),
            hash_revision: families.histogram(
                "etcd_mvcc_hash_rev_duration_seconds",
                "Seconds for hashing the store up to a revision.",
                hash,
            ),
        }
    }
}

/// Compaction. Times are in milliseconds.
pub struct Compaction {
    /// How long the index was not available at a time.
    pub index_pause: Histogram,
    /// How long the database was not available at a time.
    pub db_pause: Histogram,
    /// One compaction of the database from beginning to end.
    pub db_total: Histogram,
    /// Revisions removed from the database.
    pub db_keys: IntCounter,
}

impl Compaction {
    pub(super) fn new(families: &Families<'_>) -> Compaction {
        let total = Buckets::powers_of_two(100.0, 14);
        Compaction {
            index_pause: families.histogram(
                "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
                "Milliseconds for which a compaction held the index.",
                Buckets::powers_of_two(0.5, 14),
            ),
            db_pause: families.histogram(
                "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
                "Milliseconds for which a compaction held the database.",
                Buckets::powers_of_two(1.0, 13),
            ),
            db_total: families.histogram(
                "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
                "Milliseconds for a compaction of the database.",
                total,
            ),
            db_keys: families.counter(
                "etcd_debugging_mvcc_db_compaction_keys_total",
                "Revisions that compactions removed from the database.",
            ),
        }
    }
}

/// Leases.
pub struct Lease {
    /// Leases granted.
    pub granted: IntCounter,
    /// Leases revoked, by a client or because they expired.
    pub revoked: IntCounter,
    /// Keep-alives, counted by the leader.
    pub renewed: IntCounter,
    /// Leases that ran out.
    pub expired: IntCounter,
    /// Seconds of life that leases were granted.
    pub ttl: Histogram,
}

impl Lease {
    pub(super) fn new(families: &Families<'_>) -> Lease {
        Lease {
            granted: families.counter("etcd_debugging_lease_granted_total", "Leases granted."),
            revoked: families.counter("etcd_debugging_lease_revoked_total", "Leases revoked."),
            renewed: families.counter(
                "etcd_debugging_lease_renewed_total",
                "Leases that this leader renewed.",
            ),
            expired: families.counter(
                "etcd_debugging_server_lease_expired_total",
                "Leases that ran out.",
            ),
            ttl: families.histogram(
                "etcd_debugging_lease_ttl_total",
                "Seconds of life of the leases granted.",
                Buckets::powers_of_two(1.0, 24),
            ),
        }
    }
}

/// Watches. Times are in seconds.
pub struct Watch {
    /// Events sent to watchers.
    pub events: IntCounter,
    /// Sending one response with events.
    pub send: Histogram,
    /// The same, divided by the number of its events.
    pub send_per_event: Histogram,
    /// Answering a creation or cancellation.
    pub control: Histogram,
    /// Sending a progress notification.
    pub progress: Histogram,
}

impl Watch {
    pub(super) fn new(families: &Families<'_>) -> Watch {
        let send_loop = |part: &str, help: &str| {
            let name = format!("etcd_debugging_server_watch_send_loop_{part}_seconds");
            families.histogram(&name, help, MILLISECONDS)
        };
        Watch {
            events: families.counter(
                "etcd_debugging_mvcc_events_total",
                "Events sent to watchers.",
            ),
            send: send_loop(
                "watch_stream_duration",
                "Seconds for sending one response with events.",
            ),
            send_per_event: send_loop(
                "watch_stream_duration_per_event",
                "Seconds for sending a response, divided by the number of its events.",
            ),
            control: send_loop(
                "control_stream_duration",
                "Seconds for answering the creation or cancellation of a watch.",
            ),
            progress: send_loop(
                "progress_duration",
                "Seconds for sending a progress notification.",
            ),
        }
    }

    /// Records a response with `events` events, at least one, whose sending took `latency`.
    pub fn sent(&self, events: usize, latency: Duration) {
        let seconds = latency.as_secs_f64();
        self.events.inc_by(events as u64);
        self.send.observe(seconds);
        self.send_per_event.observe(seconds / events.max(1) as f64);
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

/// The families of `etcd grpc-proxy`, which every etcd server exports with zeros.
pub(super) fn register_proxy(families: &Families<'_>) {
    for (name, help) in [
        ("cache_hits_total", "Answers from the proxy's cache."),
        ("cache_keys_total", "Entries in the proxy's cache."),
        (
            "cache_misses_total",
            "Answers that the proxy's cache did not have.",
        ),
        (
            "watchers_coalescing_total",
            "Watchers that share a watch of the proxy.",
        ),
    ] {
        families.gauge(&format!("etcd_grpc_proxy_{name}"), help);
    }
    families.counter(
        "etcd_grpc_proxy_events_coalescing_total",
        "Events that the proxy received once for several watchers.",
    );
}
