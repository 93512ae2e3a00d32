//! The owner of all streams and watchers.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use retcd_proto::etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType};

use super::catchup::CatchupJob;
use super::events::{RevisionEvents, Runs, Sets, Wanted, WholeSets};
use super::index::Index;
use super::range::KeyRange;
use super::recent::Recent;
use super::response::{Body, Fragment, NO_WATCH_ID, Refusal, Response};
use super::slab::Slab;
use super::stream::{GroupKey, State, Stream, StreamId, Watcher, WatcherKey};
use crate::Time;
use crate::mvcc::StoreRevision;

/// Bounds on what streams may hold and steps may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A stream's queue takes no more events once it holds this many responses.
    pub queue_responses: usize,
    /// A stream's queue takes no more events once it holds this many bytes; a catch-up that was
    /// under way may add as much again, and one response may be larger whatever the bound.
    pub queue_bytes: usize,
    /// With this many unsent replies [`Hub::accepts_requests`] says no.
    pub queue_replies: usize,
    /// Revisions that a catch-up reads in one step.
    pub catchup_revisions: usize,
    /// Bytes of records that a catch-up reads in one step, rounded up to a revision.
    pub catchup_bytes: usize,
    /// Watchers of a stream that catch up together.
    pub catchup_watchers: usize,
    /// Last revisions kept in memory while there are streams.
    pub recent_revisions: usize,
    /// Bytes of their records, most of which are shared with the store; encodings come on top.
    pub recent_bytes: usize,
}

impl Default for Limits {
    /// Thousand revisions and 512 watchers in one step are etcd's. Two MiB for a client that does
    /// not read let ten thousand of them fit into a server.
    fn default() -> Self {
        Limits {
            queue_responses: 4096,
            queue_bytes: 1 << 20,
            queue_replies: 128,
            catchup_revisions: 1000,
            catchup_bytes: 4 << 20,
            catchup_watchers: 512,
            recent_revisions: 4096,
            recent_bytes: 4 << 20,
        }
    }
}

/// The hub in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Open streams.
    pub streams: usize,
    /// Watchers that the clients have not cancelled.
    pub watchers: usize,
    /// Watchers that are behind.
    pub slow_watchers: usize,
    /// Events handed out since the start, counted per watcher.
    pub events_delivered: u64,
    /// Events in queues.
    pub events_pending: usize,
}

/// What the owner of a stream is to do next.
#[derive(Debug)]
pub enum Poll {
    /// Send these, then poll again.
    Responses(Vec<Response>),
    /// Run it without holding the hub, hand the outcome to [`Hub::complete_catchup`], then poll
    /// again.
    Catchup(CatchupJob),
    /// Wait until [`Hub::drain_woken`] names the stream.
    Idle,
}

/// The watchers of one range.
pub(super) struct Group {
    pub(super) range: KeyRange,
    members: Vec<WatcherKey>,
    /// Its place in `Hub::touched`, if it has one.
    touched: Option<NonZeroU32>,
}

/// What the revision that is being published has for a group.
struct Touched {
    group: GroupKey,
    /// Numbers of the events that match.
    matched: Runs,
}

/// All streams and watchers of a member: see the [module](super).
///
/// Methods that take a [`StreamId`] do nothing if the stream was closed.
pub struct Hub {
    pub(super) revision: i64,
    pub(super) compacted: i64,
    pub(super) limits: Limits,
    pub(super) streams: Slab<Stream>,
    pub(super) watchers: Slab<Watcher>,
    pub(super) groups: Slab<Group>,
    index: Index<GroupKey>,
    pub(super) recent: Recent,
    progress_due: BTreeSet<(Time, StreamId)>,
    woken: Vec<StreamId>,
    pub(super) slow_watchers: usize,
    pub(super) events_pending: usize,
    events_delivered: u64,
    /// What the revision being published concerns; kept for its memory.
    touched: Vec<Touched>,
}

impl Hub {
    /// A hub for a store at `revision` whose history below `compacted` is gone (0 or -1: none is).
    pub fn new(revision: i64, compacted: i64, limits: Limits) -> Hub {
        Hub {
            revision,
            compacted,
            limits,
            streams: Slab::default(),
            watchers: Slab::default(),
            groups: Slab::default(),
            index: Index::default(),
            recent: Recent::default(),
            progress_due: BTreeSet::new(),
            woken: Vec::new(),
            slow_watchers: 0,
            events_pending: 0,
            events_delivered: 0,
            touched: Vec::new(),
        }
    }

