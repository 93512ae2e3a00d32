//! The machine against a naive model: every revision kept as a whole map.
//!
//! Random requests go through log entries to both; the answers must be equal, and so must every
//! range request at every readable revision, also after the machine was opened anew from its
//! backend, in the middle of compactions, and on a second machine with the same entries.

// For clippy, which lets tests unwrap.
#![cfg(test)]

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use prost::Message;
use retcd_proto::etcdserverpb::compare::TargetUnion;
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, InternalRaftRequest, LeaseGrantRequest,
    LeaseRevokeRequest, PutRequest, RangeRequest, RequestHeader, RequestOp, TxnRequest,
};
use retcd_proto::mvccpb::KeyValue;
use retcd_proto::raftpb::Entry;
use retcd_state::Time;
use retcd_state::machine::{ApplyError, Machine, MachineOptions, Reply};
use retcd_state::mvcc::{
    Event, EventKind, KeyspaceHash, OpReply, Progress, Projection, RangeError, RangeReply, Reader,
    Record, Revision,
};
use retcd_storage::backend::{Backend, Bucket};

type State = BTreeMap<Vec<u8>, KeyValue>;

/// A change as it is on record: its revision, whether it is a tombstone, and its key.
type Change = (Revision, bool, Vec<u8>);

struct Model {
    /// The state after each revision.
    states: BTreeMap<i64, State>,
    /// All changes ever.
    changes: Vec<Change>,
    revision: i64,
    compacted: i64,
    leases: BTreeSet<i64>,
}

/// A write transaction of the model.
struct Draft<'a> {
    model: &'a mut Model,
    state: State,
    changes: Vec<Change>,
}

impl Model {
    fn new() -> Model {
        let states = BTreeMap::from([(1, State::new())]);
        Model {
            states,
            changes: Vec::new(),
            revision: 1,
            compacted: -1,
            leases: BTreeSet::new(),
        }
    }

    fn current(&self) -> &State {
        &self.states[&self.revision]
    }

