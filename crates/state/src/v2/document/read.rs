//! Reading.

use std::collections::VecDeque;
use std::sync::Arc;

use super::json::{Malformed, Parser};
use crate::v2::history::{HISTORY_EVENTS, History};
use crate::v2::path::is_name;
use crate::v2::tree::{Content, Entry, TOPS, Tree};
use crate::v2::{Action, Counter, DEPTH_MAX, Event, Node, Path, Statistics, Store, Timestamp};

/// Why a document is not one of a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or not of the expected shape, at this byte.
    #[error("v2 store document: malformed at byte {0}")]
    Malformed(usize),
    /// There is no tree, or its root is a file.
    #[error("v2 store document: there is no root directory")]
    NoRoot,
    /// A node has a name that no path can have.
    #[error("v2 store document: {0:?} is not the name of a node")]
    Name(String),
    /// A directory of this path holds nodes beyond what the store allows.
    #[error("v2 store document: {0:.80} is too deep")]
    TooDeep(String),
    /// Not a time between 1677 and 2262.
    #[error("v2 store document: {0:?} is not a time")]
    Time(String),
    /// An event says that something was done that cannot be done.
    #[error("v2 store document: {0:?} is not an action")]
    Action(String),
    /// Events are missing, out of order, or newer than the store.
    #[error("v2 store document: the history does not fit the index {0}")]
    History(u64),
    /// Another version of the format.
    #[error("v2 store document: version {0} is not known")]
    Version(u64),
}

impl From<Malformed> for DocumentError {
    fn from(Malformed { at }: Malformed) -> DocumentError {
        DocumentError::Malformed(at)
    }
}

type Result<T> = std::result::Result<T, DocumentError>;

/// Versions of the format; 0 stands for one that is not given.
const VERSIONS: [u64; 2] = [0, 2];

/// The ring of events as it stands there.
#[derive(Default)]
struct Ring {
    events: Vec<Option<Arc<Event>>>,
    size: u64,
    front: u64,
}

impl Store {
    /// The store that a document holds, published.
    ///
    /// # Errors
    /// When it is no document of a store.
    pub fn from_document(document: &[u8]) -> Result<Store> {
        let mut parser = Parser::new(document);
        let (mut tree, mut ring) = (None, Ring::default());
        let (mut index, mut version, mut statistics) = (0, 0, Statistics::default());
        if !parser.object_or_null()? {
            return Err(DocumentError::NoRoot);
        }
        fields(&mut parser, |parser, name| {
            match name {
                "root" => tree = read_tree(parser)?,
                "watcherhub" => ring = read_hub(parser)?,
                "currentindex" => index = parser.unsigned()?,
                "stats" => statistics = read_statistics(parser)?,
                "currentversion" => version = parser.unsigned()?,
                _ => parser.skip()?,
            }
            Ok(())
        })?;
        parser.end()?;
        if !VERSIONS.contains(&version) {
            return Err(DocumentError::Version(version));
        }
        let mut tree = tree.ok_or(DocumentError::NoRoot)?;
        // The tops are there from the beginning, whatever a document has of them.
        for top in TOPS.map(Path::clean) {
            if tree.get(&top).is_none() {
                tree.insert(top, Entry::directory(0));
            }
        }
        let history = ring.into_history(index)?;
        let store = Store::with(tree, index, history);
        store.shared().counts.store(&statistics);
        Ok(store)
    }
}

/// Reads the members of an object that has begun; `read` is given their names in lower case, and
/// must read their values.
fn fields<'a>(
    parser: &mut Parser<'a>,
    mut read: impl FnMut(&mut Parser<'a>, &str) -> Result<()>,
) -> Result<()> {
    let mut first = true;
    while let Some(name) = parser.name(first)? {
        first = false;
        read(parser, &name.to_ascii_lowercase())?;
    }
    Ok(())
}

