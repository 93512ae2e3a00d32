//! Flags and feature gates whose effect shows from outside of the process only.

use std::time::Duration;

use retcd_proto::etcdserverpb::auth_client::AuthClient;
use retcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_proto::etcdserverpb::{
    AuthStatusRequest, AuthUserAddRequest, DefragmentRequest, DeleteRangeRequest, PutRequest,
    StatusRequest, StatusResponse,
};
use retcd_proto::healthpb::HealthCheckRequest;
use retcd_proto::healthpb::health_check_response::ServingStatus;
use retcd_proto::healthpb::health_client::HealthClient;
use rustix::process::Signal;
use tokio::sync::mpsc::UnboundedReceiver;

use super::place::{Place, Server, until};

/// Kilobytes of a line of `/proc/PID/status`.
fn kilobytes(pid: &str, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .unwrap_or_else(|| panic!("{name} in {status}"))
        .parse()
        .unwrap()
}

/// Whether memory may be locked here depends on where the tests run; either answer is one.
#[test]
fn locked_memory_is_locked_or_refused_with_what_to_do() {
    let place = Place::new();
    let mut server = place.launch(&["--memory-mlock"]);
    let limit = std::fs::read_to_string("/proc/self/limits").unwrap();
    let limit = limit
        .lines()
        .find(|line| line.starts_with("Max locked memory"))
        .expect("the kernel tells this limit")
        .to_owned();
    let hard_limit = limit.split_whitespace().nth(4).unwrap();
    const CAP_IPC_LOCK: u64 = 1 << 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = u64::from_str_radix(capabilities.unwrap().trim(), 16).unwrap();
    if hard_limit != "unlimited" && capabilities & CAP_IPC_LOCK == 0 {
        let text = format!(
            "--memory-mlock: this process may lock {hard_limit} bytes of memory, and needs to be without a limit"
        );
        server.wait().assert(1, &text);
        return;
    }
    server.wait_until_serving();
    let pid = server.child().id().to_string();
    let (locked, resident) = (kilobytes(&pid, "VmLck"), kilobytes(&pid, "VmRSS"));
    assert!(
        locked >= resident,
        "{locked} kB of {resident} kB are locked"
    );
    server.assert_well();
}

async fn maintenance(server: &Server) -> MaintenanceClient<tonic::transport::Channel> {
    MaintenanceClient::new(server.channel().await)
}

async fn status(server: &Server) -> StatusResponse {
    let mut maintenance = maintenance(server).await;
    let status = maintenance.status(StatusRequest {}).await;
    status.unwrap().into_inner()
}

#[tokio::test]
async fn a_start_defragments_when_that_frees_enough() {
    let place = Place::new();
    let server = place.start(&[]);
    let mut kv = server.kv().await;
    for i in 0..80 {
        kv.put(format!("k{i}"), vec![7; 200_000]).await.unwrap();
    }
    // What has never been in the file leaves no hole in it.
    server.end_with(Signal::TERM);
    let server = place.start(&[]);
    let mut kv = server.kv().await;
    let mut revision = 0;
    // Between keys that stay, so that the file cannot just be cut.
    for i in (0..80).step_by(2) {
        let request = DeleteRangeRequest {
            key: format!("k{i}").into(),
            ..Default::default()
        };
        let response = kv.0.delete_range(request).await.unwrap().into_inner();
        revision = response.header.unwrap().revision;
    }
    kv.compact(revision).await.unwrap();
    server.end_with(Signal::TERM);

    let server = place.start(&["--bootstrap-defrag-threshold-megabytes=1000"]);
    let log = server.log();
    let skipped = r#""msg":"Skipping defragmentation","current-db-size-bytes":"#;
    assert!(log.contains(skipped), "{log}");
    let before = status(&server).await;
    let (size, in_use) = (before.db_size, before.db_size_in_use);
    assert!(size - in_use > 6_000_000, "{in_use} of {size}");
    server.end_with(Signal::TERM);

    let server = place.start(&["--bootstrap-defrag-threshold-megabytes=5"]);
    let log = server.log();
    let (defragmented, ready) = (
        log.find("finished defragmentation").expect(&log),
        log.find("ready to serve client requests").expect(&log),
    );
    assert!(defragmented < ready, "{log}");
    let after = status(&server).await.db_size;
    assert!(after < size - 5_000_000, "{size} bytes became {after}");
    let metrics = server.page("/metrics");
    assert!(
        metrics.contains("etcd_disk_backend_defrag_duration_seconds_count 1"),
        "{metrics}"
    );
    server.assert_well();
}