    fn write<T>(&mut self, write: impl FnOnce(&mut Draft<'_>) -> T) -> T {
        let state = self.current().clone();
        let mut draft = Draft {
            model: self,
            state,
            changes: Vec::new(),
        };
        let result = write(&mut draft);
        let Draft { state, changes, .. } = draft;
        if !changes.is_empty() {
            self.revision += 1;
            self.states.insert(self.revision, state);
            self.changes.extend(changes);
        }
        result
    }

    fn range(&self, r: &RangeRequest) -> Result<Expected, ApplyError> {
        range(
            &self.states,
            self.current(),
            self.revision,
            self.compacted,
            r,
        )
    }

    fn execute(&mut self, request: &Request) -> Result<Answer, ApplyError> {
        match request {
            Request::RequestRange(range) => self.range(range).map(Answer::Range),
            Request::RequestPut(put) => {
                check_put(put, self.current(), &self.leases)?;
                Ok(self.write(|draft| draft.put(put)))
            }
            Request::RequestDeleteRange(delete) => Ok(self.write(|draft| draft.delete(delete))),
            Request::RequestTxn(txn) => {
                let path = choose(txn, self.current());
                check_path(&path, self)?;
                let answer = self.write(|draft| draft.execute(&path));
                let Answer::Txn(_, succeeded, answers) = answer else {
                    panic!("a txn's answer")
                };
                Ok(Answer::Txn(self.revision, succeeded, answers))
            }
        }
    }

    fn compact(&mut self, revision: i64) -> Result<(), ApplyError> {
        if revision <= self.compacted {
            return Err(ApplyError::Compacted);
        }
        if revision > self.revision {
            return Err(ApplyError::FutureRevision);
        }
        self.compacted = revision;
        Ok(())
    }

    /// The changes of `key`, split into generations that end with a tombstone; the last one may be
    /// empty. Without those that compactions removed.
    fn generations(&self, key: &[u8]) -> Vec<Vec<Change>> {
        let mut generations = vec![Vec::new()];
        for change in self.changes.iter().filter(|(_, _, changed)| changed == key) {
            generations.last_mut().unwrap().push(change.clone());
            if change.1 {
                generations.push(Vec::new());
            }
        }
        generations
    }

    /// The changes that a compaction at `at` keeps of those before it.
    fn kept(&self, at: i64, tombstones: bool) -> BTreeSet<Revision> {
        let keys: BTreeSet<_> = self.changes.iter().map(|(_, _, key)| key.clone()).collect();
        let mut kept = BTreeSet::new();
        for key in keys {
            let generations = self.generations(&key);
            let last = generations.len() - 1;
            let (i, generation) = generations
                .iter()
                .enumerate()
                .find(|(i, g)| *i == last || g.last().unwrap().0.main >= at)
                .unwrap();
            let newest = generation
                .iter()
                .rposition(|(revision, _, _)| revision.main <= at);
            if let Some(newest) = newest {
                let ends = newest + 1 == generation.len() && i != last;
                if tombstones || !ends {
                    kept.insert(generation[newest].0);
                }
            }
        }
        kept
    }

    /// The hash of `rows` as the format's description has it.
    fn hash(rows: &[Row], revision: i64, compacted: i64, keep: &BTreeSet<Revision>) -> u32 {
        let mut bytes = b"key".to_vec();
        for (at, tombstone, key, value) in rows {
            let unreadable = at.main <= compacted && !keep.is_empty() && !keep.contains(at);
            if at.main > revision || unreadable || at.main == compacted && *tombstone {
                continue;
            }
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
        }
        crc32c::crc32c(&bytes)
    }
}

/// A row of bucket `key`.
type Row = (Revision, bool, Vec<u8>, Vec<u8>);

fn rows(backend: &Backend) -> Vec<Row> {
    let rows = backend.reader();
    let rows = rows.range(Bucket::Key, b"", None).map(|row| {
        let (key, value) = row.unwrap();
        let (revision, tombstone) = Revision::from_key(&key).unwrap();
        (revision, tombstone, key.to_vec(), value.to_vec())
    });
    rows.collect()
}

#[derive(Clone, Debug, PartialEq)]
struct Expected {
    revision: i64,
    kvs: Vec<KeyValue>,
    more: bool,
    count: i64,
    projection: Projection,
}

#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Range(Expected),
    Put(i64, Option<KeyValue>),
    Delete(i64, i64, Vec<KeyValue>),
    Txn(i64, bool, Vec<Answer>),
}

impl Draft<'_> {
    fn revision(&self) -> i64 {
        self.model.revision + i64::from(!self.changes.is_empty())
    }

    fn change(&mut self, key: &[u8], tombstone: bool) {
        let revision = Revision {
            main: self.model.revision + 1,
            sub: self.changes.len() as i64,
        };
        self.changes.push((revision, tombstone, key.to_vec()));
    }

    fn put(&mut self, put: &PutRequest) -> Answer {
        let prev = self.state.get(&put.key[..]).cloned();
        let main = self.model.revision + 1;
        let old = prev.clone().unwrap_or_default();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: prev.as_ref().map_or(main, |prev| prev.create_revision),
            mod_revision: main,
            version: old.version + 1,
            value: if put.ignore_value {
                old.value
            } else {
                put.value.clone()
            },
            lease: if put.ignore_lease {
                old.lease
            } else {
                put.lease
            },
        };
        self.state.insert(put.key.to_vec(), kv);
        self.change(&put.key, false);
        Answer::Put(main, prev.filter(|_| put.prev_kv))
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> Answer {
        let gone: Vec<KeyValue> = inside(&self.state, &delete.key, &delete.range_end)
            .cloned()
            .collect();
        for kv in &gone {
            self.state.remove(&kv.key[..]);
            self.change(&kv.key, true);
        }
        let deleted = gone.len() as i64;
        Answer::Delete(
            self.revision(),
            deleted,
            if delete.prev_kv { gone } else { vec![] },
        )
    }

    fn execute(&mut self, path: &Path<'_>) -> Answer {
        let mut nested = path.nested.iter();
        let mut answers = Vec::new();
        for op in path.ops {
            answers.push(match op.request.as_ref().unwrap() {
                Request::RequestRange(r) => {
                    let (revision, compacted) = (self.revision(), self.model.compacted);
                    let states = &self.model.states;
                    Answer::Range(range(states, &self.state, revision, compacted, r).unwrap())
                }
                Request::RequestPut(put) => self.put(put),
                Request::RequestDeleteRange(delete) => self.delete(delete),
                Request::RequestTxn(_) => self.execute(nested.next().unwrap()),
            });
        }
        Answer::Txn(0, path.succeeded, answers)
    }
}

