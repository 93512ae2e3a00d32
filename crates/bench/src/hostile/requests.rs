//! The requests, and the data that they require.

use bytes::{BufMut, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, WireType};
use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use retcd_proto::etcdserverpb::request_op::Request as Op;

/// Operations per level of a nested transaction, within etcd's limit of 128 operations.
const WIDTH: usize = 30;

/// One row of the table.
pub(crate) struct Request {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) body: Encoded,
    /// Transactions to execute first.
    pub(crate) before: Vec<pb::TxnRequest>,
}

/// An encoded message.
#[derive(Debug, Default)]
pub(crate) struct Encoded(pub(crate) Bytes);

/// Only used for sending.
impl Message for Encoded {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl bytes::Buf,
        context: DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        prost::encoding::skip_field(wire_type, tag, buf, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0 = Bytes::new();
    }
}

const TXN: &str = "/etcdserverpb.KV/Txn";
const RANGE: &str = "/etcdserverpb.KV/Range";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";

/// All requests, in an order in which none affects a later one.
pub(crate) fn all() -> Vec<Request> {
    let mut large = (0..36).map(|number| put(format!("large/{number:02}"), 1 << 20));
    let large = large.by_ref().map(|put| branch(vec![put])).collect();
    let many = (0..100_000).map(|number| put(format!("many/{number:06}"), 256));
    let many: Vec<_> = many.collect();
    let many = many.chunks(100).map(|puts| branch(puts.to_vec())).collect();
    vec![
        request(
            "put of 1 MiB",
            "/etcdserverpb.KV/Put",
            &one_put("one", 1 << 20),
        ),
        request(
            "txn of 128 puts",
            TXN,
            &branch((0..128).map(|n| put(format!("p{n}"), 0)).collect()),
        ),
        request("nested txn of 20,000 puts", TXN, &nested(puts(0..20_000))),
        request(
            "nested txn of 60,000 puts",
            TXN,
            &nested(puts(20_000..80_000)),
        ),
        request(
            "nested txn of 160,000 puts",
            TXN,
            &nested(puts(80_000..240_000)),
        ),
        request(
            "txn of 80,000 range deletions and 80,000 puts",
            TXN,
            &deletions_and_puts(80_000),
        ),
        Request {
            before: large,
            ..request(
                "txn that lists 36 MiB 120 times",
                TXN,
                &branch(vec![list("large/", "large0"); 120]),
            )
        },
        Request {
            before: many,
            ..request("list of 100,000 keys", RANGE, &range("many/", "many0"))
        },
        request(
            "list of 100,000 keys by value",
            RANGE,
            &pb::RangeRequest {
                sort_order: SortOrder::Descend as i32,
                sort_target: SortTarget::Value as i32,
                ..range("many/", "many0")
            },
        ),
        request(
            "txn that compares 100,000 keys 100 times",
            TXN,
            &compares("many/", "many0", 100),
        ),
        request(
            "deletion of 100,000 keys with previous pairs",
            DELETE,
            &pb::DeleteRangeRequest {
                key: "many/".into(),
                range_end: "many0".into(),
                prev_kv: true,
            },
        ),
        request(
            "nested txn that deletes 100,000 deleted keys 60,000 times",
            TXN,
            &nested(vec![delete("many/", "many0"); 60_000]),
        ),
    ]
}

fn request(name: &'static str, path: &'static str, message: &impl Message) -> Request {
    let body = Encoded(message.encode_to_vec().into());
    let before = Vec::new();
    Request {
        name,
        path,
        body,
        before,
    }
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn one_put(key: impl Into<Bytes>, value_bytes: usize) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into(),
        value: vec![b'v'; value_bytes].into(),
        ..Default::default()
    }
}

fn put(key: impl Into<Bytes>, value_bytes: usize) -> pb::RequestOp {
    op(Op::RequestPut(one_put(key, value_bytes)))
}

fn range(key: &'static str, range_end: &'static str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        ..Default::default()
    }
}

fn list(key: &'static str, range_end: &'static str) -> pb::RequestOp {
    op(Op::RequestRange(range(key, range_end)))
}

fn delete(key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> pb::RequestOp {
    op(Op::RequestDeleteRange(pb::DeleteRangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        prev_kv: false,
    }))
}

fn branch(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest {
        success,
        ..Default::default()
    }
}

/// Nests the operations in transactions within transactions, so that no level has too many.
fn nested(mut ops: Vec<pb::RequestOp>) -> pb::TxnRequest {
    while ops.len() > WIDTH {
        let level = ops
            .chunks(WIDTH)
            .map(|ops| op(Op::RequestTxn(branch(ops.to_vec()).into())));
        ops = level.collect();
    }
    branch(ops)
}

/// Keys as short as possible, so that many fit into a request.
fn short_key(number: usize) -> Vec<u8> {
    let digit = |shift: usize| b'0' + ((number >> shift) & 63) as u8;
    // Sorts after all other keys.
    vec![0x80 + digit(12) - b'0', digit(6), digit(0)]
}

fn puts(numbers: std::ops::Range<usize>) -> Vec<pb::RequestOp> {
    numbers.map(|number| put(short_key(number), 0)).collect()
}

/// Alternates deletions and puts.
fn deletions_and_puts(each: usize) -> pb::TxnRequest {
    let ops = (0..each).flat_map(|number| {
        let [a, b, c] = [2 * number, 2 * number + 1, 2 * number + 2].map(short_key);
        [put(a, 0), delete(b, c)]
    });
    nested(ops.collect())
}

fn compares(key: &'static str, range_end: &'static str, count: usize) -> pb::TxnRequest {
    let compare = pb::Compare {
        key: key.into(),
        range_end: range_end.into(),
        target: pb::compare::CompareTarget::Version as i32,
        result: pb::compare::CompareResult::Greater as i32,
        target_union: Some(pb::compare::TargetUnion::Version(0)),
    };
    pb::TxnRequest {
        compare: vec![compare; count],
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Within a server's default limits, except for the one that must be rejected.
    #[test]
    fn requests_are_as_large_as_they_can_be() {
        const REQUEST_BYTES_MAX: usize = 1536 << 10;
        for request in all() {
            let bytes = request.body.0.len();
            let name = request.name;
            assert!(
                bytes < REQUEST_BYTES_MAX || name.contains("range deletions"),
                "{name}: {bytes}"
            );
        }
    }

    #[test]
    fn short_keys_differ() {
        let keys: std::collections::BTreeSet<_> = (0..240_000).map(short_key).collect();
        assert_eq!(keys.len(), 240_000);
    }
}
