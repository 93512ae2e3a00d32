//! The hot responses, encoded straight from shared records.
//!
//! A record's bytes already are the body of a `mvccpb.KeyValue`; a response copies them once, into
//! the frame that goes to the socket. Lengths are computed first, so that it is known what an answer takes
//! before anything is allocated for it.

use prost::Message;
use prost::encoding::encoded_len_varint;
use retcd_proto::etcdserverpb::ResponseHeader;
use retcd_state::mvcc::{
    DeleteReply, OpReply, Projection, PutReply, RangeChunk, RangeReply, Record, TxnReply,
};
use retcd_state::watch::Origin;

use super::header::{header, revision_alone};
use super::pieces::Sink;

const VARINT: u64 = 0;
const BYTES: u64 = 2;

const fn tag(field: u64, wire_type: u64) -> u64 {
    field << 3 | wire_type
}

/// Something with a known length that can be written into a frame.
pub trait Encode {
    /// Length in bytes.
    fn len(&self) -> usize;
    /// Writes exactly so many.
    fn write(&self, sink: &mut Sink);
}

fn field_len(body_len: usize) -> usize {
    // All field numbers used here are below 16: the tag is one byte.
    1 + encoded_len_varint(body_len as u64) + body_len
}

fn write_field(field: u64, body: &impl Encode, sink: &mut Sink) {
    sink.put_varint(tag(field, BYTES));
    sink.put_varint(body.len() as u64);
    body.write(sink);
}

fn number_len(value: u64) -> usize {
    if value == 0 {
        0
    } else {
        1 + encoded_len_varint(value)
    }
}

fn write_number(field: u64, value: u64, sink: &mut Sink) {
    if value != 0 {
        sink.put_varint(tag(field, VARINT));
        sink.put_varint(value);
    }
}

/// A header: the whole one of a response, or the bare revision inside a transaction.
impl Encode for ResponseHeader {
    fn len(&self) -> usize {
        self.encoded_len()
    }

    fn write(&self, sink: &mut Sink) {
        self.encode_raw(sink.buf());
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

    fn write(&self, sink: &mut Sink) {
        if self.1 == Projection::Full {
            sink.put_slice(self.0.as_bytes());
            return;
        }
        let key = self.0.key();
        sink.put_varint(tag(1, BYTES));
        sink.put_varint(key.len() as u64);
        sink.put_slice(key);
        for (field, value) in self.numbers() {
            write_number(field, value, sink);
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

    fn write(&self, sink: &mut Sink) {
        if let Some(header) = self.header {
            write_field(1, header, sink);
        }
        for kv in self.kvs {
            write_field(2, &Projected(kv, self.projection), sink);
        }
        write_number(3, u64::from(self.more), sink);
        write_number(4, self.count as u64, sink);
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

    fn write(&self, sink: &mut Sink) {
        write_field(1, self.0, sink);
        if let Some(prev) = &self.1.prev {
            write_field(2, &Projected(prev, Projection::Full), sink);
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

    fn write(&self, sink: &mut Sink) {
        write_field(1, self.0, sink);
        write_number(2, self.1.deleted as u64, sink);
        for prev in &self.1.prevs {
            write_field(3, &Projected(prev, Projection::Full), sink);
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

    fn write(&self, sink: &mut Sink) {
        write_field(1, self.0, sink);
        write_number(2, u64::from(self.1.succeeded), sink);
        for op in &self.1.replies {
            write_field(3, &Op(op), sink);
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
    fn dyn_write(&self, sink: &mut Sink);
}

impl<T: Encode> DynEncode for T {
    fn dyn_len(&self) -> usize {
        self.len()
    }

    fn dyn_write(&self, sink: &mut Sink) {
        self.write(sink);
    }
}

impl Encode for Op<'_> {
    fn len(&self) -> usize {
        self.with(|_, body| field_len(body.dyn_len()))
    }

    fn write(&self, sink: &mut Sink) {
        self.with(|field, body| {
            sink.put_varint(tag(field, BYTES));
            sink.put_varint(body.dyn_len() as u64);
            body.dyn_write(sink);
        });
    }
}

/// An answer, and what its header has beside the revision that it is of.
pub struct Headed<T>(pub Origin, pub T);

impl Encode for Headed<RangeReply> {
    fn len(&self) -> usize {
        Range::whole(&header(self.0, self.1.revision), &self.1).len()
    }

    fn write(&self, sink: &mut Sink) {
        Range::whole(&header(self.0, self.1.revision), &self.1).write(sink);
    }
}

impl Encode for Headed<PutReply> {
    fn len(&self) -> usize {
        Put(&header(self.0, self.1.revision), &self.1).len()
    }

    fn write(&self, sink: &mut Sink) {
        Put(&header(self.0, self.1.revision), &self.1).write(sink);
    }
}

impl Encode for Headed<DeleteReply> {
    fn len(&self) -> usize {
        Delete(&header(self.0, self.1.revision), &self.1).len()
    }

    fn write(&self, sink: &mut Sink) {
        Delete(&header(self.0, self.1.revision), &self.1).write(sink);
    }
}

impl Encode for Headed<TxnReply> {
    fn len(&self) -> usize {
        Txn(&header(self.0, self.1.revision), &self.1).len()
    }

    fn write(&self, sink: &mut Sink) {
        Txn(&header(self.0, self.1.revision), &self.1).write(sink);
    }
}

impl Headed<RangeChunk> {
    fn with<R>(&self, act: impl FnOnce(&Range<'_>) -> R) -> R {
        let Headed(origin, chunk) = self;
        let last = chunk.last.as_ref();
        let header = last.map(|last| header(*origin, last.revision));
        act(&Range {
            kvs: &chunk.kvs,
            projection: chunk.projection,
            header: header.as_ref(),
            more: last.is_some_and(|last| last.more),
            count: last.map_or(0, |last| last.count),
        })
    }
}

/// A `RangeStreamResponse`: header, `more` and `count` are on the last chunk only.
impl Encode for Headed<RangeChunk> {
    fn len(&self) -> usize {
        self.with(|range| field_len(range.len()))
    }

    fn write(&self, sink: &mut Sink) {
        self.with(|range| write_field(1, range, sink));
    }
}
