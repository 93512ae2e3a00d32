//! `top` shows what members tell, on a terminal and in scripts, and leaves the terminal as it was.

mod harness;

use std::io::Write;

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

use harness::terminal::Terminal;
use harness::{Member, etcdctl, free_address, run};

const ONCE: [&str; 3] = ["top", "--once", "--interval=50ms"];

#[test]
fn a_look_is_printed() {
    let member = Member::start();
    member.run(&["put", "k", "v"], "");
    let json = member.run(&[&ONCE[..], &["-w", "json"]].concat(), "");
    let view: Value =
        serde_json::from_str(&json.stdout).unwrap_or_else(|error| panic!("{error}: {json:?}"));
    assert_eq!(view["leader"], "m1");
    let row = &view["members"][0];
    assert_eq!(
        (&row["name"], &row["role"], &row["revision"]),
        (&"m1".into(), &"leader".into(), &2.into())
    );
    for number in [
        "lag",
        "readsPerSecond",
        "writesPerSecond",
        "watchers",
        "dbSize",
        "dbQuota",
        "memoryBytes",
    ] {
        assert!(row[number].is_number(), "{number}: {row}");
    }
    let table = member.run(&ONCE, "").stdout;
    assert!(
        table.starts_with("NAME    ROLE  VERSION  REVISION  TERM  LAG"),
        "{table}"
    );
    assert!(
        table.contains("\nm1    leader    3.7.1         2 "),
        "{table}"
    );
    let table = member
        .run(&[&ONCE[..], &["-w", "table"]].concat(), "")
        .stdout;
    assert!(table.contains("│   m1 │ leader │"), "{table}");
}

#[test]
fn members_that_do_not_answer_are_named() {
    let member = Member::start();
    let silent = format!("http://{}", free_address());
    let endpoints = format!("http://{},{silent}", member.client);
    let args = ["--endpoints", &endpoints, "--command-timeout=500ms"];
    let done = run(
        etcdctl(&[&args[..], &ONCE, &["--cluster=false", "-w", "json"]].concat()),
        "",
    );
    let view: Value =
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"));
    assert_eq!(
        (&view["members"][1]["name"], &view["members"][0]["role"]),
        (&"m1".into(), &"unknown".into())
    );
    let warnings = view["warnings"].to_string();
    assert!(
        warnings.contains(&format!("no answer from {silent}: ")),
        "{warnings}"
    );
    let done = run(
        etcdctl(
            &[
                &["--endpoints", &silent, "--command-timeout=500ms"],
                &ONCE[..],
            ]
            .concat(),
        ),
        "",
    );
    assert!(
        done.errors()
            .starts_with("Error: cannot list the members: "),
        "{done:?}"
    );
    assert!(
        done.errors()
            .ends_with("\nName an endpoint that answers with --endpoints."),
        "{done:?}"
    );
}

#[test]
fn metrics_can_be_elsewhere() {
    let metrics = format!("http://{}", free_address());
    let member = Member::start_with(&["--listen-client-http-urls", &metrics]);
    let missed = member.run(&ONCE, "").stdout;
    assert!(
        missed.contains("m1: no metrics: /metrics is answered with"),
        "{missed}"
    );
    let elsewhere = format!("--metrics-endpoints={metrics}");
    let json = member
        .run(&[&ONCE[..], &["-w", "json", &elsewhere]].concat(), "")
        .stdout;
    let view: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    assert!(view["members"][0]["readsPerSecond"].is_number(), "{view}");
    assert!(!json.contains("no metrics"), "{view}");
}

#[test]
fn metrics_come_over_tls_as_everything_else() {
    let member = Member::start_with_tls();
    let json = member
        .run(&[&ONCE[..], &["-w", "json"]].concat(), "")
        .stdout;
    let view: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    let row = &view["members"][0];
    assert!(
        row["endpoint"]
            .as_str()
            .expect("text")
            .starts_with("https://"),
        "{row}"
    );
    assert!(row["writesPerSecond"].is_number(), "{row}");
}

#[test]
fn members_that_have_not_started_are_shown() {
    let member = Member::start();
    let added = member.run(
        &[
            "member",
            "add",
            "m2",
            "--learner",
            "--peer-urls=http://127.0.0.1:1",
        ],
        "",
    );
    assert!(added.status.success(), "{added:?}");
    let done = member.run(&ONCE, "");
    assert!(done.stdout.ends_with(": it has not started\n"), "{done:?}");
}

#[test]
fn a_terminal_shows_members_until_a_key_or_a_signal() {
    let member = Member::start();
    let begin = || {
        let args = ["--endpoints", &member.client, "top", "--interval=100ms"];
        let terminal = Terminal::run(&args);
        let size = Winsize {
            ws_row: 24,
            ws_col: 200,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&terminal.keyboard, size).expect("a terminal");
        // Only cells that change are drawn: these were blank.
        terminal.expect("WATCHERS");
        assert!(!terminal.echoes());
        terminal
    };
    let mut terminal = begin();
    terminal.keyboard.write_all(b" ").expect("a terminal");
    terminal.expect("PAUSED");
    terminal.keyboard.write_all(b"q").expect("a terminal");
    assert_eq!(terminal.end().code(), Some(0));
    assert!(terminal.echoes());
    let mut terminal = begin();
    kill_process(Pid::from_child(&terminal.command), Signal::TERM).expect("it runs");
    assert_eq!(terminal.end().code(), Some(0));
    assert!(terminal.echoes());
}

#[test]
fn refusals_have_a_next_step() {
    let refused = |args: &[&str], error: &str, code| {
        let done = run(etcdctl(&[&["top"], args].concat()), "");
        assert_eq!(
            (done.errors(), done.status.code()),
            (format!("Error: {error}"), Some(code))
        );
    };
    refused(
        &[],
        "top needs a terminal; use --once where there is none",
        128,
    );
    refused(
        &["a"],
        "top takes no arguments; name members with --endpoints",
        128,
    );
    refused(&["--interval=0"], "--interval must be longer than 0", 128);
    refused(
        &["--once", "-w", "fields"],
        "fields not supported as output format",
        4,
    );
    refused(
        &["--sort=x"],
        "unknown order \"x\" of --sort, use one of: name, lag, in-use, reads/s, writes/s, p99, fsync, watchers",
        128,
    );
}
