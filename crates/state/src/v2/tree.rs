//! The tree: nodes by their paths, in an ordered map that is shared between versions.
//!
//! The map is flat. In the order of paths a subtree is a range, so that nothing here recurses,
//! however deep the tree is.
//!
//! Invariants: `/` is a directory; each node but `/` has a directory for its parent.

use std::ops::Bound;
use std::sync::Arc;

use super::event::{Event, Failure, Node};
use super::timestamp::Timestamp;
use super::{Action, Code, Path};

/// The directories that were there before the first request, and stay.
pub(super) const TOPS: [&str; 3] = ["/", "/0", "/1"];

/// A file or a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) created: u64,
    pub(super) modified: u64,
    /// None: never.
    pub(super) expiration: Option<Timestamp>,
    pub(super) content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Directory,
    File(Arc<str>),
}

impl Entry {
    /// A directory that nobody asked for, made on the way to a node.
    pub(super) fn directory(index: u64) -> Entry {
        Entry {
            created: index,
            modified: index,
            expiration: None,
            content: Content::Directory,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self.content, Content::Directory)
    }

    /// The value; a directory's is empty.
    pub(super) fn value(&self) -> &str {
        match &self.content {
            Content::Directory => "",
            Content::File(value) => value,
        }
    }

    /// As an event shows it at `now`, without children.
    pub(super) fn node(&self, path: &Path, now: Timestamp) -> Node {
        Node {
            key: path.clone(),
            value: match &self.content {
                Content::Directory => None,
                Content::File(value) => Some(Arc::clone(value)),
            },
            dir: self.is_directory(),
            expiration: self.expiration,
            ttl: self.expiration.map_or(0, |end| end.seconds_from(now)),
            nodes: Vec::new(),
            modified_index: self.modified,
            created_index: self.created,
        }
    }
}

/// A version of the tree; clones share all nodes.
#[derive(Clone)]
pub(super) struct Tree {
    nodes: imbl::OrdMap<Path, Arc<Entry>>,
}

impl Tree {
    /// The tree before the first request.
    pub(super) fn new() -> Tree {
        let top = |path: &str| (Path::clean(path), Arc::new(Entry::directory(0)));
        Tree {
            nodes: TOPS.into_iter().map(top).collect(),
        }
    }

    /// A tree of `nodes` in any order.
    ///
    /// # Errors
    /// The first path that is there twice, or not in a directory.
    pub(super) fn from_nodes(mut nodes: Vec<(Path, Entry)>) -> Result<Tree, Path> {
        nodes.sort_by(|a, b| a.0.cmp(&b.0));
        // The directories around the node, from `/` on.
        let mut open: Vec<&Path> = Vec::new();
        let mut previous = None;
        for (path, entry) in &nodes {
            if previous.replace(path) == Some(path) {
                return Err(path.clone());
            }
            while open.pop_if(|directory| !path.is_below(directory)).is_some() {}
            let in_directory = match open.last() {
                Some(directory) => path.parent() == **directory,
                None => path.is_root(),
            };
            if !in_directory {
                return Err(path.clone());
            }
            if entry.is_directory() {
                open.push(path);
            }
        }
        let is_root = |(path, entry): &(Path, Entry)| path.is_root() && entry.is_directory();
        if !nodes.first().is_some_and(is_root) {
            return Err(Path::root());
        }
        let nodes = nodes.into_iter();
        Ok(Tree {
            nodes: nodes.map(|(path, entry)| (path, Arc::new(entry))).collect(),
        })
    }

    pub(super) fn get(&self, path: &Path) -> Option<&Arc<Entry>> {
        self.nodes.get(path)
    }

    /// The node, or what is in the way.
    pub(super) fn find(&self, path: &Path) -> Result<&Arc<Entry>, Failure> {
        if let Some(entry) = self.nodes.get(path) {
            return Ok(entry);
        }
        for step in path.steps() {
            match self.nodes.get(&step) {
                Some(entry) if entry.is_directory() => {}
                Some(_) => return Err(Failure::new(Code::NotDirectory, step)),
                None => return Err(Failure::new(Code::KeyNotFound, step)),
            }
        }
        unreachable!("{path} is missing, but each step to it is there")
    }

