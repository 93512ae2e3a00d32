//! Random scripts against the definition: a watcher hears every event of the store's log that its
//! request asks for, once and in order, whatever else goes on.
//!
//! Streams are served as a server would: only when woken, with catch-ups that take their time while
//! writes, compactions and cancellations happen.

use std::collections::BTreeSet;

use super::*;

/// A watcher as its client knows it.
struct Client {
    request: WatchCreateRequest,
    /// The first revision it is to hear of.
    first: i64,
    /// How many entries of the store's log are settled: told, or none of its business.
    settled: usize,
    /// Pieces of a response of which the last is still to come.
    pieces: Vec<mvccpb::Event>,
    /// Told that its history is compacted.
    compacted: bool,
}

impl Client {
    /// Whether the event is one that the request asks for, by the words of etcd's API.
    fn wants(&self, event: &Event) -> bool {
        let request = &self.request;
        let (key, end) = (event.record.key(), &request.range_end[..]);
        let start = if request.key.is_empty() {
            b"\0"
        } else {
            &request.key[..]
        };
        let in_range = match end {
            b"" => key == start,
            b"\0" => key >= start,
            _ => key >= start && key < end,
        };
        let filtered = match event.kind {
            EventKind::Put => request.filters.contains(&0),
            EventKind::Delete => request.filters.contains(&1),
        };
        in_range && !filtered && event.record.mod_revision() >= self.first
    }

    /// The next event in the log that it has to hear of.
    fn next<'a>(&self, log: &'a [Event]) -> Option<(usize, &'a Event)> {
        let rest = log.iter().enumerate().skip(self.settled);
        rest.into_iter().find(|(_, event)| self.wants(event))
    }

    fn hear(&mut self, message: WatchResponse, world: &World) {
        assert!(!self.compacted, "told of events after its cancellation");
        let header = message.header.unwrap().revision;
        self.pieces.extend(message.events);
        if message.fragment {
            assert!(self.request.fragment, "fragments were not asked for");
            return;
        }
        let log = &world.store.log;
        let mut last = 0;
        for told in std::mem::take(&mut self.pieces) {
            let (at, event) = self.next(log).expect("nothing is missing");
            self.settled = at + 1;
            last = event.record.mod_revision();
            assert_eq!(told.kv, Some(event.record.to_key_value()));
            assert_eq!(told.r#type, i32::from(event.kind == EventKind::Delete));
            let prev = event.prev.record().map(Record::to_key_value);
            match (self.request.prev_kv, &told.prev_kv) {
                (true, None) if last - 1 < world.store.compacted() => {}
                (true, told) => assert_eq!(*told, prev),
                (false, told) => assert_eq!(*told, None),
            }
        }
        assert!(
            header >= last && last > 0,
            "events of {last} under {header}"
        );
        assert!(header <= world.hub.revision());
        if let Some((_, event)) = self.next(log) {
            let next = event.record.mod_revision();
            assert!(next > last, "revision {last} was told in two responses");
        }
    }

    fn hear_progress(&self, revision: i64, log: &[Event]) {
        assert!(!self.compacted && self.first <= revision + 1);
        if let Some((_, event)) = self.next(log) {
            let next = event.record.mod_revision();
            assert!(next > revision, "progress {revision} before {next}");
        }
    }
}

/// What happened, so that a script which tests nothing is noticed.
#[derive(Debug, Default)]
struct Seen {
    events: u64,
    fragments: usize,
    progress: usize,
    catchups: usize,
    compacted: usize,
    canceled: usize,
    most_slow: usize,
}

struct Script {
    rng: fastrand::Rng,
    world: World,
    now: Time,
    streams: Vec<StreamId>,
    /// Create requests that were not answered yet, by stream, with the hub's revision.
    asked: BTreeMap<StreamId, Vec<(WatchCreateRequest, i64)>>,
    clients: BTreeMap<(StreamId, i64), Client>,
    runnable: BTreeSet<StreamId>,
    jobs: Vec<CatchupJob>,
    caught: Vec<Caught>,
    /// Whether queues are never full and every stream is served at once.
    attentive: bool,
    /// How often streams are served: the more the higher, from 72.
    mix: u8,
    seen: Seen,
}

const KEYS: [&[u8]; 7] = [b"\0", b"a", b"aa", b"ab", b"b", b"ba", b"c"];

