//! The hot responses, encoded straight from shared records.
//!
//! A record's bytes already are the body of a `mvccpb.KeyValue`; a response copies them once, into
//! the frame that goes to the socket. Lengths are computed first, so that it is known what an
//! answer takes before anything is allocated for it.

use std::cell::OnceCell;
use std::slice;

use prost::Message;
use prost::encoding::encoded_len_varint;
use retcd_proto::Nested;
use retcd_proto::etcdserverpb::ResponseHeader;
use retcd_state::mvcc::{
    Attributes, DeleteReply, Kvs, OpReply, Projection, PutReply, RangeChunk, RangeReply, Record,
    StorageError, TxnReply,
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
pub(super) trait Encode {
    /// Length in bytes.
    fn len(&self) -> usize;
    /// Writes exactly so many.
    ///
    /// # Errors
    /// A value that is not in memory cannot be read.
    fn write(&self, sink: &mut Sink) -> Result<(), StorageError>;
    /// Whether it has so many parts that measuring and writing it takes more than a millisecond or
    /// so, or lies in part on a disk.
    fn is_long(&self) -> bool {
        false
    }
}

/// An answer of parts that can be written one by one, so that a long one is never in memory as a
/// whole.
pub(super) trait EncodeParts: Encode + Send {
    /// Writes parts from number `from` on, the first being 0, until the sink has a piece. The next
    /// one; `None` if all has been written that [`Encode::write`] writes.
    ///
    /// # Errors
    /// As [`Encode::write`].
    fn write_piece(&self, from: usize, sink: &mut Sink) -> Result<Option<usize>, StorageError>;
    /// Whether no part has to be read from a disk.
    fn is_in_memory(&self) -> bool;
}

/// An answer of more records, or of more answers within it, is a [long](Encode::is_long) one.
const PARTS_MAX: usize = 10_000;

fn field_len(body_len: usize) -> usize {
    // All field numbers used here are below 16: the tag is one byte.
    1 + encoded_len_varint(body_len as u64) + body_len
}

fn write_field(field: u64, body: &impl Encode, sink: &mut Sink) -> Result<(), StorageError> {
    sink.put_varint(tag(field, BYTES));
    sink.put_varint(body.len() as u64);
    body.write(sink)
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

    fn write(&self, sink: &mut Sink) -> Result<(), StorageError> {
        self.encode_raw(sink.buf());
        Ok(())
    }
}

/// A response that is not hot, but may be long.
pub(super) struct Plain<M>(pub M);

impl<M: Message> Encode for Plain<M> {
    fn len(&self) -> usize {
        self.0.encoded_len()
    }

    fn write(&self, sink: &mut Sink) -> Result<(), StorageError> {
        self.0.encode_raw(sink.buf());
        Ok(())
    }
}

/// The length of a record as far as the request wants to see it.
fn projected_len(kvs: &Kvs, projection: Projection) -> impl ExactSizeIterator<Item = usize> {
    let lengths = kvs.lengths().zip(kvs.attributes());
    lengths.map(move |(whole, kv)| match projection {
        Projection::Full => whole,
        Projection::WithoutValue => WithoutValue(kv).len(),
    })
}

/// A record for whoever asks for keys only.
struct WithoutValue<'a>(&'a Attributes);

impl WithoutValue<'_> {
    fn numbers(&self) -> [(u64, u64); 4] {
        let kv = self.0;
        [
            (2, kv.create_revision() as u64),
            (3, kv.mod_revision() as u64),
            (4, kv.version() as u64),
            (6, kv.lease() as u64),
        ]
    }
}

impl Encode for WithoutValue<'_> {
    fn len(&self) -> usize {
        let numbers = self.numbers();
        let numbers = numbers.iter().map(|(_, value)| number_len(*value));
        field_len(self.0.key().len()) + numbers.sum::<usize>()
    }

    fn write(&self, sink: &mut Sink) -> Result<(), StorageError> {
        let key = self.0.key();
        sink.put_varint(tag(1, BYTES));
        sink.put_varint(key.len() as u64);
        sink.put_slice(key);
        for (field, value) in self.numbers() {
            write_number(field, value, sink);
        }
        Ok(())
    }
}

