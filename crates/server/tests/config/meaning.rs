//! What a configuration comes to, once it has been read.

use super::*;

#[test]
fn zeros_stand_for_defaults() {
    let config = config(&Given {
        args: &[
            "--warning-unary-request-duration=0",
            "--watch-progress-notify-interval=1ms",
            "--bcrypt-cost=99",
            "--raft-read-timeout=1s",
        ],
        ..Given::default()
    });
    assert_eq!(config.quota_bytes(), Some(2_147_483_648));
    assert_eq!(
        (
            config.backend_batch_limit,
            config.compaction_batch_limit,
            config.bcrypt_cost
        ),
        (10_000, 1_000, 10)
    );
    let spans = [
        config.backend_batch_interval,
        config.compaction_sleep_interval,
        config.watch_progress_notify_interval,
        config.warning_unary_request_duration,
        config.raft_read_timeout,
    ];
    assert_eq!(
        spans.map(|span| span.to_string()),
        ["100ms", "10ms", "100ms", "300ms", "5s"]
    );
    assert_eq!(
        (config.data_dir.as_str(), config.election_ticks()),
        ("default.etcd", 10)
    );
}

#[test]
fn a_member_that_listens_everywhere_advertises_the_machine() {
    let all = [
        "--name=a",
        "--listen-peer-urls=http://0.0.0.0:99",
        "--listen-client-urls=http://0.0.0.0:98",
    ];
    let given = Given {
        args: &all[..2],
        host: Some("192.0.2.7"),
        ..Given::default()
    };
    check(
        &given,
        "info detected default host for advertise {\"host\": \"192.0.2.7\"}\nrun",
    );
    assert_eq!(config(&given).initial_cluster, "a=http://192.0.2.7:99");
    let unknown = config(&Given {
        args: &all[..2],
        ..Given::default()
    });
    assert_eq!(unknown.initial_cluster, "a=http://localhost:2380");
}

#[test]
fn starts_are_checked_once_more() {
    let refused = |args: &[&str]| match config(&Given {
        args,
        ..Given::default()
    })
    .check_start()
    {
        Ok(()) => "starts".to_owned(),
        Err(error) => error.to_string(),
    };
    let url = "https://127.0.0.1:23010";
    let (listen, advertise) = (
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
    );
    assert_eq!(
        refused(&[&listen, &advertise]),
        format!(
            "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
        )
    );
    assert_eq!(
        refused(&["--listen-metrics-urls=https://127.0.0.1:1"]),
        "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
    );
    assert_eq!(
        refused(&["--listen-peer-urls=https://127.0.0.1:23333"]),
        "cannot listen on TLS for 127.0.0.1:23333: KeyFile and CertFile are not presented"
    );
    assert_eq!(
        refused(&["--listen-client-http-urls=http://localhost:2379"]),
        "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url http://localhost:2379"
    );
    for token in ["foo", "simple,x", "simple,a=1,a=2"] {
        assert_eq!(
            refused(&[&format!("--auth-token={token}")]),
            "auth: invalid auth options"
        );
    }
    for token in ["simple", "", "simple,a=1", "jwt,sign-method=RS256"] {
        assert_eq!(refused(&[&format!("--auth-token={token}")]), "starts");
    }
    for (retention, reason) in [
        ("x", "time: invalid duration \"x\""),
        ("5x", "time: unknown unit \"x\" in duration \"5x\""),
        ("-5", "time: missing unit in duration \"-5\""),
    ] {
        assert_eq!(
            refused(&[&format!("--auto-compaction-retention={retention}")]),
            format!("error parsing CompactionRetention: {reason}")
        );
    }
}

#[test]
fn retention_means_time_or_revisions() {
    let retention = |mode: &str, retention: &str| {
        let args = [
            format!("--auto-compaction-mode={mode}"),
            format!("--auto-compaction-retention={retention}"),
        ];
        let config = config(&Given {
            args: &[&args[0], &args[1]],
            ..Given::default()
        });
        format!("{:?}", config.auto_compaction().expect("valid"))
    };
    assert_eq!(retention("periodic", ""), "Off");
    assert_eq!(retention("periodic", "0"), "Off");
    assert_eq!(retention("periodic", "-5s"), "Off");
    assert_eq!(retention("periodic", "1"), "Periodic(3600s)");
    assert_eq!(retention("periodic", "5m"), "Periodic(300s)");
    assert_eq!(retention("revision", "1000"), "Revision(1000)");
    assert_eq!(retention("revision", "5000000000"), "Revision(5000000000)");
}

#[test]
fn the_starting_line_has_etcds_fields() {
    let config = config(&Given {
        args: &["--name=m1", "--max-txn-ops=7"],
        ..Given::default()
    });
    let line = config.starting_record(None).to_string();
    let keys: Vec<&str> = line
        .split(", \"")
        .map(|pair| pair.split('"').next().unwrap_or_default())
        .skip(1)
        .collect();
    assert_eq!(
        keys.join(" "),
        "git-sha go-version go-os go-arch max-cpu-set max-cpu-available member-initialized name data-dir wal-dir wal-dir-dedicated \
         member-dir force-new-cluster heartbeat-interval election-timeout initial-election-tick-advance snapshot-count max-wals \
         max-snapshots snapshot-catchup-entries initial-advertise-peer-urls listen-peer-urls advertise-client-urls listen-client-urls \
         listen-metrics-urls local-address cors host-whitelist initial-cluster initial-cluster-state initial-cluster-token \
         quota-backend-bytes max-request-bytes max-concurrent-streams pre-vote feature-gates initial-corrupt-check \
         corrupt-check-time-interval compact-check-time-interval auto-compaction-mode auto-compaction-retention \
         auto-compaction-interval discovery-token discovery-endpoints discovery-dial-timeout discovery-request-timeout \
         discovery-keepalive-time discovery-keepalive-timeout discovery-insecure-transport discovery-insecure-skip-tls-verify \
         discovery-cert discovery-key discovery-cacert discovery-user downgrade-check-interval max-learners v2-deprecation"
    );
    for part in [
        "info starting an etcd server {\"etcd-version\": \"3.7.1\"",
        "\"member-initialized\": true, \"name\": \"m1\", \"data-dir\": \"m1.etcd\", \"wal-dir\": \"\"",
        "\"member-dir\": \"m1.etcd/member\"",
        "\"heartbeat-interval\": \"100ms\", \"election-timeout\": \"1s\"",
        "\"listen-peer-urls\": [\"http://localhost:2380\"]",
        "\"quota-backend-bytes\": 2147483648",
        "\"v2-deprecation\": \"write-only\"}",
    ] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
}
