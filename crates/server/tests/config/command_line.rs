//! The command line: grammar, values, contradictions, help.

use super::*;

#[test]
fn every_flag_of_etcd_is_known() {
    let known: Vec<&str> = FLAGS.iter().map(|flag| flag.name).collect();
    for name in include_str!("../data/flags-3.7.1.txt").lines() {
        assert!(known.contains(&name), "{name} is missing");
    }
    let mut unique = known.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(
        unique.len(),
        known.len(),
        "a flag stands twice in the table"
    );
}

#[test]
fn the_grammar_is_gos() {
    check_args(&[], "run");
    check_args(
        &[
            "-name",
            "a",
            "--pre-vote",
            "--max-txn-ops=0x10",
            "-snapshot-count=1_000",
            "--",
        ],
        "run",
    );
    check_args(
        &[
            "--cors=*",
            "--listen-peer-urls=",
            "--v",
            "--snapshot=anything",
        ],
        "run",
    );
    check_usage(&["--foo"], "flag provided but not defined: -foo");
    check_usage(&["--foo=1"], "flag provided but not defined: -foo");
    check_usage(&["---x"], "bad flag syntax: ---x");
    check_usage(&["-=x"], "bad flag syntax: -=x");
    check_usage(&["--name"], "flag needs an argument: -name");
    check_usage(
        &["--pre-vote=foo"],
        "invalid boolean value \"foo\" for -pre-vote: parse error",
    );
    check_verify(&["badarg"], "\"badarg\" is not a valid flag");
    check_verify(&["--", "x"], "\"x\" is not a valid flag");
    check_verify(&["--pre-vote", "false"], "\"false\" is not a valid flag");
    check_verify(&["-", "--name"], "\"-\" is not a valid flag");
}

#[test]
fn bad_values_are_told_with_the_usage() {
    let bad = |flag: &str, value: &str, reason: &str| {
        let given = format!("--{flag}={value}");
        check_usage(
            &[&given],
            &format!("invalid value {value:?} for flag -{flag}: {reason}"),
        );
    };
    bad("max-txn-ops", "foo", "parse error");
    bad("max-txn-ops", "-1", "parse error");
    bad("max-txn-ops", "99999999999999999999", "value out of range");
    bad(
        "backend-batch-limit",
        "9223372036854775808",
        "value out of range",
    );
    bad(
        "max-concurrent-streams",
        "foo",
        "strconv.ParseUint: parsing \"foo\": invalid syntax",
    );
    bad(
        "max-concurrent-streams",
        "5000000000",
        "strconv.ParseUint: parsing \"5000000000\": value out of range",
    );
    bad("backend-batch-interval", "5", "parse error");
    bad(
        "listen-peer-urls",
        "127.0.0.1:23010",
        "parse \"127.0.0.1:23010\": first path segment in URL cannot contain colon",
    );
    bad(
        "listen-client-urls",
        "http://127.0.0.1",
        "URL address does not have the form \"host:port\": http://127.0.0.1",
    );
    bad(
        "listen-metrics-urls",
        "http://127.0.0.1:1/path",
        "URL must not contain a path: http://127.0.0.1:1/path",
    );
    bad(
        "advertise-client-urls",
        "ftp://127.0.0.1:1",
        "URL scheme must be http, https, unix, or unixs: ftp://127.0.0.1:1",
    );
    bad(
        "cors",
        "",
        "URL scheme must be http, https, unix, or unixs: ",
    );
    bad("initial-cluster-state", "foo", "invalid value");
    bad("discovery-fallback", "foo", "invalid value");
    bad("v2-deprecation", "not-yet", "invalid value \"not-yet\"");
    bad("feature-gates", "foo", "missing bool value for foo");
    bad(
        "feature-gates",
        "Foo=true",
        "unrecognized feature gate: Foo",
    );
}

