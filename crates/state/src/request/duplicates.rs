//! Whether a transaction puts a key twice, or puts and deletes it.
//!
//! The rules are etcd's (v3.7: `server/etcdserver/api/v3rpc/key.go`, `checkIntervals`). The
//! operations of a branch are looked at in this order, on every level: deletions, nested
//! transactions one after the other, puts. A put is a duplicate if, of what was looked at before,
//! something puts or deletes its key. The two branches of a nested transaction do not see each
//! other, as only one of them is executed; what follows sees both. So a nested transaction may
//! delete what an earlier one has put, but not the other way round.
//!
//! Cost: O(n log² n) for n operations, however they are nested. The keys that are put are numbered
//! in their order, so that a deletion is an interval of numbers; a Fenwick tree tells how many
//! deletions cover a number. A branch is hidden from its sibling by taking back what it has added,
//! always the shorter one of the two: an operation is taken back only if its branch at least
//! doubles what surrounds it.

use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp};
use retcd_proto::with_stack;

/// Whether an operation of one of these, however deep, puts a key that another one puts or deletes.
pub(super) fn has_duplicates(ops: &[RequestOp]) -> bool {
    // Most transactions are like this, and this is made for all others.
    if let []
    | [
        RequestOp {
            request: Some(Request::RequestPut(_) | Request::RequestRange(_)),
        },
    ] = ops
    {
        return false;
    }
    let mut keys = Vec::new();
    collect_puts(ops, &mut keys);
    keys.sort_unstable();
    keys.dedup();
    let mut steps = Vec::new();
    flatten(ops, &keys, &mut steps);
    Seen::new(keys.len()).finds_duplicate(&steps)
}

fn collect_puts<'a>(ops: &'a [RequestOp], keys: &mut Vec<&'a [u8]>) {
    for op in ops {
        match &op.request {
            Some(Request::RequestPut(put)) => keys.push(&put.key),
            Some(Request::RequestTxn(txn)) => {
                txn.visit(|txn| {
                    collect_puts(&txn.success, keys);
                    collect_puts(&txn.failure, keys);
                });
            }
            _ => {}
        }
    }
}

/// What is looked at, in this order. Keys are numbers, of those that are put.
#[derive(Clone, Copy)]
enum Step {
    Put(u32),
    /// Of the keys `from..to`.
    Delete {
        from: u32,
        to: u32,
    },
    /// The next `success` steps and the `failure` ones behind them exclude each other.
    Either {
        success: usize,
        failure: usize,
    },
}

fn flatten(ops: &[RequestOp], keys: &[&[u8]], steps: &mut Vec<Step>) {
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            steps.extend(deletion(delete, keys));
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(txn)) = &op.request {
            let at = steps.len();
            steps.push(Step::Either {
                success: 0,
                failure: 0,
            });
            let between = txn.visit(|txn| {
                flatten(&txn.success, keys, steps);
                let between = steps.len();
                flatten(&txn.failure, keys, steps);
                between
            });
            let (success, failure) = (between - at - 1, steps.len() - between);
            steps[at] = Step::Either { success, failure };
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(PutRequest { key, .. })) = &op.request {
            steps.push(Step::Put(below(key, keys)));
        }
    }
}

/// The keys that `delete` counts as deleting, if it concerns any. An open end (one zero byte)
/// counts as the key that it spells, below all others: etcd does not see puts behind it as
/// duplicates and executes such a transaction.
fn deletion(delete: &DeleteRangeRequest, keys: &[&[u8]]) -> Option<Step> {
    let from = below(&delete.key, keys);
    let to = match &delete.range_end[..] {
        b"" if keys.get(from as usize) == Some(&&delete.key[..]) => from + 1,
        b"" => from,
        end => below(end, keys),
    };
    (from < to).then_some(Step::Delete { from, to })
}

/// How many of `keys` are below `key`: its number, if it is one of them.
fn below(key: &[u8], keys: &[&[u8]]) -> u32 {
    let below = keys.partition_point(|put| *put < key);
    u32::try_from(below).expect("a request does not have 4 G keys")
}

