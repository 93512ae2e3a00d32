//! How a configuration is read: command line, environment and file in; exit code, streams and log lines out.
//!
//! What is guarded: unit files, manifests and scripts that were written for etcd must start the same member here or get the
//! same refusal, word for word, on the same stream, with the same exit code. The rows are what etcd 3.7.1 answers,
//! but for features that this version refuses.

use std::io;
use std::net::IpAddr;

use retcd_server::config::table::{Effect, FLAGS, Group, Section, Status};
use retcd_server::config::{self, Config, ParseOutcome, Process, help};

/// A process that is about to read its configuration.
#[derive(Default)]
struct Given<'a> {
    args: &'a [&'a str],
    env: &'a [(&'a str, &'a str)],
    file: Option<&'a str>,
    host: Option<&'a str>,
}

fn parse(given: &Given<'_>) -> ParseOutcome {
    let mut args: Vec<String> = std::iter::once("etcd")
        .chain(given.args.iter().copied())
        .map(str::to_owned)
        .collect();
    if given.file.is_some() {
        args.extend(["--config-file".to_owned(), "etcd.yml".to_owned()]);
    }
    let env: Vec<(String, String)> = given
        .env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let read_file = |path: &str| match given.file {
        Some(text) if path == "etcd.yml" => Ok(text.as_bytes().to_vec()),
        _ => Err(io::Error::from_raw_os_error(if path == "/" {
            21
        } else {
            2
        })),
    };
    let host: Option<IpAddr> = given.host.map(|host| host.parse().expect("an address"));
    config::parse(&Process {
        args: &args,
        env: &env,
        read_file: &read_file,
        default_host: &|| host,
    })
}

/// Lines that nearly every start has.
const USUAL: [&str; 4] = [
    "info Running: ",
    "info loaded server configuration",
    "warn Running http and grpc server on single port.",
    "warn it isn't recommended to use default name",
];

/// The outcome as text: what was printed, or the log without the usual lines.
fn outcome(given: &Given<'_>) -> String {
    let log = |notes: &[retcd_server::log::Record]| -> Vec<String> {
        let lines = notes.iter().map(ToString::to_string);
        lines
            .filter(|line| !USUAL.iter().any(|usual| line.starts_with(usual)))
            .collect()
    };
    match parse(given) {
        ParseOutcome::Run { notes, .. } => {
            let mut lines = log(&notes);
            lines.retain(|line| !line.starts_with("warn 'data-dir' was empty"));
            lines.push("run".into());
            lines.join("\n")
        }
        ParseOutcome::Print {
            stdout,
            stderr,
            exit_code,
        } => {
            let stderr = stderr
                .strip_suffix(&format!("\n{}\n", help::usage()))
                .map_or(stderr.clone(), |mistake| format!("{mistake} + usage"));
            format!("exit {exit_code} [{stdout}] [{stderr}]")
        }
        ParseOutcome::Fail { notes, .. } => log(&notes).join("\n"),
    }
}

fn check(given: &Given<'_>, expected: &str) {
    assert_eq!(
        outcome(given),
        expected,
        "for {:?} {:?} {:?}",
        given.args,
        given.env,
        given.file
    );
}

fn check_args(args: &[&str], expected: &str) {
    check(
        &Given {
            args,
            ..Given::default()
        },
        expected,
    );
}

/// Refused while the grammar of the flags is read.
fn check_usage(args: &[&str], mistake: &str) {
    check_args(args, &format!("exit 2 [] [{mistake} + usage]"));
}

/// Refused when flags are verified.
fn check_verify(args: &[&str], error: &str) {
    check_args(args, &failed(error));
}

fn failed(error: &str) -> String {
    format!(
        "warn failed to verify flags {{\"error\": {}}}",
        serde_json::Value::from(error)
    )
}

fn check_file(file: &str, expected: &str) {
    check(
        &Given {
            file: Some(file),
            ..Given::default()
        },
        expected,
    );
}

fn config(given: &Given<'_>) -> Config {
    match parse(given) {
        ParseOutcome::Run { config, .. } => *config,
        other => panic!("refused: {other:?}"),
    }
}

#[test]
fn every_flag_of_etcd_is_known() {
    let known: Vec<&str> = FLAGS.iter().map(|flag| flag.name).collect();
    for name in include_str!("data/flags-3.7.1.txt").lines() {
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
    check_args(
        &["gateway", "start"],
        "exit 1 [] [etcd gateway is not supported yet\n]",
    );
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
        "Options { level: Warn, format: Console, outputs: [File(\"a.log\"), Stderr, Stdout] }"
    );
}

