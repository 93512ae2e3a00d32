//! The transcripts' entries.

use std::collections::BTreeMap;

use serde_json::Value;

/// A command line with its surroundings.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// The arguments; empty for a shell line.
    pub args: Vec<String>,
    /// A shell line instead of a command of the tool.
    pub shell: Option<String>,
    /// What stands on standard input.
    pub stdin: String,
    /// The `ETCDCTL_*` variables; `None` for the usual ones.
    pub env: Option<BTreeMap<String, String>>,
    /// The command does not end by itself.
    pub bound: Option<Bound>,
    /// Commands that run while it runs.
    pub during: Vec<Step>,
}

/// When to end a command, and how.
#[derive(Clone, Debug)]
pub struct Bound {
    /// After so many lines on stdout; `None` for as many as the original printed.
    pub lines: Option<usize>,
    /// Whether standard input stays open.
    pub stdin_open: bool,
}

/// A command and what the original did.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Group and number.
    pub id: String,
    /// The server's flags.
    pub flags: Vec<String>,
    /// Whether it serves clients over TLS.
    pub encrypted: bool,
    /// Whether a server runs.
    pub needs_server: bool,
    /// What runs before it and is not compared.
    pub setup: Vec<Step>,
    /// The command; `None` if there is only a setup.
    pub command: Option<Step>,
    /// Its standard output.
    pub stdout: String,
    /// The same in other orders: that of members follows from their ids, that of a lease's keys from nothing.
    pub stdout_or: Vec<String>,
    /// Whether only the beginning of stdout is known.
    pub truncated: bool,
    /// Whether stdout is binary and is compared in its being there only.
    pub binary: bool,
    /// Its error lines.
    pub stderr: String,
    /// Its exit code; 128 + n for signal n.
    pub exit: i64,
}

impl Entry {
    /// A measure of how long it waits.
    pub fn waits(&self) -> usize {
        self.command
            .as_ref()
            .map_or(0, |step| if step.bound.is_some() { 10 } else { 0 })
    }
}

/// Reads the file: what was left out, and the entries by group.
pub fn read(data: &str) -> (BTreeMap<String, u64>, BTreeMap<String, Vec<Entry>>) {
    let mut lines = data
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("the data is JSON"));
    let head = lines.next().expect("the first line says what was left out");
    let left_out = head["left_out"].as_object().expect("an object");
    let left_out = left_out
        .iter()
        .map(|(reason, n)| (reason.clone(), n.as_u64().expect("a count")))
        .collect();
    let mut groups: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for line in lines {
        let group = line["group"]
            .as_str()
            .expect("every entry has a group")
            .to_owned();
        groups.entry(group).or_default().push(entry(&line));
    }
    (left_out, groups)
}

fn entry(line: &Value) -> Entry {
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    Entry {
        id: text("id"),
        flags: strings(&line["flags"]),
        encrypted: line["client_scheme"].as_str() == Some("https"),
        needs_server: line["members"].as_u64() != Some(0),
        setup: steps(&line["setup"]),
        command: line.get("args").map(|_| step(line)),
        stdout: text("stdout"),
        stdout_or: strings(&line["or"]),
        truncated: line["truncated"].as_bool().unwrap_or(false),
        binary: line["binary"].as_bool().unwrap_or(false),
        stderr: text("stderr"),
        exit: line["exit"].as_i64().unwrap_or(0),
    }
}

fn strings(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items
        .map(|item| item.as_str().expect("a list of texts").to_owned())
        .collect()
}

fn steps(list: &Value) -> Vec<Step> {
    list.as_array().into_iter().flatten().map(step).collect()
}

fn step(value: &Value) -> Step {
    let mut stdin = value["stdin"].as_str().unwrap_or_default().to_owned();
    if let Some(repeat) = value.get("stdin_repeat") {
        let count = usize::try_from(repeat["count"].as_u64().expect("a count")).expect("a size");
        stdin = repeat["text"].as_str().expect("a text").repeat(count);
    }
    let env = value.get("env").and_then(Value::as_object).map(|env| {
        env.iter()
            .map(|(name, value)| (name.clone(), value.as_str().expect("a text").to_owned()))
            .collect()
    });
    let bound = value.get("bound").map(|bound| Bound {
        lines: bound["lines"]
            .as_u64()
            .map(|lines| usize::try_from(lines).expect("a size")),
        stdin_open: bound["stdin"].as_str() == Some("left open"),
    });
    Step {
        args: strings(&value["args"]),
        shell: value["sh"].as_str().map(str::to_owned),
        stdin,
        env,
        bound,
        during: steps(&value["during"]),
    }
}
