//! One client's stream: its watchers and the queue of what it is to be sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::events::Wanted;
use super::response::{Body, Response};
use super::slab::Key;
use crate::Time;
use crate::mvcc::StoreRevision;

/// Names a stream of a [`Hub`](super::Hub), never another one, even after it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) Key);

/// Names a watcher in the hub; ids that clients see are per stream and may come back.
pub(super) type WatcherKey = Key;
/// Names a group of watchers of one range.
pub(super) type GroupKey = Key;

pub(super) struct Watcher {
    pub(super) stream: StreamId,
    pub(super) id: i64,
    pub(super) group: GroupKey,
    /// Its place among the members of the group.
    pub(super) place: usize,
    pub(super) wanted: Wanted,
    pub(super) fragment: bool,
    pub(super) progress_notify: bool,
    /// Whether events entered the queue since the last periodic progress.
    pub(super) had_events: bool,
    /// As the client asked: 0 is "now".
    pub(super) start_revision: i64,
    /// The first revision that it may be told of. While behind: everything below has entered the
    /// queue.
    pub(super) next: i64,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// All it wants up to the hub's revision has entered the queue.
    Synced,
    /// It has to read history from `next`, which is not beyond the hub's revision.
    Behind,
    /// It needed compacted history. It is told nothing any more, but its id is taken until the
    /// client cancels it, and it keeps progress on demand from being answered (as in etcd 3.7).
    Compacted,
}

pub(super) struct Stream {
    pub(super) watchers: BTreeMap<i64, WatcherKey>,
    /// Automatic ids are looked for from here.
    pub(super) next_id: i64,
    pub(super) queue: Queue,
    /// The watchers in [`State::Behind`] by what they want next.
    pub(super) behind: BTreeSet<(i64, WatcherKey)>,
    /// Whether somebody is reading history for it.
    pub(super) catching_up: bool,
    /// Whether the last poll handed out a catch-up: then it is the queue's turn.
    pub(super) queue_turn: bool,
    /// Whether its owner knows that there is something to poll.
    pub(super) awake: bool,
    pub(super) progress_interval: Duration,
    pub(super) progress_due: Time,
}

impl Stream {
    pub(super) fn new(progress_interval: Duration, progress_due: Time) -> Stream {
        Stream {
            watchers: BTreeMap::new(),
            next_id: 0,
            queue: Queue::default(),
            behind: BTreeSet::new(),
            catching_up: false,
            queue_turn: false,
            awake: false,
            progress_interval,
            progress_due,
        }
    }

    /// The lowest id that was not used yet, as etcd counts: up, past those that are taken.
    pub(super) fn take_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }
}

/// What a response costs beside its events, in bytes.
const RESPONSE_BYTES: usize = 64;
/// A queue that had to grow beyond this gives its memory back when it is empty.
const CAPACITY_KEPT: usize = 64;

/// Responses in the order in which the client gets them.
#[derive(Default)]
pub(super) struct Queue {
    responses: VecDeque<Response>,
    bytes: usize,
    events: usize,
    replies: usize,
}

impl Queue {
    pub(super) fn push(&mut self, response: Response) {
        self.bytes += cost(&response);
        match response.events() {
            Some(events) => self.events += events.count(),
            None => self.replies += 1,
        }
        self.responses.push_back(response);
    }

    /// Takes responses worth `bytes_max`, at least one if there is one.
    pub(super) fn take(&mut self, bytes_max: usize) -> Vec<Response> {
        let mut taken = Vec::new();
        let bytes_left = self.bytes.saturating_sub(bytes_max);
        while let Some(response) = self.responses.pop_front() {
            self.bytes -= cost(&response);
            match response.events() {
                Some(events) => self.events -= events.count(),
                None => self.replies -= 1,
            }
            taken.push(response);
            let next = self.responses.front().map_or(0, cost);
            if self.bytes - next < bytes_left {
                break;
            }
        }
        let left = (self.bytes, self.events, self.replies);
        assert!(
            !self.responses.is_empty() || left == (0, 0, 0),
            "bytes, events and replies of an empty queue: {left:?}"
        );
        if self.responses.is_empty() && self.responses.capacity() > CAPACITY_KEPT {
            self.responses = VecDeque::new();
        }
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.responses.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.responses.is_empty()
    }

    /// Encoded events and a flat charge per response. Shared events count in each queue.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Events in the queue.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    /// Responses without events.
    pub(super) fn replies(&self) -> usize {
        self.replies
    }

    /// Whether the last response is progress of `watch_id` at `revision`, which need not be said
    /// twice.
    pub(super) fn ends_with_progress(&self, watch_id: i64, revision: StoreRevision) -> bool {
        self.responses.back().is_some_and(|last| {
            matches!(last.body, Body::Progress)
                && (last.watch_id, last.revision) == (watch_id, revision)
        })
    }
}

fn cost(response: &Response) -> usize {
    RESPONSE_BYTES + response.events().map_or(0, |events| events.bytes())
}
