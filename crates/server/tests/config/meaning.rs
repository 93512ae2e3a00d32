//! What a configuration comes to, once it has been read.

use retcd_server::config::value::EnableV2;

use super::*;

#[test]
fn zeros_stand_for_defaults() {
    let config = config(&Given {
        args: &[
            "--warning-unary-request-duration=0",
            "--watch-progress-notify-interval=1ms",
            "--bcrypt-cost=99",
            "--raft-read-timeout=1s",
            "--snapshot-count=0",
            "--snapshot-catchup-entries=0",
            "--max-concurrent-streams=0",
        ],
        ..Given::default()
    });
    assert_eq!(
        config.member().unwrap().limits.quota_bytes,
        Some(2_147_483_648)
    );
    assert_eq!(
        (
            config.backend_batch_limit,
            config.compaction_batch_limit,
            config.bcrypt_cost
        ),
        (10_000, 1_000, 10)
    );
    assert_eq!(
        (
            config.snapshot_count,
            config.snapshot_catchup_entries,
            config.max_concurrent_streams
        ),
        (10_000, 5_000, u32::MAX)
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
fn api_v2_is_asked_for_or_refused_or_neither() {
    let of = |args: &[&str]| {
        let given = Given {
            args,
            ..Given::default()
        };
        config(&given).enable_v2
    };
    assert_eq!(of(&[]), EnableV2::Unset);
    assert_eq!(of(&["--enable-v2"]), EnableV2::On);
    assert_eq!(of(&["--enable-v2=f"]), EnableV2::Off);
    check_usage(
        &["--enable-v2=perhaps"],
        "invalid boolean value \"perhaps\" for -enable-v2: parse error",
    );
    for (file, expected) in [
        ("enable-v2: true", EnableV2::On),
        ("enable-v2: false", EnableV2::Off),
        ("enable-v2:", EnableV2::Unset),
    ] {
        let given = Given {
            file: Some(file),
            ..Given::default()
        };
        assert_eq!(config(&given).enable_v2, expected, "{file}");
    }
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

/// `SetMemberLocalAddr`: the first address that other members could see.
#[test]
fn a_member_leaves_from_the_address_that_it_advertises() {
    let local_address = |gates: &str, advertised: &str| {
        let (gates, advertised) = (
            format!("--feature-gates={gates}"),
            format!("--initial-advertise-peer-urls={advertised}"),
        );
        let config = config(&Given {
            args: &[&gates, &advertised],
            ..Given::default()
        });
        let line = config.starting_record(None).to_string();
        let address = config
            .member_local_address()
            .map_or_else(String::new, |address| address.to_string());
        assert!(
            line.contains(&format!("\"local-address\": \"{address}\"")),
            "{line}"
        );
        address
    };
    let on = "SetMemberLocalAddr=true";
    assert_eq!(local_address(on, "https://192.0.2.7:1"), "192.0.2.7");
    assert_eq!(local_address(on, "https://[2001:db8::7]:1"), "2001:db8::7");
    let several = "http://127.0.0.1:1,http://a.example:1,http://192.0.2.8:1,http://192.0.2.9:1";
    assert_eq!(local_address(on, several), "192.0.2.8");
    for nothing_suitable in ["http://127.0.0.1:1", "http://[::1]:1", "http://a.example:1"] {
        assert_eq!(local_address(on, nothing_suitable), "");
    }
    assert_eq!(local_address("", "https://192.0.2.7:1"), "");
}

/// What is larger than etcd recommends is warned of, once and in its words.
#[test]
fn sizes_beyond_what_is_recommended_are_warned_of() {
    let records = |args: &[&str]| -> Vec<String> {
        let config = config(&Given {
            args,
            ..Given::default()
        });
        config
            .size_records()
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(
        records(&[]),
        [
            r#"info enabled backend quota with default value {"quota-name": "v3-applier", "quota-size-bytes": 2147483648, "quota-size": "2.1 GB"}"#
        ]
    );
    assert_eq!(
        records(&["--quota-backend-bytes=-1"]),
        [r#"info disabled backend quota {"quota-name": "v3-applier", "quota-size-bytes": -1}"#]
    );
    assert_eq!(
        records(&["--quota-backend-bytes=8589934592"]),
        [
            r#"info enabled backend quota {"quota-name": "v3-applier", "quota-size-bytes": 8589934592, "quota-size": "8.6 GB"}"#
        ]
    );
    let beyond = [
        "--quota-backend-bytes=8589934593",
        "--max-request-bytes=10485761",
    ];
    assert_eq!(
        records(&beyond)[..2],
        [
            r#"warn exceeded recommended request limit {"max-request-bytes": 10485761, "max-request-size": "10 MB", "recommended-request-bytes": 10485760, "recommended-request-size": "10 MB"}"#,
            r#"warn quota exceeds the maximum value {"quota-name": "v3-applier", "quota-size-bytes": 8589934593, "quota-size": "8.6 GB", "quota-maximum-size-bytes": 8589934592, "quota-maximum-size": "8.6 GB"}"#
        ]
    );
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
    // The default for gRPC is localhost:2379.
    for http in ["http://localhost:2379", "http://127.0.0.1:2379"] {
        assert_eq!(
            refused(&[&format!("--listen-client-http-urls={http}")]),
            format!(
                "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {http}"
            )
        );
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
fn a_retention_that_cannot_be_kept_is_refused() {
    let refused = |mode: &str, retention: &str| {
        let args = [
            format!("--auto-compaction-mode={mode}"),
            format!("--auto-compaction-retention={retention}"),
        ];
        let config = config(&Given {
            args: &[&args[0], &args[1]],
            ..Given::default()
        });
        let error = config.check_start().expect_err(retention);
        assert_eq!(
            config.auto_compaction().unwrap_err().to_string(),
            error.to_string()
        );
        error.to_string()
    };
    for span in ["-1h", "1ns", "99ms", "-5s"] {
        assert_eq!(
            refused("periodic", span),
            format!(
                "--auto-compaction-retention={span} is no span to keep: \
                 use 0 for all history, or at least 100ms with --auto-compaction-mode=periodic"
            )
        );
    }
    for span in ["1h", "-1h", "1ns"] {
        assert_eq!(
            refused("revision", span),
            format!(
                "--auto-compaction-retention={span} is no number of revisions: use one with --auto-compaction-mode=revision, \
                 or --auto-compaction-mode=periodic for a span of time"
            )
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
    assert_eq!(retention("periodic", "0s"), "Off");
    assert_eq!(retention("periodic", "100ms"), "Periodic(100ms)");
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
