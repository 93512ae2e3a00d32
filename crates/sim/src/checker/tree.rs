//! The tree of API v2: the same on all members at the same entry, and what the log says.
//!
//! - An answer to a request of the log is the model's; that it lies behind all that was answered
//!   before is looked at as of any other entry.
//! - An answer from what a member has is the model's tree at the index that it names, and shows
//!   what this member has acknowledged.
//! - Nodes expire by what a leader puts into the log, with its own clock's time.
//! - Who watches for one event after the other hears of each, in order. Only what the history does
//!   not hold is withheld, and it says so.
//! - A stream has each event from its beginning on, as often as etcd 3.3 tells it, in order.
//! - What is hidden is shown, and told, only to who asks for it by its name.
//!
//! Where somebody puts strange things into the log there is no model: members are compared with
//! each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use retcd_proto::etcdserverpb::Request;
use retcd_proto::raftpb::{ConfChange, Entry, EntryType};
use retcd_state::v2::{Timestamp, View};

use super::log::{ORDER, TRUE_ANSWER};
use super::{Verdict, ensure};
use crate::context::Trace;
use crate::history::Operation;
use crate::model::tree::{self, TOP, Tree, is_hidden_below};
use crate::model::tree_users;
use crate::request::tree::{Answer, Event, Node, Streamed, of_event};
use crate::workload::tree::HIDDEN;

const SAME_TREE: &str = "all members have the same tree of API v2 at the same entry";
const TRUE_TREE: &str = "the tree of API v2 is what the log says";
const EXPIRY: &str = "nodes expire by a leader's clock, through the log";
const IN_ORDER: &str = "watchers of API v2 see every event once, in order";
const STREAMED: &str = "streams of API v2 have every event from their beginning on, in order";
const KEPT: &str = "only history that is not kept is withheld from watchers of API v2";
/// How many events a member keeps for watchers.
const HISTORY_EVENTS: u64 = 1000;

/// What a member has shown of its tree.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    index: u64,
    digest: u64,
}

/// The tree as the log says, and what members have shown of theirs.
#[derive(Default)]
pub struct TreeChecker {
    /// Whether the model knows all entries.
    has_model: bool,
    model: Tree,
    /// Entries that the model has not executed, since it is not known yet what became of a
    /// configuration change before them.
    waiting: VecDeque<Entry>,
    /// The last entry that the model has executed.
    executed: u64,
    /// The model's tree behind each entry that may have changed it.
    truth: BTreeMap<u64, Seen>,
    /// What the first member showed behind an entry, and which one.
    seen: BTreeMap<u64, (u64, Seen)>,
    /// Requests by which leaders let nodes expire.
    expiries: BTreeSet<u64>,
}

impl TreeChecker {
    /// An empty tree.
    pub fn new(has_model: bool) -> TreeChecker {
        TreeChecker {
            has_model,
            ..TreeChecker::default()
        }
    }

    /// The tree that the log makes up.
    pub fn model(&self) -> &Tree {
        &self.model
    }

    /// Whether the tree follows from the cluster, so that nothing is lost with a document of it.
    pub fn is_derived(&self) -> bool {
        self.has_model && self.model.is_derived()
    }

    /// The next entry of the log; the id of its request, if it is one of API v2.
    pub(super) fn push(&mut self, entry: &Entry) -> Option<u64> {
        if !self.has_model {
            return None;
        }
        self.waiting.push_back(entry.clone());
        let request = tree::request_of(entry)?;
        request.id
    }

