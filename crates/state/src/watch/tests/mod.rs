//! Shared by the tests: a store beside its naive model, and a client that shows what it got as
//! text.

mod model;
mod rules;
mod slow;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use retcd_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use retcd_proto::mvccpb;
use retcd_storage::backend::{Backend, WriteBatch};

use super::*;
use crate::mvcc::{Event, EventKind, Fields, Interval, Keyspace, Loaded, Prev, Record};
use crate::{Jobs, Time};

const ORIGIN: Origin = Origin {
    cluster_id: 0xcdf8_181e_3227_7b0d,
    member_id: 0x8e9e_05c5_2164_694d,
    raft_term: 3,
};
const INTERVAL: Duration = Duration::from_secs(600);

/// The store, and a plain list of everything that ever happened in it.
struct Store {
    keyspace: Keyspace,
    backend: Backend,
    log: Vec<Event>,
    pairs: BTreeMap<Vec<u8>, Record>,
}

/// A change to make: the value of a key, or `None` to delete it.
type Change<'a> = (&'a [u8], Option<&'a [u8]>);

impl Store {
    fn new(value_bytes_max: usize) -> Store {
        let backend = Backend::default();
        let loaded = Loaded::read(&backend.reader(), value_bytes_max, Jobs::default()).unwrap();
        Store {
            keyspace: Keyspace::new(backend.clone(), loaded, 0),
            backend,
            log: Vec::new(),
            pairs: BTreeMap::new(),
        }
    }

    fn revision(&self) -> i64 {
        self.keyspace.revision()
    }

    fn compacted(&self) -> i64 {
        self.keyspace.reader().compacted_revision()
    }

