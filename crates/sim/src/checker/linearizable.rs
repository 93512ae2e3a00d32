//! Linearizability by search, key by key, from what the clients saw alone: no revisions, no log.
//!
//! Each key is a register that is written, read, deleted, and compared and set. A history is
//! linearizable if there is an order of its operations, each placed between its invocation and its
//! return, in which every answer is right. The search is that of Wing and Gong (1993) with Lowe's
//! memory (2017) of where it has been: a set of placed operations and the register's value need to
//! be tried only once.
//!
//! An operation without an answer may be placed at any time after its invocation, or not at all.
//! Values are unique, so that one which nobody ever saw need not be placed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use retcd_proto::etcdserverpb::TxnRequest;
use retcd_proto::etcdserverpb::compare::{CompareResult, TargetUnion};
use retcd_proto::etcdserverpb::request_op::Request as Op;

use super::{Verdict, ensure};
use crate::history::{Operation, Outcome};
use crate::request::{Answer, Kv, Request};

const PROMISE: &str = "every key is linearizable";
/// Steps after which a key's search is given up without a verdict.
const STEPS_MAX: u64 = 300_000;

/// What a register may hold: a number for each value, 0 for none.
type Value = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Write(Value),
    Read(Value),
    /// Writes the second if the register holds the first; else it was seen to hold something else.
    Swap(Value, Value),
    /// A swap that failed, with what it found.
    Failed(Value, Value),
    /// A swap of which nobody knows how it ended.
    MaybeSwap(Value, Value),
}

struct Call {
    operation: usize,
    action: Action,
    invoked: Duration,
    /// `Duration::MAX` if nobody knows.
    returned: Duration,
}

/// What the searches found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Searched {
    /// Keys that were decided.
    pub keys: usize,
    /// Keys whose search was given up.
    pub given_up: usize,
    /// Calls that were placed, or tried.
    pub calls: usize,
}