    /// The last revision that was published.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The hub in numbers.
    pub fn metrics(&self) -> Metrics {
        Metrics {
            streams: self.streams.len(),
            watchers: self.watchers.len(),
            slow_watchers: self.slow_watchers,
            events_delivered: self.events_delivered,
            events_pending: self.events_pending,
        }
    }

    /// Opens a stream. Its watchers with `progress_notify` hear of progress every
    /// `progress_interval`, not zero, into which the caller mixes a jitter.
    pub fn open_stream(&mut self, now: Time, progress_interval: Duration) -> StreamId {
        assert!(!progress_interval.is_zero(), "a period has a length");
        let due = now + progress_interval;
        let id = StreamId(self.streams.insert(Stream::new(progress_interval, due)));
        self.progress_due.insert((due, id));
        self.assert_progress_due();
        id
    }

    /// Forgets a stream, its watchers and whatever it was still to be sent.
    pub fn close_stream(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(id.0) else {
            return;
        };
        self.progress_due.remove(&(stream.progress_due, id));
        self.assert_progress_due();
        self.count_off(stream.behind.len(), stream.queue.events());
        for key in stream.watchers.into_values() {
            self.forget_watcher(key);
        }
        if self.streams.len() == 0 {
            self.recent.clear();
            self.assert_empty();
        }
    }

    /// Takes watchers that are behind no more, and events that are queued no more, out of the
    /// counts.
    fn count_off(&mut self, behind: usize, events: usize) {
        let slow = self.slow_watchers.checked_sub(behind);
        self.slow_watchers = slow.expect("each watcher that is behind was counted");
        let pending = self.events_pending.checked_sub(events);
        self.events_pending = pending.expect("each event in a queue was counted");
    }

    /// Each stream is due for progress at one time.
    fn assert_progress_due(&self) {
        let (due, streams) = (self.progress_due.len(), self.streams.len());
        assert_eq!(due, streams, "times of progress, and streams");
    }

    /// Without streams there is nothing.
    fn assert_empty(&self) {
        let left = (self.watchers.len(), self.groups.len(), self.index.len());
        assert_eq!(left, (0, 0, 0), "watchers, groups and ranges of no stream");
        let counted = (self.slow_watchers, self.events_pending);
        assert_eq!(counted, (0, 0), "slow watchers and events of no stream");
    }

    /// Whether requests of the stream should be read. While the client does not read its replies
    /// they should not, so that these stay few.
    pub fn accepts_requests(&self, id: StreamId) -> bool {
        self.streams
            .get(id.0)
            .is_some_and(|stream| stream.queue.replies() < self.limits.queue_replies)
    }

    /// Length of a stream's queue: responses and bytes.
    pub fn queued(&self, id: StreamId) -> (usize, usize) {
        self.streams
            .get(id.0)
            .map_or((0, 0), |stream| (stream.queue.len(), stream.queue.bytes()))
    }

    /// Creates a watcher and replies with its id, or replies with the reason why not.
    ///
    /// An id of 0 asks for an automatic one. A start of 0 is "now"; one below the compaction makes
    /// a watcher that is cancelled at once; one in the future hides what comes before.
    pub fn create(&mut self, id: StreamId, request: &WatchCreateRequest) -> Option<i64> {
        let stream = self.streams.get_mut(id.0)?;
        let range = match check(stream, request) {
            Ok(range) => range,
            Err(refusal) => {
                self.reply(id, NO_WATCH_ID, Body::Refused(refusal));
                return None;
            }
        };
        let watch_id = match request.watch_id {
            0 => stream.take_id(),
            explicit => explicit,
        };
        let start = request.start_revision;
        let behind = start != 0 && start <= self.revision;
        let group = self.group_of(range);
        let key = self.watchers.insert(Watcher {
            stream: id,
            id: watch_id,
            group,
            place: self.groups[group].members.len(),
            wanted: wanted(request),
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            had_events: false,
            start_revision: start,
            next: if start == 0 { self.revision + 1 } else { start },
            state: State::Synced,
        });
        self.groups[group].members.push(key);
        let before = self.streams[id.0].watchers.insert(watch_id, key);
        assert!(before.is_none(), "watcher {watch_id} was there already");
        self.reply(id, watch_id, Body::Created);
        if behind {
            self.fall_behind(key);
            self.cancel_compacted(id, self.compacted);
        }
        Some(watch_id)
    }