#[test]
fn settings_that_contradict_are_refused_in_etcds_words() {
    let client = "--listen-client-urls=http://127.0.0.1:23333";
    let missing = "--advertise-client-urls is required when --listen-client-urls is set explicitly";
    check_args(
        &[client],
        &format!(
            "{}\nwarn advertise client URLs are not set {{\"error\": \"{missing}\"}}",
            failed(missing)
        ),
    );
    check_verify(
        &["--listen-peer-urls=http://example.com:1"],
        "expected IP in URL for binding (http://example.com:1)",
    );
    check_verify(
        &["--listen-metrics-urls=http://:1"],
        "expected IP in URL for binding (http://:1)",
    );
    check_verify(
        &["--initial-advertise-peer-urls=http://:2380"],
        "--initial-advertise-peer-urls \"http://:2380\" must be \"host:port\" (unexpected empty host (http://:2380))",
    );
    check_verify(
        &["--advertise-client-urls=http://:2380"],
        "--advertise-client-urls \"http://:2380\" must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host (http://:2380))",
    );
    let several = "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"";
    check_verify(
        &[
            "--discovery-srv=x",
            "--initial-cluster=a=http://127.0.0.1:1",
        ],
        several,
    );
    check_verify(
        &["--discovery-token=x"],
        "both --discovery-token and --discovery-endpoints must be set",
    );
    check_verify(
        &["--discovery-token=x", "--discovery-endpoints=,"],
        "--discovery-endpoints must not contain empty endpoints",
    );
    check_verify(
        &["--discovery-fallback=proxy"],
        "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
    );
    check_verify(
        &["--heartbeat-interval=0"],
        "--heartbeat-interval must be >0 (set to 0ms)",
    );
    check_verify(
        &["--election-timeout=0"],
        "--election-timeout must be >0 (set to 0ms)",
    );
    check_verify(
        &["--heartbeat-interval=1000"],
        "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[1000ms]",
    );
    check_verify(
        &["--election-timeout=60000"],
        "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
    );
    check_verify(
        &["--auto-compaction-mode=foo"],
        "unknown auto-compaction-mode \"foo\"",
    );
    check_verify(
        &["--auto-compaction-mode="],
        "undefined auto-compaction-mode",
    );
    check_verify(
        &["--feature-gates=LeaseCheckpointPersist=true"],
        "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
    );
    check_verify(
        &["--compact-hash-check-time=-1s"],
        "--compact-hash-check-time must be >0 (set to -1s)",
    );
    check_verify(
        &["--tls-min-version=x"],
        "unexpected TLS version \"x\" (must be one of: TLS1.2, TLS1.3)",
    );
    check_verify(
        &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
        "min version (TLS1.3) is greater than max version (TLS1.2)",
    );
    check_verify(
        &["--tls-min-version=TLS1.3", "--cipher-suites=x"],
        "cipher suites cannot be configured when only TLS1.3 is enabled",
    );
    let tracing = |rate: &str, reason: &str| {
        let rate = format!("--distributed-tracing-sampling-rate={rate}");
        let error = format!(
            "distributed tracing configurition is not valid: (tracing sampling rate must be {reason})"
        );
        check_verify(&["--enable-distributed-tracing", &rate], &error);
    };
    tracing("-1", "positive");
    tracing("1000001", "less than 1000000");
}

