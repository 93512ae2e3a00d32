//! Calls: those under way, and the last of those that have ended.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use parking_lot::Mutex;
use retcd_proto::json;
use retcd_proto::text::{Told, text_of};

use super::latency::Latency;
use super::{Event, Moment, Recent};
use crate::grpc::wire::PREFIX_BYTES;
use crate::log::GoDuration;
use crate::metrics::Method;
use crate::status::{Code, Status};

/// Durations from which calls are kept apart, in milliseconds.
pub(super) const BOUNDS_MS: [u64; 8] = [0, 50, 100, 200, 500, 1_000, 10_000, 100_000];
/// The durations, and one for what failed.
pub(super) const BUCKETS: usize = BOUNDS_MS.len() + 1;
/// Calls that are kept in each.
const CALLS_PER_BUCKET: usize = 10;
/// Events of a call; of more, those in the middle go.
const EVENTS_MAX: usize = 10;
/// What is told of a message.
const TEXT_BYTES_MAX: usize = 100;

/// Calls by service.
#[derive(Default)]
pub(super) struct Families(pub(super) BTreeMap<&'static str, Family>);

/// The calls of a service.
#[derive(Default)]
pub(super) struct Family {
    next: u64,
    /// In the order in which they began.
    pub(super) active: BTreeMap<u64, Arc<RecentCall>>,
    pub(super) buckets: [VecDeque<Arc<RecentCall>>; BUCKETS],
    pub(super) latency: Latency,
}

impl Family {
    fn end(&mut self, number: u64, call: Arc<RecentCall>, now: Moment) {
        self.active.remove(&number);
        let took = now.since(call.begun);
        self.latency.add(took, now);
        let slower = BOUNDS_MS.map(|bound| took >= Duration::from_millis(bound));
        let failed = [call.state.lock().failed];
        for (bucket, belongs) in self
            .buckets
            .iter_mut()
            .zip(slower.into_iter().chain(failed))
        {
            if belongs {
                if bucket.len() == CALLS_PER_BUCKET {
                    bucket.pop_front();
                }
                bucket.push_back(Arc::clone(&call));
            }
        }
    }
}

/// A call as the page shows it.
pub(super) struct RecentCall {
    pub(super) path: &'static str,
    pub(super) begun: Moment,
    pub(super) state: Mutex<CallState>,
}

#[derive(Default)]
pub(super) struct CallState {
    pub(super) events: Vec<Event>,
    /// Events that the one in the middle stands for; 0 for itself.
    discarded: usize,
    /// Nothing while it goes on.
    pub(super) took: Option<Duration>,
    failed: bool,
}

impl RecentCall {
    fn note(&self, text: String, is_sensitive: bool) {
        self.note_at(text, is_sensitive, Moment::now());
    }

    fn note_at(&self, text: String, is_sensitive: bool, at: Moment) {
        const MIDDLE: usize = (EVENTS_MAX - 1) / 2;
        let mut state = self.state.lock();
        let before = state.events.last().map_or(self.begun, |event| event.at);
        if state.events.len() == EVENTS_MAX {
            // The one in the middle and the next become one.
            state.discarded += if state.discarded == 0 { 2 } else { 1 };
            let discarded = state.discarded;
            let last = state.events.remove(MIDDLE + 1);
            let middle = &mut state.events[MIDDLE];
            middle.at = last.at;
            middle.text = format!("({discarded} events discarded)");
            middle.is_sensitive = false;
        }
        state.events.push(Event {
            at,
            elapsed: at.since(before),
            text,
            is_sensitive,
            is_error: false,
        });
    }
}

impl Recent {
    /// A call begins, of a client at `remote` that gives it `timeout`.
    pub(crate) fn begin(
        &self,
        method: Method,
        remote: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> RecordedCall {
        let call = Arc::new(RecentCall {
            path: method.path(),
            begun: Moment::now(),
            state: Mutex::default(),
        });
        let number = {
            let mut families = self.0.calls.lock();
            let family = families.0.entry(method.service()).or_default();
            family.next += 1;
            family.active.insert(family.next, Arc::clone(&call));
            family.next
        };
        let remote = remote.map_or("<nil>".to_owned(), |remote| remote.to_string());
        let deadline = timeout.map_or("none".to_owned(), |timeout| {
            GoDuration(timeout.as_nanos() as i64).to_string()
        });
        call.note(format!("RPC: from {remote} deadline:{deadline}"), false);
        RecordedCall(Some(Box::new(Recording {
            recent: self.clone(),
            method,
            number,
            call,
            said_ok: false,
        })))
    }
}

/// Notes what becomes of a call, if calls are noted. One that is dropped before its end was cancelled
/// by its client.
#[derive(Default)]
pub(crate) struct RecordedCall(Option<Box<Recording>>);

struct Recording {
    recent: Recent,
    method: Method,
    number: u64,
    call: Arc<RecentCall>,
    said_ok: bool,
}

impl RecordedCall {
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A message has come, with [`request_text`].
    pub(crate) fn received(&self, text: String) {
        if let Some(recording) = &self.0 {
            recording.call.note(text, true);
        }
    }

    /// The frames in `bytes` are sent; the last may be cut short.
    pub(crate) fn sent(&self, mut bytes: &[u8]) {
        let Some(recording) = &self.0 else { return };
        let schema = schemas(recording.method).response;
        while let Some((prefix, rest)) = bytes.split_at_checked(PREFIX_BYTES) {
            let length = (&prefix[1..]).get_u32() as usize;
            let (message, rest) = rest.split_at(length.min(rest.len()));
            let text = message_text("sent", schema, message);
            recording.call.note(text, true);
            bytes = rest;
        }
    }

    /// The method has succeeded; what it sends is still to come.
    pub(crate) fn succeeded(&mut self) {
        if let Some(recording) = &mut self.0 {
            recording.say_ok();
        }
    }

    /// The call has ended.
    pub(crate) fn end(&mut self, code: Code, message: &str) {
        let Some(mut recording) = self.0.take() else {
            return;
        };
        match code {
            Code::Ok => recording.say_ok(),
            code => {
                recording.call.state.lock().failed = true;
                recording.call.note(message.to_owned(), true);
                let status = Status::new(code, message.to_owned());
                recording.call.note(status.go_text(), true);
            }
        }
        let Recording {
            recent,
            method,
            number,
            call,
            ..
        } = *recording;
        let now = Moment::now();
        call.state.lock().took = Some(now.since(call.begun));
        let mut families = recent.0.calls.lock();
        let family = families.0.entry(method.service()).or_default();
        family.end(number, call, now);
    }
}

impl Drop for RecordedCall {
    fn drop(&mut self) {
        self.end(Code::Cancelled, "context canceled");
    }
}

impl Recording {
    fn say_ok(&mut self) {
        if !std::mem::replace(&mut self.said_ok, true) {
            self.call.note("OK".to_owned(), false);
        }
    }
}

/// What is told of a message that came for `method`.
pub(crate) fn request_text(method: Method, message: &[u8]) -> String {
    message_text("recv", schemas(method).request, message)
}

fn schemas(method: Method) -> json::Method {
    json::Method::of_path(method.path()).expect("the schemas have every method")
}

fn message_text(direction: &str, schema: &json::Schema, message: &[u8]) -> String {
    let mut text = format!(
        "{direction}: {}",
        text_of(schema, message, TEXT_BYTES_MAX, told)
    );
    let mut end = TEXT_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// As in lines of the log, see [`request_text`](crate::request_text).
fn told(field: &str) -> Told {
    match field {
        "password" | "hashedPassword" | "token" => Told::Nothing,
        "value" | "blob" => Told::Size,
        _ => Told::Whole,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use retcd_proto::etcdserverpb::{
        AuthUserAddRequest, AuthenticateResponse, PutRequest, ResponseHeader,
    };

    use super::*;

    #[test]
    fn of_many_events_the_first_and_the_last_stay() {
        let begun = Moment::now();
        let call = RecentCall {
            path: "/a/b",
            begun,
            state: Mutex::default(),
        };
        let at = |seconds| Moment {
            instant: begun.instant + Duration::from_secs(seconds),
            ..begun
        };
        for number in 0..EVENTS_MAX as u64 {
            call.note_at(number.to_string(), true, at(number));
        }
        let texts = || {
            let state = call.state.lock();
            let texts = state.events.iter().map(|event| event.text.clone());
            texts.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(texts(), "0 1 2 3 4 5 6 7 8 9");
        call.note_at("10".to_owned(), true, at(10));
        assert_eq!(texts(), "0 1 2 3 (2 events discarded) 6 7 8 9 10");
        call.note_at("11".to_owned(), true, at(11));
        assert_eq!(texts(), "0 1 2 3 (3 events discarded) 7 8 9 10 11");
        let state = call.state.lock();
        assert_eq!(state.events[4].at.since(begun), Duration::from_secs(6));
        assert_eq!(state.events[9].elapsed, Duration::from_secs(1));
    }

    #[test]
    fn calls_are_kept_by_how_long_they_took() {
        let mut family = Family::default();
        let begun = Moment::now();
        for millis in [1, 60, 2_000].into_iter().chain(3..20) {
            let call = Arc::new(RecentCall {
                path: "/a/b",
                begun,
                state: Mutex::new(CallState {
                    failed: millis == 60,
                    ..CallState::default()
                }),
            });
            let ended = Moment {
                instant: begun.instant + Duration::from_millis(millis),
                ..begun
            };
            family.end(0, call, ended);
        }
        let kept = family.buckets.each_ref().map(VecDeque::len);
        assert_eq!(kept, [10, 2, 1, 1, 1, 1, 0, 0, 1]);
    }

    #[test]
    fn secrets_are_not_told() {
        let put = PutRequest {
            key: "foo".into(),
            value: "secret".into(),
            ..PutRequest::default()
        };
        let told = request_text(Method::Put, &put.encode_to_vec());
        assert_eq!(told, "recv: key:\"foo\" value_size:6");
        let user = AuthUserAddRequest {
            name: "u".to_owned(),
            password: "secret".to_owned(),
            hashed_password: "secret".to_owned(),
            ..AuthUserAddRequest::default()
        };
        let told = request_text(Method::UserAdd, &user.encode_to_vec());
        assert_eq!(told, "recv: name:\"u\"");
        let answer = AuthenticateResponse {
            header: Some(ResponseHeader::default()),
            token: "secret".to_owned(),
        };
        let answer = answer.encode_to_vec();
        let told = message_text("sent", schemas(Method::Authenticate).response, &answer);
        assert_eq!(told, "sent: header:{}");
        let long = PutRequest {
            key: "\u{e9}".repeat(100).into(),
            ..PutRequest::default()
        };
        let told = request_text(Method::Put, &long.encode_to_vec());
        assert_eq!(told.len(), 99, "{told}: no character is cut in two");
    }
}
