//! What an etcd answered, and how to compare with it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::client::Request;

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
    #[serde(default)]
    informative: bool,
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

/// The exchanges of one group (`keys-…`), which were sent one behind the other to a fresh server. The
/// transcript has one a line.
pub fn group(transcript: &str, name: &str) -> Vec<Exchange> {
    let exchanges = transcript
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let group: Vec<Exchange> = exchanges
        .filter(|exchange: &Exchange| exchange.id.starts_with(name))
        .collect();
    assert!(!group.is_empty(), "{name} has no exchanges");
    group
}

/// What counts.
#[derive(Clone, Copy)]
pub struct Comparison {
    /// Headers that must be there, or not, as they were.
    pub headers: &'static [&'static str],
    /// Whether lengths are as they were.
    pub lengths: bool,
    /// Whether numbers in bodies are.
    pub numbers: bool,
    /// What is left of a body when the chance of its program is taken away.
    pub plain: fn(&str) -> String,
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
            "RAFT_INDEX" | "RAFT_TERM" | "TTL" | "LENGTH" | "N" | "DBSIZE" | "HASH" => {
                |c| c.is_ascii_digit()
            }
            _ if name.starts_with("TOKEN") => |c| c.is_alphanumeric() || c == '.',
            "TIME" => |c| c.is_alphanumeric() || matches!(c, '-' | ':' | '.'),
            _ => |c| c.is_ascii_hexdigit(),
        };
        let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
        let (value, text) = text.split_at(end);
        if value.is_empty() {
            return false;
        }
        let is_id = name.ends_with(":hex") || name.ends_with(":dec") || name.starts_with("TOKEN");
        if is_id {
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

    /// Whether the page is below this.
    pub fn is_below(&self, path: &str) -> bool {
        self.request.path.starts_with(path)
    }

    /// Whether the answer need not be compared, as it was a matter of chance.
    pub fn is_informative(&self) -> bool {
        self.informative
    }

    /// Sends it, and compares what comes.
    ///
    /// # Errors
    /// What is different.
    pub fn replay(
        &self,
        port: u16,
        names: &mut Names,
        comparison: Comparison,
    ) -> Result<(), String> {
        let request = self.request.fill(names);
        if let Some(times) = self.request.repeat {
            for i in 0..times {
                let mut request = request.clone();
                request.path = request.path.replace("{i%7}", &(i % 7).to_string());
                request.answer(port);
            }
            return Ok(());
        }
        if self.status.is_none() {
            return match request.is_answered(port, ABSENCE) {
                false => Ok(()),
                true => Err(format!("{}: there is an answer", self.id)),
            };
        }
        let mut answer = request.send(port);
        for request in &self.during {
            request.fill(names).answer(port);
        }
        let wanted_body = (comparison.plain)(&self.body);
        let mut body = String::new();
        let by_client = self.ended_by.as_deref() == Some("client");
        loop {
            let is_all = by_client && body.lines().count() == wanted_body.lines().count();
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
        let found: BTreeMap<&str, &str> = comparison
            .headers
            .iter()
            .filter_map(|name| {
                let mut headers = answer.headers.iter();
                let (_, value) = headers.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
                Some((*name, value.as_str()))
            })
            .collect();
        let wanted = self.headers.iter();
        let wanted: BTreeMap<&str, &str> = wanted
            .filter(|(name, _)| comparison.headers.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let same = wanted.keys().eq(found.keys())
            && wanted.iter().all(|(name, value)| {
                let is_ours = !comparison.lengths && *name == "Content-Length";
                is_ours || names.matches(value, found[name])
            });
        if !same {
            return different("headers", &wanted, &(found, body));
        }
        let body = (comparison.plain)(&body);
        let same = match comparison.numbers {
            false => without_numbers(&wanted_body) == without_numbers(&body),
            true => {
                names.matches(&wanted_body, &body) || names.matches(&wanted_body, &turned(&body))
            }
        };
        if !same {
            return different("body", &names.fill(&wanted_body), &body);
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
    let turned = || {
        let (before, list) = body.split_once("\"members\":[{")?;
        let (list, after) = list.split_once("}]}")?;
        let (first, second) = list.split_once("},{")?;
        Some(format!(
            "{before}\"members\":[{{{second}}},{{{first}}}]}}{after}"
        ))
    };
    turned().unwrap_or_else(|| body.to_owned())
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
            request
                .headers
                .push(format!("{name}: {}", names.fill(value)));
        }
        request
    }
}

fn escape(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
