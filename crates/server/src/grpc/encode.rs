//! The hot responses, encoded straight from shared records.
//!
//! A record's bytes already are the body of a `mvccpb.KeyValue`; a response copies them once, into
//! the frame that goes to the socket. Lengths are computed first, so that the frame is allocated at
//! its exact size.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use retcd_proto::etcdserverpb::ResponseHeader;
use retcd_state::mvcc::{
    DeleteReply, OpReply, Projection, PutReply, RangeChunk, RangeReply, Record, TxnReply,
};
use retcd_state::watch::Origin;

use super::header::{header, revision_alone};
use super::wire::frame_with;

const VARINT: u64 = 0;
const BYTES: u64 = 2;

const fn tag(field: u64, wire_type: u64) -> u64 {
    field << 3 | wire_type
}

/// Something with a known length that can be written into a frame.
trait Encode {
    fn len(&self) -> usize;
    fn write(&self, buf: &mut BytesMut);
}

fn field_len(body_len: usize) -> usize {
    // All field numbers used here are below 16: the tag is one byte.
    1 + encoded_len_varint(body_len as u64) + body_len
}

fn write_field(field: u64, body: &impl Encode, buf: &mut BytesMut) {
    encode_varint(tag(field, BYTES), buf);
    encode_varint(body.len() as u64, buf);
    body.write(buf);
}

fn number_len(value: u64) -> usize {
    if value == 0 {
        0
    } else {
        1 + encoded_len_varint(value)
    }
}

fn write_number(field: u64, value: u64, buf: &mut BytesMut) {
    if value != 0 {
        encode_varint(tag(field, VARINT), buf);
        encode_varint(value, buf);
    }
}

/// A header: the whole one of a response, or the bare revision inside a transaction.
impl Encode for ResponseHeader {
    fn len(&self) -> usize {
        self.encoded_len()
    }

    fn write(&self, buf: &mut BytesMut) {
        self.encode_raw(buf);
    }
}

/// A record as far as the request wants to see it.
struct Projected<'a>(&'a Record, Projection);

impl Projected<'_> {
    fn numbers(&self) -> [(u64, u64); 4] {
        let record = self.0;
        [
            (2, record.create_revision() as u64),
            (3, record.mod_revision() as u64),
            (4, record.version() as u64),
            (6, record.lease() as u64),
        ]
    }
}

impl Encode for Projected<'_> {
    fn len(&self) -> usize {
        if self.1 == Projection::Full {
            return self.0.as_bytes().len();
        }
        let numbers: usize = self
            .numbers()
            .iter()
            .map(|(_, value)| number_len(*value))
            .sum();
        field_len(self.0.key().len()) + numbers
    }

    fn write(&self, buf: &mut BytesMut) {
        if self.1 == Projection::Full {
            buf.put_slice(self.0.as_bytes());
            return;
        }
        let key = self.0.key();
        encode_varint(tag(1, BYTES), buf);
        encode_varint(key.len() as u64, buf);
        buf.put_slice(key);
        for (field, value) in self.numbers() {
            write_number(field, value, buf);
        }
    }
}

/// A `RangeResponse`; in all but the last chunk of a stream there is nothing but records.
struct Range<'a> {
    kvs: &'a [Record],
    projection: Projection,
    header: Option<&'a ResponseHeader>,
    more: bool,
    count: i64,
}

impl<'a> Range<'a> {
    fn whole(header: &'a ResponseHeader, reply: &'a RangeReply) -> Range<'a> {
        let RangeReply {
            kvs,
            projection,
            more,
            count,
            ..
        } = reply;
        Range {
            kvs,
            projection: *projection,
            header: Some(header),
            more: *more,
            count: *count,
        }
    }
}

impl Encode for Range<'_> {
    fn len(&self) -> usize {
        let kvs: usize = self
            .kvs
            .iter()
            .map(|kv| field_len(Projected(kv, self.projection).len()))
            .sum();
        let header = self.header.map_or(0, |header| field_len(header.len()));
        header + kvs + number_len(u64::from(self.more)) + number_len(self.count as u64)
    }

    fn write(&self, buf: &mut BytesMut) {
        if let Some(header) = self.header {
            write_field(1, header, buf);
        }
        for kv in self.kvs {
            write_field(2, &Projected(kv, self.projection), buf);
        }
        write_number(3, u64::from(self.more), buf);
        write_number(4, self.count as u64, buf);
    }
}

struct Put<'a>(&'a ResponseHeader, &'a PutReply);