/// Writes a record as a message in `field`.
fn write_record(field: u64, record: &Record, sink: &mut Sink) {
    sink.put_varint(tag(field, BYTES));
    sink.put_varint(record.as_bytes().len() as u64);
    sink.put_slice(record.as_bytes());
}

/// Writes whole records, each as a message in `field`.
fn write_records(field: u64, kvs: &Kvs, sink: &mut Sink) -> Result<(), StorageError> {
    for record in kvs.iter() {
        let record = record?;
        write_record(field, &record, sink);
    }
    Ok(())
}

/// A `RangeResponse`; in all but the last chunk of a stream there is nothing but records.
struct Range<'a> {
    kvs: &'a Kvs,
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
        let kvs: usize = projected_len(self.kvs, self.projection)
            .map(field_len)
            .sum();
        let header = self.header.map_or(0, |header| field_len(header.len()));
        header + kvs + number_len(u64::from(self.more)) + number_len(self.count as u64)
    }

    fn write(&self, sink: &mut Sink) -> Result<(), StorageError> {
        let written = self.write_until(|_| false, 0, sink)?;
        assert_eq!(written, None, "nothing has ended it before the end");
        Ok(())
    }
}

impl Range<'_> {
    /// Writes records from place `from` on, with what is in front of the first and behind the last,
    /// until one after which `is_enough`; the place of the next one.
    fn write_until(
        &self,
        is_enough: impl Fn(&Sink) -> bool,
        from: usize,
        sink: &mut Sink,
    ) -> Result<Option<usize>, StorageError> {
        if from == 0
            && let Some(header) = self.header
        {
            write_field(1, header, sink)?;
        }
        let places = from..self.kvs.len();
        match self.projection {
            Projection::Full => {
                for (at, record) in places.clone().zip(self.kvs.within(places)) {
                    write_record(2, &*record?, sink);
                    if is_enough(sink) {
                        return Ok(Some(at + 1));
                    }
                }
            }
            Projection::WithoutValue => {
                for at in places {
                    write_field(2, &WithoutValue(self.kvs.attributes_of(at)), sink)?;
                    if is_enough(sink) {
                        return Ok(Some(at + 1));
                    }
                }
            }
        }
        write_number(3, u64::from(self.more), sink);
        write_number(4, self.count as u64, sink);
        Ok(None)
    }
}

/// Its parts are the records.
impl EncodeParts for Range<'_> {
    fn write_piece(&self, from: usize, sink: &mut Sink) -> Result<Option<usize>, StorageError> {
        self.write_until(Sink::has_done, from, sink)
    }

    fn is_in_memory(&self) -> bool {
        self.kvs.is_in_memory()
    }
}

struct Put<'a>(&'a ResponseHeader, &'a PutReply);

impl Encode for Put<'_> {
    fn len(&self) -> usize {
        let prev: usize = self.1.prev.lengths().map(field_len).sum();
        field_len(self.0.len()) + prev
    }

    fn write(&self, sink: &mut Sink) -> Result<(), StorageError> {
        write_field(1, self.0, sink)?;
        write_records(2, &self.1.prev, sink)
    }
}

struct Delete<'a>(&'a ResponseHeader, &'a DeleteReply);

impl Encode for Delete<'_> {
    fn len(&self) -> usize {
        let prevs: usize = self.1.prevs.lengths().map(field_len).sum();
        field_len(self.0.len()) + number_len(self.1.deleted as u64) + prevs
    }

    fn write(&self, sink: &mut Sink) -> Result<(), StorageError> {
        write_field(1, self.0, sink)?;
        write_number(2, self.1.deleted as u64, sink);
        write_records(3, &self.1.prevs, sink)
    }
}

