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
use retcd_state::machine::{ApplyError, Machine, MachineOptions, Reply};
use retcd_state::mvcc::{
    Begun, Event, EventKind, KeyspaceHash, Kvs, OpReply, Prev, Progress, Projection, RangeError,
    RangeReply, Reader, Record, Revision,
};
use retcd_state::{Jobs, Time};
use retcd_storage::backend::{Backend, Bucket};

mod naive;
mod requests;

use naive::*;
use requests::*;

fn kv(record: &Record) -> KeyValue {
    record.to_key_value()
}

fn all(kvs: &Kvs) -> impl Iterator<Item = KeyValue> {
    kvs.iter().map(|record| kv(&record.unwrap()))
}

/// What of a pair belongs into an answer.
fn shown(kv: KeyValue, projection: Projection) -> KeyValue {
    match projection {
        Projection::Full => kv,
        Projection::WithoutValue => KeyValue {
            value: "".into(),
            ..kv
        },
    }
}

fn expected(reply: &RangeReply) -> Expected {
    let RangeReply {
        revision,
        kvs,
        more,
        count,
        projection,
    } = reply;
    let kvs = all(kvs).map(|kv| shown(kv, *projection)).collect();
    Expected {
        revision: revision.get(),
        kvs,
        more: *more,
        count: *count,
        projection: *projection,
    }
}

fn answer(reply: &OpReply) -> Answer {
    match reply {
        OpReply::Range(reply) => Answer::Range(expected(reply)),
        OpReply::Put(reply) => Answer::Put(reply.revision.get(), all(&reply.prev).next()),
        OpReply::DeleteRange(reply) => Answer::Delete(
            reply.revision.get(),
            reply.deleted,
            all(&reply.prevs).collect(),
        ),
        OpReply::Txn(reply) => reply.visit(|reply| {
            let replies = reply.replies.iter().map(answer);
            Answer::Txn(reply.revision.get(), reply.succeeded, replies.collect())
        }),
        OpReply::Empty => panic!("no request of these is empty"),
    }
}

fn top_answer(reply: Reply) -> Answer {
    answer(&match reply {
        Reply::Range(reply) => OpReply::Range(reply),
        Reply::Put(reply) => OpReply::Put(reply),
        Reply::DeleteRange(reply) => OpReply::DeleteRange(reply),
        Reply::Txn(reply) => OpReply::Txn(reply.into()),
        other => panic!("unexpected {other:?}"),
    })
}

fn apply_error(error: RangeError) -> ApplyError {
    match error {
        RangeError::Compacted => ApplyError::Compacted,
        RangeError::FutureRevision => ApplyError::FutureRevision,
        RangeError::ReplyTooLarge(bytes) => ApplyError::ReplyTooLarge(bytes),
        RangeError::Storage(error) => panic!("{error}"),
    }
}

fn internal(request: Request) -> InternalRaftRequest {
    let mut internal = InternalRaftRequest::default();
    match request {
        Request::RequestRange(r) => internal.range = Some(r),
        Request::RequestPut(r) => internal.put = Some(r),
        Request::RequestDeleteRange(r) => internal.delete_range = Some(r),
        Request::RequestTxn(r) => internal.txn = Some(r.into_inner()),
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

/// As connections read: what is not in memory, elsewhere.
fn in_pieces(reader: &Reader, request: &RangeRequest) -> Result<RangeReply, RangeError> {
    match reader.begin_range(request)? {
        Begun::Done(reply) => Ok(reply),
        Begun::Long(mut pieces) => loop {
            if let Some(reply) = pieces.step() {
                return reply;
            }
        },
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
        let found = in_pieces(reader, &request).map(|reply| expected(&reply));
        let found = found.map_err(apply_error);
        assert_eq!(found, model.range(&request), "{request:?}");
        let streamed = stream(reader, &request);
        if request.sort_target != 0 && !request.count_only {
            assert_eq!(streamed, model.range(&request), "{request:?}");
            continue;
        }
        let unsorted = RangeRequest {
            sort_order: 0,
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
        assert_eq!(streamed, whole, "{unsorted:?}");
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
        let projection = chunk.projection;
        kvs.extend(all(&chunk.kvs).map(|kv| shown(kv, projection)));
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
        let prev = model.states[&(revision - 1)].get(key).cloned();
        match &event.prev {
            Prev::Stored(found) => {
                let found = (found.key(), found.mod_revision(), found.lease());
                let prev = prev.as_ref();
                let expected = prev.map(|kv| (&kv.key[..], kv.mod_revision, kv.lease));
                assert_eq!(Some(found), expected);
            }
            known => assert_eq!(known.record().map(kv), prev),
        }
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
        assert_eq!((found.revision, current.get()), (revision, model.revision));
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
    options: MachineOptions,
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
    fn new(value_bytes_max: usize) -> Bench {
        let backend = Backend::default();
        let options = MachineOptions {
            value_bytes_max,
            // Whatever the order in which parts are read.
            jobs: Jobs {
                at_once: 3,
                run: |count, job| (0..count).rev().for_each(job),
                ..Jobs::default()
            },
            ..MachineOptions::default()
        };
        let machine = Machine::open(backend.clone(), options).unwrap();
        let (entries, cached) = (Vec::new(), BTreeMap::new());
        Bench {
            options,
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
        if self.entries.len().is_multiple_of(2) {
            self.backend.commit().unwrap();
        }
        self.machine = Machine::open(self.backend.clone(), self.options).unwrap();
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
            let expected: Vec<Box<[u8]>> = attached.map(|kv| Box::from(&kv.key[..])).collect();
            let found = lessor
                .lock()
                .time_to_live(*id, Time::default(), true)
                .unwrap();
            let keys: Vec<_> = found.keys.iter().map(|key| Box::from(&key[..])).collect();
            assert_eq!(keys, expected);
        }
    }
}

#[test]
fn agrees_with_the_model() {
    let (mut overlaps, mut let_go) = (0, 0);
    for seed in 0..24 {
        let mut rng = Rng::with_seed(seed);
        let mut bench = Bench::new(value_bytes_max(seed));
        for round in 0..60 {
            match rng.u8(..12) {
                0 => bench.compact(&mut rng),
                1 => bench.reopen(),
                2..5 => bench.step(&mut rng),
                _ => bench.write(&mut rng),
            }
            check_reads(&bench.machine.reader(), &bench.model, &mut rng, 12);
            let (bytes, others) = bench.machine.reader().values_in_memory();
            assert!(bytes <= bench.options.value_bytes_max, "{bytes} bytes");
            let_go += others;
            if round % 8 == 0 {
                check_history(&bench.machine.reader(), &bench.model);
                check_hashes(&bench.machine, &bench.backend, &bench.model, &bench.cached);
            }
        }
        overlaps += bench.overlaps;
    }
    assert!(overlaps > 10, "{overlaps} compactions during others");
    assert!(let_go > 1000, "{let_go} values were not in memory");
}

/// How many bytes of values are kept in memory: all, none or some.
fn value_bytes_max(seed: u64) -> usize {
    [usize::MAX, 0, 40][seed as usize % 3]
}

/// The same entries make the same rows, however they are batched and wherever a crash comes
/// between.
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
        let mut bench = Bench::new(value_bytes_max(seed));
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
    let mut bench = Bench::new(40);
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
