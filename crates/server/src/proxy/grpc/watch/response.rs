//! Events on their way to clients, shared by all watchers that get them.

use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use retcd_proto::etcdserverpb::watch_create_request::FilterType;
use retcd_proto::etcdserverpb::{ResponseHeader, WatchResponse};
use retcd_proto::mvccpb::Event;
use retcd_proto::mvccpb::event::EventType;

use crate::grpc::wire::{MessageLength, PREFIX_BYTES};
use crate::status::Status;

/// Events of one response of a server.
pub(in crate::proxy::grpc) struct Events {
    header: Option<ResponseHeader>,
    events: Vec<Event>,
    bytes: usize,
    /// Field `events` of a response, with the previous records and without.
    encoded: [OnceLock<Bytes>; 2],
}

/// What of the events a watcher wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    pub(super) no_puts: bool,
    pub(super) no_deletes: bool,
    pub(super) previous: bool,
    pub(super) progress: bool,
}

impl Wants {
    /// The filters of a request; unknown ones are ignored, as members do.
    pub(super) fn set_filters(&mut self, filters: &[i32]) {
        for filter in filters {
            match FilterType::try_from(*filter) {
                Ok(FilterType::Noput) => self.no_puts = true,
                Ok(FilterType::Nodelete) => self.no_deletes = true,
                Err(_) => {}
            }
        }
    }

    fn admits(&self, event: &Event) -> bool {
        match event.r#type() {
            EventType::Put => !self.no_puts,
            EventType::Delete => !self.no_deletes,
        }
    }
}

impl Events {
    pub(super) fn new(response: WatchResponse) -> Events {
        Events {
            bytes: response.encoded_len(),
            header: response.header,
            events: response.events,
            encoded: Default::default(),
        }
    }

    /// The length of the server's response.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }

    /// Appends the framed response for a watcher that wants events from a revision on, and tells
    /// where the message begins; nothing if it wants none of these.
    ///
    /// # Errors
    /// It is longer than a message can be.
    pub(super) fn append_response(
        &self,
        watch_id: i64,
        from: i64,
        wants: &Wants,
        frames: &mut BytesMut,
    ) -> Result<Option<usize>, Status> {
        let Some(events) = self.wanted(from, wants) else {
            return Ok(None);
        };
        let head = WatchResponse {
            header: self.header,
            watch_id,
            ..WatchResponse::default()
        };
        let length = MessageLength::of(head.encoded_len() + events.len())?;
        frames.reserve(PREFIX_BYTES + length.bytes());
        frames.put_slice(&length.prefix());
        let message = frames.len();
        head.encode_raw(frames);
        frames.put(events);
        Ok(Some(message))
    }

    /// Field `events` of a watcher's response; none if it gets no response.
    fn wanted(&self, from: i64, wants: &Wants) -> Option<Bytes> {
        if self.events.is_empty() {
            return wants.progress.then(Bytes::new);
        }
        let is_wanted = |event: &&Event| revision(event) >= from && wants.admits(event);
        if self.events.iter().all(|event| is_wanted(&event)) {
            return Some(self.encoded(wants.previous).clone());
        }
        let mut events: Vec<Event> = self.events.iter().filter(is_wanted).cloned().collect();
        if events.is_empty() {
            return None;
        }
        if !wants.previous {
            strip(&mut events);
        }
        Some(encode(events))
    }

    fn encoded(&self, previous: bool) -> &Bytes {
        self.encoded[usize::from(previous)].get_or_init(|| {
            let mut events = self.events.clone();
            if !previous {
                strip(&mut events);
            }
            encode(events)
        })
    }
}

fn encode(events: Vec<Event>) -> Bytes {
    let response = WatchResponse {
        events,
        ..WatchResponse::default()
    };
    response.encode_to_vec().into()
}

fn strip(events: &mut [Event]) {
    events.iter_mut().for_each(|event| event.prev_kv = None);
}

/// The revision of an event.
pub(super) fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use retcd_proto::mvccpb::KeyValue;

    fn event(kind: EventType, revision: i64) -> Event {
        let kv = |revision| KeyValue {
            key: "k".into(),
            mod_revision: revision,
            ..KeyValue::default()
        };
        Event {
            r#type: kind.into(),
            kv: Some(kv(revision)),
            prev_kv: Some(kv(1)),
        }
    }

    fn events() -> Events {
        Events::new(WatchResponse {
            header: Some(ResponseHeader {
                revision: 9,
                ..ResponseHeader::default()
            }),
            watch_id: 77,
            events: vec![
                event(EventType::Put, 5),
                event(EventType::Delete, 6),
                event(EventType::Put, 8),
            ],
            ..WatchResponse::default()
        })
    }

    /// The revisions that a watcher gets, and whether it gets previous records.
    fn got(from: i64, wants: Wants) -> Option<(Vec<i64>, bool)> {
        let mut frames = BytesMut::from("before");
        let message = events().append_response(3, from, &wants, &mut frames);
        let Some(message) = message.unwrap() else {
            assert_eq!(frames, "before");
            return None;
        };
        assert_eq!(message, "before".len() + PREFIX_BYTES);
        let response = WatchResponse::decode(&frames[message..]).unwrap();
        assert_eq!(
            (response.watch_id, response.header.unwrap().revision),
            (3, 9)
        );
        let previous = response.events.iter().any(|event| event.prev_kv.is_some());
        let all = response.events.iter().all(|event| event.prev_kv.is_some());
        assert_eq!(previous, all);
        Some((response.events.iter().map(revision).collect(), previous))
    }

    #[test]
    fn watchers_get_what_they_want() {
        let wants = Wants::default();
        let previous = Wants {
            previous: true,
            ..wants
        };
        assert_eq!(got(1, wants), Some((vec![5, 6, 8], false)));
        assert_eq!(got(1, previous), Some((vec![5, 6, 8], true)));
        assert_eq!(got(6, wants), Some((vec![6, 8], false)));
        assert_eq!(got(6, previous), Some((vec![6, 8], true)));
        assert_eq!(got(9, wants), None);
        let mut filtered = Wants::default();
        filtered.set_filters(&[FilterType::Noput as i32, 99]);
        assert_eq!(got(1, filtered), Some((vec![6], false)));
        filtered.set_filters(&[FilterType::Nodelete as i32]);
        assert_eq!(got(1, filtered), None);
    }

    #[test]
    fn progress_goes_to_those_who_asked() {
        let progress = Events::new(WatchResponse::default());
        assert!(progress.wanted(1, &Wants::default()).is_none());
        let asked = Wants {
            progress: true,
            ..Wants::default()
        };
        assert!(progress.wanted(1, &asked).is_some());
    }
}
