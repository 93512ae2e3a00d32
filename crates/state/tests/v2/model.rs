//! A store as simple as can be: paths in a map, all events in a list, each watcher asked about each
//! event.

use std::collections::BTreeMap;

use retcd_proto::etcdserverpb::Request;
use retcd_state::v2::Timestamp;

use super::SECOND;

#[derive(Clone)]
struct Node {
    /// None: a directory.
    value: Option<String>,
    created: u64,
    modified: u64,
    /// 0: never.
    expires: i64,
}

/// A change, with all that watchers ask about it.
struct Change {
    index: u64,
    key: String,
    json: String,
    refresh: bool,
    /// The paths that it removed.
    removed: Vec<String>,
    /// Whether it removed a directory, other than under a condition.
    removed_directory: bool,
}

/// A watcher, and what it has to tell.
pub(super) struct Watched {
    pub(super) path: String,
    pub(super) recursive: bool,
    pub(super) stream: bool,
    pub(super) since: u64,
    pub(super) told: Vec<String>,
    pub(super) state: State,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum State {
    Waits,
    /// It got an event of the past, and no other will come.
    Silent,
    Ended,
}

pub(super) struct Model {
    nodes: BTreeMap<String, Node>,
    pub(super) index: u64,
    history: Vec<Change>,
    /// The changes before this one are published.
    published: usize,
}

type Answer = Result<String, String>;

fn error(number: u16, message: &str, cause: &str, index: u64) -> String {
    format!("{number}: {message} ({cause}) [{index}]")
}

fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(slash) => &path[..slash],
    }
}

fn is_below(path: &str, directory: &str) -> bool {
    directory == "/" && path != "/" || path.starts_with(&format!("{directory}/"))
}

/// The paths from the first component on, to the whole.
fn ways(path: &str) -> Vec<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let way = |n: usize| format!("/{}", parts[..n].join("/"));
    (1..=parts.len()).map(way).collect()
}

impl Model {
    pub(super) fn new() -> Model {
        let directory = Node {
            value: None,
            created: 0,
            modified: 0,
            expires: 0,
        };
        let tops = ["/", "/0", "/1"].map(|top| (top.to_owned(), directory.clone()));
        Model {
            nodes: tops.into(),
            index: 0,
            history: Vec::new(),
            published: 0,
        }
    }

    pub(super) fn apply(&mut self, now: i64, request: &Request) -> Answer {
        let (path, value) = (request.path(), request.val());
        let (index, prev) = (request.prev_index(), request.prev_value());
        let compared = index > 0 || !prev.is_empty();
        match request.method() {
            "QGET" => self.get(now, path, request.recursive()),
            "POST" => {
                let path = format!("{path}/{:020}", self.index + 1).replace("//", "/");
                self.write(now, "create", &path, request)
            }
            "PUT" if request.prev_exist == Some(false) => self.write(now, "create", path, request),
            "PUT" if compared => {
                self.check_top(path)?;
                self.compare(path, prev, index)?;
                self.change(now, "compareAndSwap", path, value, request)
            }
            "PUT" if request.prev_exist == Some(true) => {
                self.check_top(path)?;
                let node = self.find(path)?;
                if node.value.is_none() && !value.is_empty() {
                    return Err(self.error(102, "Not a file", path));
                }
                self.change(now, "update", path, value, request)
            }
            "PUT" => self.write(now, "set", path, request),
            "DELETE" if compared => {
                self.compare(path, prev, index)?;
                Ok(self.remove(now, "compareAndDelete", path))
            }
            "DELETE" => {
                self.check_top(path)?;
                if self.find(path)?.value.is_none() && !request.recursive() {
                    if !request.dir() {
                        return Err(self.error(102, "Not a file", path));
                    }
                    if self.nodes.keys().any(|other| is_below(other, path)) {
                        return Err(self.error(108, "Directory not empty", path));
                    }
                }
                Ok(self.remove(now, "delete", path))
            }
            "SYNC" => {
                let mut count = 0;
                while let Some(path) = self.first_expired(request.time()) {
                    self.remove(now, "expire", &path);
                    count += 1;
                }
                Ok(format!("expired {count}"))
            }
            _ => Ok("unknown method".into()),
        }
    }

    fn error(&self, number: u16, message: &str, cause: &str) -> String {
        error(number, message, cause, self.index)
    }

    fn check_top(&self, path: &str) -> Result<(), String> {
        match path {
            "/" | "/0" | "/1" => Err(self.error(107, "Root is read only", "/")),
            _ => Ok(()),
        }
    }

