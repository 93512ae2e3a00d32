//! The environment and the file.

use super::*;

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
        "info recognized and used environment variable {\"variable-name\": \"ETCD_MAX_TXN_OPS\", \"variable-value\": \"7\"}\nwarn unrecognized environment variable {\"environment-variable\": \"ETCD_NAME\"}\nrun",
    );
    check_env(
        &[("ETCD_SERVICE_HOST", "x")],
        &[],
        "warn unrecognized environment variable {\"environment-variable\": \"ETCD_SERVICE_HOST\"}\nrun",
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
