//! The log of a whole process: what a panic leaves behind, and where lines go.
//!
//! The log is global to a process, so each test runs a part of this file again as a child.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use retcd_log::{self as log, Format, Hex, Level, Options, Text};

/// Runs the child test `name` in a process of its own. `dir` is for its files.
fn run(name: &str, dir: &Path) -> Output {
    let exe = std::env::current_exe().expect("a test has a path");
    let child = Command::new(exe)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("LOG_TEST_DIR", dir)
        .env("TZ", "UTC")
        .output();
    child.expect("a test can run itself")
}

/// The directory, in a child; none when the whole file is tested.
fn child_dir() -> Option<std::path::PathBuf> {
    std::env::var_os("LOG_TEST_DIR").map(Into::into)
}

/// The lines of the log, without what the test harness prints.
fn lines(text: &[u8]) -> Vec<serde_json::Value> {
    let text = String::from_utf8_lossy(text);
    text.lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn child_panics_on_a_thread() {
    if child_dir().is_some() {
        log::abort_on_panic();
        let thread = std::thread::Builder::new()
            .name("apply".into())
            .spawn(|| panic!("index {} is gone", 7));
        drop(thread.expect("spawns").join());
        log::info!("still alive");
    }
}

#[test]
fn a_panic_on_any_thread_ends_the_process_loudly() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = run("child_panics_on_a_thread", dir.path());
    assert_eq!(output.status.signal(), Some(6), "SIGABRT");
    let lines = lines(&output.stderr);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["level"], "fatal");
    assert_eq!(lines[0]["error"], "index 7 is gone");
    assert_eq!(lines[0]["thread"], "apply");
    let location = lines[0]["location"].as_str().expect("text");
    assert!(location.contains("tests/outputs.rs:"), "{location}");
}

#[test]
fn child_logs_to_two_outputs() {
    if let Some(dir) = child_dir() {
        log::warn!("before the log is set"; "error" => Text("x"));
        let file = log::Output::File(dir.join("etcd.log"));
        let options = Options {
            level: Level::Warn,
            format: Format::Json,
            outputs: vec![file, log::Output::Stderr],
            ..Options::default()
        };
        log::init(&options).expect("opens");
        log::info!("below the level");
        log::warn!(logger: "raft", "lost leader"; "local-member-id" => Hex(0x8e9e), "term" => 2u64);
        log::fatal!("the end");
    }
}

#[test]
fn lines_go_to_every_output_and_fatal_ends_with_one() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = run("child_logs_to_two_outputs", dir.path());
    assert_eq!(output.status.code(), Some(1));
    let messages = |lines: &[serde_json::Value]| {
        lines
            .iter()
            .map(|line| line["msg"].clone())
            .collect::<Vec<_>>()
    };
    let (on_stderr, in_file) = (
        lines(&output.stderr),
        lines(&std::fs::read(dir.path().join("etcd.log")).expect("written")),
    );
    assert_eq!(
        messages(&on_stderr),
        ["before the log is set", "lost leader", "the end"]
    );
    assert_eq!(in_file, on_stderr[1..]);
    let keys: Vec<&String> = in_file[0].as_object().expect("an object").keys().collect();
    for key in [
        "level",
        "ts",
        "logger",
        "caller",
        "msg",
        "local-member-id",
        "term",
    ] {
        assert!(
            keys.iter().any(|known| *known == key),
            "{key} is missing in {keys:?}"
        );
    }
    assert!(
        in_file[0]["caller"]
            .as_str()
            .expect("text")
            .starts_with("tests/outputs.rs:"),
        "{}",
        in_file[0]["caller"]
    );
}