/// The answer to a transaction.
///
/// Its answers have their lengths in front of them, on every level again, and there may be many
/// levels. So all are measured at once.
pub(super) struct TxnAnswer {
    origin: Origin,
    reply: TxnReply,
    lengths: OnceCell<Lengths>,
}

/// Lengths in bytes of the whole message and of the answers in it, in the order in which they are
/// written.
struct Lengths {
    message: usize,
    answers: Vec<usize>,
}

impl TxnAnswer {
    /// The answer, and what its header has beside the revision that it is of.
    pub(super) fn new(origin: Origin, reply: TxnReply) -> TxnAnswer {
        let lengths = OnceCell::new();
        TxnAnswer {
            origin,
            reply,
            lengths,
        }
    }

    fn header(&self) -> ResponseHeader {
        header(self.origin, self.reply.revision)
    }

    fn lengths(&self) -> &Lengths {
        self.lengths.get_or_init(|| {
            let mut answers = Vec::with_capacity(self.reply.replies.len());
            let message = measure_txn(&self.header(), &self.reply, &mut answers);
            Lengths { message, answers }
        })
    }
}

impl Encode for TxnAnswer {
    fn len(&self) -> usize {
        self.lengths().message
    }

    fn write(&self, sink: &mut Sink) -> Result<(), StorageError> {
        let mut lengths = self.lengths().answers.iter();
        write_txn(&self.header(), &self.reply, &mut lengths, sink)?;
        assert!(lengths.next().is_none(), "a length is left over");
        Ok(())
    }

    fn is_long(&self) -> bool {
        let mut left = PARTS_MAX;
        exceeds(&self.reply, &mut left)
    }
}

/// Whether the reply has more than `left` parts, of which it takes its own, or any on a disk.
fn exceeds(reply: &TxnReply, left: &mut usize) -> bool {
    reply.replies.iter().any(|op| {
        let kvs = match op {
            OpReply::Range(reply) => Some(&reply.kvs),
            OpReply::DeleteRange(reply) => Some(&reply.prevs),
            OpReply::Put(reply) => Some(&reply.prev),
            OpReply::Txn(_) | OpReply::Empty => None,
        };
        if kvs.is_some_and(|kvs| !kvs.is_in_memory()) {
            return true;
        }
        let parts = 1 + kvs.map_or(0, Kvs::len);
        match left.checked_sub(parts) {
            Some(rest) => *left = rest,
            None => return true,
        }
        matches!(op, OpReply::Txn(nested) if nested.visit(|reply| exceeds(reply, left)))
    })
}

