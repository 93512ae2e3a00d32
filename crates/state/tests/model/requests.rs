//! Requests drawn at random, of few keys, so that they meet.

use super::*;

pub fn key(rng: &mut Rng) -> Vec<u8> {
    // Keys that are prefixes of others, and a zero byte.
    let keys = ["a", "aa", "a\0", "ab", "b", "ba", "c", "d", "dd", "e"];
    keys[rng.usize(..keys.len())].into()
}

pub fn range_end(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..4) {
        0 => vec![],
        1 => vec![0],
        _ => key(rng),
    }
}

pub fn put(rng: &mut Rng, key: Vec<u8>) -> PutRequest {
    let mut put = PutRequest {
        key: key.into(),
        prev_kv: rng.bool(),
        ..Default::default()
    };
    put.ignore_value = rng.u8(..10) == 0;
    put.ignore_lease = rng.u8(..10) == 0;
    if !put.ignore_value {
        put.value = format!("v{}", rng.u8(..6)).into();
    }
    if !put.ignore_lease && rng.u8(..3) == 0 {
        put.lease = rng.i64(1..6);
    }
    put
}

pub fn delete(rng: &mut Rng) -> DeleteRangeRequest {
    let range_end = if rng.u8(..3) > 0 {
        vec![]
    } else {
        range_end(rng)
    };
    DeleteRangeRequest {
        key: key(rng).into(),
        range_end: range_end.into(),
        prev_kv: rng.bool(),
    }
}

pub fn random_range(rng: &mut Rng, revision: i64) -> RangeRequest {
    let mut r = RangeRequest {
        key: key(rng).into(),
        range_end: range_end(rng).into(),
        ..Default::default()
    };
    if rng.u8(..3) == 0 {
        r.key = "\0".into();
    }
    r.revision = if rng.bool() {
        0
    } else {
        rng.i64(-1..revision + 2)
    };
    r.limit = rng.i64(-1..8);
    r.keys_only = rng.u8(..5) == 0;
    r.count_only = rng.u8(..6) == 0;
    if rng.bool() {
        r.sort_order = rng.i32(0..3);
        r.sort_target = rng.i32(0..5);
    }
    if rng.u8(..3) == 0 {
        let bounds = [
            &mut r.min_mod_revision,
            &mut r.max_mod_revision,
            &mut r.min_create_revision,
            &mut r.max_create_revision,
        ];
        for bound in bounds {
            *bound = if rng.u8(..3) == 0 {
                rng.i64(0..revision + 1)
            } else {
                0
            };
        }
    }
    r
}

pub fn compare(rng: &mut Rng, revision: i64) -> Compare {
    let near = rng.i64(0..revision + 2);
    let (target, union) = match rng.u8(..5) {
        0 => (0, TargetUnion::Version(rng.i64(0..4))),
        1 => (1, TargetUnion::CreateRevision(near)),
        2 => (2, TargetUnion::ModRevision(near)),
        3 => (3, TargetUnion::Value(format!("v{}", rng.u8(..6)).into())),
        _ => (4, TargetUnion::Lease(rng.i64(0..6))),
    };
    let range_end = if rng.u8(..3) > 0 {
        vec![]
    } else {
        range_end(rng)
    };
    Compare {
        result: rng.i32(0..4),
        target,
        key: key(rng).into(),
        target_union: Some(union),
        range_end: range_end.into(),
    }
}

/// A transaction that puts no key twice and nothing that it deletes.
pub fn random_txn(
    rng: &mut Rng,
    revision: i64,
    depth: usize,
    free: &mut Vec<Vec<u8>>,
) -> TxnRequest {
    let compare = (0..rng.usize(..3))
        .map(|_| compare(rng, revision))
        .collect();
    let mut txn = TxnRequest {
        compare,
        ..Default::default()
    };
    for branch in [&mut txn.success, &mut txn.failure] {
        for _ in 0..rng.usize(..4) {
            let request = match rng.u8(..7) {
                0 | 1 => Request::RequestRange(random_range(rng, revision)),
                2 if depth > 0 => {
                    Request::RequestTxn(random_txn(rng, revision, depth - 1, free).into())
                }
                3 if !free.is_empty() => {
                    let key = free.swap_remove(rng.usize(..free.len()));
                    // An open end may overlap with puts: a key can be written and then deleted in
                    // one revision. (The other way round etcd loses the key in a compaction at just
                    // this revision: nothing to be equal to.)
                    let range_end = if rng.u8(..4) == 0 { "\0" } else { "" };
                    if range_end == "\0" {
                        free.retain(|other| *other < key);
                    }
                    Request::RequestDeleteRange(DeleteRangeRequest {
                        key: key.into(),
                        range_end: range_end.into(),
                        prev_kv: rng.bool(),
                    })
                }
                _ if !free.is_empty() => {
                    let key = free.swap_remove(rng.usize(..free.len()));
                    Request::RequestPut(put(rng, key))
                }
                _ => Request::RequestRange(random_range(rng, revision)),
            };
            branch.push(RequestOp {
                request: Some(request),
            });
        }
    }
    txn
}

pub fn random_request(rng: &mut Rng, revision: i64) -> Request {
    match rng.u8(..10) {
        0..5 => {
            let key = key(rng);
            Request::RequestPut(put(rng, key))
        }
        5 | 6 => Request::RequestDeleteRange(delete(rng)),
        7 => Request::RequestRange(random_range(rng, revision)),
        _ => {
            let mut free: Vec<Vec<u8>> = (0..5).map(|_| key(rng)).collect();
            free.sort();
            free.dedup();
            let txn = random_txn(rng, revision, 2, &mut free);
            retcd_state::request::check_txn(&txn, 128).unwrap();
            retcd_state::request::check_duplicates(&txn).unwrap();
            Request::RequestTxn(txn.into())
        }
    }
}
