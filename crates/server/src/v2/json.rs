//! Events, nodes and errors as JSON, byte for byte as etcd 3.3 writes them.
//!
//! Paths lose their first component, which says whose the node is. `<`, `>` and `&` are escaped, and
//! so is U+FFFD, since it stands where a client has sent bytes that are not UTF-8.

use retcd_state::v2::{self, Action, Error, Event, Node};

use crate::budget::COUNTED_FROM;

/// Where users' keys are.
pub(super) const KEYS: &str = "/1";

/// Where JSON goes.
pub(super) trait Output {
    fn put(&mut self, bytes: &[u8]);
}

impl Output for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts, and keeps what is shorter than [`COUNTED_FROM`]: an answer whose memory need not be
/// reserved is written by then.
#[derive(Default)]
pub(super) struct Measured {
    kept: Vec<u8>,
    length: usize,
}

impl Measured {
    /// How long it all is.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// All of it, if that is short.
    pub(super) fn into_short(self) -> Option<Vec<u8>> {
        (self.length < COUNTED_FROM).then_some(self.kept)
    }
}

impl Output for Measured {
    fn put(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        if self.length < COUNTED_FROM {
            self.kept.extend_from_slice(bytes);
        }
    }
}

/// How much of an event is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    Full,
    /// Of a write, only what was done.
    Action,
}

/// An event and a newline.
pub(super) fn event(out: &mut impl Output, event: &Event, detail: Detail) {
    out.put(b"{\"action\":\"");
    out.put(event.action.name().as_bytes());
    out.put(b"\"");
    let is_short = matches!(
        event.action,
        Action::Set | Action::Create | Action::Update | Action::CompareAndSwap
    );
    if detail == Detail::Full || !is_short {
        out.put(b",\"node\":");
        node(out, &event.node);
        if let Some(prev_node) = &event.prev_node {
            out.put(b",\"prevNode\":");
            node(out, prev_node);
        }
    }
    out.put(b"}\n");
}

/// Recursion is bounded by the depth of paths.
fn node(out: &mut impl Output, node: &Node) {
    let mut fields = Fields::begin(out);
    let key = client_path(node.key.as_str());
    if !key.is_empty() {
        fields.string("key", key);
    }
    if let Some(value) = &node.value {
        fields.string("value", value);
    }
    if node.dir {
        fields.raw("dir", "true");
    }
    if let Some(expiration) = node.expiration {
        fields.string("expiration", &expiration.to_string());
    }
    if node.ttl != 0 {
        fields.raw("ttl", &node.ttl.to_string());
    }
    if let Some((first, others)) = node.nodes.split_first() {
        let out = fields.name("nodes");
        out.put(b"[");
        self::node(out, first);
        for other in others {
            out.put(b",");
            self::node(out, other);
        }
        out.put(b"]");
    }
    for (name, index) in [
        ("modifiedIndex", node.modified_index),
        ("createdIndex", node.created_index),
    ] {
        if index != 0 {
            fields.raw(name, &index.to_string());
        }
    }
    out.put(b"}");
}

/// An error and a newline.
pub(super) fn error(out: &mut impl Output, error: &Error) {
    let mut fields = Fields::begin(out);
    fields.raw("errorCode", &error.code.number().to_string());
    fields.string("message", error.code.message());
    let cause = client_path(&error.cause);
    if !cause.is_empty() {
        fields.string("cause", cause);
    }
    fields.raw("index", &error.index.to_string());
    out.put(b"}\n");
}

/// A path as clients know it. Other causes of errors begin with other characters.
fn client_path(path: &str) -> &str {
    path.strip_prefix(KEYS).unwrap_or(path)
}

/// The fields of an object.
struct Fields<'a, O> {
    out: &'a mut O,
    separator: &'static [u8],
}