    fn find(&self, path: &str) -> Result<&Node, String> {
        let mut directory = true;
        for (i, way) in ways(path).iter().enumerate() {
            if !directory {
                let file = &ways(path)[i - 1];
                return Err(self.error(104, "Not a directory", file));
            }
            let Some(node) = self.nodes.get(way) else {
                return Err(self.error(100, "Key not found", way));
            };
            directory = node.value.is_none();
        }
        Ok(&self.nodes[path])
    }

    fn compare(&self, path: &str, prev: &str, index: u64) -> Result<(), String> {
        let node = self.find(path)?;
        let Some(value) = &node.value else {
            return Err(self.error(102, "Not a file", path));
        };
        let mut wrong = String::new();
        if !prev.is_empty() && prev != value {
            wrong += &format!("[{prev} != {value}]");
        }
        if index > 0 && index != node.modified {
            wrong += if wrong.is_empty() { "" } else { " " };
            wrong += &format!("[{index} != {}]", node.modified);
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(self.error(101, "Compare failed", &wrong)),
        }
    }

    fn first_expired(&self, time: i64) -> Option<String> {
        let due = |node: &Node| node.expires != 0 && node.expires <= time;
        let expired = self.nodes.iter().filter(|(_, node)| due(node));
        let order = |(path, node): &(&String, &Node)| (node.expires, ways(path));
        expired.min_by_key(order).map(|(path, _)| path.clone())
    }

    /// Set and create.
    fn write(&mut self, now: i64, action: &str, path: &str, request: &Request) -> Answer {
        let set = action == "set";
        let before = self.find(path).cloned();
        let missing = before.as_ref().err().is_some_and(|e| e.starts_with("100"));
        if set && (before.is_err() && !missing || missing && request.refresh()) {
            return Err(before.err().unwrap());
        }
        self.check_top(path)?;
        match &before {
            Err(error) if !missing => return Err(error.clone()),
            Ok(_) if !set => return Err(self.error(105, "Key already exists", path)),
            Ok(node) if node.value.is_none() => {
                return Err(self.error(102, "Not a file", path));
            }
            _ => {}
        }
        let index = self.index + 1;
        let mut value = request.val().to_owned();
        if set && request.refresh() {
            value = before.clone().unwrap().value.unwrap();
        }
        let mut expires = request.expiration();
        if expires < 946_684_800 * SECOND {
            expires = 0;
        }
        let node = |value, expires| Node {
            value,
            created: index,
            modified: index,
            expires,
        };
        for way in ways(parent(path)) {
            self.nodes.entry(way).or_insert(node(None, 0));
        }
        let new = node((!request.dir()).then_some(value), expires);
        self.nodes.insert(path.to_owned(), new.clone());
        let mut json = format!(
            "{{\"action\":\"{action}\",\"node\":{}",
            json(path, &new, now)
        );
        if let Ok(before) = before {
            json += &format!(",\"prevNode\":{}", self::json(path, &before, now));
        }
        Ok(self.record(
            path,
            json + "}",
            set && request.refresh(),
            Vec::new(),
            false,
        ))
    }

    /// Update and compareAndSwap.
    fn change(
        &mut self,
        now: i64,
        action: &str,
        path: &str,
        value: &str,
        request: &Request,
    ) -> Answer {
        let index = self.index + 1;
        let node = self.nodes.get_mut(path).expect("found before");
        let before = node.clone();
        if let Some(old) = &mut node.value {
            if !request.refresh() {
                *old = value.to_owned();
            }
            node.modified = index;
        }
        node.expires = request.expiration();
        let mut shown = node.clone();
        shown.modified = index;
        let json = format!(
            "{{\"action\":\"{action}\",\"node\":{},\"prevNode\":{}}}",
            json(path, &shown, now),
            json(path, &before, now)
        );
        Ok(self.record(path, json, request.refresh(), Vec::new(), false))
    }

    fn remove(&mut self, now: i64, action: &str, path: &str) -> String {
        let before = self.nodes[path].clone();
        let gone = |other: &&String| *other == path || is_below(other, path);
        let removed: Vec<String> = self.nodes.keys().filter(gone).cloned().collect();
        for path in &removed {
            self.nodes.remove(path);
        }
        let directory = before.value.is_none();
        let json = format!(
            "{{\"action\":\"{action}\",\"node\":{{\"key\":\"{path}\"{},\"modifiedIndex\":{},\
             \"createdIndex\":{}}},\"prevNode\":{}}}",
            if directory { ",\"dir\":true" } else { "" },
            self.index + 1,
            before.created,
            json(path, &before, now)
        );
        self.record(path, json, false, removed, directory)
    }

    fn record(
        &mut self,
        key: &str,
        json: String,
        refresh: bool,
        removed: Vec<String>,
        removed_directory: bool,
    ) -> String {
        self.index += 1;
        self.history.push(Change {
            index: self.index,
            key: key.to_owned(),
            json: json.clone(),
            refresh,
            removed,
            removed_directory,
        });
        json
    }

