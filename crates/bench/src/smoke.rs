//! Runs the generator against the servers of [`crate::model`].
//!
//! Guards that every workload counts exactly the requested operations, that filled keys exist, that
//! all members receive load, with TLS and tokens as requested, and that refusals, missing keys and
//! dead servers are told apart.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::certificates::Certificates;
use crate::error::Error;
use crate::fill::{fill, fill_if_missing, fill_in_txns, fill_v2_if_missing};
use crate::keys::KeySpace;
use crate::load::{self, Extent, Outcome, Plan};
use crate::model::{Model, closed_port, serve, serve_tls, target_at};
use crate::model_json::{ModelJson, serve_json};
use crate::model_v2::{ModelV2, serve_v2};
use crate::progress::Progress;
use crate::read_rate::ReadRate;
use crate::target::Target;
use crate::tls::Tls;

fn plan(workload: &str, operations: u64) -> Plan {
    Plan {
        workload: workload.parse().unwrap(),
        clients: 12,
        connections: 3,
        threads: 2,
        streams: 2,
        writers: 2,
        keys: KeySpace {
            prefix: "/smoke/".into(),
            count: 250,
        },
        value_size: 64,
        read_rate: None,
        warmup: Duration::ZERO,
        extent: Extent::Operations(operations),
        seed: 7,
    }
}

fn run(target: &Target, plan: &Plan) -> Result<Outcome<()>, Error> {
    load::run(target, plan, &Progress::new(), || Ok(()))
}

#[test]
fn every_workload_counts_the_requested_operations() {
    let model = Model::default();
    let target = target_at(&[serve(&model)]);
    let shape = plan("put", 1);
    fill(&target, &shape.keys, shape.value_size, &Progress::new()).unwrap();
    assert_eq!(model.keyspace().records.len(), 250);
    for workload in [
        "put",
        "put@1",
        "get",
        "get-zipf",
        "get-serializable",
        "list-250",
        "stream-250",
        "page-20",
        "txn",
        "lease-grant",
        "lease-keepalive",
        "connect",
    ] {
        let outcome = run(&target, &plan(workload, 500)).unwrap();
        let refusal = outcome.first_error.as_ref().map(|error| error.to_string());
        assert_eq!(
            (outcome.latencies.count(), outcome.errors, refusal),
            (500, 0, None),
            "{workload}"
        );
        assert!(outcome.rate() > 0.0, "{workload}");
    }
    assert!(model.leases.load(Ordering::Relaxed) >= 500);
    assert!(model.connections.load(Ordering::Relaxed) >= 500);
}

#[test]
fn connections_go_to_the_members_in_turn() {
    let members = [Model::default(), Model::default(), Model::default()];
    let target = target_at(&members.each_ref().map(serve));
    let mut plan = plan("put", 300);
    plan.connections = 7;
    run(&target, &plan).unwrap();
    let made = members.each_ref().map(|member| {
        assert!(member.keyspace().revision > 0);
        member.connections.load(Ordering::Relaxed)
    });
    assert_eq!(made, [3, 2, 2]);
}

#[test]
fn tls_needs_the_right_certificates_on_both_sides() {
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [own, foreign] = directories
        .each_ref()
        .map(|directory| Certificates::make(directory.path()).unwrap());
    let model = Model::default();
    let endpoint = serve_tls(&model, &own).to_string();
    let through = |tls| Target::new(std::slice::from_ref(&endpoint), Some(tls)).unwrap();
    let (trusting, shape) = (through(own.client().unwrap()), plan("put", 1));
    fill(&trusting, &shape.keys, shape.value_size, &Progress::new()).unwrap();
    for workload in ["get", "connect"] {
        let outcome = run(&trusting, &plan(workload, 200)).unwrap();
        assert_eq!((outcome.latencies.count(), outcome.errors), (200, 0));
    }
    let written = model.keyspace().revision;
    let failure = |target: &Target| {
        let failed = run(target, &plan("put", 20)).map(drop).unwrap_err();
        failed.to_string()
    };
    let distrusting = failure(&through(foreign.client().unwrap()));
    assert!(
        distrusting.contains("invalid peer certificate"),
        "{distrusting}"
    );
    // These two see how the server closes the connection, which may be an alert or a reset.
    let ca = directories[0].path().join("ca.pem");
    failure(&through(Tls::from_files(&ca, None).unwrap()));
    failure(&Target::new(&[endpoint], None).unwrap());
    assert_eq!(model.keyspace().revision, written);
}