#[test]
fn what_does_not_exist_yet_is_refused_and_never_ignored() {
    let refused = |arg: &str, what: &str, feature: &str| {
        check_verify(
            &[arg],
            &format!("--{what} is not supported yet ({feature})"),
        );
    };
    refused("--discovery-srv=example", "discovery-srv", "discovery");
    refused(
        "--log-outputs=systemd/journal",
        "log-outputs",
        "logging to the systemd journal",
    );
    refused(
        "--feature-gates=PriorityRequest=true",
        "feature-gates=PriorityRequest=true",
        "request priorities",
    );
    check_args(
        &["--corrupt-check-time=0", "--feature-gates=AllBeta=true"],
        "run",
    );
}

/// Every row that is not supported refuses something, and every other value than the default is either supported or refused.
#[test]
fn each_missing_flag_is_refused_when_set() {
    for flag in FLAGS {
        let Status::NotYet(feature) = flag.status else {
            continue;
        };
        let value = match flag.default {
            "false" => "true",
            "true" => "false",
            default if default.ends_with(['s', 'm']) => "7s",
            _ => "7",
        };
        let mut args = vec![format!("--{}={value}", flag.name)];
        match flag.name {
            "enable-log-rotation" => args.push("--log-outputs=a.log".into()),
            "discovery-token" => args.extend([
                "--discovery-endpoints=a".into(),
                "--initial-cluster=".into(),
            ]),
            "discovery-endpoints" => {
                args.extend(["--discovery-token=a".into(), "--initial-cluster=".into()])
            }
            _ => {}
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let got = outcome(&Given {
            args: &args,
            ..Given::default()
        });
        assert!(
            got.contains(&format!("is not supported yet ({feature})")),
            "{args:?}: {got}"
        );
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
fn the_environment_sets_flags() {
    let check_env = |env: &[(&str, &str)], args: &[&str], expected: &str| {
        check(
            &Given {
                args,
                env,
                ..Given::default()
            },
            expected,
        );
    };
    check_env(
        &[
            ("ETCD_MAX_TXN_OPS", "7"),
            ("ETCD_NAME", ""),
            ("PATH", "/bin"),
            ("ETCD_VERIFY", "all"),
        ],
        &[],
        "info recognized and used environment variable {\"variable-name\": \"ETCD_MAX_TXN_OPS\", \"variable-value\": \"7\"}\nwarn unrecognized environment variable {\"environment-variable\": \"ETCD_NAME=\"}\nrun",
    );
    check_env(
        &[("ETCD_SERVICE_HOST", "x")],
        &[],
        "warn unrecognized environment variable {\"environment-variable\": \"ETCD_SERVICE_HOST=x\"}\nrun",
    );
    check_env(
        &[("ETCD_VERSION", "1")],
        &[],
        "warn cannot set special environment variable {\"key\": \"ETCD_VERSION\", \"value\": \"1\"}\nrun",
    );
    for (name, value) in [("ETCD_MAX_TXN_OPS", "abc"), ("ETCD_PRE_VOTE", "abc")] {
        check_env(
            &[(name, value)],
            &[],
            &failed(&format!("invalid value \"abc\" for {name}: parse error")),
        );
    }
    for value in ["abc", ""] {
        check_env(
            &[("ETCD_NAME", value)],
            &["--name=x"],
            "fatal conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag)) {\"environment-variable\": \"ETCD_NAME\"}",
        );
    }
    let given = Given {
        env: &[("ETCD_MAX_TXN_OPS", "7"), ("ETCD_PRE_VOTE", "F")],
        ..Given::default()
    };
    assert_eq!(
        (config(&given).max_txn_ops, config(&given).pre_vote),
        (7, false)
    );
}

#[test]
fn a_file_replaces_everything_else() {
    let file = "name: m1\nheartbeat-interval: 200\nauto-compaction-retention: '5m'\nlog-outputs: [stdout]\npre-vote: off\n\
                watch-progress-notify-interval: 60000000000\nclient-transport-security:\n  client-cert-auth: no\n\
                socket-options: {reuse-port: true}\nlisten-client-urls: http://127.0.0.1:1,http://127.0.0.1:2\n";
    let given = Given {
        args: &["--name=ignored", "--pre-vote=true"],
        env: &[("ETCD_NAME", "ignored"), ("ETCD_MAX_TXN_OPS", "abc")],
        file: Some(file),
        ..Given::default()
    };
    check(&given, "run");
    let config = config(&given);
    assert_eq!(config.name, "m1");
    assert_eq!(config.initial_cluster, "m1=http://localhost:2380");
    assert_eq!(config.data_dir, "m1.etcd");
    assert_eq!(
        (
            config.heartbeat_interval_ms,
            config.pre_vote,
            config.socket_reuse_port
        ),
        (200, false, true)
    );
    assert_eq!(config.watch_progress_notify_interval.to_string(), "1m0s");
    assert_eq!(config.listen_client_urls.len(), 2);
    assert_eq!(
        config.advertise_client_urls.len(),
        1,
        "the default is kept, unlike with flags"
    );
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let named = [("ETCD_CONFIG_FILE", "/nonexist")];
    check(
        &Given {
            env: &named,
            ..Given::default()
        },
        &failed("open /nonexist: no such file or directory"),
    );
    check_verify(&["--config-file=/"], "read /: is a directory");
}

#[test]
fn files_are_typed_as_in_etcd() {
    let mismatch = |file: &str, what: &str| {
        check_file(
            file,
            &failed(&format!(
                "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {what}"
            )),
        );
    };
    let field = |file: &str, found: &str, field: &str, wanted: &str| {
        mismatch(
            file,
            &format!("{found} into Go struct field {field} of type {wanted}"),
        );
    };
    for (value, found) in [
        ("abc", "string"),
        ("-1", "number -1"),
        ("1.5", "number 1.5"),
        ("true", "bool"),
        ("[1]", "array"),
        ("{a: 1}", "object"),
        ("100000000000000000000000", "number 1e+23"),
    ] {
        field(
            &format!("heartbeat-interval: {value}"),
            found,
            "configYAML.Config.heartbeat-interval",
            "uint",
        );
    }
    field("name: 5", "number", "configYAML.Config.name", "string");
    field("name: yes", "bool", "configYAML.Config.name", "string");
    field(
        "snapshot-count: x",
        "string",
        "configYAML.Config.snapshot-count",
        "uint64",
    );
    field(
        "quota-backend-bytes: x",
        "string",
        "configYAML.Config.quota-backend-bytes",
        "int64",
    );
    field(
        "backend-batch-limit: x",
        "string",
        "configYAML.Config.backend-batch-limit",
        "int",
    );
    field(
        "max-concurrent-streams: 5000000000",
        "number 5000000000",
        "configYAML.Config.max-concurrent-streams",
        "uint32",
    );
    field(
        "pre-vote: 1",
        "number",
        "configYAML.Config.pre-vote",
        "bool",
    );
    field(
        "pre-vote: 'true'",
        "string",
        "configYAML.Config.pre-vote",
        "bool",
    );
    field(
        "watch-progress-notify-interval: 10m",
        "string",
        "configYAML.Config.watch-progress-notify-interval",
        "time.Duration",
    );
    field(
        "listen-peer-urls: 5",
        "number",
        "configYAML.configJSON.listen-peer-urls",
        "string",
    );
    field(
        "feature-gates: 5",
        "number",
        "configYAML.configJSON.feature-gates",
        "string",
    );
    field(
        "log-outputs: stderr",
        "string",
        "configYAML.Config.log-outputs",
        "[]string",
    );
    field(
        "log-outputs: [1]",
        "number",
        "configYAML.Config.log-outputs",
        "string",
    );
    field(
        "client-transport-security: 5",
        "number",
        "configYAML.configJSON.client-transport-security",
        "embed.securityConfig",
    );
    field(
        "peer-transport-security: {cert-file: 5}",
        "number",
        "securityConfig.configJSON.peer-transport-security.cert-file",
        "string",
    );
    field(
        "socket-options: {reuse-port: 5}",
        "number",
        "SocketOpts.Config.socket-options.reuse-port",
        "bool",
    );
    field(
        "discovery-config: 5",
        "number",
        "configYAML.Config.discovery-config",
        "v3discovery.DiscoveryConfig",
    );
    field(
        "discovery-config: {token: 5}",
        "number",
        "DiscoveryConfig.Config.discovery-config.token",
        "string",
    );
    field(
        "discovery-config: {client: {dial-timeout: 5s}}",
        "string",
        "ConfigSpec.Config.discovery-config.client.dial-timeout",
        "time.Duration",
    );
    field(
        "pre-vote: 1\nheartbeat-interval: abc\nelection-timeout: def",
        "string",
        "configYAML.Config.election-timeout",
        "uint",
    );
    mismatch("[a, b]", "array into Go value of type embed.configYAML");
    mismatch("justtext", "string into Go value of type embed.configYAML");
}

#[test]
fn bad_texts_in_files_are_told_as_by_etcd() {
    let exits = |file: &str, code: u8, stderr: &str| {
        check_file(file, &format!("exit {code} [] [{stderr}\n]"))
    };
    let scheme = "URL scheme must be http, https, unix, or unixs: abc";
    exits(
        "listen-peer-urls: abc",
        1,
        &format!("unexpected error setting up listen-peer-urls: {scheme}"),
    );
    exits(
        "advertise-client-urls: abc",
        1,
        &format!("unexpected error setting up advertise-peer-urls: {scheme}"),
    );
    exits(
        "listen-metrics-urls: abc",
        1,
        &format!("unexpected error setting up listen-metrics-urls: {scheme}"),
    );
    exits(
        "cors: abc",
        2,
        &format!("panic: new UniqueURLs should never fail: {scheme}"),
    );
    exits("log-level: foo", 2, "panic: unrecognized level: \"foo\"");
    check_file("feature-gates: foo", &failed("missing bool value for foo"));
    check_file(
        "peer-transport-security:",
        &failed("invalid peer-transport-security"),
    );
    check_file(
        "initial-cluster-state: foo",
        &failed("unexpected clusterState \"foo\""),
    );
    check_file(
        "Heartbeat-Interval: 0",
        &failed("--heartbeat-interval must be >0 (set to 0ms)"),
    );
    check_file(
        "listen-peer-urls: abc\nname: 5\nfeature-gates: foo",
        &failed(
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number into Go struct field configYAML.Config.name of type string",
        ),
    );
    let broken = outcome(&Given {
        file: Some("a: b: c"),
        ..Given::default()
    });
    assert!(
        broken.starts_with(
            "warn failed to verify flags {\"error\": \"error converting YAML to JSON: yaml: "
        ),
        "{broken}"
    );
}

#[test]
fn files_may_leave_things_open() {
    check_file("", "run");
    check_file(
        "name:\ncors: ''\nhost-whitelist: ''\nlisten-peer-urls: ''\ninitial-cluster-state: ''\nlog-outputs:\nlog-level: ''",
        "run",
    );
    check_file("{\"name\": \"m1\", \"max-txn-ops\": 5}", "run");
    check_file(
        "colour: red",
        "warn unknown key in the configuration file is ignored {\"key\": \"colour\"}\nrun",
    );
    check_file(
        "v2-deprecation: anything",
        "warn --v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.\nrun",
    );
}

/// Keys that the sample files of 3.3 to 3.6 carry and that mean nothing any more.
#[test]
fn sample_files_of_older_versions_load() {
    check_file(
        "discovery:\ndiscovery-fallback: 'proxy'\ndiscovery-proxy:\ndiscovery-srv:\nenable-v2: false\nproxy: 'off'\n\
         proxy-failure-wait: 5000\nproxy-read-timeout: 0\nstrict-reconfig-check: false\nlog-level: debug\nforce-new-cluster: false\n",
        "warn unknown key in the configuration file is ignored {\"key\": \"discovery-fallback\"}\nrun",
    );
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
        &["--enable-v2"],
        &format!("warn --enable-v2 {without} {{\"value\": \"true\"}}\nrun"),
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

#[test]
fn every_supported_key_has_a_place_in_the_sample() {
    let sample = help::sample_file();
    assert_eq!(
        sample,
        include_str!("../../../dist/etcd.conf.yml.sample"),
        "dist/etcd.conf.yml.sample is not current: see help::sample_file"
    );
    check_file(
        &sample,
        "warn --max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.\nwarn --v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.\nrun",
    );
    let mut from_sample = config(&Given {
        file: Some(&sample),
        ..Given::default()
    });
    from_sample.config_file.clear();
    assert_eq!(from_sample, config(&Given::default()));
    for flag in FLAGS
        .iter()
        .filter(|flag| matches!(flag.effect, Effect::Field(_)) && flag.group != Group::Older)
    {
        if let Some(key) = flag.key {
            let indent = "  ".repeat(if matches!(key.section, Section::Top | Section::TopText) {
                0
            } else {
                key.path().matches('.').count()
            });
            assert!(
                sample.contains(&format!("\n{indent}{}: ", key.leaf)),
                "{} is missing",
                key.path()
            );
        }
    }
}

#[test]
fn the_page_of_flags_is_current() {
    assert_eq!(
        help::page(),
        include_str!("../../../docs/flags.md"),
        "docs/flags.md is not current: see help::page"
    );
}