    /// Replies to a create request that the client may not make; `reason` is the full gRPC error.
    ///
    /// etcd looks at permissions after a negative start and before everything else: a request with
    /// a negative start belongs to [`Hub::create`].
    pub fn refuse(&mut self, id: StreamId, reason: &'static str) {
        let refusal = Refusal::Unauthorized(reason);
        self.reply(id, NO_WATCH_ID, Body::Refused(refusal));
    }

    /// Cancels a watcher and says so; an unknown id gets no reply.
    pub fn cancel(&mut self, id: StreamId, watch_id: i64) {
        let Some(stream) = self.streams.get_mut(id.0) else {
            return;
        };
        let Some(key) = stream.watchers.remove(&watch_id) else {
            return;
        };
        if self.watchers[key].state == State::Behind {
            let next = self.watchers[key].next;
            let removed = stream.behind.remove(&(next, key));
            assert!(removed, "watcher {watch_id} was not behind at {next}");
            self.count_off(1, 0);
        }
        self.forget_watcher(key);
        self.reply(id, watch_id, Body::Canceled);
    }

    /// Replies with the progress of all watchers of the stream, if there are any, all are synced
    /// and none starts in the future; else not at all, nor if the queue is full.
    pub fn request_progress(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(id.0) else {
            return;
        };
        let mut keys = stream.watchers.values();
        if !stream.watchers.is_empty() && keys.all(|&key| self.has_progress(key)) {
            self.reply_progress(id, NO_WATCH_ID);
        }
    }