impl<'a, O: Output> Fields<'a, O> {
    fn begin(out: &'a mut O) -> Fields<'a, O> {
        Fields {
            out,
            separator: b"{",
        }
    }

    fn name(&mut self, name: &str) -> &mut O {
        self.out.put(self.separator);
        self.separator = b",";
        self.out.put(b"\"");
        self.out.put(name.as_bytes());
        self.out.put(b"\":");
        self.out
    }

    fn string(&mut self, name: &str, value: &str) {
        string(self.name(name), value);
    }

    fn raw(&mut self, name: &str, value: &str) {
        self.name(name).put(value.as_bytes());
    }
}

/// A string.
pub(super) fn string(out: &mut impl Output, text: &str) {
    out.put(b"\"");
    if v2::is_plain_json(text) {
        out.put(text.as_bytes());
        out.put(b"\"");
        return;
    }
    let mut rest = text;
    while let Some(at) = rest.find(is_escaped) {
        let (plain, tail) = rest.split_at(at);
        out.put(plain.as_bytes());
        let mut chars = tail.chars();
        let c = chars.next().expect("it was found");
        escape(out, c);
        rest = chars.as_str();
    }
    out.put(rest.as_bytes());
    out.put(b"\"");
}

fn is_escaped(c: char) -> bool {
    matches!(
        c,
        '"' | '\\' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\u{fffd}'
    ) || c < ' '
}

fn escape(out: &mut impl Output, c: char) {
    match c {
        '"' => out.put(b"\\\""),
        '\\' => out.put(b"\\\\"),
        '\n' => out.put(b"\\n"),
        '\r' => out.put(b"\\r"),
        '\t' => out.put(b"\\t"),
        c => out.put(format!("\\u{:04x}", u32::from(c)).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use retcd_state::v2::{Code, Path, Timestamp};

    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn file(key: &str, value: &str) -> Node {
        Node {
            key: Path::clean(key),
            value: Some(value.into()),
            dir: false,
            expiration: None,
            ttl: 0,
            nodes: Vec::new(),
            modified_index: 7,
            created_index: 5,
        }
    }

    fn directory(key: &str, nodes: Vec<Node>) -> Node {
        Node {
            value: None,
            dir: true,
            nodes,
            ..file(key, "")
        }
    }

    #[test]
    fn what_is_long_is_only_measured() {
        let mut measured = Measured::default();
        measured.put(&[b'x'; COUNTED_FROM - 1]);
        measured.put(b"y");
        assert_eq!(measured.length(), COUNTED_FROM);
        assert_eq!(measured.into_short(), None);
    }

    #[track_caller]
    fn check(event: &Event, detail: Detail, expected: &str) {
        let found = written(|out| super::event(out, event, detail));
        assert_eq!(found, format!("{expected}\n"));
        let mut measured = Measured::default();
        super::event(&mut measured, event, detail);
        assert_eq!(measured.length(), found.len());
        assert_eq!(measured.into_short(), Some(found.into_bytes()));
    }

    #[test]
    fn nodes_have_the_fields_that_say_something() {
        let root = Node {
            modified_index: 0,
            created_index: 0,
            ..directory("/1", vec![file("/1/a", "1"), directory("/1/b", Vec::new())])
        };
        let read = Event {
            action: Action::Get,
            node: root,
            prev_node: None,
            refresh: false,
            store_index: 9,
        };
        check(
            &read,
            Detail::Action,
            r#"{"action":"get","node":{"dir":true,"nodes":[{"key":"/a","value":"1","modifiedIndex":7,"createdIndex":5},{"key":"/b","dir":true,"modifiedIndex":7,"createdIndex":5}]}}"#,
        );
        let set = Event {
            action: Action::Set,
            node: Node {
                expiration: Some(Timestamp(1_500_000_000)),
                ttl: -3,
                ..file("/1/10", "")
            },
            prev_node: Some(file("/1/10", "x")),
            ..read
        };
        check(
            &set,
            Detail::Full,
            r#"{"action":"set","node":{"key":"/10","value":"","expiration":"1970-01-01T00:00:01.5Z","ttl":-3,"modifiedIndex":7,"createdIndex":5},"prevNode":{"key":"/10","value":"x","modifiedIndex":7,"createdIndex":5}}"#,
        );
        check(&set, Detail::Action, r#"{"action":"set"}"#);
    }

    #[test]
    fn strings_are_escaped_as_in_go() {
        let text = "a\0\u{1}\u{7f}\u{2028}\u{fffd}\"\\\n\r\t\u{8}<>&é😀";
        assert_eq!(
            written(|out| string(out, text)),
            "\"a\\u0000\\u0001\u{7f}\\u2028\\ufffd\\\"\\\\\\n\\r\\t\\u0008\\u003c\\u003e\\u0026é😀\""
        );
    }

    #[test]
    fn errors_name_the_clients_path() {
        let mut failed = Error {
            code: Code::KeyNotFound,
            cause: "/1/a".into(),
            index: 7,
        };
        assert_eq!(
            written(|out| error(out, &failed)),
            "{\"errorCode\":100,\"message\":\"Key not found\",\"cause\":\"/a\",\"index\":7}\n"
        );
        failed.cause = "[1 != 7]".into();
        let text = written(|out| error(out, &failed));
        assert!(text.contains("\"cause\":\"[1 != 7]\""), "{text}");
        failed.cause = KEYS.into();
        let text = written(|out| error(out, &failed));
        assert!(!text.contains("cause"), "{text}");
    }
}
