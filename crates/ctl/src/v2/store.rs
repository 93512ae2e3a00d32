//! The requests for keys, and what is answered.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::cluster::{Cluster, ClusterError};
use super::http::{Action, Answer};

const KEYS: &str = "/v2/keys";
const INDEX_HEADER: &str = "X-Etcd-Index";

/// How many levels of directories an answer may have. Those who walk a tree recurse.
const DEPTH_MAX: usize = retcd_state::v2::DEPTH_MAX;

/// A node of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its path; empty for the root.
    pub(crate) key: String,
    /// Whether it is a directory.
    pub(crate) dir: bool,
    /// Its value.
    pub(crate) value: String,
    /// Its children; `None` if there are none, or if they were not asked for.
    pub(crate) nodes: Option<Vec<Node>>,
    /// The index at which it was created.
    pub(crate) created_index: u64,
    /// The index of its last change.
    pub(crate) modified_index: u64,
    /// When it expires, as RFC 3339.
    pub(crate) expiration: Option<String>,
    /// Seconds until then; 0 if it does not expire.
    pub(crate) ttl: i64,
}

/// An answer about a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Response {
    /// What was done: `get`, `set`, `delete` and so on.
    pub(super) action: String,
    /// The node.
    pub(super) node: Node,
    /// The node before.
    pub(super) prev_node: Option<Node>,
    /// The store's index at the time of the answer.
    pub(super) index: u64,
}

/// Why a request for keys failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StoreError {
    /// There is no answer.
    #[error("{0}")]
    Cluster(#[from] ClusterError),
    /// The store refused.
    #[error("{code}: {message} ({cause}) [{index}]")]
    Refused {
        /// The code of the error.
        code: i64,
        /// Its text.
        message: String,
        /// What it is about.
        cause: String,
        /// The store's index.
        index: u64,
    },
    /// The answer is not that of an etcd with API version 2.
    #[error(
        "client: response is invalid json. The endpoint is probably not valid etcd cluster endpoint."
    )]
    NotJson,
    /// The tree has more levels than a member of this project can hold.
    #[error("the tree in the answer is deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// The watch ended without an event.
    #[error("client: response body is empty")]
    Empty,
}

/// Whether the key must exist for a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Existence {
    /// It does not matter.
    #[default]
    Any,
    /// It must.
    Required,
    /// It must not.
    Refused,
}

/// A change of a key or directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Set {
    /// The value; `None` makes a directory.
    pub(super) value: Option<Vec<u8>>,
    /// Seconds until it expires; it does not if this is not positive.
    pub(super) ttl: i64,
    /// Whether it must exist.
    pub(super) existence: Existence,
    /// The value that it must have; empty for any.
    pub(super) prev_value: String,
    /// The index that it must have; 0 for any.
    pub(super) prev_index: u64,
}

/// A removal.
#[derive(Clone, Debug, Default)]
pub(super) struct Delete {
    /// Only an empty directory, or a key.
    pub(super) dir: bool,
    /// With everything below it.
    pub(super) recursive: bool,
    /// The value that it must have; empty for any.
    pub(super) prev_value: String,
    /// The index that it must have; 0 for any.
    pub(super) prev_index: u64,
}

/// Asks for a node. `wait` is not for this.
pub(super) fn get(key: &[u8], recursive: bool, sorted: bool, quorum: bool) -> Action {
    let given = [
        ("quorum", quorum),
        ("recursive", recursive),
        ("sorted", sorted),
    ];
    let parameters = given.map(|(name, value)| (name, value.to_string()));
    Action::new(Method::GET, path(key)).query(parameters.into())
}

/// Waits for a change at or behind `index`; 0 waits for the next one.
pub(super) fn wait(key: &[u8], recursive: bool, index: u64) -> Action {
    let parameters = vec![
        ("recursive", recursive.to_string()),
        ("wait", true.to_string()),
        ("waitIndex", index.to_string()),
    ];
    Action::new(Method::GET, path(key)).query(parameters)
}

