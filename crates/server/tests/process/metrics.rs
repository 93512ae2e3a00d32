//! Which metrics have something to say, on a member that has just started.

use std::collections::BTreeSet;

use super::place::{Place, Server};

/// The families of a fresh 3.7.1 that are not all zeros; of histograms, those that have observed
/// something. Without Go's runtime.
const AT_START: &str = include_str!("../data/metrics-at-start.txt");

/// Families that say something there, and nothing here.
const NOT_HERE: [&str; 1] = [
    // Pages are merged while changes are laid out on them, which is in `commit_spill`.
    "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
];

fn families(page: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut current = ("", "");
    for line in page.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            current = family.split_once(' ').unwrap();
            continue;
        }
        let (name, kind) = current;
        let Some(rest) = line.strip_prefix(name).filter(|_| !name.is_empty()) else {
            continue;
        };
        let (series, value) = rest.rsplit_once(' ').unwrap();
        let counts = kind != "histogram" || series.starts_with("_count");
        if counts && value.parse::<f64>().unwrap() != 0.0 {
            found.insert(name);
        }
    }
    found
}

/// A fresh member's page, once it has published itself and the cluster has its version.
fn page_at_start(server: &Server) -> String {
    server.wait_for("updated storage version");
    let ready = || {
        let page = server.page("/metrics");
        let published = "type=\"ClusterMemberAttrSet\"} 1\n";
        // The first commit may still be under way, or have ended while the page was written.
        let committed = [
            "etcd_disk_backend_commit_duration_seconds_count 0\n",
            "etcd_debugging_disk_backend_commit_spill_duration_seconds_count 0\n",
            "etcd_debugging_disk_backend_commit_write_duration_seconds_count 0\n",
        ];
        let is_committed = !committed.iter().any(|zero| page.contains(zero));
        (page.contains(published) && is_committed).then_some(page)
    };
    (0..10_000).find_map(|_| ready()).expect("it is ready")
}

#[test]
fn a_fresh_member_measures_what_etcd_measures() {
    let place = Place::new();
    let server = place.start(&[]);
    let page = page_at_start(&server);
    let here = families(&page);
    let missing: Vec<&str> = AT_START
        .lines()
        .filter(|name| !here.contains(name))
        .collect();
    assert_eq!(missing, NOT_HERE, "{page}");
    // The parts of a commit are parts of it.
    let sum = |name: &str| -> f64 {
        let name = format!("etcd_{name}_duration_seconds_sum ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name} in {page}"))
            .parse()
            .unwrap()
    };
    let parts =
        ["spill", "write"].map(|part| sum(&format!("debugging_disk_backend_commit_{part}")));
    let all = sum("disk_backend_commit");
    assert!(parts.iter().all(|part| *part > 0.0), "{parts:?}");
    assert!(
        parts.iter().sum::<f64>() <= all + 1e-6,
        "{parts:?} of {all}"
    );
}

/// `.snap` files are written rarely.
#[tokio::test]
async fn a_snapshot_is_measured() {
    let place = Place::new();
    let server = place.start(&["--snapshot-count=5"]);
    let mut kv = server.kv().await;
    for n in 0..10 {
        kv.put(format!("k{n}"), "v").await.unwrap();
    }
    server.wait_for("saved snapshot to disk");
    let page = server.page("/metrics");
    let found = families(&page);
    for name in [
        "etcd_debugging_snap_save_marshalling_duration_seconds",
        "etcd_debugging_snap_save_total_duration_seconds",
        "etcd_snap_fsync_duration_seconds",
    ] {
        assert!(found.contains(name), "no {name} in {page}");
    }
}