    /// Executes what waits, as far as it is known what became of configuration changes; the answers
    /// to requests by their ids.
    pub(super) fn execute(
        &mut self,
        changes: &BTreeMap<u64, ConfChange>,
    ) -> Result<Vec<(u64, Answer)>, super::Violation> {
        let mut answers = Vec::new();
        while let Some(entry) = self.waiting.front() {
            let index = entry.index();
            if entry.r#type() != EntryType::EntryNormal {
                let Some(change) = changes.get(&index) else {
                    break;
                };
                if change.node_id() != 0 {
                    self.model.change(change);
                }
            } else if let Some(request) = tree::request_of(entry) {
                self.may_expire(&request)?;
                let answer = self.model.apply(entry).expect("it is a request");
                answers.push((request.id(), answer));
            } else {
                self.model.apply(entry);
            }
            self.executed = index;
            let index = self.model.index();
            let nodes = self.model.all(index);
            let truth = Seen {
                index,
                digest: digest(&nodes),
            };
            if self
                .truth
                .last_key_value()
                .is_none_or(|(_, last)| *last != truth)
            {
                self.truth.insert(self.executed, truth);
            }
            self.waiting.pop_front();
        }
        Ok(answers)
    }

    fn may_expire(&self, request: &Request) -> Verdict {
        let is_known = request.method() != "SYNC" || self.expiries.contains(&request.id());
        ensure(is_known, EXPIRY, || {
            format!("nobody has proposed {request:?}")
        })
    }

    /// Whether this entry is the first that users wrote, into a tree that followed from the cluster.
    pub fn is_first_write(&self, entry: &Entry) -> bool {
        let request = tree::request_of(entry);
        let writes = request.is_some_and(|r| !matches!(r.method(), "SYNC" | "QGET"));
        let is_first = self.model.events.len() == 1 && self.model.began_derived;
        self.has_model && writes && is_first
    }

    /// A member that leads, or not, lets nodes expire, while its clock on the wall shows `now`.
    pub fn expires(
        &mut self,
        member: u64,
        request: &Request,
        now: Timestamp,
        leads: bool,
    ) -> Verdict {
        self.expiries.insert(request.id());
        ensure(leads && request.time() <= now.0, EXPIRY, || {
            format!("{member:x} proposes {request:?} at {now:?}; it leads: {leads}")
        })
    }

    /// A member shows its tree behind the entry `applied`.
    pub fn shown(&mut self, member: u64, applied: u64, view: &View) -> Verdict {
        let everything = all(view, "/");
        let whole = Seen {
            index: view.index(),
            digest: digest(&everything),
        };
        let (other, first) = self
            .seen
            .entry(applied)
            .or_insert_with(|| (member, whole.clone()));
        ensure(*first == whole, SAME_TREE, || {
            format!(
                "behind entry {applied} {member:x} is at {whole:?}, {other:x} was at {first:?}: {everything:?}"
            )
        })?;
        self.holds(member, applied, view)
    }

    /// What a member holds behind the entry `applied` is what the log says.
    pub fn holds(&self, member: u64, applied: u64, view: &View) -> Verdict {
        if !self.has_model {
            return Ok(());
        }
        let nodes = written(view);
        let found = Seen {
            index: view.index(),
            digest: digest(&nodes),
        };
        let truth = self.truth.range(..=applied).next_back();
        let truth = truth.map_or_else(
            || Seen {
                index: 0,
                digest: digest(&[]),
            },
            |(_, seen)| seen.clone(),
        );
        ensure(self.executed < applied || found == truth, TRUE_TREE, || {
            let expected = self.model.all(truth.index);
            format!(
                "behind entry {applied} {member:x} is at {}, it should be at {}, and holds {nodes:?}; \
                 it should be {expected:?}",
                found.index, truth.index
            )
        })
    }

    /// A member has answered from what it has.
    pub(super) fn read_returned(
        &self,
        path: &str,
        recursive: bool,
        operation: &Operation,
        answer: &Answer,
    ) -> Verdict {
        let index = match answer {
            Ok(event) => event.store_index,
            Err(refusal) => refusal.index,
        };
        let floor = operation.tree_floor;
        ensure(index >= floor, ORDER, || {
            let request = &operation.request;
            format!("{request} was answered at index {index}; its member had shown {floor} before")
        })?;
        if !self.has_model {
            return Ok(());
        }
        let truth = self.model.read(path, recursive, index);
        let is_known = index <= self.model.index();
        ensure(is_known && truth == *answer, TRUE_ANSWER, || {
            format!(
                "{} was answered {answer:?}; it is {truth:?}",
                operation.request
            )
        })
    }
}

/// What clients have written, as a member shows it.
fn written(view: &View) -> Vec<Node> {
    let mut nodes = all(view, TOP);
    let users = view.get(tree_users::TOP, true, Timestamp(0)).ok();
    if let Some(event) = users.map(|event| of_event(&event)) {
        nodes.push(event.node);
        nodes.extend(event.nodes);
    }
    nodes
}

/// What is below `path`, as a member shows it to who knows the names of what is hidden.
fn all(view: &View, path: &str) -> Vec<Node> {
    let read = |path: &str| {
        let event = view.get(path, true, Timestamp(0)).ok();
        event.map(|event| of_event(&event))
    };
    let mut nodes = read(path).map_or_else(Vec::new, |event| event.nodes);
    for hidden in HIDDEN {
        if let Some(event) = read(hidden) {
            nodes.push(event.node);
            nodes.extend(event.nodes);
        }
    }
    nodes.sort_by_key(|node| tree::order(&node.key));
    nodes
}

fn digest(nodes: &[Node]) -> u64 {
    let mut sum = Trace::default();
    for node in nodes {
        sum.mix_bytes(node.key.as_bytes());
        sum.mix_bytes(node.value.as_deref().unwrap_or_default().as_bytes());
        let expiration = node.expiration.unwrap_or(0) as u64;
        sum.mix(&[u64::from(node.dir), expiration, node.created, node.modified]);
    }
    sum.digest()
}

fn is_below(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above);
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// What one watcher has seen.
pub struct TreeWatchChecker {
    path: &'static str,
    recursive: bool,
    /// The first index that it has not seen; 0 before it has read what there is.
    next: u64,
}