/// What the steps so far put and delete, but for those that exclude the present one.
struct Seen {
    /// How often each key is put.
    puts: Vec<u32>,
    /// A Fenwick tree over the differences between the deletions of neighbouring keys: the sum up
    /// to a key is the number of deletions that cover it.
    deletions: Vec<i32>,
    /// All puts and deletions that are counted in, in order.
    counted: Vec<Step>,
}

impl Seen {
    fn new(keys: usize) -> Seen {
        Seen {
            puts: vec![0; keys],
            deletions: vec![0; keys + 1],
            counted: Vec::new(),
        }
    }

    fn finds_duplicate(&mut self, steps: &[Step]) -> bool {
        let mut rest = steps;
        while let Some((&step, tail)) = rest.split_first() {
            rest = tail;
            match step {
                Step::Put(key) if self.puts[key as usize] > 0 || self.is_deleted(key) => {
                    return true;
                }
                Step::Put(_) | Step::Delete { .. } => self.count(step),
                Step::Either { success, failure } => {
                    let (branches, tail) = rest.split_at(success + failure);
                    rest = tail;
                    let (success, failure) = branches.split_at(success);
                    if with_stack(|| self.finds_duplicate_in_either(success, failure)) {
                        return true;
                    }
                }
            }
        }
        false
    }

    fn finds_duplicate_in_either(&mut self, one: &[Step], other: &[Step]) -> bool {
        let (short, long) = match one.len() <= other.len() {
            true => (one, other),
            false => (other, one),
        };
        let before = self.counted.len();
        if self.finds_duplicate(short) {
            return true;
        }
        let hidden = self.counted.split_off(before);
        for &step in &hidden {
            self.add(step, -1);
        }
        if self.finds_duplicate(long) {
            return true;
        }
        for step in hidden {
            self.count(step);
        }
        false
    }

    fn count(&mut self, step: Step) {
        self.add(step, 1);
        self.counted.push(step);
    }

    fn add(&mut self, step: Step, times: i32) {
        match step {
            Step::Put(key) => {
                let puts = &mut self.puts[key as usize];
                *puts = puts.wrapping_add_signed(times);
            }
            Step::Delete { from, to } => {
                self.add_from(from, times);
                self.add_from(to, -times);
            }
            Step::Either { .. } => {}
        }
    }

    /// Adds `times` to the number of deletions of every key from `key` on.
    fn add_from(&mut self, key: u32, times: i32) {
        let mut node = key as usize + 1;
        while let Some(sum) = self.deletions.get_mut(node) {
            *sum += times;
            node += node & node.wrapping_neg();
        }
    }

    fn is_deleted(&self, key: u32) -> bool {
        let mut node = key as usize + 1;
        let mut sum = 0;
        while node > 0 {
            sum += self.deletions[node];
            node &= node - 1;
        }
        sum > 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use retcd_proto::etcdserverpb::TxnRequest;

    use super::*;

    /// The rules spelled out: slow, and what the fast check is held against.
    #[derive(Default)]
    struct Naive<'a> {
        puts: BTreeSet<&'a [u8]>,
        deletes: Vec<&'a DeleteRangeRequest>,
    }

    impl<'a> Naive<'a> {
        fn of(ops: &'a [RequestOp]) -> Option<Naive<'a>> {
            let mut naive = Naive::default();
            for op in ops {
                if let Some(Request::RequestDeleteRange(delete)) = &op.request {
                    naive.deletes.push(delete);
                }
            }
            for op in ops {
                if let Some(Request::RequestTxn(txn)) = &op.request {
                    let (success, failure) = txn
                        .visit(|txn| Some((Naive::of(&txn.success)?, Naive::of(&txn.failure)?)))?;
                    for key in success.puts.union(&failure.puts) {
                        naive.put(key)?;
                    }
                    naive.deletes.extend(success.deletes);
                    naive.deletes.extend(failure.deletes);
                }
            }
            for op in ops {
                if let Some(Request::RequestPut(put)) = &op.request {
                    naive.put(&put.key)?;
                }
            }
            Some(naive)
        }

        fn put(&mut self, key: &'a [u8]) -> Option<()> {
            let deletes = |delete: &&DeleteRangeRequest| match &delete.range_end[..] {
                b"" => delete.key == key,
                end => key >= &delete.key[..] && key < end,
            };
            let deleted = self.deletes.iter().any(deletes);
            (!deleted && self.puts.insert(key)).then_some(())
        }
    }