    /// When [`Hub::handle_timeout`] has to be called if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.progress_due.first().map(|&(due, _)| due)
    }

    /// Sends the periodic progress that is due.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(&(due, id)) = self.progress_due.first() {
            if due > now {
                return;
            }
            self.progress_due.pop_first();
            let stream = &mut self.streams[id.0];
            let next = due + stream.progress_interval;
            // Periods that passed unseen are skipped.
            stream.progress_due = if next > now {
                next
            } else {
                now + stream.progress_interval
            };
            assert!(
                stream.progress_due > now,
                "progress due at {:?} at {now:?}",
                stream.progress_due
            );
            self.progress_due.insert((stream.progress_due, id));
            self.assert_progress_due();
            self.notify_progress(id);
        }
    }

    /// Goes on with a store at `revision` whose history below `compacted` is gone, after revisions
    /// that were not published here: only while there are no streams.
    pub fn go_on(&mut self, revision: i64, compacted: i64) {
        self.assert_empty();
        let before = self.revision;
        assert!(revision >= before, "goes on at {revision} after {before}");
        self.revision = revision;
        self.compact(compacted);
    }

    /// Tells the watchers of the events of the next revision, in the order of the changes. One that
    /// was there already when the hub [went on](Hub::go_on) is nothing new.
    pub fn publish(&mut self, changes: Arc<RevisionEvents>) {
        let revision = changes.revision();
        if revision <= self.revision {
            return;
        }
        let expected = self.revision + 1;
        assert!(
            revision == expected,
            "published {revision}, expected {expected}"
        );
        self.revision = revision;
        if self.streams.len() == 0 {
            return;
        }
        let (count_max, bytes_max) = (self.limits.recent_revisions, self.limits.recent_bytes);
        self.recent.push(Arc::clone(&changes), count_max, bytes_max);
        let mut touched = std::mem::take(&mut self.touched);
        for (number, event) in changes.events().iter().enumerate() {
            self.index.matching(event.record.key(), |key| {
                let group = &mut self.groups[key];
                let place = *group.touched.get_or_insert_with(|| {
                    touched.push(Touched {
                        group: key,
                        matched: Runs::default(),
                    });
                    NonZeroU32::new(touched.len() as u32).expect("one is in it")
                });
                let matched = &mut touched[place.get() as usize - 1].matched;
                matched.push(number as u32);
            });
        }
        let mut whole = WholeSets::default();
        for Touched { group, matched } in touched.drain(..) {
            self.publish_to_group(group, &matched, &changes, &mut whole);
        }
        self.touched = touched;
    }

    /// Forgets history below `revision`: watchers that still wanted some of it are cancelled. A hub
    /// that is not told finds out when one of them catches up.
    pub fn compact(&mut self, revision: i64) {
        if revision <= self.compacted {
            return;
        }
        self.compacted = revision;
        for id in self.stream_ids() {
            self.cancel_compacted(id, self.compacted);
        }
    }

    /// Goes on after the store was replaced by a snapshot at `revision` with history from
    /// `compacted`: what happened in between has to be read from it.
    pub fn restore(&mut self, revision: i64, compacted: i64) {
        let old = self.revision;
        if revision <= old {
            // It went on behind that.
            self.compact(compacted);
            return;
        }
        self.revision = revision;
        self.recent.clear();
        let synced: Vec<WatcherKey> = self
            .watchers
            .iter_mut()
            .filter(|(_, watcher)| watcher.state == State::Synced)
            .map(|(key, watcher)| {
                watcher.next = watcher.next.max(old + 1);
                (key, watcher.next)
            })
            .filter(|&(_, next)| next <= revision)
            .map(|(key, _)| key)
            .collect();
        for key in synced {
            self.fall_behind(key);
        }
        self.compact(compacted);
    }

    /// Moves the streams into `woken` that were idle and have something to poll now.
    pub fn drain_woken(&mut self, woken: &mut Vec<StreamId>) {
        woken.append(&mut self.woken);
    }

    /// What the owner of the stream is to do next; responses are worth about `bytes_max`.
    pub fn poll(&mut self, id: StreamId, bytes_max: usize) -> Poll {
        let Some(stream) = self.streams.get_mut(id.0) else {
            return Poll::Idle;
        };
        // Catch-ups and the queue take turns, for neither may wait for an end of the other.
        let catchup_turn = stream.queue.is_empty() || !stream.queue_turn;
        if catchup_turn && let Some(job) = self.start_catchup(id) {
            self.streams[id.0].queue_turn = true;
            return Poll::Catchup(job);
        }
        let stream = &mut self.streams[id.0];
        stream.queue_turn = false;
        if stream.queue.is_empty() {
            stream.awake = false;
            return Poll::Idle;
        }
        let events = stream.queue.events();
        let responses = stream.queue.take(bytes_max);
        let taken = events - stream.queue.events();
        self.count_off(0, taken);
        self.events_delivered += taken as u64;
        Poll::Responses(responses)
    }

    fn publish_to_group(
        &mut self,
        key: GroupKey,
        matched: &Runs,
        changes: &RevisionEvents,
        whole: &mut WholeSets,
    ) {
        let group = &mut self.groups[key];
        group.touched = None;
        let mut sets = Sets::new(changes, matched);
        let mut fallen = Vec::new();
        for &key in &group.members {
            let watcher = &mut self.watchers[key];
            if watcher.state != State::Synced || changes.revision() < watcher.next {
                continue;
            }
            if !changes.is_in_memory(watcher.wanted.prev_kv) {
                watcher.next = changes.revision();
                fallen.push(key);
                continue;
            }
            let Some(events) = sets.get(watcher.wanted, whole) else {
                continue;
            };
            let stream = &mut self.streams[watcher.stream.0];
            if is_full(stream, &self.limits) {
                watcher.next = changes.revision();
                fallen.push(key);
                continue;
            }
            watcher.had_events = true;
            self.events_pending += events.count();
            stream.queue.push(Response {
                watch_id: watcher.id,
                revision: StoreRevision::new(changes.revision()),
                body: Body::Events {
                    events: Arc::clone(events),
                    fragment: fragment(watcher),
                },
            });
            wake(stream, watcher.stream, &mut self.woken);
        }
        for key in fallen {
            self.fall_behind(key);
        }
    }

    /// Marks a synced watcher as behind, from its `next` on.
    fn fall_behind(&mut self, key: WatcherKey) {
        let watcher = &mut self.watchers[key];
        assert!(
            watcher.state == State::Synced && watcher.next <= self.revision,
            "{:?} watcher wants {} of {}",
            watcher.state,
            watcher.next,
            self.revision
        );
        watcher.state = State::Behind;
        let stream = &mut self.streams[watcher.stream.0];
        let is_new = stream.behind.insert((watcher.next, key));
        assert!(is_new, "watcher {} was behind already", watcher.id);
        self.slow_watchers += 1;
        wake(stream, watcher.stream, &mut self.woken);
    }

    /// Cancels the watchers of a stream that want history below `compacted`.
    pub(super) fn cancel_compacted(&mut self, id: StreamId, compact_revision: i64) {
        let Some(stream) = self.streams.get_mut(id.0) else {
            return;
        };
        while let Some(&(next, key)) = stream.behind.first() {
            if next >= compact_revision {
                return;
            }
            stream.behind.pop_first();
            let slow = self.slow_watchers.checked_sub(1);
            self.slow_watchers = slow.expect("each watcher that is behind was counted");
            let watcher = &mut self.watchers[key];
            watcher.state = State::Compacted;
            // etcd leaves the header's revision and the reason empty.
            stream.queue.push(Response {
                watch_id: watcher.id,
                revision: StoreRevision::new(0),
                body: Body::Compacted { compact_revision },
            });
            wake(stream, id, &mut self.woken);
        }
    }

    fn notify_progress(&mut self, id: StreamId) {
        let keys: Vec<WatcherKey> = self.streams[id.0].watchers.values().copied().collect();
        for key in keys {
            let watcher = &mut self.watchers[key];
            let had_events = std::mem::replace(&mut watcher.had_events, false);
            let watch_id = watcher.id;
            if watcher.progress_notify && !had_events && self.has_progress(key) {
                self.reply_progress(id, watch_id);
            }
        }
    }

    /// Whether the hub's revision says something about the watcher.
    fn has_progress(&self, key: WatcherKey) -> bool {
        let watcher = &self.watchers[key];
        watcher.state == State::Synced && watcher.start_revision <= self.revision
    }

    fn reply_progress(&mut self, id: StreamId, watch_id: i64) {
        let stream = &self.streams[id.0];
        let said = stream
            .queue
            .ends_with_progress(watch_id, StoreRevision::new(self.revision));
        if !said && !is_full(stream, &self.limits) {
            self.reply(id, watch_id, Body::Progress);
        }
    }

    fn reply(&mut self, id: StreamId, watch_id: i64, body: Body) {
        let Some(stream) = self.streams.get_mut(id.0) else {
            return;
        };
        stream.queue.push(Response {
            watch_id,
            revision: StoreRevision::new(self.revision),
            body,
        });
        wake(stream, id, &mut self.woken);
    }

    pub(super) fn wake(&mut self, id: StreamId) {
        wake(&mut self.streams[id.0], id, &mut self.woken);
    }

    fn stream_ids(&mut self) -> Vec<StreamId> {
        let keys = self.streams.iter_mut();
        keys.map(|(key, _)| StreamId(key)).collect()
    }

    fn group_of(&mut self, range: KeyRange) -> GroupKey {
        if let Some(key) = self.index.get(&range) {
            return key;
        }
        let key = self.groups.insert(Group {
            range: range.clone(),
            // Most have one.
            members: Vec::with_capacity(1),
            touched: None,
        });
        self.index.insert(range, key);
        key
    }

    /// Removes a watcher that its stream has dropped already.
    fn forget_watcher(&mut self, key: WatcherKey) {
        let watcher = self
            .watchers
            .remove(key)
            .expect("a stream holds only living watchers");
        let group = &mut self.groups[watcher.group];
        let removed = group.members.swap_remove(watcher.place);
        assert_eq!(removed, key, "the member at place {}", watcher.place);
        if let Some(&moved) = group.members.get(watcher.place) {
            self.watchers[moved].place = watcher.place;
        }
        if group.members.is_empty() {
            let removed = self.index.remove(&group.range);
            assert!(
                removed == Some(watcher.group),
                "{removed:?} was the group of {:?}",
                group.range
            );
            self.groups.remove(watcher.group);
        }
    }
}