    /// Makes the directories on the way to `path` that are missing.
    pub(super) fn create_parents(&mut self, path: &Path, index: u64) -> Result<(), Failure> {
        let mut missing = Vec::new();
        let mut directory = path.parent();
        loop {
            match self.nodes.get(&directory) {
                Some(entry) if entry.is_directory() => break,
                Some(_) => return Err(Failure::new(Code::NotDirectory, directory)),
                None => {}
            }
            let above = directory.parent();
            missing.push(directory);
            directory = above;
        }
        for directory in missing {
            self.nodes
                .insert(directory, Arc::new(Entry::directory(index)));
        }
        Ok(())
    }

    /// Puts a node into a directory that is there, in place of what was there.
    pub(super) fn insert(&mut self, path: Path, entry: Entry) {
        debug_assert!(path.is_root() || self.nodes[&path.parent()].is_directory());
        self.nodes.insert(path, Arc::new(entry));
    }

    /// Removes a node and all below it; hands out what was there.
    pub(super) fn remove(&mut self, path: &Path) -> Vec<(Path, Arc<Entry>)> {
        let entry = self.nodes.remove(path).expect("the caller has found it");
        let mut removed = vec![(path.clone(), entry)];
        if removed[0].1.is_directory() {
            let below = self
                .below(path)
                .map(|(path, entry)| (path.clone(), Arc::clone(entry)));
            removed.extend(below);
            for (path, _) in &removed[1..] {
                self.nodes.remove(path);
            }
        }
        removed
    }

    pub(super) fn is_empty_directory(&self, path: &Path) -> bool {
        self.below(path).next().is_none()
    }

    /// The nodes below a directory, at any depth, in order.
    pub(super) fn below(&self, path: &Path) -> impl Iterator<Item = (&Path, &Arc<Entry>)> {
        self.between(Bound::Excluded(path.clone()), path)
    }

    /// All nodes, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Path, &Arc<Entry>)> {
        self.nodes.iter()
    }

    /// The nodes from `start` to the end of a directory.
    fn between(
        &self,
        start: Bound<Path>,
        directory: &Path,
    ) -> impl Iterator<Item = (&Path, &Arc<Entry>)> {
        // All paths are below the root, but not all are before what would follow its text.
        let end = match directory.is_root() {
            true => Bound::Unbounded,
            false => Bound::Excluded(directory.after_subtree()),
        };
        self.nodes.range((start, end))
    }

    /// Answers a read at `now`. Children come sorted, hidden ones not at all; one level of them, or
    /// the whole subtree.
    pub(super) fn read(
        &self,
        path: &Path,
        recursive: bool,
        now: Timestamp,
        store_index: u64,
    ) -> Result<Event, Failure> {
        let entry = self.find(path)?;
        let mut node = entry.node(path, now);
        if entry.is_directory() {
            self.read_children(&mut node, recursive, now);
        }
        Ok(Event {
            action: Action::Get,
            node,
            prev_node: None,
            refresh: false,
            store_index,
        })
    }

    fn read_children(&self, node: &mut Node, recursive: bool, now: Timestamp) {
        let directory = node.key.clone();
        // Directories that are not complete yet, each in the one before it.
        let mut open: Vec<Node> = Vec::new();
        let mut rest = self.between(Bound::Excluded(directory.clone()), &directory);
        while let Some((path, entry)) = rest.next() {
            while let Some(done) = open.pop_if(|last| !path.is_below(&last.key)) {
                open.last_mut().unwrap_or(node).nodes.push(done);
            }
            if path.is_hidden() || (entry.is_directory() && !recursive) {
                rest = self.between(Bound::Included(path.after_subtree()), &directory);
            }
            if path.is_hidden() {
                continue;
            }
            open.push(entry.node(path, now));
        }
        while let Some(done) = open.pop() {
            open.last_mut().unwrap_or(node).nodes.push(done);
        }
    }
}
