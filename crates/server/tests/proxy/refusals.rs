//! Helps and refusals, compared with those of etcd 3.7.1 (`data/proxies-3.7.1.jsonl`): exit code, standard
//! output, and standard error, of its log lines all but times, places in the source and stacks.
//!
//! What a flag is for is told in our own words, so of helps only names, types and defaults count.

use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use super::place::program;

#[derive(Deserialize)]
struct Entry {
    id: String,
    args: Vec<String>,
    stdout: String,
    stderr: String,
    exit: i32,
    #[serde(default)]
    stderr_truncated: bool,
}

/// Entries that end by themselves, and are not told otherwise by us on purpose.
fn is_compared(entry: &Entry) -> bool {
    const ELSEWHERE: &[&str] = &[
        // It runs: see the tests of the gateway.
        "gateway-flags-15",
        // How long a certificate is valid is told in another way.
        "grpc-proxy-flags-13",
    ];
    !ELSEWHERE.contains(&entry.id.as_str())
}

#[test]
fn helps_and_refusals_are_etcds() {
    let entries = include_str!("../data/proxies-3.7.1.jsonl").lines();
    let mut compared = 0;
    for line in entries {
        let entry: Entry = serde_json::from_str(line).expect("an entry");
        if is_compared(&entry) {
            compare(&entry);
            compared += 1;
        }
    }
    assert_eq!(compared, 29);
}

fn compare(entry: &Entry) {
    let id = &entry.id;
    let dir = tempfile::tempdir().expect("a directory");
    let output = Command::new(program())
        .args(&entry.args)
        .current_dir(dir.path())
        .output()
        .expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(entry.exit), "{id}: {stderr}");
    assert_eq!(comparable(&stdout), comparable(&entry.stdout), "{id}");
    if entry.stderr_truncated {
        assert!(stderr.starts_with(&entry.stderr), "{id}: {stderr}");
        let reason = entry.stderr.trim_start_matches("Error: ").trim_end();
        assert!(stderr.ends_with(&format!("\n\n{reason}")), "{id}: {stderr}");
    } else {
        assert_eq!(lines(&stderr), lines(&entry.stderr), "{id}");
    }
}

/// Of the help of flags, their names, types and defaults.
fn comparable(text: &str) -> String {
    let flag = |line: &str| {
        let line = line.trim_start();
        let (name, rest) = line.split_once("   ").unwrap_or((line, ""));
        let default = rest.rfind(" (default ").filter(|_| rest.ends_with(')'));
        format!("{name}{}", default.map_or("", |at| &rest[at..]))
    };
    let lines = text.split_inclusive('\n').map(|line| {
        if line.trim_start().starts_with("--") {
            flag(line.trim_end())
        } else {
            line.trim_end_matches(' ').to_owned()
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The lines of a standard error.
fn lines(text: &str) -> Vec<Value> {
    let line = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(mut fields)) => {
            for of_the_moment in ["ts", "caller", "stacktrace"] {
                fields.remove(of_the_moment);
            }
            if let Some(Value::Array(args)) = fields.get_mut("args") {
                // The program, however it was called.
                args[0] = "etcd".into();
            }
            Value::Object(fields)
        }
        _ => Value::String(line.to_owned()),
    };
    text.lines().map(line).collect()
}