impl Script {
    fn new(seed: u64) -> Script {
        let mut rng = fastrand::Rng::with_seed(seed);
        let attentive = seed.is_multiple_of(8);
        let limits = Limits {
            queue_responses: rng.usize(1..20),
            queue_bytes: rng.usize(1..3000),
            queue_replies: 4,
            catchup_revisions: rng.usize(1..20),
            catchup_bytes: rng.usize(1..2000),
            catchup_watchers: rng.usize(1..5),
            recent_revisions: rng.usize(0..12),
            recent_bytes: rng.usize(0..4000),
        };
        let mix = rng.u8(75..150);
        let limits = if attentive { Limits::default() } else { limits };
        Script {
            rng,
            world: World::with(limits, [usize::MAX, 0, 20][seed as usize % 3]),
            now: Time::default(),
            streams: Vec::new(),
            asked: BTreeMap::new(),
            clients: BTreeMap::new(),
            runnable: BTreeSet::new(),
            jobs: Vec::new(),
            caught: Vec::new(),
            attentive,
            mix,
            seen: Seen::default(),
        }
    }

    fn run(mut self, steps: usize) -> Seen {
        for _ in 0..3 {
            self.open();
        }
        for _ in 0..steps {
            self.step();
            let mut woken = Vec::new();
            self.world.hub.drain_woken(&mut woken);
            for stream in woken {
                assert!(self.runnable.insert(stream), "woken while awake");
            }
            if self.attentive {
                self.serve_all();
            }
            let metrics = self.world.hub.metrics();
            self.seen.most_slow = self.seen.most_slow.max(metrics.slow_watchers);
            assert_eq!(metrics.streams, self.streams.len());
            self.check_bounds();
        }
        self.serve_all();
        let metrics = self.world.hub.metrics();
        assert_eq!((metrics.slow_watchers, metrics.events_pending), (0, 0));
        assert_eq!(metrics.watchers, self.clients.len());
        assert_eq!(metrics.events_delivered, self.seen.events);
        for ((_, id), client) in &self.clients {
            let missing = client.next(&self.world.store.log);
            assert!(client.compacted || missing.is_none(), "{id}: {missing:?}");
        }
        for stream in self.streams {
            self.world.hub.close_stream(stream);
        }
        assert_eq!(self.world.hub.metrics().watchers, 0);
        assert_eq!(self.world.hub.groups.len(), 0);
        self.seen
    }

    fn step(&mut self) {
        match self.rng.u8(..self.mix) {
            0..40 => self.write(),
            40..46 => self.create(),
            46..49 => self.cancel(),
            49..50 if self.rng.u8(..3) == 0 => self.compact(),
            50..55 => {
                let stream = self.any_stream();
                self.world.hub.request_progress(stream);
            }
            55..57 => {
                self.now = self.now + INTERVAL / 3;
                self.world.hub.handle_timeout(self.now);
            }
            57..58 if self.rng.u8(..10) == 0 => self.reopen(),
            58..59 if self.rng.u8(..10) == 0 => self.restore(),
            59..65 => self.run_job(),
            65..71 => self.complete_job(),
            // A quiet moment, in which everybody gets everything.
            71..72 if self.rng.u8(..4) == 0 => self.serve_all(),
            _ => self.serve(),
        }
    }

    fn any_stream(&mut self) -> StreamId {
        self.streams[self.rng.usize(..self.streams.len())]
    }

    fn open(&mut self) {
        let stream = self.world.hub.open_stream(self.now, INTERVAL);
        self.streams.push(stream);
    }

    fn reopen(&mut self) {
        let stream = self
            .streams
            .swap_remove(self.rng.usize(..self.streams.len()));
        self.world.hub.close_stream(stream);
        self.clients.retain(|&(of, _), _| of != stream);
        self.asked.remove(&stream);
        self.runnable.remove(&stream);
        self.open();
    }

    /// Random changes of different keys: as a rule one, sometimes many.
    fn changes(&mut self) -> Vec<(&'static [u8], Option<Vec<u8>>)> {
        let mut keys = KEYS.to_vec();
        self.rng.shuffle(&mut keys);
        keys.truncate(if self.rng.bool() {
            1
        } else {
            self.rng.usize(1..7)
        });
        let mut change = |key| {
            let len = if self.rng.u8(..20) == 0 { 900 } else { 30 };
            let value = vec![b'v'; self.rng.usize(..len)];
            (key, (self.rng.u8(..3) > 0).then_some(value))
        };
        keys.into_iter().map(&mut change).collect()
    }