/// Numbers and spans of time below zero have no meaning unless the flag gives them one; this holds
/// for every row of the table, new ones too.
#[test]
fn what_is_below_zero_is_refused_unless_it_means_something() {
    let mean_something = [
        "quota-backend-bytes",
        "value-cache-bytes",
        "grpc-keepalive-min-time",
        "grpc-keepalive-interval",
        "grpc-keepalive-timeout",
        "raft-read-timeout",
        "raft-write-timeout",
        "warning-unary-request-duration",
        "warning-apply-duration",
        "watch-progress-notify-interval",
    ];
    for flag in mean_something {
        let value = match flag {
            "quota-backend-bytes" | "value-cache-bytes" => "-1",
            _ => "-1s",
        };
        let config = parse(&Given {
            args: &[&format!("--{flag}={value}")],
            ..Given::default()
        });
        assert!(matches!(config, ParseOutcome::Run { .. }), "{flag}");
    }
    let mut refused = 0;
    for flag in FLAGS.iter().filter(|flag| flag.group != Group::Older) {
        let value = match flag.default {
            default if default.parse::<i64>().is_ok() => "-5",
            default if default.ends_with(['s', 'm']) && default.starts_with(char::is_numeric) => {
                "-5s"
            }
            _ => continue,
        };
        let arg = format!("--{}={value}", flag.name);
        let got = outcome(&Given {
            args: &[&arg],
            ..Given::default()
        });
        match flag.name {
            name if mean_something.contains(&name) => assert!(got.ends_with("run"), "{got}"),
            // What is read as text is judged by who reads it.
            "auto-compaction-retention" => assert!(got.ends_with("run"), "{got}"),
            _ => {
                assert!(
                    got.contains(flag.name) && !got.ends_with("run"),
                    "{arg}: {got}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 20, "{refused}");
    check_verify(
        &["--backend-batch-limit=-5"],
        "--backend-batch-limit must be >=0 (set to -5)",
    );
    check_verify(
        &["--downgrade-check-time=-1s"],
        "--downgrade-check-time must be >=0 (set to -1s)",
    );
    check_verify(
        &["--max-request-bytes=1023"],
        "--max-request-bytes must be >=1024 (set to 1023)",
    );
}

#[test]
fn what_changes_nothing_is_said_to_change_nothing() {
    check_args(
        &["--backend-bbolt-freelist-type=array"],
        "warn --backend-bbolt-freelist-type has no effect: there is one way of listing free pages here\nrun",
    );
    check_args(
        &["--metrics=full"],
        "warn unknown value of --metrics; 'basic' is used {\"value\": \"full\"}\nrun",
    );
    check_args(&["--metrics=extensive"], "run");
}

/// Whoever reads a log must not learn a password from it.
#[test]
fn secrets_are_not_logged() {
    let hidden = |args: &[&str], env: &[(&str, &str)]| {
        let outcome = parse(&Given {
            args,
            env,
            ..Given::default()
        });
        let log = format!("{outcome:?}");
        let notes = match outcome {
            ParseOutcome::Run { notes, .. } | ParseOutcome::Fail { notes, .. } => notes,
            ParseOutcome::Print { .. } => panic!("{log}"),
        };
        let lines: Vec<String> = notes.iter().map(ToString::to_string).collect();
        let text = lines.join("\n");
        assert!(!text.contains("hunter2"), "{text}");
        text
    };
    let text = hidden(
        &[
            "--discovery-password=hunter2",
            "-discovery-user",
            "root:hunter2",
            "--name=a",
        ],
        &[],
    );
    let args =
        r#"["etcd", "--discovery-password=(hidden)", "-discovery-user", "(hidden)", "--name=a"]"#;
    assert!(text.contains(args), "{text}");
    let text = hidden(
        &[],
        &[
            ("ETCD_ROOT_PASSWORD", "hunter2"),
            ("ETCD_DISCOVERY_PASSWORD", "hunter2"),
        ],
    );
    assert!(
        text.contains("{\"environment-variable\": \"ETCD_ROOT_PASSWORD\"}"),
        "{text}"
    );
    assert!(
        text.contains("\"ETCD_DISCOVERY_PASSWORD\", \"variable-value\": \"(hidden)\""),
        "{text}"
    );
}

#[test]
fn log_flags_are_checked() {
    check_verify(
        &["--logger=capnslog"],
        "--logger=capnslog is removed in v3.5",
    );
    check_verify(&["--logger=x"], "unknown logger option \"x\"");
    check_verify(
        &["--log-format=foo"],
        "unknown log format: foo, supported values json, console",
    );
    check_verify(
        &["--log-outputs=default,stderr"],
        "multi logoutput for \"default\" is not supported yet",
    );
    let one_file =
        "--log-outputs requires a single file path when --log-rotate-config-json is defined";
    check_verify(&["--enable-log-rotation"], one_file);
    check_verify(&["--enable-log-rotation", "--log-outputs=a,b"], one_file);
    check_verify(
        &[
            "--enable-log-rotation",
            "--log-outputs=a",
            "--log-rotation-config-json={\"maxsize\": true}",
        ],
        "invalid log rotation config: json: cannot unmarshal bool into Go struct field logRotationConfig.Logger.maxsize of type int",
    );
    check_args(&["--log-rotation-config-json={"], "run");
    check_args(&["--enable-log-rotation", "--log-outputs=a,stderr"], "run");
    check_verify(
        &["--log-outputs=systemd/journal,stderr"],
        "running with systemd/journal but other '--log-outputs' values ([\"stderr\" \"systemd/journal\"]) are configured with 'default'; override 'default' value with something else",
    );
    check_args(
        &["--log-level=foo"],
        "exit 2 [] [panic: unrecognized level: \"foo\"\n]",
    );
    for level in [
        "debug", "info", "warn", "error", "dpanic", "panic", "fatal", "",
    ] {
        check_args(&[&format!("--log-level={level}")], "run");
    }
    let given = Given {
        args: &[
            "--log-outputs=stdout,a.log,stderr",
            "--log-format=console",
            "--log-level=warn",
        ],
        ..Given::default()
    };
    let ParseOutcome::Run { log, .. } = parse(&given) else {
        panic!("refused")
    };
    assert_eq!(
        format!("{log:?}"),
        "Options { level: Warn, format: Console, times: Micros, outputs: [File(\"a.log\"), Stderr, Stdout], rotation: None }"
    );
}

#[test]
fn flags_of_single_features_are_taken() {
    check_args(
        &[
            "--corrupt-check-time=0",
            "--feature-gates=AllBeta=true,AllAlpha=true",
            "--memory-mlock",
            "--bootstrap-defrag-threshold-megabytes=100",
        ],
        "run",
    );
}

/// Whoever comes from etcd 3.7.1 brings flags of every feature, and asks of each for something else
/// than what is the default.
#[test]
fn no_flag_of_etcd_is_refused_for_want_of_a_feature() {
    for name in include_str!("../data/flags-3.7.1.txt").lines() {
        let flag = FLAGS.iter().find(|flag| flag.name == name);
        let flag = flag.expect("every flag of etcd is known");
        let url = "--advertise-client-urls=http://127.0.0.1:1";
        // What cannot stand alone, or has few values.
        let (value, with) = match name {
            // etcd's help names them, and it does not know them either.
            "discovery" | "discovery-proxy" => continue,
            // There is one value.
            "logger" | "discovery-fallback" => (flag.default, None),
            "discovery-token" => ("t", Some("--discovery-endpoints=http://127.0.0.1:1")),
            "discovery-endpoints" => ("http://127.0.0.1:1", Some("--discovery-token=t")),
            "listen-client-urls" => ("http://127.0.0.1:1", Some(url)),
            "initial-cluster" => ("default=http://localhost:2380,b=http://127.0.0.1:1", None),
            "initial-cluster-state" => ("existing", None),
            "feature-gates" => ("CompactHashCheck=true", None),
            "auto-compaction-mode" => ("revision", None),
            "auto-compaction-retention" => ("7", None),
            "backend-bbolt-freelist-type" => ("array", None),
            "v2-deprecation" => ("gone", None),
            "cipher-suites" => ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", None),
            "cors" => ("http://a.example:1", None),
            "tls-min-version" | "tls-max-version" => ("TLS1.3", None),
            "auth-token" => ("jwt,sign-method=HS256,priv-key=k", None),
            "metrics" => ("extensive", None),
            "log-outputs" => ("stdout", None),
            "log-level" => ("warn", None),
            "log-format" => ("console", None),
            "enable-log-rotation" => ("true", Some("--log-outputs=etcd.log")),
            "log-rotation-config-json" => (r#"{"maxsize": 7}"#, None),
            "election-timeout" | "max-request-bytes" => ("7000", None),
            name if name.ends_with("-urls") => ("http://127.0.0.1:1", None),
            _ => match flag.default {
                "false" => ("true", None),
                "true" => ("false", None),
                default if default.ends_with(['s', 'm', 'h']) => ("7s", None),
                _ => ("7", None),
            },
        };
        let arg = format!("--{name}={value}");
        let args: Vec<&str> = [arg.as_str()].into_iter().chain(with).collect();
        let got = outcome(&Given {
            args: &args,
            ..Given::default()
        });
        assert!(got.lines().last() == Some("run"), "{args:?}: {got}");
    }
    for page in [help::page(), help::flags(), help::sample_file()] {
        let page = page.to_lowercase();
        for words in ["not yet", "not supported", "unsupported"] {
            assert!(!page.contains(words), "{words} in {page}");
        }
    }
}

#[test]
fn help_and_version_are_printed() {
    let version = outcome(&Given {
        args: &["--version", "--heartbeat-interval=0"],
        ..Given::default()
    });
    let lines: Vec<&str> = version.trim_start_matches("exit 0 [").lines().collect();
    assert_eq!(lines[0], "etcd Version: 3.7.1");
    for (line, label) in
        lines[1..]
            .iter()
            .zip(["Git SHA: ", "Go Version: ", "Go OS/Arch: ", "] []"])
    {
        assert!(line.starts_with(label), "{line}");
    }
    for arg in ["-h", "--help"] {
        let ParseOutcome::Print {
            stdout,
            stderr,
            exit_code: 0,
        } = parse(&Given {
            args: &[arg],
            ..Given::default()
        })
        else {
            panic!("no help for {arg}")
        };
        assert_eq!(stderr, format!("{}\n", help::usage()));
        for flag in FLAGS.iter().filter(|flag| flag.group != Group::Older) {
            assert!(
                stdout.contains(&format!(
                    "\n  --{} '{}'\n    {}",
                    flag.name, flag.default, flag.help
                )),
                "{}",
                flag.name
            );
        }
    }
}

#[test]
fn older_flags_keep_unit_files_working() {
    let renamed = |name: &str, now: &str| {
        format!(
            "warn --{name} is deprecated in v3.6 and will be decommissioned in v3.7. Use '{now}' instead."
        )
    };
    check_args(
        &["--experimental-warning-apply-duration=1s"],
        &format!(
            "{}\nrun",
            renamed(
                "experimental-warning-apply-duration",
                "--warning-apply-duration"
            )
        ),
    );
    check_args(
        &["--experimental-txn-mode-write-with-shared-buffer=false"],
        &format!(
            "{}\nrun",
            renamed(
                "experimental-txn-mode-write-with-shared-buffer",
                "--feature-gates=TxnModeWriteWithSharedBuffer=false"
            )
        ),
    );
    check_args(
        &["--debug"],
        &format!("{}\nrun", renamed("debug", "--log-level=debug")),
    );
    let warned = renamed("experimental-max-learners", "--max-learners");
    check_args(
        &["--experimental-max-learners=2", "--max-learners=3"],
        &format!(
            "{warned}\n{}",
            failed("--experimental-max-learners and --max-learners set the same; use one of them")
        ),
    );
    check_args(
        &[
            "--enable-v2=false",
            "--experimental-enable-v2v3=",
            "--proxy",
            "off",
            "--discovery=",
            "--proxy-read-timeout",
            "0",
        ],
        "run",
    );
    let without = "has no effect: what it asks for is not part of etcd any more";
    check_args(
        &["--log-package-levels=x"],
        &format!("warn --log-package-levels {without} {{\"value\": \"x\"}}\nrun"),
    );
    check_verify(
        &["--proxy=on"],
        "--proxy=on asks for what is not part of etcd any more",
    );
    check_verify(
        &["--discovery=http://x"],
        "--discovery=http://x asks for what is not part of etcd any more",
    );
    check_args(
        &["--max-snapshots=3"],
        "warn --max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.\nrun",
    );
    check_file(
        "experimental-compaction-batch-limit: 5",
        &format!(
            "{}\nrun",
            renamed(
                "experimental-compaction-batch-limit",
                "--compaction-batch-limit"
            )
        ),
    );
}