/// A node whose object has begun.
struct OpenNode {
    path: Path,
    entry: Entry,
    /// Whether its children are being read.
    in_children: bool,
    /// Whether the next member of the object that is being read is its first.
    first: bool,
}

impl OpenNode {
    /// A file, until it turns out to have children.
    fn new(path: Path) -> OpenNode {
        OpenNode {
            path,
            entry: Entry {
                content: Content::File("".into()),
                ..Entry::directory(0)
            },
            in_children: false,
            first: true,
        }
    }
}

/// The tree, if it is not null. Nodes that are open are kept in a list, so that their depth costs
/// no stack.
fn read_tree(parser: &mut Parser<'_>) -> Result<Option<Tree>> {
    if !parser.object_or_null()? {
        return Ok(None);
    }
    let mut nodes = Vec::new();
    let mut open = vec![OpenNode::new(Path::root())];
    while let Some(node) = open.last_mut() {
        let name = parser.name(node.first)?;
        node.first = false;
        match name {
            Some(name) if node.in_children => {
                let child = read_child(parser, &node.path, &name)?;
                open.push(child);
            }
            Some(name) => read_field(parser, node, &name.to_ascii_lowercase())?,
            None if node.in_children => node.in_children = false,
            None => {
                let node = open.pop().expect("there is a last one");
                nodes.push((node.path, node.entry));
            }
        }
    }
    Tree::from_nodes(nodes)
        .map(Some)
        .map_err(|path| match path {
            path if path.is_root() => DocumentError::NoRoot,
            path => DocumentError::Name(path.to_string()),
        })
}

fn read_child(parser: &mut Parser<'_>, directory: &Path, name: &str) -> Result<OpenNode> {
    if !is_name(name) {
        return Err(DocumentError::Name(name.to_owned()));
    }
    if directory.depth() >= DEPTH_MAX {
        return Err(DocumentError::TooDeep(directory.to_string()));
    }
    match parser.object_or_null()? {
        true => Ok(OpenNode::new(directory.child(name))),
        false => Err(parser.malformed().into()),
    }
}

fn read_field(parser: &mut Parser<'_>, node: &mut OpenNode, name: &str) -> Result<()> {
    let entry = &mut node.entry;
    match name {
        "createdindex" => entry.created = parser.unsigned()?,
        "modifiedindex" => entry.modified = parser.unsigned()?,
        "expiretime" => entry.expiration = read_time(parser)?,
        "value" => {
            let value = parser.string()?.unwrap_or_default();
            // A directory has none.
            if !entry.is_directory() {
                entry.content = Content::File(value.into());
            }
        }
        "children" => {
            if parser.object_or_null()? {
                entry.content = Content::Directory;
                node.in_children = true;
                node.first = true;
            }
        }
        _ => parser.skip()?,
    }
    Ok(())
}

fn read_time(parser: &mut Parser<'_>) -> Result<Option<Timestamp>> {
    match parser.string()? {
        None => Ok(None),
        Some(text) => Timestamp::parse(&text).map_err(|_| DocumentError::Time(text)),
    }
}

/// The ring that is in the history, which is in the hub.
fn read_hub(parser: &mut Parser<'_>) -> Result<Ring> {
    let mut ring = Ring::default();
    if !parser.object_or_null()? {
        return Ok(ring);
    }
    fields(parser, |parser, name| {
        if name != "eventhistory" {
            return Ok(parser.skip()?);
        }
        if !parser.object_or_null()? {
            return Ok(());
        }
        fields(parser, |parser, name| {
            match name {
                "queue" => ring = read_ring(parser)?,
                _ => parser.skip()?,
            }
            Ok(())
        })
    })?;
    Ok(ring)
}

fn read_ring(parser: &mut Parser<'_>) -> Result<Ring> {
    let mut ring = Ring::default();
    if !parser.object_or_null()? {
        return Ok(ring);
    }
    fields(parser, |parser, name| {
        match name {
            "events" => {
                ring.events.clear();
                let mut more = parser.array_or_null()? && parser.element(true)?;
                while more {
                    ring.events.push(read_event(parser)?);
                    more = parser.element(false)?;
                }
            }
            "size" => ring.size = parser.unsigned()?,
            "front" => ring.front = parser.unsigned()?,
            _ => parser.skip()?,
        }
        Ok(())
    })?;
    Ok(ring)
}

