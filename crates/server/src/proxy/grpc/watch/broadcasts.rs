//! Who shares which watch of a server. No streams, sockets or clock: what is to be done comes back
//! as [`Action`]s.
//!
//! A *broadcast* is a watch of a server and the watchers of clients that are served by it. All
//! watchers of one range can share one, as far as their revisions allow:
//!
//! - `next` of a broadcast is the revision of its last event plus one. All events from there on are
//!   still to come, so a watcher that wants those from `from` on may join if `next <= from`.
//! - Whoever wants older ones gets a broadcast of its own. Once that has delivered the same event as
//!   another, they are at the same place, and one of them is given up.
//!
//! Progress notices do not move `next`: that nothing has happened up to some revision makes a
//! broadcast no less fit for those who want to hear of older ones.
//!
//! A broadcast is opened with the token of its first watcher. If the server refuses that token,
//! those who have others go on without it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

/// The key and the end of a watched range, as requests have them.
pub(super) type Range = (Bytes, Bytes);
/// Whose watch it is at the server.
pub(super) type Token = Option<Arc<str>>;

/// A watcher of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::proxy::grpc) struct WatcherId(pub(super) u64);

/// A watch of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BroadcastId(u64);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Begin a watch of a server.
    Open {
        broadcast: BroadcastId,
        range: Range,
        from: i64,
        token: Token,
    },
    /// End it.
    Close {
        broadcast: BroadcastId,
        token: Token,
    },
    /// Give the watcher the events from a revision on.
    Deliver { watcher: WatcherId, from: i64 },
    /// Tell the watcher that its watch has ended, for the reason that the server gave.
    Cancel { watcher: WatcherId },
}

/// Why a broadcast has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Revisions below this one are gone.
    Compacted(i64),
    /// The server does not want to go on with whoever has opened it.
    Refused,
}

struct Broadcast {
    id: BroadcastId,
    token: Token,
    next: i64,
    watchers: BTreeSet<WatcherId>,
}

struct Watcher {
    range: Range,
    broadcast: BroadcastId,
    token: Token,
    /// The first revision that it has not been given.
    from: i64,
}

/// All broadcasts.
#[derive(Default)]
pub(super) struct Broadcasts {
    /// Ranges that are watched, each with its broadcasts.
    ranges: HashMap<Range, Vec<Broadcast>>,
    /// Where a broadcast is found.
    range_of: HashMap<BroadcastId, Range>,
    watchers: HashMap<WatcherId, Watcher>,
    last_id: u64,
}

impl Broadcasts {
    /// A watcher that wants the events of a range from a revision on.
    pub(super) fn join(
        &mut self,
        watcher: WatcherId,
        range: Range,
        from: i64,
        token: Token,
    ) -> Option<Action> {
        let broadcasts = self.ranges.entry(range.clone()).or_default();
        let fits = |broadcast: &&mut Broadcast| broadcast.next <= from;
        // The one that is furthest ahead has the least to pass over.
        let found = broadcasts.iter_mut().filter(fits).max_by_key(|b| b.next);
        let (id, action) = match found {
            Some(broadcast) => {
                broadcast.watchers.insert(watcher);
                (broadcast.id, None)
            }
            None => {
                self.last_id += 1;
                let id = BroadcastId(self.last_id);
                broadcasts.push(Broadcast {
                    id,
                    token: token.clone(),
                    next: from,
                    watchers: BTreeSet::from([watcher]),
                });
                self.range_of.insert(id, range.clone());
                let open = Action::Open {
                    broadcast: id,
                    range: range.clone(),
                    from,
                    token: token.clone(),
                };
                (id, Some(open))
            }
        };
        let watcher_state = Watcher {
            range,
            broadcast: id,
            token,
            from,
        };
        self.watchers.insert(watcher, watcher_state);
        action
    }

    /// A watcher is served no longer.
    pub(super) fn leave(&mut self, watcher: WatcherId) -> Option<Action> {
        let left = self.watchers.remove(&watcher)?;
        let broadcast = self.broadcast(left.broadcast);
        let broadcast = broadcast.expect("a watcher's broadcast is there as long as it");
        broadcast.watchers.remove(&watcher);
        let close = broadcast.watchers.is_empty();
        close.then(|| self.close(left.broadcast))
    }

