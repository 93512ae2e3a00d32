//! The membership as etcd keeps it in `.snap` files: a tree of etcd's old store (API v2), in JSON.
//!
//! ```text
//! /0/members/ID/raftAttributes  {"peerURLs":[…],"isLearner":true}
//! /0/members/ID/attributes      {"name":"…","clientURLs":[…]}     once the member has started
//! /0/removed_members/ID
//! /0/version                    3.5.0
//! /1                            keys of API v2
//! ```
//!
//! Written documents hold this and nothing else, byte for byte as etcd 3.7 writes them for members
//! in the order given: with the history of the events that would have built the tree. Only the
//! membership is read; keys of API v2 are noticed, but not read here.

use std::collections::BTreeMap;

use retcd_proto::number;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// How many events the history holds.
const HISTORY_EVENTS: usize = 1000;

/// "Never", as Go writes its zero time.
const PERMANENT: &str = "0001-01-01T00:00:00Z";

/// Who belongs to a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The members; read in the order of their ids as text.
    pub members: Vec<Member>,
    /// The ids of members that were removed.
    pub removed: Vec<u64>,
    /// The cluster's version, such as `3.5.0`, when it has been decided.
    pub version: Option<String>,
    /// Whether the document held keys of API v2. Not written.
    pub has_v2_keys: bool,
}

/// A member of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The member's id.
    pub id: u64,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// Its name; kept only together with client URLs.
    pub name: String,
    /// Where its clients reach it; empty before it has started.
    pub client_urls: Vec<String>,
}