/// Whether a watcher hears of an event.
#[derive(PartialEq, Eq)]
enum Hears {
    Surely,
    /// If it found it in the history, or the node was there.
    Perhaps,
    No,
}

impl TreeWatchChecker {
    /// A watcher that has seen nothing.
    pub fn new(path: &'static str, recursive: bool) -> TreeWatchChecker {
        let next = 0;
        TreeWatchChecker {
            path,
            recursive,
            next,
        }
    }

    /// From which index on it watches; 0: it has to read first.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// A read has shown all up to `index`.
    pub fn read(&mut self, index: u64) {
        self.next = index + 1;
    }

    fn hears(&self, event: &Event) -> Hears {
        let (key, path) = (&event.node.key, self.path);
        let is_removal = matches!(event.action, "delete" | "expire");
        match event.refresh {
            true => Hears::No,
            // The history shows what is hidden, as in etcd 3.3.
            false if self.recursive && is_hidden_below(key, path) => Hears::Perhaps,
            false if key == path || (self.recursive && is_below(key, path)) => Hears::Surely,
            false if is_removal && is_below(path, key) => Hears::Perhaps,
            false => Hears::No,
        }
    }

    /// It was told of an event, or refused.
    pub fn saw(&mut self, answer: &Answer, model: &Tree) -> Verdict {
        let told = match answer {
            Ok(event) => event,
            Err(refusal) => {
                let (next, index) = (self.next, refusal.index);
                self.next = 0;
                let first = model
                    .events
                    .first()
                    .map_or(u64::MAX, |event| event.store_index);
                let is_gone = next < first || next + HISTORY_EVENTS <= index;
                return ensure(refusal.code == 401 && is_gone, KEPT, || {
                    format!("a watcher from {next} on was refused: {refusal:?}")
                });
            }
        };
        let is_told = |event: &&Event| {
            let (node, prev) = (&event.node, &event.prev);
            (event.action, node, prev) == (told.action, &told.node, &told.prev)
        };
        let expected = self
            .coming(model)
            .find(|(event, hears)| is_told(event) || *hears == Hears::Surely);
        let is_right = expected.as_ref().is_some_and(|(event, _)| is_told(event));
        ensure(is_right, IN_ORDER, || {
            let expected = expected.map(|(event, _)| event);
            format!(
                "a watcher from {} on saw {told:?}; the next is {expected:?}",
                self.next
            )
        })?;
        self.next = told.node.modified + 1;
        Ok(())
    }

    /// The events that it has not seen and may hear of.
    fn coming<'m>(&'m self, model: &'m Tree) -> impl Iterator<Item = (&'m Event, Hears)> {
        let first = model
            .events
            .partition_point(|event| event.store_index < self.next);
        let rest = model.events[first..].iter();
        let heard = rest.map(|event| (event, self.hears(event)));
        heard.filter(|(_, hears)| *hears != Hears::No)
    }

    /// It was told of events by a stream, which began with what was new then.
    pub fn streamed(&self, streamed: &Streamed, model: &Tree) -> Verdict {
        let first = model
            .events
            .partition_point(|event| event.store_index <= streamed.start);
        let events = model.events[first..].iter();
        let mut expected =
            events.flat_map(|event| std::iter::repeat_n(event, self.times_streamed(event, model)));
        for told in &streamed.events {
            let next = expected.next();
            let is_right = next.is_some_and(|next| {
                (next.action, &next.node, &next.prev) == (told.action, &told.node, &told.prev)
            });
            ensure(is_right, STREAMED, || {
                let start = streamed.start;
                format!(
                    "a stream of {} from {start} on told {told:?}; the next is {next:?}",
                    self.path
                )
            })?;
        }
        let missing = expected
            .next()
            .filter(|event| event.store_index <= streamed.until);
        ensure(missing.is_none(), STREAMED, || {
            format!(
                "a stream of {} from {} to {} did not tell {missing:?}",
                self.path, streamed.start, streamed.until
            )
        })
    }

    /// How often a stream tells an event: that the node itself is gone twice, as in etcd 3.3.
    fn times_streamed(&self, event: &Event, model: &Tree) -> usize {
        let (key, path) = (event.node.key.as_str(), self.path);
        if event.refresh {
            return 0;
        }
        let is_removal = matches!(event.action, "delete" | "expire" | "compareAndDelete");
        let is_gone = is_removal
            && (key == path || is_below(path, key))
            && model.has(path, event.store_index - 1);
        let is_seen =
            key == path || (self.recursive && is_below(key, path) && !is_hidden_below(key, path));
        usize::from(is_gone) + usize::from(is_seen)
    }

    /// Whether there is nothing left for it to see.
    pub fn is_complete(&self, model: &Tree) -> bool {
        let mut coming = self.coming(model);
        self.next > 0 && !coming.any(|(_, hears)| hears == Hears::Surely)
    }
}
