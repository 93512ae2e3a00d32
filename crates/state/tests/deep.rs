//! Transactions within each other, of every depth that etcd can have committed.

#![allow(clippy::unwrap_used)]

use prost::Message;
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{InternalRaftRequest, PutRequest, RequestOp, TxnRequest};
use retcd_proto::raftpb::Entry;
use retcd_state::Time;
use retcd_state::mvcc::{OpReply, TxnReply};
use retcd_state::request::{RequestError, check_txn};

use retcd_state::machine::{Machine, MachineOptions, Reply};
use retcd_storage::backend::Backend;

/// `depth` transactions, the innermost of which puts a key.
fn nested(depth: usize) -> TxnRequest {
    let put = PutRequest {
        key: "deep".into(),
        ..Default::default()
    };
    let txn = |request| TxnRequest {
        success: vec![RequestOp {
            request: Some(request),
        }],
        ..Default::default()
    };
    let innermost = txn(Request::RequestPut(put));
    (1..depth).fold(innermost, |inner, _| txn(Request::RequestTxn(inner.into())))
}

fn depth(reply: &TxnReply) -> usize {
    match &reply.replies[..] {
        [OpReply::Txn(inner)] => 1 + inner.visit(depth),
        [OpReply::Put(_)] => 1,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_depth_is_applied() {
    let mut machine = Machine::open(Backend::default(), MachineOptions::default()).unwrap();
    for (levels, index) in (1..=200).chain([1000, 4999]).zip(1..) {
        let request = InternalRaftRequest {
            id: index,
            txn: Some(nested(levels)),
            ..Default::default()
        };
        let entry = Entry {
            index: Some(index),
            term: Some(2),
            data: Some(request.encode_to_vec().into()),
            ..Default::default()
        };
        let applied = machine.apply(Time::default(), &[entry]).unwrap();
        let [(_, Ok(Reply::Txn(reply)))] = &applied.replies[..] else {
            panic!("{:?}", applied.replies);
        };
        assert_eq!(depth(reply), levels);
    }
}

/// Each level takes an operation from those that are allowed.
#[test]
fn the_depth_that_is_proposed_is_bounded_by_operations() {
    assert_eq!(check_txn(&nested(128), 128), Ok(128));
    for levels in [129, 1000, 4999] {
        let checked = check_txn(&nested(levels), 128);
        assert_eq!(checked, Err(RequestError::TooManyOps), "{levels}");
    }
}
