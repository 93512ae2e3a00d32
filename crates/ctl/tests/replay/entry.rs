//! Entries of the transcripts.

use std::collections::BTreeMap;

use serde_json::Value;

/// A command line and its environment.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// The arguments; empty for a shell line.
    pub args: Vec<String>,
    /// A shell line instead of an etcdctl command.
    pub shell: Option<String>,
    /// Whether the arguments are for etcdutl.
    pub offline_tool: bool,
    /// What is done by the test itself instead.
    pub event: Option<Event>,
    /// It is run again and again until its stdout is this.
    pub until: Option<String>,
    /// Standard input.
    pub stdin: String,
    /// The `ETCDCTL_*` variables; `None` for the defaults.
    pub env: Option<BTreeMap<String, String>>,
    /// For commands that do not exit by themselves.
    pub bound: Option<Bound>,
    /// Commands to run while it runs.
    pub during: Vec<Step>,
}

impl Step {
    /// Whether standard input stays open.
    pub fn is_left_open(&self) -> bool {
        self.bound.as_ref().is_some_and(|bound| bound.stdin_open)
    }
}

/// Something that no command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server is asked to end, and ends.
    StopServer,
    /// The alarm CORRUPT is raised.
    RaiseCorrupt,
    /// The first proxy is asked to end, and ends.
    StopProxy,
}

/// A page that is asked for instead of a command, and what it was answered with.
#[derive(Clone, Debug)]
pub struct Page {
    /// The method of the request.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Who is asked: a placeholder.
    pub of: String,
    /// The status of the answer.
    pub status: String,
    /// Some of its headers.
    pub headers: BTreeMap<String, String>,
    /// Its body; of metrics, the types of families.
    pub body: String,
}

/// When to terminate a command.
#[derive(Clone, Debug)]
pub struct Bound {
    /// After this many lines on stdout; `None` for as many as the original printed.
    pub lines: Option<usize>,
    /// Whether standard input stays open.
    pub stdin_open: bool,
    /// Not before this command prints what it is to.
    pub until: Option<Box<Step>>,
}

/// A command and its recorded result.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Group and number.
    pub id: String,
    /// The server's flags.
    pub flags: Vec<String>,
    /// Whether clients connect over TLS.
    pub encrypted: bool,
    /// Whether a server runs.
    pub needs_server: bool,
    /// The servers of the group.
    pub members: usize,
    /// The arguments of the proxies that run before them.
    pub proxies: Vec<Vec<String>>,
    /// What is asked for instead of a command.
    pub page: Option<Page>,
    /// Commands that run before it and are not compared.
    pub setup: Vec<Step>,
    /// The command; `None` if there is only a setup.
    pub command: Option<Step>,
    /// Its standard output.
    pub stdout: String,
    /// Alternative orders of its lines: member order depends on ids, the order of a lease's keys is
    /// arbitrary.
    pub stdout_or: Vec<String>,
    /// Whether only the start of stdout was recorded.
    pub truncated: bool,
    /// Whether stdout is messages of protobuf, recorded as [`protobuf`](super::protobuf) shows them.
    pub protobuf: bool,
    /// Whether stdout is a help text, of which only the names are recorded.
    pub help: bool,
    /// Whether the command contacts no server, although one was running.
    pub offline: bool,
    /// The expected error lines.
    pub stderr: String,
    /// Its exit code; 128 + n for signal n.
    pub exit: i64,
}

impl Entry {
    /// An estimate of how long it waits.
    pub fn waits(&self) -> usize {
        self.command
            .as_ref()
            .map_or(0, |step| if step.bound.is_some() { 10 } else { 0 })
    }
}

/// A file of transcripts.
pub struct Transcripts {
    /// The ids of entries that are answered otherwise on purpose, and why. Their answers in the file
    /// are ours.
    pub exceptions: BTreeMap<String, String>,
    /// The same of entries at which the original crashes or hangs, so that there is no answer to
    /// equal.
    pub crashes: BTreeMap<String, String>,
    /// Why entries are not in the file, and how many.
    pub left_out: BTreeMap<String, u64>,
    /// The entries by group.
    pub groups: BTreeMap<String, Vec<Entry>>,
}

/// Reads a file.
pub fn read(data: &str) -> Transcripts {
    let mut lines = data
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("the data is JSON"));
    let head = lines.next().expect("the first line says what differs");
    let members = |name: &str| head[name].as_object().cloned().unwrap_or_default();
    let reasons = |name: &str| {
        let members = members(name).into_iter();
        members.map(|(id, why)| (id, why.as_str().expect("a reason").to_owned()))
    };
    let left_out = members("left_out").into_iter();
    let left_out = left_out.map(|(why, count)| (why, count.as_u64().expect("a count")));
    let mut transcripts = Transcripts {
        exceptions: reasons("exceptions").collect(),
        crashes: reasons("crashes").collect(),
        left_out: left_out.collect(),
        groups: BTreeMap::new(),
    };
    for line in lines {
        let group = line["group"]
            .as_str()
            .expect("every entry has a group")
            .to_owned();
        let entries = transcripts.groups.entry(group).or_default();
        entries.push(entry(&line));
    }
    transcripts
}

fn entry(line: &Value) -> Entry {
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    Entry {
        id: text("id"),
        flags: strings(&line["flags"]),
        encrypted: line["client_scheme"].as_str() == Some("https"),
        needs_server: line["members"].as_u64() != Some(0),
        members: line["members"].as_u64().unwrap_or(1) as usize,
        proxies: line["proxies"]
            .as_array()
            .into_iter()
            .flatten()
            .map(strings)
            .collect(),
        page: line.get("page").map(page),
        setup: steps(&line["setup"]),
        command: line.get("args").map(|_| step(line)),
        stdout: text("stdout"),
        stdout_or: strings(&line["or"]),
        truncated: line["truncated"].as_bool().unwrap_or(false),
        protobuf: line["protobuf"].as_bool().unwrap_or(false),
        help: line["help"].as_bool().unwrap_or(false),
        offline: line["offline"].as_bool().unwrap_or(false),
        stderr: text("stderr"),
        exit: line["exit"].as_i64().unwrap_or(0),
    }
}

fn page(page: &Value) -> Page {
    let text = |name: &str| page[name].as_str().expect("a text").to_owned();
    let headers = page["headers"].as_object().expect("headers").iter();
    Page {
        method: text("method"),
        path: text("path"),
        of: text("of"),
        status: page["status"].to_string(),
        headers: headers
            .map(|(name, value)| (name.clone(), value.as_str().expect("a text").to_owned()))
            .collect(),
        body: text("body"),
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
        until: bound.get("until").map(|until| Box::new(step(until))),
    });
    Step {
        args: strings(&value["args"]),
        shell: value["sh"].as_str().map(str::to_owned),
        offline_tool: value["tool"].as_str() == Some("etcdutl"),
        event: value["event"].as_str().map(|event| match event {
            "stop server" => Event::StopServer,
            "raise CORRUPT" => Event::RaiseCorrupt,
            "stop proxy" => Event::StopProxy,
            other => panic!("no such event: {other}"),
        }),
        until: value["until"].as_str().map(str::to_owned),
        stdin,
        env,
        bound,
        during: steps(&value["during"]),
    }
}
