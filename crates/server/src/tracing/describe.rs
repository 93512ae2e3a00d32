//! What etcd tells of an operation in its span: the name and the attributes (etcd v3.7:
//! server/etcdserver/v3_server.go and api/v3rpc/watch.go).

use std::any::Any;

use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::watch_request::RequestUnion;
use retcd_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchRequest,
};
use retcd_proto::tracepb::{AnyValue, KeyValue, any_value::Value};

use crate::metrics::Method;

/// Of a key in a span, the first bytes: spans wait for their collector in memory, and it refuses
/// messages that are too long.
const KEY_BYTES_MAX: usize = 1024;

/// An operation as its span tells it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Operation {
    pub(super) name: &'static str,
    pub(super) attributes: Vec<KeyValue>,
}

/// The operation that `message` asks `method` for; none where etcd has no span for it.
pub(crate) fn describe(method: Method, message: &dyn Any) -> Option<Operation> {
    let is = |name, attributes| Some(Operation { name, attributes });
    if let Some(range) = message.downcast_ref::<RangeRequest>() {
        let mut attributes = vec![
            text("range_begin", &range.key),
            text("range_end", &range.range_end),
            number("rev", range.revision),
            number("limit", range.limit),
            flag("count_only", range.count_only),
        ];
        if method == Method::RangeStream {
            return is("range_streaming", attributes);
        }
        attributes.push(flag("keys_only", range.keys_only));
        return is("range", attributes);
    }
    if let Some(put) = message.downcast_ref::<PutRequest>() {
        return is("put", vec![text("key", &put.key)]);
    }
    if let Some(delete) = message.downcast_ref::<DeleteRangeRequest>() {
        let range = [
            text("range_begin", &delete.key),
            text("range_end", &delete.range_end),
        ];
        return is("delete_range", range.to_vec());
    }
    if let Some(txn) = message.downcast_ref::<TxnRequest>() {
        return is("txn", of_txn(txn));
    }
    if let Some(compaction) = message.downcast_ref::<CompactionRequest>() {
        let physical = flag("is_physical", compaction.physical);
        return is(
            "compact",
            vec![physical, number("rev", compaction.revision)],
        );
    }
    if let Some(grant) = message.downcast_ref::<LeaseGrantRequest>() {
        let (id, ttl) = (number("id", grant.id), number("ttl", grant.ttl));
        return is("lease_grant", vec![id, ttl]);
    }
    if let Some(revoke) = message.downcast_ref::<LeaseRevokeRequest>() {
        return is("lease_revoke", vec![number("id", revoke.id)]);
    }
    if let Some(renewal) = message.downcast_ref::<LeaseKeepAliveRequest>() {
        return is("lease_renew", vec![number("id", renewal.id)]);
    }
    let watch = message.downcast_ref::<WatchRequest>()?;
    let Some(RequestUnion::CreateRequest(create)) = &watch.request_union else {
        return None;
    };
    let attributes = vec![
        text("key", &create.key),
        text("range_end", &create.range_end),
        number("start_rev", create.start_revision),
        flag("progress_notify", create.progress_notify),
        flag("prev_kv", create.prev_kv),
        flag("fragment", create.fragment),
    ];
    is("watch", attributes)
}

fn of_txn(txn: &TxnRequest) -> Vec<KeyValue> {
    let is_named = |key: &&[u8]| !key.is_empty();
    let compared = txn.compare.iter().map(|compare| &*compare.key);
    let ops = || txn.success.iter().filter_map(|op| op.request.as_ref());
    let keys = ops().map(|op| match op {
        Request::RequestRange(range) => &*range.key,
        Request::RequestPut(put) => &*put.key,
        Request::RequestDeleteRange(delete) => &*delete.key,
        Request::RequestTxn(_) => &[],
    });
    let kind = ops().next().map_or("", |op| match op {
        Request::RequestRange(_) => "range",
        Request::RequestPut(_) => "put",
        Request::RequestDeleteRange(_) => "delete_range",
        Request::RequestTxn(_) => "txn",
    });
    let lease = ops().find_map(|op| match op {
        Request::RequestPut(put) => Some(put.lease),
        _ => None,
    });
    let count = |ops: &[RequestOp]| ops.len() as i64;
    vec![
        text(
            "compare_first_key",
            compared.into_iter().find(is_named).unwrap_or_default(),
        ),
        text(
            "success_first_key",
            keys.into_iter().find(is_named).unwrap_or_default(),
        ),
        string("success_first_type", kind.to_owned()),
        number("success_first_lease", lease.unwrap_or(-1)),
        number("compare_len", txn.compare.len() as i64),
        number("success_len", count(&txn.success)),
        number("failure_len", count(&txn.failure)),
        flag("read_only", retcd_state::mvcc::is_read_only(txn)),
    ]
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

pub(super) fn string(key: &str, value: String) -> KeyValue {
    attribute(key, Value::StringValue(value))
}

/// A key of the store, or the beginning of a long one; what is not UTF-8 in it is replaced.
fn text(key: &str, value: &[u8]) -> KeyValue {
    let shown = &value[..value.len().min(KEY_BYTES_MAX)];
    string(key, String::from_utf8_lossy(shown).into_owned())
}

pub(super) fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn flag(key: &str, value: bool) -> KeyValue {
    attribute(key, Value::BoolValue(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_key_the_beginning_is_told() {
        let put = |bytes| PutRequest {
            key: vec![b'k'; bytes].into(),
            ..PutRequest::default()
        };
        let key = |bytes| {
            let operation = describe(Method::Put, &put(bytes)).expect("a put has a span");
            operation.attributes
        };
        let shown = |bytes| vec![string("key", "k".repeat(bytes))];
        assert_eq!(key(3), shown(3));
        assert_eq!(key(KEY_BYTES_MAX), shown(KEY_BYTES_MAX));
        assert_eq!(key(1 << 20), shown(KEY_BYTES_MAX));
    }
}