/// Changes a node.
pub(super) fn set(key: &[u8], set: &Set) -> Action {
    let mut query = Vec::new();
    let mut form = Vec::new();
    if set.value.is_none() {
        query.push(("dir", true.to_string()));
    }
    match set.existence {
        Existence::Any => {}
        Existence::Required => query.push(("prevExist", true.to_string())),
        Existence::Refused => query.push(("prevExist", false.to_string())),
    }
    push_conditions(&mut query, &set.prev_value, set.prev_index);
    push_ttl(&mut form, set.ttl);
    if let Some(value) = &set.value {
        form.push(format!("value={}", escape(value, Escape::Form)));
    }
    let action = Action::new(Method::PUT, path(key)).query(query);
    action.form(form.join("&"))
}

/// Creates a key with a name of the store's below a directory.
pub(super) fn create_in_order(key: &[u8], value: &[u8], ttl: i64) -> Action {
    let mut form = Vec::new();
    push_ttl(&mut form, ttl);
    form.push(format!("value={}", escape(value, Escape::Form)));
    Action::new(Method::POST, path(key)).form(form.join("&"))
}

/// Removes a node.
pub(super) fn delete(key: &[u8], delete: &Delete) -> Action {
    let mut query = Vec::new();
    if delete.dir {
        query.push(("dir", true.to_string()));
    }
    push_conditions(&mut query, &delete.prev_value, delete.prev_index);
    if delete.recursive {
        query.push(("recursive", true.to_string()));
    }
    Action::new(Method::DELETE, path(key)).query(query)
}

fn push_conditions(query: &mut Vec<(&'static str, String)>, value: &str, index: u64) {
    if index != 0 {
        query.push(("prevIndex", index.to_string()));
    }
    if !value.is_empty() {
        query.push(("prevValue", value.to_owned()));
    }
}

fn push_ttl(form: &mut Vec<String>, ttl: i64) {
    if ttl > 0 {
        form.push(format!("ttl={ttl}"));
    }
}

/// Sends a request within the command's time.
///
/// # Errors
/// As [`StoreError`].
pub(super) async fn ask(cluster: &Cluster, action: &Action) -> Result<Response, StoreError> {
    decode(&cluster.limited(cluster.ask(action)).await?)
}

/// Reads an answer.
///
/// # Errors
/// As [`StoreError`].
pub(super) fn decode(answer: &Answer) -> Result<Response, StoreError> {
    if !matches!(answer.status, StatusCode::OK | StatusCode::CREATED) {
        return Err(refusal(&answer.body));
    }
    if answer.body.is_empty() {
        return Err(StoreError::Empty);
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Parts<'j> {
        action: String,
        #[serde(borrow)]
        node: &'j RawValue,
        #[serde(borrow)]
        prev_node: Option<&'j RawValue>,
    }
    let parts = serde_json::from_slice::<Parts<'_>>(&answer.body);
    let parts = parts.map_err(|_| StoreError::NotJson)?;
    let index = answer.headers.get(INDEX_HEADER);
    let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
    Ok(Response {
        action: parts.action,
        node: parse_tree(parts.node)?,
        prev_node: parts.prev_node.map(parse_tree).transpose()?,
        index: index.unwrap_or(0),
    })
}

/// Parses a node and all below it. The parser's own limit is 128 brackets, two a level. So children
/// are skipped as a whole first, which takes no stack, and then parsed one by one: each byte is read
/// once a level, which is little for the trees that there are.
fn parse_tree(json: &RawValue) -> Result<Node, StoreError> {
    let mut open = vec![parse_node(json)?];
    loop {
        let (_, children) = open.last_mut().expect("the root is closed last");
        if let Some(child) = children.next() {
            if open.len() > DEPTH_MAX {
                return Err(StoreError::TooDeep);
            }
            open.push(parse_node(child)?);
            continue;
        }
        let (node, _) = open.pop().expect("it was the last");
        match open.last_mut() {
            Some((parent, _)) => parent.nodes.get_or_insert_default().push(node),
            None => return Ok(node),
        }
    }
}

/// Parses a node; its children are still text.
fn parse_node(json: &RawValue) -> Result<(Node, std::vec::IntoIter<&RawValue>), StoreError> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Parts<'j> {
        key: String,
        dir: bool,
        value: String,
        #[serde(borrow)]
        nodes: Option<Vec<&'j RawValue>>,
        created_index: u64,
        modified_index: u64,
        expiration: Option<String>,
        ttl: i64,
    }
    let parts = serde_json::from_str::<Parts<'_>>(json.get());
    let parts = parts.map_err(|_| StoreError::NotJson)?;
    let node = Node {
        key: parts.key,
        dir: parts.dir,
        value: parts.value,
        nodes: parts.nodes.as_ref().map(|_| Vec::new()),
        created_index: parts.created_index,
        modified_index: parts.modified_index,
        expiration: parts.expiration,
        ttl: parts.ttl,
    };
    Ok((node, parts.nodes.unwrap_or_default().into_iter()))
}

