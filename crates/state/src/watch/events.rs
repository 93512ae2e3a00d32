//! The events of a revision, encoded once for everyone who is told of them.
//!
//! [`RevisionEvents`] are all events of one revision. What goes over the wire is made when the
//! first watcher needs it, once without and once with previous pairs, and shared from then on: by
//! all watchers of all streams, and by the catch-ups that start from recent memory.
//!
//! ```text
//! Encoded   5a <len> event │ 5a <len> event │ …     field 11 of etcdserverpb.WatchResponse
//! event     [08 01]  12 <len> record  [1a <len> prev]
//! ```
//!
//! An encoding that would be very long is not kept: who deletes everything has watchers told, with
//! previous pairs, all that there was, which memory need not hold twice. Such events are encoded
//! for each response that tells them.
//!
//! An [`EventSet`] is what one watcher is told in one response: slices of such encodings, in order.
//! Watchers with the same range and the same [`Wanted`] share the set itself.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::mvcc::{Event, EventKind, Prev, Record};

/// What of the matching events a watcher wants to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) prev_kv: bool,
    pub(super) no_put: bool,
    pub(super) no_delete: bool,
}

impl Wanted {
    /// How many different views there are.
    pub(super) const COUNT: usize = 8;

    /// Its number below [`Wanted::COUNT`].
    pub(super) fn number(self) -> usize {
        usize::from(self.prev_kv) | usize::from(self.no_put) << 1 | usize::from(self.no_delete) << 2
    }