impl Encode for Put<'_> {
    fn len(&self) -> usize {
        let prev = self
            .1
            .prev
            .as_ref()
            .map_or(0, |prev| field_len(prev.as_bytes().len()));
        field_len(self.0.len()) + prev
    }

    fn write(&self, buf: &mut BytesMut) {
        write_field(1, self.0, buf);
        if let Some(prev) = &self.1.prev {
            write_field(2, &Projected(prev, Projection::Full), buf);
        }
    }
}

struct Delete<'a>(&'a ResponseHeader, &'a DeleteReply);

impl Encode for Delete<'_> {
    fn len(&self) -> usize {
        let prevs: usize = self
            .1
            .prevs
            .iter()
            .map(|prev| field_len(prev.as_bytes().len()))
            .sum();
        field_len(self.0.len()) + number_len(self.1.deleted as u64) + prevs
    }

    fn write(&self, buf: &mut BytesMut) {
        write_field(1, self.0, buf);
        write_number(2, self.1.deleted as u64, buf);
        for prev in &self.1.prevs {
            write_field(3, &Projected(prev, Projection::Full), buf);
        }
    }
}

struct Txn<'a>(&'a ResponseHeader, &'a TxnReply);

impl Encode for Txn<'_> {
    fn len(&self) -> usize {
        let responses: usize = self
            .1
            .replies
            .iter()
            .map(|op| field_len(Op(op).len()))
            .sum();
        field_len(self.0.len()) + number_len(u64::from(self.1.succeeded)) + responses
    }

    fn write(&self, buf: &mut BytesMut) {
        write_field(1, self.0, buf);
        write_number(2, u64::from(self.1.succeeded), buf);
        for op in &self.1.replies {
            write_field(3, &Op(op), buf);
        }
    }
}

/// A response inside a transaction: its header has the revision alone, that of a nested transaction
/// nothing at all.
struct Op<'a>(&'a OpReply);

impl Op<'_> {
    /// Calls `act` with the response and its field number; an operation that asked for nothing has none.
    fn with<R: Default>(&self, act: impl FnOnce(u64, &dyn DynEncode) -> R) -> R {
        match self.0 {
            OpReply::Range(reply) => act(1, &Range::whole(&revision_alone(reply.revision), reply)),
            OpReply::Put(reply) => act(2, &Put(&revision_alone(reply.revision), reply)),
            OpReply::DeleteRange(reply) => act(3, &Delete(&revision_alone(reply.revision), reply)),
            OpReply::Txn(reply) => {
                reply.visit(|reply| act(4, &Txn(&ResponseHeader::default(), reply)))
            }
            OpReply::Empty => R::default(),
        }
    }
}

/// [`Encode`], usable through a reference to whichever response an operation has.
trait DynEncode {
    fn dyn_len(&self) -> usize;
    fn dyn_write(&self, buf: &mut BytesMut);
}

impl<T: Encode> DynEncode for T {
    fn dyn_len(&self) -> usize {
        self.len()
    }

    fn dyn_write(&self, buf: &mut BytesMut) {
        self.write(buf);
    }
}

impl Encode for Op<'_> {
    fn len(&self) -> usize {
        self.with(|_, body| field_len(body.dyn_len()))
    }

    fn write(&self, buf: &mut BytesMut) {
        self.with(|field, body| {
            encode_varint(tag(field, BYTES), buf);
            encode_varint(body.dyn_len() as u64, buf);
            body.dyn_write(buf);
        });
    }
}

fn framed(message: &impl Encode) -> Bytes {
    frame_with(message.len(), |buf| message.write(buf))
}

/// A framed `RangeResponse`.
pub fn range(origin: Origin, reply: &RangeReply) -> Bytes {
    framed(&Range::whole(&header(origin, reply.revision), reply))
}

/// A framed `RangeStreamResponse`: header, `more` and `count` are on the last chunk only.
pub fn range_chunk(origin: Origin, chunk: &RangeChunk) -> Bytes {
    let last = chunk.last.as_ref();
    let header = last.map(|last| header(origin, last.revision));
    let range = Range {
        kvs: &chunk.kvs,
        projection: chunk.projection,
        header: header.as_ref(),
        more: last.is_some_and(|last| last.more),
        count: last.map_or(0, |last| last.count),
    };
    frame_with(field_len(range.len()), |buf| write_field(1, &range, buf))
}

/// A framed `PutResponse`.
pub fn put(origin: Origin, reply: &PutReply) -> Bytes {
    framed(&Put(&header(origin, reply.revision), reply))
}

/// A framed `DeleteRangeResponse`.
pub fn delete(origin: Origin, reply: &DeleteReply) -> Bytes {
    framed(&Delete(&header(origin, reply.revision), reply))
}

/// A framed `TxnResponse`.
pub fn txn(origin: Origin, reply: &TxnReply) -> Bytes {
    framed(&Txn(&header(origin, reply.revision), reply))
}