/// The checks on a create request in etcd's order, but for permissions.
fn check(stream: &Stream, request: &WatchCreateRequest) -> Result<KeyRange, Refusal> {
    if request.start_revision < 0 {
        return Err(Refusal::NegativeStart);
    }
    let range = KeyRange::parse(&request.key, &request.range_end)?;
    if request.watch_id != 0 && stream.watchers.contains_key(&request.watch_id) {
        return Err(Refusal::DuplicateId);
    }
    Ok(range)
}

/// Unknown filters are ignored, as in etcd.
fn wanted(request: &WatchCreateRequest) -> Wanted {
    let has = |filter: FilterType| request.filters.contains(&(filter as i32));
    Wanted {
        prev_kv: request.prev_kv,
        no_put: has(FilterType::Noput),
        no_delete: has(FilterType::Nodelete),
    }
}

pub(super) fn fragment(watcher: &Watcher) -> Fragment {
    match watcher.fragment {
        true => Fragment::Allowed,
        false => Fragment::Never,
    }
}

/// Whether the stream's queue takes no more events.
pub(super) fn is_full(stream: &Stream, limits: &Limits) -> bool {
    stream.queue.len() >= limits.queue_responses || stream.queue.bytes() >= limits.queue_bytes
}

/// Names the stream as one that has something to poll, unless that is known.
fn wake(stream: &mut Stream, id: StreamId, woken: &mut Vec<StreamId>) {
    if !stream.awake {
        stream.awake = true;
        woken.push(id);
    }
}