fn inside<'a>(
    state: &'a State,
    key: &'a [u8],
    end: &'a [u8],
) -> impl Iterator<Item = &'a KeyValue> {
    state.values().filter(move |kv| match end {
        b"" => kv.key == key,
        b"\0" => &kv.key[..] >= key,
        end => &kv.key[..] >= key && &kv.key[..] < end,
    })
}

fn range(
    states: &BTreeMap<i64, State>,
    current: &State,
    revision: i64,
    compacted: i64,
    r: &RangeRequest,
) -> Result<Expected, ApplyError> {
    if r.revision > revision {
        return Err(ApplyError::FutureRevision);
    }
    if r.revision > 0 && r.revision < compacted {
        return Err(ApplyError::Compacted);
    }
    let state = if r.revision > 0 && r.revision < revision {
        // A compaction may have been at a revision older than any state on record.
        &states[&r.revision]
    } else {
        current
    };
    let mut kvs: Vec<KeyValue> = inside(state, &r.key, &r.range_end).cloned().collect();
    let count = kvs.len() as i64;
    let within = |min: i64, max: i64, n: i64| (min == 0 || n >= min) && (max == 0 || n <= max);
    kvs.retain(|kv| {
        within(r.min_mod_revision, r.max_mod_revision, kv.mod_revision)
            && within(
                r.min_create_revision,
                r.max_create_revision,
                kv.create_revision,
            )
    });
    let bounds = [
        r.min_mod_revision,
        r.max_mod_revision,
        r.min_create_revision,
        r.max_create_revision,
    ];
    if r.sort_order == 0 && r.limit > 0 && bounds == [0; 4] {
        // Without an order the limit comes before the sorting.
        kvs.truncate(r.limit as usize + 1);
    }
    kvs.sort_by(|a, b| {
        let ordering = match r.sort_target {
            0 => a.key.cmp(&b.key),
            1 => a.version.cmp(&b.version),
            2 => a.create_revision.cmp(&b.create_revision),
            3 => a.mod_revision.cmp(&b.mod_revision),
            _ => a.value.cmp(&b.value),
        };
        if r.sort_order == 2 {
            ordering.reverse()
        } else {
            ordering
        }
    });
    let more = r.limit > 0 && kvs.len() as i64 > r.limit && !r.count_only;
    if r.limit > 0 {
        kvs.truncate(r.limit as usize);
    }
    if r.count_only {
        kvs.clear();
    }
    let projection = match (r.keys_only, r.sort_target) {
        (false, _) => Projection::Full,
        (true, 4) => Projection::KeysAndLeases,
        (true, _) => Projection::KeysOnly,
    };
    Ok(Expected {
        revision,
        kvs,
        more,
        count,
        projection,
    })
}

struct Path<'a> {
    succeeded: bool,
    ops: &'a [RequestOp],
    nested: Vec<Path<'a>>,
}

fn choose<'a>(txn: &'a TxnRequest, state: &State) -> Path<'a> {
    let succeeded = txn.compare.iter().all(|compare| holds(compare, state));
    let ops = if succeeded {
        &txn.success
    } else {
        &txn.failure
    };
    let nested = ops
        .iter()
        .filter_map(|op| match op.request.as_ref().unwrap() {
            Request::RequestTxn(txn) => Some(choose(txn, state)),
            _ => None,
        });
    Path {
        succeeded,
        ops,
        nested: nested.collect(),
    }
}

