//! The tree of API v2, computed once more in the plainest way: every version of every node, by its
//! path.
//!
//! Only what clients write is in it: keys below `/1`, users and roles below `/2`. Of what the
//! cluster writes about itself it knows how many indexes that takes.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use retcd_proto::etcdserverpb::{InternalRaftRequest, Request};
use retcd_proto::raftpb::{ConfChange, ConfChangeType, Entry, EntryType};
use retcd_state::entry::LoggedRequest;
use retcd_state::membership::ConfChangeContext;
use retcd_state::version::Version;

use super::tree_users;
use crate::request::tree::{Answer, Event, Node, Refusal};

/// From this version on the tree follows from the membership until somebody writes to it.
const DERIVED_FROM: Version = Version::new(3, 6, 0);

const KEY_NOT_FOUND: u16 = 100;
const COMPARE_FAILED: u16 = 101;
const NOT_FILE: u16 = 102;
const NOT_DIRECTORY: u16 = 104;
const NODE_EXISTS: u16 = 105;
const ROOT_READ_ONLY: u16 = 107;
const DIRECTORY_NOT_EMPTY: u16 = 108;

/// Where clients' keys are.
pub const TOP: &str = "/1";

/// The request of API v2 in an entry.
pub fn request_of(entry: &Entry) -> Option<Request> {
    if entry.r#type() != EntryType::EntryNormal || entry.data().is_empty() {
        return None;
    }
    match LoggedRequest::of(entry) {
        Ok(LoggedRequest::V2(request)) => Some(*request),
        _ => None,
    }
}

/// What the cluster is, as far as it counts for the index.
#[derive(Default)]
struct Cluster {
    /// The members, and whether each has told where clients reach it.
    members: BTreeMap<u64, bool>,
    removed: BTreeSet<u64>,
    version: Option<Version>,
}

impl Cluster {
    /// The index of a tree that follows from it.
    fn index(&self) -> u64 {
        let members = self.members.values().map(|told| 1 + u64::from(*told));
        let removed = 3 * self.removed.len() as u64;
        members.sum::<u64>() + removed + u64::from(self.version.is_some())
    }
}

/// How long a node lives, and whether only that changes.
#[derive(Clone, Copy)]
struct Lifetime {
    expiration: Option<i64>,
    refresh: bool,
}

type Changed = Result<Event, u16>;

/// The tree that the committed log makes up.
#[derive(Default)]
pub struct Tree {
    index: u64,
    /// All versions of each node, ascending by index.
    nodes: BTreeMap<String, Vec<(u64, Option<Node>)>>,
    cluster: Cluster,
    /// The changes that users have made, in order.
    pub events: Vec<Event>,
    /// Nodes that have expired.
    pub expired: usize,
    /// Whether the first of these found a tree that follows from the cluster.
    pub began_derived: bool,
}

impl Tree {
    /// The index of the last change.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Whether there is a node at `path`, as of `index`.
    pub fn has(&self, path: &str, index: u64) -> bool {
        path == TOP || self.get(path, index).is_some()
    }

    /// What the file at `path` holds, as of `index`.
    pub fn value(&self, path: &str, index: u64) -> Option<&str> {
        self.get(path, index)?.value.as_deref()
    }

    /// When something below `directory` changed behind `first` and up to `last`, ascending.
    pub fn changes(&self, directory: &str, first: u64, last: u64) -> BTreeSet<u64> {
        let inside = format!("{directory}/");
        let all = self
            .nodes
            .iter()
            .filter(|(path, _)| path.starts_with(&inside));
        let versions = all.flat_map(|(_, versions)| versions.iter().map(|(at, _)| *at));
        versions
            .filter(|at| (first + 1..=last).contains(at))
            .collect()
    }

    /// All that clients have written, as of `index`.
    pub fn all(&self, index: u64) -> Vec<Node> {
        let mut all = self.below(TOP, true, index);
        all.extend(self.get(tree_users::TOP, index).cloned());
        all.extend(self.below(tree_users::TOP, true, index));
        all
    }

