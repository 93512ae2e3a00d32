//! Writing.

use std::fmt::Write;

use super::json;
use crate::v2::history::{HISTORY_EVENTS, History};
use crate::v2::tree::Tree;
use crate::v2::{Event, Node, Path, Statistics, Store};

/// The version of the format.
const VERSION: u64 = 2;

/// "Never", as Go writes its zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// A store at one moment, to be written at leisure, and by any thread.
#[derive(Clone)]
pub struct Document {
    pub(in super::super) tree: Tree,
    pub(in super::super) index: u64,
    pub(in super::super) history: History,
    pub(in super::super) statistics: Statistics,
}

impl Store {
    /// The store as it was published last.
    ///
    /// # Panics
    /// If something is not published.
    pub fn document(&self) -> Document {
        self.shared().document()
    }

    /// The store in its JSON form.
    ///
    /// # Panics
    /// As [`Store::document`].
    pub fn to_document(&self) -> Vec<u8> {
        self.document().to_json()
    }
}

impl Document {
    /// The index of the last change.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The JSON form.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = String::from("{\"Root\":");
        put_tree(&self.tree, &mut out);
        out.push_str(",\"WatcherHub\":{\"EventHistory\":{\"Queue\":{\"Events\":");
        put_ring(&self.history, &mut out);
        let (front, size) = (self.history.front(), self.history.events().len());
        let back = (front + size) % HISTORY_EVENTS;
        let numbers = [
            ("Size", size as u64),
            ("Front", front as u64),
            ("Back", back as u64),
            ("Capacity", HISTORY_EVENTS as u64),
        ];
        put_numbers(numbers, &mut out);
        out.push('}');
        let numbers = [
            ("StartIndex", self.history.start_index()),
            ("LastIndex", self.history.last_index()),
        ];
        put_numbers(numbers, &mut out);
        out.push_str("}}");
        put_numbers([("CurrentIndex", self.index)], &mut out);
        out.push_str(",\"Stats\":{");
        let mut comma = "";
        for (name, count) in self.statistics.fields() {
            put(&mut out, format_args!("{comma}\"{name}\":{count}"));
            comma = ",";
        }
        out.push('}');
        put_numbers([("CurrentVersion", VERSION)], &mut out);
        out.push('}');
        out.into_bytes()
    }
}

/// The nodes, each in the object of its directory.
fn put_tree(tree: &Tree, out: &mut String) {
    // Directories whose objects are open, each in the one before it.
    let mut open: Vec<&Path> = Vec::new();
    for (path, entry) in tree.iter() {
        while open.pop_if(|directory| !path.is_below(directory)).is_some() {
            out.push_str("}}");
        }
        if !open.is_empty() {
            // What precedes a node is the start of its directory's object or its last sibling.
            out.push_str(if out.ends_with('{') { "" } else { "," });
            json::put_string(path.name(), out);
            out.push(':');
        }
        out.push_str("{\"Path\":");
        json::put_string(path.as_str(), out);
        let numbers = [
            ("CreatedIndex", entry.created),
            ("ModifiedIndex", entry.modified),
        ];
        put_numbers(numbers, out);
        match entry.expiration {
            Some(time) => put(out, format_args!(",\"ExpireTime\":\"{time}\"")),
            None => put(out, format_args!(",\"ExpireTime\":\"{NEVER}\"")),
        }
        out.push_str(",\"Value\":");
        json::put_string(entry.value(), out);
        if entry.is_directory() {
            out.push_str(",\"Children\":{");
            open.push(path);
        } else {
            out.push_str(",\"Children\":null}");
        }
    }
    for _ in open {
        out.push_str("}}");
    }
}

/// The events at their places in the ring; the free ones are null.
fn put_ring(history: &History, out: &mut String) {
    let mut ring = vec![None; HISTORY_EVENTS];
    for (i, event) in history.events().enumerate() {
        ring[(history.front() + i) % HISTORY_EVENTS] = Some(event);
    }
    let mut comma = "[";
    for event in ring {
        out.push_str(comma);
        comma = ",";
        match event {
            Some(event) => event.put_json("", true, out),
            None => out.push_str("null"),
        }
    }
    out.push(']');
}

impl Event {
    /// The JSON form in which clients get it, with `prefix` taken off the keys; a node of which
    /// nothing is left then has no key.
    pub fn to_json(&self, prefix: &str) -> String {
        let mut out = String::new();
        self.put_json(prefix, false, &mut out);
        out
    }

    /// `stored`: with what only documents say.
    fn put_json(&self, prefix: &str, stored: bool, out: &mut String) {
        put(
            out,
            format_args!("{{\"action\":\"{}\",\"node\":", self.action.name()),
        );
        self.node.put_json(prefix, out);
        if let Some(previous) = &self.prev_node {
            out.push_str(",\"prevNode\":");
            previous.put_json(prefix, out);
        }
        if stored && self.refresh {
            out.push_str(",\"refresh\":true");
        }
        out.push('}');
    }
}

impl Node {
    /// Recurses as deep as a tree may be: see [`DEPTH_MAX`](crate::v2::DEPTH_MAX).
    fn put_json(&self, prefix: &str, out: &mut String) {
        let key = self.key.as_str();
        let key = key.strip_prefix(prefix).unwrap_or(key);
        out.push('{');
        let start = out.len();
        let name = |out: &mut String, name: &str| {
            let comma = if out.len() == start { "" } else { "," };
            put(out, format_args!("{comma}\"{name}\":"));
        };
        if !key.is_empty() {
            name(out, "key");
            json::put_string(key, out);
        }
        if let Some(value) = &self.value {
            name(out, "value");
            json::put_string(value, out);
        }
        if self.dir {
            name(out, "dir");
            out.push_str("true");
        }
        if let Some(time) = self.expiration {
            name(out, "expiration");
            put(out, format_args!("\"{time}\""));
        }
        if self.ttl != 0 {
            name(out, "ttl");
            put(out, format_args!("{}", self.ttl));
        }
        if !self.nodes.is_empty() {
            name(out, "nodes");
            let mut comma = "[";
            for node in &self.nodes {
                out.push_str(comma);
                comma = ",";
                node.put_json(prefix, out);
            }
            out.push(']');
        }
        for (field, index) in [
            ("modifiedIndex", self.modified_index),
            ("createdIndex", self.created_index),
        ] {
            if index != 0 {
                name(out, field);
                put(out, format_args!("{index}"));
            }
        }
        out.push('}');
    }
}

fn put_numbers<const N: usize>(numbers: [(&str, u64); N], out: &mut String) {
    for (name, number) in numbers {
        put(out, format_args!(",\"{name}\":{number}"));
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("strings take whatever comes");
}