    fn op(request: Request) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }

    fn key(rng: &mut fastrand::Rng) -> Vec<u8> {
        let alphabet = [0, b'a', b'b', b'c', 0xff];
        (0..rng.usize(1..3))
            .map(|_| alphabet[rng.usize(..5)])
            .collect()
    }

    fn random_ops(rng: &mut fastrand::Rng, depth: usize) -> Vec<RequestOp> {
        let count = rng.usize(..4);
        (0..count)
            .map(|_| match rng.u8(..if depth == 0 { 4 } else { 8 }) {
                0..2 => op(Request::RequestPut(PutRequest {
                    key: key(rng).into(),
                    ..Default::default()
                })),
                2 => op(Request::RequestDeleteRange(DeleteRangeRequest {
                    key: key(rng).into(),
                    range_end: if rng.bool() { vec![] } else { key(rng) }.into(),
                    ..Default::default()
                })),
                3 => op(Request::RequestRange(Default::default())),
                _ => {
                    let txn = TxnRequest {
                        success: random_ops(rng, depth - 1),
                        failure: random_ops(rng, depth - 1),
                        ..Default::default()
                    };
                    op(Request::RequestTxn(txn.into()))
                }
            })
            .collect()
    }

    #[test]
    fn agrees_with_the_rules_spelled_out() {
        let mut rng = fastrand::Rng::with_seed(27);
        let mut found = [0, 0];
        for _ in 0..60_000 {
            let depth = rng.usize(..5);
            let ops = random_ops(&mut rng, depth);
            let expected = Naive::of(&ops).is_none();
            assert_eq!(has_duplicates(&ops), expected, "{ops:?}");
            found[usize::from(expected)] += 1;
        }
        assert!(found.iter().all(|&found| found > 5000), "{found:?}");
    }

    fn numbered(n: usize) -> bytes::Bytes {
        format!("k{n:06}").into()
    }

    fn put(n: usize) -> RequestOp {
        op(Request::RequestPut(PutRequest {
            key: numbered(n),
            ..Default::default()
        }))
    }

    fn delete(n: usize) -> RequestOp {
        op(Request::RequestDeleteRange(DeleteRangeRequest {
            key: numbered(n),
            range_end: numbered(n + 1),
            ..Default::default()
        }))
    }

    /// As large as a request can be: comparing each put with each deletion would take minutes here.
    #[test]
    fn many_deletions_and_puts_are_checked_at_once() {
        const EACH: usize = 200_000;
        let mut ops: Vec<_> = (0..EACH).map(|n| put(2 * n)).collect();
        ops.extend((0..EACH).map(|n| delete(2 * n + 1)));
        assert!(!has_duplicates(&ops));
        ops.push(delete(EACH));
        assert!(has_duplicates(&ops));
    }

    /// A chain of nested transactions must not have the innermost operations counted once per
    /// level.
    #[test]
    fn depth_does_not_multiply_the_cost() {
        let mut ops: Vec<_> = (0..100_000).map(put).collect();
        for level in 0..120 {
            let (success, failure) = match level % 2 {
                0 => (ops, vec![put(200_000 + level)]),
                _ => (vec![put(200_000 + level)], ops),
            };
            let txn = TxnRequest {
                success,
                failure,
                ..Default::default()
            };
            ops = vec![op(Request::RequestTxn(txn.into()))];
        }
        assert!(!has_duplicates(&ops));
        ops.push(put(99_999));
        assert!(has_duplicates(&ops));
    }
}