    pub(super) fn get(&self, now: i64, path: &str, recursive: bool) -> Answer {
        self.find(path)?;
        let json = self.json_below(now, path, if recursive { usize::MAX } else { 1 });
        Ok(format!("{{\"action\":\"get\",\"node\":{json}}}"))
    }

    fn json_below(&self, now: i64, path: &str, levels: usize) -> String {
        let node = &self.nodes[path];
        let start = if path == "/" {
            "/".into()
        } else {
            format!("{path}/")
        };
        let below = self.nodes.range(start.clone()..).map(|(below, _)| below);
        let below = below.take_while(|below| below.starts_with(&start));
        let children: Vec<&String> = below
            .filter(|child| {
                let name = &child[start.len()..];
                !name.is_empty() && !name.contains('/') && !name.starts_with('_')
            })
            .collect();
        let json = json(path, node, now);
        if levels == 0 || children.is_empty() {
            return json;
        }
        let nodes = children.into_iter();
        let nodes: Vec<String> = nodes
            .map(|child| self.json_below(now, child, levels - 1))
            .collect();
        // Children come before the indexes, which those of the beginning do not have.
        let nodes = format!(",\"nodes\":[{}]", nodes.join(","));
        let place = json.find(",\"modifiedIndex").unwrap_or(json.len() - 1);
        format!("{}{nodes}{}", &json[..place], &json[place..])
    }

    /// Starts a watch of what is published.
    pub(super) fn watch(
        &self,
        path: &str,
        recursive: bool,
        stream: bool,
        since: u64,
    ) -> Result<Watched, String> {
        let changes = &self.history[..self.published];
        let index = changes.last().map_or(0, |change| change.index);
        let since = if since == 0 { index + 1 } else { since };
        let kept = &changes[changes.len().saturating_sub(1000)..];
        let oldest = kept.first().map_or(0, |change| change.index);
        if since < oldest {
            let cause = format!("the requested history has been cleared [{oldest}/{since}]");
            let message = "The event in requested index is outdated and cleared";
            return Err(error(401, message, &cause, index));
        }
        let hit = kept.iter().find(|change| {
            let above = change.removed_directory && path.starts_with(&change.key);
            let concerned = change.key == path || recursive && is_below(&change.key, path);
            change.index >= since && !change.refresh && (concerned || above)
        });
        let state = match hit {
            None => State::Waits,
            Some(_) if stream => State::Silent,
            Some(_) => State::Ended,
        };
        Ok(Watched {
            path: path.to_owned(),
            recursive,
            stream,
            since,
            told: hit.iter().map(|change| change.json.clone()).collect(),
            state,
        })
    }

    /// Tells the watchers what was not published yet.
    pub(super) fn publish<'a>(&mut self, watchers: impl Iterator<Item = &'a mut Watched>) {
        for watcher in watchers {
            for change in &self.history[self.published..] {
                let removed = change.removed.contains(&watcher.path);
                let above = watcher.path == change.key || is_below(&change.key, &watcher.path);
                let below = change.key.strip_prefix(&watcher.path).unwrap_or("");
                let below = format!("/{}", below.trim_start_matches('/'));
                let hidden = watcher.path != change.key && below.contains("/_");
                let concerned = watcher.path == change.key || watcher.recursive && !hidden;
                let times = usize::from(removed) + usize::from(above && concerned);
                for _ in 0..times {
                    watcher.tell(change);
                }
            }
        }
        self.published = self.history.len();
    }
}

impl Watched {
    fn tell(&mut self, change: &Change) {
        if self.state != State::Waits || change.refresh || change.index < self.since {
            return;
        }
        if self.told.len() == 100 {
            self.state = State::Ended;
            return;
        }
        self.told.push(change.json.clone());
        if !self.stream {
            self.state = State::Ended;
        }
    }
}

/// A node without its children.
fn json(path: &str, node: &Node, now: i64) -> String {
    let mut fields = Vec::new();
    fields.push(format!("\"key\":\"{path}\""));
    match &node.value {
        Some(value) => fields.push(format!("\"value\":\"{value}\"")),
        None => fields.push("\"dir\":true".into()),
    }
    if node.expires != 0 {
        fields.push(format!("\"expiration\":\"{}\"", Timestamp(node.expires)));
        let left = node.expires - now;
        let ttl = left / SECOND + i64::from(left > 0 && left % SECOND > 0);
        if ttl != 0 {
            fields.push(format!("\"ttl\":{ttl}"));
        }
    }
    if node.modified != 0 {
        fields.push(format!("\"modifiedIndex\":{}", node.modified));
    }
    if node.created != 0 {
        fields.push(format!("\"createdIndex\":{}", node.created));
    }
    format!("{{{}}}", fields.join(","))
}
