//! What a stream tells its client, and its bytes.
//!
//! The encoding is that of `etcdserverpb.WatchResponse`, fields ascending and zeros left out:
//!
//! ```text
//! 0a <len> header   10 <watch_id>   18 01 created   20 01 canceled   28 <compact_revision>
//! 32 <len> cancel_reason   38 01 fragment   5a <len> event …
//! header: 08 <cluster_id>   10 <member_id>   18 <revision>   20 <raft_term>
//! ```
//!
//! Written by hand since the events are there already, encoded and shared.

use std::sync::Arc;

use bytes::BufMut;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::events::EventSet;
use crate::mvcc::StoreRevision;

/// The id of a response that is not about one watcher: a refused creation, or progress of all.
pub const NO_WATCH_ID: i64 = -1;

/// Why a watcher was not created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The start revision is negative; etcd answers as if it had been compacted.
    NegativeStart,
    /// The range ends at or before its start.
    EmptyRange,
    /// The stream has a watcher with this id.
    DuplicateId,
    /// The client may not read the range; the text is the full gRPC error, as etcd sends it.
    Unauthorized(&'static str),
}

impl Refusal {
    /// etcd's text for `cancel_reason`.
    pub fn text(self) -> &'static str {
        match self {
            Refusal::NegativeStart => "etcdserver: mvcc: required revision has been compacted",
            Refusal::EmptyRange => "mvcc: watcher range is empty",
            Refusal::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
            Refusal::Unauthorized(text) => text,
        }
    }
}

/// One message to the client of a stream.
#[derive(Clone, Debug)]
pub struct Response {
    /// The watcher, or [`NO_WATCH_ID`].
    pub watch_id: i64,
    /// `header.revision`. With events: theirs, or the store's for a watcher that catches up; in a
    /// cancellation by compaction 0, as in etcd; else the store's at the time of the response.
    pub revision: StoreRevision,
    /// What is told.
    pub body: Body,
}

/// What a [`Response`] tells.
#[derive(Clone, Debug)]
pub enum Body {
    /// The watcher exists from now on.
    Created,
    /// No watcher was created.
    Refused(Refusal),
    /// The client cancelled the watcher: nothing follows.
    Canceled,
    /// The watcher needed history that is compacted: nothing follows.
    Compacted {
        /// The oldest revision that can still be watched from.
        compact_revision: i64,
    },
    /// Nothing up to the header's revision is still to come.
    Progress,
    /// Events, all that the watcher wants of each revision among them.
    Events {
        /// The events.
        events: Arc<EventSet>,
        /// Whether and how the response is cut.
        fragment: Fragment,
    },
}

/// How a response with events relates to the limit on its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// In one piece, whatever its size.
    Never,
    /// May be cut: see [`Response::for_each_fragment`]. As it is, it is complete or the last piece.
    Allowed,
    /// A piece which others follow.
    MoreFollows,
}

/// Who answers: what the headers of a member's responses have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Id of the cluster.
    pub cluster_id: u64,
    /// Id of the member that answers.
    pub member_id: u64,
    /// Raft's term at the time of sending.
    pub raft_term: u64,
}

impl Response {
    /// Length of the message in bytes.
    pub fn encoded_len(&self, origin: &Origin) -> usize {
        self.fields_len(origin) + self.events().map_or(0, EventSet::bytes)
    }

    /// Writes the message: [`Response::encoded_len`] bytes.
    pub fn encode(&self, origin: &Origin, out: &mut impl BufMut) {
        out.put_slice(self.numbers(origin).as_bytes());
        let reason = self.cancel_reason();
        if !reason.is_empty() {
            out.put_u8(0x32);
            encode_varint(reason.len() as u64, out);
            out.put_slice(reason.as_bytes());
        }
        if let Some(events) = self.events() {
            events.put(out);
        }
    }