    fn write(&mut self) {
        let changes = self.changes();
        let changes: Vec<Change<'_>> = changes.iter().map(|(k, v)| (*k, v.as_deref())).collect();
        self.world.txn(&changes);
    }

    /// The store moves on without the hub.
    fn restore(&mut self) {
        for _ in 0..self.rng.usize(1..20) {
            let changes = self.changes();
            let changes: Vec<Change<'_>> =
                changes.iter().map(|(k, v)| (*k, v.as_deref())).collect();
            self.world.store.apply(&changes);
        }
        if !self.attentive && self.rng.u8(..4) == 0 {
            self.compact_store();
        }
        let World { store, hub } = &mut self.world;
        hub.restore(store.revision(), store.compacted());
    }

    fn compact(&mut self) {
        self.compact_store();
        let compacted = self.world.store.compacted();
        self.world.hub.compact(compacted);
    }

    fn compact_store(&mut self) {
        let (low, high) = (
            self.world.store.compacted().max(1),
            self.world.store.revision(),
        );
        // Mostly far back, as those who compact do.
        let high = if self.rng.u8(..4) == 0 {
            high
        } else {
            low.midpoint(high)
        };
        let revision = self.rng.i64(low..=high);
        let steps = self.rng.usize(..20);
        self.world.store.compact(revision, steps);
    }

    fn create(&mut self) {
        let revision = self.world.hub.revision();
        let mut key = || self.rng.choice(KEYS).unwrap();
        let (start, end) = (key(), key());
        let request = WatchCreateRequest {
            key: Bytes::from_static(start),
            range_end: Bytes::from_static(if self.rng.bool() { b"" } else { end }),
            start_revision: match self.rng.u8(..4) {
                0 => 0,
                1 => revision + self.rng.i64(0..10),
                2 => self.rng.i64(-2..=revision),
                _ => self.rng.i64((revision - 50).max(1)..=revision),
            },
            filters: match self.rng.u8(..4) {
                0 => vec![self.rng.i32(0..3)],
                _ => vec![],
            },
            prev_kv: self.rng.bool(),
            progress_notify: self.rng.bool(),
            fragment: self.rng.bool(),
            watch_id: if self.rng.u8(..3) == 0 {
                self.rng.i64(-4..6)
            } else {
                0
            },
        };
        let stream = self.any_stream();
        if request.watch_id == NO_WATCH_ID || !self.world.hub.accepts_requests(stream) {
            return;
        }
        self.world.hub.create(stream, &request);
        let asked = self.asked.entry(stream).or_default();
        asked.push((request, revision));
    }

    fn cancel(&mut self) {
        let compacted = self.clients.iter().find(|(_, client)| client.compacted);
        if let (Some((&(stream, id), _)), true) = (compacted, self.rng.bool()) {
            return self.world.hub.cancel(stream, id);
        }
        let stream = self.any_stream();
        let id = self.rng.i64(-5..10);
        self.world.hub.cancel(stream, id);
    }

    fn run_job(&mut self) {
        if let Some(job) = self.jobs.pop() {
            self.caught.push(self.world.run(job));
        }
    }

    fn complete_job(&mut self) {
        if !self.caught.is_empty() {
            let at = self.rng.usize(..self.caught.len());
            let caught = self.caught.swap_remove(at);
            self.world.hub.complete_catchup(caught);
        }
    }

    /// Serves everybody until there is nothing more to do.
    fn serve_all(&mut self) {
        loop {
            self.run_job();
            self.complete_job();
            let mut woken = Vec::new();
            self.world.hub.drain_woken(&mut woken);
            self.runnable.extend(woken);
            self.serve();
            if self.runnable.is_empty() && self.jobs.is_empty() && self.caught.is_empty() {
                return;
            }
        }
    }