#[test]
fn slow_readers_need_the_time_of_their_rate() {
    let target = target_at(&[serve(&Model::default())]);
    for workload in ["list-250@2", "stream-250@2"] {
        let mut plan = plan(workload, 4);
        fill(&target, &plan.keys, plan.value_size, &Progress::new()).unwrap();
        plan.read_rate = Some(ReadRate::parse("0.5").unwrap());
        let outcome = run(&target, &plan).unwrap();
        // More than 16,000 bytes each, but for what a reader may make up for in ten milliseconds.
        let least = Duration::from_millis(20);
        assert_eq!(outcome.latencies.count(), 4, "{workload}");
        assert!(outcome.latencies.percentile(0.0) > least, "{workload}");
    }
}

#[test]
fn every_call_carries_the_token() {
    let target = target_at(&[serve(&Model::wanting("bench.17"))]);
    let refused = run(&target, &plan("put", 20)).map(drop).unwrap_err();
    assert!(
        refused.to_string().contains("invalid auth token"),
        "{refused}"
    );
    let known = target.with_token("bench.17").unwrap();
    let outcome = run(&known, &plan("put", 200)).unwrap();
    assert_eq!((outcome.latencies.count(), outcome.errors), (200, 0));
}

#[test]
fn every_watcher_is_served_and_counted() {
    let model = Model::default();
    let outcome = run(&target_at(&[serve(&model)]), &plan("watch-5", 500)).unwrap();
    assert_eq!(outcome.latencies.count(), 500);
    // Each put makes five events; one put of each of the two writers may be in flight.
    let puts = model.keyspace().revision;
    assert!((100..=110).contains(&puts), "{puts} puts");
}

#[test]
fn workloads_of_v2_count_the_requested_operations() {
    let model = ModelV2::default();
    let target = target_at(&[serve_v2(&model)]);
    let shape = plan("v2-get", 1);
    let fill = || fill_v2_if_missing(&target, &shape.keys, shape.value_size, &Progress::new());
    fill().unwrap();
    assert_eq!(model.tree().nodes.len(), 250);
    fill().unwrap();
    assert_eq!(model.tree().writes.len(), 250);
    for workload in ["v2-get", "v2-quorum-get@5", "v2-set"] {
        let before = model.tree().connections;
        let outcome = run(&target, &plan(workload, 500)).unwrap();
        assert_eq!(
            (outcome.latencies.count(), outcome.errors),
            (500, 0),
            "{workload}"
        );
        let opened = model.tree().connections - before;
        assert_eq!(
            opened,
            if workload.ends_with("@5") { 5 } else { 64 },
            "{workload}"
        );
    }
    let tree = model.tree();
    assert_eq!((tree.nodes.len(), tree.writes.len()), (250, 750));
}

#[test]
fn every_poll_of_v2_is_answered_and_counted() {
    let model = ModelV2::default();
    let outcome = run(&target_at(&[serve_v2(&model)]), &plan("v2-watch-7", 700)).unwrap();
    assert_eq!(outcome.latencies.count(), 700);
    // Each write makes seven events; one write of each of the two writers may be in flight.
    let below = |key: &str| key.starts_with("/smoke/watch/") && !key.ends_with(".begin");
    let tree = model.tree();
    let writes = tree.writes.iter().filter(|(key, _)| below(key)).count();
    assert!((100..=110).contains(&writes), "{writes} writes");
    assert!(tree.polls >= 700);
}