/// Why a document is not one of a membership.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or not of the expected shape.
    #[error("v2 store document: {0}")]
    Json(#[from] serde_json::Error),
    /// An id is not a hexadecimal number.
    #[error("v2 store document: {0:?} is not a member id")]
    Id(String),
    /// A member has no peer URLs.
    #[error("v2 store document: member {0:x} has no raftAttributes")]
    NoRaftAttributes(u64),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RaftAttributes {
    #[serde(rename = "peerURLs")]
    peer_urls: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
}

#[derive(Serialize, Deserialize)]
struct Attributes {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(
        rename = "clientURLs",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    client_urls: Option<Vec<String>>,
}

impl Membership {
    /// Reads a document.
    ///
    /// # Errors
    /// When it is not one.
    pub fn from_document(document: &[u8]) -> Result<Membership, DocumentError> {
        let tops: Document<BTreeMap<String, Names>> = serde_json::from_slice(document)?;
        let has_v2_keys = tops
            .root
            .children
            .iter()
            .any(|(name, top)| match name.as_str() {
                "0" => false,
                "1" => !top.children.as_ref().is_some_and(BTreeMap::is_empty),
                _ => true,
            });
        let document: Document<Cluster> = serde_json::from_slice(document)?;
        let mut cluster = document.root.children.cluster.unwrap_or_default();
        let members = cluster
            .take("members")
            .into_iter()
            .map(|(id, node)| member(&id, node));
        let removed = cluster.take("removed_members");
        Ok(Membership {
            members: members.collect::<Result<_, _>>()?,
            removed: removed
                .keys()
                .map(|id| parse_id(id))
                .collect::<Result<_, _>>()?,
            version: cluster.child("version").map(|node| node.value),
            has_v2_keys,
        })
    }

    /// Writes a document.
    pub fn to_document(&self) -> Vec<u8> {
        let mut store = Store::default();
        for member in &self.members {
            let path = format!("members/{:x}", member.id);
            let attributes = RaftAttributes {
                peer_urls: Some(member.peer_urls.clone()),
                is_learner: member.is_learner,
            };
            store.put(
                "create",
                &format!("{path}/raftAttributes"),
                &go_json(&attributes),
            );
            if !member.client_urls.is_empty() {
                let attributes = Attributes {
                    name: member.name.clone(),
                    client_urls: Some(member.client_urls.clone()),
                };
                store.put("set", &format!("{path}/attributes"), &go_json(&attributes));
            }
        }
        for id in &self.removed {
            store.put("create", &format!("removed_members/{id:x}"), "");
        }
        if let Some(version) = &self.version {
            store.put("set", "version", version);
        }
        store.into_document().into_bytes()
    }
}

// Reading.

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document<C> {
    root: Root<C>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Root<C> {
    children: C,
}

/// A node of which only the children's names matter, so that they may be nested as deep as they
/// like.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Names {
    children: Option<BTreeMap<String, IgnoredAny>>,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(rename = "0")]
    cluster: Option<StoreNode>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct StoreNode {
    value: String,
    children: Option<BTreeMap<String, StoreNode>>,
}

impl StoreNode {
    fn child(&mut self, name: &str) -> Option<StoreNode> {
        self.children.as_mut()?.remove(name)
    }

    /// The children of a child.
    fn take(&mut self, name: &str) -> BTreeMap<String, StoreNode> {
        self.child(name)
            .and_then(|node| node.children)
            .unwrap_or_default()
    }
}

fn member(id: &str, mut node: StoreNode) -> Result<Member, DocumentError> {
    let id = parse_id(id)?;
    let raft = node
        .child("raftAttributes")
        .ok_or(DocumentError::NoRaftAttributes(id))?;
    let raft: RaftAttributes = serde_json::from_str(&raft.value)?;
    let mut member = Member {
        id,
        peer_urls: raft.peer_urls.unwrap_or_default(),
        is_learner: raft.is_learner,
        ..Member::default()
    };
    if let Some(attributes) = node.child("attributes") {
        let attributes: Attributes = serde_json::from_str(&attributes.value)?;
        member.name = attributes.name;
        member.client_urls = attributes.client_urls.unwrap_or_default();
    }
    Ok(member)
}

fn parse_id(text: &str) -> Result<u64, DocumentError> {
    number::hexadecimal(text).ok_or_else(|| DocumentError::Id(text.to_owned()))
}

// Writing.

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WrittenNode {
    path: String,
    created_index: u64,
    modified_index: u64,
    expire_time: &'static str,
    value: String,
    children: Option<BTreeMap<String, WrittenNode>>,
}

#[derive(Serialize)]
struct Event {
    action: &'static str,
    node: EventNode,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventNode {
    key: String,
    value: String,
    modified_index: u64,
    created_index: u64,
}

/// The old store, as far as it is needed to write it.
struct Store {
    root: WrittenNode,
    events: Vec<Option<Event>>,
    /// The number of the last change.
    index: u64,
    created: u64,
    set: u64,
}

impl Default for Store {
    fn default() -> Store {
        let top = |name: &str| (name.to_owned(), directory(format!("/{name}"), 0));
        let mut root = directory("/".to_owned(), 0);
        root.children = Some(BTreeMap::from([top("0"), top("1")]));
        Store {
            root,
            events: Vec::new(),
            index: 0,
            created: 0,
            set: 0,
        }
    }
}

fn directory(path: String, index: u64) -> WrittenNode {
    WrittenNode {
        path,
        created_index: index,
        modified_index: index,
        expire_time: PERMANENT,
        value: String::new(),
        children: Some(BTreeMap::new()),
    }
}

impl Store {
    /// Puts a value at a new path below `/0`.
    fn put(&mut self, action: &'static str, path: &str, value: &str) {
        self.index += 1;
        match action {
            "create" => self.created += 1,
            _ => self.set += 1,
        }
        let key = format!("/0/{path}");
        let mut node = &mut self.root;
        for (start, name) in key.match_indices('/').map(|(start, _)| start).map(|start| {
            let rest = &key[start + 1..];
            (
                start,
                rest.split('/')
                    .next()
                    .expect("splitting yields at least one part"),
            )
        }) {
            let path = key[..start + 1 + name.len()].to_owned();
            let index = self.index;
            let children = node.children.get_or_insert_default();
            node = children
                .entry(name.to_owned())
                .or_insert_with(|| directory(path, index));
        }
        node.children = None;
        node.value = value.to_owned();
        let node = EventNode {
            key,
            value: value.to_owned(),
            modified_index: self.index,
            created_index: self.index,
        };
        self.events.push(Some(Event { action, node }));
    }

    fn into_document(self) -> String {
        let Store {
            root,
            mut events,
            index,
            created,
            set,
        } = self;
        // The history is a ring: what is beyond its size overwrites its beginning.
        let count = events.len();
        let front = if count > HISTORY_EVENTS {
            count % HISTORY_EVENTS
        } else {
            0
        };
        let first = (count as u64).saturating_sub(HISTORY_EVENTS as u64) + u64::from(count > 0);
        if count > HISTORY_EVENTS {
            events.drain(..count - HISTORY_EVENTS);
            events.rotate_right(front);
        }
        events.resize_with(HISTORY_EVENTS, || None);
        format!(
            r#"{{"Root":{root},"WatcherHub":{{"EventHistory":{{"Queue":{{"Events":{events},"Size":{size},"Front":{front},"Back":{back},"Capacity":{HISTORY_EVENTS}}},"StartIndex":{first},"LastIndex":{index}}}}},"CurrentIndex":{index},"Stats":{{"getsSuccess":0,"getsFail":1,"setsSuccess":{set},"setsFail":0,"deleteSuccess":0,"deleteFail":0,"updateSuccess":0,"updateFail":0,"createSuccess":{created},"createFail":0,"compareAndSwapSuccess":0,"compareAndSwapFail":0,"compareAndDeleteSuccess":0,"compareAndDeleteFail":0,"expireCount":0,"watchers":0}},"CurrentVersion":2}}"#,
            root = go_json(&root),
            events = go_json(&events),
            size = count.min(HISTORY_EVENTS),
            back = count % HISTORY_EVENTS,
        )
    }
}

/// JSON as Go writes it: with some characters escaped that need not be.
fn go_json(value: &impl Serialize) -> String {
    let plain = serde_json::to_string(value).expect("strings, numbers and lists of them");
    let mut json = String::with_capacity(plain.len());
    for character in plain.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                json.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => json.push(other),
        }
    }
    json
}