fn check_path(path: &Path<'_>, model: &Model) -> Result<(), ApplyError> {
    let mut nested = path.nested.iter();
    for op in path.ops {
        match op.request.as_ref().unwrap() {
            Request::RequestRange(r) if r.revision > model.revision => {
                return Err(ApplyError::FutureRevision);
            }
            Request::RequestRange(r) if r.revision != 0 && r.revision < model.compacted => {
                return Err(ApplyError::Compacted);
            }
            Request::RequestPut(put) => check_put(put, model.current(), &model.leases)?,
            Request::RequestTxn(_) => check_path(nested.next().unwrap(), model)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_put(put: &PutRequest, state: &State, leases: &BTreeSet<i64>) -> Result<(), ApplyError> {
    if put.lease != 0 && !leases.contains(&put.lease) {
        return Err(ApplyError::LeaseNotFound);
    }
    if (put.ignore_value || put.ignore_lease) && !state.contains_key(&put.key[..]) {
        return Err(ApplyError::KeyNotFound);
    }
    Ok(())
}

fn holds(compare: &Compare, state: &State) -> bool {
    let kvs: Vec<&KeyValue> = inside(state, &compare.key, &compare.range_end).collect();
    let absent = KeyValue::default();
    if kvs.is_empty() {
        return compare.target != 3 && holds_for(compare, &absent);
    }
    kvs.iter().all(|kv| holds_for(compare, kv))
}

fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let ordering = match compare.target_union.as_ref().unwrap() {
        TargetUnion::Version(n) => kv.version.cmp(n),
        TargetUnion::CreateRevision(n) => kv.create_revision.cmp(n),
        TargetUnion::ModRevision(n) => kv.mod_revision.cmp(n),
        TargetUnion::Value(value) => kv.value.cmp(value),
        TargetUnion::Lease(n) => kv.lease.cmp(n),
    };
    match compare.result {
        0 => ordering == Ordering::Equal,
        1 => ordering == Ordering::Greater,
        2 => ordering == Ordering::Less,
        _ => ordering != Ordering::Equal,
    }
}

// ---- random requests ----

fn key(rng: &mut Rng) -> Vec<u8> {
    // Keys that are prefixes of others, and a zero byte.
    let keys = ["a", "aa", "a\0", "ab", "b", "ba", "c", "d", "dd", "e"];
    keys[rng.usize(..keys.len())].into()
}

fn range_end(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..4) {
        0 => vec![],
        1 => vec![0],
        _ => key(rng),
    }
}

fn put(rng: &mut Rng, key: Vec<u8>) -> PutRequest {
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

fn delete(rng: &mut Rng) -> DeleteRangeRequest {
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

fn random_range(rng: &mut Rng, revision: i64) -> RangeRequest {
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

fn compare(rng: &mut Rng, revision: i64) -> Compare {
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
fn random_txn(rng: &mut Rng, revision: i64, depth: usize, free: &mut Vec<Vec<u8>>) -> TxnRequest {
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
                2 if depth > 0 => Request::RequestTxn(random_txn(rng, revision, depth - 1, free)),
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

fn random_request(rng: &mut Rng, revision: i64) -> Request {
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
            Request::RequestTxn(txn)
        }
    }
}

// ---- the machine's side ----

fn kv(record: &Record) -> KeyValue {
    record.to_key_value()
}

fn expected(reply: &RangeReply) -> Expected {
    let RangeReply {
        revision,
        kvs,
        more,
        count,
        projection,
    } = reply;
    let kvs = kvs.iter().map(kv).collect();
    Expected {
        revision: *revision,
        kvs,
        more: *more,
        count: *count,
        projection: *projection,
    }
}

fn answer(reply: &OpReply) -> Answer {
    match reply {
        OpReply::Range(reply) => Answer::Range(expected(reply)),
        OpReply::Put(reply) => Answer::Put(reply.revision, reply.prev.as_ref().map(kv)),
        OpReply::DeleteRange(reply) => Answer::Delete(
            reply.revision,
            reply.deleted,
            reply.prevs.iter().map(kv).collect(),
        ),
        OpReply::Txn(reply) => Answer::Txn(
            reply.revision,
            reply.succeeded,
            reply.replies.iter().map(answer).collect(),
        ),
        OpReply::Empty => panic!("no request of these is empty"),
    }
}

fn top_answer(reply: Reply) -> Answer {
    answer(&match reply {
        Reply::Range(reply) => OpReply::Range(reply),
        Reply::Put(reply) => OpReply::Put(reply),
        Reply::DeleteRange(reply) => OpReply::DeleteRange(reply),
        Reply::Txn(reply) => OpReply::Txn(reply),
        other => panic!("unexpected {other:?}"),
    })
}

fn apply_error(error: RangeError) -> ApplyError {
    match error {
        RangeError::Compacted => ApplyError::Compacted,
        RangeError::FutureRevision => ApplyError::FutureRevision,
        RangeError::InvalidSortOption => ApplyError::InvalidSortOption,
        RangeError::Storage(error) => panic!("{error}"),
    }
}

fn internal(request: Request) -> InternalRaftRequest {
    let mut internal = InternalRaftRequest::default();
    match request {
        Request::RequestRange(r) => internal.range = Some(r),
        Request::RequestPut(r) => internal.put = Some(r),
        Request::RequestDeleteRange(r) => internal.delete_range = Some(r),
        Request::RequestTxn(r) => internal.txn = Some(r),
    }
    internal
}

fn entry(index: u64, mut request: InternalRaftRequest) -> Entry {
    request.header = Some(RequestHeader {
        id: index * 10,
        ..Default::default()
    });
    let data = request.encode_to_vec().into();
    Entry {
        index: Some(index),
        term: Some(index / 50 + 1),
        data: Some(data),
        ..Default::default()
    }
}

fn check_reads(reader: &Reader, model: &Model, rng: &mut Rng, times: usize) {
    assert_eq!(reader.revision(), model.revision);
    assert_eq!(reader.compacted_revision(), model.compacted);
    assert_eq!(reader.keys_total(), model.current().len());
    for _ in 0..times {
        let request = random_range(rng, model.revision);
        let found = reader
            .range(&request)
            .map(|reply| expected(&reply))
            .map_err(apply_error);
        assert_eq!(found, model.range(&request), "{request:?}");
        let streamed = stream(reader, &request);
        let unsorted = RangeRequest {
            sort_order: 0,
            sort_target: if request.sort_target == 4 && request.keys_only {
                4
            } else {
                0
            },
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
            ..request
        };
        let mut whole = model.range(&unsorted);
        if let Ok(whole) = &mut whole {
            whole.kvs.sort_by(|a, b| a.key.cmp(&b.key));
        }
        if unsorted.sort_target == 0 {
            assert_eq!(streamed, whole, "{unsorted:?}");
        }
    }
    let view = reader.view();
    let key = key(rng);
    for at in model.compacted.max(1)..=model.revision {
        let found = view.record_at(&key, at).unwrap().map(|record| kv(&record));
        assert_eq!(
            found,
            model.states[&at].get(&key).cloned(),
            "{key:?} at {at}"
        );
    }
}

fn stream(reader: &Reader, request: &RangeRequest) -> Result<Expected, ApplyError> {
    let mut stream = reader
        .range_stream(request.clone(), 64)
        .map_err(apply_error)?;
    let mut kvs = Vec::new();
    loop {
        let chunk = stream
            .next_chunk()
            .unwrap()
            .expect("the last chunk comes before the end");
        kvs.extend(chunk.kvs.iter().map(kv));
        if let Some(last) = chunk.last {
            assert!(stream.next_chunk().unwrap().is_none());
            return Ok(Expected {
                kvs,
                ..expected(&last)
            });
        }
    }
}

/// The events of a revision, from two neighbouring states.
fn check_events(events: &[Event], model: &Model, revision: i64) {
    let changes: Vec<&Change> = model
        .changes
        .iter()
        .filter(|(at, _, _)| at.main == revision)
        .collect();
    assert_eq!(events.len(), changes.len());
    for (event, (_, tombstone, key)) in events.iter().zip(changes) {
        assert_eq!(event.kind == EventKind::Delete, *tombstone);
        assert_eq!(event.record.key(), key);
        assert_eq!(event.record.mod_revision(), revision);
        assert_eq!(
            event.prev.as_ref().map(kv),
            model.states[&(revision - 1)].get(key).cloned()
        );
        let after = model.states[&revision].get(key);
        let is_last = events.iter().rfind(|other| other.record.key() == key) == Some(event);
        match event.kind {
            EventKind::Put if is_last => assert_eq!(Some(&kv(&event.record)), after),
            EventKind::Put => {}
            EventKind::Delete => {
                assert!(after.is_none() || !is_last);
                assert_eq!(
                    (event.record.version(), event.record.value()),
                    (0, &b""[..])
                );
            }
        }
    }
}

fn check_history(reader: &Reader, model: &Model) {
    let view = reader.view();
    let from = model.compacted.max(1) + 1;
    let mut found: BTreeMap<i64, Vec<Event>> = BTreeMap::new();
    for change in view.changes(from, i64::MAX) {
        let (revision, event) = change.unwrap();
        found.entry(revision).or_default().push(event);
    }
    assert!(found.keys().copied().eq(from..=model.revision));
    for (revision, events) in found {
        check_events(&events, model, revision);
    }
}

fn check_hashes(machine: &Machine, backend: &Backend, model: &Model, cached: &Hashes) {
    let rows = rows(backend);
    let newest_first = cached.values().rev().copied();
    assert!(
        machine
            .reader()
            .compaction_hashes()
            .into_iter()
            .eq(newest_first)
    );
    for revision in model.compacted.max(1)..=model.revision {
        let (found, current) = machine.reader().hash_kv(revision).unwrap();
        assert_eq!((found.revision, current), (revision, model.revision));
        if let Some(hash) = cached.get(&revision) {
            assert_eq!(found, *hash, "cached at {revision}");
            continue;
        }
        let keep = model.kept(revision, false);
        let expected = Model::hash(&rows, revision, model.compacted, &keep);
        assert_eq!(
            (found.hash, found.compact_revision),
            (expected, model.compacted),
            "at {revision}"
        );
    }
}

/// Hashes that compactions made, by revision.
type Hashes = BTreeMap<i64, KeyspaceHash>;

struct Bench {
    backend: Backend,
    machine: Machine,
    model: Model,
    entries: Vec<Entry>,
    cached: Hashes,
    /// The hash of the compaction under way, if it is to be kept.
    pending: Option<KeyspaceHash>,
    /// How often a compaction came while such a one was under way.
    overlaps: usize,
}

impl Bench {
    fn new() -> Bench {
        let backend = Backend::default();
        let machine = Machine::open(backend.clone(), MachineOptions::default()).unwrap();
        let (entries, cached) = (Vec::new(), BTreeMap::new());
        Bench {
            backend,
            machine,
            model: Model::new(),
            entries,
            cached,
            pending: None,
            overlaps: 0,
        }
    }

    /// Applies a few random requests in one batch and checks the answers and events.
    fn write(&mut self, rng: &mut Rng) {
        let mut expected = Vec::new();
        let before = self.model.revision;
        let first = self.entries.len();
        for _ in 0..rng.usize(1..6) {
            let index = self.entries.len() as u64 + 1;
            let request = match rng.u8(..20) {
                0 => self.grant(rng, &mut expected),
                1 => self.revoke(rng, &mut expected),
                _ => {
                    let request = random_request(rng, self.model.revision);
                    expected.push((index * 10, Some(self.model.execute(&request))));
                    internal(request)
                }
            };
            self.entries.push(entry(index, request));
        }
        let applied = self
            .machine
            .apply(Time::default(), &self.entries[first..])
            .unwrap();
        for ((id, found), (expected_id, expected)) in applied.replies.into_iter().zip(expected) {
            assert_eq!(id, expected_id);
            if let Some(expected) = expected {
                let request = &self.entries[(id / 10) as usize - 1];
                let request = InternalRaftRequest::decode(request.data()).unwrap();
                assert_eq!(found.map(top_answer), expected, "{request:?}");
            }
        }
        assert!(
            applied
                .events
                .iter()
                .map(|(revision, _)| *revision)
                .eq(before + 1..=self.model.revision)
        );
        for (revision, events) in applied.events {
            check_events(&events, &self.model, revision);
        }
    }

    fn grant(
        &mut self,
        rng: &mut Rng,
        expected: &mut Vec<(u64, Option<Result<Answer, ApplyError>>)>,
    ) -> InternalRaftRequest {
        let id = rng.i64(1..6);
        let result = if self.model.leases.insert(id) {
            None
        } else {
            Some(Err(ApplyError::LeaseExists))
        };
        expected.push(((self.entries.len() as u64 + 1) * 10, result));
        let lease_grant = Some(LeaseGrantRequest { id, ttl: 60 });
        InternalRaftRequest {
            lease_grant,
            ..Default::default()
        }
    }

    fn revoke(
        &mut self,
        rng: &mut Rng,
        expected: &mut Vec<(u64, Option<Result<Answer, ApplyError>>)>,
    ) -> InternalRaftRequest {
        let id = rng.i64(1..6);
        let known = self.model.leases.remove(&id);
        expected.push((
            (self.entries.len() as u64 + 1) * 10,
            (!known).then_some(Err(ApplyError::LeaseNotFound)),
        ));
        if known {
            let attached = self.model.current().values().filter(|kv| kv.lease == id);
            let keys: Vec<_> = attached.map(|kv| kv.key.clone()).collect();
            self.model.write(|draft| {
                for key in keys {
                    draft.delete(&DeleteRangeRequest {
                        key,
                        ..Default::default()
                    });
                }
            });
        }
        let lease_revoke = Some(LeaseRevokeRequest { id });
        InternalRaftRequest {
            lease_revoke,
            ..Default::default()
        }
    }

    fn compact(&mut self, rng: &mut Rng) {
        let revision = rng.i64((self.model.compacted - 1).max(0)..self.model.revision + 2);
        let previous = self.model.compacted;
        let expected = self.model.compact(revision);
        if expected.is_ok() {
            let keep = self.model.kept(revision, true);
            let hash = Model::hash(&rows(&self.backend), revision, previous, &keep);
            match self.machine.is_compacting() {
                false => {
                    self.pending = Some(KeyspaceHash {
                        hash,
                        compact_revision: previous,
                        revision,
                    });
                }
                // The one under way is completed, and this one's hash is not kept.
                true => self.overlaps += usize::from(self.pending.is_some()),
            }
        }
        let index = self.entries.len() as u64 + 1;
        let compaction = Some(CompactionRequest {
            revision,
            physical: false,
        });
        self.entries.push(entry(
            index,
            InternalRaftRequest {
                compaction,
                ..Default::default()
            },
        ));
        let applied = self
            .machine
            .apply(Time::default(), &self.entries[index as usize - 1..])
            .unwrap();
        let found = applied.replies[0].1.clone().map(|_| ());
        assert_eq!(found, expected);
    }

    fn step(&mut self, rng: &mut Rng) {
        if let Progress::Finished { revision, .. } =
            self.machine.compaction_step(rng.usize(1..30)).unwrap()
        {
            if let Some(hash) = self.pending.take() {
                assert_eq!(revision, hash.revision);
                self.cached.insert(revision, hash);
                if self.cached.len() > 10 {
                    self.cached.pop_first();
                }
            } else {
                assert_eq!(revision, self.model.compacted);
            }
            match self.machine.is_compacting() {
                true => assert!(revision < self.model.compacted),
                false => self.check_compacted(),
            }
        }
    }

    /// What is left is what the rules keep, and nothing else.
    fn check_compacted(&self) {
        let compacted = self.model.compacted;
        let keep = self.model.kept(compacted, true);
        let expected: Vec<_> = self
            .model
            .changes
            .iter()
            .map(|(revision, tombstone, _)| (*revision, *tombstone))
            .filter(|(revision, _)| revision.main > compacted || keep.contains(revision))
            .collect();
        let found: Vec<_> = rows(&self.backend)
            .into_iter()
            .map(|(revision, tombstone, ..)| (revision, tombstone))
            .collect();
        assert_eq!(found, expected);
    }

    fn reopen(&mut self) {
        self.machine = Machine::open(self.backend.clone(), MachineOptions::default()).unwrap();
        assert_eq!(self.machine.applied().index, self.entries.len() as u64);
        self.cached.clear();
        self.pending = None;
        // Replaying the log changes nothing.
        let before = rows(&self.backend);
        let applied = self.machine.apply(Time::default(), &self.entries).unwrap();
        assert!(applied.replies.is_empty() && applied.events.is_empty());
        assert_eq!(rows(&self.backend), before);
        let lessor = self.machine.lessor();
        for id in &self.model.leases {
            let attached = self.model.current().values().filter(|kv| kv.lease == *id);
            let expected: Vec<_> = attached.map(|kv| Box::from(&kv.key[..])).collect();
            let found = lessor
                .lock()
                .time_to_live(*id, Time::default(), true)
                .unwrap();
            assert_eq!(found.keys, expected);
        }
    }
}

#[test]
fn agrees_with_the_model() {
    let mut overlaps = 0;
    for seed in 0..24 {
        let mut rng = Rng::with_seed(seed);
        let mut bench = Bench::new();
        for round in 0..60 {
            match rng.u8(..12) {
                0 => bench.compact(&mut rng),
                1 => bench.reopen(),
                2..5 => bench.step(&mut rng),
                _ => bench.write(&mut rng),
            }
            check_reads(&bench.machine.reader(), &bench.model, &mut rng, 12);
            if round % 8 == 0 {
                check_history(&bench.machine.reader(), &bench.model);
                check_hashes(&bench.machine, &bench.backend, &bench.model, &bench.cached);
            }
        }
        overlaps += bench.overlaps;
    }
    assert!(overlaps > 10, "{overlaps} compactions during others");
}

/// The same entries make the same rows, however they are batched and wherever a crash comes between.
#[test]
fn is_deterministic() {
    let all = |backend: &Backend| {
        let reader = backend.reader();
        let mut rows = Vec::new();
        for bucket in Bucket::ALL {
            rows.extend(
                reader
                    .range(bucket, b"", None)
                    .map(|row| (bucket, row.unwrap())),
            );
        }
        rows
    };
    for seed in 100..110 {
        let mut rng = Rng::with_seed(seed);
        let mut bench = Bench::new();
        for _ in 0..40 {
            if rng.u8(..10) == 0 {
                bench.compact(&mut rng);
                while bench.machine.is_compacting() {
                    bench.step(&mut rng);
                }
            }
            bench.write(&mut rng);
        }
        let backend = Backend::default();
        let mut machine = Machine::open(backend.clone(), MachineOptions::default()).unwrap();
        let mut entries = &bench.entries[..];
        while !entries.is_empty() {
            let (batch, rest) = entries.split_at(rng.usize(1..=entries.len().min(9)));
            machine.apply(Time::default(), batch).unwrap();
            entries = rest;
            if rng.u8(..5) == 0 {
                machine = Machine::open(backend.clone(), MachineOptions::default()).unwrap();
            }
        }
        while machine.compaction_step(7).unwrap() != Progress::Idle {}
        assert_eq!(all(&backend), all(&bench.backend), "seed {seed}");
    }
}

/// A view keeps telling the same while writes and compactions go on.
#[test]
fn views_do_not_change() {
    let mut rng = Rng::with_seed(5);
    let mut bench = Bench::new();
    for _ in 0..30 {
        bench.write(&mut rng);
    }
    let view = bench.machine.reader().view();
    let revision = bench.model.revision;
    let everything = RangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        ..Default::default()
    };
    let (now, before) = (
        view.range(&everything).unwrap(),
        RangeRequest {
            revision: revision / 2,
            ..everything.clone()
        },
    );
    let past = view.range(&before).unwrap();
    for _ in 0..30 {
        bench.write(&mut rng);
    }
    bench.model.compact(bench.model.revision).unwrap();
    let compaction = Some(CompactionRequest {
        revision: bench.model.revision,
        physical: true,
    });
    let index = bench.entries.len() as u64 + 1;
    bench.entries.push(entry(
        index,
        InternalRaftRequest {
            compaction,
            ..Default::default()
        },
    ));
    bench
        .machine
        .apply(Time::default(), &bench.entries[index as usize - 1..])
        .unwrap();
    while bench.machine.is_compacting() {
        bench.step(&mut rng);
    }
    assert_eq!(view.range(&everything).unwrap(), now);
    assert_eq!(view.range(&before).unwrap(), past);
    assert!(matches!(
        bench.machine.reader().range(&before),
        Err(RangeError::Compacted)
    ));
}