    /// Makes the changes one revision; deleting what is not there changes nothing.
    fn apply(&mut self, changes: &[Change<'_>]) -> Option<(i64, Arc<[Event]>)> {
        let next = self.keyspace.revision() + 1;
        let mut batch = WriteBatch::default();
        let mut txn = self.keyspace.begin(&mut batch);
        for &(key, value) in changes {
            match value {
                Some(value) => drop(txn.put(key, value, 0)),
                None => drop(txn.delete_range(Interval::Key(key))),
            }
        }
        let finished = txn.finish();
        self.backend.write(batch);
        self.keyspace.publish(0);
        let logged = self.log.len();
        for &change in changes {
            self.note(change, next);
        }
        if let Some((revision, events)) = &finished {
            assert_eq!(*revision, next);
            let expected = &self.log[logged..];
            assert_eq!(expected.len(), events.len());
            for (expected, event) in expected.iter().zip(&events[..]) {
                let of = |prev: &Prev| prev.attributes().map(|kv| kv.mod_revision());
                assert_eq!(of(&expected.prev), of(&event.prev));
                let prev = match &event.prev {
                    Prev::Stored(_) => expected.prev.clone(),
                    known => known.clone(),
                };
                assert_eq!(
                    *expected,
                    Event {
                        prev,
                        ..event.clone()
                    }
                );
            }
        }
        finished
    }

    fn note(&mut self, (key, value): Change<'_>, revision: i64) {
        let prev = self.pairs.get(key).cloned();
        let Some(value) = value else {
            if self.pairs.remove(key).is_some() {
                self.log.push(Event {
                    kind: EventKind::Delete,
                    record: Record::tombstone(key, revision),
                    prev: prev.into(),
                });
            }
            return;
        };
        let record = Record::encode(Fields {
            key,
            create_revision: prev
                .as_ref()
                .map_or(revision, |prev| prev.create_revision()),
            mod_revision: revision,
            version: prev.as_ref().map_or(0, |prev| prev.version()) + 1,
            value,
            lease: 0,
        });
        self.pairs.insert(key.to_vec(), record.clone());
        self.log.push(Event {
            kind: EventKind::Put,
            record,
            prev: prev.into(),
        });
    }

    /// Compacts, and removes what `steps` steps remove.
    fn compact(&mut self, revision: i64, steps: usize) {
        let mut batch = WriteBatch::default();
        // Refused if it was compacted already.
        let _ = self.keyspace.compact(revision, &mut batch);
        self.backend.write(batch);
        self.keyspace.publish(0);
        for _ in 0..steps {
            self.keyspace.compaction_step(5).unwrap();
        }
    }
}

/// A store and its hub.
struct World {
    store: Store,
    hub: Hub,
}

impl World {
    fn new() -> World {
        World::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> World {
        World::with(limits, usize::MAX)
    }

    fn with(limits: Limits, value_bytes_max: usize) -> World {
        World {
            store: Store::new(value_bytes_max),
            hub: Hub::new(1, -1, limits),
        }
    }

    fn open(&mut self) -> StreamId {
        self.hub.open_stream(Time::default(), INTERVAL)
    }

    fn txn(&mut self, changes: &[Change<'_>]) {
        if let Some((revision, events)) = self.store.apply(changes) {
            self.hub
                .publish(Arc::new(RevisionEvents::new(revision, events)));
        }
    }

    fn put(&mut self, key: &str) {
        self.txn(&[(key.as_bytes(), Some(b"value"))]);
    }

    fn delete(&mut self, key: &str) {
        self.txn(&[(key.as_bytes(), None)]);
    }

    fn compact(&mut self, revision: i64) {
        self.store.compact(revision, 100);
        self.hub.compact(revision);
    }

    fn run(&self, job: CatchupJob) -> Caught {
        job.run(&self.store.keyspace.reader().view()).unwrap()
    }

    /// The next responses, after as many catch-ups as it takes.
    fn poll(&mut self, stream: StreamId, bytes_max: usize) -> Vec<Response> {
        loop {
            match self.hub.poll(stream, bytes_max) {
                Poll::Responses(responses) => return responses,
                Poll::Idle => return Vec::new(),
                Poll::Catchup(job) => {
                    let caught = self.run(job);
                    self.hub.complete_catchup(caught);
                }
            }
        }
    }

    /// Everything that there is to send, as the client reads it.
    fn drain(&mut self, stream: StreamId) -> Vec<WatchResponse> {
        let mut messages = Vec::new();
        loop {
            let responses = self.poll(stream, 4096);
            if responses.is_empty() {
                return messages;
            }
            for response in responses {
                messages.push(decode(&response));
            }
        }
    }

    /// The same as text.
    fn read(&mut self, stream: StreamId) -> Vec<String> {
        self.drain(stream).iter().map(text).collect()
    }
}

/// What the client decodes from the response's bytes.
fn decode(response: &Response) -> WatchResponse {
    let mut bytes = Vec::new();
    response.encode(&ORIGIN, &mut bytes);
    assert_eq!(bytes.len(), response.encoded_len(&ORIGIN));
    let message = WatchResponse::decode(&bytes[..]).unwrap();
    assert_eq!(message.encode_to_vec(), bytes, "prost writes the same");
    message
}

/// `watch_id @revision flags: events`
fn text(message: &WatchResponse) -> String {
    let header = message.header.as_ref().unwrap();
    assert_eq!(header.cluster_id, ORIGIN.cluster_id);
    assert_eq!(header.member_id, ORIGIN.member_id);
    assert_eq!(header.raft_term, ORIGIN.raft_term);
    let mut out = format!("{} @{}", message.watch_id, header.revision);
    for (set, name) in [
        (message.created, " created"),
        (message.canceled, " canceled"),
        (message.fragment, " fragment"),
    ] {
        out += if set { name } else { "" };
    }
    if message.compact_revision != 0 {
        out += &format!(" compacted {}", message.compact_revision);
    }
    if !message.cancel_reason.is_empty() {
        out += &format!(" {:?}", message.cancel_reason);
    }
    let kinds = ["put", "delete"];
    for event in &message.events {
        let kv = event.kv.as_ref().unwrap();
        let key = str::from_utf8(&kv.key).unwrap();
        out += &format!(
            " {} {key}@{}",
            kinds[event.r#type as usize], kv.mod_revision
        );
        if let Some(prev) = &event.prev_kv {
            out += &format!(" was@{}", prev.mod_revision);
        }
    }
    out
}

/// A request to watch `key` to `range_end`.
fn watch(key: &str, range_end: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(range_end.as_bytes()),
        ..WatchCreateRequest::default()
    }
}
