//! Dashboards, alerts and scrapers know etcd's families by name, type, label and bucket. What a
//! member exports is compared with lists of what etcd v3.7.1 exports, without Go's runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use retcd_server::metrics::{
    Detail, Feature, Method, Metrics, Operation, RaisedAlarm, RequestKind, Sample,
};
use tonic::Code;

/// The families of a member that answered a few health checks, with their types.
const TYPES: &str = include_str!("data/metrics-types.txt");
/// The bounds of every histogram, spelled as labels.
const BUCKETS: &str = include_str!("data/metrics-buckets.txt");

/// A member that has just started and elected itself.
fn fresh() -> Sample {
    Sample {
        member_id: 0x628170c800dbcee,
        members: vec![0x628170c800dbcee],
        cluster_version: Some("3.7".to_owned()),
        has_leader: true,
        is_leader: true,
        committed_index: 4,
        applied_index: 4,
        quota_backend_bytes: 2 << 30,
        features: vec![Feature {
            name: "AllAlpha",
            stage: "ALPHA",
            enabled: false,
        }],
        auth_revision: 1,
        current_revision: 1,
        compact_revision: -1,
        db_size_bytes: 20480,
        ..Sample::default()
    }
}

fn types(page: &str) -> BTreeSet<&str> {
    page.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect()
}

/// What every member does before it answers: it publishes itself and sets the cluster's version.
fn start(metrics: &Metrics) {
    for operation in [
        Operation::ClusterMemberAttrSet,
        Operation::ClusterVersionSet,
    ] {
        metrics
            .server
            .apply
            .observe(operation, true, Duration::from_micros(99));
        metrics
            .server
            .request
            .observe(operation, true, Duration::from_millis(1));
    }
}

#[track_caller]
fn assert_has(page: &str, line: &str) {
    assert!(
        page.lines().any(|other| other == line),
        "no line {line} in\n{page}"
    );
}

#[test]
fn families_and_types_are_etcds() {
    let metrics = Metrics::new(Detail::Basic);
    start(&metrics);
    let seen_later: BTreeSet<&str> = [
        "etcd_server_healthcheck gauge",
        "etcd_server_healthchecks_total counter",
        "etcd_server_range_duration_seconds histogram",
    ]
    .into();
    let all: BTreeSet<&str> = TYPES.lines().collect();
    let at_start: BTreeSet<&str> = all.difference(&seen_later).copied().collect();
    assert_eq!(types(&metrics.page(&fresh())), at_start);

    metrics.health.checked("livez", "serializable_read", true);
    metrics.server.range.observe(true, Duration::from_micros(1));
    assert_eq!(types(&metrics.page(&fresh())), all);
}

#[test]
fn families_are_sorted_and_explained() {
    let metrics = Metrics::new(Detail::Extensive);
    start(&metrics);
    let page = metrics.page(&fresh());
    let names: Vec<&str> = types(&page)
        .iter()
        .map(|line| line.split_once(' ').unwrap().0)
        .collect();
    let explained: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP "))
        .map(|line| line.split_once(' ').unwrap().0)
        .collect();
    assert_eq!(explained, names);
}

#[test]
fn buckets_are_etcds() {
    let metrics = Metrics::new(Detail::Extensive);
    start(&metrics);
    metrics.server.range.observe(true, Duration::from_micros(1));
    let page = metrics.page(&fresh());

    let mut seen: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in page.lines() {
        let Some((name, rest)) = line.split_once("_bucket{") else {
            continue;
        };
        let (_, bound) = rest.split_once("le=\"").unwrap();
        let (bound, _) = bound.split_once('"').unwrap();
        let bounds = seen.entry(name).or_default();
        if !bounds.contains(&bound) {
            bounds.push(bound);
        }
    }
    let expected: BTreeMap<&str, Vec<&str>> = BUCKETS
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, bounds)| (name, bounds.split(' ').collect()))
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_fresh_member_has_etcds_start_values() {
    let metrics = Metrics::new(Detail::Basic);
    start(&metrics);
    let page = metrics.page(&fresh());
    for line in [
        r#"etcd_cluster_version{cluster_version="3.7"} 1"#,
        "etcd_debugging_auth_revision 1",
        "etcd_debugging_mvcc_compact_revision -1",
        "etcd_debugging_mvcc_current_revision 1",
        "etcd_mvcc_db_total_size_in_bytes 20480",
        r#"etcd_network_known_peers{Local="628170c800dbcee",Remote="628170c800dbcee"} 1"#,
        r#"etcd_server_apply_duration_seconds_sum{op="ClusterVersionSet",success="true",version="v3"} 9.9e-05"#,
        r#"etcd_server_feature_enabled{name="AllAlpha",stage="ALPHA"} 0"#,
        r#"etcd_server_id{server_id="628170c800dbcee"} 1"#,
        "etcd_server_is_leader 1",
        "etcd_server_is_learner 0",
        "etcd_server_proposals_applied_total 4",
        "etcd_server_quota_backend_bytes 2.147483648e+09",
        r#"etcd_server_request_duration_seconds_count{success="true",type="ClusterMemberAttrSet"} 1"#,
        r#"etcd_server_version{server_version="3.7.1"} 1"#,
        r#"grpc_server_handled_total{grpc_code="Aborted",grpc_method="Alarm",grpc_service="etcdserverpb.Maintenance",grpc_type="unary"} 0"#,
        "promhttp_metric_handler_requests_in_flight 1",
        r#"promhttp_metric_handler_requests_total{code="200"} 0"#,
        r#"promhttp_metric_handler_requests_total{code="503"} 0"#,
    ] {
        assert_has(&page, line);
    }
    assert_has(
        &metrics.page(&fresh()),
        r#"promhttp_metric_handler_requests_total{code="200"} 1"#,
    );
}