    /// Polls one of the streams that may have something.
    fn serve(&mut self) {
        let runnable: Vec<StreamId> = self.runnable.iter().copied().collect();
        let Some(&stream) = runnable.get(self.rng.usize(..runnable.len().max(1))) else {
            return;
        };
        match self.world.hub.poll(stream, self.rng.usize(..2000)) {
            Poll::Idle => {
                self.runnable.remove(&stream);
            }
            Poll::Catchup(job) => {
                self.seen.catchups += 1;
                self.jobs.push(job);
            }
            Poll::Responses(responses) => {
                assert!(!responses.is_empty());
                for response in responses {
                    self.seen.events += response.events().map_or(0, |e| e.count() as u64);
                    let bytes_max = self.rng.usize(1..1000);
                    let mut pieces = Vec::new();
                    response.for_each_fragment(&ORIGIN, bytes_max, |piece| {
                        pieces.push(decode(piece));
                    });
                    self.seen.fragments += pieces.len() - 1;
                    for message in pieces {
                        self.hear(stream, message);
                    }
                }
            }
        }
    }

    fn hear(&mut self, stream: StreamId, message: WatchResponse) {
        let at = (stream, message.watch_id);
        let header = message.header.unwrap().revision;
        if message.created {
            self.hear_created(stream, &message);
        } else if message.canceled && message.compact_revision == 0 {
            assert!(
                self.clients.remove(&at).is_some(),
                "cancelled an unknown watcher"
            );
            assert!(message.cancel_reason.is_empty());
            self.seen.canceled += 1;
        } else if message.canceled {
            let client = self.clients.get_mut(&at).expect("created before cancelled");
            assert!(!client.compacted, "cancelled twice");
            assert!(message.compact_revision <= self.world.store.compacted());
            assert_eq!(header, 0);
            let asked_for_it = client.first < message.compact_revision;
            assert!(asked_for_it, "cancelled without a need of history");
            if self.attentive {
                let asked = client.request.start_revision;
                assert!(asked != 0 && asked < message.compact_revision);
            }
            client.compacted = true;
            self.seen.compacted += 1;
        } else if !message.events.is_empty() {
            let client = self.clients.get_mut(&at).expect("created before events");
            client.hear(message, &self.world);
        } else if message.watch_id == NO_WATCH_ID {
            let all = self.clients.iter().filter(|((of, _), _)| *of == stream);
            all.for_each(|(_, client)| client.hear_progress(header, &self.world.store.log));
            self.seen.progress += 1;
        } else {
            let client = &self.clients[&at];
            assert!(client.request.progress_notify);
            client.hear_progress(header, &self.world.store.log);
            self.seen.progress += 1;
        }
    }

    fn hear_created(&mut self, stream: StreamId, message: &WatchResponse) {
        let (request, revision) = self.asked.get_mut(&stream).unwrap().remove(0);
        assert_eq!(message.header.unwrap().revision, revision);
        if message.canceled {
            let empty = !request.range_end.is_empty()
                && request.range_end[..] != b"\0"[..]
                && request.key >= request.range_end;
            let taken = self.clients.contains_key(&(stream, request.watch_id));
            assert!(empty || taken || request.start_revision < 0);
            return;
        }
        let client = Client {
            first: match request.start_revision {
                0 => revision + 1,
                start => start,
            },
            request,
            settled: 0,
            pieces: Vec::new(),
            compacted: false,
        };
        let before = self.clients.insert((stream, message.watch_id), client);
        assert!(before.is_none(), "created twice");
    }

    /// A queue holds its bound and one catch-up, each rounded up to a revision of all watchers of a
    /// step.
    fn check_bounds(&self) {
        let limits = &self.world.hub.limits;
        let revision_bytes = 7 * 2 * 1000;
        let rounding = revision_bytes * (limits.catchup_watchers + 1);
        let replies = 64 * (limits.queue_replies + self.clients.len() + 20);
        let bound = 2 * limits.queue_bytes + rounding + replies;
        for &stream in &self.streams {
            let (_, bytes) = self.world.hub.queued(stream);
            assert!(bytes <= bound, "{bytes} bytes in a queue of {bound}");
        }
    }
}

#[test]
fn every_watcher_hears_what_the_definition_says() {
    let mut totals = [0; 5];
    for seed in 0..40 {
        let seen = Script::new(seed).run(1500);
        let counts = [
            seen.catchups,
            seen.fragments,
            seen.compacted,
            seen.canceled,
            seen.progress,
        ];
        for (total, count) in totals.iter_mut().zip(counts) {
            *total += count;
        }
        assert!(seen.events > 300, "seed {seed} tests little: {seen:?}");
    }
    assert!(totals.iter().all(|&total| total > 300), "{totals:?}");
}