/// What `Health/Watch` says, one after the other.
async fn health(server: &Server) -> UnboundedReceiver<ServingStatus> {
    let mut client = HealthClient::new(server.channel().await);
    let watch = client.watch(HealthCheckRequest::default());
    let mut stream = watch.await.unwrap().into_inner();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(Some(answer)) = stream.message().await {
            if sender.send(answer.status()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Balancers follow `Health/Watch`. A defragmentation may be over before the stream is looked at,
/// so it is asked for again until it was seen.
#[tokio::test]
async fn a_member_that_defragments_sends_clients_elsewhere_if_it_is_told_to() {
    let place = Place::new();
    let server = place.start(&["--feature-gates=StopGRPCServiceOnDefrag=true"]);
    let mut kv = server.kv().await;
    for i in 0..40 {
        kv.put(format!("k{i}"), vec![7; 100_000]).await.unwrap();
    }
    let mut maintenance = maintenance(&server).await;
    let mut states = health(&server).await;
    assert_eq!(states.recv().await, Some(ServingStatus::Serving));
    until("a member that does not serve", async || {
        maintenance.defragment(DefragmentRequest {}).await.unwrap();
        states.try_recv() == Ok(ServingStatus::NotServing)
    })
    .await;
    let next = tokio::time::timeout(Duration::from_secs(60), states.recv()).await;
    assert_eq!(next.unwrap(), Some(ServingStatus::Serving));
    // Whoever does not ask for its health is served all the same.
    kv.put("k", "v").await.unwrap();
    let line = r#""service":"","status":"NOT_SERVING","reason":"defrag is active""#;
    server.wait_for(line);
    drop(server);

    let place = Place::new();
    let server = place.start(&[]);
    let mut states = health(&server).await;
    assert_eq!(states.recv().await, Some(ServingStatus::Serving));
    for _ in 0..3 {
        let mut maintenance = self::maintenance(&server).await;
        maintenance.defragment(DefragmentRequest {}).await.unwrap();
    }
    server.end_with(Signal::TERM);
    assert_eq!(states.recv().await, None, "the state has not changed");
}

#[tokio::test]
async fn the_quota_is_told_as_it_was_given() {
    let given = [
        (None, 2_147_483_648),
        (Some("0"), 2_147_483_648),
        (Some("-1"), -1),
        (Some("7000000"), 7_000_000),
    ];
    for (value, told) in given {
        let place = Place::new();
        let flag = value.map(|value| format!("--quota-backend-bytes={value}"));
        let server = place.start(&flag.iter().map(String::as_str).collect::<Vec<_>>());
        let quota = status(&server).await.db_size_quota;
        assert_eq!(quota, told, "{value:?}");
    }
}

/// Alerts on failing or slow applies see each kind of request, whatever came of it.
#[tokio::test]
async fn what_is_applied_is_measured_by_kind_and_outcome() {
    let place = Place::new();
    let server = place.start(&["--bcrypt-cost=4"]);
    let mut kv = server.kv().await;
    kv.put("k", "v").await.unwrap();
    let no_lease = PutRequest {
        key: "k".into(),
        lease: 7,
        ..Default::default()
    };
    kv.0.put(no_lease).await.unwrap_err();
    kv.compact(2).await.unwrap();
    kv.compact(2).await.unwrap_err();
    kv.compact(1000).await.unwrap_err();
    let mut auth = AuthClient::new(server.channel().await);
    let user = || AuthUserAddRequest {
        name: "u".to_owned(),
        password: "p".to_owned(),
        ..Default::default()
    };
    auth.user_add(user()).await.unwrap();
    auth.user_add(user()).await.unwrap_err();
    auth.auth_status(AuthStatusRequest {}).await.unwrap();

    let metrics = server.page("/metrics");
    let mut counts: Vec<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("etcd_server_apply_duration_seconds_count"))
        .collect();
    counts.sort_unstable();
    assert_eq!(
        counts,
        [
            r#"{op="AuthUserAdd",success="false",version="v3"} 1"#,
            r#"{op="AuthUserAdd",success="true",version="v3"} 1"#,
            r#"{op="ClusterMemberAttrSet",success="true",version="v3"} 1"#,
            r#"{op="ClusterVersionSet",success="true",version="v3"} 1"#,
            r#"{op="Compaction",success="false",version="v3"} 1"#,
            // As with etcd, that a revision is compacted already is no failure.
            r#"{op="Compaction",success="true",version="v3"} 2"#,
            r#"{op="Put",success="false",version="v3"} 1"#,
            r#"{op="Put",success="true",version="v3"} 1"#,
            r#"{op="unknown",success="true",version="v3"} 1"#,
        ]
    );
}

#[tokio::test]
async fn reads_are_measured() {
    let place = Place::new();
    let server = place.start(&[]);
    let mut kv = server.kv().await;
    let measured = |outcome: &str| {
        let metrics = server.page("/metrics");
        let name = format!("etcd_server_range_duration_seconds_count{{success=\"{outcome}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
        count.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let before = measured("true");
    for _ in 0..3 {
        kv.get("k").await;
    }
    assert_eq!(measured("true"), before + 3);
    assert_eq!(measured("false"), 0);
    let future = retcd_proto::etcdserverpb::RangeRequest {
        key: "k".into(),
        revision: 1000,
        ..Default::default()
    };
    kv.0.range(future).await.unwrap_err();
    assert_eq!(measured("false"), 1);
}