#[test]
fn labels_are_etcds() {
    let metrics = Metrics::new(Detail::Basic);
    let server = &metrics.server;
    server
        .apply
        .observe(Operation::Unknown, false, Duration::ZERO);
    server
        .request
        .observe(Operation::Unknown, false, Duration::ZERO);
    server.range.observe(false, Duration::ZERO);
    server
        .learner_promote_failures
        .with_label_values(&["not ready"])
        .inc();
    server
        .client_requests
        .counter(RequestKind::Unary, "3.7")
        .inc();
    server
        .client_requests
        .counter(RequestKind::Stream, "unknown")
        .inc();
    metrics
        .network
        .stream_failures
        .with_label_values(&["send", "watch"])
        .inc();
    metrics.health.checked("readyz", "non_learner", false);
    metrics.v2.reads.with_label_values(&["get"]).inc();
    metrics.grpc.start(Method::Lock).end(Code::Ok);
    let alarm = RaisedAlarm {
        member_id: 0xab,
        kind: "NOSPACE",
    };
    let page = metrics.page(&Sample {
        alarms: vec![alarm],
        ..fresh()
    });
    for line in [
        r#"etcd_debugging_server_alarms{alarm_type="NOSPACE",server_id="ab"} 1"#,
        r#"etcd_debugging_store_reads_total{action="get"} 1"#,
        r#"etcd_network_server_stream_failures_total{API="watch",Type="send"} 1"#,
        r#"etcd_server_apply_duration_seconds_count{op="unknown",success="false",version="v3"} 1"#,
        r#"etcd_server_client_requests_total{client_api_version="3.7",type="unary"} 1"#,
        r#"etcd_server_client_requests_total{client_api_version="unknown",type="stream"} 1"#,
        r#"etcd_server_healthcheck{name="non_learner",type="readyz"} 0"#,
        r#"etcd_server_healthchecks_total{name="non_learner",status="error",type="readyz"} 1"#,
        r#"etcd_server_learner_promote_failures{Reason="not ready"} 1"#,
        r#"etcd_server_range_duration_seconds_count{success="false"} 1"#,
        r#"etcd_server_request_duration_seconds_count{success="false",type="Unknown"} 1"#,
        r#"grpc_server_handled_total{grpc_code="OK",grpc_method="Lock",grpc_service="v3lockpb.Lock",grpc_type="unary"} 1"#,
    ] {
        assert_has(&page, line);
    }
}

/// The version is the client's own text: a client that makes up new ones must not fill the memory.
#[test]
fn client_versions_are_bounded() {
    let metrics = Metrics::new(Detail::Basic);
    for version in 0..1000 {
        metrics
            .server
            .client_requests
            .counter(RequestKind::Unary, &version.to_string())
            .inc();
    }
    let page = metrics.page(&fresh());
    let series = page
        .lines()
        .filter(|line| line.starts_with("etcd_server_client_requests_total{"));
    assert_eq!(series.count(), 65);
    assert_has(
        &page,
        r#"etcd_server_client_requests_total{client_api_version="other",type="unary"} 936"#,
    );
}

#[test]
fn two_servers_count_apart() {
    let one = Metrics::new(Detail::Basic);
    let other = Metrics::new(Detail::Basic);
    one.mvcc.puts.inc();
    one.watch.sent(4, Duration::from_secs(2));
    assert_has(&one.page(&fresh()), "etcd_mvcc_put_total 1");
    assert_has(&one.page(&fresh()), "etcd_debugging_mvcc_events_total 4");
    assert_has(
        &one.page(&fresh()),
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds_sum 0.5",
    );
    assert_has(&other.page(&fresh()), "etcd_mvcc_put_total 0");
}