    /// The server has sent events, the last one of revision `last`.
    pub(super) fn handle_events(&mut self, id: BroadcastId, last: i64) -> Vec<Action> {
        let next = last + 1;
        let mut actions = self.pass(id, last, next);
        let Some(broadcast) = self.broadcast(id) else {
            return actions;
        };
        broadcast.next = broadcast.next.max(next);
        let next = broadcast.next;
        let range = self.range_of[&id].clone();
        let broadcasts = self.ranges.get_mut(&range).expect("it has a broadcast");
        let other = broadcasts.iter().position(|b| b.id != id && b.next == next);
        if let Some(other) = other {
            let at = broadcasts.iter().position(|b| b.id == id);
            let moved = std::mem::take(&mut broadcasts[at.expect("it was found")].watchers);
            for watcher in &moved {
                let watcher = self.watchers.get_mut(watcher);
                watcher.expect("it is in the list").broadcast = broadcasts[other].id;
            }
            broadcasts[other].watchers.extend(moved);
            actions.push(self.close(id));
        }
        actions
    }

    /// The server has told that there are no events up to `revision` but those that it has sent. Who
    /// knows that already is told again, as a server does: it shows that the watch is alive.
    pub(super) fn handle_progress(&mut self, id: BroadcastId, revision: i64) -> Vec<Action> {
        self.pass(id, revision + 1, revision + 1)
    }

    /// The server has ended a broadcast.
    pub(super) fn handle_end(&mut self, id: BroadcastId, end: End) -> Vec<Action> {
        let Some(broadcast) = self.broadcast(id) else {
            return Vec::new();
        };
        let watchers = std::mem::take(&mut broadcast.watchers);
        let refused = broadcast.token.clone();
        self.remove(id);
        let mut actions = Vec::new();
        for id in watchers {
            let watcher = self.watchers.remove(&id).expect("it was in the list");
            let goes_on = match end {
                End::Compacted(revision) => watcher.from >= revision,
                End::Refused => watcher.token != refused,
            };
            match goes_on {
                true => actions.extend(self.join(id, watcher.range, watcher.from, watcher.token)),
                false => actions.push(Action::Cancel { watcher: id }),
            }
        }
        actions
    }

