//! Guards against common mishaps: commands on standard input, lists with extra commas, closed
//! output, backups to targets that are not files.

mod harness;

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::process::Command;

use harness::terminal::Terminal;
use harness::{Member, Running, etcdctl, run};

/// Runs a command that needs no server and must fail.
fn refused(args: &[&str], error: &str, code: i32) {
    let done = run(etcdctl(args), "");
    let expected = (format!("Error: {error}"), Some(code));
    assert_eq!((done.errors(), done.status.code()), expected, "{args:?}");
}

#[test]
fn a_transaction_is_not_a_value() {
    let member = Member::start();
    let done = member.run(&["txn"], "\nput k1\n\n\n");
    let usage = "put command needs 1 argument and input from stdin or 2 arguments";
    assert_eq!(done.errors(), format!("Error: {usage}"));
    assert_eq!(done.status.code(), Some(128));
    // Outside of transactions, standard input is the value.
    assert_eq!(member.run(&["put", "k1"], "a b\n").stdout, "OK\n");
    assert_eq!(member.run(&["get", "k1"], "").stdout, "k1\na b\n\n");
}

#[test]
fn leases_are_compared_as_they_are_printed() {
    let member = Member::start();
    let granted = member.run(&["lease", "grant", "100"], "");
    let id = granted
        .stdout
        .split(' ')
        .nth(1)
        .expect("lease ID granted ...");
    member.run(&["put", "k", "v", &format!("--lease={id}")], "");
    let compare = format!("lease(\"k\") = \"{id}\"\n\nget k\n\n\n");
    assert_eq!(member.run(&["txn"], &compare).stdout, "SUCCESS\n\nk\nv\n");
    let done = member.run(&["txn"], "lease(\"k\") = \"10\"\n\nget k\n\n\n");
    assert_eq!(done.stdout, "FAILURE\n");
}

#[test]
fn empty_endpoints_do_not_count() {
    let member = Member::start();
    let client = &member.client;
    for list in [
        format!("{client},"),
        format!(",,{client}"),
        format!("{client},,"),
    ] {
        let done = run(etcdctl(&["--endpoints", &list, "put", "k", "v"]), "");
        assert_eq!(
            (done.stdout.as_str(), done.errors().as_str()),
            ("OK\n", ""),
            "{list}"
        );
        let mut command = etcdctl(&["endpoint", "health"]);
        command.env("ETCDCTL_ENDPOINTS", &list);
        let done = run(command, "");
        assert!(
            done.status.success() && done.stdout.lines().count() == 1,
            "{done:?}"
        );
    }
    let port = client.rsplit_once(':').unwrap().1;
    for endpoint in [format!(":{port}"), format!("HTTP://:{port}/")] {
        let done = run(etcdctl(&["--endpoints", &endpoint, "get", "k"]), "");
        assert_eq!(done.stdout, "k\nv\n", "{endpoint}");
    }
    refused(
        &["--endpoints=http://%zz", "get", "k"],
        "invalid endpoint \"http://%zz\"",
        2,
    );
    refused(
        &["--endpoints=,", "get", "k"],
        "etcdclient: no available endpoints",
        2,
    );
}

#[test]
fn zero_is_no_limit_but_for_commands() {
    let member = Member::start_with_tls();
    for flag in ["dial-timeout", "keepalive-time", "keepalive-timeout"] {
        for value in ["0", "0s", "-1s"] {
            let done = member.run(&["put", "k", "v", &format!("--{flag}={value}")], "");
            let told = (done.stdout.as_str(), done.errors());
            assert_eq!(told, ("OK\n", String::new()), "{flag} {value}");
        }
    }
    for value in ["0s", "-1s"] {
        let done = member.run(
            &["put", "k", "v", &format!("--command-timeout={value}")],
            "",
        );
        let told = (done.errors(), done.status.code());
        let late = "Error: context deadline exceeded".to_owned();
        assert_eq!(told, (late, Some(1)), "{value}");
    }
}

#[test]
fn progress_can_be_asked_for_before_the_watch_has_begun() {
    let member = Member::start();
    let mut watch = member.begin(&["watch", "-i"]);
    watch.write("watch a\nprogress\n");
    watch.expect_lines(&["progress notify: 1"]);
    member.run(&["put", "a", "1"], "");
    watch.expect_lines(&["PUT", "a", "1"]);
    watch.write("progress\n");
    watch.expect_lines(&["progress notify: 2"]);
}