    /// The node at `path`, as of `index`.
    fn get(&self, path: &str, index: u64) -> Option<&Node> {
        let versions = self.nodes.get(path)?;
        let newest = versions.iter().rev().find(|(at, _)| *at <= index);
        newest.and_then(|(_, node)| node.as_ref())
    }

    /// The nodes below `directory`, as of `index`, each directory before what is in it.
    pub fn below(&self, directory: &str, recursive: bool, index: u64) -> Vec<Node> {
        let inside = format!("{directory}/");
        let all = self.nodes.keys().filter(|path| path.starts_with(&inside));
        let wanted = all.filter(|path| recursive || !path[inside.len()..].contains('/'));
        let found = wanted.filter_map(|path| self.get(path, index).cloned());
        let mut found: Vec<Node> = found.collect();
        found.sort_by_key(|node| order(&node.key));
        found
    }

    /// The answer to a read, as of `index`.
    pub fn read(&self, path: &str, recursive: bool, index: u64) -> Answer {
        let refused = |code| Refusal { code, index };
        let node = self.find(path, index).map_err(refused)?;
        let mut nodes = match node.dir {
            true => self.below(path, recursive, index),
            false => Vec::new(),
        };
        nodes.retain(|node| !is_hidden_below(&node.key, path));
        Ok(Box::new(Event {
            action: "get",
            node,
            prev: None,
            nodes,
            refresh: false,
            store_index: index,
        }))
    }

    /// The node, or why there is none.
    fn find(&self, path: &str, index: u64) -> Result<Node, u16> {
        let ends = path.match_indices('/').map(|(slash, _)| slash);
        for end in ends.skip(1).chain([path.len()]) {
            let step = &path[..end];
            let node = match step {
                TOP => top(),
                _ => self.get(step, index).ok_or(KEY_NOT_FOUND)?.clone(),
            };
            if step == path {
                return Ok(node);
            }
            if !node.dir {
                return Err(NOT_DIRECTORY);
            }
        }
        unreachable!("the last step is the path")
    }

    /// Whether nothing is in it that does not follow from the cluster.
    pub fn is_derived(&self) -> bool {
        self.cluster.version >= Some(DERIVED_FROM) && self.index <= self.cluster.index()
    }

    /// The cluster has changed, which takes so many indexes in a tree of its own.
    fn follow(&mut self, change: impl FnOnce(&mut Cluster) -> u64) {
        let was_derived = self.is_derived();
        let taken = change(&mut self.cluster);
        self.index = match was_derived {
            true => self.cluster.index(),
            false => self.index + taken,
        };
    }