/// Searches an order for the operations on each key that `wanted` names.
pub fn check(
    operations: &[Operation],
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<Searched, super::Violation> {
    let mut searched = Searched::default();
    for (key, calls) in calls_by_key(operations, wanted) {
        searched.calls += calls.len();
        match search(&calls) {
            Some(true) => searched.keys += 1,
            Some(false) => report(&key, &calls, operations)?,
            None => searched.given_up += 1,
        }
    }
    Ok(searched)
}

fn report(key: &[u8], calls: &[Call], operations: &[Operation]) -> Verdict {
    ensure(false, PROMISE, || {
        let mut text = format!("no order for key {}:", crate::request::text(key));
        for call in calls {
            let operation = &operations[call.operation];
            let (from, to) = (call.invoked, call.returned);
            let to = match to {
                Duration::MAX => "?".to_owned(),
                to => format!("{to:?}"),
            };
            let line = format!(
                "\n  {from:?} … {to}: client {} {} -> {:?}",
                operation.client, operation.request, operation.outcome
            );
            text.push_str(&line);
        }
        text
    })
}

/// Numbers for values.
#[derive(Default)]
struct Values {
    numbers: BTreeMap<Bytes, Value>,
}

impl Values {
    fn number(&mut self, value: &Bytes) -> Value {
        let next = self.numbers.len() as Value + 1;
        *self.numbers.entry(value.clone()).or_insert(next)
    }

    fn of(&mut self, kv: Option<&Kv>) -> Value {
        kv.map_or(0, |kv| self.number(&kv.value))
    }
}

fn calls_by_key(
    operations: &[Operation],
    wanted: impl Fn(&[u8]) -> bool,
) -> BTreeMap<Bytes, Vec<Call>> {
    let mut keys: BTreeSet<Bytes> = BTreeSet::new();
    for operation in operations {
        written(&operation.request, &mut |key| {
            if wanted(key) {
                keys.insert(key.clone());
            }
        });
    }
    let mut values = Values::default();
    let mut calls: BTreeMap<Bytes, Vec<Call>> = BTreeMap::new();
    for (number, operation) in operations.iter().enumerate() {
        if matches!(operation.outcome, Outcome::Refused(_)) {
            continue;
        }
        for key in &keys {
            if let Some(action) = actions(operation, key, &mut values) {
                calls.entry(key.clone()).or_default().push(Call {
                    operation: number,
                    action,
                    invoked: operation.invoked,
                    returned: match operation.outcome {
                        Outcome::Answered(_) => operation.returned.unwrap_or(Duration::MAX),
                        _ => Duration::MAX,
                    },
                });
            }
        }
    }
    calls.values_mut().for_each(drop_unseen);
    calls
}

/// The keys that a request may write.
fn written(request: &Request, visit: &mut dyn FnMut(&Bytes)) {
    let Request::Write(write) = request else {
        return;
    };
    if let Some(put) = &write.put {
        visit(&put.key);
    }
    if let Some(txn) = &write.txn {
        for op in txn.success.iter().chain(&txn.failure) {
            if let Some(Op::RequestPut(put)) = &op.request {
                visit(&put.key);
            }
        }
    }
}

/// What the operation does to `key`.
fn actions(operation: &Operation, key: &Bytes, values: &mut Values) -> Option<Action> {
    let answer = match &operation.outcome {
        Outcome::Answered(answer) => Some(answer),
        _ => None,
    };
    match &operation.request {
        Request::Range(range) | Request::Stream(range)
            if !range.serializable && range.revision == 0 && !range.count_only =>
        {
            match answer {
                Some(Answer::Range(_, kvs, _)) if contains(&range.key, &range.range_end, key) => {
                    let found = kvs.iter().find(|kv| kv.key == *key);
                    // A limit says nothing of what it cut off.
                    let is_full = range.limit > 0 && kvs.len() as i64 >= range.limit;
                    let cut_off = is_full && found.is_none();
                    (!cut_off).then(|| Action::Read(values.of(found)))
                }
                _ => None,
            }
        }
        Request::Write(write) => {
            if let Some(put) = write.put.as_ref().filter(|put| put.key == *key) {
                return match answer {
                    Some(Answer::Error(_)) => None,
                    _ => Some(Action::Write(values.number(&put.value))),
                };
            }
            if let Some(delete) = &write.delete_range
                && !matches!(answer, Some(Answer::Error(_)))
                && contains(&delete.key, &delete.range_end, key)
            {
                return Some(Action::Write(0));
            }
            txn(write.txn.as_ref()?, answer, key, values)
        }
        _ => None,
    }
}

/// Transactions of the workload swap one value for another, or put several keys.
fn txn(
    txn: &TxnRequest,
    answer: Option<&Answer>,
    key: &Bytes,
    values: &mut Values,
) -> Option<Action> {
    let put = |ops: &[retcd_proto::etcdserverpb::RequestOp]| {
        ops.iter().find_map(|op| match &op.request {
            Some(Op::RequestPut(put)) if put.key == *key => Some(put.value.clone()),
            _ => None,
        })
    };
    let new = put(&txn.success).map(|value| values.number(&value));
    let compare = txn.compare.first();
    let expected = compare.and_then(|compare| match &compare.target_union {
        Some(TargetUnion::Value(value))
            if compare.key == *key && compare.result() == CompareResult::Equal =>
        {
            Some(values.number(value))
        }
        _ => None,
    });
    match (answer, expected, new) {
        (Some(Answer::Error(_)), _, _) => None,
        (Some(Answer::Txn(_, true, _)), Some(expected), Some(new)) => {
            Some(Action::Swap(expected, new))
        }
        (Some(Answer::Txn(_, true, _)), None, Some(new)) => Some(Action::Write(new)),
        (Some(Answer::Txn(_, false, answers)), Some(expected), _) => {
            let found = answers.iter().find_map(|answer| match answer {
                Answer::Range(_, kvs, _) => Some(kvs.iter().find(|kv| kv.key == *key)),
                _ => None,
            })?;
            Some(Action::Failed(expected, values.of(found)))
        }
        (None, Some(expected), Some(new)) => Some(Action::MaybeSwap(expected, new)),
        (None, None, Some(new)) => Some(Action::Write(new)),
        _ => None,
    }
}

fn contains(key: &[u8], end: &[u8], wanted: &[u8]) -> bool {
    match end {
        b"" => key == wanted,
        end => key <= wanted && wanted < end,
    }
}

/// Takes out writes without an answer whose value nobody saw.
fn drop_unseen(calls: &mut Vec<Call>) {
    let seen: BTreeSet<Value> = calls
        .iter()
        .filter_map(|call| match call.action {
            Action::Read(value) | Action::Failed(_, value) => Some(value),
            Action::Swap(expected, _) => Some(expected),
            // It may have succeeded, and then it has seen the value.
            Action::MaybeSwap(expected, _) => Some(expected),
            Action::Write(_) => None,
        })
        .collect();
    calls.retain(|call| match call.action {
        Action::Write(value) | Action::MaybeSwap(_, value) => {
            call.returned != Duration::MAX || value == 0 || seen.contains(&value)
        }
        _ => true,
    });
}

/// The register's value after `action`; nothing if its answer would be wrong.
fn step(value: Value, action: Action) -> Option<Value> {
    match action {
        Action::Write(new) => Some(new),
        Action::Read(seen) => (seen == value).then_some(value),
        Action::Swap(expected, new) => (expected == value).then_some(new),
        Action::Failed(expected, seen) => (seen == value && expected != value).then_some(value),
        Action::MaybeSwap(expected, new) => Some(if expected == value { new } else { value }),
    }
}

/// Whether there is an order; nothing if the search took too long.
fn search(calls: &[Call]) -> Option<bool> {
    let answered = calls
        .iter()
        .filter(|call| call.returned != Duration::MAX)
        .count();
    // By invocation; `order` is a list with holes where calls are placed.
    let mut order: Vec<usize> = (0..calls.len()).collect();
    order.sort_by_key(|call| calls[*call].invoked);
    let mut placed = vec![0u64; calls.len().div_ceil(64)];
    let mut value: Value = 0;
    let mut left = answered;
    let mut seen: BTreeSet<(Vec<u64>, Value)> = BTreeSet::new();
    // Placed calls with the value before, and from where in `order` to go on when they are taken
    // back.
    let mut stack: Vec<(usize, Value)> = Vec::new();
    let mut from = 0;
    let mut steps = 0;
    loop {
        if left == 0 {
            return Some(true);
        }
        steps += 1;
        if steps > STEPS_MAX {
            return None;
        }
        match candidate(calls, &order, &placed, value, from, &mut seen) {
            Some((position, next)) => {
                let call = order[position];
                placed[call / 64] |= 1 << (call % 64);
                stack.push((position, value));
                value = next;
                left -= usize::from(calls[call].returned != Duration::MAX);
                from = 0;
            }
            None => {
                let Some((position, before)) = stack.pop() else {
                    return Some(false);
                };
                let call = order[position];
                placed[call / 64] &= !(1 << (call % 64));
                left += usize::from(calls[call].returned != Duration::MAX);
                value = before;
                from = position + 1;
            }
        }
    }
}

/// The next call, from position `from` on, that may come first among those that are not placed and
/// leads to a state where the search has not been.
fn candidate(
    calls: &[Call],
    order: &[usize],
    placed: &[u64],
    value: Value,
    from: usize,
    seen: &mut BTreeSet<(Vec<u64>, Value)>,
) -> Option<(usize, Value)> {
    let is_placed = |call: usize| placed[call / 64] >> (call % 64) & 1 == 1;
    // Nothing may be placed that was invoked after another, unplaced one had returned.
    let mut first_return = Duration::MAX;
    for (position, &call) in order.iter().enumerate() {
        if is_placed(call) {
            continue;
        }
        if calls[call].invoked > first_return {
            return None;
        }
        first_return = first_return.min(calls[call].returned);
        if position < from {
            continue;
        }
        let Some(next) = step(value, calls[call].action) else {
            continue;
        };
        let mut after = placed.to_vec();
        after[call / 64] |= 1 << (call % 64);
        if seen.insert((after, next)) {
            return Some((position, next));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(from: u64, to: u64, action: Action) -> Call {
        let returned = match to {
            0 => Duration::MAX,
            to => Duration::from_millis(to),
        };
        Call {
            operation: 0,
            action,
            invoked: Duration::from_millis(from),
            returned,
        }
    }

    use Action::{Failed, MaybeSwap, Read, Swap, Write};

    #[test]
    fn reads_in_an_order_are_taken() {
        let calls = [
            call(1, 10, Write(1)),
            call(2, 12, Write(2)),
            call(3, 4, Read(0)),
            call(5, 6, Read(2)),
            call(11, 13, Read(1)),
        ];
        assert_eq!(search(&calls), Some(true));
    }

    #[test]
    fn a_read_of_the_past_is_not() {
        let calls = [
            call(1, 2, Write(1)),
            call(3, 4, Write(2)),
            call(5, 6, Read(1)),
        ];
        assert_eq!(search(&calls), Some(false));
        let calls = [
            call(1, 20, Write(1)),
            call(2, 3, Read(1)),
            call(4, 5, Read(0)),
        ];
        assert_eq!(search(&calls), Some(false));
    }

    #[test]
    fn what_has_no_answer_may_come_late_or_never() {
        let late = [
            call(1, 0, Write(1)),
            call(2, 3, Read(0)),
            call(4, 5, Read(1)),
        ];
        assert_eq!(search(&late), Some(true));
        let twice = [
            call(1, 0, Write(1)),
            call(2, 3, Read(1)),
            call(4, 5, Write(2)),
            call(6, 7, Read(1)),
        ];
        assert_eq!(search(&twice), Some(false));
    }

    #[test]
    fn swaps_need_what_they_expect() {
        let calls = [
            call(1, 2, Write(1)),
            call(3, 9, Swap(1, 2)),
            call(3, 9, Failed(1, 2)),
            call(3, 0, MaybeSwap(2, 3)),
            call(10, 11, Read(3)),
        ];
        assert_eq!(search(&calls), Some(true));
        let both = [
            call(1, 2, Write(1)),
            call(3, 9, Swap(1, 2)),
            call(3, 9, Swap(1, 3)),
        ];
        assert_eq!(search(&both), Some(false));
    }

    #[test]
    fn it_agrees_with_trying_every_order() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut verdicts = [0, 0];
        for _ in 0..3000 {
            let calls: Vec<Call> = (0..rng.usize(2..7))
                .map(|_| {
                    let from = rng.u64(1..10);
                    let to = from + rng.u64(1..6);
                    let (a, b) = (rng.u32(0..3), rng.u32(1..3));
                    let answered = [Read(a), Write(b), Swap(a, b), Failed(a, b)];
                    match rng.u8(..6) {
                        0 => call(from, 0, Write(b)),
                        1 => call(from, 0, MaybeSwap(a, b)),
                        n => call(from, to, answered[usize::from(n) - 2]),
                    }
                })
                .collect();
            let naive = every_order(&calls, &mut vec![], 0);
            assert_eq!(search(&calls), Some(naive));
            verdicts[usize::from(naive)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 300), "{verdicts:?}");
    }

    fn every_order(calls: &[Call], placed: &mut Vec<usize>, value: Value) -> bool {
        let left = |placed: &[usize]| {
            (0..calls.len())
                .filter(|call| !placed.contains(call))
                .collect::<Vec<_>>()
        };
        let rest = left(placed);
        if rest
            .iter()
            .all(|call| calls[*call].returned == Duration::MAX)
        {
            return true;
        }
        rest.iter().any(|&call| {
            let early = rest
                .iter()
                .all(|other| calls[*other].returned >= calls[call].invoked);
            let Some(next) = step(value, calls[call].action).filter(|_| early) else {
                return false;
            };
            placed.push(call);
            let found = every_order(calls, placed, next);
            placed.pop();
            found
        })
    }
}
