//! HashKV against the answers of etcd 3.7.1 to the same requests, before and after compactions.
//!
//! `data/hashkv.txt` has the requests in order, and between them what etcd answered:
//! `hash <revision> <hash> <compact revision> <hash revision>`.

// For clippy, which lets tests unwrap.
#![cfg(test)]

use prost::Message;
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, PutRequest, RequestOp, TxnRequest,
};
use retcd_proto::raftpb::Entry;
use retcd_state::Time;
use retcd_state::machine::{Machine, MachineOptions};
use retcd_state::mvcc::Progress;
use retcd_storage::backend::Backend;

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

fn delete(key: &str, range_end: &str) -> DeleteRangeRequest {
    let unescape = |text: &str| text.replace("\\0", "\0").into();
    DeleteRangeRequest {
        key: unescape(key),
        range_end: unescape(range_end),
        prev_kv: false,
    }
}

fn request(words: &[&str]) -> InternalRaftRequest {
    let mut request = InternalRaftRequest::default();
    match words {
        ["put", key, value] => request.put = Some(put(key, value)),
        ["del", key] => request.delete_range = Some(delete(key, "")),
        ["range-del", key, end] => request.delete_range = Some(delete(key, end)),
        ["txn", key, value, deleted] => {
            let ops = [
                Request::RequestPut(put(key, value)),
                Request::RequestDeleteRange(delete(deleted, "")),
            ];
            let success = ops.map(|op| RequestOp { request: Some(op) }).to_vec();
            request.txn = Some(TxnRequest {
                success,
                ..Default::default()
            });
        }
        ["compact", revision] => {
            let revision = revision.parse().unwrap();
            request.compaction = Some(CompactionRequest {
                revision,
                physical: true,
            });
        }
        other => panic!("unknown request {other:?}"),
    }
    request
}

#[test]
fn equals_etcds() {
    let mut machine = Machine::open(Backend::default(), MachineOptions::default()).unwrap();
    let (mut index, mut compared) = (0, 0);
    for line in include_str!("data/hashkv.txt").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["hash", numbers @ ..] = &words[..] {
            let [at, hash, compacted, revision] = numbers else {
                panic!("{line}")
            };
            let (found, _) = machine.reader().hash_kv(at.parse().unwrap()).unwrap();
            let found = [
                i64::from(found.hash),
                found.compact_revision,
                found.revision,
            ];
            let expected = [hash, compacted, revision].map(|number| number.parse::<i64>().unwrap());
            assert_eq!(found, expected, "{line}, behind entry {index}");
            compared += 1;
            continue;
        }
        index += 1;
        let data = Some(request(&words).encode_to_vec().into());
        let entry = Entry {
            index: Some(index),
            term: Some(1),
            data,
            ..Default::default()
        };
        let applied = machine.apply(Time::default(), &[entry]).unwrap();
        assert!(applied.replies[0].1.is_ok(), "{line}");
        while machine.compaction_step(3).unwrap() != Progress::Idle {}
    }
    assert!(compared > 100);
}