impl Ring {
    /// The history of a store at `index`.
    fn into_history(self, index: u64) -> Result<History> {
        let Ring {
            events,
            size,
            front,
        } = self;
        let wrong = DocumentError::History(index);
        let places = events.len() as u64;
        if size > places || (front >= places && size > 0) {
            return Err(wrong);
        }
        let mut history = VecDeque::new();
        let mut last = 0;
        for i in 0..size {
            let event = events[((front + i) % places) as usize].clone();
            let event = event.filter(|event| (last + 1..=index).contains(&event.index()));
            let event = event.ok_or_else(|| wrong.clone())?;
            last = event.index();
            history.push_back(event);
        }
        let surplus = history.len().saturating_sub(HISTORY_EVENTS);
        history.drain(..surplus);
        // A ring of another size is not kept as it is.
        let front = match places == HISTORY_EVENTS as u64 {
            true => front as usize,
            false => 0,
        };
        Ok(History::new(history, front))
    }
}

/// An event, if it is not null.
fn read_event(parser: &mut Parser<'_>) -> Result<Option<Arc<Event>>> {
    if !parser.object_or_null()? {
        return Ok(None);
    }
    let (mut action, mut node, mut prev_node, mut refresh) = (None, None, None, false);
    fields(parser, |parser, name| {
        match name {
            "action" => {
                let name = parser.string()?.unwrap_or_default();
                let known = Action::from_name(&name);
                action = Some(known.ok_or(DocumentError::Action(name))?);
            }
            "node" => node = read_node(parser)?,
            "prevnode" => prev_node = read_node(parser)?,
            "refresh" => refresh = parser.bool()?,
            _ => parser.skip()?,
        }
        Ok(())
    })?;
    let (Some(action), Some(node)) = (action, node) else {
        return Err(parser.malformed().into());
    };
    Ok(Some(Arc::new(Event {
        action,
        store_index: node.modified_index,
        node,
        prev_node,
        refresh,
    })))
}

/// A node of an event, if it is not null; none has children.
fn read_node(parser: &mut Parser<'_>) -> Result<Option<Node>> {
    if !parser.object_or_null()? {
        return Ok(None);
    }
    let mut node = Node {
        key: Path::root(),
        value: None,
        dir: false,
        expiration: None,
        ttl: 0,
        nodes: Vec::new(),
        modified_index: 0,
        created_index: 0,
    };
    fields(parser, |parser, name| {
        match name {
            "key" => node.key = Path::clean(&parser.string()?.unwrap_or_default()),
            "value" => node.value = parser.string()?.map(Arc::from),
            "dir" => node.dir = parser.bool()?,
            "expiration" => node.expiration = read_time(parser)?,
            "ttl" => node.ttl = parser.signed()?,
            "modifiedindex" => node.modified_index = parser.unsigned()?,
            "createdindex" => node.created_index = parser.unsigned()?,
            _ => parser.skip()?,
        }
        Ok(())
    })?;
    Ok(Some(node))
}

fn read_statistics(parser: &mut Parser<'_>) -> Result<Statistics> {
    let mut statistics = Statistics::default();
    if !parser.object_or_null()? {
        return Ok(statistics);
    }
    fields(parser, |parser, name| {
        let mut counters = Counter::ALL.into_iter();
        match counters.find(|counter| counter.name().eq_ignore_ascii_case(name)) {
            Some(counter) => *statistics.count_mut(counter) = parser.unsigned()?,
            None if name == "watchers" => statistics.watchers = parser.unsigned()?,
            None => parser.skip()?,
        }
        Ok(())
    })?;
    Ok(statistics)
}
