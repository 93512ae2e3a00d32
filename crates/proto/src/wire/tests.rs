//! The accepted inputs and the error texts were recorded from etcd 3.7.1.

use super::*;
use crate::Nested;
use crate::etcdserverpb::request_op::Request;
use crate::etcdserverpb::{
    AuthRoleRevokePermissionRequest, PutRequest, Request as V2Request, RequestOp, TxnRequest,
    WatchRequest,
};

const PUT: &[u8] = b"\x0a\x01k\x12\x01v";

fn put() -> PutRequest {
    PutRequest {
        key: "k".into(),
        value: "v".into(),
        ..Default::default()
    }
}

fn repeat(bytes: &[u8], times: usize) -> Vec<u8> {
    bytes.repeat(times)
}

/// Unknown groups, nested `levels` deep.
fn groups(levels: usize) -> Vec<u8> {
    [repeat(b"\x93\x03", levels), repeat(b"\x94\x03", levels)].concat()
}

/// Transactions nested `levels` deep, with `innermost` at the bottom.
fn nested(levels: usize, innermost: TxnRequest) -> Vec<u8> {
    // Built from the inside out, in reverse byte order.
    let mut reversed: Vec<u8> = innermost.encode_to_vec().into_iter().rev().collect();
    for _ in 1..levels {
        for key in [0x22, 0x12] {
            let mut length = Vec::new();
            prost::encode_length_delimiter(reversed.len(), &mut length).unwrap();
            reversed.extend(length.iter().rev());
            reversed.push(key);
        }
    }
    reversed.reverse();
    reversed
}

fn one_put() -> TxnRequest {
    TxnRequest {
        success: vec![RequestOp {
            request: Some(Request::RequestPut(put())),
        }],
        ..Default::default()
    }
}

fn levels(txn: &TxnRequest) -> usize {
    match txn.success.first().and_then(|op| op.request.as_ref()) {
        Some(Request::RequestTxn(inner)) => 1 + inner.visit(levels),
        _ => 1,
    }
}

#[track_caller]
fn check<T>(bytes: &[u8], expected: Result<T, WireError>)
where
    T: Name + Default + PartialEq + std::fmt::Debug,
{
    assert_eq!(decode(Bytes::copy_from_slice(bytes)), expected);
}

#[test]
fn unknown_fields_are_skipped() {
    for unknown in [
        b"".as_slice(),
        b"\x98\x06\x01",             // number 99
        b"\x1a\x011",                // the lease as text
        b"\x08\x01",                 // the key as a number
        b"\x0d\0\0\0\0",             // and as four bytes
        b"\x11\0\0\0\0\0\0\0\0",     // the value as eight bytes
        b"\x13\x08\x01\x1b\x1c\x14", // the value as a group
        &groups(101),
        &groups(10_001),
    ] {
        check(&[unknown, PUT].concat(), Ok(put()));
        check(&[PUT, unknown].concat(), Ok(put()));
    }
}

#[test]
fn lengths_are_updated_around_removed_fields() {
    let unknown = [groups(200), b"\x1a\x011".to_vec()].concat();
    let within = |key: u8, bytes: &[u8]| {
        let mut out = vec![key];
        prost::encode_length_delimiter(bytes.len(), &mut out).unwrap();
        out.extend(bytes);
        out
    };
    let op = within(0x12, &[&unknown, PUT].concat());
    let txn = [within(0x12, &op), groups(200)].concat();
    check(&txn, Ok(one_put()));
}

#[test]
fn malformed_messages_are_rejected_in_gos_words() {
    for bytes in [
        b"\x0a\xff".as_slice(),
        b"\x0a\x02k",
        b"\x0f",
        b"\x0c",
        b"\x02\x01",
        b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x93\x03",
        b"\x93\x03\x9c\x03",
        &groups(10_002),
    ] {
        check::<PutRequest>(bytes, Err(WireError::Malformed));
    }
    let text = [b"\x0a\x02\xff\xfe".as_slice(), &groups(101)].concat();
    check::<AuthRoleRevokePermissionRequest>(&text, Err(WireError::NotUtf8));
    check::<TxnRequest>(b"\x12\x04\x22\x0a\x12\xff", Err(WireError::Malformed));
}

#[test]
fn oneofs_and_packed_numbers_are_preserved() {
    // A watch create request with filters, both packed and not, in a message that sets the oneof
    // more than once.
    let create = b"\x0a\x08\x0a\x01k\x2a\x01\x01\x28\x00";
    let bytes = [create.as_slice(), &groups(150)].concat();
    let plain: WatchRequest = decode(Bytes::copy_from_slice(create)).unwrap();
    check(&bytes, Ok(plain));
}

#[test]
fn transactions_nest_as_deep_as_in_gos_decoder() {
    let empty = TxnRequest::default;
    for (levels_in, innermost) in [
        (49, one_put()),
        (128, one_put()),
        (4999, one_put()),
        (5000, empty()),
    ] {
        let txn: TxnRequest = decode(nested(levels_in, innermost).into()).unwrap();
        assert_eq!(levels(&txn), levels_in);
    }
    for (levels, innermost) in [
        (5000, one_put()),
        (5001, empty()),
        (10_000, empty()),
        (100_000, empty()),
    ] {
        check::<TxnRequest>(&nested(levels, innermost), Err(WireError::TooDeep));
    }
}

#[test]
fn deep_messages_are_traversed_on_any_stack() {
    let walk = || {
        let bytes = nested(4999, one_put());
        let txn: TxnRequest = decode(bytes.clone().into()).unwrap();
        let other = txn.clone();
        assert!(txn == other);
        assert!(format!("{txn:?}").contains("RequestPut"));
        assert!(other.encode_to_vec() == bytes);
        let deeper = Nested::new(other);
        assert_eq!(deeper.encoded_len(), bytes.len());
        drop(deeper);
    };
    let thread = std::thread::Builder::new().stack_size(512 << 10);
    thread.spawn(walk).unwrap().join().unwrap();
}

#[test]
fn strings_of_proto2_may_be_any_bytes() {
    // Method PUT, path /1/a, the value e2 82 'x' ff, and a field that is unknown.
    let bytes = b"\x12\x03PUT\x1a\x04/1/a\x22\x04\xe2\x82x\xff\xa0\x06\x01";
    let read: V2Request = decode_proto2(Bytes::from_static(bytes)).unwrap();
    let expected = V2Request {
        method: Some("PUT".into()),
        path: Some("/1/a".into()),
        val: Some("\u{fffd}\u{fffd}x\u{fffd}".into()),
        ..V2Request::default()
    };
    assert_eq!(read, expected);
    check::<V2Request>(bytes, Err(WireError::NotUtf8));
    let cut = decode_proto2::<V2Request>(Bytes::from_static(&bytes[..15]));
    assert_eq!(cut, Err(WireError::Malformed));
}