    /// A configuration change was made.
    pub fn change(&mut self, change: &ConfChange) {
        let id = change.node_id();
        let context = ConfChangeContext::parse(change.context()).ok();
        let is_promotion = context.as_ref().is_some_and(|context| context.is_promote);
        let told = context.is_some_and(|context| !context.member.client_urls().is_empty());
        self.follow(|cluster| match change.r#type() {
            ConfChangeType::ConfChangeRemoveNode => {
                cluster.members.remove(&id);
                cluster.removed.insert(id);
                2
            }
            ConfChangeType::ConfChangeUpdateNode => 1,
            _ if is_promotion => 1,
            _ => {
                cluster.members.insert(id, told);
                1
            }
        });
    }

    /// Executes an entry that is no change of the membership; the answer, if it is a request of
    /// API v2.
    pub fn apply(&mut self, entry: &Entry) -> Option<Answer> {
        if let Some(request) = request_of(entry) {
            return Some(self.execute(&request));
        }
        let request = InternalRaftRequest::decode(entry.data()).ok()?;
        if let Some(set) = request.cluster_version_set {
            let version = Version::parse(set.ver.as_bytes());
            self.follow(|cluster| {
                cluster.version = version;
                1
            });
        }
        if let Some(set) = request.cluster_member_attr_set {
            let attributes = set.member_attributes;
            let told = attributes.is_some_and(|set| !set.client_urls.is_empty());
            self.follow(|cluster| match cluster.members.get_mut(&set.member_id) {
                None => 0,
                Some(member) => {
                    *member = told;
                    1
                }
            });
        }
        None
    }

    fn execute(&mut self, r: &Request) -> Answer {
        let (path, value) = (r.path(), r.val());
        let lifetime = Lifetime {
            expiration: r.expiration.filter(|nanos| *nanos != 0),
            refresh: r.refresh(),
        };
        let is_conditional = !r.prev_value().is_empty() || r.prev_index() != 0;
        let changed = match (r.method(), r.prev_exist) {
            ("POST", _) => {
                let path = format!("{path}/{:020}", self.index + 1);
                self.create(&path, r.dir(), value, lifetime)
            }
            ("PUT", Some(false)) => self.create(path, r.dir(), value, lifetime),
            ("PUT", _) if is_conditional => self.swap(path, r, lifetime),
            ("PUT", Some(true)) => self.update(path, value, lifetime),
            ("PUT", None) => self.set(path, r.dir(), value, lifetime),
            ("DELETE", _) if is_conditional => self
                .compare(path, r)
                .map(|node| self.remove("compareAndDelete", node)),
            ("DELETE", _) => self.delete(path, r.dir(), r.recursive()),
            ("QGET", _) => return self.read(path, r.recursive(), self.index),
            ("SYNC", _) => {
                self.expire(r.time());
                return self.read(TOP, false, self.index);
            }
            (method, _) => panic!("the workload does not ask for {method}"),
        };
        changed.map(Box::new).map_err(|code| Refusal {
            code,
            index: self.index,
        })
    }

    fn set(&mut self, path: &str, dir: bool, value: &str, lifetime: Lifetime) -> Changed {
        let previous = match self.find(path, self.index) {
            Ok(node) => Some(node),
            Err(KEY_NOT_FOUND) if !lifetime.refresh => None,
            Err(code) => return Err(code),
        };
        not_top(path)?;
        if previous.as_ref().is_some_and(|node| node.dir) {
            return Err(NOT_FILE);
        }
        let kept = previous.as_ref().filter(|_| lifetime.refresh);
        let value = kept.and_then(|node| node.value.as_deref()).unwrap_or(value);
        let value = value.to_owned();
        let node = self.put_new(path, dir, value, lifetime);
        Ok(self.commit("set", node, previous, lifetime.refresh))
    }

    fn create(&mut self, path: &str, dir: bool, value: &str, lifetime: Lifetime) -> Changed {
        not_top(path)?;
        match self.find(path, self.index) {
            Ok(_) => return Err(NODE_EXISTS),
            Err(KEY_NOT_FOUND) => {}
            Err(code) => return Err(code),
        }
        let node = self.put_new(path, dir, value.to_owned(), lifetime);
        Ok(self.commit("create", node, None, false))
    }

    /// A new node, in place of any file, and the directories on the way to it.
    fn put_new(&mut self, path: &str, dir: bool, value: String, lifetime: Lifetime) -> Node {
        let index = self.index + 1;
        let new = |key: &str, dir: bool| Node {
            key: key.to_owned(),
            dir,
            value: None,
            expiration: None,
            created: index,
            modified: index,
        };
        let ends = path.match_indices('/').map(|(slash, _)| slash);
        for end in ends.skip(1) {
            let above = &path[..end];
            if !self.has(above, self.index) {
                self.put(index, new(above, true));
            }
        }
        let node = Node {
            value: (!dir).then_some(value),
            expiration: lifetime.expiration,
            ..new(path, dir)
        };
        self.put(index, node.clone());
        node
    }

    fn update(&mut self, path: &str, value: &str, lifetime: Lifetime) -> Changed {
        not_top(path)?;
        let node = self.find(path, self.index)?;
        if node.dir && !value.is_empty() {
            return Err(NOT_FILE);
        }
        Ok(self.rewrite("update", node, value, lifetime))
    }

    fn swap(&mut self, path: &str, r: &Request, lifetime: Lifetime) -> Changed {
        not_top(path)?;
        let node = self.compare(path, r)?;
        Ok(self.rewrite("compareAndSwap", node, r.val(), lifetime))
    }

    fn compare(&self, path: &str, r: &Request) -> Result<Node, u16> {
        let node = self.find(path, self.index)?;
        let value = node.value.as_deref().ok_or(NOT_FILE)?;
        let is_value = r.prev_value().is_empty() || r.prev_value() == value;
        let is_index = r.prev_index() == 0 || r.prev_index() == node.modified;
        match is_value && is_index {
            true => Ok(node),
            false => Err(COMPARE_FAILED),
        }
    }

    /// A directory keeps the index of its last change; the event shows the new one.
    fn rewrite(&mut self, action: &'static str, old: Node, value: &str, life: Lifetime) -> Event {
        let index = self.index + 1;
        let value = match &old.value {
            Some(old) if life.refresh => Some(old.clone()),
            old => old.as_ref().map(|_| value.to_owned()),
        };
        let shown = Node {
            value,
            expiration: life.expiration,
            modified: index,
            ..old.clone()
        };
        let kept = Node {
            modified: if old.dir { old.modified } else { index },
            ..shown.clone()
        };
        self.put(index, kept);
        self.commit(action, shown, Some(old), life.refresh)
    }

    fn delete(&mut self, path: &str, dir: bool, recursive: bool) -> Changed {
        not_top(path)?;
        let node = self.find(path, self.index)?;
        if node.dir && !dir && !recursive {
            return Err(NOT_FILE);
        }
        if node.dir && !recursive && !self.below(path, true, self.index).is_empty() {
            return Err(DIRECTORY_NOT_EMPTY);
        }
        Ok(self.remove("delete", node))
    }

    /// Removes a node and all below it.
    fn remove(&mut self, action: &'static str, node: Node) -> Event {
        let index = self.index + 1;
        for below in self.below(&node.key, true, self.index) {
            self.gone(index, &below.key);
        }
        self.gone(index, &node.key);
        let left = Node {
            value: None,
            expiration: None,
            modified: index,
            ..node.clone()
        };
        self.commit(action, left, Some(node), false)
    }

    /// Removes what has expired by `time`, in the order in which it did.
    fn expire(&mut self, time: i64) {
        loop {
            let nodes = self.below(TOP, true, self.index).into_iter();
            let due = nodes.filter(|node| node.expiration.is_some_and(|end| end <= time));
            let Some(first) = due.min_by_key(|node| (node.expiration, order(&node.key))) else {
                return;
            };
            self.remove("expire", first);
            self.expired += 1;
        }
    }

    fn put(&mut self, index: u64, node: Node) {
        let versions = self.nodes.entry(node.key.clone()).or_default();
        versions.push((index, Some(node)));
    }

    fn gone(&mut self, index: u64, path: &str) {
        let versions = self.nodes.get_mut(path).expect("it was found");
        versions.push((index, None));
    }

    fn commit(
        &mut self,
        action: &'static str,
        node: Node,
        prev: Option<Node>,
        refresh: bool,
    ) -> Event {
        if self.events.is_empty() {
            self.began_derived = self.is_derived();
        }
        self.index += 1;
        let event = Event {
            action,
            node,
            prev,
            nodes: Vec::new(),
            refresh,
            store_index: self.index,
        };
        self.events.push(event.clone());
        event
    }
}

fn top() -> Node {
    Node {
        key: TOP.to_owned(),
        dir: true,
        value: None,
        expiration: None,
        created: 0,
        modified: 0,
    }
}

fn not_top(path: &str) -> Result<(), u16> {
    match path == TOP {
        true => Err(ROOT_READ_ONLY),
        false => Ok(()),
    }
}

/// Whether a directory at `above` does not show the node, since that or a directory between them is
/// hidden.
pub fn is_hidden_below(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above);
    rest.is_some_and(|rest| rest.contains("/_"))
}

/// By which nodes are sorted: a directory, all below it, then its next sibling.
pub fn order(path: &str) -> String {
    path.replace('/', "\0")
}