/// A pipe without a reader.
fn closed_pipe() -> io::PipeWriter {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    writer
}

#[test]
fn closed_output_ends_commands_silently() {
    for args in [
        &["completion", "bash"][..],
        &["--help"],
        &["options"],
        &["help", "get"],
    ] {
        let mut command = etcdctl(args);
        let done = command
            .stdout(closed_pipe())
            .output()
            .expect("the tool starts");
        let errors = String::from_utf8_lossy(&done.stderr);
        // The code that shells report for a command killed by SIGPIPE.
        assert_eq!(
            (&errors[..], done.status.code()),
            ("", Some(141)),
            "{args:?}"
        );
    }
    // On stderr as well: the error cannot be reported, and must not panic.
    let mut command = etcdctl(&["nosuch"]);
    let done = command
        .stderr(closed_pipe())
        .output()
        .expect("the tool starts");
    assert_eq!(done.status.code(), Some(1));
}

#[test]
fn who_sits_at_a_terminal_is_told_what_to_do() {
    let member = Member::start_with_tls();
    let endpoint = format!("--endpoints=https://{}", member.client);
    let args = [&endpoint, "get", "k", "--command-timeout=1s"];
    let mut terminal = Terminal::run(&args);
    terminal.expect("name its certificate with --cacert.\r\nError: context deadline exceeded\r\n");
    assert_eq!(terminal.end().code(), Some(1));
    refused(&args, "context deadline exceeded", 1);
}

#[test]
fn help_is_about_words_not_flags() {
    let done = run(etcdctl(&["--hex", "help", "--endpoints", "a:1", "foo"]), "");
    let first = done.stderr.lines().next();
    assert_eq!(first, Some("Unknown help topic [`foo`]"));
    let done = run(
        etcdctl(&["help", "lease", "--dial-timeout=1s", "grant"]),
        "",
    );
    assert!(
        done.stdout.contains("etcdctl lease grant <ttl>"),
        "{done:?}"
    );
}

#[test]
fn moved_commands_name_their_replacement() {
    for (command, to) in [
        ("restore", "etcdutl snapshot restore"),
        ("status", "etcdutl snapshot status"),
    ] {
        let text = format!("etcdctl snapshot {command} has moved, use `{to}`");
        refused(&["snapshot", command], &text, 1);
        refused(&["snapshot", command, "f", "--data-dir=d"], &text, 1);
    }
    let help = run(etcdctl(&["snapshot", "--help"]), "").stdout;
    assert!(help.contains("save") && !help.contains("restore"), "{help}");
}

#[test]
fn a_backup_replaces_regular_files_only() {
    let member = Member::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| dir.path().join(name);
    let save = |path: &str| {
        let done = member.run(&["snapshot", "save", path], "");
        assert!(done.status.success(), "{done:?}");
    };
    symlink("real", at("link")).expect("room");
    save(at("link").to_str().expect("text"));
    assert!(
        fs::symlink_metadata(at("link"))
            .expect("a link")
            .is_symlink()
    );
    let status = Command::new(env!("CARGO_BIN_EXE_etcdutl"))
        .args(["snapshot", "status"])
        .arg(at("real"))
        .status();
    assert!(status.expect("the tool starts").success());

    let to_pipe = format!(
        "{} --endpoints {} snapshot save >(cat > {})",
        env!("CARGO_BIN_EXE_etcdctl"),
        member.client,
        at("piped").display()
    );
    let mut shell = Command::new("bash");
    // The shell waits for the command in the pipeline.
    shell.args(["-c", &format!("{to_pipe}; wait $!")]);
    let done = Running::start(shell).end();
    assert!(done.status.success(), "{done:?}");
    let lengths = ["piped", "real"].map(|name| fs::metadata(at(name)).expect("made").len());
    assert_eq!(lengths[0], lengths[1]);

    let refusal = format!("Error: {} is a directory, not a file", dir.path().display());
    let done = member.run(
        &["snapshot", "save", dir.path().to_str().expect("text")],
        "",
    );
    assert_eq!((done.errors(), done.status.code()), (refusal, Some(5)));
}
