//! What etcd 3.3.25 answered, and how to compare with it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::client::Request;

/// One request a line. Those of a group (`keys-…`) were sent one behind the other to a fresh server.
const TRANSCRIPT: &str = include_str!("../data/v2-3.3.25.jsonl");

/// Headers that were kept.
const HEADERS: [&str; 10] = [
    "Allow",
    "Content-Length",
    "Content-Type",
    "Location",
    "Transfer-Encoding",
    "Www-Authenticate",
    "X-Content-Type-Options",
    "X-Etcd-Cluster-Id",
    "X-Etcd-Index",
    "X-Raft-Index",
];

/// What came before something that is not in the answer would have come with it.
const ABSENCE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
pub struct Exchange {
    pub id: String,
    request: RequestLine,
    status: Option<u16>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    /// Of a stream: who ended it.
    ended_by: Option<String>,
    /// Sent once a stream has begun.
    #[serde(default)]
    during: Vec<RequestLine>,
}

#[derive(Debug, Deserialize)]
struct RequestLine {
    method: String,
    path: String,
    form: Option<BTreeMap<String, String>>,
    body: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Sent so many times, `{i%7}` in the path replaced; the answers do not matter.
    repeat: Option<usize>,
}

/// The exchanges of one group.
pub fn group(name: &str) -> Vec<Exchange> {
    let exchanges = TRANSCRIPT
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let group: Vec<Exchange> = exchanges
        .filter(|exchange: &Exchange| exchange.id.starts_with(name))
        .collect();
    assert!(group.len() > 10, "{name} has {} exchanges", group.len());
    group
}

/// What becomes of numbers in a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// They are as they were.
    Compared,
    /// They need not be, nor need the length.
    Ours,
}

/// What placeholders stand for on one server.
pub struct Names(BTreeMap<String, String>);

impl Names {
    pub fn new(client_port: u16, peer_port: u16) -> Names {
        let address = |port: u16| format!("127.0.0.1:{port}");
        Names(BTreeMap::from([
            ("HOST".to_owned(), address(client_port)),
            ("PEER".to_owned(), address(peer_port)),
        ]))
    }

    /// `text` with what is known in place of its placeholders.
    fn fill(&self, text: &str) -> String {
        let mut filled = text.to_owned();
        for (name, value) in &self.0 {
            filled = filled.replace(&format!("{{{{{name}}}}}"), value);
        }
        filled
    }

    /// Whether `text` is `pattern`; learns the ids in it.
    fn matches(&mut self, pattern: &str, text: &str) -> bool {
        let pattern = self.fill(pattern);
        let Some((before, rest)) = pattern.split_once("{{") else {
            return pattern == text;
        };
        let (name, after) = rest.split_once("}}").expect("placeholders are closed");
        let Some(text) = text.strip_prefix(before) else {
            return false;
        };
        let belongs: fn(char) -> bool = match name {
            "RAFT_INDEX" | "RAFT_TERM" | "TTL" | "LENGTH" | "N" => |c| c.is_ascii_digit(),
            "TIME" => |c| c.is_alphanumeric() || matches!(c, '-' | ':' | '.'),
            _ => |c| c.is_ascii_hexdigit(),
        };
        let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
        let (value, text) = text.split_at(end);
        if value.is_empty() {
            return false;
        }
        if name.ends_with(":hex") {
            self.0.insert(name.to_owned(), value.to_owned());
        }
        // What is behind is a pattern of its own.
        self.matches(after, text)
    }
}

impl Exchange {
    /// Whether the page is what this names.
    pub fn is_of(&self, path: &str) -> bool {
        self.request.path == path
    }

    /// Sends it, and compares what comes, but for the numbers in it if these are ours.
    ///
    /// # Errors
    /// What is different.
    pub fn replay(&self, port: u16, names: &mut Names, numbers: Numbers) -> Result<(), String> {
        let request = self.request.fill(names);
        if let Some(times) = self.request.repeat {
            for i in 0..times {
                let mut request = request.clone();
                request.path = request.path.replace("{i%7}", &(i % 7).to_string());
                request.answer(port);
            }
            return Ok(());
        }
        let mut answer = request.send(port);
        for request in &self.during {
            request.fill(names).answer(port);
        }
        let mut body = String::new();
        let by_client = self.ended_by.as_deref() == Some("client");
        loop {
            let is_all = by_client && body.lines().count() == self.body.lines().count();
            let patience = if is_all { ABSENCE } else { PATIENCE };
            match answer.part(patience) {
                Some(part) => body += std::str::from_utf8(&part).expect("answers are text"),
                None => break,
            }
        }
        let different = |what: &str, wanted: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
            Err(format!(
                "{}: {what}\n  {wanted:?}, but\n  {found:?}",
                self.id
            ))
        };
        if self.status != Some(answer.status) {
            return different("status", &self.status, &(answer.status, body));
        }
        let found: BTreeMap<&str, &str> = HEADERS
            .into_iter()
            .filter_map(|name| {
                let mut headers = answer.headers.iter();
                let (_, value) = headers.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
                Some((name, value.as_str()))
            })
            .collect();
        let wanted = self.headers.iter();
        let wanted: BTreeMap<&str, &str> = wanted
            .filter(|(name, _)| HEADERS.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let same = wanted.keys().eq(found.keys())
            && wanted.iter().all(|(name, value)| {
                let is_ours = numbers == Numbers::Ours && *name == "Content-Length";
                is_ours || names.matches(value, found[name])
            });
        if !same {
            return different("headers", &wanted, &(found, body));
        }
        let same = match numbers {
            Numbers::Ours => without_numbers(&self.body) == without_numbers(&body),
            Numbers::Compared => {
                names.matches(&self.body, &body) || names.matches(&self.body, &turned(&body))
            }
        };
        if !same {
            return different("body", &names.fill(&self.body), &body);
        }
        if answer.ended == by_client {
            return different("end of the stream", &self.ended_by, &answer.ended);
        }
        Ok(())
    }
}

fn without_numbers(body: &str) -> String {
    body.replace(|c: char| c.is_ascii_digit(), "")
}

/// A list of two members the other way round: they are sorted by ids, which follow from ports.
fn turned(body: &str) -> String {
    let list = body.strip_prefix("{\"members\":[{");
    let list = list.and_then(|rest| rest.strip_suffix("}]}\n"));
    match list.and_then(|list| list.split_once("},{")) {
        Some((first, second)) => format!("{{\"members\":[{{{second}}},{{{first}}}]}}\n"),
        None => body.to_owned(),
    }
}

impl RequestLine {
    fn fill(&self, names: &Names) -> Request {
        let mut request = Request::new(&self.method, &names.fill(&self.path));
        if let Some(form) = &self.form {
            let pairs: Vec<String> = form
                .iter()
                .map(|(name, value)| format!("{name}={}", escape(value)))
                .collect();
            request = request.form(&pairs.join("&"));
        }
        if let Some(body) = &self.body {
            request.body = names.fill(body).into_bytes();
        }
        for (name, value) in &self.headers {
            request.headers.push(format!("{name}: {value}"));
        }
        request
    }
}

fn escape(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