    fn shows(self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
}

/// Numbers of events of one revision, as ascending runs `from..to`.
#[derive(Debug, Default)]
pub(super) struct Runs(Vec<(u32, u32)>);

impl Runs {
    /// Adds a number above all that are in.
    pub(super) fn push(&mut self, number: u32) {
        match self.0.last_mut() {
            Some((_, to)) if *to > number => panic!("event {number} behind {to}"),
            Some((_, to)) if *to == number => *to += 1,
            _ => self.0.push((number, number + 1)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Encodings up to this length are kept and shared: a few times what the puts of one request come
/// to.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// Encoded events, one behind the other.
#[derive(Debug)]
pub(super) struct Encoded {
    form: Form,
    /// Where each event ends, but for the last, which ends with the bytes.
    ends: Box<[usize]>,
    /// Where the last one ends.
    len: usize,
}

#[derive(Debug)]
enum Form {
    /// The encoding.
    Kept(Bytes),
    /// What to make it of, each time anew.
    Remade {
        events: Arc<[Event]>,
        with_prev: bool,
    },
}

impl Encoded {
    fn new(events: &Arc<[Event]>, with_prev: bool) -> Encoded {
        let mut len = 0;
        let ends = events.iter().map(|event| {
            let body = body_len(event, with_prev);
            len += 1 + varint_len(body) + body;
            len
        });
        let mut ends: Vec<usize> = ends.collect();
        ends.pop();
        let form = if len <= KEPT_BYTES_MAX {
            let mut bytes = BytesMut::with_capacity(len);
            events
                .iter()
                .for_each(|event| put_event(event, with_prev, &mut bytes));
            assert!(
                bytes.len() == len,
                "events of {len} bytes were encoded in {}",
                bytes.len()
            );
            Form::Kept(bytes.freeze())
        } else {
            let events = Arc::clone(events);
            Form::Remade { events, with_prev }
        };
        let ends = ends.into();
        Encoded { form, ends, len }
    }

    /// Where event `number` starts, and where the one before it ends.
    fn start(&self, number: u32) -> usize {
        let most = self.ends.len() + 1;
        assert!(number as usize <= most, "event {number} of {most}");
        match number as usize {
            0 => 0,
            n if n > self.ends.len() => self.len,
            n => self.ends[n - 1],
        }
    }
}

/// Length of an event without its tag and length.
fn body_len(event: &Event, with_prev: bool) -> usize {
    let deletion = match event.kind {
        EventKind::Put => 0,
        EventKind::Delete => 2,
    };
    let prev = prev(event, with_prev).map_or(0, |prev| message_len(prev.as_bytes()));
    deletion + message_len(event.record.as_bytes()) + prev
}

fn put_event(event: &Event, with_prev: bool, out: &mut impl BufMut) {
    out.put_u8(0x5a);
    encode_varint(body_len(event, with_prev) as u64, out);
    if event.kind == EventKind::Delete {
        out.put_slice(&[0x08, 0x01]);
    }
    put_message(out, 0x12, event.record.as_bytes());
    if let Some(prev) = prev(event, with_prev) {
        put_message(out, 0x1a, prev.as_bytes());
    }
}

fn prev(event: &Event, wanted: bool) -> Option<&Record> {
    // A transaction may delete a key and create it again: to watchers, as in etcd, the put is then
    // of a new key.
    let creates = event.kind == EventKind::Put
        && event.record.create_revision() == event.record.mod_revision();
    event.prev.record().filter(|_| wanted && !creates)
}

fn varint_len(n: usize) -> usize {
    encoded_len_varint(n as u64)
}

/// Length of a message field with a tag of one byte.
fn message_len(message: &[u8]) -> usize {
    1 + varint_len(message.len()) + message.len()
}

fn put_message(out: &mut impl BufMut, tag: u8, message: &[u8]) {
    out.put_u8(tag);
    encode_varint(message.len() as u64, out);
    out.put_slice(message);
}

/// Everything that one revision changed; never empty.
#[derive(Debug)]
pub struct RevisionEvents {
    revision: i64,
    events: Arc<[Event]>,
    has_puts: bool,
    has_deletes: bool,
    /// Whether the value of a previous pair is not in memory.
    lacks_values: bool,
    plain: OnceLock<Arc<Encoded>>,
    with_prev: OnceLock<Arc<Encoded>>,
}

impl RevisionEvents {
    /// The events of `revision`, in the order of the changes; at least one.
    pub fn new(revision: i64, events: Arc<[Event]>) -> RevisionEvents {
        assert!(!events.is_empty(), "revision {revision} changed nothing");
        let has = |kind| events.iter().any(|event| event.kind == kind);
        RevisionEvents {
            revision,
            has_puts: has(EventKind::Put),
            has_deletes: has(EventKind::Delete),
            lacks_values: events
                .iter()
                .any(|event| matches!(event.prev, Prev::Stored(_))),
            events,
            plain: OnceLock::new(),
            with_prev: OnceLock::new(),
        }
    }

    /// The revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    /// Bytes of the records that the events hold.
    pub(super) fn record_bytes(&self) -> usize {
        self.events.iter().map(record_bytes).sum()
    }

    /// Whether the events are in memory, with previous pairs or without. If not, whoever wants them
    /// reads history.
    pub(super) fn is_in_memory(&self, with_prev: bool) -> bool {
        !(with_prev && self.lacks_values)
    }

    /// Whether `wanted` hides none of these events.
    fn is_shown_whole(&self, wanted: Wanted) -> bool {
        let hidden = wanted.no_put && self.has_puts || wanted.no_delete && self.has_deletes;
        !hidden
    }

    fn encoded(&self, with_prev: bool) -> &Arc<Encoded> {
        if with_prev && self.events.iter().any(|event| event.prev != Prev::Absent) {
            return self
                .with_prev
                .get_or_init(|| Arc::new(Encoded::new(&self.events, true)));
        }
        self.plain
            .get_or_init(|| Arc::new(Encoded::new(&self.events, false)))
    }
}

/// Bytes of the records that `event` holds.
fn record_bytes(event: &Event) -> usize {
    let prev = event.prev.record().map_or(0, |prev| prev.as_bytes().len());
    event.record.as_bytes().len() + prev
}

/// A run of encoded events `from..to`.
#[derive(Clone, Debug)]
struct Part {
    encoded: Arc<Encoded>,
    from: u32,
    to: u32,
}

impl Part {
    fn byte_range(&self) -> std::ops::Range<usize> {
        self.encoded.start(self.from)..self.encoded.start(self.to)
    }

    fn put(&self, out: &mut impl BufMut) {
        match &self.encoded.form {
            Form::Kept(bytes) => out.put_slice(&bytes[self.byte_range()]),
            Form::Remade { events, with_prev } => {
                let told = &events[self.from as usize..self.to as usize];
                told.iter()
                    .for_each(|event| put_event(event, *with_prev, out));
            }
        }
    }

    fn slice(&self) -> Bytes {
        match &self.encoded.form {
            Form::Kept(bytes) => bytes.slice(self.byte_range()),
            Form::Remade { .. } => {
                let mut bytes = BytesMut::with_capacity(self.byte_range().len());
                self.put(&mut bytes);
                bytes.freeze()
            }
        }
    }
}

/// The events of one response, encoded; all events of a revision that a watcher wants are in one
/// set.
#[derive(Clone, Debug, Default)]
pub struct EventSet {
    parts: Vec<Part>,
    count: usize,
    bytes: usize,
}

impl EventSet {
    /// Number of events.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Length of the encoded events in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The encoded events: field 11 of `etcdserverpb.WatchResponse`, repeated, tags included.
    /// Joined, the slices are what follows the other fields of the response.
    pub fn slices(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.parts.iter().map(Part::slice)
    }

    pub(super) fn put(&self, out: &mut impl BufMut) {
        for part in &self.parts {
            part.put(out);
        }
    }

    /// Adds what `wanted` shows of the events in `runs`; the bytes added.
    pub(super) fn add(&mut self, changes: &RevisionEvents, runs: &Runs, wanted: Wanted) -> usize {
        let before = self.bytes;
        let whole = changes.is_shown_whole(wanted);
        for &(from, to) in &runs.0 {
            if whole {
                self.push(changes, wanted, from, to);
                continue;
            }
            let mut shown = Runs::default();
            for number in from..to {
                if wanted.shows(changes.events[number as usize].kind) {
                    shown.push(number);
                }
            }
            for (from, to) in shown.0 {
                self.push(changes, wanted, from, to);
            }
        }
        self.bytes - before
    }

    fn push(&mut self, changes: &RevisionEvents, wanted: Wanted, from: u32, to: u32) {
        let encoded = Arc::clone(changes.encoded(wanted.prev_kv));
        self.push_part(Part { encoded, from, to });
    }

    fn push_part(&mut self, part: Part) {
        self.count += (part.to - part.from) as usize;
        self.bytes += part.byte_range().len();
        self.parts.push(part);
    }

    /// Cuts the set into sets of at most `bytes_max` bytes each, or of one larger event.
    pub(super) fn split(&self, bytes_max: usize) -> Vec<EventSet> {
        let mut sets = Vec::new();
        let mut set = EventSet::default();
        for part in &self.parts {
            let mut from = part.from;
            for number in part.from..part.to {
                let pending = part.encoded.start(number) - part.encoded.start(from);
                let len = part.encoded.start(number + 1) - part.encoded.start(number);
                let empty = set.count == 0 && from == number;
                if !empty && set.bytes + pending + len > bytes_max {
                    set.push_run(part, from, number);
                    sets.push(std::mem::take(&mut set));
                    from = number;
                }
            }
            set.push_run(part, from, part.to);
        }
        sets.push(set);
        let count: usize = sets.iter().map(EventSet::count).sum();
        let bytes: usize = sets.iter().map(EventSet::bytes).sum();
        let (whole, cut) = ((self.count, self.bytes), (count, bytes));
        assert_eq!(whole, cut, "events and bytes, whole and cut");
        sets
    }

    fn push_run(&mut self, part: &Part, from: u32, to: u32) {
        if from < to {
            let encoded = Arc::clone(&part.encoded);
            self.push_part(Part { encoded, from, to });
        }
    }
}

/// The sets that the watchers of one range are told of one revision, each made at most once.
pub(super) struct Sets<'a> {
    changes: &'a RevisionEvents,
    runs: &'a Runs,
    by_wanted: [Option<Option<Arc<EventSet>>>; Wanted::COUNT],
}

/// The sets of all events of a revision, without and with previous pairs, for whom nothing is left
/// out: shared by ranges too.
pub(super) type WholeSets = [Option<Arc<EventSet>>; 2];

impl<'a> Sets<'a> {
    pub(super) fn new(changes: &'a RevisionEvents, runs: &'a Runs) -> Self {
        Sets {
            changes,
            runs,
            by_wanted: Default::default(),
        }
    }

    /// What `wanted` shows, or `None` if that is nothing.
    pub(super) fn get(&mut self, wanted: Wanted, whole: &mut WholeSets) -> Option<&Arc<EventSet>> {
        let (changes, runs) = (self.changes, self.runs);
        self.by_wanted[wanted.number()]
            .get_or_insert_with(|| {
                let make = || {
                    let mut set = EventSet::default();
                    set.add(changes, runs, wanted);
                    Arc::new(set)
                };
                let all = runs.0[..] == [(0, changes.events.len() as u32)];
                if all && changes.is_shown_whole(wanted) {
                    let shared = whole[usize::from(wanted.prev_kv)].get_or_insert_with(make);
                    return Some(Arc::clone(shared));
                }
                Some(make()).filter(|set| set.count > 0)
            })
            .as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::Fields;

    fn record(key: &[u8], mod_revision: i64, value_bytes: usize) -> Record {
        Record::encode(Fields {
            key,
            create_revision: 2,
            mod_revision,
            version: 1,
            value: &vec![7; value_bytes],
            lease: 0,
        })
    }

    /// The deletion of a large database, of ten thousand keys with values of 1 MiB (they share one
    /// here).
    #[test]
    fn what_would_be_very_long_is_encoded_when_it_is_told() {
        const TIMES: usize = 10_000;
        let prev = Prev::Record(record(b"k", 2, 1 << 20));
        let event = |number: usize| Event {
            kind: EventKind::Delete,
            record: Record::tombstone(b"k", 3 + number as i64),
            prev: prev.clone(),
        };
        let events: Arc<[Event]> = (0..TIMES).map(event).collect();
        let changes = RevisionEvents::new(3, Arc::clone(&events));
        let mut runs = Runs::default();
        (0..TIMES as u32).for_each(|number| runs.push(number));
        let wanted = Wanted {
            prev_kv: true,
            ..Wanted::default()
        };
        let mut set = EventSet::default();
        let bytes = set.add(&changes, &runs, wanted);
        assert!(bytes > TIMES << 20, "{bytes}");
        // A client that takes fragments gets it nevertheless, in the very bytes that short
        // revisions have.
        let fragments = set.split(2 << 20);
        assert_eq!(fragments.len(), TIMES);
        let told = fragments[7].slices().next().unwrap();
        let alone = Encoded::new(&Arc::from([events[7].clone()]), true);
        assert!(matches!(&alone.form, Form::Kept(kept) if *kept == told));
    }
}
