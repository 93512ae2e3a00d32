//! The last events of the store.

use std::collections::VecDeque;
use std::sync::Arc;

use super::event::{Event, Failure};
use super::{Action, Code, Path};

/// How many events are kept, whatever they are about.
pub(super) const HISTORY_EVENTS: usize = 1000;

/// The last events, oldest first.
///
/// Invariant: indexes ascend.
#[derive(Clone, Default)]
pub(super) struct History {
    events: VecDeque<Arc<Event>>,
    /// How many events have been pushed out: where in a document's ring the oldest one is.
    shifted: usize,
}

impl History {
    /// A history whose oldest event is at `front` of the ring.
    pub(super) fn new(events: VecDeque<Arc<Event>>, front: usize) -> History {
        assert!(events.len() <= HISTORY_EVENTS, "{} events", events.len());
        History {
            events,
            shifted: front,
        }
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        let last = self.last_index();
        assert!(last < event.index(), "{} follows {last}", event.index());
        if self.events.len() == HISTORY_EVENTS {
            self.events.pop_front();
            self.shifted = (self.shifted + 1) % HISTORY_EVENTS;
        }
        self.events.push_back(event);
    }

    pub(super) fn events(&self) -> impl ExactSizeIterator<Item = &Arc<Event>> {
        self.events.iter()
    }

    /// Where in the ring the oldest event is.
    pub(super) fn front(&self) -> usize {
        self.shifted
    }

    /// The index of the oldest event; 0 if there is none.
    pub(super) fn start_index(&self) -> u64 {
        self.events.front().map_or(0, |event| event.index())
    }

    /// The index of the newest event; 0 if there is none.
    pub(super) fn last_index(&self) -> u64 {
        self.events.back().map_or(0, |event| event.index())
    }

    /// The first event from index `since` on that a watch of `path` is about.
    ///
    /// Unlike a watcher that waits this finds events of hidden nodes, and takes the removal of
    /// `/foo`, a directory, for one of `/foobar`'s directory: both as in etcd 3.3
    /// (`store/event_history.go`).
    pub(super) fn find(
        &self,
        path: &Path,
        recursive: bool,
        since: u64,
    ) -> Result<Option<&Arc<Event>>, Failure> {
        let start = self.start_index();
        if since < start {
            let cause = format!("the requested history has been cleared [{start}/{since}]");
            return Err(Failure::new(Code::EventIndexCleared, cause));
        }
        let first = self.events.partition_point(|event| event.index() < since);
        let concerns = |event: &&Arc<Event>| {
            let key = &event.node.key;
            let removed_above = match (event.action, &event.prev_node) {
                (Action::Delete | Action::Expire, Some(previous)) => {
                    previous.dir && path.as_str().starts_with(previous.key.as_str())
                }
                _ => false,
            };
            key == path || (recursive && key.is_below(path)) || removed_above
        };
        let rest = self.events.range(first..);
        Ok(rest.filter(|event| !event.refresh).find(concerns))
    }
}
