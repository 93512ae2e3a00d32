//! Shared by the tests: a naive store, and a client that shows what it got as text.

mod model;
mod rules;
mod slow;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use retcd_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use retcd_proto::mvccpb;

use super::*;
use crate::mvcc::{Event, EventKind, Fields, Record};

const HEADER: Header = Header {
    cluster_id: 0xcdf8_181e_3227_7b0d,
    member_id: 0x8e9e_05c5_2164_694d,
    raft_term: 3,
};
const INTERVAL: Duration = Duration::from_secs(600);

/// A list of everything that ever happened.
struct Store {
    revision: i64,
    compacted: i64,
    log: Vec<Event>,
    pairs: BTreeMap<Vec<u8>, Record>,
}

/// A change to make: the value of a key, or `None` to delete it.
type Change<'a> = (&'a [u8], Option<&'a [u8]>);

impl Store {
    fn new() -> Store {
        Store {
            revision: 1,
            compacted: -1,
            log: Vec::new(),
            pairs: BTreeMap::new(),
        }
    }

    /// Makes the changes one revision; deleting what is not there changes nothing.
    fn apply(&mut self, changes: &[Change<'_>]) -> Vec<Event> {
        let revision = self.revision + 1;
        let mut events = Vec::new();
        for &(key, value) in changes {
            let prev = self.pairs.get(key).cloned();
            let event = match value {
                Some(value) => {
                    let record = Record::encode(Fields {
                        key,
                        create_revision: prev.as_ref().map_or(revision, Record::create_revision),
                        mod_revision: revision,
                        version: prev.as_ref().map_or(0, Record::version) + 1,
                        value,
                        lease: 0,
                    });
                    self.pairs.insert(key.to_vec(), record.clone());
                    Event {
                        kind: EventKind::Put,
                        record,
                        prev,
                    }
                }
                None if self.pairs.remove(key).is_none() => continue,
                None => Event {
                    kind: EventKind::Delete,
                    record: Record::tombstone(key, revision),
                    prev,
                },
            };
            events.push(event);
        }
        if !events.is_empty() {
            self.revision = revision;
            self.log.extend(events.iter().cloned());
        }
        events
    }
}

#[derive(Debug, PartialEq, Eq)]
struct NeverFails;

impl History for Store {
    type Error = NeverFails;

    fn changes(
        &self,
        from: i64,
        to: i64,
        each: &mut dyn FnMut(Event) -> bool,
    ) -> Result<(), HistoryError<NeverFails>> {
        if from < self.compacted {
            return Err(HistoryError::Compacted(self.compacted));
        }
        for event in &self.log {
            let wanted = (from..=to).contains(&event.record.mod_revision());
            let event = Event {
                prev: None,
                ..event.clone()
            };
            if wanted && !each(event) {
                break;
            }
        }
        Ok(())
    }

    fn record_at(&self, key: &[u8], revision: i64) -> Result<Option<Record>, NeverFails> {
        if revision < self.compacted {
            return Ok(None);
        }
        let of_key = self
            .log
            .iter()
            .rev()
            .find(|event| event.record.key() == key && event.record.mod_revision() <= revision);
        Ok(of_key
            .filter(|event| event.kind == EventKind::Put)
            .map(|event| event.record.clone()))
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
        World {
            store: Store::new(),
            hub: Hub::new(1, -1, limits),
        }
    }

    fn open(&mut self) -> StreamId {
        self.hub.open_stream(Duration::ZERO, INTERVAL)
    }

    fn txn(&mut self, changes: &[Change<'_>]) {
        let events = self.store.apply(changes);
        if !events.is_empty() {
            self.hub.publish(self.store.revision, events);
        }
    }

    fn put(&mut self, key: &str) {
        self.txn(&[(key.as_bytes(), Some(b"value"))]);
    }

    fn delete(&mut self, key: &str) {
        self.txn(&[(key.as_bytes(), None)]);
    }

    fn compact(&mut self, revision: i64) {
        self.store.compacted = revision;
        self.hub.compact(revision);
    }

    /// The next responses, after as many catch-ups as it takes.
    fn poll(&mut self, stream: StreamId, bytes_max: usize) -> Vec<Response> {
        loop {
            match self.hub.poll(stream, bytes_max) {
                Poll::Responses(responses) => return responses,
                Poll::Idle => return Vec::new(),
                Poll::Catchup(job) => {
                    let caught = job.run(&self.store).unwrap();
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
    response.encode(&HEADER, &mut bytes);
    assert_eq!(bytes.len(), response.encoded_len(&HEADER));
    let message = WatchResponse::decode(&bytes[..]).unwrap();
    assert_eq!(message.encode_to_vec(), bytes, "prost writes the same");
    message
}

/// `watch_id @revision flags: events`
fn text(message: &WatchResponse) -> String {
    let header = message.header.as_ref().unwrap();
    assert_eq!(header.cluster_id, HEADER.cluster_id);
    assert_eq!(header.member_id, HEADER.member_id);
    assert_eq!(header.raft_term, HEADER.raft_term);
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
