//! Starts that are refused, compared with those of etcd 3.7.1 (`data/refusals-3.7.1.jsonl`): exit code, and
//! of its log the lines about the matter, whatever else is logged around them.

use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use super::place::{free_port, program};

#[derive(Deserialize)]
struct Entry {
    id: String,
    args: Vec<String>,
    exit: i32,
    /// JSON lines without time and place, others as text; of the console, columns without both.
    lines: Vec<Value>,
}

/// Entries that are told otherwise on purpose, and how: see docs/compatibility.md.
const OTHERWISE: [(&str, &str); 2] = [
    (
        "server-refusals-14",
        "--discovery=http://x asks for what is not part of etcd any more",
    ),
    (
        "server-refusals-50",
        "--max-learners must be >=0 (set to -1)",
    ),
];

#[test]
fn starts_are_refused_in_etcds_words() {
    let mut differences = Vec::new();
    let mut compared = 0;
    for line in include_str!("../data/refusals-3.7.1.jsonl").lines() {
        let entry: Entry = serde_json::from_str(line).expect("an entry");
        compared += 1;
        if let Some((_, wanted)) = OTHERWISE.iter().find(|(id, _)| *id == entry.id) {
            let (_, log) = start(&entry);
            if !log.contains(wanted) {
                differences.push(format!("{}: no {wanted:?} in\n{log}", entry.id));
            }
            continue;
        }
        differences.extend(compare(&entry));
    }
    assert_eq!(compared, 27);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The exit code and standard error of a start.
fn start(entry: &Entry) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let ports = [free_port().to_string(), free_port().to_string()];
    let args = entry.args.iter().map(|arg| {
        arg.replace("{{CLIENT_PORT}}", &ports[0])
            .replace("{{PEER_PORT}}", &ports[1])
    });
    let output = Command::new(program())
        .args(args)
        .current_dir(dir.path())
        .output()
        .expect("the program starts");
    let log = String::from_utf8(output.stderr).expect("text");
    let mut log = log.replace(program(), "etcd");
    for (port, name) in ports.iter().zip(["{{CLIENT_PORT}}", "{{PEER_PORT}}"]) {
        log = log.replace(port.as_str(), name);
    }
    (output.status.code(), log)
}

fn compare(entry: &Entry) -> Option<String> {
    let (exit, log) = start(entry);
    let told: Vec<Value> = log.lines().map(comparable).collect();
    let missing = entry.lines.iter().find(|line| !told.contains(line));
    let id = &entry.id;
    match missing {
        _ if exit != Some(entry.exit) => {
            Some(format!("{id}: exit {exit:?}, not {}\n{log}", entry.exit))
        }
        Some(line) => Some(format!("{id}: no {line} in\n{log}")),
        None => None,
    }
}

fn comparable(line: &str) -> Value {
    if let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(line) {
        for of_the_moment in ["ts", "caller", "stacktrace"] {
            fields.remove(of_the_moment);
        }
        return Value::Object(fields);
    }
    let columns: Vec<&str> = line.split('\t').collect();
    match columns[..] {
        [_time, level, _place, ref rest @ ..] => {
            Value::String([&[level], rest].concat().join("\t"))
        }
        _ => Value::String(line.to_owned()),
    }
}