fn refusal(body: &[u8]) -> StoreError {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Refusal {
        #[serde(default)]
        error_code: i64,
        #[serde(default)]
        message: String,
        #[serde(default)]
        cause: String,
        #[serde(default)]
        index: u64,
    }
    match serde_json::from_slice::<Refusal>(body) {
        Err(_) => StoreError::NotJson,
        Ok(refusal) => StoreError::Refused {
            code: refusal.error_code,
            message: refusal.message,
            cause: refusal.cause,
            index: refusal.index,
        },
    }
}

/// The escaped path of a key, without `//`, `.` and `..`; a slash at the end stays.
pub(super) fn path(key: &[u8]) -> String {
    let mut path = KEYS.to_owned() + &clean(key);
    if key.ends_with(b"/") {
        path.push('/');
    }
    path
}

/// An escaped path without `//`, `.`, `..` and a slash at the end.
pub(super) fn clean(path: &[u8]) -> String {
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let segments = segments.into_iter();
    segments
        .map(|segment| format!("/{}", escape(segment, Escape::Path)))
        .collect()
}

/// An escaped part of a path.
pub(super) fn segment(bytes: &[u8]) -> String {
    escape(bytes, Escape::Path)
}

/// What is left as it is, besides letters, digits and `-_.~`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// `$&+,/:;=@`.
    Path,
    /// Nothing; a space becomes `+`.
    Form,
}