/// What an operation of a transaction is answered with: the field of `ResponseOp`, and what is in
/// it.
///
/// The header of an answer inside a transaction has the revision alone, that of a nested
/// transaction nothing at all.
enum Op<'a> {
    /// The operation asked for nothing.
    Empty,
    Leaf(u64, Leaf<'a>),
    Txn(&'a Nested<TxnReply>),
}

/// The field of `ResponseOp` for a nested transaction.
const NESTED: u64 = 4;

enum Leaf<'a> {
    Range(ResponseHeader, &'a RangeReply),
    Put(ResponseHeader, &'a PutReply),
    Delete(ResponseHeader, &'a DeleteReply),
}

impl<'a> Op<'a> {
    fn of(op: &'a OpReply) -> Op<'a> {
        match op {
            OpReply::Range(reply) => {
                Op::Leaf(1, Leaf::Range(revision_alone(reply.revision), reply))
            }
            OpReply::Put(reply) => Op::Leaf(2, Leaf::Put(revision_alone(reply.revision), reply)),
            OpReply::DeleteRange(reply) => {
                Op::Leaf(3, Leaf::Delete(revision_alone(reply.revision), reply))
            }
            OpReply::Txn(reply) => Op::Txn(reply),
            OpReply::Empty => Op::Empty,
        }
    }
}

impl Encode for Leaf<'_> {
    fn len(&self) -> usize {
        match self {
            Leaf::Range(header, reply) => Range::whole(header, reply).len(),
            Leaf::Put(header, reply) => Put(header, reply).len(),
            Leaf::Delete(header, reply) => Delete(header, reply).len(),
        }
    }

    fn write(&self, sink: &mut Sink) -> Result<(), StorageError> {
        match self {
            Leaf::Range(header, reply) => Range::whole(header, reply).write(sink),
            Leaf::Put(header, reply) => Put(header, reply).write(sink),
            Leaf::Delete(header, reply) => Delete(header, reply).write(sink),
        }
    }
}

/// The length of a `TxnResponse`; `lengths` gets those of the answers in it.
fn measure_txn(header: &ResponseHeader, reply: &TxnReply, lengths: &mut Vec<usize>) -> usize {
    let mut len = field_len(header.len()) + number_len(u64::from(reply.succeeded));
    for op in &reply.replies {
        let place = lengths.len();
        let op_len = match Op::of(op) {
            Op::Empty => 0,
            Op::Leaf(_, body) => {
                lengths.push(body.len());
                field_len(lengths[place])
            }
            Op::Txn(nested) => {
                lengths.push(0);
                let header = ResponseHeader::default();
                lengths[place] = nested.visit(|reply| measure_txn(&header, reply, lengths));
                field_len(lengths[place])
            }
        };
        len += field_len(op_len);
    }
    len
}

/// Writes what [`measure_txn`] has measured.
fn write_txn(
    header: &ResponseHeader,
    reply: &TxnReply,
    lengths: &mut slice::Iter<'_, usize>,
    sink: &mut Sink,
) -> Result<(), StorageError> {
    write_field(1, header, sink)?;
    write_number(2, u64::from(reply.succeeded), sink);
    for op in &reply.replies {
        let op = Op::of(op);
        let field = match op {
            Op::Empty => {
                sink.put_varint(tag(3, BYTES));
                sink.put_varint(0);
                continue;
            }
            Op::Leaf(field, _) => field,
            Op::Txn(_) => NESTED,
        };
        let body_len = *lengths.next().expect("every answer was measured");
        sink.put_varint(tag(3, BYTES));
        sink.put_varint(field_len(body_len) as u64);
        sink.put_varint(tag(field, BYTES));
        sink.put_varint(body_len as u64);
        match op {
            Op::Empty => {}
            Op::Leaf(_, body) => body.write(sink)?,
            Op::Txn(nested) => {
                let header = ResponseHeader::default();
                nested.visit(|reply| write_txn(&header, reply, lengths, sink))?;
            }
        }
    }
    Ok(())
}

/// An answer, and what its header has beside the revision that it is of.
pub(super) struct Headed<T>(pub Origin, pub T);

impl Encode for Headed<RangeReply> {
    fn len(&self) -> usize {
        Range::whole(&header(self.0, self.1.revision), &self.1).len()
    }

    fn write(&self, sink: &mut Sink) -> Result<(), StorageError> {
        Range::whole(&header(self.0, self.1.revision), &self.1).write(sink)
    }

    fn is_long(&self) -> bool {
        self.1.kvs.len() > PARTS_MAX
    }
}

impl EncodeParts for Headed<RangeReply> {
    fn write_piece(&self, from: usize, sink: &mut Sink) -> Result<Option<usize>, StorageError> {
        Range::whole(&header(self.0, self.1.revision), &self.1).write_piece(from, sink)
    }

    fn is_in_memory(&self) -> bool {
        self.1.kvs.is_in_memory()
    }
}

impl Encode for Headed<PutReply> {
    fn len(&self) -> usize {
        Put(&header(self.0, self.1.revision), &self.1).len()
    }

    fn write(&self, sink: &mut Sink) -> Result<(), StorageError> {
        Put(&header(self.0, self.1.revision), &self.1).write(sink)
    }

    fn is_long(&self) -> bool {
        !self.1.prev.is_in_memory()
    }
}

impl Encode for Headed<DeleteReply> {
    fn len(&self) -> usize {
        Delete(&header(self.0, self.1.revision), &self.1).len()
    }

    fn write(&self, sink: &mut Sink) -> Result<(), StorageError> {
        Delete(&header(self.0, self.1.revision), &self.1).write(sink)
    }

    fn is_long(&self) -> bool {
        self.1.prevs.len() > PARTS_MAX || !self.1.prevs.is_in_memory()
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

    fn write(&self, sink: &mut Sink) -> Result<(), StorageError> {
        self.with(|range| write_field(1, range, sink))
    }

    fn is_long(&self) -> bool {
        self.1.kvs.len() > PARTS_MAX
    }
}

impl EncodeParts for Headed<RangeChunk> {
    fn write_piece(&self, from: usize, sink: &mut Sink) -> Result<Option<usize>, StorageError> {
        self.with(|range| {
            if from == 0 {
                sink.put_varint(tag(1, BYTES));
                sink.put_varint(range.len() as u64);
            }
            range.write_piece(from, sink)
        })
    }

    fn is_in_memory(&self) -> bool {
        self.1.kvs.is_in_memory()
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use retcd_proto::etcdserverpb as pb;
    use retcd_proto::etcdserverpb::response_op::Response;
    use retcd_state::machine::{Machine, MachineOptions};
    use retcd_state::mvcc::{Fields, StoreRevision};
    use retcd_storage::backend::Backend;

    use super::super::pieces::{Encoding, NextPiece};
    use super::super::wire::MessageLength;
    use super::*;

    const ORIGIN: Origin = Origin {
        cluster_id: 1,
        member_id: 2,
        raft_term: 3,
    };

    fn record(rng: &mut Rng) -> Record {
        Record::encode(Fields {
            key: b"key",
            create_revision: 1,
            mod_revision: rng.i64(1..1000),
            version: 1,
            value: &vec![7; rng.usize(..200)],
            lease: 0,
        })
    }

    fn records(rng: &mut Rng) -> Kvs {
        let records = (0..rng.usize(..4)).map(|_| record(rng));
        records.collect::<Vec<_>>().into()
    }

    fn range(rng: &mut Rng) -> RangeReply {
        RangeReply {
            revision: revision(),
            kvs: records(rng),
            more: rng.bool(),
            count: rng.i64(..300),
            projection: Projection::Full,
        }
    }

    /// Of a store in which nothing was written: only there are revisions made.
    fn revision() -> StoreRevision {
        let machine = Machine::open(Backend::default(), MachineOptions::default()).unwrap();
        machine.reader().view().revision()
    }

    fn txn(rng: &mut Rng, depth: usize) -> TxnReply {
        let op = |rng: &mut Rng| match rng.u8(..5) {
            0 => OpReply::Range(range(rng)),
            1 => OpReply::Put(PutReply {
                revision: revision(),
                prev: Vec::from_iter(rng.bool().then(|| record(rng))).into(),
            }),
            2 => OpReply::DeleteRange(DeleteReply {
                revision: revision(),
                deleted: rng.i64(..2),
                prevs: records(rng),
            }),
            3 if depth > 0 => OpReply::Txn(txn(rng, depth - 1).into()),
            _ => OpReply::Empty,
        };
        TxnReply {
            revision: revision(),
            succeeded: rng.bool(),
            replies: (0..rng.usize(..5)).map(|_| op(rng)).collect(),
        }
    }

    fn kvs(records: &Kvs) -> Vec<retcd_proto::mvccpb::KeyValue> {
        let records = records.iter().flatten();
        records.map(|record| record.to_key_value()).collect()
    }

    /// The same message by way of prost.
    fn message(header: ResponseHeader, reply: &TxnReply) -> pb::TxnResponse {
        let header_of = |revision| Some(revision_alone(revision));
        let op = |op: &OpReply| match op {
            OpReply::Range(reply) => Some(Response::ResponseRange(pb::RangeResponse {
                header: header_of(reply.revision),
                kvs: kvs(&reply.kvs),
                more: reply.more,
                count: reply.count,
            })),
            OpReply::Put(reply) => Some(Response::ResponsePut(pb::PutResponse {
                header: header_of(reply.revision),
                prev_kv: kvs(&reply.prev).pop(),
            })),
            OpReply::DeleteRange(reply) => {
                Some(Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                    header: header_of(reply.revision),
                    deleted: reply.deleted,
                    prev_kvs: kvs(&reply.prevs),
                }))
            }
            OpReply::Txn(reply) => Some(Response::ResponseTxn(
                reply
                    .visit(|reply| message(ResponseHeader::default(), reply))
                    .into(),
            )),
            OpReply::Empty => None,
        };
        pb::TxnResponse {
            header: Some(header),
            succeeded: reply.succeeded,
            responses: reply
                .replies
                .iter()
                .map(|reply| pb::ResponseOp {
                    response: op(reply),
                })
                .collect(),
        }
    }

    fn encoded(answer: &TxnAnswer) -> Vec<u8> {
        let mut sink = Sink::new(MessageLength::of(answer.len()).unwrap());
        answer.write(&mut sink).unwrap();
        sink.into_pieces().concat().split_off(5)
    }

    /// Long lists go out in parts, short ones as a whole: a client must not be able to tell.
    #[test]
    fn parts_make_up_the_whole() {
        fn whole(message: &impl EncodeParts) -> Vec<u8> {
            let mut sink = Sink::new(MessageLength::of(message.len()).unwrap());
            message.write(&mut sink).unwrap();
            sink.into_pieces().concat()
        }
        fn in_parts(message: impl EncodeParts + 'static) -> Vec<u8> {
            let length = MessageLength::of(message.len()).unwrap();
            let mut encoding = Encoding::new(message, length);
            std::iter::from_fn(|| encoding.next_piece())
                .collect::<Result<Vec<_>, _>>()
                .unwrap()
                .concat()
        }
        let mut rng = Rng::with_seed(8);
        for round in 0..100 {
            let reply = range(&mut rng);
            let chunk = RangeChunk {
                kvs: reply.kvs.clone(),
                projection: reply.projection,
                last: (round % 2 == 0).then(|| reply.clone()),
            };
            let reply = Headed(ORIGIN, reply);
            assert_eq!(whole(&reply), in_parts(reply));
            let chunk = Headed(ORIGIN, chunk);
            assert_eq!(whole(&chunk), in_parts(chunk));
        }
    }

    #[test]
    fn a_transactions_answer_is_encoded_as_by_prost() {
        let mut rng = Rng::with_seed(5);
        for _ in 0..200 {
            let reply = txn(&mut rng, 6);
            let expected = message(header(ORIGIN, reply.revision), &reply).encode_to_vec();
            let answer = TxnAnswer::new(ORIGIN, reply);
            assert_eq!(encoded(&answer), expected);
        }
    }

    /// Were every level measured anew, this would take hours.
    #[test]
    fn an_answer_of_many_levels_is_measured_once() {
        let revision = revision();
        let mut reply = txn(&mut Rng::with_seed(1), 0);
        for _ in 0..100_000 {
            reply = TxnReply {
                replies: vec![OpReply::Txn(reply.into()), OpReply::Empty],
                revision,
                succeeded: true,
            };
        }
        let answer = TxnAnswer::new(ORIGIN, reply);
        assert!(answer.is_long());
        assert_eq!(encoded(&answer).len(), answer.len());
    }
}
