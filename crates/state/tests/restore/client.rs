//! A client that watches a member, and comes back when it is cancelled or the member starts anew.

use prost::Message;
use retcd_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use retcd_state::Time;
use retcd_state::machine::{Applied, Restored};
use retcd_state::mvcc::{Event, EventKind, Reader};
use retcd_state::watch::{Hub, Limits, Origin, Poll, RevisionEvents, StreamId};
use std::sync::Arc;
use std::time::Duration;

/// Revision, whether it is a deletion, key, value.
pub type Told = (i64, bool, Vec<u8>, Vec<u8>);

/// What a client is told of an event.
pub fn told(event: &Event) -> Told {
    let record = &event.record;
    let deleted = event.kind == EventKind::Delete;
    (
        record.mod_revision(),
        deleted,
        record.key().to_vec(),
        record.value().to_vec(),
    )
}

/// A client of all keys.
pub struct Client {
    hub: Hub,
    stream: StreamId,
    /// Everything it was told, in this order.
    pub events: Vec<Told>,
    /// Revisions (from, below) that it missed because they were compacted.
    pub missed: Vec<(i64, i64)>,
}

impl Client {
    pub fn new(reader: &Reader) -> Client {
        let (hub, stream) = open(reader);
        let mut client = Client {
            hub,
            stream,
            events: Vec::new(),
            missed: Vec::new(),
        };
        client.watch(1);
        client
    }

    /// The member has started anew, so that the client has to come back.
    pub fn reconnect(&mut self, reader: &Reader) {
        (self.hub, self.stream) = open(reader);
        self.watch(self.next());
        self.drain(reader);
    }

    /// The first revision that it was not told of.
    fn next(&self) -> i64 {
        let told = self.events.last().map_or(1, |event| event.0 + 1);
        self.missed.last().map_or(told, |missed| told.max(missed.1))
    }

    fn watch(&mut self, start_revision: i64) {
        let request = WatchCreateRequest {
            key: b"\0"[..].into(),
            range_end: b"\0"[..].into(),
            start_revision,
            ..Default::default()
        };
        self.hub.create(self.stream, &request).unwrap();
    }

    pub fn publish(&mut self, applied: &Applied) {
        for (revision, events) in &applied.events {
            let events = RevisionEvents::new(*revision, Arc::clone(events));
            self.hub.publish(Arc::new(events));
        }
    }

    pub fn restore(&mut self, restored: &Restored) {
        self.hub.restore(restored.revision, restored.compacted);
    }

    /// Reads all that there is.
    pub fn drain(&mut self, reader: &Reader) {
        loop {
            match self.hub.poll(self.stream, 4096) {
                Poll::Idle => return,
                Poll::Catchup(job) => {
                    let caught = job.run(&reader.view()).unwrap();
                    self.hub.complete_catchup(caught);
                }
                Poll::Responses(responses) => {
                    for response in responses {
                        let mut bytes = Vec::new();
                        response.encode(&Origin::default(), &mut bytes);
                        self.take(WatchResponse::decode(&bytes[..]).unwrap());
                    }
                }
            }
        }
    }

    fn take(&mut self, response: WatchResponse) {
        for event in response.events {
            let kv = event.kv.unwrap();
            let deleted = event.r#type == 1;
            let (key, value) = (kv.key.to_vec(), kv.value.to_vec());
            self.events.push((kv.mod_revision, deleted, key, value));
        }
        if response.compact_revision != 0 {
            let next = self.next();
            assert!(next < response.compact_revision, "missed nothing");
            self.missed.push((next, response.compact_revision));
            self.watch(response.compact_revision);
        }
    }
}

fn open(reader: &Reader) -> (Hub, StreamId) {
    let limits = Limits {
        // Small, so that steps end in the middle.
        catchup_revisions: 7,
        recent_revisions: 5,
        ..Limits::default()
    };
    let mut hub = Hub::new(reader.revision(), reader.compacted_revision(), limits);
    let stream = hub.open_stream(Time::default(), Duration::from_secs(600));
    (hub, stream)
}
