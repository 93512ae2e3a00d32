//! The store of API v2, as etcd 3.3 keeps it: a tree of files and directories with an index, apart
//! from the keyspace of API v3.
//!
//! ```text
//! apply thread                    shared                        any thread
//! Store::apply(request) ─┐
//! Store::add_member(…)  ─┴▶ publish() ─▶ View (tree, index) ──▶ Reader::view(), Reader::get(…)
//!                                     └▶ hub: history, watchers ◀── Reader::watch(…) ─▶ Watcher
//! ```
//!
//! The [`Store`] belongs to whoever applies the log; it alone changes anything. What it has applied
//! becomes visible with [`Store::publish`], all at once: the tree to readers, its events to
//! watchers. A [`View`] is the tree at one moment; it costs one pointer, and nobody waits for whoever
//! walks it.
//!
//! Paths are whole: users' keys are under `/1`, what members tell each other under `/0`, users and
//! roles under `/2`. The front of API v2 takes the first component off. Every write takes the next
//! index, those of the cluster's own records, too.
//!
//! Two things differ from member to member, as in etcd: [`Statistics`], which count reads as well,
//! and the `ttl` of an event, the time that was left when this member applied it.
//!
//! Absent on purpose: a clock (time is an argument, and expired nodes go when a request says so),
//! HTTP statuses, and parameters as a client writes them.

mod document;
mod error;
mod event;
mod history;
mod hub;
mod members;
mod membership_request;
mod path;
mod reader;
mod request;
mod statistics;
mod store;
mod timestamp;
mod tree;
mod watcher;

use crate::version::Version;

pub use document::json::is_plain_json;
pub use document::{Document, DocumentError};
pub use error::{Code, Error};
pub use event::{Action, Event, Node};
pub use hub::Keeper;
pub use path::{DEPTH_MAX, Path};
pub use reader::{Reader, View, Watch};
pub use request::{Condition, Lifetime, Operation};
pub use statistics::{Counter, Statistics};
pub use store::{Answer, Store};
pub use timestamp::Timestamp;
pub use watcher::{EVENTS_MAX, Watcher};

pub(crate) use membership_request::{Meaning, parse};

/// From this version on Go's etcd does not know API v2, and its members tell each other nothing
/// through the tree.
pub const UNKNOWN_FROM: Version = Version::new(3, 6, 0);