    /// How many watchers there are, and how many watches of servers they need.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.watchers.len(), self.range_of.len())
    }

    /// Who has opened a broadcast.
    pub(super) fn token_of(&mut self, id: BroadcastId) -> Option<Token> {
        self.broadcast(id).map(|broadcast| broadcast.token.clone())
    }

    /// How many watchers a broadcast serves.
    pub(super) fn watchers_of(&mut self, id: BroadcastId) -> usize {
        self.broadcast(id)
            .map_or(0, |broadcast| broadcast.watchers.len())
    }

    /// Delivers what is below `next` to those who wait for a revision up to `from_max`.
    fn pass(&mut self, id: BroadcastId, from_max: i64, next: i64) -> Vec<Action> {
        let Some(range) = self.range_of.get(&id) else {
            // What was under way when it was closed.
            return Vec::new();
        };
        let broadcast = self.ranges[range].iter().find(|b| b.id == id);
        let watchers = &broadcast.expect("it is where it is said to be").watchers;
        let mut actions = Vec::with_capacity(watchers.len());
        for id in watchers {
            let watcher = self.watchers.get_mut(id).expect("it is in the list");
            if watcher.from <= from_max {
                actions.push(Action::Deliver {
                    watcher: *id,
                    from: watcher.from,
                });
                watcher.from = next;
            }
        }
        actions
    }

    fn broadcast(&mut self, id: BroadcastId) -> Option<&mut Broadcast> {
        let broadcasts = self.ranges.get_mut(self.range_of.get(&id)?)?;
        broadcasts.iter_mut().find(|broadcast| broadcast.id == id)
    }

    fn close(&mut self, id: BroadcastId) -> Action {
        let removed = self.remove(id);
        Action::Close {
            broadcast: id,
            token: removed.token,
        }
    }

    fn remove(&mut self, id: BroadcastId) -> Broadcast {
        let range = self.range_of.remove(&id).expect("it is there");
        let broadcasts = self.ranges.get_mut(&range).expect("it is there");
        let at = broadcasts.iter().position(|broadcast| broadcast.id == id);
        let removed = broadcasts.swap_remove(at.expect("it is there"));
        if broadcasts.is_empty() {
            self.ranges.remove(&range);
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A story: each line is what happens, and what is to be done then.
    struct Story(Broadcasts);

    impl Story {
        fn new() -> Story {
            Story(Broadcasts::default())
        }

        /// `w` wants `range` from `from` on, with a token.
        fn join(&mut self, watcher: u64, range: &str, from: i64, token: &str) -> String {
            let range = (Bytes::copy_from_slice(range.as_bytes()), Bytes::new());
            let token = (!token.is_empty()).then(|| token.into());
            let action = self.0.join(WatcherId(watcher), range, from, token);
            told(action.as_slice())
        }

        fn leave(&mut self, watcher: u64) -> String {
            told(self.0.leave(WatcherId(watcher)).as_slice())
        }

        fn events(&mut self, broadcast: u64, last: i64) -> String {
            told(&self.0.handle_events(BroadcastId(broadcast), last))
        }

        fn progress(&mut self, broadcast: u64, revision: i64) -> String {
            told(&self.0.handle_progress(BroadcastId(broadcast), revision))
        }

        fn end(&mut self, broadcast: u64, end: End) -> String {
            told(&self.0.handle_end(BroadcastId(broadcast), end))
        }
    }

    fn told(actions: &[Action]) -> String {
        let told = |action: &Action| match action {
            Action::Open {
                broadcast,
                from,
                token,
                ..
            } => format!(
                "open {}@{from}{}",
                broadcast.0,
                token.as_deref().unwrap_or("")
            ),
            Action::Close { broadcast, .. } => format!("close {}", broadcast.0),
            Action::Deliver { watcher, from } => format!("{}>={from}", watcher.0),
            Action::Cancel { watcher } => format!("cancel {}", watcher.0),
        };
        actions.iter().map(told).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn watchers_of_a_range_share_a_watch() {
        let mut story = Story::new();
        assert_eq!(story.join(1, "a", 5, ""), "open 1@5");
        assert_eq!(story.join(2, "a", 5, ""), "");
        assert_eq!(story.join(3, "a", 9, ""), "");
        assert_eq!(story.join(4, "b", 5, ""), "open 2@5");
        assert_eq!(story.0.counts(), (4, 2));
        // Everybody is told what he wants to hear.
        assert_eq!(story.events(1, 7), "1>=5 2>=5");
        assert_eq!(story.events(1, 9), "1>=8 2>=8 3>=9");
        assert_eq!(story.leave(1), "");
        assert_eq!(story.leave(2), "");
        assert_eq!(story.leave(3), "close 1");
        assert_eq!(story.leave(3), "");
        assert_eq!(story.events(1, 12), "", "it was under way");
        assert_eq!(story.0.counts(), (1, 1));
    }

    #[test]
    fn who_wants_history_catches_up_and_joins_the_others() {
        let mut story = Story::new();
        assert_eq!(story.join(1, "a", 5, ""), "open 1@5");
        assert_eq!(story.events(1, 20), "1>=5");
        assert_eq!(story.join(2, "a", 3, ""), "open 2@3");
        assert_eq!(story.join(3, "a", 4, ""), "");
        assert_eq!(story.events(2, 10), "2>=3 3>=4");
        assert_eq!(story.events(2, 20), "2>=11 3>=11 close 2");
        assert_eq!(story.0.counts(), (3, 1));
        assert_eq!(story.events(1, 21), "1>=21 2>=21 3>=21");
    }

    #[test]
    fn who_could_join_several_has_least_to_pass_over() {
        let mut story = Story::new();
        assert_eq!(story.join(1, "a", 5, ""), "open 1@5");
        assert_eq!(story.events(1, 20), "1>=5");
        assert_eq!(story.join(2, "a", 3, ""), "open 2@3");
        assert_eq!(story.join(3, "a", 30, ""), "");
        // The newest broadcast still has a watcher.
        assert_eq!(story.leave(1), "");
    }

    #[test]
    fn progress_is_told_and_keeps_a_broadcast_open_for_the_past() {
        let mut story = Story::new();
        assert_eq!(story.join(1, "a", 5, ""), "open 1@5");
        assert_eq!(story.progress(1, 3), "", "its future has not begun");
        assert_eq!(story.progress(1, 90), "1>=5");
        assert_eq!(story.progress(1, 90), "1>=91", "nothing new is news, too");
        assert_eq!(story.join(2, "a", 50, ""), "");
        assert_eq!(story.events(1, 95), "1>=91 2>=50");
    }

    #[test]
    fn a_refused_token_is_its_owners_problem() {
        let mut story = Story::new();
        assert_eq!(story.join(1, "a", 5, "x"), "open 1@5x");
        assert_eq!(story.join(2, "a", 5, "y"), "");
        assert_eq!(story.join(3, "a", 6, "y"), "");
        assert_eq!(story.end(1, End::Refused), "cancel 1 open 2@5y");
        assert_eq!(story.end(2, End::Refused), "cancel 2 cancel 3");
        assert_eq!(story.0.counts(), (0, 0));
        assert!(story.0.ranges.is_empty() && story.0.watchers.is_empty());
    }

    #[test]
    fn a_compaction_ends_those_who_miss_something() {
        let mut story = Story::new();
        assert_eq!(story.join(1, "a", 5, ""), "open 1@5");
        assert_eq!(story.join(2, "a", 30, ""), "");
        assert_eq!(story.end(1, End::Compacted(30)), "cancel 1 open 2@30");
    }
}