#[test]
fn v2_goes_without_tokens() {
    let target = target_at(&[serve_v2(&ModelV2::default())])
        .with_token("bench.17")
        .unwrap();
    let refused = run(&target, &plan("v2-set", 20)).map(drop).unwrap_err();
    assert!(refused.to_string().contains("users of API v3"), "{refused}");
}

#[test]
fn workloads_of_the_json_gateway_count_the_requested_operations() {
    let model = ModelJson::default();
    let target = target_at(&[serve_json(&model)]);
    for workload in ["json-put", "json-put@5", "json-list-20"] {
        let outcome = run(&target, &plan(workload, 500)).unwrap();
        assert_eq!(
            (outcome.latencies.count(), outcome.errors),
            (500, 0),
            "{workload}"
        );
    }
    assert_eq!(model.puts(), 1000);
    let outcome = run(&target, &plan("json-watch-7", 700)).unwrap();
    assert_eq!(outcome.latencies.count(), 700);
    // Each put makes seven events; one put of each of the two writers may be in flight.
    let puts = model.puts() - 1000;
    assert!((100..=110).contains(&puts), "{puts} puts");
}

#[test]
fn keys_are_filled_only_if_they_are_missing() {
    let model = Model::default();
    let (target, plan) = (target_at(&[serve(&model)]), plan("get", 1));
    let fill = || fill_if_missing(&target, &plan.keys, plan.value_size, &Progress::new()).unwrap();
    fill();
    let revision = model.keyspace().revision;
    assert_eq!(revision, 250);
    fill();
    assert_eq!(model.keyspace().revision, revision);
    let removed = plan.keys.key(3);
    model.keyspace().records.remove(&removed);
    fill();
    assert!(model.keyspace().records.contains_key(&removed));
}

#[test]
fn fewer_puts_in_a_transaction_still_write_every_key() {
    let model = Model::default();
    let (target, plan) = (target_at(&[serve(&model)]), plan("put", 1));
    let filled = fill_in_txns(&target, &plan.keys, plan.value_size, 3, &Progress::new()).unwrap();
    assert_eq!(filled.txns.count(), 84);
    assert_eq!(model.keyspace().records.len(), 250);
    assert_eq!(model.keyspace().revision, 250);
}

#[test]
fn a_fill_survives_one_election_only() {
    let plan = plan("put", 1);
    let fill = |txns| {
        let model = Model::leaderless(txns);
        let target = target_at(&[serve(&model)]);
        let filled = fill(&target, &plan.keys, plan.value_size, &Progress::new());
        filled.map(|_| model.keyspace().records.len())
    };
    assert_eq!(fill(5).unwrap(), 250);
    let error = fill(1_000).unwrap_err().to_string();
    assert!(error.contains("no leader"), "{error}");
}

#[test]
fn a_time_limit_ends_the_load() {
    let target = target_at(&[serve(&Model::default())]);
    let mut plan = plan("put", 1);
    plan.warmup = Duration::from_millis(20);
    plan.extent = Extent::Time(Duration::from_millis(50));
    let outcome = run(&target, &plan).unwrap();
    assert!(outcome.latencies.count() > 0);
    assert!(
        outcome.elapsed >= Duration::from_millis(50),
        "{:?}",
        outcome.elapsed
    );
}

#[test]
fn failures_are_told_apart() {
    let failure = |endpoint, workload| {
        let failed = run(&target_at(&[endpoint]), &plan(workload, 20));
        failed.map(drop).unwrap_err().to_string()
    };
    let endpoint = serve(&Model::refusing());
    let refused = failure(endpoint, "put");
    assert!(
        refused.contains("every call failed") && refused.contains("too many requests"),
        "{refused}"
    );
    let empty = failure(endpoint, "get");
    assert!(empty.contains("where the values alone have 64"), "{empty}");
    let dead = failure(closed_port(), "put");
    assert!(dead.contains("cannot connect to 127.0.0.1:"), "{dead}");
}