/// Escapes bytes as Go does.
pub(super) fn escape(bytes: &[u8], kind: Escape) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(*byte));
            }
            b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@'
                if kind == Escape::Path =>
            {
                text.push(char::from(*byte));
            }
            b' ' if kind == Escape::Form => text.push('+'),
            byte => text += &format!("%{byte:02X}"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::endpoint::Target;
    use super::*;

    #[test]
    fn keys_are_escaped_as_go_escapes_paths() {
        let check = |key: &str, expected: &str| assert_eq!(path(key.as_bytes()), expected);
        check("a", "/v2/keys/a");
        check("/", "/v2/keys/");
        check("", "/v2/keys");
        check("a//b/", "/v2/keys/a/b/");
        check("/a/../../b/.", "/v2/keys/b");
        check("a b%c/ü", "/v2/keys/a%20b%25c/%C3%BC");
        check(
            "a?b#c;d:e@f&g=h+i$j,k~l!m*n(o)p'q[r]",
            "/v2/keys/a%3Fb%23c;d:e@f&g=h+i$j,k~l%21m%2An%28o%29p%27q%5Br%5D",
        );
        assert_eq!(path(b"\xff"), "/v2/keys/%FF");
    }

    #[test]
    fn requests_say_what_is_wanted() {
        let check = |action: Action, line: &str, body: &str| {
            let target = Target::of("http://h", &action);
            let shown = format!("{} {}", action.method, target.path);
            let content = action.body.map(|(_, body)| body).unwrap_or_default();
            assert_eq!(
                (shown.as_str(), content.as_slice()),
                (line, body.as_bytes())
            );
        };
        check(
            get(b"a", true, false, true),
            "GET /v2/keys/a?quorum=true&recursive=true&sorted=false",
            "",
        );
        check(
            wait(b"a", false, 7),
            "GET /v2/keys/a?recursive=false&wait=true&waitIndex=7",
            "",
        );
        let change = Set {
            value: Some("x y\"&é".into()),
            ttl: 5,
            prev_value: "q r".to_owned(),
            prev_index: 3,
            ..Set::default()
        };
        check(
            set(b"a", &change),
            "PUT /v2/keys/a?prevIndex=3&prevValue=q+r",
            "ttl=5&value=x+y%22%26%C3%A9",
        );
        let directory = Set {
            existence: Existence::Refused,
            ttl: -1,
            ..Set::default()
        };
        check(
            set(b"d", &directory),
            "PUT /v2/keys/d?dir=true&prevExist=false",
            "",
        );
        check(create_in_order(b"q", b"j", 0), "POST /v2/keys/q", "value=j");
        let removal = Delete {
            recursive: true,
            dir: true,
            ..Delete::default()
        };
        check(
            delete(b"d", &removal),
            "DELETE /v2/keys/d?dir=true&recursive=true",
            "",
        );
    }

    fn answer(status: u16, body: &str) -> Answer {
        let mut headers = http::HeaderMap::new();
        headers.insert("X-Etcd-Index", http::HeaderValue::from_static("7"));
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn answers_are_read() {
        let body = r#"{"action":"get","node":{"key":"/a","value":"1","modifiedIndex":4,"createdIndex":3}}"#;
        let response = decode(&answer(200, body)).unwrap();
        assert_eq!(response.index, 7);
        let node = response.node;
        assert_eq!((node.key.as_str(), node.created_index), ("/a", 3));
    }

    /// A tree of directories, each the only child of the one above.
    fn nested(levels: usize) -> String {
        let below = r#"{"key":"/d","dir":true,"nodes":["#.repeat(levels);
        let leaf = r#"{"key":"/k","value":"v"}"#;
        format!(
            r#"{{"action":"get","node":{below}{leaf}{}}}"#,
            "]}".repeat(levels)
        )
    }

    #[test]
    fn trees_may_be_deep_but_not_without_end() {
        let response = decode(&answer(200, &nested(DEPTH_MAX))).expect("as deep as may be");
        let (mut node, mut depth) = (&response.node, 0);
        while let Some([child]) = node.nodes.as_deref() {
            (node, depth) = (child, depth + 1);
        }
        assert_eq!((depth, node.value.as_str()), (DEPTH_MAX, "v"));
        let refused = |levels| decode(&answer(200, &nested(levels))).unwrap_err();
        assert_eq!(refused(DEPTH_MAX + 1), StoreError::TooDeep);
        assert_eq!(refused(2 * DEPTH_MAX), StoreError::TooDeep);
    }

    #[test]
    fn refusals_have_a_text() {
        let check = |status: u16, body: &str, text: &str| {
            assert_eq!(decode(&answer(status, body)).unwrap_err().to_string(), text);
        };
        let refusal = r#"{"errorCode":100,"message":"Key not found","cause":"/a","index":3}"#;
        check(404, refusal, "100: Key not found (/a) [3]");
        check(404, r#"{"message":"x"}"#, "0: x () [0]");
        let not_json = "client: response is invalid json. The endpoint is probably not valid \
                        etcd cluster endpoint.";
        check(404, "404 page not found\n", not_json);
        check(200, "<html>", not_json);
        check(200, r#"{"action":"get"}"#, not_json);
        check(200, "", "client: response body is empty");
    }
}