    /// Calls `send` with this response, or with its pieces if it may be cut and is not below
    /// `bytes_max` (etcd: max-request-bytes + 512 KiB). A piece is below that, or has one event.
    pub fn for_each_fragment(
        &self,
        origin: &Origin,
        bytes_max: usize,
        mut send: impl FnMut(&Response),
    ) {
        let Body::Events {
            events,
            fragment: Fragment::Allowed,
        } = &self.body
        else {
            return send(self);
        };
        if self.encoded_len(origin) < bytes_max || events.count() < 2 {
            return send(self);
        }
        let piece = |events, fragment| Response {
            body: Body::Events { events, fragment },
            ..*self
        };
        // Two bytes more than `self` has: the flag, which etcd counts for the last piece too.
        let room = bytes_max.saturating_sub(self.fields_len(origin) + 2 + 1);
        let mut sets = events.split(room);
        let last = sets.pop().expect("a set is cut into at least one");
        for events in sets {
            send(&piece(Arc::new(events), Fragment::MoreFollows));
        }
        send(&piece(Arc::new(last), Fragment::Allowed));
    }

    /// The events, if it has any.
    pub fn events(&self) -> Option<&EventSet> {
        match &self.body {
            Body::Events { events, .. } => Some(events),
            _ => None,
        }
    }

    /// Length of the fields before the events.
    fn fields_len(&self, origin: &Origin) -> usize {
        let reason = match self.cancel_reason().len() {
            0 => 0,
            len => 1 + encoded_len_varint(len as u64) + len,
        };
        self.numbers(origin).len + reason
    }

    /// All fields but reason and events. The flag for fragments is behind the reason in the order
    /// of fields, but no response has both.
    fn numbers(&self, origin: &Origin) -> Numbers {
        let mut out = Numbers {
            bytes: [0; NUMBERS_MAX],
            // The header's tag and length, of which the latter is known below.
            len: 2,
        };
        out.push(0x08, origin.cluster_id);
        out.push(0x10, origin.member_id);
        out.push(0x18, self.revision.get() as u64);
        out.push(0x20, origin.raft_term);
        out.bytes[0] = 0x0a;
        out.bytes[1] = out.len as u8 - 2;
        out.push(0x10, self.watch_id as u64);
        out.push(0x18, self.is_created().into());
        out.push(0x20, self.is_canceled().into());
        out.push(0x28, self.compact_revision() as u64);
        out.push(0x38, self.is_fragment().into());
        out
    }

    fn is_created(&self) -> bool {
        matches!(self.body, Body::Created | Body::Refused(_))
    }

    fn is_canceled(&self) -> bool {
        matches!(
            self.body,
            Body::Refused(_) | Body::Canceled | Body::Compacted { .. }
        )
    }

    fn compact_revision(&self) -> i64 {
        match self.body {
            Body::Compacted { compact_revision } => compact_revision,
            _ => 0,
        }
    }

    fn cancel_reason(&self) -> &'static str {
        match self.body {
            Body::Refused(refusal) => refusal.text(),
            _ => "",
        }
    }

    fn is_fragment(&self) -> bool {
        matches!(
            self.body,
            Body::Events {
                fragment: Fragment::MoreFollows,
                ..
            }
        )
    }
}

/// A tag of one byte and a number of 64 bits, seven to a byte.
const NUMBER_MAX: usize = 1 + 10;
const HEADER_MAX: usize = 4 * NUMBER_MAX;
/// The header, watch id, compact revision and three flags.
const NUMBERS_MAX: usize = 2 + HEADER_MAX + 2 * NUMBER_MAX + 3 * 2;
// The header's length takes one byte.
const _: () = assert!(HEADER_MAX < 0x80);

/// Number fields of a message, put together before they are copied out at once.
struct Numbers {
    bytes: [u8; NUMBERS_MAX],
    len: usize,
}

impl Numbers {
    /// Adds a field; zero is left out.
    fn push(&mut self, tag: u8, mut n: u64) {
        if n == 0 {
            return;
        }
        self.put(tag);
        while n >= 0x80 {
            self.put(n as u8 | 0x80);
            n >>= 7;
        }
        self.put(n as u8);
    }

    fn put(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
