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
use retcd_state::mvcc::{KeyspaceHash, Progress, RangeError};
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

fn entry(index: u64, words: &[&str]) -> Entry {
    Entry {
        index: Some(index),
        term: Some(1),
        data: Some(request(words).encode_to_vec().into()),
        ..Default::default()
    }
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
        let entry = entry(index, &words);
        let applied = machine.apply(Time::default(), &[entry]).unwrap();
        assert!(applied.replies[0].1.is_ok(), "{line}");
        while machine.compaction_step(3).unwrap() != Progress::Idle {}
    }
    assert!(compared > 100);
}

/// Applies puts, and compactions at the revision before the last of every third one.
struct Bench {
    machine: Machine,
    index: u64,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            machine: Machine::open(Backend::default(), MachineOptions::default()).unwrap(),
            index: 0,
        }
    }

    fn apply(&mut self, words: &[&str]) {
        self.index += 1;
        let entry = entry(self.index, words);
        let applied = self.machine.apply(Time::default(), &[entry]).unwrap();
        assert!(applied.replies[0].1.is_ok(), "{words:?}");
    }

    /// Three puts and a compaction, which is left to be done; its revision.
    fn round(&mut self) -> i64 {
        for key in ["a", "b", "a"] {
            self.apply(&["put", key, "value"]);
        }
        let revision = self.machine.reader().revision() - 1;
        self.apply(&["compact", &revision.to_string()]);
        revision
    }

    fn finish(&mut self) {
        while self.machine.compaction_step(1).unwrap() != Progress::Idle {}
    }

    fn hashes(&self) -> Vec<KeyspaceHash> {
        self.machine.reader().compaction_hashes()
    }
}

#[test]
fn the_hashes_of_the_last_ten_compactions_are_kept() {
    let mut bench = Bench::new();
    let mut expected = Vec::new();
    let mut before = -1;
    for _ in 0..13 {
        let revision = bench.round();
        bench.finish();
        let (hash, _) = bench.machine.reader().hash_kv(revision).unwrap();
        assert_eq!((hash.revision, hash.compact_revision), (revision, before));
        expected.insert(0, hash);
        before = revision;
    }
    expected.truncate(10);
    assert_eq!(bench.hashes(), expected);
    // Of one that is kept the hash is still told, although its revision is compacted.
    for hash in &expected {
        let told = bench.machine.reader().hash_kv(hash.revision).unwrap();
        assert_eq!(told, (*hash, bench.machine.reader().view().revision()));
    }
    let forgotten = expected[9].compact_revision;
    let refused = bench.machine.reader().hash_kv(forgotten);
    assert!(matches!(refused, Err(RangeError::Compacted)));
}

#[test]
fn a_compaction_that_comes_during_another_leaves_that_ones_hash_and_has_none() {
    let (mut bench, mut calm) = (Bench::new(), Bench::new());
    let first = bench.round();
    bench.machine.compaction_step(1).unwrap();
    let (second, third) = (bench.round(), bench.round());
    assert_eq!(bench.hashes(), []);
    bench.finish();
    for _ in 0..3 {
        calm.round();
        calm.finish();
    }
    let calm_hashes = calm.hashes();
    assert_eq!(bench.hashes(), [calm_hashes[2]]);
    assert_eq!(calm_hashes[2].revision, first);
    // The rows are the same all the same, and the next one is complete again.
    let fourth = bench.round();
    bench.finish();
    calm.round();
    calm.finish();
    assert_eq!(bench.hashes(), [calm.hashes()[0], calm_hashes[2]]);
    let newest = bench.hashes()[0];
    assert_eq!((newest.revision, newest.compact_revision), (fourth, third));
    let hash = |bench: &Bench, at| bench.machine.reader().hash_kv(at);
    assert!(matches!(hash(&bench, second), Err(RangeError::Compacted)));
    assert_eq!(
        hash(&bench, fourth + 1).unwrap(),
        hash(&calm, fourth + 1).unwrap()
    );
}
